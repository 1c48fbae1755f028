//! Messages as applications see them: to be sent, and received.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use corelane_wire::code::sys_flag;
use corelane_wire::message_id::{OffsetId, UniqueId};
use corelane_wire::properties::{self, name};
use corelane_wire::record::Record;

/// What a body may inflate to.
const MAX_INFLATED_BYTES: u64 = 64 << 20;

/// A message to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The body.
    pub body: Vec<u8>,
    /// The tag, for filters.
    pub tag: Option<String>,
    /// Keys, for queries.
    pub keys: Vec<String>,
    /// Delay level, from 1; 0 for none.
    pub delay_level: u32,
    /// The user's flag.
    pub flag: i32,
    /// Further properties.
    pub properties: Vec<(String, String)>,
}

impl Message {
    /// A message without anything but a body.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// The properties as text, with the unique id.
    pub(crate) fn property_text(&self, unique_id: &str) -> String {
        let mut out = Vec::new();
        properties::push(&mut out, name::UNIQ_KEY, unique_id);
        properties::push(
            &mut out,
            name::TAGS,
            self.tag.as_deref().unwrap_or_default(),
        );
        properties::push(&mut out, name::KEYS, &self.keys.join(" "));
        if self.delay_level > 0 {
            properties::push(&mut out, name::DELAY, &self.delay_level.to_string());
        }
        for (name, value) in &self.properties {
            properties::push(&mut out, name, value);
        }
        // Every part of it was a str.
        String::from_utf8(out).unwrap_or_default()
    }
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The topic.
    pub topic: String,
    /// The broker it came from.
    pub broker: String,
    /// The queue.
    pub queue_id: i32,
    /// Its place in the queue.
    pub queue_offset: i64,
    /// The id that its producer gave it, or where it gave none its place in the log.
    pub message_id: String,
    /// Its place in the log, as the id that brokers understand.
    pub offset_message_id: String,
    /// The producer's clock, ms.
    pub born_ms: i64,
    /// The broker's clock, ms.
    pub stored_ms: i64,
    /// How often it was consumed in vain.
    pub reconsume_times: i32,
    /// The user's flag.
    pub flag: i32,
    /// All properties.
    pub properties: Vec<(String, String)>,
    /// The body, inflated if it was compressed with zlib. With another compression it is as it came.
    pub body: Vec<u8>,
}

impl Received {
    /// Reads a record.
    pub fn from_record(broker: &str, record: &Record<'_>) -> Self {
        let head = record.head();
        let offset_id = OffsetId {
            store_host: head.store_host,
            offset: head.physical_offset,
        };
        let offset_message_id = offset_id.encode().as_str().to_owned();
        let properties: Vec<(String, String)> = record
            .properties()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let unique = properties
            .iter()
            .find(|(key, _)| key == name::UNIQ_KEY)
            .map(|(_, value)| value.clone());
        Self {
            topic: record.topic().to_owned(),
            broker: broker.to_owned(),
            queue_id: head.queue_id,
            queue_offset: head.queue_offset,
            message_id: unique.unwrap_or_else(|| offset_message_id.clone()),
            offset_message_id,
            born_ms: head.born_timestamp,
            stored_ms: head.store_timestamp,
            reconsume_times: head.reconsume_times,
            flag: head.flag,
            properties,
            body: inflated(record.body(), head.sys_flag),
        }
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.property(name::TAGS)
    }

    /// A property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

fn inflated(body: &[u8], flags: i32) -> Vec<u8> {
    let kind = flags & sys_flag::COMPRESSION_MASK;
    if flags & sys_flag::COMPRESSED != 0 && (kind == 0 || kind == sys_flag::COMPRESSION_ZLIB) {
        let mut out = Vec::new();
        let inflated = flate2::read::ZlibDecoder::new(body)
            .take(MAX_INFLATED_BYTES)
            .read_to_end(&mut out);
        if inflated.is_ok() {
            return out;
        }
    }
    body.to_vec()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Gives messages their ids.
#[derive(Debug)]
pub(crate) struct UniqueIds {
    ip: IpAddr,
    loader: u32,
    counter: u16,
}

impl UniqueIds {
    pub(crate) fn new() -> Self {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_nanos();
        Self {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            loader: nanos,
            counter: 0,
        }
    }

    pub(crate) fn next(&mut self) -> String {
        self.counter = self.counter.wrapping_add(1);
        let id = UniqueId {
            ip: self.ip,
            pid: std::process::id() as u16,
            loader: self.loader,
            month_ms: ms_of_month(now_ms()),
            counter: self.counter,
        };
        id.encode().as_str().to_owned()
    }
}

/// Milliseconds since the month began (UTC).
fn ms_of_month(now_ms: i64) -> u32 {
    const DAY_MS: i64 = 86_400_000;
    let days = now_ms.div_euclid(DAY_MS);
    // The day of the month in the civil calendar, counted in eras of 400 years that begin on 1 March.
    let day_of_era = (days + 719_468).rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    u32::try_from(day_of_month * DAY_MS + now_ms.rem_euclid(DAY_MS)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn months_begin_on_their_first_day() {
        const DAY: u32 = 86_400_000;
        assert_eq!(ms_of_month(0), 0);
        // 2024-02-29T00:00:01Z and 2024-03-01T00:00:00Z.
        assert_eq!(ms_of_month(1_709_164_801_000), 28 * DAY + 1_000);
        assert_eq!(ms_of_month(1_709_251_200_000), 0);
        // 2026-11-21T12:00:00Z.
        assert_eq!(ms_of_month(1_795_262_400_000), 20 * DAY + DAY / 2);
    }

    #[test]
    fn ids_differ() {
        let mut ids = UniqueIds::new();
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
    }

    #[test]
    fn properties_hold_what_was_given() {
        let message = Message {
            tag: Some("t".to_owned()),
            keys: vec!["a".to_owned(), "b".to_owned()],
            delay_level: 3,
            properties: vec![("p".to_owned(), "v".to_owned())],
            ..Message::new("x")
        };
        let text = message.property_text("ID");
        let parsed = properties::Properties::from_plain(&text);
        let value = |name| parsed.get(name).map(|value| value.to_string());
        assert_eq!(value("UNIQ_KEY").as_deref(), Some("ID"));
        assert_eq!(value("TAGS").as_deref(), Some("t"));
        assert_eq!(value("KEYS").as_deref(), Some("a b"));
        assert_eq!(value("DELAY").as_deref(), Some("3"));
        assert_eq!(value("p").as_deref(), Some("v"));
    }

    #[test]
    fn zlib_is_inflated_and_all_else_left() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        assert!(encoder.write_all(b"hello").is_ok());
        let compressed = encoder.finish().unwrap_or_default();
        assert_eq!(inflated(&compressed, sys_flag::COMPRESSED), b"hello");
        assert_eq!(
            inflated(
                &compressed,
                sys_flag::COMPRESSED | sys_flag::COMPRESSION_ZLIB
            ),
            b"hello"
        );
        assert_eq!(
            inflated(
                &compressed,
                sys_flag::COMPRESSED | sys_flag::COMPRESSION_LZ4
            ),
            compressed
        );
        assert_eq!(inflated(&compressed, 0), compressed);
        assert_eq!(inflated(b"broken", sys_flag::COMPRESSED), b"broken");
    }
}
