//! What clients say about themselves: HEART_BEAT and CHECK_CLIENT_CONFIG.

use serde::{Deserialize, Serialize};

use super::lenient;

java_enum! {
    /// How a consumer gets its messages.
    pub enum ConsumeType {
        /// It pulls by itself.
        #[default]
        Actively = "CONSUME_ACTIVELY",
        /// Its client pulls for it.
        Passively = "CONSUME_PASSIVELY",
        /// It pops.
        Pop = "CONSUME_POP",
    }
}

java_enum! {
    /// Who of a group gets a message.
    pub enum MessageModel {
        /// Everybody.
        Broadcasting = "BROADCASTING",
        /// One.
        #[default]
        Clustering = "CLUSTERING",
    }
}

java_enum! {
    /// Where a group begins that has no offset yet.
    pub enum ConsumeFromWhere {
        /// At the end.
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Deprecated.
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Deprecated.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Deprecated.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the beginning.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At a time.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// The body of HEART_BEAT.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// The client's id, unique in its cluster.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The producer groups it is in.
    pub producer_data_set: Vec<ProducerData>,
    /// The consumer groups it is in.
    pub consumer_data_set: Vec<ConsumerData>,
    /// A hash of the above; 0 from clients that do not use it.
    #[serde(deserialize_with = "lenient::integer")]
    pub heartbeat_fingerprint: i32,
    /// Whether the subscriptions were left out since the fingerprint is the last one's.
    pub without_sub: bool,
}

/// A producer group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// The group.
    pub group_name: String,
}

/// A consumer group, as one of its members sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// The group.
    pub group_name: String,
    /// How it consumes.
    pub consume_type: ConsumeType,
    /// Who gets a message.
    pub message_model: MessageModel,
    /// Where a new group begins.
    pub consume_from_where: ConsumeFromWhere,
    /// What it consumes.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Kept for old clients.
    pub unit_mode: bool,
}

/// What a group consumes of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Whether a filter server is asked; obsolete.
    pub class_filter_mode: bool,
    /// The topic.
    pub topic: String,
    /// The expression: `*`, tags joined by `||`, or SQL.
    pub sub_string: String,
    /// The tags of the expression.
    pub tags_set: Vec<String>,
    /// The hashes of the tags.
    #[serde(deserialize_with = "lenient::integers")]
    pub code_set: Vec<i32>,
    /// Grows when the subscription changes: the client's clock, ms.
    #[serde(deserialize_with = "lenient::integer")]
    pub sub_version: i64,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            topic: String::new(),
            sub_string: String::new(),
            tags_set: Vec::new(),
            code_set: Vec::new(),
            sub_version: 0,
            expression_type: "TAG".to_owned(),
        }
    }
}

/// The body of CHECK_CLIENT_CONFIG.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientRequestBody {
    /// The client's id.
    pub client_id: String,
    /// The consumer group.
    pub group: String,
    /// What is to be checked.
    pub subscription_data: SubscriptionData,
    /// The client's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

json_body!(
    HeartbeatData,
    ProducerData,
    ConsumerData,
    SubscriptionData,
    CheckClientRequestBody
);
