//! An engine over a log on the simulated disk, for tests: requests in, answers out, time that passes when a test says so,
//! and crashes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use corelane_wire::frame::{Head, Serialization};
use corelane_wire::properties;
use corelane_wire::record::Record;
use corelane_wire::{Frame, FrameWriter, code};

use super::{SimDisk, SimIo, Tasks, block_on};
use crate::engine::settings::Settings;
use crate::engine::{Connection, Effect, Engine, Now, Output, Turn};
use crate::log::{
    self, Io, IoError, JobDone, Log, LogOptions, ReadBuffer, ReadId, ReadMiss, Slice, WriteId,
};

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

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub body: String,
    pub store_ms: i64,
    pub position: i64,
    pub reconsume_times: i32,
    pub sys_flag: i32,
    pub prepared_transaction_offset: i64,
    pub properties: HashMap<String, String>,
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

enum Event {
    Write(WriteId, Result<(), IoError>),
    Read(ReadId, Result<ReadBuffer, IoError>),
    Job(Box<JobDone>),
}

/// One broker on one disk, over all its lives.
pub struct TestHost {
    pub engine: Engine,
    pub log: Log,
    pub disk: SimDisk,
    pub now: Now,
    settings: Settings,
    options: LogOptions,
    io: SimIo,
    tasks: Tasks,
    events: Rc<RefCell<Vec<Event>>>,
    sent: Sent,
    connections: u64,
    opaque: i32,
}

impl TestHost {
    pub fn start(seed: u64, settings: Settings, options: LogOptions) -> Self {
        let disk = SimDisk::new(seed);
        let (engine, log, io) = Self::open(&disk, &settings, &options);
        let now = Now {
            wall_ms: 1_700_000_000_123,
            mono_ms: 1_000,
        };
        let mut host = Self {
            engine,
            log,
            disk,
            now,
            settings,
            options,
            io,
            tasks: Tasks::default(),
            events: Rc::default(),
            sent: Sent::default(),
            connections: 0,
            opaque: 0,
        };
        host.engine.started(&mut host.log, now);
        host
    }

    fn open(disk: &SimDisk, settings: &Settings, options: &LogOptions) -> (Engine, Log, SimIo) {
        let io = disk.io();
        let mut engine = Engine::new(settings.clone());
        let (log, _) = block_on(disk, log::open(&io, options.clone(), &mut engine))
            .unwrap()
            .unwrap();
        (engine, log, io)
    }

    /// Ends this life without warning, and begins another.
    pub fn crash_and_reopen(&mut self) {
        self.disk.crash();
        (self.engine, self.log, self.io) = Self::open(&self.disk, &self.settings, &self.options);
        self.tasks = Tasks::default();
        self.events = Rc::default();
        self.sent = Sent::default();
        self.engine.started(&mut self.log, self.now);
    }

    /// One call of the engine.
    pub fn turn<R>(&mut self, act: impl FnOnce(&mut Engine, &mut Turn<'_>) -> R) -> R {
        act(
            &mut self.engine,
            &mut Turn {
                now: self.now,
                log: &mut self.log,
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
            self.submit();
            let went = self.disk.step();
            self.tasks.poll();
            self.take_events();
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

    fn submit(&mut self) {
        while let Some(write) = self.log.next_write(self.now.wall_ms) {
            let (io, events) = (self.io.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let result = match io.open(&write.segment.file_name()).await {
                    Ok(file) => {
                        io.write_durable(&file, write.file_offset, &write.bytes)
                            .await
                    }
                    Err(error) => Err(error),
                };
                events.borrow_mut().push(Event::Write(write.id, result));
            });
        }
        if self.log.snapshot_due() {
            let state = self.engine.snapshot();
            self.log.snapshot(state);
        }
        while let Some(read) = self.log.next_read() {
            let (io, events) = (self.io.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let result = match io.open(&read.file.file_name()).await {
                    Ok(file) => io.read_at(&file, read.offset, read.len).await,
                    Err(error) => Err(error),
                };
                events.borrow_mut().push(Event::Read(read.id, result));
            });
        }
        while let Some(job) = self.log.next_job() {
            let (io, events) = (self.io.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let done = job.run(&io).await;
                events.borrow_mut().push(Event::Job(Box::new(done)));
            });
        }
        self.tasks.poll();
    }

    fn take_events(&mut self) {
        let events = std::mem::take(&mut *self.events.borrow_mut());
        for event in events {
            match event {
                Event::Write(id, result) => self.log.write_done(id, result).unwrap(),
                Event::Read(id, result) => {
                    self.log.read_done(id, result);
                    self.turn(|engine, turn| engine.on_read(turn, id));
                }
                Event::Job(done) => self.log.job_done(*done).unwrap(),
            }
        }
    }

    /// All visible messages of a queue, oldest first.
    pub fn messages(&mut self, topic: &str, queue_id: i32) -> Vec<Seen> {
        let Some(queue) = self.log.find_queue(topic, queue_id) else {
            return Vec::new();
        };
        let mut seen = Vec::new();
        let mut next = self.log.min_offset(queue);
        while next < self.log.max_offset(queue) {
            let mut entries = Vec::new();
            let record = self.log.entries(queue, next, 1, &mut entries);
            let record =
                record.and_then(|()| self.log.record(entries[0].position, entries[0].size));
            match record {
                Ok(bytes) => {
                    let (record, _) = Record::parse(&bytes).unwrap();
                    assert_eq!((record.topic(), record.queue_id()), (topic, queue_id));
                    seen.push(Seen {
                        body: String::from_utf8_lossy(record.body()).into_owned(),
                        store_ms: record.store_timestamp(),
                        position: record.physical_offset(),
                        reconsume_times: record.reconsume_times(),
                        sys_flag: record.sys_flag(),
                        prepared_transaction_offset: record.prepared_transaction_offset(),
                        properties: record
                            .properties()
                            .iter()
                            .map(|(name, value)| {
                                (name.to_str().into_owned(), value.to_str().into_owned())
                            })
                            .collect(),
                    });
                    next += 1;
                }
                Err(ReadMiss::Wanted(_)) => self.run(),
                Err(miss) => panic!("{topic} {queue_id} at {next}: {miss}"),
            }
        }
        seen
    }
}
