//! Where the parts of a record go, and how they are written in place.

use zerocopy::byteorder::big_endian::{I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    CRC_MASK, Host, MAGIC_V1, MAGIC_V2, MAX_PROPERTIES_BYTES, MAX_TOPIC_BYTES, RecordHead, body_crc,
};
use crate::code::sys_flag;

/// What a record begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Fixed {
    pub total_size: U32,
    pub magic: U32,
    pub body_crc: U32,
    pub queue_id: I32,
    pub flag: I32,
    pub queue_offset: I64,
    pub physical_offset: I64,
    pub sys_flag: I32,
    pub born_timestamp: I64,
}

/// What stands between the hosts and the body.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Middle {
    pub reconsume_times: I32,
    pub prepared_transaction_offset: I64,
    pub body_len: U32,
}

const BODY_CRC_AT: usize = 8;
const QUEUE_OFFSET_AT: usize = 20;
const PHYSICAL_OFFSET_AT: usize = 28;
/// So much of a body is copied before its checksum is taken, so that the checksum finds it in the first cache.
const COPY_STEP_BYTES: usize = 8 * 1024;

/// Why a message cannot be made a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The topic has more than 32,767 bytes.
    #[error("a topic of {0} bytes is too long")]
    Topic(usize),
    /// The properties have more than 32,767 bytes.
    #[error("properties of {0} bytes are too long")]
    Properties(usize),
    /// The record would have more than 2^31 - 1 bytes.
    #[error("a body of {0} bytes is too long")]
    Body(usize),
}

/// The places of a record's parts. Every `write_` and `_mut` method takes `dst`, the bytes of the record: at least
/// [`RecordLayout::total_len`] of them, or it panics. Head, body, topic and properties may be written in any order; the record is
/// whole when each was written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLayout {
    born_len: usize,
    store_len: usize,
    body_len: usize,
    topic_len: usize,
    properties_len: usize,
}

impl RecordLayout {
    /// The length of a record with IPv4 hosts and nothing in it.
    pub const MIN_BYTES: usize = 91;

    /// A layout for parts of the given lengths, in bytes. `properties_len` may be an upper bound; see
    /// [`RecordLayout::set_properties_len`].
    pub fn new(
        born_host: &Host,
        store_host: &Host,
        body_len: usize,
        topic_len: usize,
        properties_len: usize,
    ) -> Result<Self, LayoutError> {
        if topic_len > MAX_TOPIC_BYTES {
            return Err(LayoutError::Topic(topic_len));
        }
        if properties_len > MAX_PROPERTIES_BYTES {
            return Err(LayoutError::Properties(properties_len));
        }
        if body_len > i32::MAX as usize - MAX_TOPIC_BYTES - MAX_PROPERTIES_BYTES - 256 {
            return Err(LayoutError::Body(body_len));
        }
        let (born_len, store_len) = (born_host.encoded_len(), store_host.encoded_len());
        Ok(Self {
            born_len,
            store_len,
            body_len,
            topic_len,
            properties_len,
        })
    }

    /// The length of the record.
    pub fn total_len(&self) -> usize {
        self.properties_at() + self.properties_len
    }

    /// Makes the properties as long as they turned out to be: at most what the layout was made with. The record becomes shorter;
    /// to be called before [`RecordLayout::write_head`] and [`RecordLayout::properties_mut`] or followed by them again.
    pub fn set_properties_len(&mut self, properties_len: usize) {
        assert!(
            properties_len <= self.properties_len,
            "properties grew beyond their bound"
        );
        self.properties_len = properties_len;
    }

