//! Headers of POP consumption. Its codes do not fit the binary header.

use crate::text::Text;

ext_header! {
    /// POP_MESSAGE. Times in ms; `queue_id` -1 means any; `init_mode` is 0 for the minimum, 1 for the maximum.
    pub struct PopMessageRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        invisible_time: i64 = "invisibleTime",
        poll_time: i64 = "pollTime",
        born_time: i64 = "bornTime",
        init_mode: i32 = "initMode",
        exp_type: Option<Text<'a>> = "expType",
        exp: Option<Text<'a>> = "exp",
        order: bool = "order" or false,
        attempt_id: Option<Text<'a>> = "attemptId",
    }
}

ext_header! {
    /// The answer to POP_MESSAGE; its body is the messages.
    pub struct PopMessageResponse<'a> {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
        rest_num: i64 = "restNum",
        start_offset_info: Option<Text<'a>> = "startOffsetInfo",
        msg_offset_info: Option<Text<'a>> = "msgOffsetInfo",
        order_count_info: Option<Text<'a>> = "orderCountInfo",
    }
}

ext_header! {
    /// ACK_MESSAGE.
    pub struct AckMessageRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        extra_info: Text<'a> = "extraInfo",
        offset: i64 = "offset",
        lite_topic: Option<Text<'a>> = "liteTopic",
    }
}

ext_header! {
    /// CHANGE_MESSAGE_INVISIBLETIME.
    pub struct ChangeMessageInvisibletimeRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        extra_info: Text<'a> = "extraInfo",
        offset: i64 = "offset",
        invisible_time: i64 = "invisibleTime",
        suspend: bool = "suspend" or false,
        lite_topic: Option<Text<'a>> = "liteTopic",
    }
}

ext_header! {
    /// The answer to CHANGE_MESSAGE_INVISIBLETIME.
    pub struct ChangeMessageInvisibletimeResponse {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
    }
}

ext_header! {
    /// PEEK_MESSAGE. It is answered with a [`PopMessageResponse`].
    pub struct PeekMessageRequest<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        consumer_group: Text<'a> = "consumerGroup",
    }
}

ext_header! {
    /// NOTIFICATION.
    pub struct NotificationRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        poll_time: i64 = "pollTime",
        born_time: i64 = "bornTime",
        order: bool = "order" or false,
        attempt_id: Option<Text<'a>> = "attemptId",
        exp_type: Option<Text<'a>> = "expType",
        exp: Option<Text<'a>> = "exp",
    }
}

ext_header! {
    /// The answer to NOTIFICATION.
    pub struct NotificationResponse {
        has_msg: bool = "hasMsg",
        polling_full: bool = "pollingFull" or false,
    }
}

ext_header! {
    /// POLLING_INFO.
    pub struct PollingInfoRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
    }
}

ext_header! {
    /// The answer to POLLING_INFO.
    pub struct PollingInfoResponse {
        polling_num: i32 = "pollingNum",
    }
}
