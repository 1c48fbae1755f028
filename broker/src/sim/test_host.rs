//! An engine over a log on the simulated disk, for tests: requests in, answers out, time that passes when a test says so,
//! and crashes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use corelane_wire::frame::{Head, Serialization};
use corelane_wire::properties;
use corelane_wire::{Frame, FrameWriter, code};

use super::shard::StoredMessage;
use super::{LogHost, SimDisk};
use crate::engine::settings::Settings;
use crate::engine::{Connection, Effect, Engine, Now, Output, Turn};
use crate::log::{LogOptions, ReadMiss, Slice};

/// Settings that a test changes as it needs.
pub fn settings() -> Settings {
    Settings {
        broker_name: "broker-a".into(),
        max_message_bytes: 64 << 10,
        long_polling_max_ms: 15_000,
        offset_flush_ms: 5_000,
        pull_max_messages: 32,
        ..super::shard::settings()
    }
}

/// A log that is small in every respect, so that tests meet its bounds.
pub fn small_log() -> LogOptions {
    LogOptions {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        block_bytes: 512,
        buffer_bytes: 64 << 10,
        tail_cache_bytes: 128 << 10,
        read_cache_bytes: 512 << 10,
        max_group_bytes: 16 << 10,
        max_record_bytes: 192 << 10,
        max_unflushed_bytes: 1 << 20,
        snapshot_bytes: 1 << 20,
        ..LogOptions::default()
    }
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: i32,
    pub remark: String,
    pub fields: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    fn of(frame: &Frame<'_>) -> Self {
        let fields = frame
            .ext
            .iter()
            .map(|(name, value)| (name.to_str().into_owned(), value.to_str().into_owned()));
        Self {
            code: frame.code,
            remark: frame
                .remark
                .map(|text| text.to_str().into_owned())
                .unwrap_or_default(),
            fields: fields.collect(),
            body: frame.body.to_vec(),
        }
    }
}

#[derive(Default)]
struct Sent {
    bytes: HashMap<Connection, Vec<u8>>,
    registers: usize,
    routes: Vec<String>,
}

impl Output for Sent {
    fn buffer(&mut self, connection: Connection) -> &mut Vec<u8> {
        self.bytes.entry(connection).or_default()
    }
    fn shared(&mut self, connection: Connection, part: Slice) {
        self.buffer(connection).extend_from_slice(&part);
    }
    fn close(&mut self, connection: Connection) {
        self.bytes.remove(&connection);
    }
    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Register { .. } => self.registers += 1,
            Effect::Configure { .. } => {}
            Effect::Route { topic } => self.routes.push(topic),
        }
    }
}

/// One broker on one disk, over all its lives.
pub struct TestHost {
    pub engine: Engine,
    pub running: LogHost,
    pub disk: SimDisk,
    pub now: Now,
    settings: Settings,
    options: LogOptions,
    sent: Sent,
    connections: u64,
    opaque: i32,
}

impl TestHost {
    pub fn start(seed: u64, settings: Settings, options: LogOptions) -> Self {
        let disk = SimDisk::new(seed);
        let (engine, running) = Self::open(&disk, &settings, &options);
        let now = Now {
            wall_ms: 1_700_000_000_123,
            mono_ms: 1_000,
        };
        let mut host = Self {
            engine,
            running,
            disk,
            now,
            settings,
            options,
            sent: Sent::default(),
            connections: 0,
            opaque: 0,
        };
        host.engine.started(&mut host.running.log, now);
        host
    }

    fn open(disk: &SimDisk, settings: &Settings, options: &LogOptions) -> (Engine, LogHost) {
        let mut engine = Engine::new(settings.clone());
        let opened = LogHost::open(disk, options.clone(), &mut engine);
        let (log, _) = opened.unwrap().unwrap();
        (engine, log)
    }

