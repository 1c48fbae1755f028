//! One thing goes wrong at a time: errors, a full disk, missing and damaged files, and a crash at every single point.

use super::model::Model;
use super::options::small_options;
use super::seeds::{run_many, run_one};
use super::{Cause, Faults, LogHost, Random, SimDisk, block_on};

use crate::log::{
    AppendError, Damage, FlushMode, Io, IoError, Log, LogFailure, LogOptions, OpenError, Position,
    ReadMiss, Replay, ReplayError, sample, verify,
};
use corelane_wire::properties::MessageKeys;

pub(super) struct NoState;

impl Replay for NoState {
    fn state(&mut self, _: &mut Log, _: u16, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }
}

pub(super) fn options() -> LogOptions {
    LogOptions {
        block_bytes: 4096,
        buffer_bytes: 16384,
        tail_cache_bytes: 0,
        read_cache_bytes: 1 << 20,
        max_group_bytes: 4096,
        max_writes_in_flight: 4,
        snapshot_bytes: u64::MAX,
        retention_bytes: u64::MAX,
        retention_ms: i64::MAX,
        flush: FlushMode::Sync,
        ..small_options(&mut Random::new(0))
    }
}

pub(super) fn open(disk: &SimDisk) -> Result<LogHost, OpenError> {
    LogHost::open(disk, options(), &mut NoState)
        .unwrap()
        .map(|(host, _)| host)
}

pub(super) fn append(host: &mut LogHost, body: &[u8]) -> Result<Position, AppendError> {
    let queue = host.log.queue("t", 0);
    let len = sample::message("t", 0, 0, 0, 7, body, b"").len();
    let appended = host.log.append_message(
        queue,
        len,
        0,
        7,
        MessageKeys::default(),
        |position, offset, out| {
            out.copy_from_slice(&sample::message("t", 0, offset, position, 7, body, b""));
        },
    )?;
    Ok(appended.position)
}

/// Appends records of their own group each, all durable; returns their positions.
pub(super) fn fill(host: &mut LogHost, count: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for _ in 0..count {
        positions.push(append(host, &[7; 3000]).unwrap());
        host.settle(0).unwrap();
    }
    positions
}

fn file_of(host: &LogHost, position: Position) -> (String, u64) {
    let start = host.log.segment_of(position).unwrap();
    (start.file_name(), position - start.0)
}

pub(super) fn read(host: &mut LogHost, position: Position) -> Result<usize, ReadMiss> {
    loop {
        match host.log.record_at(position) {
            Err(ReadMiss::Wanted(_)) => {}
            result => return result.map(|bytes| bytes.len()),
        }
        host.submit(0);
        assert!(host.step().unwrap());
    }
}

#[test]
fn damage_in_the_middle_is_reported_with_its_position() {
    let disk = SimDisk::new(1);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 10);
    let (file, offset) = file_of(&host, positions[4]);
    disk.crash();
    disk.flip_bit(&file, (offset + 500) * 8);
    let damage = block_on(&disk, verify(&disk.io())).unwrap().unwrap().damage;
    let what = "there is no sound group where one was acknowledged".to_string();
    assert_eq!(
        damage,
        [Damage {
            position: positions[4] - 64,
            file: file.clone(),
            offset: offset - 64,
            what,
            to: Some(positions[5] - 64)
        }]
    );
    match open(&disk).map(|_| ()) {
        Err(OpenError::Damaged {
            position,
            file: named,
            offset: at,
            ..
        }) => {
            assert_eq!(
                (position, named, at),
                (positions[4] - 64, file.clone(), offset - 64)
            );
        }
        other => panic!("{other:?}"),
    }
    disk.flip_bit(&file, (offset + 500) * 8);
    let mut host = open(&disk).unwrap();
    assert_eq!(host.log.max_position() % 4096, 0);
    assert!(read(&mut host, positions[4]).is_ok());
}

