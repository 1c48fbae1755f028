//! The host of one shard: the loop that joins the ring, the network plane, the engine and the log.
//!
//! A turn: one system call submits everything and collects what is done; completions go to their owners; the engine
//! handles frames; answers whose records became durable go out; what was appended goes to the disk as groups; one send a
//! connection. Then the next turn, or sleep until something happens.
//!
//! Background work of the log, reads and registrations are tasks of the same executor; they leave what came of them in
//! [`Events`] and wake the loop.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock::Clock;
use super::commit::{Commit, Way};
use super::disk::Disk;
use super::heap;
use super::options::{engine_settings, log_options};
use super::register::{Identity, Registrar, topic_route};
use super::sink::{LogBytes, Sink};
use super::writer::{Writer, write_here};
use super::{ShardError, ShardOptions};
use crate::engine::settings::Settings;
use crate::engine::{Connection, Effect, Engine, Now, Turn};
use crate::log::{
    self, IoError, JobDone, Log, LogFailure, OpenReport, ReadBuffer, ReadId, SegmentId, WriteId,
};
use crate::net::{CloseReason, ConnId, Handler, Net};
use crate::ring::{Completion, Owner, Parker, RemoteWaker, Ring, RingOptions};
use corelane_wire::body::TopicRouteData;

/// How long a shard that was told to stop waits for its clients to take what is queued for them.
const DRAIN_WAIT_MS: i64 = 3_000;
/// How often the network plane looks for idle and stalled connections, in milliseconds.
const NET_TICK_MS: i64 = 100;
/// How long a shard that opens its log sleeps at most before it looks whether there is something to do.
const OPENING_WAIT: Duration = Duration::from_millis(20);
/// How long an idle turn waits in the ring at most while tasks of the executor are under way.
const BUSY_LINGER: Duration = Duration::from_micros(100);

/// Told by any thread, seen by the shard.
#[derive(Clone)]
pub struct StopHandle {
    stop: Arc<AtomicBool>,
    waker: RemoteWaker,
}

impl StopHandle {
    /// Asks the shard to end: unregister, answer what is durable, commit, close.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// What tasks of the executor tell the loop.
enum Event {
    Job(Box<JobDone>),
    /// A file was opened for reads, or could not be; the reads tell.
    ReadFileOpen,
    SegmentOpen(SegmentId, Result<(), IoError>),
    Route(String, Option<TopicRouteData>),
}

type Events = Rc<RefCell<VecDeque<Event>>>;

/// Engine and log, as the network plane calls them.
struct Broker {
    engine: Engine,
    log: Log,
    now: Now,
    effects: Vec<Effect>,
    /// Requests of this turn.
    requests: u32,
}

impl Broker {
    fn turn<R>(
        &mut self,
        net: &mut Net<LogBytes>,
        act: impl FnOnce(&mut Engine, &mut Turn<'_>) -> R,
    ) -> R {
        let mut out = Sink::new(net, &mut self.effects);
        act(
            &mut self.engine,
            &mut Turn {
                now: self.now,
                log: &mut self.log,
                out: &mut out,
            },
        )
    }
}

impl Handler<LogBytes> for Broker {
    fn opened(
        &mut self,
        _: &mut Net<LogBytes>,
        conn: ConnId,
        peer: SocketAddr,
        _local: SocketAddr,
    ) {
        self.engine.opened(Connection(conn.as_u64()), peer);
    }

    fn frame(
        &mut self,
        net: &mut Net<LogBytes>,
        conn: ConnId,
        frame: &[u8],
    ) -> ControlFlow<CloseReason> {
        let connection = Connection(conn.as_u64());
        self.requests += 1;
        match self.turn(net, |engine, turn| engine.handle(turn, connection, frame)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(CloseReason::Frame(error)),
        }
    }

