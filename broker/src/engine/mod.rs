//! What requests mean: the state machine of one shard's broker.
//!
//! The engine does no I/O and reads no clock. Its host calls it with frames, with the progress of the log and with the
//! time; it answers into the host's [`Output`]. The same calls in the same order give the same answers, so the engine
//! runs on io_uring and in a simulation alike.
//!
//! What waits lies in ordered structures of its own: answers that wait for the log (`held`), pulls that wait for a
//! message (`hold`), requests that wait for the disk. All of them are bounded. Messages that wait for their time lie in the
//! log (`delay`).
//!
//! One turn of a host: any number of [`Engine::handle`], [`Engine::opened`], [`Engine::closed`]; then the log's writes are
//! submitted, and as they complete, [`Engine::settle`]; [`Engine::on_read`] when a read is done; [`Engine::on_time`] when
//! [`Engine::deadline_mono_ms`] has come.

mod admin;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod bad_input_tests;
mod calls;
pub mod client;
#[cfg(test)]
mod compatibility_tests;
mod delay;
pub mod filter;
mod forbidden;
mod found;
pub mod group;
mod heartbeat;
mod held;
mod hold;
mod lock;
pub mod name;
pub mod offset;
mod permission;
mod pop;
mod position;
mod pull;
pub mod records;
mod reply;
mod reset;
mod send;
mod send_back;
pub mod settings;
mod state;
mod stats;
mod store;
pub mod topic;
mod transaction;
pub mod turn;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use corelane_wire::body::RegisterBrokerBody;
use corelane_wire::code::{request, response};
use corelane_wire::record::Host;
use corelane_wire::{Frame, FrameError, FrameTemplate};

use crate::log::{Entry, Log, Position, QueueRef, ReadId, Slice};
use calls::Calls;
use client::Clients;
use delay::Delays;
use filter::Filter;
use forbidden::Forbidden;
use found::Found;
use group::Groups;
use held::HeldReplies;
use hold::HeldPulls;
use lock::QueueLocks;
use offset::Offsets;
use pop::{Pops, Wait};
use settings::Settings;
use stats::Stats;
use topic::Topics;
use transaction::Transactions;
pub use turn::{Connection, Effect, Now, Output, Refusal, ReplyTo, Request, Turn};

/// A request that waits for a read of the disk.
struct WaitingRead {
    connection: Connection,
    frame: Box<[u8]>,
    found: Found,
}

/// One shard's broker.
pub struct Engine {
    settings: Settings,
    topics: Topics,
    groups: Groups,
    offsets: Offsets,
    /// How far groups have pulled, which is not kept.
    pulled: Offsets,
    /// Offsets that groups have not been told of yet (see `reset`).
    resets: Offsets,
    forbidden: Forbidden,
    stats: Stats,
    clients: Clients,
    locks: QueueLocks,
    held: HeldReplies,
    held_pulls: HeldPulls,
    calls: Calls,
    transactions: Transactions,
    delays: Delays,
    pops: Pops,
    waiting_reads: HashMap<ReadId, Vec<WaitingRead>>,
    /// Of the request that is handled.
    found: Found,
    filter_all: Rc<Filter>,
    /// The properties that every message that is sent gets.
    stamp: Rc<str>,
    /// What every answer to a send begins with.
    sent: Rc<FrameTemplate>,
    /// Room for the properties of a message whose header is JSON.
    unescaped: String,
    store_host: Host,
    opaque: i32,
    /// Length of the request that is handled.
    request_bytes: usize,
    send_round: i32,
    unique_keys: u64,
    last_store_ms: i64,
    started_wall_ms: i64,
    next_scan_mono_ms: i64,
    next_offset_flush_mono_ms: i64,
    counters: Counters,
    // Room that requests use one after the other.
    entries: Vec<Entry>,
    parts: Vec<Slice>,
    visible: Vec<(QueueRef, i64)>,
}

/// What the engine counts, since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Messages stored.
    pub messages_in: u64,
    /// Their stored bytes.
    pub bytes_in: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Sends among them.
    pub sends_refused: u64,
}