#[test]
fn the_very_last_group_may_be_torn() {
    let disk = SimDisk::new(2);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 5);
    let (file, offset) = file_of(&host, positions[4]);
    disk.crash();
    disk.flip_bit(&file, (offset + 500) * 8);
    let mut host = open(&disk).unwrap();
    let queue = host.log.find_queue("t", 0).unwrap();
    assert_eq!(host.log.max_offset(queue), 4);
    assert_eq!(read(&mut host, positions[4]), Err(ReadMiss::Gone));
}

/// What padding each group to the block rests on: a write changes no byte outside of its own blocks. Inside of them anything
/// may be after a crash, whatever the medium takes for a sector, and no acknowledged record suffers.
#[test]
fn a_torn_block_harms_no_group_before_it() {
    const BLOCK_BYTES: u64 = 4096;
    for torn_bytes in [1, 511, 512, 1024, 2048, 3584, BLOCK_BYTES] {
        for from_the_end in [false, true] {
            let disk = SimDisk::new(torn_bytes);
            let mut host = open(&disk).unwrap();
            let positions = fill(&mut host, 3);
            let (file, offset) = file_of(&host, host.log.durable() - 1);
            let begin = (offset + 1).next_multiple_of(BLOCK_BYTES) as usize;
            // The next group is under way, and a part of its block is neither old nor new.
            append(&mut host, &[9; 3000]).unwrap();
            host.submit(0);
            disk.crash();
            disk.edit(&file, |bytes| {
                let at = if from_the_end {
                    begin + (BLOCK_BYTES - torn_bytes) as usize
                } else {
                    begin
                };
                bytes[at..at + torn_bytes as usize].fill(0xA5);
            });
            let mut host = open(&disk).unwrap();
            let queue = host.log.find_queue("t", 0).unwrap();
            assert_eq!(host.log.max_offset(queue), 3);
            for position in positions {
                assert!(read(&mut host, position).is_ok());
            }
            fill(&mut host, 2);
            disk.crash();
            let host = open(&disk).unwrap();
            assert_eq!(host.log.max_offset(queue), 5);
        }
    }
}

/// Two groups are in flight, and only the second reaches the disk. It is cut; and when the group that opens the next epoch has
/// taken just the place of the first, it follows that one by its position, and is still not taken for a part of the log.
#[test]
fn a_group_behind_a_lost_one_is_cut_and_never_comes_back() {
    let disk = SimDisk::new(17);
    let mut host = open(&disk).unwrap();
    let kept = fill(&mut host, 1)[0];
    let lost = append(&mut host, &[1; 3000]).unwrap();
    let cut = append(&mut host, &[2; 3000]).unwrap();
    host.settle(0).unwrap();
    let (file, offset) = file_of(&host, lost);
    disk.crash();
    disk.flip_bit(&file, offset * 8);
    for start in 0..3 {
        let mut host = open(&disk).unwrap();
        assert!(host.log.durable() <= cut || start > 0);
        let queue = host.log.find_queue("t", 0).unwrap();
        assert_eq!(host.log.max_offset(queue), 1);
        assert!(read(&mut host, kept).is_ok());
        assert_eq!(read(&mut host, cut), Err(ReadMiss::Gone));
        disk.crash();
    }
}

#[test]
fn a_checkpoint_knows_that_the_last_group_was_acknowledged() {
    let disk = SimDisk::new(3);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 5);
    host.log.snapshot(Vec::new());
    host.settle(0).unwrap();
    let (file, offset) = file_of(&host, positions[4]);
    disk.crash();
    disk.flip_bit(&file, (offset + 500) * 8);
    assert!(
        matches!(open(&disk).map(|_| ()), Err(OpenError::Damaged { position, .. }) if position == positions[4] - 64)
    );
}