    fn closed(&mut self, net: &mut Net<LogBytes>, conn: ConnId, _: &CloseReason) {
        self.turn(net, |engine, turn| {
            engine.closed(turn, Connection(conn.as_u64()))
        });
    }
}

/// One running shard.
struct Host {
    options: ShardOptions,
    ring: Ring,
    parker: Parker,
    clock: Clock,
    net: Net<LogBytes>,
    disk: Disk,
    commit: Commit,
    writer: Writer,
    broker: Broker,
    registrar: Registrar,
    events: Events,
    /// What the disk was last asked to keep open.
    writable: Vec<SegmentId>,
    opening: HashSet<SegmentId>,
    tasks_in_flight: usize,
    stop: Arc<AtomicBool>,
    failure: Option<LogFailure>,
    said_short_of_space: bool,
    said_retired_early: u64,
    next_net_tick_mono_ms: i64,
    completions: Vec<Completion>,
    finished: Vec<(WriteId, Result<(), IoError>)>,
    finished_reads: Vec<(ReadId, Result<ReadBuffer, IoError>)>,
}

/// Runs a shard on the calling thread's executor until it is stopped or fails. `bound` is called once it has its ports; it
/// says whether to go on. `ready` is called once it serves.
pub async fn run(
    options: ShardOptions,
    directory: PathBuf,
    bound: impl FnOnce() -> bool,
    ready: impl FnOnce(StopHandle),
) -> Result<(), ShardError> {
    let mut ring = Ring::new(&RingOptions::default())?;
    let mut net = Net::new(&mut ring, options.net.clone())?;
    for address in &options.listen {
        net.listen(&mut ring, *address)?;
    }
    if !bound() {
        return Ok(());
    }
    let mut parker = Parker::new(&ring).map_err(ShardError::Ring)?;
    let clock = Clock::start();
    let disk = Disk::new(directory, parker.waker());
    let engine = Engine::new(options.engine.clone());
    // Clients that come before the log is open wait for the first turn.
    let mut early = Vec::new();
    let opening = Opening {
        ring: &mut ring,
        parker: &mut parker,
        disk: &disk,
        early: &mut early,
    };
    let (engine, log) = opening
        .open_log(options.log.clone(), engine, &clock, &options.name)
        .await?;
    tracing::info!(shard = %options.name, address = %options.engine.store_host, ring = %ring.features(), "serving");
    let identity = Identity {
        cluster_name: options.engine.cluster_name.clone(),
        broker_name: options.name.clone(),
        address: options.engine.store_host.to_string(),
        ha_address: options.ha_address.to_string(),
    };
    let registrar = Registrar::start(
        &options.nameservers,
        &identity,
        options.register_interval,
        &parker.waker(),
    );
    let stop = Arc::new(AtomicBool::new(false));
    ready(StopHandle {
        stop: stop.clone(),
        waker: parker.remote_waker(),
    });
    let writer = Writer::start(&mut ring, parker.remote_waker()).map_err(ShardError::Ring)?;
    let now = clock.now();
    let mut host = Host {
        broker: Broker {
            engine,
            log,
            now,
            effects: Vec::new(),
            requests: 0,
        },
        options,
        ring,
        parker,
        clock,
        net,
        disk,
        commit: Commit::default(),
        writer,
        registrar,
        events: Events::default(),
        writable: Vec::new(),
        opening: HashSet::new(),
        tasks_in_flight: 0,
        stop,
        failure: None,
        said_short_of_space: false,
        said_retired_early: 0,
        next_net_tick_mono_ms: 0,
        completions: early,
        finished: Vec::new(),
        finished_reads: Vec::new(),
    };
    host.broker.engine.started(&mut host.broker.log, now);
    host.publish();
    host.serve().await?;
    host.end().await
}

/// What the ring is driven with while the log is opened and nothing is served yet.
struct Opening<'a> {
    ring: &'a mut Ring,
    parker: &'a mut Parker,
    disk: &'a Disk,
    /// What completes meanwhile and is not the disk's.
    early: &'a mut Vec<Completion>,
}

impl Opening<'_> {
    async fn open_log(
        self,
        options: log::LogOptions,
        mut engine: Engine,
        clock: &Clock,
        name: &str,
    ) -> Result<(Engine, Log), ShardError> {
        let began = clock.now();
        let io = self.disk.clone();
        let mut task = glommio::spawn_local(async move {
            let opened = log::open(&io, options, &mut engine).await;
            opened.map(|(log, report)| (engine, log, report))
        });
        self.parker.set_linger(Duration::ZERO);
        let waker = self.parker.waker();
        let mut completions = Vec::new();
        let (engine, log, report) = loop {
            self.disk.submit(self.ring);
            self.ring.turn().map_err(ShardError::Ring)?;
            self.ring.reap(&mut completions);
            for completion in completions.drain(..) {
                match completion.token().owner() {
                    Owner::Disk => self.disk.completion(completion),
                    _ => self.early.push(completion),
                }
            }
            // The task ends in the executor, not in the ring: look at it whenever something woke us.
            if let Some(opened) = futures_lite::future::poll_once(&mut task).await {
                break opened?;
            }
            if !self.disk.has_background() {
                // What the task waits for is the executor's own; it wakes us when it is done with that.
                let woken = waker.clone();
                glommio::spawn_local(async move {
                    glommio::timer::sleep(Duration::from_micros(200)).await;
                    woken.wake();
                })
                .detach();
            }
            self.disk.submit(self.ring);
            self.parker
                .park(self.ring, Some(OPENING_WAIT))
                .await
                .map_err(ShardError::Ring)?;
        };
        let took_ms = clock.now().mono_ms - began.mono_ms;
        report_opening(name, took_ms, &report);
        Ok((engine, log))
    }
}

