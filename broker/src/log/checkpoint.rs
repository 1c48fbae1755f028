//! The checkpoint: what recovery starts from, so that it need not read the log from its beginning.
//!
//! One file, replaced as a whole (write a temporary one, sync, rename, sync the directory). It holds the state as of one
//! position, at a group's end, which was durable before the file got its name: the queues with their next offsets, and the
//! engine's state records. Little-endian throughout; the checksum covers all bytes after it.

use super::hole::Hole;
use super::queue::SavedQueue;
use super::{Io, IoError, Position, Slice};
use std::rc::Rc;

pub(super) const FILE_NAME: &str = "checkpoint";
pub(super) const TEMPORARY_NAME: &str = "checkpoint.tmp";
const MAGIC: [u8; 8] = *b"CLCHECK2";
/// Bytes written at once, so that commits get their turn.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub log_id: u64,
    /// The epoch that was open.
    pub epoch: u32,
    /// All records before it are in here, none after it.
    pub position: Position,
    /// Everything before it has been retired.
    pub retired: Position,
    /// The most bytes that may be on disk out of order after the last acknowledged group.
    pub in_flight_bytes: u64,
    /// The newest store time of any record.
    pub newest_ms: i64,
    pub queues: Vec<SavedQueue>,
    /// State records one after another.
    pub state: Vec<u8>,
    /// Damage that is to be passed over.
    pub holes: Vec<Hole>,
}

