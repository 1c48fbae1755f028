//! Reading: the scan of recovery, and a consumer that catches up, against reading the same files without a log.

use super::host::{Host, Message, TOPIC};
use super::raw::read_speed;
use super::{Setting, median, report};
use corelane_broker::log::{LastGroup, LogOptions, ReadMiss, StateWriter};
use std::path::{Path, PathBuf};
use std::time::Instant;

const LOG_BYTES: u64 = 512 << 20;
/// Operations in flight and bytes of each; the quickest counts.
const RAW_WAYS: [(usize, usize); 3] = [(2, 4 << 20), (4, 1 << 20), (8, 256 << 10)];
/// What a consumer asks for at once unless told otherwise.
const PULL_MESSAGES: usize = 32;
/// Memory that a catch-up read's bytes lie in: the read cache, and what is read ahead.
const READ_MEMORY_BYTES: usize = 24 << 20;

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 128 << 20,
        first_segment_bytes: 128 << 20,
        segments_ahead: 1,
        snapshot_bytes: u64::MAX,
        refuse_above_percent: 100,
        delete_above_percent: 100,
        ..LogOptions::default()
    }
}

/// A log of so many bytes of messages of 1 KiB in one queue, in groups of 64 messages; all but the last segment are sealed.
async fn filled(directory: &Path, bytes: u64) -> Host {
    let message = Message::with_body(1024);
    let (mut host, ..) = Host::open(directory, options()).await;
    let queue = host.log.queue(TOPIC, 0);
    while host.log.max_position() < bytes {
        host.turn(|log| {
            for _ in 0..64 {
                if message.append(log, queue, 0).is_none() {
                    break;
                }
            }
            false
        })
        .await;
    }
    host.settle().await;
    host.quiet().await;
    host
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap();
    let mut found: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    found.sort();
    found
}

/// The best that the disk does for the segments that are filled, into so much memory.
fn raw_best(paths: &[PathBuf], memory_bytes: usize) -> f64 {
    let speeds = RAW_WAYS.map(|way| read_speed(paths, way, memory_bytes));
    speeds.into_iter().fold(0.0, f64::max)
}

/// As after kill -9 with the checkpoint at the log's beginning.
pub async fn scan(setting: &Setting) {
    drop(filled(&setting.directory, LOG_BYTES).await);
    let paths = segments(&setting.directory);
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds {
        let (host, found, took) = Host::open(&setting.directory, options()).await;
        drop(host);
        let speed = (found.tail - found.scanned_from) as f64 / took.as_secs_f64();
        rounds.push((speed / 1e6, raw_best(&paths[..4], 0) / 1e6));
        println!(
            "  {} groups, {} messages in {took:?}",
            found.groups, found.messages
        );
    }
    report("scan of recovery", "MB/s", &rounds);
}

/// From the first message to the last, each of which is looked up and handed over as a consumer gets it: a pull a turn.
pub async fn cold(setting: &Setting) {
    let mut host = filled(&setting.directory, LOG_BYTES).await;
    host.log.snapshot(StateWriter::default().finish());
    while !host.log.is_checkpointed() {
        host.turn(|_| false).await;
    }
    drop(host);
    let paths = segments(&setting.directory);
    let (mut rounds, mut cached, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        let (mut host, ..) = Host::open(&setting.directory, options()).await;
        let queue = host.log.queue(TOPIC, 0);
        let (mut next, end) = (host.log.min_offset(queue), host.log.max_offset(queue));
        let (mut bytes, mut entries) = (0, Vec::new());
        let began = Instant::now();
        while next < end {
            host.turn(|log| {
                entries.clear();
                match log.entries(queue, next, PULL_MESSAGES, &mut entries) {
                    Ok(()) => {}
                    Err(ReadMiss::Wanted(_)) => return false,
                    Err(miss) => panic!("{miss:?}"),
                }
                let mut last = LastGroup::default();
                for entry in &entries {
                    match log.record_after(&mut last, entry.position, entry.size) {
                        Ok(record) => bytes += record.len(),
                        Err(ReadMiss::Wanted(_)) => return false,
                        Err(miss) => panic!("{miss:?}"),
                    }
                    next += 1;
                }
                !entries.is_empty()
            })
            .await;
        }
        let speed = bytes as f64 / began.elapsed().as_secs_f64();
        reads.push(host.reads_done as f64);
        drop(host);
        rounds.push((speed / 1e6, raw_best(&paths[..4], 0) / 1e6));
        cached.push((speed / 1e6, raw_best(&paths[..4], READ_MEMORY_BYTES) / 1e6));
    }
    report("catch-up read", "MB/s", &rounds);
    report("the same, raw with as much memory", "MB/s", &cached);
    println!("{} reads", median(reads));
}
