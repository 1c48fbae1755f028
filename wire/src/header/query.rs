//! Headers of looking up messages and queues.

use crate::text::Text;

ext_header! {
    /// QUERY_MESSAGE. Times in ms; `unique_key_query` is "true" where `key` is a message id.
    pub struct QueryMessageRequest<'a> {
        topic: Text<'a> = "topic",
        key: Text<'a> = "key",
        max_num: i32 = "maxNum",
        begin_timestamp: i64 = "beginTimestamp",
        end_timestamp: i64 = "endTimestamp",
        index_type: Option<Text<'a>> = "indexType",
        last_key: Option<Text<'a>> = "lastKey",
        unique_key_query: Option<bool> = "_UNIQUE_KEY_QUERY",
    }
}

ext_header! {
    /// The answer to QUERY_MESSAGE; its body is the messages.
    pub struct QueryMessageResponse {
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        index_last_update_phyoffset: i64 = "indexLastUpdatePhyoffset",
    }
}

ext_header! {
    /// VIEW_MESSAGE_BY_ID. `offset` is the physical offset.
    pub struct ViewMessageByIdRequest<'a> {
        topic: Option<Text<'a>> = "topic",
        offset: i64 = "offset",
    }
}

ext_header! {
    /// QUERY_CONSUME_QUEUE.
    pub struct QueryConsumeQueueRequest<'a> {
        topic: Option<Text<'a>> = "topic",
        queue_id: i32 = "queueId" or 0,
        index: i64 = "index" or 0,
        count: i32 = "count" or 0,
        consumer_group: Option<Text<'a>> = "consumerGroup",
    }
}

ext_header! {
    /// QUERY_CONSUME_TIME_SPAN.
    pub struct QueryConsumeTimeSpanRequest<'a> {
        topic: Text<'a> = "topic",
        group: Text<'a> = "group",
    }
}
