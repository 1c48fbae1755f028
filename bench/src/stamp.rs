//! What a body carries so that a consumer can tell whose it is, when it was sent, and whether it came whole.
//!
//! `magic run stream seed seq sent_ns`, all big-endian, then filler that follows from the seed. `stream` is a producing
//! connection of a run, `seq` counts its messages from 0.

use crate::random::Random;

/// What a stamp takes; a stamped body is at least as long.
pub const STAMP_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"CLB1";

/// The fields of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run of the load generator.
    pub run: u32,
    /// The producing connection.
    pub stream: u32,
    /// Where the filler comes from.
    pub seed: u32,
    /// The number of the message in its stream.
    pub seq: u64,
    /// When it was to be sent, in nanoseconds since 1970.
    pub sent_ns: u64,
}

/// A body with the filler of `seed` and a stamp that is completed when it is sent ([`complete`]).
pub fn body(run: u32, seed: u32, len: usize) -> Vec<u8> {
    let mut body = vec![0; len.max(STAMP_BYTES)];
    body[..4].copy_from_slice(&MAGIC);
    body[4..8].copy_from_slice(&run.to_be_bytes());
    body[12..16].copy_from_slice(&seed.to_be_bytes());
    let mut random = Random::new(seed.into());
    for piece in body[STAMP_BYTES..].chunks_mut(8) {
        piece.copy_from_slice(&random.next().to_le_bytes()[..piece.len()]);
    }
    body
}

/// Writes what differs from message to message into a body that [`body`] made.
#[inline]
pub fn complete(body: &mut [u8], stream: u32, seq: u64, sent_ns: u64) {
    body[8..12].copy_from_slice(&stream.to_be_bytes());
    body[16..24].copy_from_slice(&seq.to_be_bytes());
    body[24..32].copy_from_slice(&sent_ns.to_be_bytes());
}

/// The stamp of a body; `None` where it has none.
pub fn read(body: &[u8]) -> Option<Stamp> {
    let (stamp, _) = body.split_first_chunk::<STAMP_BYTES>()?;
    let word = |at: usize| {
        stamp[at..at + 4]
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    (stamp[..4] == MAGIC).then(|| Stamp {
        run: word(4),
        stream: word(8),
        seed: word(12),
        seq: long(16),
        sent_ns: long(24),
    })
}

/// Whether the filler of a stamped body is what its seed gives.
pub fn is_whole(body: &[u8], stamp: &Stamp) -> bool {
    let mut random = Random::new(stamp.seed.into());
    body[STAMP_BYTES..]
        .chunks(8)
        .all(|piece| *piece == random.next().to_le_bytes()[..piece.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        for len in [0, 32, 33, 1000] {
            let mut body = body(3, 9, len);
            assert_eq!(body.len(), len.max(32));
            complete(&mut body, 1 << 31, u64::MAX - 1, 1 << 40);
            let stamp = read(&body).unwrap();
            let wanted = Stamp {
                run: 3,
                stream: 1 << 31,
                seed: 9,
                seq: u64::MAX - 1,
                sent_ns: 1 << 40,
            };
            assert_eq!(stamp, wanted);
            assert!(is_whole(&body, &stamp));
            if let Some(last) = body.get_mut(STAMP_BYTES..).and_then(<[u8]>::last_mut) {
                *last ^= 1;
                assert!(!is_whole(&body, &stamp));
            }
        }
    }

    #[test]
    fn other_bodies_have_none() {
        assert_eq!(read(b"short"), None);
        assert_eq!(read(&[0; 100]), None);
    }
}
