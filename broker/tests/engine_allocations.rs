//! Engine and log allocate nothing for a message once they are warm: not for a send, and not for a pull.

#![allow(clippy::disallowed_methods, reason = "a test with real files")]
#![allow(clippy::unwrap_used, missing_docs)]

use corelane_broker::engine::settings::Settings;
use corelane_broker::engine::{Connection, Effect, Engine, Now, Output, Turn};
use corelane_broker::log::{self, Io, Log, LogOptions, Slice, StdIo, at_once};
use corelane_wire::code::{VERSION, language, pull_flag, request, response};
use corelane_wire::frame::{Head, Serialization};
use corelane_wire::header::pull::PullMessageRequest;
use corelane_wire::header::send::SendMessageRequest;
use corelane_wire::record::Record;
use corelane_wire::{ExtHeader, Frame, FrameWriter, Text};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `act` ran.
fn counted<R>(act: impl FnOnce() -> R) -> (u64, R) {
    let before = ALLOCATIONS.with(Cell::get);
    let result = act();
    (ALLOCATIONS.with(Cell::get) - before, result)
}

/// What one connection is sent.
#[derive(Default)]
struct Sent {
    bytes: Vec<u8>,
    parts: Vec<Slice>,
}

impl Output for Sent {
    fn buffer(&mut self, _: Connection) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn shared(&mut self, _: Connection, part: Slice) {
        self.parts.push(part);
    }

    fn close(&mut self, _: Connection) {}

    fn effect(&mut self, _: Effect) {}
}

fn settings() -> Settings {
    Settings {
        cluster_name: "DefaultCluster".to_owned(),
        broker_name: "broker-a-0".to_owned(),
        store_host: SocketAddr::from(([127, 0, 0, 1], 10911)),
        max_message_bytes: 4 << 20,
        auto_create_topic: true,
        default_topic_queues: 8,
        auto_create_group: true,
        trace_topic: false,
        broker_permission: 6,
        lite_pull: true,
        reject_transactions: false,
        property_filter: true,
        long_polling: true,
        long_polling_max_ms: 30_000,
        sync_flush: true,
        delay_levels_ms: vec![1_000, 5_000, 10_000, 30_000, 60_000],
        timer_max_delay_ms: 259_200_000,
        timer_horizon_ms: 129_600_000,
        recall: true,
        transaction_timeout_ms: 6_000,
        transaction_check_interval_ms: 30_000,
        transaction_check_max: 3,
        max_pending_transactions: 1_000,
        max_pop_checkpoints: 10_000,
        max_queue_pop_checkpoints: 60,
        offset_flush_ms: 200,
        client_timeout_ms: 120_000,
        pull_max_messages: 1024,
        pull_max_bytes: 256 << 10,
        max_topics: 1_000,
        max_topic_queues: 1_024,
        max_groups: 1_000,
        max_queues: 100_000,
        max_clients: 1_000,
        max_offsets: 100_000,
        max_held_pulls: 1_000,
        described: String::new(),
    }
}

struct Broker {
    directory: PathBuf,
    io: StdIo,
    engine: Engine,
    log: Log,
    now: Now,
    sent: Sent,
}

impl Broker {
    fn start(name: &str, options: LogOptions) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let io = StdIo::new(directory.clone());
        let mut engine = Engine::new(settings());
        let (mut log, _) = at_once(log::open(&io, options, &mut engine)).unwrap();
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 1_000,
        };
        engine.started(&mut log, now);
        let mut broker = Self {
            directory,
            io,
            engine,
            log,
            now,
            sent: Sent::default(),
        };
        broker
            .engine
            .opened(Connection(1), ([127, 0, 0, 1], 40_000).into());
        broker.background();
        broker
    }

    /// Handles frames as one turn and writes what they appended; says how many allocations that took.
    fn turn(&mut self, frames: &[Vec<u8>]) -> u64 {
        self.sent.bytes.clear();
        self.sent.parts.clear();
        let Self {
            directory: _,
            io,
            engine,
            log,
            now,
            sent,
        } = self;
        let mut allocations = 0;
        let mut step = |log: &mut Log, act: &mut dyn FnMut(&mut Engine, &mut Turn<'_>)| {
            let mut turn = Turn {
                now: *now,
                log,
                out: sent,
            };
            allocations += counted(|| act(engine, &mut turn)).0;
        };
        step(log, &mut |engine, turn| {
            for frame in frames {
                engine.handle(turn, Connection(1), frame).unwrap();
            }
        });
        let mut others = 0;
        loop {
            let (some, write) = counted(|| log.next_write(now.wall_ms));
            others += some;
            let Some(write) = write else { break };
            let file = at_once(io.open(&write.segment.file_name())).unwrap();
            at_once(io.write_at(&file, write.file_offset, &write.bytes)).unwrap();
            let id = write.id;
            drop(write);
            others += counted(|| log.write_done(id, Ok(())).unwrap()).0;
        }
        step(log, &mut |engine, turn| engine.settle(turn));
        while let Some(read) = log.next_read() {
            let file = at_once(io.open(&read.file.file_name())).unwrap();
            let bytes = at_once(io.read_at(&file, read.offset, read.len));
            others += counted(|| log.read_done(read.id, bytes)).0;
            step(log, &mut |engine, turn| engine.on_read(turn, read.id));
        }
        allocations + others
    }

    /// What goes on beside the messages: segments are prepared and sealed.
    fn background(&mut self) {
        while let Some(job) = self.log.next_job() {
            let done = at_once(job.run(&self.io));
            self.log.job_done(done).unwrap();
        }
    }

    /// Messages in the answer to a pull.
    fn messages(&self) -> i64 {
        let mut messages = 0;
        for part in &self.sent.parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                (_, rest) = Record::parse(rest).unwrap();
                messages += 1;
            }
        }
        messages
    }

    fn answers(&self) -> usize {
        let (mut rest, mut answers) = (&self.sent.bytes[..], 0);
        while let Some(len) = corelane_wire::frame::split(rest, 1 << 20).unwrap() {
            let answer = Frame::parse(&rest[..len]).unwrap();
            assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
            answers += 1;
            rest = &rest[len..];
        }
        answers
    }
}

