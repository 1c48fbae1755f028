//! The records inside groups: messages in RocketMQ's stored layout, and state records.
//!
//! A state record is {size u32, magic u32, kind u16, zero u16, payload}, big-endian like a message's first fields, so that
//! one walk passes over both. Kinds from [`OWN_KINDS`] on are the log's own.

use super::Position;

/// Length of a state record without its payload; nothing in a group is shorter.
pub(super) const STATE_HEADER_BYTES: usize = 12;
const STATE_MAGIC: u32 = u32::from_be_bytes(*b"CLST");
const MESSAGE_MAGIC: u32 = 0xDAA3_20A7;
const MESSAGE_MAGIC_LONG_TOPIC: u32 = 0xDAA3_20AB;
/// First kind of state record that belongs to the log itself.
pub(super) const OWN_KINDS: u16 = 0xFF00;
/// Payload: u64 position, little-endian. Everything before it has been retired.
pub(super) const KIND_RETIRED: u16 = OWN_KINDS;

/// A record of a group.
#[derive(Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// A message.
    Message(Message<'a>),
    /// A state record.
    State {
        /// Its kind.
        kind: u16,
        /// Its payload.
        payload: &'a [u8],
    },
}

/// The fields of a message record that the log looks at.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its queue.
    pub queue_id: i32,
    /// Its offset in the queue.
    pub queue_offset: i64,
    /// Where it says it is.
    pub position: Position,
    /// When it was stored.
    pub store_ms: i64,
    /// Its body.
    pub body: &'a [u8],
    /// Its properties, as stored.
    pub properties: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Reads one record; `bytes` are exactly it.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match be_u32(bytes, 4)? {
            STATE_MAGIC => Some(Stored::State {
                kind: u16::from_be_bytes([*bytes.get(8)?, *bytes.get(9)?]),
                payload: bytes.get(STATE_HEADER_BYTES..)?,
            }),
            MESSAGE_MAGIC => Message::parse(bytes, 1).map(Stored::Message),
            MESSAGE_MAGIC_LONG_TOPIC => Message::parse(bytes, 2).map(Stored::Message),
            _ => None,
        }
    }
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8], topic_len_bytes: usize) -> Option<Self> {
        let flags = be_u32(bytes, 36)?;
        let born_host = if flags & 0x10 == 0 { 8 } else { 20 };
        let store_host = if flags & 0x20 == 0 { 8 } else { 20 };
        let store_time = 48 + born_host;
        let body_len = store_time + 8 + store_host + 4 + 8;
        let body = part(bytes, body_len + 4, be_u32(bytes, body_len)? as usize)?;
        let topic_len = body_len + 4 + body.len();
        let (topic, at) = match topic_len_bytes {
            1 => (
                part(bytes, topic_len + 1, usize::from(*bytes.get(topic_len)?))?,
                topic_len + 1,
            ),
            _ => (
                part(bytes, topic_len + 2, be_u16(bytes, topic_len)?)?,
                topic_len + 2,
            ),
        };
        let properties = at + topic.len();
        Some(Self {
            topic: str::from_utf8(topic).ok()?,
            queue_id: be_u32(bytes, 12)? as i32,
            queue_offset: be_u64(bytes, 20)? as i64,
            position: be_u64(bytes, 28)?,
            store_ms: be_u64(bytes, store_time)? as i64,
            body,
            properties: part(bytes, properties + 2, be_u16(bytes, properties)?)?,
        })
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        self.properties.split(|&byte| byte == 2).find_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == 1)?;
            (&pair[..equals] == name.as_bytes()).then_some(&pair[equals + 1..])
        })
    }

    /// Hash of the tag as RocketMQ has it in its consume queues: 0 without one.
    pub fn tags_code(&self) -> i32 {
        let tags = self.property("TAGS").unwrap_or_default();
        String::from_utf8_lossy(tags)
            .encode_utf16()
            .fold(0, |hash: i32, unit| {
                hash.wrapping_mul(31).wrapping_add(i32::from(unit))
            })
    }
}

