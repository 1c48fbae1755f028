//! Appending and group commit: whole groups, messages that are waited for, many queues.

use super::host::{Host, Message, TOPIC, Way};
use super::raw::{Raw, write_file};
use super::{Setting, median, report};
use corelane_broker::log::{Log, LogOptions, QueueRef};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

const GROUP_BYTES: usize = 256 << 10;
const IN_FLIGHT: usize = 4;
pub const BODY_BYTES: usize = 1024;
const SEGMENT_BYTES: u64 = 128 << 20;
/// What the files of the log have together, so that both write to as much of the disk: what lies below it may keep what was
/// written last.
const RAW_BYTES: u64 = 6 * SEGMENT_BYTES;
/// Two full segments are kept, so that segments are used again.
const KEPT_BYTES: u64 = 2 * SEGMENT_BYTES;
/// How far the log is filled before anything is measured: segments are used again from here on.
const FILL_BYTES: u64 = 6 * SEGMENT_BYTES;
const BLOCK_BYTES: usize = 4096;

/// As a shard has them, but for retention: after the first segments, those that are retired are used again.
fn options(segment_bytes: u64, kept_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes,
        first_segment_bytes: segment_bytes,
        segments_ahead: 2,
        retention_bytes: kept_bytes,
        refuse_above_percent: 100,
        delete_above_percent: 100,
        ..LogOptions::default()
    }
}

/// Queues of one topic.
fn open_queues(log: &mut Log, count: u32) -> Vec<QueueRef> {
    (0..count).map(|id| log.queue(TOPIC, id as i32)).collect()
}

/// The queues of the next messages, at random, one after another in memory: finding them is not the log's work.
struct Picks {
    list: Vec<(QueueRef, u32)>,
    at: usize,
}

impl Picks {
    fn of(queues: &[QueueRef]) -> Self {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut pick = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (u128::from(random) * queues.len() as u128) >> 64;
            (queues[at as usize], at as u32)
        };
        let list = (0..1 << 18).map(|_| pick()).collect();
        Self { list, at: 0 }
    }

    #[inline]
    fn next(&mut self) -> (QueueRef, u32) {
        self.at = (self.at + 1) % self.list.len();
        self.list[self.at]
    }
}

/// Appends as fast as the log takes it for a while; bytes a second that became durable.
async fn log_groups(host: &mut Host, message: &Message, picks: &mut Picks, round: Duration) -> f64 {
    // Writes may end together, for the device makes them durable together: as many whole groups stand ready, but none that is
    // begun.
    let ahead = (IN_FLIGHT * GROUP_BYTES - message.len()) as u64;
    let began = Instant::now();
    let from = host.log.durable();
    while began.elapsed() < round {
        host.turn(|log| {
            while log.unissued_bytes() < ahead {
                let (queue, id) = picks.next();
                if message.append(log, queue, id).is_none() {
                    break;
                }
            }
            false
        })
        .await;
    }
    let speed = (host.log.durable() - from) as f64 / began.elapsed().as_secs_f64();
    host.settle().await;
    speed
}

fn raw_groups(raw: &mut Raw, round: Duration) -> f64 {
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < round {
        while let Some(slot) = raw.free() {
            raw.write(slot, GROUP_BYTES);
        }
        raw.wait(|_| done += 1);
    }
    let speed = (done * GROUP_BYTES) as f64 / began.elapsed().as_secs_f64();
    raw.settle();
    speed
}

/// A log whose segments are used again from now on.
async fn filled(directory: &Path, message: &Message, queues: u32) -> (Host, Picks) {
    std::fs::create_dir(directory).unwrap();
    let (mut host, ..) = Host::open(directory, options(SEGMENT_BYTES, KEPT_BYTES)).await;
    let mut picks = Picks::of(&open_queues(&mut host.log, queues));
    while host.log.max_position() < FILL_BYTES {
        log_groups(&mut host, message, &mut picks, Duration::from_millis(100)).await;
    }
    (host, picks)
}

/// Nothing is sealed, prepared or retired, and a third of a segment is still to be filled.
async fn begin_within_a_segment(host: &mut Host, message: &Message, picks: &mut Picks) {
    loop {
        host.quiet().await;
        let at = host.log.max_position();
        let segment = host.log.segment_of(at - 1).unwrap();
        if at - segment.0 < SEGMENT_BYTES / 3 {
            return;
        }
        log_groups(host, message, picks, Duration::from_millis(50)).await;
    }
}

