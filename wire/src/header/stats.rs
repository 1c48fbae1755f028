//! Headers of asking for statistics.

use crate::text::Text;

ext_header! {
    /// GET_CONSUME_STATS. `topic_list` is joined with `;`.
    pub struct GetConsumeStatsRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Option<Text<'a>> = "topic",
        topic_list: Option<Text<'a>> = "topicList",
    }
}

ext_header! {
    /// GET_BROKER_CONSUME_STATS.
    pub struct GetBrokerConsumeStatsRequest {
        is_order: bool = "isOrder",
    }
}

ext_header! {
    /// VIEW_BROKER_STATS_DATA.
    pub struct ViewBrokerStatsDataRequest<'a> {
        stats_name: Text<'a> = "statsName",
        stats_key: Text<'a> = "statsKey",
    }
}
