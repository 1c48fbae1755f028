//! Consumer groups and their configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DataVersion, SubscriptionData};

/// A consumer group of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// The group.
    pub group_name: String,
    /// Whether it may consume.
    pub consume_enable: bool,
    /// Kept for old brokers.
    pub consume_from_min_enable: bool,
    /// Whether it may broadcast.
    pub consume_broadcast_enable: bool,
    /// Whether a queue is popped by one member at a time.
    pub consume_message_orderly: bool,
    /// Queues of the group's retry topic.
    pub retry_queue_nums: i32,
    /// How often a message may be consumed in vain.
    pub retry_max_times: i32,
    /// How long each retry waits.
    pub group_retry_policy: GroupRetryPolicy,
    /// The broker that the group reads from.
    pub broker_id: i64,
    /// The broker that it reads from when it lags.
    pub which_broker_when_consume_slowly: i64,
    /// Whether members are told when others come and go.
    pub notify_consumer_ids_changed_enable: bool,
    /// Bit 0: unit.
    pub group_sys_flag: i32,
    /// Kept for old brokers; minutes.
    pub consume_timeout_minute: i32,
    /// The subscriptions that the group is held to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    /// Further attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            group_name: String::new(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queue_nums: 1,
            retry_max_times: 16,
            group_retry_policy: GroupRetryPolicy::default(),
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            group_sys_flag: 0,
            consume_timeout_minute: 15,
            subscription_data_set: None,
            attributes: BTreeMap::new(),
        }
    }
}

java_enum! {
    /// How a group's retries are spaced.
    pub enum GroupRetryPolicyType {
        /// Each retry waits longer by a factor.
        Exponential = "EXPONENTIAL",
        /// Each retry has its own wait.
        #[default]
        Customized = "CUSTOMIZED",
    }
}

/// How long each retry waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRetryPolicy {
    /// Which of the two counts.
    #[serde(rename = "type")]
    pub kind: GroupRetryPolicyType,
    /// For [`GroupRetryPolicyType::Exponential`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// For [`GroupRetryPolicyType::Customized`]; absent means the broker's delay levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
}

/// Waits that grow by a factor; milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetryPolicy {
    /// The first wait, ms.
    pub initial: i64,
    /// The longest wait, ms.
    pub max: i64,
    /// The factor.
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    fn default() -> Self {
        Self {
            initial: 5_000,
            max: 7_200_000,
            multiplier: 2,
        }
    }
}

/// A wait for each retry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetryPolicy {
    /// The waits, ms; the last one stays.
    pub next: Vec<i64>,
}

/// A subscription that a group is held to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SimpleSubscriptionData {
    /// The topic.
    pub topic: String,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression.
    pub expression: String,
    /// Its version.
    pub version: i64,
}

/// The body of GET_ALL_SUBSCRIPTIONGROUP_CONFIG's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupWrapper {
    /// By group.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
    /// What groups may not do with topics, as bits.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Of the tables.
    pub data_version: DataVersion,
}

/// The body of UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupList {
    /// The groups.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// The body of UPDATE_AND_GET_GROUP_FORBIDDEN's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupForbidden {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether the group may read the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<bool>,
}

/// Names of groups: the body of QUERY_TOPIC_CONSUME_BY_WHO's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// The names.
    pub group_list: Vec<String>,
}

/// The body of QUERY_SUBSCRIPTION_BY_CONSUMER's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuerySubscriptionResponseBody {
    /// What the group consumes of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
}

json_body!(
    SubscriptionGroupConfig,
    GroupRetryPolicy,
    SubscriptionGroupWrapper,
    SubscriptionGroupList,
    GroupForbidden,
    GroupList,
    QuerySubscriptionResponseBody,
);
