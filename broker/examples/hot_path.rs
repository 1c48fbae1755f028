//! What a send costs the broker without sockets and without a disk: the engine and the log are given the same frames again
//! and again. Prints nanoseconds of the thread's own time a message.
//!
//!     cargo run --release -p corelane-broker --example hot_path [binary|JSON|batch]

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark that people run; nothing else runs beside it"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use corelane_broker::config::Config;
use corelane_broker::engine::{Connection, Effect, Engine, Now, Output, Turn};
use corelane_broker::log::{self, AlignedBuffer, Io, Log, LogOptions, Slice, StdIo, at_once};
use corelane_broker::shard::engine_settings;
use corelane_wire::Text;
use corelane_wire::batch::{self, BatchMessage};
use corelane_wire::code::{VERSION, language, request};
use corelane_wire::frame::{FrameWriter, Head, Serialization};
use corelane_wire::header::send::SendMessageRequest;

/// Requests between two looks at what became durable.
const TURN: usize = 32;
const ROUNDS: usize = 15;
const MESSAGES_A_ROUND: usize = 64_000;

/// What the sockets would get.
#[derive(Default)]
struct Sink {
    buffer: Vec<u8>,
    effects: usize,
}

impl Output for Sink {
    fn buffer(&mut self, _: Connection) -> &mut Vec<u8> {
        &mut self.buffer
    }
    fn shared(&mut self, _: Connection, part: Slice) {
        black_box(&part);
    }
    fn close(&mut self, _: Connection) {}
    fn effect(&mut self, _: Effect) {
        self.effects += 1;
    }
}

struct Broker {
    engine: Engine,
    log: Log,
    io: StdIo,
    sink: Sink,
    now: Now,
}

impl Broker {
    fn start(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let io = StdIo::new(dir.to_path_buf());
        let address = "127.0.0.1:10911".parse().unwrap();
        let mut engine = Engine::new(engine_settings(&Config::default(), "broker-a", address));
        let options = LogOptions {
            segment_bytes: 64 << 20,
            retention_bytes: 256 << 20,
            ..LogOptions::default()
        };
        let (mut log, _) = at_once(log::open(&io, options, &mut engine)).unwrap();
        let now = Now {
            wall_ms: 1_700_000_000_000,
            mono_ms: 1,
        };
        engine.started(&mut log, now);
        engine.opened(Connection(1), "127.0.0.1:50000".parse().unwrap());
        Self {
            engine,
            log,
            io,
            sink: Sink::default(),
            now,
        }
    }

    /// Handles the frames as one turn: what was appended is durable at its end. How long that took, without the writing.
    fn turn<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) -> Duration {
        let began = thread_time();
        let mut turn = Turn {
            now: self.now,
            log: &mut self.log,
            out: &mut self.sink,
        };
        for frame in frames {
            self.engine.handle(&mut turn, Connection(1), frame).unwrap();
        }
        let write = turn.log.next_write(self.now.wall_ms);
        let mut took = thread_time() - began;
        let Some(write) = write else { return took };
        let file = at_once(self.io.open(&write.segment.file_name())).unwrap();
        at_once(self.io.write_at(&file, write.file_offset, &write.bytes)).unwrap();
        let began = thread_time();
        turn.log.write_done(write.id, Ok(())).unwrap();
        self.engine.settle(&mut turn);
        took += thread_time() - began;
        took
    }

    /// The background's work, which is not measured.
    fn rest(&mut self) {
        black_box(&self.sink.buffer);
        self.sink.buffer.clear();
        self.now.wall_ms += 1;
        self.now.mono_ms += 1;
        while let Some(job) = self.log.next_job() {
            let done = at_once(job.run(&self.io));
            self.log.job_done(done).unwrap();
        }
    }
}

fn frame(
    serialization: Serialization,
    code: i32,
    queue_id: i32,
    properties: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let head = Head {
        serialization,
        code,
        language: language::JAVA,
        version: VERSION,
        opaque: 77,
        flag: 0,
        remark: None,
    };
    let mut out = FrameWriter::new(&mut bytes, &head);
    SendMessageRequest {
        producer_group: Text::plain("producers"),
        topic: Text::plain("Orders"),
        default_topic: Text::plain("TBW102"),
        default_topic_queue_nums: 4,
        queue_id,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties: Some(Text::plain(properties)),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        batch: Some(code == request::SEND_BATCH_MESSAGE),
        ..SendMessageRequest::default()
    }
    .encode_short(&mut out);
    out.finish(body.len());
    bytes.extend_from_slice(body);
    bytes
}

const PROPERTIES: &str = "UNIQ_KEY\u{1}7F0000010000246BFD8E6A2BC3D50000\u{2}WAIT\u{1}true\u{2}";

fn batch_frame(messages: usize, size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..messages {
        let message = BatchMessage {
            flag: 0,
            body: &vec![b'x'; size],
            properties: PROPERTIES,
        };
        batch::push(&mut body, &message).unwrap();
    }
    frame(
        Serialization::Rocketmq,
        request::SEND_BATCH_MESSAGE,
        1,
        PROPERTIES,
        &body,
    )
}

fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel only writes the time into the structure.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(outcome, 0, "every thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The least and the middle of the rounds, in nanoseconds a message.
fn measure(broker: &mut Broker, frames: &[Vec<u8>], messages_a_frame: usize) -> (u64, u64) {
    let turns = MESSAGES_A_ROUND / TURN / messages_a_frame;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut took = Duration::ZERO;
        for _ in 0..turns {
            took += broker.turn(frames.iter().cycle().take(TURN).map(Vec::as_slice));
            broker.rest();
        }
        rounds.push(took.as_nanos() as u64 / (turns * TURN * messages_a_frame) as u64);
    }
    rounds.sort_unstable();
    (rounds[0], rounds[ROUNDS / 2])
}

fn main() {
    let dir = std::env::temp_dir().join(format!("corelane-hot-path-{}", std::process::id()));
    let mut broker = Broker::start(&dir);
    let kib = vec![b'x'; 1024];
    let single = |serialization| -> Vec<Vec<u8>> {
        (0..4)
            .map(|queue| {
                frame(
                    serialization,
                    request::SEND_MESSAGE_V2,
                    queue,
                    PROPERTIES,
                    &kib,
                )
            })
            .collect()
    };
    let cases = [
        ("1 KiB, binary header", single(Serialization::Rocketmq), 1),
        ("1 KiB, JSON header", single(Serialization::Json), 1),
        ("16 x 128 B in a batch", vec![batch_frame(16, 128)], 16),
    ];
    let only = std::env::args().nth(1);
    for (name, frames, messages) in &cases {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (least, middle) = measure(&mut broker, frames, *messages);
        println!("{name:24} {least:5} ns at least, {middle:5} ns in the middle");
    }
    let mut from = vec![0u8; 64 << 20];
    let mut to = AlignedBuffer::zeroed(64 << 20);
    from.fill(1);
    let began = thread_time();
    to.copy_from_slice(&from);
    let took = thread_time() - began;
    println!(
        "copying 1 KiB of cold memory {:5} ns",
        took.as_nanos() >> 16
    );
    black_box(&to);
    let _ = std::fs::remove_dir_all(&dir);
}