#[test]
fn a_cold_read_of_damaged_bytes_is_an_error_and_others_are_not() {
    let disk = SimDisk::new(4);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 40);
    let (file, offset) = file_of(&host, positions[3]);
    disk.flip_bit(&file, (offset + 90) * 8);
    let group = positions[3] - 64;
    assert_eq!(
        read(&mut host, positions[3]),
        Err(ReadMiss::Damaged { position: group })
    );
    assert!(read(&mut host, positions[2]).is_ok() && read(&mut host, positions[4]).is_ok());
    let failures = host.log.take_read_failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    let said = failures[0].to_string();
    assert_eq!(
        said,
        format!("{file} at {}: the checksum is wrong", offset - 64)
    );
    assert_eq!(host.log.sizes().reads_failed, 1);
}

#[test]
fn a_segment_that_vanishes_is_an_error_for_its_readers_and_at_the_next_start() {
    let disk = SimDisk::new(12);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 120);
    let (gone, _) = file_of(&host, positions[0]);
    let (other, _) = file_of(&host, positions[119]);
    assert_ne!(gone, other);
    disk.vanish(&gone);
    assert!(matches!(
        read(&mut host, positions[0]),
        Err(ReadMiss::Damaged { .. })
    ));
    let failures = host.log.take_read_failures();
    assert!(
        failures[0].file == gone && failures[0].what.contains("no such file"),
        "{failures:?}"
    );
    // Who is not concerned goes on.
    assert!(read(&mut host, positions[119]).is_ok());
    fill(&mut host, 3);
    disk.crash();
    assert!(
        matches!(open(&disk).map(|_| ()), Err(OpenError::Missing { file, .. }) if file == gone)
    );
}

#[test]
fn missing_files_are_named() {
    let disk = SimDisk::new(5);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 120);
    host.log.snapshot(Vec::new());
    host.settle(0).unwrap();
    let (middle, _) = file_of(&host, positions[40]);
    disk.crash();
    let kept = SimDisk::new(0);
    kept.copy_from(&disk);
    disk.vanish(&middle);
    assert!(
        matches!(open(&disk).map(|_| ()), Err(OpenError::Missing { file, .. }) if file == middle)
    );
    kept.vanish("checkpoint");
    assert!(matches!(
        open(&kept).map(|_| ()),
        Err(OpenError::Checkpoint(_))
    ));
}

/// A segment may be sealed while the group behind it is on its way; where that group is lost, the segment goes on.
#[test]
fn a_segment_that_goes_on_after_a_crash_is_indexed_again() {
    let disk = SimDisk::new(1);
    let index = "00000000000000000000.index";
    let mut host = open(&disk).unwrap();
    let mut positions = fill(&mut host, 12);
    // It fits only the next segment, and is never written.
    let behind = append(&mut host, &[7; 15000]).unwrap();
    assert!(host.log.segment_of(behind) != host.log.segment_of(positions[11]));
    while let Some(job) = host.log.next_job() {
        let done = block_on(&disk, job.run(&disk.io())).unwrap();
        host.log.job_done(done).unwrap();
    }
    assert!(disk.names().iter().any(|name| name == index));
    disk.crash();
    let mut host = open(&disk).unwrap();
    positions.push(append(&mut host, &[7; 500]).unwrap());
    positions.push(append(&mut host, &[7; 15000]).unwrap());
    assert_eq!(
        host.log.segment_of(positions[12]),
        host.log.segment_of(positions[11])
    );
    host.log.snapshot(Vec::new());
    let io = disk.io();
    while let Some(write) = host.log.next_write(0) {
        let file = block_on(&disk, io.open(&write.segment.file_name()));
        let file = file.unwrap().unwrap();
        let written = io.write_durable(&file, write.file_offset, &write.bytes);
        let written = block_on(&disk, written).unwrap();
        host.log.write_done(write.id, written).unwrap();
    }
    // The crash comes before it is sealed again.
    while let Some(job) = host.log.next_job() {
        if !["seal", "index"].contains(&job.kind()) {
            let done = block_on(&disk, job.run(&io)).unwrap();
            host.log.job_done(done).unwrap();
        }
    }
    assert!(host.log.is_checkpointed());
    disk.crash();
    let mut host = open(&disk).unwrap();
    for position in positions {
        assert!(read(&mut host, position).is_ok());
    }
}