/// `BODY_BYTES` of them a message, or so many that four make a group.
pub async fn groups(setting: &Setting, body_bytes: usize) {
    let path = setting.directory.join("raw");
    write_file(&path, RAW_BYTES);
    let mut raw = Raw::open(&path, true, IN_FLIGHT, GROUP_BYTES);
    let message = Message::with_body(body_bytes);
    let (mut host, mut picks) = filled(&setting.directory.join("log"), &message, 1).await;
    let (mut within, mut steady) = (Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        begin_within_a_segment(&mut host, &message, &mut picks).await;
        let log = log_groups(&mut host, &message, &mut picks, setting.round).await;
        let alone = raw_groups(&mut raw, setting.round);
        within.push((log / 1e6, alone / 1e6));
    }
    for _ in 0..setting.rounds {
        let log = log_groups(&mut host, &message, &mut picks, 3 * setting.round).await;
        let alone = raw_groups(&mut raw, setting.round);
        steady.push((log / 1e6, alone / 1e6));
    }
    report(
        "groups of 256 KiB, 4 in flight, within a segment",
        "MB/s",
        &within,
    );
    report(
        "groups of 256 KiB, 4 in flight, while segments are sealed and used again",
        "MB/s",
        &steady,
    );
}

/// Producers that each wait for their message; messages a second.
async fn log_producers(
    host: &mut Host,
    message: &Message,
    queue: QueueRef,
    count: usize,
    round: Duration,
) -> f64 {
    let mut waiting: VecDeque<u64> = VecDeque::new();
    let mut done = 0;
    let began = Instant::now();
    while began.elapsed() < round {
        host.turn(|log| {
            while let Some(&end) = waiting.front()
                && end <= log.durable()
            {
                waiting.pop_front();
                done += 1;
            }
            while waiting.len() < count
                && let Some(end) = message.append(log, queue, 0)
            {
                waiting.push_back(end);
            }
            false
        })
        .await;
    }
    let speed = f64::from(done) / began.elapsed().as_secs_f64();
    host.settle().await;
    speed
}

/// The same arrivals, written where they are gathered; `at_once` on this thread, otherwise several in flight.
fn raw_producers(
    raw: &mut Raw,
    message_bytes: usize,
    count: usize,
    at_once: bool,
    round: Duration,
) -> f64 {
    let message = vec![7; message_bytes];
    let mut in_slot = vec![0; raw.buffers.len()];
    let (mut ready, mut done) = (count, 0);
    let began = Instant::now();
    while began.elapsed() < round {
        while ready > 0
            && let Some(slot) = raw.free()
        {
            let buffer = raw.buffers[slot].bytes();
            for at in 0..ready {
                buffer[at * message_bytes..(at + 1) * message_bytes].copy_from_slice(&message);
            }
            let bytes = (ready * message_bytes).next_multiple_of(BLOCK_BYTES);
            if at_once {
                raw.write_now(slot, bytes);
                done += ready;
                break;
            }
            raw.write(slot, bytes);
            in_slot[slot] = std::mem::take(&mut ready);
        }
        if !at_once {
            raw.wait(|slot| ready += in_slot[slot]);
            done += ready;
        }
    }
    let speed = done as f64 / began.elapsed().as_secs_f64();
    raw.settle();
    speed
}

pub async fn producers(setting: &Setting) {
    let path = setting.directory.join("raw");
    write_file(&path, RAW_BYTES);
    let mut raw = Raw::open(&path, true, IN_FLIGHT, GROUP_BYTES);
    let message = Message::with_body(BODY_BYTES);
    let (mut host, mut picks) = filled(&setting.directory.join("log"), &message, 1).await;
    let queue = host.log.queue(TOPIC, 0);
    for count in [1, 16, 64] {
        let mut rounds = [Vec::new(), Vec::new()];
        for _ in 0..setting.rounds {
            for (way, rounds) in [Way::Thread, Way::Ring].into_iter().zip(&mut rounds) {
                host.way = Way::Ring;
                begin_within_a_segment(&mut host, &message, &mut picks).await;
                host.way = way;
                let log = log_producers(&mut host, &message, queue, count, setting.round).await;
                let at_once = way == Way::Thread;
                let raw = raw_producers(&mut raw, message.len(), count, at_once, setting.round);
                rounds.push((log / 1e3, raw / 1e3));
            }
        }
        for (way, rounds) in ["on the thread", "through the ring"].iter().zip(&rounds) {
            report(&format!("{count} producers of 1 KiB, {way}"), "k/s", rounds);
        }
    }
}

