package main

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

var transactionProducers = map[string]rocketmq.TransactionProducer{}

// asTheMessageSays decides by the message: by its property local at first, by check when the broker asks; where it has no
// check, by the verb.
type asTheMessageSays struct{ producer, check string }

func (d asTheMessageSays) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	return state(m.GetProperty("local"))
}

func (d asTheMessageSays) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	if m.Queue == nil {
		m.Queue = &primitive.MessageQueue{}
	}
	received(d.producer+" checks", m)
	if check := m.GetProperty("check"); check != "" {
		return state(check)
	}
	return state(d.check)
}

func state(name string) primitive.LocalTransactionState {
	switch name {
	case "commit":
		return primitive.CommitMessageState
	case "rollback":
		return primitive.RollbackMessageState
	}
	return primitive.UnknowState
}

func startTransactionProducer(v verb, options []producer.Option) error {
	p, err := rocketmq.NewTransactionProducer(asTheMessageSays{v.Name, v.Check}, options...)
	if err != nil {
		return err
	}
	transactionProducers[v.Name] = p
	return p.Start()
}

func sendInTransaction(v verb) error {
	p, ok := transactionProducers[v.Producer]
	if !ok {
		return fmt.Errorf("no producer of transactions is named %q", v.Producer)
	}
	for _, in := range v.Messages {
		m := message(in, nil)
		r, err := p.SendMessageInTransaction(context.Background(), m)
		if err != nil {
			report(v.ID, m, nil, err, 0)
		} else {
			report(v.ID, m, r.SendResult, nil, 0)
		}
	}
	return nil
}

// request sends a message and waits for its reply.
func request(v verb) (event, error) {
	p, ok := producers[v.Producer]
	if !ok {
		return nil, fmt.Errorf("no producer is named %q", v.Producer)
	}
	reply, err := p.Request(context.Background(), time.Duration(v.TimeoutMs)*time.Millisecond, message(*v.Message, nil))
	if err != nil {
		return nil, err
	}
	return event{"body": string(reply.Body), "properties": reply.GetProperties()}, nil
}
