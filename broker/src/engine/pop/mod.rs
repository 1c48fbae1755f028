//! POP_MESSAGE 200050 and what belongs to it: consumption where the broker, not the client, says who gets which message.
//!
//! A pop takes messages of any queue of a topic (or of one) and of the group's retry topic, and remembers them as a
//! checkpoint until they are acknowledged (`ack`). What is not acknowledged in its invisible time goes to the retry topic,
//! or after too many attempts to the dead letters (`revive`). Orderly pops block their queue instead (`order`). A pop that
//! finds nothing waits (`waiting`). Where clients leave the rebalance to the broker, `assignment` says who pops or pulls.
//!
//! Checkpoints are state records of the log (`journal`): a pop is written before it is answered, acknowledgements soon
//! after. After a crash nothing is lost; what was acknowledged last may come again.
//!
//! The committed offset of a group in a queue is where its first outstanding checkpoint starts, so a pull consumer of the
//! same group that takes over sees everything that is not acknowledged.

mod ack;
mod assignment;
mod checkpoint;
mod handle;
mod journal;
mod order;
mod peek;
mod revive;
mod take;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::HashMap;
use std::rc::Rc;

use corelane_wire::ExtHeader;
use corelane_wire::code::{perm, response};
use corelane_wire::header::pop::PopMessageRequest;
use corelane_wire::record::{Record, RecordFields};

use super::position::no_topic;
use super::pull::PullFilter;
use super::turn::{Refusal, Request, Turn};
use super::{Engine, name};
use crate::log::ReadId;
use assignment::{RequestModes, Routes};
use checkpoint::{Checkpoint, Checkpoints, Due, MAX_MESSAGES, QueueKey};
use handle::{Handle, ORDER_REVIVE_QID, OffsetInfo, REVIVE_QUEUES, RetryHandle, retry_topic};
use order::OrderedPop;
use take::{Haul, Wanted};
pub use waiting::Wait;
use waiting::{HeldPops, Hold};

/// The kinds of state records of this module.
pub(super) const STATE_KINDS: std::ops::RangeInclusive<u16> = 30..=35;

/// One pop in so many looks into the retry topic first, so that neither topic starves the other.
const RETRY_FIRST_EVERY: u32 = 5;
/// How much older than its waiting time a request may be, in milliseconds, before nobody waits for its answer any more.
const MAX_LATE_MS: i64 = 500;
/// Longest name that a client gives to its attempt, in bytes.
const MAX_ATTEMPT_ID: usize = 256;

/// What the engine knows of pops.
#[derive(Default)]
pub struct Pops {
    table: Checkpoints,
    modes: RequestModes,
    routes: Routes,
    waiting: HeldPops,
    /// What goes on when a read is done.
    reviving: HashMap<ReadId, Vec<Due>>,
    /// No revival before, because the log was busy.
    revive_from_mono_ms: i64,
    next_flush_mono_ms: i64,
    /// How far the wall clock is ahead of the steady one.
    wall_ahead_ms: i64,
    round: u32,
}

impl Pops {
    /// Replay is over.
    pub fn started(&mut self, now: super::Now) {
        self.wall_ahead_ms = now.wall_ms - now.mono_ms;
    }

    /// Forgets a connection.
    pub fn closed(&mut self, connection: super::Connection) {
        self.waiting.closed(connection);
        self.routes.closed(connection);
    }

    /// Forgets a topic.
    pub fn remove_topic(&mut self, topic: &str) {
        self.table.remove_topic(topic);
        self.modes.remove_topic(topic);
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: &str) {
        self.table.remove_group(group);
        self.modes.remove_group(group);
    }

