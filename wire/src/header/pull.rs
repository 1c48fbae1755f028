//! Headers of pulling.

use crate::text::Text;

ext_header! {
    /// PULL_MESSAGE and LITE_PULL_MESSAGE. The bits of `sys_flag` are in [`pull_flag`](crate::code::pull_flag).
    pub struct PullMessageRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        sys_flag: i32 = "sysFlag",
        commit_offset: i64 = "commitOffset",
        suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        subscription: Option<Text<'a>> = "subscription",
        sub_version: i64 = "subVersion",
        expression_type: Option<Text<'a>> = "expressionType",
        max_msg_bytes: Option<i32> = "maxMsgBytes",
        request_source: Option<i32> = "requestSource",
        proxy_froward_client_id: Option<Text<'a>> = "proxyFrowardClientId",
    }
}

ext_header! {
    /// The answer to a pull; its body is the messages. The first four fields are there whatever the code is.
    pub struct PullMessageResponse {
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        max_offset: i64 = "maxOffset",
        offset_delta: Option<i64> = "offsetDelta",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
        forbidden_type: Option<i32> = "forbiddenType",
    }
}
