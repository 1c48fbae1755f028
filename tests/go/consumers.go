package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
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
// message that it receives is an event "message"; those of one queue may be shown in any order unless it is orderly. What it
// does with a message is in the message's properties: it fails so many times, or is answered with reply.
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
	if v.Namespace != "" {
		options = append(options, consumer.WithNamespace(v.Namespace))
	}
	if v.Trace {
		options = append(options, consumer.WithTrace(traced(v)))
	}
	if v.Orderly {
		options = append(options, consumer.WithConsumerOrder(true), consumer.WithSuspendCurrentQueueTimeMillis(200*time.Millisecond),
			consumer.WithRebalanceLockInterval(time.Second))
	}
	if v.MaxReconsume != nil {
		options = append(options, consumer.WithMaxReconsumeTimes(*v.MaxReconsume))
	}
	c, err := rocketmq.NewPushConsumer(options...)
	if err != nil {
		return err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: v.Expression}
	if v.SQL {
		selector.Type = consumer.SQL92
	}
	err = c.Subscribe(v.Topic, selector, func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		good := true
		for _, m := range messages {
			received(v.Name, m)
			good = consume(v, m) && good
		}
		switch concurrently, ok := primitive.GetConcurrentlyCtx(ctx); {
		case good:
			return consumer.ConsumeSuccess, nil
		case v.Orderly:
			return consumer.SuspendCurrentQueueAMoment, nil
		case ok:
			concurrently.DelayLevelWhenNextConsume = v.RetryLevel
		}
		return consumer.ConsumeRetryLater, nil
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

// consume does what the message asks for, and tells whether it succeeds.
func consume(v verb, m *primitive.MessageExt) bool {
	if ms, err := strconv.Atoi(m.GetProperty("works_ms")); err == nil {
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	if text := m.GetProperty("reply"); text != "" {
		reply, err := consumer.CreateReplyMessage(m, []byte(text))
		if err == nil {
			reply.Body = []byte(text) // What the client makes is empty.
			_, err = producers[v.RepliesWith].SendSync(context.Background(), reply)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "reply:", err)
			return false
		}
	}
	fails, err := strconv.Atoi(m.GetProperty("fails"))
	return err != nil || int(m.ReconsumeTimes) >= fails
}

func received(name string, m *primitive.MessageExt) {
	shown := m.Body
	if len(shown) > bodyShown {
		shown = shown[:bodyShown]
	}
	emit(event{"event": "message", "consumer": name, "topic": m.Topic, "broker": m.Queue.BrokerName, "queue": m.Queue.QueueId,
		"offset": m.QueueOffset, "message_id": m.MsgId, "tag": m.GetTags(), "keys": strings.TrimSpace(m.GetKeys()),
		"properties": m.GetProperties(), "reconsume_times": m.ReconsumeTimes, "born_ms": m.BornTimestamp,
		"stored_ms": m.StoreTimestamp, "received_ms": time.Now().UnixMilli(), "body": string(shown), "body_bytes": len(m.Body), "body_crc": crc32.ChecksumIEEE(m.Body)})
}
