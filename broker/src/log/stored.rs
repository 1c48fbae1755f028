//! The records inside groups: messages in RocketMQ's stored layout, and state records.
//!
//! A state record is {size u32, magic u32, kind u16, zero u16, payload}, big-endian like a message's first fields, so that
//! one walk passes over both. Kinds from [`OWN_KINDS`] on are the log's own.

use super::{Entry, Position};
use corelane_wire::Text;
use corelane_wire::properties::{MessageKeys, java_hash, name};
use corelane_wire::record::Record;

/// Length of a state record without its payload; nothing in a group is shorter.
pub(super) const STATE_HEADER_BYTES: usize = 12;
const STATE_MAGIC: u32 = u32::from_be_bytes(*b"CLST");
/// First kind of state record that belongs to the log itself.
pub(super) const OWN_KINDS: u16 = 0xFF00;
/// Payload: u64 position, little-endian. Everything before it has been retired.
pub(super) const KIND_RETIRED: u16 = OWN_KINDS;

/// Payload: i64 offset and i32 queue id, little-endian, then the topic. What the queue gets next has this offset.
pub(super) const KIND_QUEUE_AT: u16 = OWN_KINDS + 1;

/// A record of a group.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// A message.
    Message(Record<'a>),
    /// A state record.
    State {
        /// Its kind.
        kind: u16,
        /// Its payload.
        payload: &'a [u8],
    },
}

impl<'a> Stored<'a> {
    /// Reads one record; `bytes` are exactly it.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if be_u32(bytes, 4)? == STATE_MAGIC {
            let kind = u16::from_be_bytes([*bytes.get(8)?, *bytes.get(9)?]);
            return Some(Stored::State {
                kind,
                payload: bytes.get(STATE_HEADER_BYTES..)?,
            });
        }
        match Record::parse(bytes) {
            Ok((record, [])) => Some(Stored::Message(record)),
            _ => None,
        }
    }

    /// Reads one record that is known to be at `position`; a message must say so itself.
    pub(super) fn parse_at(bytes: &'a [u8], position: Position) -> Option<Self> {
        match Self::parse(bytes)? {
            Stored::Message(record) if record.physical_offset() as Position != position => None,
            stored => Some(stored),
        }
    }
}

/// The entry of a record and what it can be found by, with one look at its properties.
pub(super) fn entry_and_keys_of<'a>(record: &Record<'a>) -> (Entry, MessageKeys<'a>) {
    let wanted = [name::TAGS, name::UNIQ_KEY, name::KEYS];
    let [tag, unique, user] = record.properties().find(wanted);
    (
        entry_with(record, tag),
        MessageKeys::from_found(unique, user),
    )
}

/// Whether messages of a topic wait for their time: the delay levels' and the timers'.
pub(super) fn waits(topic: &str) -> bool {
    topic == "SCHEDULE_TOPIC_XXXX" || topic.starts_with("rmq_sys_wheel_timer-")
}

/// What the entry of a message that waits has in place of its tag's hash: it is read alone, without its group's checksum.
pub(super) fn record_checksum(record: &[u8]) -> i32 {
    crc32fast::hash(record).cast_signed()
}

fn entry_with(record: &Record<'_>, tag: Option<Text<'_>>) -> Entry {
    let tag = tag.map(|tag| tag.to_str());
    let tags_code = if waits(record.topic()) {
        record_checksum(record.bytes())
    } else {
        tag.map_or(0, |tag| java_hash(&tag))
    };
    Entry {
        position: record.physical_offset() as Position,
        store_ms: record.store_timestamp(),
        size: record.total_size() as u32,
        tags_code,
    }
}

/// What a message can be found by: its unique key and each of its keys.
pub(super) fn keys_of<'a>(record: &Record<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    MessageKeys::of(record.properties()).each()
}