/// Says what opening the log found, cut and built again, and how long that took.
fn report_opening(shard: &str, took_ms: i64, report: &OpenReport) {
    tracing::info!(
        %shard,
        took_ms,
        created = report.created,
        checkpoint = report.checkpoint,
        scanned_from = report.scanned_from,
        tail = report.tail,
        groups = report.groups,
        messages = report.messages,
        states = report.states,
        indexes_loaded = report.indexes,
        indexes_rebuilt = report.rebuilt,
        cut_bytes = report.cut_bytes,
        epoch = report.epoch,
        "the log is open"
    );
    if report.cut_bytes > 0 {
        tracing::warn!(%shard, from = report.tail, bytes = report.cut_bytes,
            "the end of the log was cut: it was never acknowledged");
    }
    if report.rebuilt > 0 {
        tracing::warn!(%shard, indexes = report.rebuilt, "indexes were missing or damaged, and were built again");
    }
    for skipped in &report.skipped {
        tracing::warn!(
            %shard,
            from = skipped.start,
            to = skipped.end,
            "damage is passed over from now on; state that was changed in it (topics, groups, offsets) is as it was before"
        );
    }
    for lost in &report.lost {
        let (from, to) = (lost.offsets.start, lost.offsets.end);
        let (topic, queue_id) = (&lost.topic, lost.queue_id);
        if lost.certain {
            tracing::warn!(%shard, %topic, queue_id, from, to, "messages were lost with the damage: these offsets have none any more");
        } else {
            tracing::warn!(%shard, %topic, queue_id, from, to, "messages may have been lost with the damage: these offsets are not used again");
        }
    }
}

impl Host {
    async fn serve(&mut self) -> Result<(), ShardError> {
        while !self.stop.load(Ordering::Acquire) {
            self.one_turn()?;
            if self.failure.is_some() {
                break;
            }
            self.rest().await?;
        }
        Ok(())
    }