/// An index that rots is built again; the segment may be due to go at the same time.
#[test]
fn a_segment_whose_index_is_built_again_does_not_go_meanwhile() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let mut host = open(&disk).unwrap();
        fill(&mut host, 120);
        let queue = host.log.find_queue("t", 0).unwrap();
        let index = "00000000000000000000.index";
        for bit in 0..disk.len(index) as u64 / 512 {
            disk.flip_bit(index, bit * 4096);
        }
        let mut entries = Vec::new();
        while let Err(ReadMiss::Wanted(_)) = host.log.entries(queue, 0, 1, &mut entries) {
            host.submit(0);
            host.step().unwrap();
        }
        assert!(entries.is_empty(), "the index is not sound");
        // It is being built again.
        host.submit(0);
        host.log.set_retention(&LogOptions {
            retention_bytes: 65536,
            ..options()
        });
        for _ in 0..20 {
            if host.log.snapshot_due() {
                host.log.snapshot(Vec::new());
            }
            host.settle(0).unwrap();
        }
        assert!(host.log.min_position() > 0 && host.log.min_offset(queue) > 0);
        assert_eq!(disk.len(index), 0, "{:?}", disk.names());
    }
}

#[test]
fn a_damaged_checkpoint_is_not_used() {
    let disk = SimDisk::new(6);
    fill(&mut open(&disk).unwrap(), 3);
    disk.crash();
    disk.flip_bit("checkpoint", 300);
    assert!(matches!(
        open(&disk).map(|_| ()),
        Err(OpenError::Checkpoint(_))
    ));
}

#[test]
fn a_failed_write_stops_the_log() {
    let disk = SimDisk::new(7);
    let mut host = open(&disk).unwrap();
    fill(&mut host, 3);
    disk.set_faults(Faults {
        fail_after: [("write", 0)].into(),
        ..Faults::default()
    });
    let durable = host.log.durable();
    append(&mut host, &[1; 100]).unwrap();
    assert!(matches!(host.settle(0), Err(LogFailure::Write { .. })));
    assert_eq!(append(&mut host, &[1; 100]), Err(AppendError::Stopped));
    assert_eq!(host.log.append_state(1, &[]), Err(AppendError::Stopped));
    assert_eq!(host.log.reserve(10, 1), Err(AppendError::Stopped));
    host.settle(0).unwrap();
    assert_eq!(host.log.durable(), durable);
}

/// Appends one record more to three that are durable, and lets its write fail; then the three are there, and nothing else
/// is promised.
fn a_write_that_fails(seed: u64, cause: Cause) {
    let disk = SimDisk::new(seed);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 3);
    disk.set_faults(Faults {
        fail_after: [("write", 0)].into(),
        cause,
        ..Faults::default()
    });
    append(&mut host, &[1; 3000]).unwrap();
    let failure = host.settle(0).unwrap_err();
    assert!(matches!(failure, LogFailure::Write { .. }), "{failure}");
    assert_eq!(append(&mut host, &[1; 100]), Err(AppendError::Stopped));
    // What is there can be read until the end.
    assert!(read(&mut host, positions[0]).is_ok());
    disk.crash();
    let mut host = open(&disk).unwrap();
    for position in positions {
        assert!(read(&mut host, position).is_ok());
    }
    fill(&mut host, 1);
}

#[test]
fn a_short_write_stops_the_log_and_is_cut() {
    for seed in 0..20 {
        a_write_that_fails(seed, Cause::Short);
    }
}

#[test]
fn a_group_write_without_space_stops_the_log() {
    a_write_that_fails(13, Cause::NoSpace);
}

#[test]
fn a_disk_that_turns_read_only_stops_the_log() {
    let disk = SimDisk::new(14);
    let mut host = open(&disk).unwrap();
    let positions = fill(&mut host, 3);
    disk.set_faults(Faults::read_only());
    append(&mut host, &[1; 100]).unwrap();
    let failure = host.settle(0).unwrap_err().to_string();
    assert!(failure.contains("read-only"), "{failure}");
    assert!(read(&mut host, positions[0]).is_ok());
    assert_eq!(append(&mut host, &[1; 100]), Err(AppendError::Stopped));
}

