//! The stored message: what the log holds, and what the body of a pull's answer is made of. All integers are big-endian.
//!
//! ```text
//! totalSize magic bodyCRC queueId flag queueOffset physicalOffset sysFlag bornTimestamp bornHost storeTimestamp storeHost
//! reconsumeTimes preparedTransactionOffset bodyLen body topicLen topic propertiesLen properties
//! ```
//!
//! A [`Record`] is a view over bytes whose lengths were checked. A [`RecordLayout`] says where everything of a record that is
//! to be written goes, so that it is assembled in place, each part written once.
//!
//! Invariant of both: the parts lie one behind the other without a gap and end at `totalSize`.

mod host;
mod layout;

pub use host::Host;
pub use layout::{LayoutError, RecordFields, RecordLayout, set_physical_offset, set_queue_offset};

use crate::code::sys_flag;
use crate::properties::Properties;
use layout::{Fixed, Middle};
use zerocopy::FromBytes;

/// Marks a record whose topic's length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Marks a record whose topic's length is two bytes; for topics of more than 127 bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Marks filler at the end of a file of Apache's log.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// The longest properties that a record can hold, in bytes.
pub const MAX_PROPERTIES_BYTES: usize = i16::MAX as usize;
/// The longest topic that a record can hold, in bytes.
pub const MAX_TOPIC_BYTES: usize = i16::MAX as usize;
/// The bits that a body's CRC keeps.
const CRC_MASK: u32 = 0x7FFF_FFFF;

/// The checksum that a record keeps of its body: CRC-32 without its highest bit.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & CRC_MASK
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the record says it has, or than any record has.
    #[error("a record of {needed} bytes is cut off after {have}")]
    Truncated {
        /// The record's length, or what its length word takes.
        needed: usize,
        /// The bytes that are there.
        have: usize,
    },
    /// The length word is too small for a record.
    #[error("{0} is not the length of a record")]
    Length(u32),
    /// The magic is neither of the two.
    #[error("{0:#010x} is not the magic of a record")]
    Magic(u32),
    /// Filler of so many bytes.
    #[error("filler of {0} bytes")]
    Blank(u32),
    /// The lengths of the parts do not add up to the record's; which part does not fit.
    #[error("the {0} of a record does not fit its length")]
    Part(&'static str),
    /// The topic is not UTF-8.
    #[error("the topic of a record is not UTF-8")]
    Topic,
}

/// The fields of a record that have a fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// Queue of the topic.
    pub queue_id: i32,
    /// The user's flag.
    pub flag: i32,
    /// Position in the queue.
    pub queue_offset: i64,
    /// Position in the log.
    pub physical_offset: i64,
    /// See [`sys_flag`]. The bits of the hosts' kinds follow from the hosts when a record is written.
    pub sys_flag: i32,
    /// The producer's clock, ms.
    pub born_timestamp: i64,
    /// The producer.
    pub born_host: Host,
    /// The broker's clock, ms.
    pub store_timestamp: i64,
    /// The broker, as clients reach it.
    pub store_host: Host,
    /// How often the message was consumed in vain.
    pub reconsume_times: i32,
    /// Physical offset of the half message.
    pub prepared_transaction_offset: i64,
}