    /// Everything that can be done now.
    fn one_turn(&mut self) -> Result<(), ShardError> {
        self.disk.submit(&mut self.ring);
        self.ring.turn().map_err(ShardError::Ring)?;
        self.broker.now = self.clock.now();
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        for completion in completions.drain(..) {
            match completion.token().owner() {
                Owner::Net => self
                    .net
                    .completion(&mut self.ring, completion, &mut self.broker),
                Owner::Disk => self.disk.completion(completion),
                Owner::Writer => self.writer.completion(completion, &mut self.ring),
                Owner::Nobody => {}
            }
        }
        self.completions = completions;
        // The device has the next reads while what these have brought is checked.
        if self.disk.submit_reads(&mut self.ring) {
            self.ring.turn().map_err(ShardError::Ring)?;
        }
        self.net.turn(&mut self.ring, &mut self.broker);
        self.take_writes();
        self.take_reads();
        self.take_events();
        self.broker
            .turn(&mut self.net, |engine, turn| engine.settle(turn));
        self.register();
        let mono_ms = self.broker.now.mono_ms;
        if mono_ms >= self.broker.engine.deadline_mono_ms() {
            self.broker
                .turn(&mut self.net, |engine, turn| engine.on_time(turn));
        }
        if mono_ms >= self.next_net_tick_mono_ms {
            self.net.tick(&mut self.ring, mono_ms.unsigned_abs());
            self.next_net_tick_mono_ms = mono_ms + NET_TICK_MS;
        }
        self.give_work();
        self.report_space();
        self.take_effects();
        self.net.flush(&mut self.ring);
        self.write_groups()
    }

    /// Hands out the groups that are to be written, last of a turn: a write on this thread keeps nothing waiting that the
    /// turn has brought about.
    fn write_groups(&mut self) -> Result<(), ShardError> {
        let requests = std::mem::take(&mut self.broker.requests);
        loop {
            let (log, in_ring) = (&mut self.broker.log, self.disk.groups_in_flight());
            let began = self.writer.began();
            let way = self
                .commit
                .way(log.unissued_bytes(), began, requests, in_ring);
            if way == Way::Later {
                break;
            }
            let Some(write) = log.next_write(self.broker.now.wall_ms) else {
                break;
            };
            match (way, self.disk.segment(write.segment)) {
                (Way::Here, Some(file)) => {
                    self.ring.turn().map_err(ShardError::Ring)?;
                    let written = self.commit.timed(|| write_here(&file, &write));
                    self.finished.push((write.id, written));
                }
                (Way::Writer, Some(file)) => {
                    self.writer
                        .write(write.id, file, write.file_offset, write.bytes);
                }
                _ => self.disk.write_group(write),
            }
        }
        self.commit.let_writes_end(self.disk.groups_in_flight());
        Ok(())
    }

    fn take_writes(&mut self) {
        self.disk.finished(&mut self.finished);
        self.finished.extend(self.writer.ended());
        for (id, result) in self.finished.drain(..) {
            if let Err(failure) = self.broker.log.write_done(id, result) {
                self.failure.get_or_insert(failure);
            }
        }
    }

    fn take_reads(&mut self) {
        let mut reads = std::mem::take(&mut self.finished_reads);
        self.disk.finished_reads(&mut reads);
        for (id, result) in reads.drain(..) {
            self.broker.log.read_done(id, result);
            for failure in self.broker.log.take_read_failures() {
                tracing::error!(shard = %self.options.name, %failure, "a read of the log has failed");
            }
            self.broker
                .turn(&mut self.net, |engine, turn| engine.on_read(turn, id));
        }
        self.finished_reads = reads;
    }

    fn take_events(&mut self) {
        loop {
            let event = self.events.borrow_mut().pop_front();
            let Some(event) = event else { break };
            self.tasks_in_flight -= 1;
            match event {
                Event::Job(done) => {
                    if let Err(failure) = self.broker.log.job_done(*done) {
                        self.failure.get_or_insert(failure);
                    }
                }
                Event::ReadFileOpen => {}
                Event::Route(topic, route) => {
                    self.broker.turn(&mut self.net, |engine, turn| {
                        engine.on_route(turn, &topic, route.as_ref())
                    });
                }
                Event::SegmentOpen(segment, result) => {
                    self.opening.remove(&segment);
                    if let Err(cause) = result {
                        self.failure.get_or_insert(LogFailure::Job {
                            what: "opening a segment",
                            cause,
                        });
                    }
                }
            }
        }
    }

