//! Headers of administering consumer groups.

use crate::text::Text;

ext_header! {
    /// GET_ALL_SUBSCRIPTIONGROUP_CONFIG; a sender that wants everything has no fields.
    pub struct GetAllSubscriptiongroupConfigRequest<'a> {
        group_seq: Option<i32> = "groupSeq",
        data_version: Option<Text<'a>> = "dataVersion",
        max_group_num: Option<i32> = "maxGroupNum",
    }
}

ext_header! {
    /// The answer to GET_ALL_SUBSCRIPTIONGROUP_CONFIG.
    pub struct GetAllSubscriptiongroupConfigResponse {
        total_group_num: Option<i32> = "totalGroupNum",
    }
}

ext_header! {
    /// GET_SUBSCRIPTIONGROUP_CONFIG.
    pub struct GetSubscriptiongroupConfigRequest<'a> {
        group: Text<'a> = "group",
    }
}

ext_header! {
    /// DELETE_SUBSCRIPTIONGROUP.
    pub struct DeleteSubscriptiongroupRequest<'a> {
        group_name: Text<'a> = "groupName",
        clean_offset: bool = "cleanOffset" or false,
    }
}

ext_header! {
    /// UPDATE_AND_GET_GROUP_FORBIDDEN.
    pub struct UpdateAndGetGroupForbiddenRequest<'a> {
        group: Text<'a> = "group",
        topic: Text<'a> = "topic",
        readable: Option<bool> = "readable",
    }
}

ext_header! {
    /// QUERY_TOPIC_CONSUME_BY_WHO.
    pub struct QueryTopicConsumeByWhoRequest<'a> {
        topic: Text<'a> = "topic",
    }
}

ext_header! {
    /// QUERY_TOPICS_BY_CONSUMER.
    pub struct QueryTopicsByConsumerRequest<'a> {
        group: Text<'a> = "group",
    }
}

ext_header! {
    /// QUERY_SUBSCRIPTION_BY_CONSUMER.
    pub struct QuerySubscriptionByConsumerRequest<'a> {
        group: Text<'a> = "group",
        topic: Option<Text<'a>> = "topic",
    }
}

ext_header! {
    /// INVOKE_BROKER_TO_RESET_OFFSET. `timestamp` in ms, -1 for the maximum; `queue_id` -1 means all.
    pub struct InvokeBrokerToResetOffsetRequest<'a> {
        group: Text<'a> = "group",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId" or -1,
        offset: Option<i64> = "offset",
        timestamp: i64 = "timestamp",
        is_force: bool = "isForce",
    }
}

ext_header! {
    /// INVOKE_BROKER_TO_GET_CONSUMER_STATUS.
    pub struct InvokeBrokerToGetConsumerStatusRequest<'a> {
        topic: Text<'a> = "topic",
        group: Text<'a> = "group",
        client_addr: Option<Text<'a>> = "clientAddr",
    }
}

ext_header! {
    /// RESUME_CHECK_HALF_MESSAGE.
    pub struct ResumeCheckHalfMessageRequest<'a> {
        topic: Option<Text<'a>> = "topic",
        msg_id: Option<Text<'a>> = "msgId",
    }
}
