//! A whole shard without sockets: the engine and the log on a simulated disk, with clients that are byte buffers.
//!
//! The host is the same in what it does as the real one (`shard::host`): frames in, groups to the disk, completions back,
//! answers out. Time stands still unless [`SimShard::advance`] moves it.

use std::collections::HashMap;
use std::net::SocketAddr;

use corelane_wire::code::{VERSION, language, request};
use corelane_wire::frame::{self, Head, Serialization};
use corelane_wire::record::Record;
use corelane_wire::{Frame, FrameWriter};

use super::disk::SimDisk;
use super::host::LogHost;
use crate::engine::settings::Settings;
use crate::engine::{Connection, Effect, Engine, Now, Output, Turn};
use crate::log::{Log, LogOptions, OpenReport, QueueRef, ReadMiss, Slice};

/// What one moment may take at most, in operations of the disk and turns of the engine.
const MAX_STEPS: usize = 100_000;

/// An answer, or a request of the broker's own, that a client received.
#[derive(Debug, Clone)]
pub struct Received {
    /// Code of the request or response.
    pub code: i32,
    /// Number of the request.
    pub opaque: i32,
    /// Whether it answers a request.
    pub is_response: bool,
    /// Human text.
    pub remark: Option<String>,
    /// The fields.
    pub fields: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A message as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its body, as text.
    pub body: String,
    /// Where it is.
    pub position: i64,
    /// When it was stored.
    pub store_ms: i64,
    /// How often its group failed to consume it.
    pub reconsume_times: i32,
    /// Its flags.
    pub sys_flag: i32,
    /// Where its half message lies.
    pub prepared_transaction_offset: i64,
    /// Its properties.
    pub properties: HashMap<String, String>,
}

impl StoredMessage {
    /// The visible message at an offset of a queue.
    pub fn at(log: &mut Log, queue: QueueRef, offset: i64) -> Result<Self, ReadMiss> {
        let mut entries = Vec::new();
        log.entries(queue, offset, 1, &mut entries)?;
        let bytes = log.record(entries[0].position, entries[0].size)?;
        let (record, _) = Record::parse(&bytes)
            .unwrap_or_else(|error| panic!("the log holds a broken record: {error}"));
        assert_eq!(
            (record.topic(), record.queue_id()),
            log.queue_name(queue),
            "a record lies in another queue"
        );
        let pairs = record.properties();
        Ok(Self {
            body: String::from_utf8_lossy(record.body()).into_owned(),
            position: record.physical_offset(),
            store_ms: record.store_timestamp(),
            reconsume_times: record.reconsume_times(),
            sys_flag: record.sys_flag(),
            prepared_transaction_offset: record.prepared_transaction_offset(),
            properties: pairs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        })
    }
}

/// What clients have been sent, by connection.
#[derive(Default)]
struct Wires {
    bytes: HashMap<Connection, Vec<u8>>,
    registrations: u64,
}

impl Output for Wires {
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
            Effect::Register { version } => self.registrations = version,
            Effect::Configure { .. } | Effect::Route { .. } => {}
        }
    }
}

/// One shard, its disk and its clients.
pub struct SimShard {
    /// The disk; it outlives crashes.
    pub disk: SimDisk,
    settings: Settings,
    options: LogOptions,
    running: Option<(Engine, LogHost)>,
    wires: Wires,
    now: Now,
    connections: u64,
    opaque: i32,
}