impl Engine {
    /// An engine without any state of its own; the log's replay brings that.
    pub fn new(settings: Settings) -> Self {
        Self {
            topics: Topics::new(&settings),
            groups: Groups::default(),
            offsets: Offsets::default(),
            pulled: Offsets::default(),
            resets: Offsets::default(),
            forbidden: Forbidden::default(),
            stats: Stats::default(),
            clients: Clients::default(),
            locks: QueueLocks::default(),
            held: HeldReplies::default(),
            held_pulls: HeldPulls::default(),
            calls: Calls::default(),
            transactions: Transactions::default(),
            delays: Delays::new(&settings),
            pops: Pops::default(),
            waiting_reads: HashMap::new(),
            found: Found::default(),
            filter_all: Rc::new(Filter::All),
            stamp: send::stamp(&settings.cluster_name).into(),
            sent: Rc::new(send::answer()),
            unescaped: String::new(),
            store_host: Host::from(settings.store_host),
            opaque: 0,
            request_bytes: 0,
            send_round: -1,
            unique_keys: 0,
            last_store_ms: 0,
            started_wall_ms: 0,
            next_scan_mono_ms: 0,
            next_offset_flush_mono_ms: i64::MAX,
            counters: Counters::default(),
            entries: Vec::new(),
            parts: Vec::new(),
            visible: Vec::new(),
            settings,
        }
    }

    /// Replay is over and requests will come.
    pub fn started(&mut self, log: &mut Log, now: Now) {
        self.pops.started(now);
        self.started_wall_ms = now.wall_ms;
        self.topics.changed_all(now.wall_ms);
        self.stats.started(now.wall_ms);
        self.transactions_started(log, now);
    }

