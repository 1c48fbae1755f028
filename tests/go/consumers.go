package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// bodyShown is how much of a longer body is shown, beside its length and its checksum.
const bodyShown = 1024

var consumers = map[string]rocketmq.PushConsumer{}

// startConsumer starts a push consumer: model is clustering or broadcasting, from is first, last or timestamp. Each
// message that it receives is an event "message"; those of one queue may be shown in any order.
func startConsumer(v verb) error {
	model := consumer.Clustering
	if v.Model == "broadcasting" {
		model = consumer.BroadCasting
	}
	options := []consumer.Option{consumer.WithNameServer(nameservers), consumer.WithGroupName(v.Group),
		consumer.WithInstance(v.Name), consumer.WithConsumerModel(model)}
	switch v.From {
	case "first":
		options = append(options, consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	case "last":
		options = append(options, consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset))
	case "timestamp":
		// The client reads it as UTC.
		start := time.UnixMilli(v.TimestampMs).UTC().Format("20060102150405")
		options = append(options, consumer.WithConsumeFromWhere(consumer.ConsumeFromTimestamp), consumer.WithConsumeTimestamp(start))
	default:
		return fmt.Errorf("from %q", v.From)
	}
	c, err := rocketmq.NewPushConsumer(options...)
	if err != nil {
		return err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: v.Expression}
	err = c.Subscribe(v.Topic, selector, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages {
			received(v.Name, m)
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	consumers[v.Name] = c
	return nil
}

func received(name string, m *primitive.MessageExt) {
	shown := m.Body
	if len(shown) > bodyShown {
		shown = shown[:bodyShown]
	}
	emit(event{"event": "message", "consumer": name, "topic": m.Topic, "broker": m.Queue.BrokerName, "queue": m.Queue.QueueId,
		"offset": m.QueueOffset, "message_id": m.MsgId, "tag": m.GetTags(), "keys": strings.TrimSpace(m.GetKeys()),
		"properties": m.GetProperties(), "reconsume_times": m.ReconsumeTimes, "born_ms": m.BornTimestamp,
		"stored_ms": m.StoreTimestamp, "body": string(shown), "body_bytes": len(m.Body), "body_crc": crc32.ChecksumIEEE(m.Body)})
}
