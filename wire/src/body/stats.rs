//! Statistics of topics, groups and brokers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MessageQueue;
use super::message_queue::{keyed, push_member};
use crate::fastjson::{self, BodyError, Keys};

/// The offsets of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// Of the first message.
    pub min_offset: i64,
    /// Behind the last one.
    pub max_offset: i64,
    /// When the last one was stored, ms; 0 for none.
    pub last_update_timestamp: i64,
}

/// The body of GET_TOPIC_STATS_INFO's answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    /// By queue.
    #[serde(deserialize_with = "keyed")]
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages a second.
    pub topic_put_tps: f64,
}

impl TopicStatsTable {
    /// Reads the body from fastjson's form.
    pub fn from_json(json: &[u8]) -> Result<Self, BodyError> {
        fastjson::from_slice(json)
    }

    /// The body in fastjson's form, the only one that Java reads.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        push_member(&mut out, "offsetTable", &self.offset_table);
        out.extend_from_slice(b",\"topicPutTps\":");
        fastjson::push(&mut out, &self.topic_put_tps, Keys::Quoted);
        out.push(b'}');
        out
    }
}

/// How far a group is in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetWrapper {
    /// Behind the last message.
    pub broker_offset: i64,
    /// What the group has committed.
    pub consumer_offset: i64,
    /// What it has pulled.
    pub pull_offset: i64,
    /// When the last message that it consumed was stored, ms.
    pub last_timestamp: i64,
}

/// The body of GET_CONSUME_STATS's answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// By queue.
    #[serde(deserialize_with = "keyed")]
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
    /// Messages a second.
    pub consume_tps: f64,
}

impl ConsumeStats {
    /// Reads the body from fastjson's form.
    pub fn from_json(json: &[u8]) -> Result<Self, BodyError> {
        fastjson::from_slice(json)
    }

    /// The body in fastjson's form, the only one that Java reads.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.push_to(&mut out);
        out
    }

    fn push_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"consumeTps\":");
        fastjson::push(out, &self.consume_tps, Keys::Quoted);
        out.push(b',');
        push_member(out, "offsetTable", &self.offset_table);
        out.push(b'}');
    }
}

/// The body of GET_BROKER_CONSUME_STATS's answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStatsList {
    /// Statistics by group; one entry a map.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    /// The broker's address.
    pub broker_addr: String,
    /// Messages not consumed yet.
    pub total_diff: i64,
    /// Messages consumed and not committed yet.
    pub total_inflight_diff: i64,
}

impl ConsumeStatsList {
    /// Reads the body from fastjson's form.
    pub fn from_json(json: &[u8]) -> Result<Self, BodyError> {
        fastjson::from_slice(json)
    }

    /// The body in fastjson's form, the only one that Java reads.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"brokerAddr\":".to_vec();
        fastjson::push(&mut out, &self.broker_addr, Keys::Quoted);
        out.extend_from_slice(b",\"consumeStatsList\":");
        push_list(&mut out, &self.consume_stats_list, |out, groups| {
            out.push(b'{');
            for (index, (group, stats)) in groups.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                fastjson::push(out, group, Keys::Quoted);
                out.push(b':');
                push_list(out, stats, |out, stats| stats.push_to(out));
            }
            out.push(b'}');
        });
        out.extend_from_slice(b",\"totalDiff\":");
        fastjson::push(&mut out, &self.total_diff, Keys::Quoted);
        out.extend_from_slice(b",\"totalInflightDiff\":");
        fastjson::push(&mut out, &self.total_inflight_diff, Keys::Quoted);
        out.push(b'}');
        out
    }
}

fn push_list<T>(out: &mut Vec<u8>, items: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

/// One figure over a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatsItem {
    /// The sum.
    pub sum: i64,
    /// The sum a second.
    pub tps: f64,
    /// The average of one event.
    pub avgpt: f64,
}

/// The body of VIEW_BROKER_STATS_DATA's answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatsData {
    /// Over the last minute.
    pub stats_minute: BrokerStatsItem,
    /// Over the last hour.
    pub stats_hour: BrokerStatsItem,
    /// Over the last day.
    pub stats_day: BrokerStatsItem,
}

json_body!(BrokerStatsData);
