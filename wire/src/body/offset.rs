//! Offsets of groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message_queue::{keyed, push_member};
use super::{DataVersion, MessageQueue, SubscriptionData};
use crate::fastjson::{self, BodyError, Keys};

/// The body of GET_ALL_CONSUMER_OFFSET's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetSerializeWrapper {
    /// Offsets by `topic@group`, then by queue.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Of the table.
    pub data_version: DataVersion,
}

/// The body of GET_ALL_DELAY_OFFSET's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayOffsetSerializeWrapper {
    /// Offsets by delay level.
    pub offset_table: BTreeMap<i32, i64>,
    /// Of the table.
    pub data_version: DataVersion,
}

/// The body of QUERY_CORRECTION_OFFSET's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryCorrectionOffsetBody {
    /// Offsets by queue.
    pub correction_offsets: BTreeMap<i32, i64>,
}

json_body_with_keys!(
    ConsumerOffsetSerializeWrapper,
    DelayOffsetSerializeWrapper,
    QueryCorrectionOffsetBody
);

/// The body of RESET_CONSUMER_CLIENT_OFFSET, and of INVOKE_BROKER_TO_RESET_OFFSET's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    /// New offsets by queue.
    #[serde(deserialize_with = "keyed")]
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

impl ResetOffsetBody {
    /// Reads the body from fastjson's form.
    pub fn from_json(json: &[u8]) -> Result<Self, BodyError> {
        fastjson::from_slice(json)
    }

    /// The body in fastjson's form, the only one that Java reads.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        push_member(&mut out, "offsetTable", &self.offset_table);
        out.push(b'}');
        out
    }

    /// The body as C++ clients read it: a list.
    pub fn to_json_list(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry<'a> {
            #[serde(flatten)]
            queue: &'a MessageQueue,
            offset: i64,
        }
        let entries: Vec<_> = self
            .offset_table
            .iter()
            .map(|(queue, &offset)| Entry { queue, offset })
            .collect();
        let mut out = b"{\"offsetTable\":".to_vec();
        fastjson::push(&mut out, &entries, Keys::Quoted);
        out.push(b'}');
        out
    }
}

/// The body of GET_CONSUMER_STATUS_FROM_CLIENT's answer (one client's table) and of INVOKE_BROKER_TO_GET_CONSUMER_STATUS's (all).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetConsumerStatusBody {
    /// Offsets by queue.
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
    /// Offsets by client id, then by queue.
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
}

impl GetConsumerStatusBody {
    /// Reads the body from fastjson's form.
    pub fn from_json(json: &[u8]) -> Result<Self, BodyError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Table(#[serde(deserialize_with = "keyed")] BTreeMap<MessageQueue, i64>);

        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Tables {
            message_queue_table: Table,
            consumer_table: BTreeMap<String, Table>,
        }

        let tables: Tables = fastjson::from_slice(json)?;
        let consumer_table = tables
            .consumer_table
            .into_iter()
            .map(|(client, table)| (client, table.0))
            .collect();
        Ok(Self {
            message_queue_table: tables.message_queue_table.0,
            consumer_table,
        })
    }

    /// The body in fastjson's form, the only one that Java reads.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"consumerTable\":{".to_vec();
        for (index, (client, table)) in self.consumer_table.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_member(&mut out, client, table);
        }
        out.extend_from_slice(b"},");
        push_member(&mut out, "messageQueueTable", &self.message_queue_table);
        out.push(b'}');
        out
    }
}

/// How far back a group is in time, for one queue. Times in ms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueTimeSpan {
    /// The queue.
    pub message_queue: MessageQueue,
    /// Of the oldest message.
    pub min_time_stamp: i64,
    /// Of the newest message.
    pub max_time_stamp: i64,
    /// Of the message that the group is at.
    pub consume_time_stamp: i64,
    /// How long ago that was.
    pub delay_time: i64,
}

/// The body of QUERY_CONSUME_TIME_SPAN's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryConsumeTimeSpanBody {
    /// One for each queue.
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// An entry of a consume queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueData {
    /// Physical offset of the message.
    pub physic_offset: i64,
    /// Length of its record.
    pub physic_size: i32,
    /// Hash of its tag.
    pub tags_code: i64,
    /// Kept for Apache's filter bitmaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_data_json: Option<String>,
    /// Kept for Apache's filter bitmaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit_map: Option<String>,
    /// Whether the group's subscription matches.
    pub eval: bool,
    /// What is wrong with the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
}

/// The body of QUERY_CONSUME_QUEUE's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryConsumeQueueResponseBody {
    /// What the group consumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// Its filter, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    /// The entries.
    pub queue_data: Vec<ConsumeQueueData>,
    /// The offset behind the last entry of the queue.
    pub max_queue_index: i64,
    /// The offset of its first entry.
    pub min_queue_index: i64,
}

json_body!(
    QueueTimeSpan,
    QueryConsumeTimeSpanBody,
    QueryConsumeQueueResponseBody
);
