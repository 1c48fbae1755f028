//! Who goes from chunk to chunk has the next ones read ahead, the more the further it has come; who does not has nothing.

use super::fault_tests::{NoState, append, options, read};
use super::{LogHost, SimDisk};
use crate::log::{LogOptions, Position};

const BODY_BYTES: usize = 60_000;

/// A log of 12 MiB, in groups of 64 KiB, and where its messages begin.
fn filled(read_cache_bytes: usize) -> (LogHost, Vec<Position>) {
    let disk = SimDisk::new(41);
    let options = LogOptions {
        segment_bytes: 16 << 20,
        first_segment_bytes: 16 << 20,
        buffer_bytes: 256 << 10,
        max_group_bytes: 64 << 10,
        max_record_bytes: 64 << 10,
        max_unflushed_bytes: 1 << 20,
        read_cache_bytes,
        ..options()
    };
    let (mut host, _) = LogHost::open(&disk, options, &mut NoState)
        .unwrap()
        .unwrap();
    let mut positions = Vec::new();
    while host.log.max_position() < 12 << 20 {
        positions.push(append(&mut host, &[7; BODY_BYTES]).unwrap());
        host.settle(0).unwrap();
    }
    host.take_reads();
    (host, positions)
}

/// Reads a message, and lets all reads that this brought about end; how many those were.
fn reads_for(host: &mut LogHost, position: Position) -> usize {
    read(host, position).unwrap();
    host.settle(0).unwrap();
    host.take_reads().len()
}

#[test]
fn a_reader_gets_more_and_more_ahead_and_several_chunks_at_a_time() {
    let (mut host, positions) = filled(16 << 20);
    // Five groups of 64 KiB make a chunk.
    let chunks = positions[..60].chunks(5);
    let of_chunks: Vec<usize> = chunks
        .map(|chunk| chunk.iter().map(|&at| reads_for(&mut host, at)).sum())
        .collect();
    assert_eq!(of_chunks[0], 1, "{of_chunks:?}");
    assert_eq!(of_chunks[1], 1 + 4, "{of_chunks:?}");
    assert!(
        of_chunks[2..].iter().all(|&reads| reads == 0 || reads >= 4),
        "{of_chunks:?}"
    );
    for (number, ahead) in [(2, 8), (3, 12), (4, 16), (5, 20)] {
        let read: usize = of_chunks[..=number].iter().sum();
        let most = number + 1 + ahead;
        assert!(
            read <= most && read + 4 > most,
            "{number}: {read}, {of_chunks:?}"
        );
    }
}

#[test]
fn what_is_ahead_takes_half_of_the_cache_and_a_few_chunks_more() {
    let (mut host, positions) = filled(2 << 20);
    for (number, &position) in positions[..150].iter().enumerate() {
        let reads = reads_for(&mut host, position);
        assert!(reads <= 8, "{reads} reads for message {number}");
        let memory_bytes = host.log.sizes().read_memory_bytes;
        assert!(memory_bytes <= (2 << 20) + (4 << 20), "{memory_bytes}");
    }
}

#[test]
fn who_jumps_about_has_nothing_read_ahead() {
    let (mut host, positions) = filled(16 << 20);
    for number in [100, 20, 60, 140, 80] {
        assert_eq!(reads_for(&mut host, positions[number]), 1, "{number}");
    }
}
