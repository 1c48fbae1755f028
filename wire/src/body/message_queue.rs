//! A queue of a topic on a broker, also as the key of a map.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::lenient;
use crate::fastjson;

/// A queue of a topic on a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    /// The broker.
    pub broker_name: String,
    /// The queue.
    #[serde(deserialize_with = "lenient::integer")]
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

/// Reads a map whose keys [`fastjson::to_standard`] made strings.
pub(super) fn keyed<'de, D, V>(deserializer: D) -> Result<BTreeMap<MessageQueue, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    let entries = BTreeMap::<String, V>::deserialize(deserializer)?;
    let queue = |(key, value): (String, V)| {
        let queue = fastjson::from_slice(key.as_bytes()).map_err(D::Error::custom)?;
        Ok((queue, value))
    };
    entries.into_iter().map(queue).collect()
}

/// Appends the member `name` with a map from queues, in fastjson's form.
pub(super) fn push_member<V: Serialize>(
    out: &mut Vec<u8>,
    name: &str,
    entries: &BTreeMap<MessageQueue, V>,
) {
    fastjson::push(out, name, fastjson::Keys::Quoted);
    out.push(b':');
    fastjson::push_object_keyed(out, entries);
}
