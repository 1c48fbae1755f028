//! Headers of what the server sends to clients, over the connections that they opened.

use crate::text::Text;

ext_header! {
    /// CHECK_TRANSACTION_STATE; its body is the half message as stored, under its real topic.
    pub struct CheckTransactionStateRequest<'a> {
        topic: Option<Text<'a>> = "topic",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        msg_id: Option<Text<'a>> = "msgId",
        transaction_id: Option<Text<'a>> = "transactionId",
        offset_msg_id: Option<Text<'a>> = "offsetMsgId",
    }
}

ext_header! {
    /// NOTIFY_CONSUMER_IDS_CHANGED.
    pub struct NotifyConsumerIdsChangedRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
    }
}

ext_header! {
    /// RESET_CONSUMER_CLIENT_OFFSET; its body is a `ResetOffsetBody`.
    pub struct ResetConsumerClientOffsetRequest<'a> {
        group: Text<'a> = "group",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId" or -1,
        offset: Option<i64> = "offset",
        timestamp: i64 = "timestamp",
        is_force: bool = "isForce",
    }
}

ext_header! {
    /// GET_CONSUMER_STATUS_FROM_CLIENT.
    pub struct GetConsumerStatusFromClientRequest<'a> {
        topic: Text<'a> = "topic",
        group: Text<'a> = "group",
        client_addr: Option<Text<'a>> = "clientAddr",
    }
}

ext_header! {
    /// GET_CONSUMER_RUNNING_INFO, from an admin to the broker and from there to the client.
    pub struct GetConsumerRunningInfoRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        client_id: Text<'a> = "clientId",
        jstack_enable: bool = "jstackEnable" or false,
    }
}

ext_header! {
    /// CONSUME_MESSAGE_DIRECTLY, from an admin to the broker and from there to the client.
    pub struct ConsumeMessageDirectlyRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        client_id: Option<Text<'a>> = "clientId",
        msg_id: Option<Text<'a>> = "msgId",
        broker_name: Option<Text<'a>> = "brokerName",
        topic: Option<Text<'a>> = "topic",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
    }
}

ext_header! {
    /// PUSH_REPLY_MESSAGE_TO_CLIENT; its body is the body of the reply.
    pub struct PushReplyMessageToClientRequest<'a> {
        producer_group: Text<'a> = "producerGroup",
        topic: Text<'a> = "topic",
        default_topic: Text<'a> = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<Text<'a>> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: bool = "unitMode" or false,
        born_host: Text<'a> = "bornHost",
        store_host: Text<'a> = "storeHost",
        store_timestamp: i64 = "storeTimestamp",
    }
}