const MANY: u32 = 100_000;
/// Of a segment.
const LONGEST_BYTES: u64 = 4 << 30;

/// Appends with a disk that is done at once: only what the log itself does. Messages a second.
fn append_speed(log: &mut Log, message: &Message, picks: &mut Picks, count: usize) -> f64 {
    let began = Instant::now();
    for number in 0..count {
        let (queue, id) = picks.next();
        message.append(log, queue, id).unwrap();
        if number % 200 == 199 {
            while let Some(write) = log.next_write(0) {
                log.write_done(write.id, Ok(())).unwrap();
            }
            log.take_visible(|_, _| {});
        }
    }
    count as f64 / began.elapsed().as_secs_f64()
}

pub async fn queues(setting: &Setting) {
    let message = Message::with_body(BODY_BYTES);
    // Without a disk, in one segment.
    let mut logs = Vec::new();
    for count in [1, MANY] {
        let directory = setting.directory.join(format!("memory-{count}"));
        std::fs::create_dir(&directory).unwrap();
        let sparse = LogOptions {
            segment_bytes: LONGEST_BYTES,
            first_segment_bytes: 1 << 30,
            ..options(1 << 30, u64::MAX)
        };
        logs.push((directory, count, sparse));
    }
    let mut opened = Vec::new();
    for (directory, count, options) in logs {
        let first = LogOptions {
            segment_bytes: 16 << 20,
            first_segment_bytes: 16 << 20,
            ..options.clone()
        };
        drop(Host::open(&directory, first).await);
        // Never written to: as long as can be.
        let segment = directory.join(format!("{:020}.log", 0));
        let file = std::fs::File::options().write(true).open(segment).unwrap();
        file.set_len(LONGEST_BYTES).unwrap();
        let (mut host, ..) = Host::open(&directory, options).await;
        let picks = Picks::of(&open_queues(&mut host.log, count));
        opened.push((host, picks));
    }
    let count = (LONGEST_BYTES - (1 << 30)) as usize / message.len() / (2 * setting.rounds);
    for warm in [false, true] {
        let mut rounds = Vec::new();
        for _ in 0..setting.rounds {
            let speeds: Vec<f64> = opened
                .iter_mut()
                .map(|(host, picks)| append_speed(&mut host.log, &message, picks, count))
                .collect();
            rounds.push((speeds[1] / 1e6, speeds[0] / 1e6));
        }
        let when = if warm {
            "later"
        } else {
            "from the first message on"
        };
        report(
            &format!("100,000 queues against one (\"raw\"), no disk, {when}"),
            "M/s",
            &rounds,
        );
    }
}

/// The same with the disk.
pub async fn queues_on_disk(setting: &Setting) {
    let message = Message::with_body(BODY_BYTES);
    let mut hosts = Vec::new();
    for count in [1, MANY] {
        let directory = setting.directory.join(format!("{count}"));
        hosts.push(filled(&directory, &message, count).await);
    }
    let mut rounds = Vec::new();
    for _ in 0..setting.rounds {
        let mut speeds = Vec::new();
        for (host, picks) in &mut hosts {
            begin_within_a_segment(host, &message, picks).await;
            speeds.push(log_groups(host, &message, picks, setting.round).await);
        }
        rounds.push((speeds[1] / 1e6, speeds[0] / 1e6));
    }
    report(
        "100,000 queues against one (\"raw\"), groups of 256 KiB to the disk",
        "MB/s",
        &rounds,
    );
}

/// Memory that the process has.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Memory of queues that nothing happens in.
pub async fn idle(setting: &Setting) {
    const COUNT: i32 = 100_000;
    let mut each = Vec::new();
    for round in 0..setting.rounds {
        let directory: &Path = &setting.directory.join(format!("{round}"));
        std::fs::create_dir(directory).unwrap();
        let (mut host, ..) = Host::open(directory, options(16 << 20, u64::MAX)).await;
        let before = resident_bytes();
        for number in 0..COUNT {
            host.log
                .queue(&format!("a-topic-{:06}", number / 8), number % 8);
        }
        let bytes = (resident_bytes() - before) as f64 / f64::from(COUNT);
        println!("  an idle queue of a topic with 8 of them: {bytes:.0} bytes");
        each.push(bytes);
    }
    println!("idle queue, median: {:.0} bytes", median(each));
}