    /// Ends this life without warning, and begins another.
    pub fn crash_and_reopen(&mut self) {
        self.disk.crash();
        (self.engine, self.running) = Self::open(&self.disk, &self.settings, &self.options);
        self.sent = Sent::default();
        self.engine.started(&mut self.running.log, self.now);
    }

    /// One call of the engine.
    pub fn turn<R>(&mut self, act: impl FnOnce(&mut Engine, &mut Turn<'_>) -> R) -> R {
        act(
            &mut self.engine,
            &mut Turn {
                now: self.now,
                log: &mut self.running.log,
                out: &mut self.sent,
            },
        )
    }

    /// Answers what the engine asked NameServers.
    pub fn give_route(&mut self, route: Option<&corelane_wire::body::TopicRouteData>) {
        for topic in std::mem::take(&mut self.sent.routes) {
            self.turn(|engine, turn| engine.on_route(turn, &topic, route));
        }
    }

    pub fn connect(&mut self) -> Connection {
        self.connections += 1;
        let connection = Connection(self.connections);
        self.engine
            .opened(connection, "10.0.0.1:4711".parse().unwrap());
        connection
    }

    /// Hands a request to the engine, and gives its number.
    pub fn ask(
        &mut self,
        connection: Connection,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> i32 {
        self.opaque += 1;
        let head = Head {
            serialization: Serialization::Json,
            code,
            language: code::language::JAVA,
            version: code::VERSION,
            opaque: self.opaque,
            flag: 0,
            remark: None,
        };
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, &head);
        for (name, value) in fields {
            writer.field(name, value);
        }
        writer.finish_with(body);
        self.turn(|engine, turn| engine.handle(turn, connection, &bytes))
            .unwrap();
        self.opaque
    }

    /// The answer to a request, taken out of what was sent; `None` where there is none yet.
    pub fn answer(&mut self, connection: Connection, opaque: i32) -> Option<Reply> {
        let bytes = self.sent.buffer(connection);
        let mut at = 0;
        while let Some(len) = corelane_wire::frame::split(&bytes[at..], usize::MAX).unwrap() {
            let frame = Frame::parse(&bytes[at..at + len]).unwrap();
            if frame.is_response() && frame.opaque == opaque {
                let reply = Reply::of(&frame);
                bytes.drain(at..at + len);
                return Some(reply);
            }
            at += len;
        }
        None
    }

    /// The requests that were sent to a client, taken out of what was sent: number and content (code, fields, body).
    pub fn requests(&mut self, connection: Connection) -> Vec<(i32, Reply)> {
        let bytes = self.sent.buffer(connection);
        let (mut at, mut kept, mut requests) = (0, Vec::new(), Vec::new());
        while let Some(len) = corelane_wire::frame::split(&bytes[at..], usize::MAX).unwrap() {
            let frame = Frame::parse(&bytes[at..at + len]).unwrap();
            match frame.is_response() {
                true => kept.extend_from_slice(&bytes[at..at + len]),
                false => requests.push((frame.opaque, Reply::of(&frame))),
            }
            at += len;
        }
        *bytes = kept;
        requests
    }

    /// A client answers a request.
    pub fn respond(&mut self, connection: Connection, opaque: i32, code: i32, body: &[u8]) {
        let head = Head {
            serialization: Serialization::Json,
            code,
            language: code::language::JAVA,
            version: code::VERSION,
            opaque,
            flag: 1,
            remark: None,
        };
        let mut bytes = Vec::new();
        FrameWriter::new(&mut bytes, &head).finish_with(body);
        self.turn(|engine, turn| engine.handle(turn, connection, &bytes))
            .unwrap();
    }

    pub fn close(&mut self, connection: Connection) {
        self.turn(|engine, turn| engine.closed(turn, connection));
    }

    /// Makes a connection a producer of a group.
    pub fn produce(&mut self, connection: Connection, client_id: &str, group: &str) {
        let body = format!(
            r#"{{"clientID":"{client_id}","producerDataSet":[{{"groupName":"{group}"}}]}}"#
        );
        assert_eq!(
            self.request(connection, code::request::HEART_BEAT, &[], body.as_bytes())
                .code,
            0
        );
    }

    /// Makes a connection a consumer of a group.
    pub fn consume(&mut self, connection: Connection, client_id: &str, group: &str, topic: &str) {
        let body = format!(
            r#"{{"clientID":"{client_id}","consumerDataSet":[{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","subscriptionDataSet":[{{"topic":"{topic}","subString":"*","subVersion":1}}]}}]}}"#
        );
        assert_eq!(
            self.request(connection, code::request::HEART_BEAT, &[], body.as_bytes())
                .code,
            0
        );
    }

    /// Asks and runs until the answer is there.
    pub fn request(
        &mut self,
        connection: Connection,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let opaque = self.ask(connection, code, fields, body);
        self.run();
        self.answer(connection, opaque).unwrap()
    }

    /// Sends one message with properties, as a client does.
    pub fn send(
        &mut self,
        connection: Connection,
        topic: &str,
        queue_id: i32,
        body: &str,
        pairs: &[(&str, &str)],
    ) -> Reply {
        let opaque = self.ask_send(connection, topic, queue_id, body, pairs);
        self.run();
        self.answer(connection, opaque).unwrap()
    }

    pub fn ask_send(
        &mut self,
        connection: Connection,
        topic: &str,
        queue_id: i32,
        body: &str,
        pairs: &[(&str, &str)],
    ) -> i32 {
        let mut text = Vec::new();
        for (name, value) in pairs {
            properties::push(&mut text, name, value);
        }
        let (queue_id, text) = (queue_id.to_string(), String::from_utf8(text).unwrap());
        let fields = [
            ("a", "producers"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", &queue_id),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &text),
        ];
        self.ask(
            connection,
            code::request::SEND_MESSAGE_V2,
            &fields,
            body.as_bytes(),
        )
    }

    /// Runs until nothing is under way, at the present time; or until the disk crashes.
    pub fn run(&mut self) {
        loop {
            if self.running.log.snapshot_due() {
                self.running.log.snapshot(self.engine.snapshot());
            }
            self.running.submit(self.now.wall_ms);
            let went = self.running.step().unwrap();
            for read in self.running.take_reads() {
                self.turn(|engine, turn| engine.on_read(turn, read));
            }
            self.turn(|engine, turn| engine.settle(turn));
            let due = self.engine.deadline_mono_ms() <= self.now.mono_ms;
            if due {
                self.turn(|engine, turn| engine.on_time(turn));
            }
            if self.disk.has_crashed() || (!went && !due) {
                return;
            }
        }
    }

    /// Lets time pass, and everything happen that is due meanwhile.
    pub fn advance(&mut self, ms: i64) {
        let end_ms = self.now.mono_ms + ms;
        loop {
            self.run();
            if self.now.mono_ms >= end_ms || self.disk.has_crashed() {
                return;
            }
            let next_ms = self
                .engine
                .deadline_mono_ms()
                .clamp(self.now.mono_ms + 1, end_ms);
            self.now.wall_ms += next_ms - self.now.mono_ms;
            self.now.mono_ms = next_ms;
        }
    }

    /// All visible messages of a queue, oldest first.
    pub fn messages(&mut self, topic: &str, queue_id: i32) -> Vec<StoredMessage> {
        let Some(queue) = self.running.log.find_queue(topic, queue_id) else {
            return Vec::new();
        };
        let mut stored = Vec::new();
        let mut next = self.running.log.min_offset(queue);
        while next < self.running.log.max_offset(queue) {
            match StoredMessage::at(&mut self.running.log, queue, next) {
                Ok(message) => stored.push(message),
                Err(ReadMiss::Wanted(_)) => {
                    self.run();
                    continue;
                }
                Err(miss) => panic!("{topic} {queue_id} at {next}: {miss}"),
            }
            next += 1;
        }
        stored
    }
}