/// Fills a state record into exactly its bytes.
pub(super) fn put_state(out: &mut [u8], kind: u16, payload: &[u8]) {
    let size = (STATE_HEADER_BYTES + payload.len()) as u32;
    out[..4].copy_from_slice(&size.to_be_bytes());
    out[4..8].copy_from_slice(&STATE_MAGIC.to_be_bytes());
    out[8..10].copy_from_slice(&kind.to_be_bytes());
    out[10..12].fill(0);
    out[12..].copy_from_slice(payload);
}

/// Walks concatenated state records, as a snapshot holds them. `None` for what is none.
pub(super) fn states(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let record = be_u32(bytes, 0).and_then(|size| bytes.get(..size as usize));
        match record.map(Stored::parse) {
            Some(Some(Stored::State { kind, payload })) => {
                bytes = &bytes[STATE_HEADER_BYTES + payload.len()..];
                Some(Some((kind, payload)))
            }
            _ => {
                bytes = &[];
                Some(None)
            }
        }
    })
}

/// Collects state records for a snapshot.
#[derive(Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

impl StateWriter {
    /// Adds one record.
    pub fn push(&mut self, kind: u16, payload: &[u8]) {
        let at = self.bytes.len();
        self.bytes
            .resize(at + STATE_HEADER_BYTES + payload.len(), 0);
        put_state(&mut self.bytes[at..], kind, payload);
    }

    /// All of them, for [`Log::snapshot`](super::Log::snapshot).
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn part(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

fn be_u16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([
        *bytes.get(at)?,
        *bytes.get(at + 1)?,
    ])))
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod sample {
    //! Message records for tests.

    /// A record of `topic` with a body and properties.
    pub fn message(
        topic: &str,
        queue_id: i32,
        offset: i64,
        position: u64,
        store_ms: i64,
        body: &[u8],
        properties: &[u8],
    ) -> Vec<u8> {
        let mut out = vec![0; 88];
        out[4..8].copy_from_slice(&super::MESSAGE_MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&(crc32fast::hash(body) & 0x7FFF_FFFF).to_be_bytes());
        out[12..16].copy_from_slice(&queue_id.to_be_bytes());
        out[20..28].copy_from_slice(&offset.to_be_bytes());
        out[28..36].copy_from_slice(&position.to_be_bytes());
        out[56..64].copy_from_slice(&store_ms.to_be_bytes());
        out[84..88].copy_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend(body);
        out.push(topic.len() as u8);
        out.extend(topic.as_bytes());
        out.extend((properties.len() as u16).to_be_bytes());
        out.extend(properties);
        let size = out.len() as u32;
        out[..4].copy_from_slice(&size.to_be_bytes());
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn message_fields() {
        let bytes = sample::message(
            "orders",
            3,
            17,
            4160,
            99,
            b"body",
            b"KEYS\x01k\x02TAGS\x01TagA\x02",
        );
        let Some(Stored::Message(message)) = Stored::parse(&bytes) else {
            panic!("no message")
        };
        assert_eq!(
            (message.topic, message.queue_id, message.queue_offset),
            ("orders", 3, 17)
        );
        assert_eq!(
            (message.position, message.store_ms, message.body),
            (4160, 99, &b"body"[..])
        );
        assert_eq!(message.tags_code(), 2598919); // "TagA".hashCode() in Java
        assert_eq!(message.property("KEYS"), Some(&b"k"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic in 0..3) {
            if bytes.len() >= 8 {
                let magic = [STATE_MAGIC, MESSAGE_MAGIC, MESSAGE_MAGIC_LONG_TOPIC][magic as usize];
                bytes[4..8].copy_from_slice(&magic.to_be_bytes());
            }
            let _ = Stored::parse(&bytes);
            let _ = states(&bytes).count();
        }

        #[test]
        fn states_come_back(records in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut writer = StateWriter::default();
            for (kind, payload) in &records {
                writer.push(*kind, payload);
            }
            let bytes = writer.finish();
            let found: Vec<_> = states(&bytes).map(|state| { let (kind, payload) = state.unwrap(); (kind, payload.to_vec()) }).collect();
            prop_assert_eq!(found, records);
        }
    }
}
