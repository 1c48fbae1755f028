//! Messages that wait are read one by one where they lie far apart, and what a chunk would say holds for them too.

use super::fault_tests::{append, open, options};
use super::{LogHost, SimDisk};
use crate::log::{Entry, Position, ReadMiss, sample};
use corelane_wire::properties::MessageKeys;

const TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// Appends so many messages that wait, each in a group of its own, with `between` others of 3 KiB behind each.
fn fill(host: &mut LogHost, count: usize, between: usize) -> Vec<Position> {
    let queue = host.log.queue(TOPIC, 0);
    let len = sample::message(TOPIC, 0, 0, 0, 7, &[5; 500], b"").len();
    let mut positions = Vec::new();
    for _ in 0..count {
        let put = |position, offset, out: &mut [u8]| {
            out.copy_from_slice(&sample::message(
                TOPIC, 0, offset, position, 7, &[5; 500], b"",
            ));
        };
        let appended = host
            .log
            .append_message(queue, len, 0, 7, MessageKeys::default(), put)
            .unwrap();
        positions.push(appended.position);
        host.settle(0).unwrap();
        for _ in 0..between {
            append(host, &[7; 3000]).unwrap();
            host.settle(0).unwrap();
        }
    }
    positions
}

/// Runs what a read waits for until it has an answer.
fn until<T>(
    host: &mut LogHost,
    mut read: impl FnMut(&mut LogHost) -> Result<T, ReadMiss>,
) -> Result<T, ReadMiss> {
    loop {
        match read(host) {
            Err(ReadMiss::Wanted(_)) => {}
            result => return result,
        }
        host.submit(0);
        assert!(host.step().unwrap(), "somebody brings what is wanted");
    }
}

fn entries(host: &mut LogHost, count: usize) -> Vec<Entry> {
    let queue = host.log.find_queue(TOPIC, 0).unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let from = all.len() as i64;
        let some = until(host, |host| {
            let mut entries = Vec::new();
            host.log.entries(queue, from, count, &mut entries)?;
            Ok(entries)
        });
        all.extend(some.unwrap());
    }
    all
}

fn waiting(host: &mut LogHost, entry: &Entry) -> Result<Vec<u8>, ReadMiss> {
    until(host, |host| host.log.waiting_record(entry)).map(|bytes| bytes.to_vec())
}

fn record(host: &mut LogHost, entry: &Entry) -> Result<Vec<u8>, ReadMiss> {
    until(host, |host| host.log.record(entry.position, entry.size)).map(|bytes| bytes.to_vec())
}

/// A log whose messages that wait lie far apart and are read from the disk; `again`: as it is after a crash.
fn scattered(disk: &SimDisk, again: bool) -> (LogHost, Vec<Entry>, Vec<Position>) {
    let mut host = open(disk).unwrap();
    let positions = fill(&mut host, 12, 20);
    if again {
        disk.crash();
        host = open(disk).unwrap();
    }
    let entries = entries(&mut host, 12);
    let found: Vec<_> = entries.iter().map(|entry| entry.position).collect();
    assert_eq!(found, positions);
    (host, entries, positions)
}

#[test]
fn scattered_records_are_read_without_what_lies_between_them() {
    for again in [false, true] {
        let disk = SimDisk::new(31);
        let (mut host, entries, _) = scattered(&disk, again);
        // The newest may be in the buffer that is being filled.
        let cold = &entries[..10];
        let before = host.log.sizes().read_memory_bytes;
        assert_eq!(host.log.read_waiting_ahead(cold), cold.len());
        for entry in cold {
            let bytes = waiting(&mut host, entry).unwrap();
            assert_eq!(bytes.len(), entry.size as usize);
            assert_eq!(bytes[28..36], entry.position.to_be_bytes());
        }
        let read = host.log.sizes().read_memory_bytes - before;
        assert!(
            read <= cold.len() * 8192,
            "{read} bytes for {} records",
            cold.len()
        );
        for entry in cold {
            assert_eq!(waiting(&mut host, entry), record(&mut host, entry));
        }
    }
}

#[test]
fn records_that_lie_close_together_are_read_in_chunks() {
    let disk = SimDisk::new(32);
    let mut host = open(&disk).unwrap();
    fill(&mut host, 40, 0);
    fill_the_tail(&mut host);
    let entries = entries(&mut host, 40);
    let seen_to = host.log.read_waiting_ahead(&entries);
    assert!(seen_to > 0);
    for entry in &entries {
        assert_eq!(waiting(&mut host, entry), record(&mut host, entry));
    }
}

fn fill_the_tail(host: &mut LogHost) {
    for _ in 0..2 * options().buffer_bytes / 4096 {
        append(host, &[7; 3000]).unwrap();
        host.settle(0).unwrap();
    }
}

#[test]
fn a_damaged_record_is_an_error_and_others_are_not() {
    let disk = SimDisk::new(33);
    let (mut host, entries, _) = scattered(&disk, false);
    let damaged = entries[3];
    let segment = host.log.segment_of(damaged.position).unwrap();
    let offset = damaged.position - segment.0;
    disk.flip_bit(&segment.file_name(), (offset + 200) * 8);
    assert_eq!(host.log.read_waiting_ahead(&entries[..10]), 10);
    for (number, entry) in entries[..10].iter().enumerate() {
        let read = waiting(&mut host, entry);
        match number {
            3 => assert!(matches!(read, Err(ReadMiss::Damaged { .. })), "{read:?}"),
            _ => assert_eq!(read, record(&mut host, entry)),
        }
    }
    assert_eq!(host.log.sizes().reads_failed, 1);
}

#[test]
fn records_of_a_segment_that_vanished_are_errors_and_others_are_not() {
    let disk = SimDisk::new(34);
    let mut host = open(&disk).unwrap();
    fill(&mut host, 12, 40);
    let entries = entries(&mut host, 12);
    let segment = |host: &LogHost, entry: &Entry| host.log.segment_of(entry.position).unwrap();
    let gone = segment(&host, &entries[0]);
    assert_ne!(
        gone,
        segment(&host, &entries[11]),
        "it takes more than one segment"
    );
    disk.vanish(&gone.file_name());
    host.log.read_waiting_ahead(&entries[..10]);
    for entry in &entries[..10] {
        let is_gone = segment(&host, entry) == gone;
        assert_eq!(waiting(&mut host, entry).is_err(), is_gone, "{entry:?}");
    }
}