    /// The topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// What a NameServer is told that knows a version of the topics, or none.
    pub fn register_body(&self, known: Option<u64>) -> RegisterBrokerBody {
        self.topics
            .register_body(known, self.settings.broker_permission)
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A connection was opened from `address`.
    pub fn opened(&mut self, connection: Connection, address: SocketAddr) {
        self.clients.opened(connection, address);
    }

    /// A connection is gone, with all that waited for it.
    pub fn closed(&mut self, turn: &mut Turn<'_>, connection: Connection) {
        let left = self.clients.closed(connection);
        self.held_pulls.closed(connection);
        self.end_calls_of(turn, connection);
        self.pops.closed(connection);
        self.after_leaving(turn, &left);
    }

    /// A whole frame came. An error means that the connection cannot go on.
    pub fn handle(
        &mut self,
        turn: &mut Turn<'_>,
        connection: Connection,
        bytes: &[u8],
    ) -> Result<(), FrameError> {
        let frame = Frame::parse(bytes)?;
        self.found = Found::default();
        self.dispatch_frame(turn, connection, bytes, &frame, true);
        Ok(())
    }

    /// Handles a request again, after a wait; it was parsed before. With `may_hold` unset it answers now.
    fn dispatch(
        &mut self,
        turn: &mut Turn<'_>,
        connection: Connection,
        bytes: &[u8],
        may_hold: bool,
    ) {
        let Ok(frame) = Frame::parse(bytes) else {
            return;
        };
        // Nobody is there to take the messages; what was asked to be done is done nevertheless.
        let takes = matches!(
            frame.code,
            request::PULL_MESSAGE
                | request::LITE_PULL_MESSAGE
                | request::POP_MESSAGE
                | request::NOTIFICATION
        );
        if takes && self.clients.address(connection).is_none() {
            return;
        }
        self.dispatch_frame(turn, connection, bytes, &frame, may_hold);
    }

    fn dispatch_frame(
        &mut self,
        turn: &mut Turn<'_>,
        connection: Connection,
        bytes: &[u8],
        frame: &Frame<'_>,
        may_hold: bool,
    ) {
        if frame.is_response() {
            self.take_answer(turn, connection, frame);
            return;
        }
        let req = Request {
            to: ReplyTo::new(connection, frame),
            frame,
            bytes,
        };
        self.request_bytes = bytes.len();
        let result = match frame.code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                self.send(turn, &req)
            }
            request::CONSUMER_SEND_MSG_BACK => self.send_back(turn, &req),
            request::RECALL_MESSAGE => self.recall(turn, &req),
            request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => self.pull(turn, &req, may_hold),
            request::END_TRANSACTION => self.end_transaction(turn, &req),
            request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
                self.send_reply(turn, &req)
            }
            request::POP_MESSAGE => self.pop(turn, &req, Wait::asked_if(may_hold)),
            request::ACK_MESSAGE => self.ack(turn, &req),
            request::BATCH_ACK_MESSAGE => self.batch_ack(turn, &req),
            request::CHANGE_MESSAGE_INVISIBLETIME => self.change_invisible(turn, &req),
            request::NOTIFICATION => self.notification(turn, &req, Wait::asked_if(may_hold)),
            request::PEEK_MESSAGE => self.peek(turn, &req),
            request::POLLING_INFO => self.polling_info(turn, &req),
            request::POP_ROLLBACK => self.pop_rollback(turn, &req),
            request::QUERY_ASSIGNMENT => self.query_assignment(turn, &req),
            request::HEART_BEAT => self.heartbeat(turn, &req),
            request::UNREGISTER_CLIENT => self.unregister_client(turn, &req),
            request::CHECK_CLIENT_CONFIG => self.check_client_config(turn, &req),
            request::GET_CONSUMER_LIST_BY_GROUP => self.consumer_list(turn, &req),
            request::QUERY_CONSUMER_OFFSET => self.query_consumer_offset(turn, &req),
            request::UPDATE_CONSUMER_OFFSET => self.update_consumer_offset(turn, &req),
            request::SEARCH_OFFSET_BY_TIMESTAMP => self.search_offset(turn, &req),
            request::GET_MAX_OFFSET => self.get_max_offset(turn, &req),
            request::GET_MIN_OFFSET => self.get_min_offset(turn, &req),
            request::GET_EARLIEST_MSG_STORETIME => self.earliest_store_time(turn, &req),
            request::LOCK_BATCH_MQ => self.lock_queues(turn, &req),
            request::UNLOCK_BATCH_MQ => self.unlock_queues(turn, &req),
            _ => self.administer(turn, &req),
        };
        if let Err(refusal) = result {
            self.counters.refused += 1;
            let is_send = matches!(
                frame.code,
                request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE
            );
            self.counters.sends_refused += u64::from(is_send);
            tracing::debug!(code = frame.code, refused = refusal.code, remark = %refusal.remark, "refused");
            turn.refuse(req.to, &refusal);
        }
    }

    /// The log has come further, or turned out to be broken: sends the answers that waited for it and wakes pulls.
    pub fn settle(&mut self, turn: &mut Turn<'_>) {
        self.held
            .release(turn.log.durable(), turn.now.mono_ms, turn.out);
        let mut visible = std::mem::take(&mut self.visible);
        visible.clear();
        turn.log
            .take_visible(|queue, max_offset| visible.push((queue, max_offset)));
        for (queue, max_offset) in &visible {
            self.wake_queue(turn, *queue, *max_offset);
            self.wake_pops(turn, *queue);
        }
        self.visible = visible;
    }

    /// The NameServers know this version of the topics.
    pub fn registered(&mut self, turn: &mut Turn<'_>, version: u64) {
        self.held.registered(version, turn.out);
    }

    /// A read that requests waited for is done.
    pub fn on_read(&mut self, turn: &mut Turn<'_>, read: ReadId) {
        self.delays.read_done(read);
        for waiting in self.waiting_reads.remove(&read).unwrap_or_default() {
            turn.out.let_go(waiting.connection, waiting.frame.len());
            self.found = waiting.found;
            self.dispatch(turn, waiting.connection, &waiting.frame, true);
        }
        self.transactions_read(turn, read);
        self.revive_after_read(turn, read);
    }

    /// Does what is due.
    pub fn on_time(&mut self, turn: &mut Turn<'_>) {
        self.end_overdue_holds(turn);
        self.end_overdue_calls(turn);
        self.check_transactions(turn);
        self.pops_on_time(turn);
        self.held.expire(turn.now.mono_ms, turn.out);
        self.deliver_due(turn);
        if self.offsets.is_dirty() && turn.now.mono_ms >= self.next_offset_flush_mono_ms {
            self.journal_dirty_offsets(turn);
        }
        // The first commit after a flush starts the wait for the next one.
        self.next_offset_flush_mono_ms =
            match (self.offsets.is_dirty(), self.next_offset_flush_mono_ms) {
                (false, _) => i64::MAX,
                (true, i64::MAX) => turn.now.mono_ms + self.settings.offset_flush_ms,
                (true, due) if due <= turn.now.mono_ms => {
                    turn.now.mono_ms + self.settings.offset_flush_ms
                }
                (true, due) => due,
            };
        self.scan_clients(turn);
    }

    /// When `on_time` wants to be called at the latest. Asked at the end of every turn.
    pub fn deadline_mono_ms(&self) -> i64 {
        let flush = match (self.offsets.is_dirty(), self.next_offset_flush_mono_ms) {
            (true, i64::MAX) => i64::MIN,
            (_, due) => due,
        };
        let holds = self.held_pulls.deadline_mono_ms().unwrap_or(i64::MAX);
        let registrations = self.held.deadline_mono_ms().unwrap_or(i64::MAX);
        let calls = self.calls.deadline_mono_ms().unwrap_or(i64::MAX);
        let transactions = self.transactions.deadline_mono_ms().unwrap_or(i64::MAX);
        let work = calls.min(transactions).min(self.delays.deadline_mono_ms());
        flush
            .min(holds)
            .min(registrations)
            .min(work)
            .min(self.next_scan_mono_ms)
            .min(self.pops.deadline_mono_ms())
    }

    /// Writes down what would otherwise wait: the host is about to end.
    pub fn drain(&mut self, turn: &mut Turn<'_>) {
        self.journal_acks(turn, true);
        self.journal_dirty_offsets(turn);
    }

    /// Handles `req` again when the read is done.
    fn retry_after_read(&mut self, turn: &mut Turn<'_>, read: ReadId, req: &Request<'_>) {
        turn.out.hold_up(req.to.connection, req.bytes.len());
        let waiting = WaitingRead {
            connection: req.to.connection,
            frame: req.bytes.into(),
            found: std::mem::take(&mut self.found),
        };
        self.waiting_reads.entry(read).or_default().push(waiting);
    }

    /// Answers SUCCESS when the log is durable up to `end` and the NameServers know `registration` (0: need not).
    fn answer_when_durable(
        &mut self,
        turn: &mut Turn<'_>,
        to: ReplyTo,
        end: Position,
        registration: u64,
    ) {
        self.reply_when_durable(turn, to, end, registration, true, |out| {
            to.write(out, response::SUCCESS, None).finish(0);
        });
    }

    /// Sends what `write` writes when the log is durable up to `end`; at once where the answer need not wait for that.
    fn reply_when_durable(
        &mut self,
        turn: &mut Turn<'_>,
        to: ReplyTo,
        end: Position,
        registration: u64,
        wait: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if to.oneway {
            return;
        }
        if registration == 0 && (!wait || !self.settings.sync_flush || end <= turn.log.durable()) {
            write(turn.out.buffer(to.connection));
            return;
        }
        let request_bytes = self.request_bytes;
        turn.out.hold_up(to.connection, request_bytes);
        let whose = (to.connection, request_bytes);
        self.held
            .hold(end, whose, registration, turn.now.mono_ms, write);
    }

    fn next_opaque(&mut self) -> i32 {
        self.opaque = self.opaque.wrapping_add(1);
        self.opaque
    }
}