/// Settings for tests: a small broker on 127.0.0.1:10911 that makes topics and groups by itself.
pub fn settings() -> Settings {
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

impl SimShard {
    /// A shard on an empty disk, running.
    pub fn new(seed: u64, settings: Settings, options: LogOptions) -> Self {
        let mut shard = Self {
            disk: SimDisk::new(seed),
            settings,
            options,
            running: None,
            wires: Wires::default(),
            now: Now {
                wall_ms: 1_700_000_000_000,
                mono_ms: 0,
            },
            connections: 0,
            opaque: 0,
        };
        assert!(shard.open().is_some(), "an empty disk opens");
        shard
    }

    /// Starts the shard on what its disk holds; `None` where the disk crashed meanwhile. An error of the log is a panic: a
    /// disk that only crashes leaves a log that opens.
    pub fn open(&mut self) -> Option<OpenReport> {
        let mut engine = Engine::new(self.settings.clone());
        let opened = LogHost::open(&self.disk, self.options.clone(), &mut engine)?;
        let (mut host, report) =
            opened.unwrap_or_else(|error| panic!("the log does not open: {error}"));
        engine.started(&mut host.log, self.now);
        self.running = Some((engine, host));
        Some(report)
    }

    /// Loses what is not on the disk: the process, its connections, and all that was not yet durable.
    pub fn crash(&mut self) {
        self.running = None;
        self.wires = Wires::default();
        self.disk.crash();
    }

    /// Whether the disk has crashed under the shard (see [`SimDisk::crash_after`]).
    pub fn has_crashed(&self) -> bool {
        self.disk.has_crashed()
    }

    fn turn<R>(&mut self, act: impl FnOnce(&mut Engine, &mut Turn<'_>) -> R) -> Option<R> {
        let (engine, host) = self.running.as_mut()?;
        Some(act(
            engine,
            &mut Turn {
                now: self.now,
                log: &mut host.log,
                out: &mut self.wires,
            },
        ))
    }

    /// Whether everything that was appended is on the disk.
    pub fn is_flushed(&self) -> bool {
        let flushed = |(_, host): &(Engine, LogHost)| host.log.durable() == host.log.max_position();
        self.running.as_ref().is_some_and(flushed)
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Changes the settings that the next start is told.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Lets time pass while nothing runs.
    pub fn sleep(&mut self, ms: i64) {
        assert!(self.running.is_none(), "the shard is awake");
        self.now.wall_ms += ms;
        self.now.mono_ms += ms;
    }

    /// A new connection.
    pub fn connect(&mut self) -> Connection {
        self.connections += 1;
        let connection = Connection(self.connections);
        let address =
            SocketAddr::from(([127, 0, 0, 1], 20_000 + (self.connections % 40_000) as u16));
        if let Some((engine, _)) = self.running.as_mut() {
            engine.opened(connection, address);
        }
        connection
    }

    /// Ends a connection.
    pub fn disconnect(&mut self, connection: Connection) {
        self.turn(|engine, turn| engine.closed(turn, connection));
        self.wires.bytes.remove(&connection);
    }

    /// Sends a request; gives its number.
    pub fn request(
        &mut self,
        connection: Connection,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) -> i32 {
        self.opaque += 1;
        let head = Head {
            serialization: Serialization::Json,
            code,
            language: language::JAVA,
            version: VERSION,
            opaque: self.opaque,
            flag: 0,
            remark: None,
        };
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, &head);
        fields(&mut writer);
        writer.finish_with(body);
        self.bytes(connection, &bytes);
        self.opaque
    }

    /// Hands over one whole frame as it is. Says whether the connection can go on.
    pub fn bytes(&mut self, connection: Connection, frame: &[u8]) -> bool {
        self.turn(|engine, turn| engine.handle(turn, connection, frame))
            .is_some_and(|handled| handled.is_ok())
    }

    /// One operation of the disk and what follows from it. `false`: nothing is under way (or the disk has crashed).
    pub fn step(&mut self) -> bool {
        let Some((engine, host)) = self.running.as_mut() else {
            return false;
        };
        self.disk.set_now(self.now.mono_ms);
        host.submit(self.now.wall_ms);
        if host.log.snapshot_due() {
            host.log.snapshot(engine.snapshot());
        }
        let went = host
            .step()
            .unwrap_or_else(|failure| panic!("the log failed: {failure}"));
        let reads = host.take_reads();
        for read in reads {
            self.turn(|engine, turn| engine.on_read(turn, read));
        }
        self.turn(|engine, turn| engine.settle(turn));
        if let Some(version) = Some(self.wires.registrations).filter(|version| *version > 0) {
            self.turn(|engine, turn| engine.registered(turn, version));
        }
        let due = self
            .turn(|engine, _| engine.deadline_mono_ms())
            .unwrap_or(i64::MAX);
        if due <= self.now.mono_ms {
            self.turn(|engine, turn| engine.on_time(turn));
        }
        (went || due <= self.now.mono_ms) && !self.disk.has_crashed()
    }

    /// Goes on until nothing is under way, or the disk crashes.
    pub fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < MAX_STEPS, "the shard finds no rest");
        }
    }

    /// When the log wants to write what it has gathered.
    fn flush_deadline_mono_ms(&self) -> Option<i64> {
        let (_, host) = self.running.as_ref()?;
        let wall_ms = host.log.flush_deadline_ms()?;
        Some(wall_ms - self.now.wall_ms + self.now.mono_ms)
    }

    /// Lets time pass, doing what is due when it is due.
    pub fn advance(&mut self, ms: i64) {
        let end = self.now.mono_ms + ms;
        // What is under way takes no time, unless the disk is slow.
        self.settle();
        while self.now.mono_ms < end && self.running.is_some() && !self.disk.has_crashed() {
            let due = self
                .turn(|engine, _| engine.deadline_mono_ms())
                .unwrap_or(end);
            let ready = self.disk.next_ready_ms().unwrap_or(end);
            let flush = self.flush_deadline_mono_ms().unwrap_or(end);
            let to = due.min(ready).min(flush).clamp(self.now.mono_ms + 1, end);
            self.now.wall_ms += to - self.now.mono_ms;
            self.now.mono_ms = to;
            self.turn(|engine, turn| engine.on_time(turn));
            self.settle();
        }
    }

    /// Everything that a client has received since the last call.
    pub fn receive(&mut self, connection: Connection) -> Vec<Received> {
        let bytes = self.wires.bytes.remove(&connection).unwrap_or_default();
        let mut rest = bytes.as_slice();
        let mut received = Vec::new();
        while !rest.is_empty() {
            let len = frame::split(rest, 64 << 20)
                .ok()
                .flatten()
                .unwrap_or_else(|| panic!("the engine wrote half a frame"));
            let frame = Frame::parse(&rest[..len])
                .unwrap_or_else(|error| panic!("the engine wrote a broken frame: {error}"));
            let fields = frame
                .ext
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect();
            received.push(Received {
                code: frame.code,
                opaque: frame.opaque,
                is_response: frame.is_response(),
                remark: frame.remark.map(|remark| remark.to_string()),
                fields,
                body: frame.body.to_vec(),
            });
            rest = &rest[len..];
        }
        received
    }

    /// Asks to store a message with properties; gives the request's number.
    pub fn send(
        &mut self,
        connection: Connection,
        topic: &str,
        queue_id: i32,
        body: &str,
        pairs: &[(&str, &str)],
    ) -> i32 {
        let text: String = pairs
            .iter()
            .map(|(name, value)| format!("{name}\u{1}{value}\u{2}"))
            .collect();
        let fields = |fields: &mut FrameWriter<'_>| {
            fields.field("producerGroup", "producers");
            fields.field("topic", topic);
            fields.field("defaultTopic", "TBW102");
            fields.int_field("defaultTopicQueueNums", 4);
            fields.int_field("queueId", queue_id.into());
            fields.int_field("sysFlag", 0);
            fields.int_field("bornTimestamp", 1_700_000_000_000);
            fields.int_field("flag", 0);
            fields.field("properties", &text);
        };
        self.request(connection, request::SEND_MESSAGE, fields, body.as_bytes())
    }

    /// All visible messages of a queue, oldest first; fewer where the disk crashes meanwhile.
    pub fn stored(&mut self, topic: &str, queue_id: i32) -> Vec<StoredMessage> {
        let mut stored = Vec::new();
        let mut next = 0;
        while let Some((_, host)) = self.running.as_mut()
            && let Some(queue) = host.log.find_queue(topic, queue_id)
        {
            next = host.log.min_offset(queue).max(next);
            if next >= host.log.max_offset(queue) {
                break;
            }
            match StoredMessage::at(&mut host.log, queue, next) {
                Ok(message) => {
                    stored.push(message);
                    next += 1;
                }
                Err(ReadMiss::Wanted(_)) if self.disk.has_crashed() => break,
                Err(ReadMiss::Wanted(_)) => self.settle(),
                Err(miss) => panic!("{topic} {queue_id} at {next}: {miss}"),
            }
        }
        stored
    }

    /// Sends a request and lets everything settle; the answer, where one came.
    pub fn call(
        &mut self,
        connection: Connection,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) -> Option<Received> {
        let opaque = self.request(connection, code, fields, body);
        self.settle();
        let mut received = self.receive(connection);
        let at = received
            .iter()
            .position(|frame| frame.is_response && frame.opaque == opaque)?;
        Some(received.swap_remove(at))
    }
}
