package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

var (
	producers = map[string]rocketmq.Producer{}
	streams   sync.Map // by id: *atomic.Bool, true when it is to stop
)

// givenQueueOr sends a message into its queue if it names one, else where the fallback says.
type givenQueueOr struct{ fallback producer.QueueSelector }

func (s givenQueueOr) Select(m *primitive.Message, queues []*primitive.MessageQueue, last string) *primitive.MessageQueue {
	if m.Queue != nil {
		return m.Queue
	}
	return s.fallback.Select(m, queues, last)
}

func startProducer(v verb) error {
	timeout := 10 * time.Second
	if v.TimeoutMs > 0 {
		timeout = time.Duration(v.TimeoutMs) * time.Millisecond
	}
	options := []producer.Option{producer.WithNameServer(nameservers), producer.WithGroupName(v.Group),
		producer.WithInstanceName(v.Name), producer.WithRetry(v.Retries), producer.WithSendMsgTimeout(timeout),
		producer.WithQueueSelector(givenQueueOr{producer.NewRoundRobinQueueSelector()})}
	if v.Namespace != "" {
		options = append(options, producer.WithNamespace(v.Namespace))
	}
	if v.Trace {
		options = append(options, producer.WithTrace(traced(v)))
	}
	if v.Transactions {
		return startTransactionProducer(v, options)
	}
	p, err := rocketmq.NewProducer(options...)
	if err != nil {
		return err
	}
	producers[v.Name] = p
	return p.Start()
}

func padded(text string, size int) []byte {
	body := []byte(text)
	if len(body) < size {
		body = append(body, bytes.Repeat([]byte{'x'}, size-len(body))...)
	}
	return body
}

func message(in messageIn, queue *queueAt) *primitive.Message {
	m := primitive.NewMessage(in.Topic, padded(in.Body, in.BodyBytes))
	m.WithTag(in.Tag).WithKeys([]string{in.Key})
	for k, v := range in.Properties {
		m.WithProperty(k, v)
	}
	if in.DelayLevel > 0 {
		m.WithDelayTimeLevel(in.DelayLevel)
	}
	// The client has no methods for these.
	for name, value := range map[string]int64{"TIMER_DELAY_SEC": in.DelaySec, "TIMER_DELAY_MS": in.DelayMs, "TIMER_DELIVER_MS": in.DeliverMs} {
		if value != 0 {
			m.WithProperty(name, strconv.FormatInt(value, 10))
		}
	}
	if queue != nil {
		m.Queue = &primitive.MessageQueue{Topic: in.Topic, BrokerName: queue.Broker, QueueId: queue.ID}
	}
	return m
}

// send sends what the verb lists; mode is sync, async, oneway, batch (all messages in one frame) or transaction.
func send(v verb) error {
	if v.Mode == "transaction" {
		return sendInTransaction(v)
	}
	p, ok := producers[v.Producer]
	if !ok {
		return fmt.Errorf("no producer is named %q", v.Producer)
	}
	var messages []*primitive.Message
	for _, in := range v.Messages {
		messages = append(messages, message(in, v.Queue))
	}
	ctx := context.Background()
	switch v.Mode {
	case "sync":
		for _, m := range messages {
			r, err := p.SendSync(ctx, m)
			report(v.ID, m, r, err, 0)
		}
	case "async":
		var wait sync.WaitGroup
		for _, m := range messages {
			wait.Add(1)
			err := p.SendAsync(ctx, func(_ context.Context, r *primitive.SendResult, err error) {
				report(v.ID, m, r, err, 0)
				wait.Done()
			}, m)
			if err != nil {
				report(v.ID, m, nil, err, 0)
				wait.Done()
			}
		}
		wait.Wait()
	case "oneway":
		for _, m := range messages {
			if err := p.SendOneWay(ctx, m); err != nil {
				return err
			}
		}
	case "batch":
		r, err := p.SendSync(ctx, messages...)
		for i, m := range messages {
			report(v.ID, m, r, err, i)
		}
	default:
		return fmt.Errorf("mode %q", v.Mode)
	}
	return nil
}

// stream opens one lane for each of the verb's queues. A lane sends one message after the other into its queue, with the
// keys lane-0, lane-1 ..., until so many are acknowledged in all or the stream is stopped. After a failure a lane waits a
// moment and goes on with the next message.
func stream(v verb) error {
	p, ok := producers[v.Producer]
	if !ok {
		return fmt.Errorf("no producer is named %q", v.Producer)
	}
	var stop atomic.Bool
	var taken atomic.Int64
	var lanes sync.WaitGroup
	streams.Store(v.ID, &stop)
	for lane := range v.Queues {
		lanes.Add(1)
		go func() {
			defer lanes.Done()
			for i := 0; !stop.Load() && (v.Acknowledged == 0 || taken.Add(1) <= v.Acknowledged); i++ {
				key := fmt.Sprintf("%d-%d", lane, i)
				m := message(messageIn{Topic: v.Topic, Tag: "stream", Key: key, Body: key, BodyBytes: v.BodyBytes}, &v.Queues[lane])
				r, err := p.SendSync(context.Background(), m)
				if !report(v.ID, m, r, err, 0) {
					taken.Add(-1)
					time.Sleep(50 * time.Millisecond)
				}
			}
		}()
	}
	go func() {
		lanes.Wait()
		streams.Delete(v.ID)
		done(v.ID, nil)
	}()
	return nil
}

func stopStream(id int64) {
	if stop, ok := streams.Load(id); ok {
		stop.(*atomic.Bool).Store(true)
	}
}

// report shows the outcome of a message and whether it was acknowledged; index is its place in its batch, for which the
// answer tells the first offset, and all ids with commas.
func report(id int64, m *primitive.Message, r *primitive.SendResult, err error, index int) bool {
	if err == nil && r.Status != primitive.SendOK {
		err = errors.New(fmt.Sprint("status ", r.Status))
	}
	key := strings.TrimSpace(m.GetKeys())
	if err != nil {
		emit(event{"id": id, "event": "failed", "key": key, "error": err.Error()})
		return false
	}
	emit(event{"id": id, "event": "sent", "key": key, "topic": m.Topic, "broker": r.MessageQueue.BrokerName,
		"queue": r.MessageQueue.QueueId, "offset": r.QueueOffset + int64(index), "message_id": part(r.MsgID, index),
		"offset_message_id": part(r.OffsetMsgID, index)})
	return true
}

func part(ids string, index int) string {
	parts := strings.Split(ids, ",")
	if index < len(parts) {
		return parts[index]
	}
	return ""
}