/// Holds what was said of a record against the record. What tests append may be no message.
#[cfg(debug_assertions)]
pub(super) fn check_what_is_indexed(
    record: &[u8],
    tags_code: i32,
    store_ms: i64,
    keys: MessageKeys<'_>,
) {
    let Some(Stored::Message(record)) = Stored::parse(record) else {
        return;
    };
    let (entry, found) = entry_and_keys_of(&record);
    assert_eq!(store_ms, entry.store_ms, "the record states its store time");
    assert_eq!(keys, found, "the record has its keys");
    if !waits(record.topic()) {
        assert_eq!(tags_code, entry.tags_code, "the record has its tag");
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

/// The payload of [`KIND_QUEUE_AT`].
pub(super) fn queue_at(topic: &str, queue_id: i32, offset: i64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(12 + topic.len());
    payload.extend(offset.to_le_bytes());
    payload.extend(queue_id.to_le_bytes());
    payload.extend(topic.as_bytes());
    payload
}

/// Topic, queue id and offset in the payload of [`KIND_QUEUE_AT`].
pub(super) fn parse_queue_at(payload: &[u8]) -> Option<(&str, i32, i64)> {
    let (offset, rest) = payload.split_first_chunk()?;
    let (queue_id, topic) = rest.split_first_chunk()?;
    let topic = str::from_utf8(topic).ok()?;
    Some((
        topic,
        i32::from_le_bytes(*queue_id),
        i64::from_le_bytes(*offset),
    ))
}

/// What a state record of the log itself says, in a word and a text for people; nothing for one of the engine.
pub fn describe_own(kind: u16, payload: &[u8]) -> Option<(&'static str, String)> {
    let described = match kind {
        KIND_RETIRED => payload.first_chunk().map(|position| {
            let position = Position::from_le_bytes(*position);
            ("retired", format!("before {position}"))
        }),
        KIND_QUEUE_AT => parse_queue_at(payload).map(|(topic, queue_id, offset)| {
            (
                "queue-at",
                format!("{topic} {queue_id} goes on at {offset}"),
            )
        }),
        kind if kind >= OWN_KINDS => None,
        _ => return None,
    };
    Some(described.unwrap_or(("unknown", format!("{} bytes", payload.len()))))
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

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod sample {
    //! Message records for tests.

    use corelane_wire::record::{Host, RecordFields, RecordHead, body_crc};

    /// A record of `topic` with a body and properties.
    #[allow(clippy::too_many_arguments, reason = "a record has that many fields")]
    pub fn message(
        topic: &str,
        queue_id: i32,
        offset: i64,
        position: u64,
        store_ms: i64,
        body: &[u8],
        properties: &[u8],
    ) -> Vec<u8> {
        let host = Host {
            ip: [127, 0, 0, 1].into(),
            port: 10911,
        };
        let head = RecordHead {
            queue_id,
            flag: 0,
            queue_offset: offset,
            physical_offset: position as i64,
            sys_flag: 0,
            born_timestamp: store_ms,
            born_host: host,
            store_timestamp: store_ms,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
        };
        let fields = RecordFields {
            head,
            body,
            topic,
            properties,
        };
        let mut out = vec![0; fields.encoded_len().unwrap_or_default()];
        let written = fields.encode(&mut out);
        assert_eq!(written.ok(), Some(out.len()));
        assert_eq!(out[8..12], body_crc(body).to_be_bytes());
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use corelane_wire::record::{MAGIC_V1, MAGIC_V2};
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
            b"KEYS\x01k1 k2\x02TAGS\x01TagA\x02UNIQ_KEY\x01u\x02",
        );
        let Some(Stored::Message(message)) = Stored::parse_at(&bytes, 4160) else {
            panic!("no message")
        };
        let size = bytes.len() as u32;
        assert_eq!(
            entry_and_keys_of(&message).0,
            Entry {
                position: 4160,
                store_ms: 99,
                size,
                tags_code: 2598919
            }
        ); // "TagA".hashCode()
        assert_eq!(keys_of(&message).collect::<Vec<_>>(), ["u", "k1", "k2"]);
        assert!(Stored::parse_at(&bytes, 4161).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic in 0..3usize) {
            if bytes.len() >= 8 {
                let magic = [STATE_MAGIC, MAGIC_V1, MAGIC_V2][magic];
                bytes[4..8].copy_from_slice(&magic.to_be_bytes());
            }
            if let Some(Stored::Message(message)) = Stored::parse(&bytes) {
                let _ = (entry_and_keys_of(&message).0, keys_of(&message).count());
            }
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
