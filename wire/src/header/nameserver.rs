//! Headers of the NameServer.

use crate::text::Text;

ext_header! {
    /// PUT_KV_CONFIG.
    pub struct PutKvConfigRequest<'a> {
        namespace: Text<'a> = "namespace",
        key: Text<'a> = "key",
        value: Text<'a> = "value",
    }
}

ext_header! {
    /// GET_KV_CONFIG.
    pub struct GetKvConfigRequest<'a> {
        namespace: Text<'a> = "namespace",
        key: Text<'a> = "key",
    }
}

ext_header! {
    /// The answer to GET_KV_CONFIG.
    pub struct GetKvConfigResponse<'a> {
        value: Option<Text<'a>> = "value",
    }
}

ext_header! {
    /// DELETE_KV_CONFIG.
    pub struct DeleteKvConfigRequest<'a> {
        namespace: Text<'a> = "namespace",
        key: Text<'a> = "key",
    }
}

ext_header! {
    /// GET_KVLIST_BY_NAMESPACE.
    pub struct GetKvlistByNamespaceRequest<'a> {
        namespace: Text<'a> = "namespace",
    }
}

ext_header! {
    /// QUERY_DATA_VERSION.
    pub struct QueryDataVersionRequest<'a> {
        broker_name: Text<'a> = "brokerName",
        broker_addr: Text<'a> = "brokerAddr",
        cluster_name: Text<'a> = "clusterName",
        broker_id: i64 = "brokerId",
    }
}

ext_header! {
    /// The answer to QUERY_DATA_VERSION.
    pub struct QueryDataVersionResponse {
        changed: bool = "changed",
    }
}

ext_header! {
    /// REGISTER_BROKER. `body_crc32` is 0 where it is not to be checked.
    pub struct RegisterBrokerRequest<'a> {
        broker_name: Text<'a> = "brokerName",
        broker_addr: Text<'a> = "brokerAddr",
        cluster_name: Text<'a> = "clusterName",
        ha_server_addr: Text<'a> = "haServerAddr",
        broker_id: i64 = "brokerId",
        heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMillis",
        enable_acting_master: Option<bool> = "enableActingMaster",
        compressed: bool = "compressed" or false,
        body_crc32: i32 = "bodyCrc32" or 0,
    }
}

ext_header! {
    /// The answer to REGISTER_BROKER.
    pub struct RegisterBrokerResponse<'a> {
        ha_server_addr: Option<Text<'a>> = "haServerAddr",
        master_addr: Option<Text<'a>> = "masterAddr",
    }
}

ext_header! {
    /// UNREGISTER_BROKER.
    pub struct UnregisterBrokerRequest<'a> {
        broker_name: Text<'a> = "brokerName",
        broker_addr: Text<'a> = "brokerAddr",
        cluster_name: Text<'a> = "clusterName",
        broker_id: i64 = "brokerId",
    }
}

ext_header! {
    /// GET_ROUTEINFO_BY_TOPIC.
    pub struct GetRouteinfoByTopicRequest<'a> {
        topic: Text<'a> = "topic",
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }
}

ext_header! {
    /// WIPE_WRITE_PERM_OF_BROKER.
    pub struct WipeWritePermOfBrokerRequest<'a> {
        broker_name: Text<'a> = "brokerName",
    }
}

ext_header! {
    /// The answer to WIPE_WRITE_PERM_OF_BROKER.
    pub struct WipeWritePermOfBrokerResponse {
        wipe_topic_count: i32 = "wipeTopicCount",
    }
}

ext_header! {
    /// ADD_WRITE_PERM_OF_BROKER.
    pub struct AddWritePermOfBrokerRequest<'a> {
        broker_name: Text<'a> = "brokerName",
    }
}

ext_header! {
    /// The answer to ADD_WRITE_PERM_OF_BROKER.
    pub struct AddWritePermOfBrokerResponse {
        add_topic_count: i32 = "addTopicCount",
    }
}

ext_header! {
    /// GET_TOPICS_BY_CLUSTER.
    pub struct GetTopicsByClusterRequest<'a> {
        cluster: Text<'a> = "cluster",
    }
}

ext_header! {
    /// REGISTER_TOPIC_IN_NAMESRV; its body is a `TopicRouteData`.
    pub struct RegisterTopicInNamesrvRequest<'a> {
        topic: Text<'a> = "topic",
    }
}

ext_header! {
    /// DELETE_TOPIC_IN_NAMESRV.
    pub struct DeleteTopicInNamesrvRequest<'a> {
        topic: Text<'a> = "topic",
        cluster_name: Option<Text<'a>> = "clusterName",
    }
}