/// One record, its lengths checked.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
    fixed: &'a Fixed,
    middle: &'a Middle,
    body: &'a [u8],
    topic: &'a str,
    properties: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, and what follows it. The body's CRC is not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let truncated = |needed| RecordError::Truncated {
            needed,
            have: bytes.len(),
        };
        let (head, _) = bytes.split_first_chunk::<8>().ok_or(truncated(8))?;
        let [s0, s1, s2, s3, m0, m1, m2, m3] = *head;
        let total_size = u32::from_be_bytes([s0, s1, s2, s3]);
        let magic = u32::from_be_bytes([m0, m1, m2, m3]);
        match magic {
            MAGIC_V1 | MAGIC_V2 => {}
            MAGIC_BLANK => return Err(RecordError::Blank(total_size)),
            _ => return Err(RecordError::Magic(magic)),
        }
        if total_size > i32::MAX as u32 || (total_size as usize) < RecordLayout::MIN_BYTES {
            return Err(RecordError::Length(total_size));
        }
        let needed = total_size as usize;
        let (bytes, rest) = bytes.split_at_checked(needed).ok_or(truncated(needed))?;
        Ok((Self::parse_exact(bytes, magic)?, rest))
    }

    fn parse_exact(bytes: &'a [u8], magic: u32) -> Result<Self, RecordError> {
        let head = RecordError::Part("head");
        let (fixed, rest) = Fixed::ref_from_prefix(bytes).map_err(|_| head.clone())?;
        let sys_flag = fixed.sys_flag.get();
        let born_len = host_len(sys_flag, sys_flag::BORN_HOST_V6);
        let store_len = host_len(sys_flag, sys_flag::STORE_HOST_V6);
        let rest = rest.get(born_len + 8 + store_len..).ok_or(head.clone())?;
        let (middle, rest) = Middle::ref_from_prefix(rest).map_err(|_| head)?;

        let body_len = middle.body_len.get() as usize;
        let (body, rest) = rest
            .split_at_checked(body_len)
            .ok_or(RecordError::Part("body"))?;
        let (topic_len, rest) = match magic {
            MAGIC_V1 => rest
                .split_first()
                .map(|(len, rest)| (usize::from(*len), rest)),
            _ => rest
                .split_first_chunk()
                .map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest)),
        }
        .ok_or(RecordError::Part("topic"))?;
        let (topic, rest) = rest
            .split_at_checked(topic_len)
            .ok_or(RecordError::Part("topic"))?;
        let (properties_len, properties) = rest
            .split_first_chunk::<2>()
            .ok_or(RecordError::Part("properties"))?;
        if properties.len() != usize::from(u16::from_be_bytes(*properties_len))
            || properties.len() > MAX_PROPERTIES_BYTES
        {
            return Err(RecordError::Part("properties"));
        }
        let topic = std::str::from_utf8(topic).map_err(|_| RecordError::Topic)?;
        Ok(Self {
            bytes,
            fixed,
            middle,
            body,
            topic,
            properties,
        })
    }

    /// All bytes of the record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The length of the record, its length word included.
    pub fn total_size(&self) -> usize {
        self.bytes.len()
    }

    /// [`MAGIC_V1`] or [`MAGIC_V2`].
    pub fn magic(&self) -> u32 {
        self.fixed.magic.get()
    }

    /// The checksum of the body, as stored.
    pub fn body_crc(&self) -> u32 {
        self.fixed.body_crc.get()
    }

    /// Whether the stored checksum is the body's.
    pub fn check_body_crc(&self) -> bool {
        self.body_crc() == body_crc(self.body)
    }

    /// The fields of fixed size, together.
    pub fn head(&self) -> RecordHead {
        RecordHead {
            queue_id: self.queue_id(),
            flag: self.flag(),
            queue_offset: self.queue_offset(),
            physical_offset: self.physical_offset(),
            sys_flag: self.sys_flag(),
            born_timestamp: self.born_timestamp(),
            born_host: self.born_host(),
            store_timestamp: self.store_timestamp(),
            store_host: self.store_host(),
            reconsume_times: self.reconsume_times(),
            prepared_transaction_offset: self.prepared_transaction_offset(),
        }
    }

    /// Queue of the topic.
    pub fn queue_id(&self) -> i32 {
        self.fixed.queue_id.get()
    }

    /// The user's flag.
    pub fn flag(&self) -> i32 {
        self.fixed.flag.get()
    }

    /// Position in the queue.
    pub fn queue_offset(&self) -> i64 {
        self.fixed.queue_offset.get()
    }

    /// Position in the log.
    pub fn physical_offset(&self) -> i64 {
        self.fixed.physical_offset.get()
    }

    /// See [`sys_flag`].
    pub fn sys_flag(&self) -> i32 {
        self.fixed.sys_flag.get()
    }

    /// The producer's clock, ms.
    pub fn born_timestamp(&self) -> i64 {
        self.fixed.born_timestamp.get()
    }

    /// The producer.
    pub fn born_host(&self) -> Host {
        Host::decode(self.after_fixed(0, self.born_len()))
    }

    /// The broker's clock, ms.
    pub fn store_timestamp(&self) -> i64 {
        let at = self.born_len();
        self.after_fixed(at, 8)
            .first_chunk()
            .copied()
            .map_or(0, i64::from_be_bytes)
    }

    /// The broker, as clients reach it.
    pub fn store_host(&self) -> Host {
        let len = host_len(self.sys_flag(), sys_flag::STORE_HOST_V6);
        Host::decode(self.after_fixed(self.born_len() + 8, len))
    }

    /// How often the message was consumed in vain.
    pub fn reconsume_times(&self) -> i32 {
        self.middle.reconsume_times.get()
    }

    /// Physical offset of the half message.
    pub fn prepared_transaction_offset(&self) -> i64 {
        self.middle.prepared_transaction_offset.get()
    }

    /// The body as stored: still compressed where the system flag says so.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The properties as stored.
    pub fn properties_bytes(&self) -> &'a [u8] {
        self.properties
    }

    /// The properties, up to the first byte that is not UTF-8.
    pub fn properties(&self) -> Properties<'a> {
        Properties::from_bytes(self.properties)
    }

    fn born_len(&self) -> usize {
        host_len(self.sys_flag(), sys_flag::BORN_HOST_V6)
    }

    /// `len` bytes at `at` behind the fixed fields; `parse` has seen that they are there.
    fn after_fixed(&self, at: usize, len: usize) -> &'a [u8] {
        let from = size_of::<Fixed>() + at;
        self.bytes.get(from..from + len).unwrap_or_default()
    }
}

/// The bytes that a host takes under the given system flag.
fn host_len(sys_flag: i32, v6_bit: i32) -> usize {
    if sys_flag & v6_bit == 0 {
        Host::V4_BYTES
    } else {
        Host::V6_BYTES
    }
}

#[cfg(test)]
mod tests;
