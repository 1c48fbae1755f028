//! A group: what one write carries. A header, records one after another, zeros up to a block; written once, never again.
//!
//! The checksum covers every byte but the magic and itself. `position` and `log_id` tell a group from stale bytes of a
//! recycled file, `epoch` from groups that an earlier recovery cut off, `follows` says where the group before it ended
//! (so a jump over the end of a segment is known to be one), `durable` what was acknowledged when it was issued.
//! A group without records opens an epoch.

use super::Position;
use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a group's header.
pub(super) const HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"CLG1");
/// The smallest block: positions of groups are multiples of it.
pub(super) const MIN_BLOCK_BYTES: u64 = 512;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Encoded {
    magic: U32,
    crc: U32,
    log_id: U64,
    position: U64,
    follows: U64,
    durable: U64,
    newest_ms: I64,
    epoch: U32,
    length: U32,
    padded: U32,
    records: U32,
}

/// What a group says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The log it belongs to.
    pub log_id: u64,
    /// Where it begins.
    pub position: Position,
    /// Where the group before it ended.
    pub follows: Position,
    /// What was durable when it was issued.
    pub durable: Position,
    /// The newest store time of any record up to here.
    pub newest_ms: i64,
    /// The epoch it was written in.
    pub epoch: u32,
    /// Length of header and records.
    pub length: u32,
    /// Length with the zeros after them.
    pub padded: u32,
    /// Number of records.
    pub records: u32,
}

impl GroupHeader {
    /// Where the next group begins, unless it is in the next segment.
    pub fn end(&self) -> Position {
        self.position + u64::from(self.padded)
    }
}

/// Why bytes are not a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGroup {
    /// There is no header at all.
    #[error("no group header")]
    Magic,
    /// A group of another log or of another place.
    #[error("a group of another log or place")]
    Stale,
    /// It may be one, with this many bytes.
    #[error("{0} bytes are needed")]
    Short(usize),
    /// Checksum or lengths are wrong.
    #[error("checksum or lengths of the group are wrong")]
    Checksum,
}

/// What of a group's checksum is known before its header is.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    crc: crc32fast::Hasher,
    len: usize,
}

impl Rest {
    /// Of what follows the header, padding included.
    pub fn of(bytes: &[u8]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(bytes);
        let len = bytes.len();
        Self { crc, len }
    }
}

/// Fills in the header.
pub(super) fn seal(header: &GroupHeader, out: &mut [u8], rest: &Rest) {
    let mut encoded = Encoded {
        magic: MAGIC.into(),
        crc: 0.into(),
        log_id: header.log_id.into(),
        position: header.position.into(),
        follows: header.follows.into(),
        durable: header.durable.into(),
        newest_ms: header.newest_ms.into(),
        epoch: header.epoch.into(),
        length: header.length.into(),
        padded: header.padded.into(),
        records: header.records.into(),
    };
    assert_eq!(rest.len + HEADER_BYTES, header.padded as usize);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&encoded.as_bytes()[8..]);
    crc.combine(&rest.crc);
    encoded.crc = crc.finalize().into();
    out.copy_from_slice(encoded.as_bytes());
}

/// Checks the group that `bytes` begin with. `bytes` may go on after it.
pub(super) fn check(bytes: &[u8], log_id: u64, position: Position) -> Result<GroupHeader, NoGroup> {
    let (header, crc) = read(bytes, log_id, position)?;
    if crc32fast::hash(&bytes[8..header.padded as usize]) != crc {
        return Err(NoGroup::Checksum);
    }
    Ok(header)
}

/// The header of the group that `bytes` begin with, and the checksum that it should have.
fn read(bytes: &[u8], log_id: u64, position: Position) -> Result<(GroupHeader, u32), NoGroup> {
    let Ok((encoded, _)) = Encoded::read_from_prefix(bytes) else {
        return Err(NoGroup::Short(HEADER_BYTES));
    };
    if encoded.magic.get() != MAGIC {
        return Err(NoGroup::Magic);
    }
    if encoded.log_id.get() != log_id || encoded.position.get() != position {
        return Err(NoGroup::Stale);
    }
    let (length, padded) = (encoded.length.get(), encoded.padded.get());
    if (length as usize) < HEADER_BYTES
        || length > padded
        || u64::from(padded) % MIN_BLOCK_BYTES != 0
    {
        return Err(NoGroup::Checksum);
    }
    if bytes.len() < padded as usize {
        return Err(NoGroup::Short(padded as usize));
    }
    let header = GroupHeader {
        log_id,
        position,
        follows: encoded.follows.get(),
        durable: encoded.durable.get(),
        newest_ms: encoded.newest_ms.get(),
        epoch: encoded.epoch.get(),
        length,
        padded,
        records: encoded.records.get(),
    };
    Ok((header, encoded.crc.get()))
}