    /// Hands out what the log wants done: groups to the ring, the rest to tasks.
    fn give_work(&mut self) {
        self.broker.log.set_now(self.broker.now.wall_ms);
        if self.broker.log.snapshot_due() {
            let state = self.broker.engine.snapshot();
            self.broker.log.snapshot(state);
        }
        let writable = self.broker.log.writable_segments();
        if !writable.eq(self.writable.iter().copied()) {
            self.writable = self.broker.log.writable_segments().collect();
            self.open_segments();
        }
        while let Some(job) = self.broker.log.next_job() {
            let disk = self.disk.clone();
            self.spawn(async move { Event::Job(Box::new(job.run(&disk).await)) });
        }
        while let Some(read) = self.broker.log.next_read() {
            if let Some(file) = self.disk.read(read) {
                let disk = self.disk.clone();
                self.spawn(async move {
                    disk.open_for_reads(file).await;
                    Event::ReadFileOpen
                });
            }
        }
        if self.broker.log.take_given_up() >= heap::MANY {
            heap::give_back_free_pages();
        }
    }

    fn open_segments(&mut self) {
        for segment in self.disk.keep_segments(&self.writable) {
            if self.opening.insert(segment) {
                let disk = self.disk.clone();
                self.spawn(
                    async move { Event::SegmentOpen(segment, disk.open_segment(segment).await) },
                );
            }
        }
    }

    /// Says when the file system gets full, and when it is so no more.
    fn report_space(&mut self) {
        let early = self.broker.log.retired_early();
        if early > self.said_retired_early {
            let segments = early - self.said_retired_early;
            self.said_retired_early = early;
            let shard = &self.options.name;
            tracing::warn!(%shard, segments, "the oldest messages go before their time: the file system is fuller than delete_above_percent");
        }
        let short = self.broker.log.is_short_of_space();
        if short == self.said_short_of_space {
            return;
        }
        self.said_short_of_space = short;
        let shard = &self.options.name;
        let space = self.broker.log.disk_space();
        let free_bytes = space.map_or(0, |space| space.free_bytes);
        if short {
            tracing::error!(%shard, free_bytes, "the file system of the log is full, or nearly: sends are refused, or soon will be");
        } else {
            tracing::info!(%shard, free_bytes, "there is room for the log again");
        }
    }

    fn spawn(&mut self, work: impl Future<Output = Event> + 'static) {
        self.tasks_in_flight += 1;
        let (events, waker) = (self.events.clone(), self.parker.waker());
        glommio::spawn_local(async move {
            let event = work.await;
            events.borrow_mut().push_back(event);
            waker.wake();
        })
        .detach();
    }

    fn take_effects(&mut self) {
        let mut register = false;
        for effect in std::mem::take(&mut self.broker.effects) {
            match effect {
                Effect::Register { .. } => register = true,
                Effect::Route { topic } => {
                    let nameservers = self.options.nameservers.clone();
                    self.spawn(async move {
                        let route = topic_route(&nameservers, &topic).await;
                        Event::Route(topic, route)
                    });
                }
                Effect::Configure { to, text } => {
                    let outcome = self.configure(&text);
                    self.broker.turn(&mut self.net, |engine, turn| {
                        engine.configured(turn, to, outcome)
                    });
                }
            }
        }
        register |= !self.broker.effects.is_empty();
        self.broker.effects.clear();
        if register {
            self.publish();
        }
    }

    /// Checks other values of the configuration and takes them over.
    fn configure(&mut self, text: &str) -> Result<Settings, String> {
        let config = self
            .options
            .config
            .changed(text)
            .map_err(|error| error.to_string())?;
        let settings = engine_settings(&config, &self.options.name, self.options.engine.store_host);
        tracing::info!(shard = %self.options.name, changes = ?text, "the configuration was changed, until the next start");
        self.broker.log.set_retention(&log_options(&config));
        self.options.config = config;
        Ok(settings)
    }

    fn publish(&self) {
        self.registrar
            .publish(self.broker.engine.topics().version());
    }