fn frame(code: i32, encode: impl FnOnce(&mut FrameWriter<'_>), body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let head = Head {
        serialization: Serialization::Rocketmq,
        code,
        language: language::JAVA,
        version: VERSION,
        opaque: 7,
        flag: 0,
        remark: None,
    };
    let mut writer = FrameWriter::new(&mut bytes, &head);
    encode(&mut writer);
    writer.finish_with(body);
    bytes
}

fn send(queue_id: i32) -> Vec<u8> {
    let header = SendMessageRequest {
        producer_group: Text::plain("producers"),
        topic: Text::plain("Orders"),
        default_topic: Text::plain("TBW102"),
        default_topic_queue_nums: 4,
        queue_id,
        born_timestamp: 1_700_000_000_000,
        properties: Some(Text::plain(
            "UNIQ_KEY\u{1}7F0000010000000000000000DEADBEEF\u{2}WAIT\u{1}true\u{2}TAGS\u{1}red\u{2}",
        )),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        batch: Some(false),
        ..SendMessageRequest::default()
    };
    frame(
        request::SEND_MESSAGE_V2,
        |writer| header.encode_short(writer),
        &[7; 1024],
    )
}

fn pull(queue_id: i32, queue_offset: i64, subscription: &str) -> Vec<u8> {
    let header = PullMessageRequest {
        consumer_group: Text::plain("consumers"),
        topic: Text::plain("Orders"),
        queue_id,
        queue_offset,
        max_msg_nums: 32,
        sys_flag: pull_flag::SUSPEND | pull_flag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: 15_000,
        subscription: Some(Text::plain(subscription)),
        sub_version: 1,
        ..PullMessageRequest::default()
    };
    frame(request::PULL_MESSAGE, |writer| header.encode(writer), &[])
}

const QUEUES: i32 = 4;
const TURN: usize = 16;

/// Sends so many messages in turns of 16.
fn send_all(broker: &mut Broker, messages: usize) -> u64 {
    let frames: Vec<_> = (0..TURN as i32).map(|at| send(at % QUEUES)).collect();
    let mut allocations = 0;
    for _ in 0..messages / TURN {
        allocations += broker.turn(&frames);
        assert_eq!(broker.answers(), TURN);
        broker.background();
    }
    allocations
}

/// Pulls all of the queues from `from` to `to`.
fn pull_all(broker: &mut Broker, from: i64, to: i64, subscription: &str) -> u64 {
    let mut allocations = 0;
    for queue_id in 0..QUEUES {
        let mut next = from;
        while next < to {
            let pull = [pull(queue_id, next, subscription)];
            allocations += broker.turn(&pull);
            let pulled = broker.messages();
            assert!(pulled > 0, "nothing at {next}");
            next += pulled;
        }
    }
    allocations
}

const MESSAGES: usize = 20_000;

fn assert_few(allocations: u64, messages: usize, most: usize, what: &str) {
    assert!(
        allocations < most as u64,
        "{what}: {allocations} allocations for {messages} messages"
    );
}

#[test]
fn a_message_costs_no_allocation() {
    let options = LogOptions {
        segment_bytes: 16 << 20,
        tail_cache_bytes: 8 << 20,
        ..LogOptions::default()
    };
    let mut broker = Broker::start("engine_allocations", options);
    send_all(&mut broker, MESSAGES);
    let sent = send_all(&mut broker, MESSAGES);
    assert_few(sent, MESSAGES, MESSAGES / 50, "sends");

    let max = (2 * MESSAGES) as i64 / i64::from(QUEUES);
    let warm = 1_024;
    pull_all(&mut broker, max - warm, max, "*");
    let pulled = pull_all(&mut broker, max - warm, max, "*");
    let messages = warm as usize * QUEUES as usize;
    assert_few(pulled, messages, messages / 50, "pulls from memory");

    let cold = max - 3 * warm;
    pull_all(&mut broker, 0, warm, "*");
    let pulled = pull_all(&mut broker, warm, cold, "*");
    let messages = (cold - warm) as usize * QUEUES as usize;
    // A chunk of 256 KiB that is read has a few allocations of its own.
    assert_few(pulled, messages, messages / 10, "pulls from the disk");
    drop(broker.log);
    std::fs::remove_dir_all(broker.directory).unwrap();
}
