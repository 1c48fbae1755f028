//! Headers of administering topics.

use crate::text::Text;

ext_header! {
    /// UPDATE_AND_CREATE_TOPIC. `attributes` reads `+key=value,-key`.
    pub struct UpdateAndCreateTopicRequest<'a> {
        topic: Text<'a> = "topic",
        default_topic: Text<'a> = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        perm: i32 = "perm",
        topic_filter_type: Text<'a> = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: bool = "order" or false,
        attributes: Option<Text<'a>> = "attributes",
        force: bool = "force" or false,
    }
}

ext_header! {
    /// DELETE_TOPIC_IN_BROKER.
    pub struct DeleteTopicInBrokerRequest<'a> {
        topic: Text<'a> = "topic",
    }
}

ext_header! {
    /// GET_ALL_TOPIC_CONFIG; a sender that wants everything has no fields.
    pub struct GetAllTopicConfigRequest<'a> {
        topic_seq: Option<i32> = "topicSeq",
        data_version: Option<Text<'a>> = "dataVersion",
        max_topic_num: Option<i32> = "maxTopicNum",
    }
}

ext_header! {
    /// The answer to GET_ALL_TOPIC_CONFIG.
    pub struct GetAllTopicConfigResponse {
        total_topic_num: Option<i32> = "totalTopicNum",
    }
}

ext_header! {
    /// GET_TOPIC_CONFIG.
    pub struct GetTopicConfigRequest<'a> {
        topic: Text<'a> = "topic",
        lo: Option<bool> = "lo",
    }
}

ext_header! {
    /// GET_TOPIC_STATS_INFO.
    pub struct GetTopicStatsInfoRequest<'a> {
        topic: Text<'a> = "topic",
    }
}

ext_header! {
    /// UPDATE_AND_CREATE_STATIC_TOPIC.
    pub struct UpdateAndCreateStaticTopicRequest<'a> {
        topic: Text<'a> = "topic",
        default_topic: Text<'a> = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        perm: i32 = "perm",
        topic_filter_type: Text<'a> = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: bool = "order" or false,
        attributes: Option<Text<'a>> = "attributes",
        force: bool = "force" or false,
    }
}