    /// Whether no pop waits for a message.
    #[cfg(test)]
    pub fn is_nobody_waiting(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When something is to be done.
    pub fn deadline_mono_ms(&self) -> i64 {
        let due = self
            .table
            .first_due_wall_ms()
            .map_or(i64::MAX, |due| due.saturating_sub(self.wall_ahead_ms));
        let flush = match (self.table.is_dirty(), self.next_flush_mono_ms) {
            (true, i64::MAX) => i64::MIN,
            (true, due) => due,
            (false, _) => i64::MAX,
        };
        due.max(self.revive_from_mono_ms)
            .min(flush)
            .min(self.waiting.deadline_mono_ms())
            .min(self.routes.deadline_mono_ms())
    }
}

impl Engine {
    /// POP_MESSAGE 200050.
    pub(super) fn pop(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        wait: Wait,
    ) -> Result<(), Refusal> {
        let header = PopMessageRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        self.check_broker_pops("pop")?;
        check_pop(&header)?;
        let queues = self.check_popped(turn, &group, &topic, header.queue_id)?;
        let filter = self.pop_filter(header.exp_type, header.exp)?;
        let born_ms = if header.born_time > 0 {
            header.born_time
        } else {
            turn.now.wall_ms
        };
        let left_ms = born_ms
            .saturating_add(header.poll_time)
            .saturating_sub(turn.now.wall_ms);
        self.pops.round = self.pops.round.wrapping_add(1);
        let round = self.pops.round;
        let answer = Answer {
            topic: &topic,
            pop_ms: turn.now.wall_ms,
            invisible_ms: header.invisible_time,
            revive_qid: if header.order {
                ORDER_REVIVE_QID
            } else {
                (round % REVIVE_QUEUES as u32) as i32
            },
        };
        if left_ms < -MAX_LATE_MS {
            self.answer_pop(
                turn,
                req,
                response::POLLING_TIMEOUT,
                &answer,
                &Haul::default(),
            );
            return Ok(());
        }
        let wanted = Wanted {
            group: &group,
            topic: &topic,
            queue_id: header.queue_id,
            queues,
            most: header.max_msg_nums as usize,
            filter: &filter,
            from_end: header.init_mode != 0,
            pop_ms: answer.pop_ms,
            attempt_id: &header
                .attempt_id
                .map(|text| text.to_str())
                .unwrap_or_default(),
        };
        let haul = match header.order {
            true => self.take_in_order(turn, &wanted),
            false => self.take(turn, &wanted, round.is_multiple_of(RETRY_FIRST_EVERY)),
        };
        if haul.messages > 0 {
            match header.order {
                true => self.keep_in_order(turn, &wanted, header.invisible_time, &haul)?,
                false => self.keep(turn, &wanted, header.invisible_time, &haul)?,
            }
            self.stats
                .got(&group, &topic, haul.messages, haul.bytes, turn.now.wall_ms);
            self.answer_pop(turn, req, response::SUCCESS, &answer, &haul);
            return Ok(());
        }
        if let Some(read) = haul.read {
            self.retry_after_read(turn, read, req);
            return Ok(());
        }
        let hold = Hold {
            group: &group,
            topic: &topic,
            queue_id: header.queue_id,
            notify: false,
        };
        let code = match self.hold_pop(turn, req, hold, wait, left_ms.min(header.poll_time)) {
            None => return Ok(()),
            Some(code) => code,
        };
        self.stats.missed(turn.now.wall_ms);
        self.answer_pop(turn, req, code, &answer, &haul);
        Ok(())
    }