impl Checkpoint {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.queues.len() * 32 + self.state.len());
        out.extend(MAGIC);
        out.extend([0; 12]);
        out.extend(self.log_id.to_le_bytes());
        out.extend(self.epoch.to_le_bytes());
        out.extend(self.position.to_le_bytes());
        out.extend(self.retired.to_le_bytes());
        out.extend(self.in_flight_bytes.to_le_bytes());
        out.extend(self.newest_ms.to_le_bytes());
        out.extend((self.queues.len() as u64).to_le_bytes());
        let mut topic: &str = "";
        for queue in &self.queues {
            // An empty name stands for the one before.
            let name = if *queue.topic == *topic {
                ""
            } else {
                &queue.topic
            };
            topic = &queue.topic;
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend(queue.queue_id.to_le_bytes());
            out.extend(queue.born.to_le_bytes());
            out.extend(queue.next.to_le_bytes());
        }
        out.extend((self.state.len() as u64).to_le_bytes());
        out.extend(&self.state);
        out.extend((self.holes.len() as u64).to_le_bytes());
        for hole in &self.holes {
            out.extend(hole.from.to_le_bytes());
            out.extend(hole.to.to_le_bytes());
            out.push(hole.settled.into());
        }
        let gaps = self.queues.iter().enumerate();
        for (number, queue) in gaps.filter(|(_, queue)| !queue.gaps.is_empty()) {
            out.extend((number as u64).to_le_bytes());
            out.extend((queue.gaps.len() as u64).to_le_bytes());
            for (from, to) in &queue.gaps {
                out.extend(from.to_le_bytes());
                out.extend(to.to_le_bytes());
            }
        }
        let len = out.len() as u64;
        out[12..20].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields { bytes };
        let short = || "it is cut short".to_string();
        if fields.array::<8>() != Some(MAGIC) {
            return Err("it is none of this version".into());
        }
        let crc = u32::from_le_bytes(fields.array().ok_or_else(short)?);
        let len = u64::from_le_bytes(fields.array().ok_or_else(short)?) as usize;
        let covered = bytes.get(12..len).ok_or_else(short)?;
        if crc32fast::hash(covered) != crc {
            return Err("its checksum is wrong".into());
        }
        Self::decode_fields(Fields {
            bytes: &covered[8..],
        })
        .ok_or_else(|| "its fields make no sense".into())
    }

    fn decode_fields(mut fields: Fields<'_>) -> Option<Self> {
        let log_id = u64::from_le_bytes(fields.array()?);
        let epoch = u32::from_le_bytes(fields.array()?);
        let position = u64::from_le_bytes(fields.array()?);
        let retired = u64::from_le_bytes(fields.array()?);
        let in_flight_bytes = u64::from_le_bytes(fields.array()?);
        let newest_ms = i64::from_le_bytes(fields.array()?);
        let count = u64::from_le_bytes(fields.array()?);
        let mut queues = Vec::new();
        let mut topic: Rc<str> = Rc::from("");
        for _ in 0..count {
            let len = usize::from(u16::from_le_bytes(fields.array()?));
            if len > 0 {
                topic = Rc::from(str::from_utf8(fields.take(len)?).ok()?);
            }
            queues.push(SavedQueue {
                topic: topic.clone(),
                queue_id: i32::from_le_bytes(fields.array()?),
                born: u64::from_le_bytes(fields.array()?),
                next: i64::from_le_bytes(fields.array()?),
                gaps: Vec::new(),
            });
        }
        let len = u64::from_le_bytes(fields.array()?);
        let state = fields.take(usize::try_from(len).ok()?)?.to_vec();
        let mut holes = Vec::new();
        for _ in 0..u64::from_le_bytes(fields.array()?) {
            holes.push(Hole {
                from: u64::from_le_bytes(fields.array()?),
                to: u64::from_le_bytes(fields.array()?),
                settled: fields.array()? != [0],
            });
        }
        while !fields.bytes.is_empty() {
            let number = u64::from_le_bytes(fields.array()?) as usize;
            let queue = queues.get_mut(number)?;
            for _ in 0..u64::from_le_bytes(fields.array()?) {
                let from = i64::from_le_bytes(fields.array()?);
                queue.gaps.push((from, i64::from_le_bytes(fields.array()?)));
            }
        }
        Some(Self {
            log_id,
            epoch,
            position,
            retired,
            in_flight_bytes,
            newest_ms,
            queues,
            state,
            holes,
        })
    }

    /// Puts it in the place of the one before.
    pub async fn write<I: Io>(&self, io: &I) -> Result<(), IoError> {
        let bytes = self.encode();
        let len = bytes.len().next_multiple_of(4096);
        let file = io.create(TEMPORARY_NAME, len as u64).await?;
        for (at, part) in bytes.chunks(WRITE_BYTES).enumerate() {
            io.write_at(&file, (at * WRITE_BYTES) as u64, &Slice::copied(part, 4096))
                .await?;
        }
        io.sync(&file).await?;
        io.rename(TEMPORARY_NAME, FILE_NAME).await?;
        io.sync_dir().await
    }

    /// Reads the one that is there.
    pub async fn read<I: Io>(io: &I, len: u64) -> Result<Result<Self, String>, IoError> {
        let file = io.open(FILE_NAME).await?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let part = io.read_at(&file, bytes.len() as u64, WRITE_BYTES).await?;
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Self::decode(&bytes))
    }
}

struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(part)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*part)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Checkpoint {
        let queue = |topic: &str, queue_id, next| SavedQueue {
            topic: Rc::from(topic),
            queue_id,
            born: 77,
            next,
            gaps: if next == 11 {
                vec![(3, 5), (9, 11)]
            } else {
                Vec::new()
            },
        };
        Checkpoint {
            log_id: 1,
            epoch: 2,
            position: 3,
            retired: 4,
            in_flight_bytes: 5,
            newest_ms: 6,
            queues: vec![queue("a", 0, 10), queue("a", 1, 11), queue("b", 0, 12)],
            state: vec![1, 2, 3],
            holes: vec![Hole {
                from: 512,
                to: 8192,
                settled: true,
            }],
        }
    }

    #[test]
    fn comes_back() {
        let mut bytes = sample().encode();
        bytes.resize(4096, 0);
        assert_eq!(Checkpoint::decode(&bytes), Ok(sample()));
    }

    proptest! {
        #[test]
        fn damage_is_seen(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Checkpoint::decode(&bytes).is_err());
            prop_assert!(Checkpoint::decode(&bytes[..at]).is_err());
        }
    }
}
