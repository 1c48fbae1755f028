//! Where a topic's queues are, and who is in a cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of GET_ROUTEINFO_BY_TOPIC's answer. It has no blanks, which Go's client relies on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// The queues of an ordered topic, as `broker:number` joined by `;`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// The brokers that have the topic.
    pub broker_datas: Vec<BrokerData>,
    /// Filter servers by broker address; obsolete, always written.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// The queues on each broker.
    pub queue_datas: Vec<QueueData>,
}

/// The addresses of a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Addresses by broker id; 0 is the master.
    pub broker_addrs: BTreeMap<i64, String>,
    /// The name that master and slaves share.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
    /// Whether a slave may act as the master.
    pub enable_acting_master: bool,
    /// The zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

/// The queues of a topic on a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// The broker.
    pub broker_name: String,
    /// See [`perm`](crate::code::perm).
    pub perm: i32,
    /// Queues that consumers see.
    pub read_queue_nums: i32,
    /// See [`TopicConfig::topic_sys_flag`](super::TopicConfig::topic_sys_flag).
    pub topic_sys_flag: i32,
    /// Queues that producers see.
    pub write_queue_nums: i32,
}

/// The body of GET_BROKER_CLUSTER_INFO's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Brokers by name.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Names of brokers by cluster.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// Master and slaves of one broker name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroup {
    /// The cluster.
    pub cluster: String,
    /// The broker.
    pub broker_name: String,
    /// Addresses by broker id.
    pub broker_addrs: BTreeMap<i64, String>,
}

/// The body of GET_BROKER_MEMBER_GROUP's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GetBrokerMemberGroupResponseBody {
    /// The group.
    pub broker_member_group: BrokerMemberGroup,
}

json_body!(QueueData);
json_body_with_keys!(
    TopicRouteData,
    BrokerData,
    ClusterInfo,
    BrokerMemberGroup,
    GetBrokerMemberGroupResponseBody
);