    /// Checks what a pop, a peek and a notification have in common. Gives the number of the topic's queues.
    fn check_popped(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<i32, Refusal> {
        let Some(known) = self.topics.get(topic) else {
            return Err(no_topic(topic));
        };
        let queues = known.config.read_queue_nums;
        if known.config.perm & perm::READ == 0 {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!("the topic[{topic}] peeking message is forbidden"),
            ));
        }
        if queue_id >= queues {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "queueId[{queue_id}] is illegal, topic[{topic}] has {queues} queues to read"
                ),
            ));
        }
        if self.ensure_group(turn, group)?.is_none() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("subscription group [{group}] does not exist"),
            ));
        }
        if self
            .groups
            .get(group)
            .is_some_and(|config| !config.consume_enable)
        {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!("consumer group [{group}] is not permitted to consume"),
            ));
        }
        Ok(queues)
    }

    fn pop_filter(
        &self,
        kind: Option<corelane_wire::Text<'_>>,
        expression: Option<corelane_wire::Text<'_>>,
    ) -> Result<PullFilter, Refusal> {
        let expression = expression.map(|text| text.to_str()).unwrap_or_default();
        if expression.is_empty() || expression == "*" {
            return Ok(PullFilter::Own(self.filter_all.clone()));
        }
        let kind = kind.map(|text| text.to_str());
        Ok(PullFilter::Own(Rc::new(
            self.compile(kind.as_deref(), &expression)?,
        )))
    }

    /// Writes down what was taken, so that it is not given out again before its time.
    fn keep(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        invisible_ms: i64,
        haul: &Haul,
    ) -> Result<(), Refusal> {
        self.end_resets(turn, wanted, haul)?;
        let mut payload = Vec::new();
        journal::push_popped(
            &mut payload,
            wanted.group,
            wanted.topic,
            wanted.pop_ms,
            invisible_ms,
            &haul.taken,
        );
        turn.log.append_state(journal::POPPED, &payload)?;
        let retry = retry_topic(wanted.group, wanted.topic);
        for taken in &haul.taken {
            let topic = if taken.retry { &retry } else { wanted.topic };
            let key = QueueKey::new(wanted.group, topic, taken.queue_id);
            let deltas = taken.deltas.as_slice().into();
            let checkpoint = Checkpoint {
                next: taken.next,
                invisible_ms,
                deltas,
                acked: 0,
            };
            self.pops
                .table
                .insert(&key, (taken.start, wanted.pop_ms), checkpoint);
            self.commit_pops(&key, false);
        }
        Ok(())
    }

    /// A pop begins where an operator set the group's offset, if one did; the group need not be told any more.
    fn end_resets(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        haul: &Haul,
    ) -> Result<(), Refusal> {
        for taken in haul.taken.iter().filter(|taken| !taken.retry) {
            self.take_reset(turn, wanted.group, wanted.topic, taken.queue_id)?;
        }
        Ok(())
    }

    fn keep_in_order(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        invisible_ms: i64,
        haul: &Haul,
    ) -> Result<(), Refusal> {
        self.end_resets(turn, wanted, haul)?;
        let mut payload = Vec::new();
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for taken in &haul.taken {
            let key = QueueKey::new(wanted.group, wanted.topic, taken.queue_id);
            let offsets: Vec<i64> = taken
                .deltas
                .iter()
                .map(|delta| taken.start + i64::from(*delta))
                .collect();
            let queue = self
                .pops
                .table
                .queue(wanted.group, wanted.topic, taken.queue_id);
            let before = queue.and_then(|queue| queue.ordered.as_ref());
            let ordered = OrderedPop::after(
                before,
                wanted.pop_ms,
                invisible_ms,
                wanted.attempt_id,
                &offsets,
            );
            payload.clear();
            journal::push_ordered(&mut payload, &key, &ordered);
            bytes += payload.len() + 64;
            kept.push((key, taken.start, ordered));
        }
        // All of the answer is written down or nothing.
        turn.log.reserve(bytes, kept.len())?;
        for (key, start, ordered) in kept {
            payload.clear();
            journal::push_ordered(&mut payload, &key, &ordered);
            turn.log.append_state(journal::ORDERED, &payload)?;
            let wall_ms = ordered.pop_ms.saturating_add(ordered.invisible_ms);
            self.pops.table.open_queue(&key).ordered = Some(ordered);
            self.pops.table.add_due(Due {
                wall_ms,
                queue: key.clone(),
                checkpoint: None,
            });
            self.offsets
                .commit(&key.group, &key.topic, key.queue_id, start);
        }
        Ok(())
    }

    /// Moves the committed offset to where everything before is done with; never back. With `journalled` set the journal
    /// itself says so.
    fn commit_pops(&mut self, key: &QueueKey, journalled: bool) {
        let QueueKey {
            group,
            topic,
            queue_id,
        } = key;
        if let Some(queue) = self.pops.table.queue(group, topic, *queue_id) {
            let done = queue.done_before();
            if self
                .offsets
                .get(group, topic, *queue_id)
                .is_none_or(|committed| committed < done)
            {
                match journalled {
                    true => self.offsets.load(group, topic, *queue_id, done),
                    false => {
                        self.offsets.commit(group, topic, *queue_id, done);
                    }
                }
            }
        }
        self.pops.table.close_queue(key);
    }

    fn answer_pop(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        code: i32,
        answer: &Answer<'_>,
        haul: &Haul,
    ) {
        if req.to.oneway {
            return;
        }
        let mut info = OffsetInfo::default();
        for taken in &haul.taken {
            let offsets = taken
                .deltas
                .iter()
                .map(|delta| taken.start + i64::from(*delta));
            info.add(taken.retry, taken.queue_id, taken.start, offsets);
        }
        if answer.revive_qid == ORDER_REVIVE_QID {
            for (taken, counts) in haul.taken.iter().zip(&haul.counts) {
                let offsets = taken
                    .deltas
                    .iter()
                    .map(|delta| taken.start + i64::from(*delta));
                info.add_counts(taken.queue_id, offsets.zip(counts.iter().copied()));
            }
        }
        let mut retried = Vec::new();
        self.write_retried(answer, haul, &mut retried);
        let bytes: usize = haul.parts.iter().map(|part| part.len()).sum();
        let remark = if haul.messages > 0 {
            "FOUND"
        } else {
            "NO_MESSAGE_IN_QUEUE"
        };
        let out = turn.out.buffer(req.to.connection);
        let mut fields = req.to.write(out, code, Some(remark));
        fields.int_field("popTime", answer.pop_ms);
        fields.int_field("invisibleTime", answer.invisible_ms);
        fields.int_field("reviveQid", answer.revive_qid.into());
        fields.int_field("restNum", haul.rest);
        fields.field("startOffsetInfo", &info.starts);
        fields.field("msgOffsetInfo", &info.messages);
        if !info.counts.is_empty() {
            fields.field("orderCountInfo", &info.counts);
        }
        fields.finish(bytes + retried.len());
        for part in &haul.parts {
            turn.out.shared(req.to.connection, part.clone());
        }
        turn.out
            .buffer(req.to.connection)
            .extend_from_slice(&retried);
    }

    /// Writes what came from the retry topic as messages of the topic itself, each with its handle.
    fn write_retried(&self, answer: &Answer<'_>, haul: &Haul, out: &mut Vec<u8>) {
        let starts = haul
            .taken
            .iter()
            .filter(|taken| taken.retry)
            .flat_map(|taken| taken.deltas.iter().map(|_| taken.start));
        for (slice, start) in haul.retried.iter().zip(starts) {
            let Ok((record, _)) = Record::parse(slice) else {
                continue;
            };
            let handle = RetryHandle {
                handle: Handle {
                    start,
                    pop_ms: answer.pop_ms,
                    invisible_ms: answer.invisible_ms,
                    revive_qid: answer.revive_qid,
                },
                broker_name: &self.settings.broker_name,
                queue_id: record.queue_id(),
                offset: record.queue_offset(),
            };
            let mut properties = record.properties_bytes().to_vec();
            if properties
                .last()
                .is_some_and(|last| *last != corelane_wire::properties::PAIR_END)
            {
                properties.push(corelane_wire::properties::PAIR_END);
            }
            corelane_wire::properties::push(&mut properties, "POP_CK", &handle.to_string());
            let fields = RecordFields {
                head: record.head(),
                body: record.body(),
                topic: answer.topic,
                properties: &properties,
            };
            if let Err(error) = fields.push_to(out) {
                tracing::error!(topic = answer.topic, %error, "a retried message cannot be given out");
            }
        }
    }

    /// The room of pops hears of new visible records.
    pub(super) fn wake_pops(&mut self, turn: &mut Turn<'_>, queue: crate::log::QueueRef) {
        if self.pops.waiting.is_empty() {
            return;
        }
        let (topic, queue_id) = turn.log.queue_name(queue);
        let topic = topic.to_owned();
        self.wake_pops_of(turn, &topic, queue_id);
    }

    /// Does what is due.
    pub(super) fn pops_on_time(&mut self, turn: &mut Turn<'_>) {
        self.pops.wall_ahead_ms = turn.now.wall_ms - turn.now.mono_ms;
        self.end_overdue_pops(turn);
        self.revive_due(turn);
        self.expire_routes(turn);
        self.journal_acks(turn, false);
    }

    /// A topic will be deleted: removes what groups would pop of it again. Goes first, or a crash between the two would leave
    /// old messages to a topic that is made anew.
    pub(super) fn delete_retry_topics(
        &mut self,
        turn: &mut Turn<'_>,
        topic: &str,
        groups: &[String],
    ) -> Result<(), Refusal> {
        if !topic.starts_with(name::RETRY_PREFIX) {
            for group in groups {
                self.delete_topic(turn, &retry_topic(group, topic))?;
            }
        }
        Ok(())
    }
}

/// What an answer says beside its messages.
struct Answer<'a> {
    topic: &'a str,
    pop_ms: i64,
    invisible_ms: i64,
    revive_qid: i32,
}

fn check_pop(header: &PopMessageRequest<'_>) -> Result<(), Refusal> {
    if !(1..=MAX_MESSAGES as i32).contains(&header.max_msg_nums) {
        return Err(Refusal::new(
            response::SYSTEM_ERROR,
            format!(
                "a pop takes 1 to {MAX_MESSAGES} messages, not {}",
                header.max_msg_nums
            ),
        ));
    }
    if header.invisible_time < 0 || header.poll_time < 0 {
        return Err(Refusal::new(
            response::INVALID_PARAMETER,
            "invisibleTime and pollTime must not be negative",
        ));
    }
    if header
        .attempt_id
        .is_some_and(|attempt| attempt.len() > MAX_ATTEMPT_ID)
    {
        return Err(Refusal::new(
            response::INVALID_PARAMETER,
            format!("attemptId is longer than {MAX_ATTEMPT_ID} bytes"),
        ));
    }
    Ok(())
}