    /// Tells the tasks that register what they ask, and the engine what they learned.
    fn register(&mut self) {
        let engine = &self.broker.engine;
        self.registrar.answer(|known| {
            let version = engine.topics().version();
            (version, engine.register_body(known).to_json())
        });
        if let Some(table) = self.registrar.take_in_order() {
            self.broker.turn(&mut self.net, |engine, turn| {
                engine.take_order(turn, &table.table)
            });
        }
        if let Some(version) = self.registrar.take_registered() {
            self.broker.turn(&mut self.net, |engine, turn| {
                engine.registered(turn, version)
            });
        }
    }

    /// Sleeps until there is something to do, or lets the executor's other tasks run where it is due.
    async fn rest(&mut self) -> Result<(), ShardError> {
        if self.disk.take_woke_task() {
            glommio::executor().yield_task_queue_now().await;
        }
        self.parker.set_tasks_under_way(self.tasks_in_flight > 0);
        if self.net.busy() || !self.finished.is_empty() {
            self.parker.share().await;
            return Ok(());
        }
        let engine = self.broker.engine.deadline_mono_ms();
        let flush = self.broker.log.flush_deadline_ms().map_or(i64::MAX, |due| {
            self.broker
                .now
                .mono_ms
                .saturating_add((due - self.broker.now.wall_ms).max(0))
        });
        let due = engine.min(flush).min(self.next_net_tick_mono_ms);
        let wait_ms = due
            .saturating_sub(self.broker.now.mono_ms)
            .max(0)
            .unsigned_abs();
        // Tasks that wait for the executor's own ring must not wait long for ours.
        let longest = if self.tasks_in_flight > 0 {
            BUSY_LINGER
        } else {
            Duration::MAX
        };
        self.parker.set_linger(self.options.linger.min(longest));
        self.parker.set_spin(self.options.spin.min(longest));
        self.disk.submit(&mut self.ring);
        if !self.writer.may_sleep() {
            self.writer.awake();
            return Ok(());
        }
        let parked = self
            .parker
            .park(&mut self.ring, Some(Duration::from_millis(wait_ms)))
            .await;
        self.writer.awake();
        parked.map_err(ShardError::Ring)
    }

    /// Unregisters, writes down what was accepted, answers it and closes.
    async fn end(mut self) -> Result<(), ShardError> {
        self.net.stop_listening(&mut self.ring);
        let registrar = std::mem::replace(&mut self.registrar, Registrar::nobody());
        let unregistered = glommio::spawn_local(registrar.stop());
        let began_ms = self.clock.now().mono_ms;
        if self.failure.is_none() {
            self.broker
                .turn(&mut self.net, |engine, turn| engine.drain(turn));
            // What clients send from here on is answered if there is time for it; they must not keep us from ending.
            let accepted = self.broker.log.max_position();
            while self.failure.is_none() && self.broker.log.durable() < accepted {
                self.broker.log.flush_now();
                self.one_turn()?;
                self.rest().await?;
            }
            let state = self.broker.engine.snapshot();
            self.broker.log.snapshot(state);
        }
        self.net.drain(&mut self.ring, "the broker stops");
        while self.clock.now().mono_ms - began_ms < DRAIN_WAIT_MS {
            if self.net.drained() && self.tasks_in_flight == 0 && !self.disk.has_background() {
                if self.failure.is_some() || self.broker.log.is_checkpointed() {
                    break;
                }
                // The next start must know of all that was acknowledged meanwhile.
                let state = self.broker.engine.snapshot();
                self.broker.log.snapshot(state);
            }
            self.one_turn()?;
            self.rest().await?;
        }
        if self.failure.is_none() && !self.broker.log.is_checkpointed() {
            tracing::warn!(shard = %self.options.name, "there was no time or no room for the last checkpoint");
        }
        unregistered.await;
        match self.failure {
            Some(failure) => Err(ShardError::Log(failure)),
            None => Ok(()),
        }
    }
}
