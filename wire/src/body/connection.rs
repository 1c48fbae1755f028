//! Who is connected.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};

/// A client's connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// The client's id.
    pub client_id: String,
    /// Where it connects from, `ip:port`.
    pub client_addr: String,
    /// Its language, by name.
    pub language: String,
    /// Its `MQVersion` ordinal.
    pub version: i32,
}

/// The body of GET_CONSUMER_CONNECTION_LIST's answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// The members of the group.
    pub connection_set: Vec<Connection>,
    /// What it consumes, by topic.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
    /// How it consumes.
    pub consume_type: ConsumeType,
    /// Who gets a message.
    pub message_model: MessageModel,
    /// Where a new group begins.
    pub consume_from_where: ConsumeFromWhere,
}

/// The body of GET_PRODUCER_CONNECTION_LIST's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// The members of the group.
    pub connection_set: Vec<Connection>,
}

/// A producer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    /// The client's id.
    pub client_id: String,
    /// Where it connects from.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// Its language, by name.
    pub language: String,
    /// Its `MQVersion` ordinal.
    pub version: i32,
    /// When it was heard of last, ms.
    pub last_update_timestamp: i64,
}

/// The body of GET_ALL_PRODUCER_INFO's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTableInfo {
    /// Producers by group.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// The body of GET_CONSUMER_LIST_BY_GROUP's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// The ids of the group's members.
    pub consumer_id_list: Vec<String>,
}

json_body!(
    Connection,
    ConsumerConnection,
    ProducerConnection,
    ProducerInfo,
    ProducerTableInfo,
    ConsumerList
);
