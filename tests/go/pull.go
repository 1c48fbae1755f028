package main

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// pullConsumers are known by their names; for the verb pull that is the group.
var pullConsumers = map[string]rocketmq.PullConsumer{}

func startPullConsumer(v verb) (rocketmq.PullConsumer, error) {
	c, err := rocketmq.NewPullConsumer(consumer.WithNameServer(nameservers), consumer.WithGroupName(v.Group),
		consumer.WithInstance(v.Name), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		// Without it the first failure is the last.
		consumer.WithMaxReconsumeTimes(16))
	if err != nil {
		return nil, err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: v.Expression}
	if v.SQL {
		selector.Type = consumer.SQL92
	}
	if err := c.Subscribe(v.Topic, selector); err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	pullConsumers[v.Name] = c
	return c, nil
}

var statuses = map[primitive.PullStatus]string{primitive.PullFound: "FOUND", primitive.PullNoNewMsg: "NO_NEW_MSG",
	primitive.PullNoMsgMatched: "NO_MATCHED_MSG", primitive.PullOffsetIllegal: "OFFSET_ILLEGAL"}

// pull is one pull of a consumer that is started by the first one of its group, with the expression of that.
func pull(v verb) (event, error) {
	v.Name = v.Group
	c, ok := pullConsumers[v.Name]
	if !ok {
		var err error
		if c, err = startPullConsumer(v); err != nil {
			return nil, err
		}
	}
	count := v.Count
	if count == 0 {
		count = 32
	}
	queue := &primitive.MessageQueue{Topic: v.Topic, BrokerName: v.Queue.Broker, QueueId: v.Queue.ID}
	r, err := c.PullFrom(context.Background(), queue, v.Offset, count)
	if err != nil {
		return nil, err
	}
	keys := []string{}
	for _, m := range r.GetMessageExts() {
		keys = append(keys, m.GetKeys())
	}
	return event{"status": statuses[r.Status], "next": r.NextBeginOffset, "min": r.MinOffset, "max": r.MaxOffset, "keys": keys}, nil
}

// poll takes what the consumer has for itself, shows it and acknowledges it, or sends back what its properties say.
func poll(v verb) (event, error) {
	c, ok := pullConsumers[v.Name]
	if !ok {
		return nil, fmt.Errorf("no pull consumer is named %q", v.Name)
	}
	ctx := context.Background()
	request, err := c.Poll(ctx, time.Duration(v.TimeoutMs)*time.Millisecond)
	if consumer.IsNoNewMsgError(err) {
		return event{"count": 0}, nil
	}
	if err != nil {
		return nil, err
	}
	result := consumer.ConsumeSuccess
	for _, m := range request.GetMsgList() {
		m.Queue = request.GetMQ()
		received(v.Name, m)
		if !consume(v, m) {
			result = consumer.ConsumeRetryLater
		}
	}
	c.ACK(ctx, request, result)
	return event{"count": len(request.GetMsgList())}, nil
}

// offsets of a pull consumer: "set" says which is to be the current one of a queue, "persist" that the broker is told.
func pullOffset(v verb) (event, error) {
	c, ok := pullConsumers[v.Name]
	if !ok {
		return nil, fmt.Errorf("no pull consumer is named %q", v.Name)
	}
	queue := &primitive.MessageQueue{Topic: v.Topic, BrokerName: v.Queue.Broker, QueueId: v.Queue.ID}
	if v.Do == "set_pull_offset" {
		if err := c.UpdateOffset(queue, v.Offset); err != nil {
			return nil, err
		}
		return nil, c.PersistOffset(context.Background(), v.Topic)
	}
	offset, err := c.CurrentOffset(queue)
	return event{"offset": offset}, err
}
