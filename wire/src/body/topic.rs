//! Topics and their configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

java_enum! {
    /// Whether messages have one tag or several.
    pub enum TopicFilterType {
        /// One tag.
        #[default]
        SingleTag = "SINGLE_TAG",
        /// Several tags.
        MultiTag = "MULTI_TAG",
    }
}

/// Says whether a configuration changed: any difference means it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Counts changes.
    pub counter: i64,
    /// Grows when another broker becomes the master.
    pub state_version: i64,
    /// When the last change was made, ms.
    pub timestamp: i64,
}

/// A topic of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// The topic.
    pub topic_name: String,
    /// Queues that consumers see.
    pub read_queue_nums: i32,
    /// Queues that producers see.
    pub write_queue_nums: i32,
    /// See [`perm`](crate::code::perm).
    pub perm: i32,
    /// Whether messages have one tag or several.
    pub topic_filter_type: TopicFilterType,
    /// Bit 0: unit; bit 1: unit with subscribers.
    pub topic_sys_flag: i32,
    /// Whether producers keep to the queues of one broker.
    pub order: bool,
    /// Further attributes, such as `message.type`.
    pub attributes: BTreeMap<String, String>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            topic_name: String::new(),
            read_queue_nums: 16,
            write_queue_nums: 16,
            perm: 6,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_sys_flag: 0,
            order: false,
            attributes: BTreeMap::new(),
        }
    }
}

/// The topics of a broker: the body of GET_ALL_TOPIC_CONFIG's answer, and a part of REGISTER_BROKER's. What Java adds about static
/// topics is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigSerializeWrapper {
    /// By topic.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Of the table.
    pub data_version: DataVersion,
}

/// The body of UPDATE_AND_CREATE_TOPIC_LIST.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateTopicListRequestBody {
    /// The topics.
    pub topic_config_list: Vec<TopicConfig>,
}

/// Names of topics, and of whatever else a request lists as such.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// The names.
    pub topic_list: Vec<String>,
    /// Some broker's address, where the answer has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
}

/// A table of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// The texts, by key.
    pub table: BTreeMap<String, String>,
}

json_body!(
    DataVersion,
    TopicConfig,
    TopicConfigSerializeWrapper,
    CreateTopicListRequestBody,
    TopicList,
    KvTable
);