/// Padded length of a group, and offset in it and bytes of its records.
pub(super) type LostGroup<'a> = (usize, Vec<(usize, &'a [u8])>);

/// What a group at the start of `bytes` held that fails its checksum: its padded length, and its records, if header and
/// records can be read as if it did not.
pub(super) fn lost_records(bytes: &[u8], log_id: u64, position: Position) -> Option<LostGroup<'_>> {
    let (encoded, _) = Encoded::read_from_prefix(bytes).ok()?;
    let (length, padded) = (encoded.length.get() as usize, encoded.padded.get() as usize);
    let fits = encoded.magic.get() == MAGIC
        && encoded.log_id.get() == log_id
        && encoded.position.get() == position
        && (HEADER_BYTES..=padded).contains(&length)
        && (padded as u64).is_multiple_of(MIN_BLOCK_BYTES)
        && padded <= bytes.len();
    if !fits {
        return None;
    }
    let found: Vec<_> = records(&bytes[..padded]).collect();
    let end = found
        .last()
        .map_or(HEADER_BYTES, |(at, record)| at + record.len());
    (end == length && found.len() == encoded.records.get() as usize).then_some((padded, found))
}

/// The log that a group at the start of `bytes` says it belongs to; nothing else of it is looked at.
pub(super) fn log_id_of(bytes: &[u8]) -> Option<u64> {
    let (encoded, _) = Encoded::read_from_prefix(bytes).ok()?;
    (encoded.magic.get() == MAGIC).then_some(encoded.log_id.get())
}

/// The records of a checked group: offset in the group and bytes of each. Stops early if a length makes no sense.
pub(super) fn records(group: &[u8]) -> Records<'_> {
    let length =
        Encoded::read_from_prefix(group).map_or(0, |(encoded, _)| encoded.length.get() as usize);
    Records {
        group: &group[..length.min(group.len())],
        at: HEADER_BYTES,
    }
}

pub(super) struct Records<'a> {
    group: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Walks records without the header before them; offsets count from the first. Ends at the padding.
    pub fn of_body(body: &'a [u8]) -> Self {
        Self { group: body, at: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let size = self.group.get(at..at + 4)?;
        let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize;
        if size < super::stored::STATE_HEADER_BYTES {
            return None;
        }
        let record = self.group.get(at..at.checked_add(size)?)?;
        self.at = at + size;
        Some((at, record))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(records: &[Vec<u8>], position: Position) -> Vec<u8> {
        let mut rest: Vec<u8> = Vec::new();
        for record in records {
            rest.extend(((record.len() + 12) as u32).to_be_bytes());
            rest.extend([0; 8]);
            rest.extend(record);
        }
        let length = (rest.len() + HEADER_BYTES) as u32;
        let padded = length.next_multiple_of(512);
        rest.resize(padded as usize - HEADER_BYTES, 0);
        let header = GroupHeader {
            log_id: 5,
            position,
            follows: position,
            durable: 3,
            newest_ms: 9,
            epoch: 2,
            length,
            padded,
            records: records.len() as u32,
        };
        let mut out = vec![0; HEADER_BYTES];
        seal(&header, &mut out, &Rest::of(&rest));
        out.extend(rest);
        out
    }

    #[test]
    fn header_is_64_bytes() {
        assert_eq!(size_of::<Encoded>(), HEADER_BYTES);
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = group(&bodies, 4096);
            let header = check(&bytes, 5, 4096).unwrap();
            prop_assert_eq!(header.end(), 4096 + bytes.len() as u64);
            prop_assert_eq!(header.records as usize, bodies.len());
            let found: Vec<Vec<u8>> = records(&bytes).map(|(_, record)| record[12..].to_vec()).collect();
            prop_assert_eq!(found, bodies);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(check(&bytes, 5, 4096).is_err());
        }

        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = check(&bytes, 5, 4096);
            let _ = records(&bytes).count();
        }
    }

    #[test]
    fn other_places_and_logs_are_stale() {
        let bytes = group(&[vec![1; 10]], 4096);
        assert_eq!(check(&bytes, 5, 8192), Err(NoGroup::Stale));
        assert_eq!(check(&bytes, 6, 4096), Err(NoGroup::Stale));
        assert_eq!(check(&bytes[..511], 5, 4096), Err(NoGroup::Short(512)));
        assert_eq!(check(&[0; 512], 5, 0), Err(NoGroup::Magic));
    }
}
