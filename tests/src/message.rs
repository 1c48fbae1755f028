//! Messages as a producer sends them, is told of them, and as a consumer sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A queue of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// The broker's name.
    pub broker: String,
    /// Its number there.
    pub id: i32,
}

/// A message to send. The body is filled up with `x` to `body_bytes`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Tag; may be empty.
    pub tag: String,
    /// Key: in a test the identity of the message.
    pub key: String,
    /// User properties.
    pub properties: BTreeMap<String, String>,
    /// The body's beginning.
    pub body: String,
    /// The least length of the body.
    pub body_bytes: usize,
    /// Further members of the driver's message: `delay_level`, `delay_sec`, `delay_ms`, `deliver_ms`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A message with this key, and the same text as its body.
    pub fn new(topic: &str, key: impl Into<String>) -> Self {
        let key = key.into();
        Self {
            topic: topic.to_owned(),
            body: key.clone(),
            key,
            ..Self::default()
        }
    }

    /// With this tag.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = tag.to_owned();
        self
    }

    /// With this user property.
    pub fn property(mut self, name: &str, value: impl ToString) -> Self {
        self.properties.insert(name.to_owned(), value.to_string());
        self
    }

    /// With another member of the driver's message.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The body as it is sent.
    pub fn full_body(&self) -> Vec<u8> {
        let mut body = self.body.clone().into_bytes();
        body.resize(body.len().max(self.body_bytes), b'x');
        body
    }
}

/// How messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One after the other.
    Sync,
    /// All at once, with callbacks.
    Async,
    /// Without an answer.
    Oneway,
    /// All in one frame.
    Batch,
    /// One after the other, each into the queue that the hash of its key chooses.
    Selector,
    /// One transaction after the other: its properties `local` and `check` say what becomes of it.
    Transaction,
}

/// Where a message lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Place {
    /// The broker's name.
    pub broker: String,
    /// The queue's number there.
    pub queue: i32,
    /// The offset in the queue.
    pub offset: i64,
}

/// A message that the broker has acknowledged with SEND_OK.
#[derive(Debug, Clone, Deserialize)]
pub struct Sent {
    /// The message's key.
    pub key: String,
    /// Where it lies.
    #[serde(flatten)]
    pub place: Place,
    /// The unique id; the Go client has none for the messages of a batch.
    pub message_id: String,
    /// The id that says where it lies in the log; empty where the client tells none.
    #[serde(default)]
    pub offset_message_id: String,
    /// What a recall needs.
    #[serde(default)]
    pub recall_handle: Option<String>,
}

/// A message that could not be sent, or nobody knows.
#[derive(Debug, Clone, Deserialize)]
pub struct Failed {
    /// The message's key.
    pub key: String,
    /// What the client says.
    pub error: String,
}

/// The outcome of sends.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Acknowledged ones, in the order in which the client learned it.
    pub sent: Vec<Sent>,
    /// All other ones.
    pub failed: Vec<Failed>,
}

/// A message as a consumer saw it.
#[derive(Debug, Clone, Deserialize)]
pub struct Received {
    /// The consumer's name.
    pub consumer: String,
    /// Topic.
    pub topic: String,
    /// Where it lies.
    #[serde(flatten)]
    pub place: Place,
    /// The unique id.
    pub message_id: String,
    /// Tag.
    pub tag: Option<String>,
    /// The message's key.
    #[serde(rename = "keys")]
    pub key: String,
    /// All properties, the system's and the client's among them.
    pub properties: BTreeMap<String, String>,
    /// How often it was delivered before.
    pub reconsume_times: i32,
    /// Milliseconds since 1970 when it was made, by the producer's clock.
    pub born_ms: i64,
    /// Milliseconds since 1970 when it was stored, by the broker's clock.
    pub stored_ms: i64,
    /// Milliseconds since 1970 when the driver had it.
    #[serde(default)]
    pub received_ms: i64,
    /// Whether another listener of its group was at work on its queue at that moment; Java only.
    #[serde(default)]
    pub overlap: bool,
    /// The first 1,024 bytes of the body.
    pub body: String,
    /// The body's length.
    pub body_bytes: usize,
    /// CRC-32 of the body.
    pub body_crc: u32,
    /// Which delivery of its process this is, over all consumers.
    #[serde(skip)]
    pub number: usize,
}