#[test]
fn background_work_without_space_is_tried_again() {
    for kind in ["create", "write", "rename"] {
        let disk = SimDisk::new(15);
        let mut host = open(&disk).unwrap();
        fill(&mut host, 1);
        host.log.snapshot(Vec::new());
        disk.set_faults(Faults {
            fail_after: [(kind, 0)].into(),
            cause: Cause::NoSpace,
            ..Faults::default()
        });
        host.settle(0).unwrap();
        assert!(!host.log.is_checkpointed(), "{kind}");
        disk.set_faults(Faults::default());
        host.log.snapshot(Vec::new());
        host.settle(10_000).unwrap();
        assert!(host.log.is_checkpointed(), "{kind}");
        fill(&mut host, 1);
    }
}

#[test]
fn a_failed_sync_of_background_work_stops_the_log() {
    for kind in ["sync", "sync_dir", "rename"] {
        let disk = SimDisk::new(8);
        let mut host = open(&disk).unwrap();
        host.settle(0).unwrap();
        disk.set_faults(Faults {
            fail_after: [(kind, 0)].into(),
            ..Faults::default()
        });
        host.log.snapshot(Vec::new());
        if kind == "rename" {
            // The simulated rename fails before it changes anything.
            assert!(host.settle(0).is_err());
            continue;
        }
        assert!(
            matches!(host.settle(0), Err(LogFailure::Job { .. })),
            "{kind}"
        );
        assert_eq!(append(&mut host, &[1; 100]), Err(AppendError::Stopped));
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let disk = SimDisk::new(9);
    // No mark comes before the end.
    let options = LogOptions {
        delete_above_percent: 100,
        refuse_above_percent: 100,
        ..options()
    };
    let opened = LogHost::open(&disk, options, &mut NoState).unwrap();
    let mut host = opened.map(|(host, _)| host).unwrap();
    host.settle(0).unwrap();
    disk.set_faults(Faults {
        capacity_bytes: Some(500_000),
        ..Faults::default()
    });
    let mut now_ms = 0;
    let mut appended = Vec::new();
    let error = loop {
        match append(&mut host, &[1; 3000]) {
            Ok(position) => appended.push(position),
            Err(AppendError::Busy) => {}
            Err(error) => break error,
        }
        now_ms += 100;
        host.settle(now_ms).unwrap();
    };
    assert_eq!(error, AppendError::DiskFull);
    assert!(appended.len() > 20);
    disk.set_faults(Faults::default());
    now_ms += 10_000;
    host.settle(now_ms).unwrap();
    now_ms += 10_000;
    host.settle(now_ms).unwrap();
    append(&mut host, &[1; 3000]).unwrap();
    assert!(read(&mut host, appended[0]).is_ok());
}

/// Each start writes a block. When the last segment has none left and the disk none either, the shard does not start, says
/// why, and has lost nothing once there is room.
#[test]
fn a_full_disk_is_started_on_as_long_as_its_last_segment_has_a_block() {
    let disk = SimDisk::new(16);
    let full = || Faults {
        capacity_bytes: Some(500_000),
        ..Faults::default()
    };
    let options = || LogOptions {
        delete_above_percent: 100,
        refuse_above_percent: 100,
        ..options()
    };
    let open = || LogHost::open(&disk, options(), &mut NoState).unwrap();
    let mut host = open().map(|(host, _)| host).unwrap();
    host.settle(0).unwrap();
    disk.set_faults(full());
    let mut now_ms = 0;
    let mut appended = Vec::new();
    loop {
        match append(&mut host, &[1; 3000]) {
            Ok(position) => appended.push(position),
            Err(AppendError::Busy) => {}
            Err(AppendError::DiskFull) => break,
            Err(error) => panic!("{error}"),
        }
        now_ms += 100;
        host.settle(now_ms).unwrap();
    }
    let mut starts = 0;
    let refused = loop {
        disk.crash();
        disk.set_faults(full());
        match open() {
            Ok((mut host, _)) => host.settle(now_ms).unwrap(),
            Err(error) => break error,
        }
        starts += 1;
        assert!(starts < 100);
    };
    assert!(starts >= 4, "{starts}");
    assert!(
        matches!(refused, OpenError::Io(IoError::NoSpace { .. })),
        "{refused}"
    );
    disk.crash();
    let mut host = open().map(|(host, _)| host).unwrap();
    for position in appended {
        assert!(read(&mut host, position).is_ok());
    }
    fill(&mut host, 1);
}

#[test]
fn a_full_disk_lets_the_oldest_segments_go() {
    let disk = SimDisk::new(10);
    let mut host = open(&disk).unwrap();
    host.settle(0).unwrap();
    disk.set_faults(Faults {
        capacity_bytes: Some(2_000_000),
        ..Faults::default()
    });
    let mut now_ms = 0;
    let mut refused = 0;
    for _ in 0..2000 {
        match append(&mut host, &[1; 3000]) {
            Ok(_) => {}
            Err(AppendError::Busy | AppendError::DiskFull) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if host.log.snapshot_due() {
            host.log.snapshot(Vec::new());
        }
        now_ms += 1000;
        host.settle(now_ms).unwrap();
    }
    assert!(
        host.log.min_position() > 2_000_000,
        "{} refused {refused}",
        host.log.min_position()
    );
    let queue = host.log.find_queue("t", 0).unwrap();
    assert!(
        host.log.min_offset(queue) > 0 && host.log.max_offset(queue) > host.log.min_offset(queue)
    );
    let mut entries = Vec::new();
    assert_eq!(
        host.log.entries(queue, 0, 1, &mut entries),
        Err(ReadMiss::Gone)
    );
}

/// Scripts that are known to do everything; others are for long runs. Every third is one with asynchronous flush.
const SYNC_SCRIPT: u64 = 11;
const ASYNC_SCRIPT: u64 = 27;

/// Gives the number of crashes.
fn every_crash_point(seed: u64) -> u64 {
    let flush = if seed.is_multiple_of(3) {
        FlushMode::Async { interval_ms: 5 }
    } else {
        FlushMode::Sync
    };
    // The script's length in steps is found by running it once.
    let whole = Model::scripted(seed, flush, None);
    if [SYNC_SCRIPT, ASYNC_SCRIPT].contains(&seed) {
        whole.assert_touched_all();
    }
    let mut crashes = 0;
    for step in 0..whole.steps() {
        let mut model = Model::scripted(seed, flush, Some(step));
        model.crash_and_recover((step % 3) as usize);
        model.work(3).unwrap();
        model.crash_and_recover(0);
        crashes += model.counts().crashes;
    }
    crashes
}

#[test]
fn every_crash_point_of_a_script() {
    every_crash_point(SYNC_SCRIPT);
}

#[test]
fn every_crash_point_of_an_asynchronous_script() {
    every_crash_point(ASYNC_SCRIPT);
}

/// See `seeds` for how it is told what to do.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_scripts() {
    run_many("one_script", every_crash_point);
}

#[test]
fn one_script() {
    run_one(every_crash_point);
}

#[test]
fn what_waits_for_its_interval_is_written_at_once_when_asked() {
    let disk = SimDisk::new(3);
    let options = LogOptions {
        flush: FlushMode::Async {
            interval_ms: 60_000,
        },
        ..options()
    };
    let opened = LogHost::open(&disk, options, &mut NoState).unwrap();
    let mut host = opened.map(|(host, _)| host).unwrap();
    host.settle(1_000).unwrap();
    append(&mut host, &[7; 100]).unwrap();
    host.settle(1_000).unwrap();
    assert!(
        host.log.durable() < host.log.max_position(),
        "it waits for its interval"
    );
    host.log.flush_now();
    host.settle(1_000).unwrap();
    assert_eq!(host.log.durable(), host.log.max_position());
}
