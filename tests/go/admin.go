package main

import (
	"context"

	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

func administer(v verb) (event, error) {
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver(nameservers)))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	ctx := context.Background()
	switch v.Do {
	case "topics":
		list, err := a.FetchAllTopicList(ctx)
		if err != nil {
			return nil, err
		}
		return event{"topics": list.TopicList}, nil
	case "create_topic":
		for _, broker := range v.Brokers {
			err := a.CreateTopic(ctx, admin.WithTopicCreate(v.Topic), admin.WithBrokerAddrCreate(broker),
				admin.WithReadQueueNums(v.QueueCount), admin.WithWriteQueueNums(v.QueueCount))
			if err != nil {
				return nil, err
			}
		}
	case "delete_topic":
		for _, broker := range v.Brokers {
			err := a.DeleteTopic(ctx, admin.WithTopicDelete(v.Topic), admin.WithBrokerAddrDelete(broker),
				admin.WithNameSrvAddr(nameservers))
			if err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}
