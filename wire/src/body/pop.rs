//! Acknowledging many popped messages at once.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The body of BATCH_ACK_MESSAGE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckMessageRequestBody {
    /// The broker.
    pub broker_name: String,
    /// The acknowledgements, one for each pop of a queue.
    pub acks: Vec<BatchAck>,
}

/// The messages of one pop that are acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// The group.
    #[serde(rename = "c")]
    pub consumer_group: String,
    /// The topic.
    #[serde(rename = "t")]
    pub topic: String,
    /// `0` for the topic itself, `1` and `2` for the two kinds of retry topics.
    #[serde(rename = "r")]
    pub retry: String,
    /// The first offset that the bits count from.
    #[serde(rename = "so")]
    pub start_offset: i64,
    /// The queue.
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// The revive queue.
    #[serde(rename = "rq")]
    pub revive_queue_id: i32,
    /// When the messages were popped, ms.
    #[serde(rename = "pt")]
    pub pop_time: i64,
    /// How long they are invisible, ms.
    #[serde(rename = "it")]
    pub invisible_time: i64,
    /// Bit i: the message at `start_offset + i` is acknowledged.
    #[serde(rename = "b")]
    pub bit_set: BitSet,
}

/// A set of small numbers: Java's `BitSet`, Base64 on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BitSet {
    bytes: Vec<u8>,
}

impl BitSet {
    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |(at, byte): (usize, &u8)| {
            let byte = *byte;
            (0..8)
                .filter(move |bit| byte >> bit & 1 == 1)
                .map(move |bit| at * 8 + bit)
        };
        self.bytes.iter().enumerate().flat_map(bits)
    }
}

impl FromIterator<usize> for BitSet {
    /// Takes as many bytes as the largest number has eights.
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut bytes = Vec::new();
        for number in numbers {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0);
            }
            bytes[number / 8] |= 1 << (number % 8);
        }
        Self { bytes }
    }
}

impl Serialize for BitSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.bytes))
    }
}

impl<'de> Deserialize<'de> for BitSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        Ok(Self { bytes })
    }
}

json_body!(BatchAckMessageRequestBody);
