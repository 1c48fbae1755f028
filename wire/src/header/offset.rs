//! Headers of offsets.

use crate::text::Text;

ext_header! {
    /// QUERY_CONSUMER_OFFSET.
    pub struct QueryConsumerOffsetRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }
}

ext_header! {
    /// The answer to QUERY_CONSUMER_OFFSET.
    pub struct QueryConsumerOffsetResponse {
        offset: i64 = "offset",
    }
}

ext_header! {
    /// UPDATE_CONSUMER_OFFSET.
    pub struct UpdateConsumerOffsetRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
    }
}

ext_header! {
    /// GET_MAX_OFFSET.
    pub struct GetMaxOffsetRequest<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        committed: bool = "committed" or true,
    }
}

ext_header! {
    /// The answer to GET_MAX_OFFSET.
    pub struct GetMaxOffsetResponse {
        offset: i64 = "offset",
    }
}

ext_header! {
    /// GET_MIN_OFFSET.
    pub struct GetMinOffsetRequest<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
    }
}

ext_header! {
    /// The answer to GET_MIN_OFFSET.
    pub struct GetMinOffsetResponse {
        offset: i64 = "offset",
    }
}

ext_header! {
    /// GET_EARLIEST_MSG_STORETIME.
    pub struct GetEarliestMsgStoretimeRequest<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
    }
}

ext_header! {
    /// The answer to GET_EARLIEST_MSG_STORETIME: ms, -1 for an empty queue.
    pub struct GetEarliestMsgStoretimeResponse {
        timestamp: i64 = "timestamp",
    }
}

ext_header! {
    /// SEARCH_OFFSET_BY_TIMESTAMP. `boundary_type` is LOWER (the default) or UPPER, in any case.
    pub struct SearchOffsetByTimestampRequest<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        timestamp: i64 = "timestamp",
        boundary_type: Option<Text<'a>> = "boundaryType",
    }
}

ext_header! {
    /// The answer to SEARCH_OFFSET_BY_TIMESTAMP.
    pub struct SearchOffsetByTimestampResponse {
        offset: i64 = "offset",
    }
}

ext_header! {
    /// QUERY_CORRECTION_OFFSET.
    pub struct QueryCorrectionOffsetRequest<'a> {
        filter_groups: Option<Text<'a>> = "filterGroups",
        compare_group: Text<'a> = "compareGroup",
        topic: Text<'a> = "topic",
    }
}

ext_header! {
    /// CLONE_GROUP_OFFSET. No topic means all topics.
    pub struct CloneGroupOffsetRequest<'a> {
        src_group: Text<'a> = "srcGroup",
        dest_group: Text<'a> = "destGroup",
        topic: Option<Text<'a>> = "topic",
        offline: bool = "offline" or false,
    }
}
