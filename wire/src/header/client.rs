//! Headers of the registration of clients.

use crate::text::Text;

ext_header! {
    /// The answer to HEART_BEAT.
    pub struct HeartBeatResponse {
        support_heart_beat_v2: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
        sub_change: Option<bool> = "IS_SUB_CHANGE",
    }
}

ext_header! {
    /// UNREGISTER_CLIENT.
    pub struct UnregisterClientRequest<'a> {
        client_id: Text<'a> = "clientID",
        producer_group: Option<Text<'a>> = "producerGroup",
        consumer_group: Option<Text<'a>> = "consumerGroup",
    }
}

ext_header! {
    /// GET_CONSUMER_LIST_BY_GROUP.
    pub struct GetConsumerListByGroupRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
    }
}

ext_header! {
    /// GET_CONSUMER_CONNECTION_LIST.
    pub struct GetConsumerConnectionListRequest<'a> {
        consumer_group: Text<'a> = "consumerGroup",
    }
}

ext_header! {
    /// GET_PRODUCER_CONNECTION_LIST.
    pub struct GetProducerConnectionListRequest<'a> {
        producer_group: Text<'a> = "producerGroup",
    }
}
