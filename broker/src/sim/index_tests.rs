//! What is gathered for an index, what runs are merged to, and what is built again from the segment: they say the same.

use super::fault_tests::{NoState, fill, options};
use super::{LogHost, SimDisk, block_on};
use crate::log::{LogOptions, ReadMiss, verify};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Names and bytes of all indexes.
fn indexes(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.names().into_iter();
    let names = names.filter(|name| name.ends_with(".index") || name.ends_with(".run"));
    let files = names.map(|name| {
        let file = RefCell::new(Vec::new());
        disk.edit(&name, |bytes| file.borrow_mut().clone_from(bytes));
        (name, file.into_inner())
    });
    files.collect()
}

/// A log of a few segments.
fn filled(disk: &SimDisk, options: LogOptions) -> LogHost {
    let opened = LogHost::open(disk, options, &mut NoState).unwrap();
    let (mut host, _) = opened.unwrap();
    fill(&mut host, 300);
    host.log.snapshot(Vec::new());
    for _ in 0..20 {
        host.settle(0).unwrap();
    }
    host
}

fn whole_indexes() -> LogOptions {
    LogOptions {
        index_memory_bytes: 1 << 20,
        index_run_bytes: 1 << 30,
        index_rows: 0,
        ..options()
    }
}

fn indexes_of_runs() -> LogOptions {
    LogOptions {
        index_run_bytes: 30_000,
        index_rows: 1000,
        ..whole_indexes()
    }
}

/// What the indexes are that a start builds where there is none.
fn built_again(disk: &SimDisk, options: LogOptions) -> BTreeMap<String, Vec<u8>> {
    for name in indexes(disk).keys() {
        disk.vanish(name);
    }
    disk.crash();
    let opened = LogHost::open(disk, options, &mut NoState).unwrap();
    let (_, report) = opened.unwrap();
    assert!(report.rebuilt > 2, "{report:?}");
    indexes(disk)
}

#[test]
fn an_index_from_memory_is_the_one_from_the_segment() {
    let disk = SimDisk::new(1);
    let host = filled(&disk, whole_indexes());
    assert!(host.jobs["index"] > 2 && !host.jobs.contains_key("seal"));
    let gathered = indexes(&disk);
    assert!(gathered.keys().all(|name| name.ends_with(".index")));
    assert_eq!(built_again(&disk, whole_indexes()), gathered);
}

#[test]
fn the_index_of_a_run_from_memory_is_the_one_from_the_segment() {
    let disk = SimDisk::new(1);
    let mut host = filled(&disk, indexes_of_runs());
    assert!(!host.jobs.contains_key("merge"), "{:?}", host.jobs);
    let gathered = indexes(&disk);
    assert!(
        gathered
            .keys()
            .filter(|name| name.ends_with(".run"))
            .count()
            > 10
    );
    let queue = host.log.find_queue("t", 0).unwrap();
    for offset in [0, 20, 50] {
        let is_sound = |host: &mut LogHost| loop {
            let mut entries = Vec::new();
            match host.log.entries(queue, offset, 1, &mut entries) {
                Ok(()) => break true,
                Err(ReadMiss::Wanted(_)) => {}
                Err(ReadMiss::Damaged { .. }) => break false,
                Err(ReadMiss::Gone) => panic!("nothing is gone"),
            }
            host.submit(0);
            host.step().unwrap();
        };
        for (name, bytes) in &gathered {
            for bit in 0..bytes.len() as u64 / 512 {
                disk.flip_bit(name, bit * 4096);
            }
        }
        assert!(!is_sound(&mut host));
        for (name, bytes) in &gathered {
            if disk.len(name) == bytes.len() {
                disk.edit(name, |file| file.clone_from(bytes));
            }
        }
        host.settle(0).unwrap();
        assert!(host.jobs.remove("seal").is_some(), "{:?}", host.jobs);
        assert_eq!(indexes(&disk), gathered);
        assert!(is_sound(&mut host));
    }
}

#[test]
fn what_runs_are_merged_to_is_the_index_of_the_segment() {
    let disk = SimDisk::new(1);
    let options = LogOptions {
        index_rows: 0,
        ..indexes_of_runs()
    };
    let host = filled(&disk, options.clone());
    assert!(host.jobs["merge"] > 2, "{:?}", host.jobs);
    let merged = indexes(&disk);
    let newest = host.log.segment_of(host.log.max_position() - 1).unwrap();
    for name in merged.keys().filter(|name| name.ends_with(".run")) {
        assert!(name[..20] >= newest.file_name()[..20], "{name} was merged");
    }
    let built = built_again(&disk, options);
    // Where chunks begin is up to the runs; pages of entries and keys follow the two of header, rows and chunks.
    for (name, built) in &built {
        assert_eq!(built[8192..], merged[name][8192..], "{name}");
        assert!(built.len() > 8192);
    }
}

#[test]
fn a_run_without_an_index_is_named_and_built_at_the_next_start() {
    let disk = SimDisk::new(1);
    drop(filled(&disk, indexes_of_runs()));
    let before = indexes(&disk);
    let (gone, _) = before.iter().nth(before.len() / 2).unwrap();
    assert!(gone.ends_with(".run"));
    disk.vanish(gone);
    let missing = block_on(&disk, verify(&disk.io())).unwrap().unwrap();
    assert_eq!(&missing.unsound_indexes, std::slice::from_ref(gone));
    disk.crash();
    let opened = LogHost::open(&disk, indexes_of_runs(), &mut NoState).unwrap();
    let (mut host, report) = opened.unwrap();
    assert_eq!(report.rebuilt, 1);
    host.settle(0).unwrap();
    // It is of all that is left of the segment: the runs behind it mean nothing any more.
    let sound = block_on(&disk, verify(&disk.io())).unwrap().unwrap();
    assert_eq!(sound.unsound_indexes, Vec::<String>::new());
    let queue = host.log.find_queue("t", 0).unwrap();
    assert_eq!(host.log.max_offset(queue), 300);
}

#[test]
fn a_start_reads_nothing_that_is_in_an_index_and_the_checkpoint() {
    let disk = SimDisk::new(1);
    let host = filled(&disk, indexes_of_runs());
    let tail = host.log.durable();
    disk.crash();
    let opened = LogHost::open(&disk, indexes_of_runs(), &mut NoState).unwrap();
    let (mut host, report) = opened.unwrap();
    assert!(
        report.scanned_from + 40_000 > tail && report.scanned_from < tail,
        "{report:?}"
    );
    assert_eq!(report.rebuilt, 0);
    // What was scanned and what comes now go into one index.
    let before = indexes(&disk).len();
    fill(&mut host, 20);
    let after = indexes(&disk);
    let name = format!("{:020}.run", report.scanned_from);
    assert!(after.contains_key(&name) && after.len() > before, "{name}");
    disk.crash();
    let opened = LogHost::open(&disk, indexes_of_runs(), &mut NoState).unwrap();
    let (host, _) = opened.unwrap();
    let queue = host.log.find_queue("t", 0).unwrap();
    assert_eq!(host.log.max_offset(queue), 320);
    assert!(
        block_on(&disk, verify(&disk.io()))
            .unwrap()
            .unwrap()
            .unsound_indexes
            .is_empty()
    );
}