    /// Writes every field but the body, its checksum, the topic and the properties; the lengths of those are among the fields.
    pub fn write_head(&self, dst: &mut [u8], head: &RecordHead) {
        assert_eq!(
            (head.born_host.encoded_len(), head.store_host.encoded_len()),
            (self.born_len, self.store_len),
            "the hosts are not those of the layout"
        );
        let mut flags = head.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6);
        flags |= if head.born_host.is_v6() {
            sys_flag::BORN_HOST_V6
        } else {
            0
        };
        flags |= if head.store_host.is_v6() {
            sys_flag::STORE_HOST_V6
        } else {
            0
        };
        let mut body_crc = [0; 4];
        body_crc.copy_from_slice(&dst[BODY_CRC_AT..BODY_CRC_AT + 4]);
        let fixed = Fixed {
            total_size: U32::new(self.total_len() as u32),
            magic: U32::new(if self.is_v2() { MAGIC_V2 } else { MAGIC_V1 }),
            body_crc: U32::from_bytes(body_crc),
            queue_id: I32::new(head.queue_id),
            flag: I32::new(head.flag),
            queue_offset: I64::new(head.queue_offset),
            physical_offset: I64::new(head.physical_offset),
            sys_flag: I32::new(flags),
            born_timestamp: I64::new(head.born_timestamp),
        };
        let middle = Middle {
            reconsume_times: I32::new(head.reconsume_times),
            prepared_transaction_offset: I64::new(head.prepared_transaction_offset),
            body_len: U32::new(self.body_len as u32),
        };
        let mut at = put(dst, 0, fixed.as_bytes());
        at += head.born_host.encode(&mut dst[at..]);
        at = put(dst, at, &head.store_timestamp.to_be_bytes());
        at += head.store_host.encode(&mut dst[at..]);
        put(dst, at, middle.as_bytes());
        match self.is_v2() {
            true => put(
                dst,
                self.topic_len_at(),
                &(self.topic_len as u16).to_be_bytes(),
            ),
            false => put(dst, self.topic_len_at(), &[self.topic_len as u8]),
        };
        put(
            dst,
            self.properties_at() - 2,
            &(self.properties_len as u16).to_be_bytes(),
        );
    }

    /// Copies the body and writes its checksum.
    pub fn write_body(&self, dst: &mut [u8], body: &[u8]) {
        self.write_body_parts(dst, [body]);
    }

    /// Like [`RecordLayout::write_body`] for a body that lies in several places; together they have the length that the layout
    /// was made with.
    pub fn write_body_parts<'p>(&self, dst: &mut [u8], parts: impl IntoIterator<Item = &'p [u8]>) {
        let mut crc = crc32fast::Hasher::new();
        let mut at = self.body_at();
        for part in parts {
            for step in part.chunks(COPY_STEP_BYTES) {
                at = put(dst, at, step);
                crc.update(step);
            }
        }
        assert_eq!(
            at,
            self.topic_len_at(),
            "the body has not the length of the layout"
        );
        put(dst, BODY_CRC_AT, &(crc.finalize() & CRC_MASK).to_be_bytes());
    }

    /// Copies the topic.
    pub fn write_topic(&self, dst: &mut [u8], topic: &str) {
        let at = self.properties_at() - 2 - self.topic_len;
        dst[at..at + self.topic_len].copy_from_slice(topic.as_bytes());
    }

    /// The place of the body, for a caller that fills it itself and then calls [`RecordLayout::write_body_crc`].
    pub fn body_mut<'d>(&self, dst: &'d mut [u8]) -> &'d mut [u8] {
        let at = self.body_at();
        &mut dst[at..at + self.body_len]
    }

    /// Writes the checksum of the body that is in `dst`.
    pub fn write_body_crc(&self, dst: &mut [u8]) {
        let crc = body_crc(self.body_mut(dst));
        put(dst, BODY_CRC_AT, &crc.to_be_bytes());
    }

    /// The place of the topic.
    pub fn topic_mut<'d>(&self, dst: &'d mut [u8]) -> &'d mut [u8] {
        let at = self.properties_at() - 2 - self.topic_len;
        &mut dst[at..at + self.topic_len]
    }

    /// The place of the properties, the last part of a record.
    pub fn properties_mut<'d>(&self, dst: &'d mut [u8]) -> &'d mut [u8] {
        let at = self.properties_at();
        &mut dst[at..at + self.properties_len]
    }

    fn is_v2(&self) -> bool {
        self.topic_len > i8::MAX as usize
    }

    fn body_at(&self) -> usize {
        size_of::<Fixed>() + self.born_len + 8 + self.store_len + size_of::<Middle>()
    }

    fn topic_len_at(&self) -> usize {
        self.body_at() + self.body_len
    }

    fn properties_at(&self) -> usize {
        let topic_len_bytes = if self.is_v2() { 2 } else { 1 };
        self.topic_len_at() + topic_len_bytes + self.topic_len + 2
    }
}

/// Writes the position in the queue into a record that is already written.
pub fn set_queue_offset(record: &mut [u8], queue_offset: i64) {
    put(record, QUEUE_OFFSET_AT, &queue_offset.to_be_bytes());
}

/// Writes the position in the log into a record that is already written.
pub fn set_physical_offset(record: &mut [u8], physical_offset: i64) {
    put(record, PHYSICAL_OFFSET_AT, &physical_offset.to_be_bytes());
}

/// Copies `bytes` to `at` and returns where they end.
fn put(dst: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    dst[at..end].copy_from_slice(bytes);
    end
}

/// Everything of a record, for tests and clients that write one from the parts they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFields<'a> {
    /// The fields of fixed size.
    pub head: RecordHead,
    /// The body as it is to be stored.
    pub body: &'a [u8],
    /// The topic; more than 127 bytes make a record of the second kind.
    pub topic: &'a str,
    /// The properties as text (see [`properties`](crate::properties)).
    pub properties: &'a [u8],
}

impl RecordFields<'_> {
    /// Where everything will stand.
    pub fn layout(&self) -> Result<RecordLayout, LayoutError> {
        let RecordHead {
            born_host,
            store_host,
            ..
        } = &self.head;
        RecordLayout::new(
            born_host,
            store_host,
            self.body.len(),
            self.topic.len(),
            self.properties.len(),
        )
    }

    /// How many bytes [`RecordFields::encode`] writes.
    pub fn encoded_len(&self) -> Result<usize, LayoutError> {
        Ok(self.layout()?.total_len())
    }

    /// Writes the record to the start of `dst`, which holds at least [`RecordFields::encoded_len`] bytes, and returns its length.
    pub fn encode(&self, dst: &mut [u8]) -> Result<usize, LayoutError> {
        let layout = self.layout()?;
        layout.write_head(dst, &self.head);
        layout.write_body(dst, self.body);
        layout.write_topic(dst, self.topic);
        layout.properties_mut(dst).copy_from_slice(self.properties);
        Ok(layout.total_len())
    }

    /// Appends the record to `out`.
    pub fn push_to(&self, out: &mut Vec<u8>) -> Result<(), LayoutError> {
        let at = out.len();
        out.resize(at + self.encoded_len()?, 0);
        self.encode(&mut out[at..])?;
        Ok(())
    }
}
