//! Pops and notifications that found nothing and wait for a message, or for their time to end: NOTIFICATION 200054,
//! POLLING_INFO 200055.
//!
//! What waits is the request itself; it is handled again when a record of its topic, or of its group's retry topic, becomes
//! visible. A record wakes one pop of a group, and the next one while there is more; it wakes every notification.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use corelane_wire::code::{request, response};
use corelane_wire::header::pop::{NotificationRequest, PollingInfoRequest};
use corelane_wire::{ExtHeader, Frame};

use super::handle::retry_topic;
use super::take::{Wanted, round_robin};
use crate::engine::Engine;
use crate::engine::name::RETRY_PREFIX;
use crate::engine::turn::{Connection, Refusal, ReplyTo, Request, Turn};

/// Requests of one group and topic that may wait.
const MAX_WAITING: usize = 1024;

/// Whether a request that finds nothing may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as it says.
    AsAsked,
    /// Until then: it waited before.
    UntilMonoMs(i64),
    /// No.
    No,
}

impl Wait {
    /// As long as the request says, or not at all.
    pub fn asked_if(may: bool) -> Self {
        if may { Self::AsAsked } else { Self::No }
    }
}

/// For what a request waits.
#[derive(Debug, Clone, Copy)]
pub struct Hold<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    /// Negative: any.
    pub queue_id: i32,
    /// It is a notification, which takes nothing.
    pub notify: bool,
}

struct HeldPop {
    connection: Connection,
    frame: Box<[u8]>,
    group: Rc<str>,
    topic: Rc<str>,
    queue_id: i32,
    notify: bool,
    deadline_mono_ms: i64,
}

type Point = BTreeSet<u64>;

/// The pops of a shard that wait, oldest first.
#[derive(Default)]
pub struct HeldPops {
    held: HashMap<u64, HeldPop>,
    /// By topic, then by group.
    points: HashMap<Rc<str>, HashMap<Rc<str>, Point>>,
    by_connection: BTreeSet<(Connection, u64)>,
    deadlines: BTreeSet<(i64, u64)>,
    last_id: u64,
}

impl HeldPops {
    fn insert(
        &mut self,
        hold: Hold<'_>,
        connection: Connection,
        frame: &[u8],
        deadline_mono_ms: i64,
    ) {
        self.last_id += 1;
        let id = self.last_id;
        let (topic, group): (Rc<str>, Rc<str>) = (hold.topic.into(), hold.group.into());
        self.points
            .entry(topic.clone())
            .or_default()
            .entry(group.clone())
            .or_default()
            .insert(id);
        self.by_connection.insert((connection, id));
        self.deadlines.insert((deadline_mono_ms, id));
        let (queue_id, notify) = (hold.queue_id, hold.notify);
        self.held.insert(
            id,
            HeldPop {
                connection,
                frame: frame.into(),
                group,
                topic,
                queue_id,
                notify,
                deadline_mono_ms,
            },
        );
    }

    fn remove(&mut self, id: u64) -> Option<HeldPop> {
        let pop = self.held.remove(&id)?;
        self.by_connection.remove(&(pop.connection, id));
        self.deadlines.remove(&(pop.deadline_mono_ms, id));
        if let Some(groups) = self.points.get_mut(&pop.topic) {
            if let Some(point) = groups.get_mut(&pop.group) {
                point.remove(&id);
                if point.is_empty() {
                    groups.remove(&pop.group);
                }
            }
            if groups.is_empty() {
                self.points.remove(&pop.topic);
            }
        }
        Some(pop)
    }

    fn point(&self, group: &str, topic: &str) -> impl Iterator<Item = (u64, &HeldPop)> {
        let ids = self
            .points
            .get(topic)
            .and_then(|groups| groups.get(group))
            .into_iter()
            .flatten();
        ids.filter_map(|id| Some((*id, self.held.get(id)?)))
    }

    /// Forgets what a connection waited for.
    pub fn closed(&mut self, connection: Connection) {
        let ids: Vec<u64> = self
            .by_connection
            .range((connection, 0)..=(connection, u64::MAX))
            .map(|(_, id)| *id)
            .collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// When the first of them ends.
    pub fn deadline_mono_ms(&self) -> i64 {
        self.deadlines
            .first()
            .map_or(i64::MAX, |(deadline, _)| *deadline)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

impl Engine {
    /// Lets a request wait where it may; else gives the code to answer it with.
    pub(super) fn hold_pop(
        &mut self,
        turn: &Turn<'_>,
        req: &Request<'_>,
        hold: Hold<'_>,
        wait: Wait,
        wait_ms: i64,
    ) -> Option<i32> {
        let now_ms = turn.now.mono_ms;
        let deadline_mono_ms = match wait {
            Wait::AsAsked => now_ms.saturating_add(wait_ms.min(self.settings.long_polling_max_ms)),
            Wait::UntilMonoMs(deadline) => deadline,
            Wait::No => now_ms,
        };
        if deadline_mono_ms <= now_ms || !self.settings.long_polling || req.to.oneway {
            return Some(response::POLLING_TIMEOUT);
        }
        let waiting = &mut self.pops.waiting;
        if waiting.len() + self.held_pulls.len() >= self.settings.max_held_pulls
            || waiting.point(hold.group, hold.topic).count() >= MAX_WAITING
        {
            return Some(response::POLLING_FULL);
        }
        waiting.insert(hold, req.to.connection, req.bytes, deadline_mono_ms);
        None
    }

    /// There may be something to pop in a queue of `topic`, which may be a retry topic.
    pub(super) fn wake_pops_of(&mut self, turn: &mut Turn<'_>, topic: &str, queue_id: i32) {
        let groups = self
            .pops
            .waiting
            .points
            .get(topic)
            .into_iter()
            .flat_map(|groups| groups.keys());
        for group in groups.cloned().collect::<Vec<_>>() {
            self.wake_point(turn, &group, topic, queue_id, topic);
        }
        // A retry topic is named by group and topic; either may have the sign between them in itself.
        let Some(names) = topic.strip_prefix(RETRY_PREFIX) else {
            return;
        };
        for (at, _) in names.match_indices('_') {
            self.wake_point(turn, &names[..at], &names[at + 1..], -1, topic);
        }
    }

    /// Wakes who waits for `topic` in a group; what came is in `source`, which is the topic or the retry topic.
    pub(super) fn wake_point(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        queue_id: i32,
        source: &str,
    ) {
        let wants = |pop: &HeldPop| queue_id < 0 || pop.queue_id < 0 || pop.queue_id == queue_id;
        let notified = self
            .pops
            .waiting
            .point(group, topic)
            .filter(|(_, pop)| pop.notify && wants(pop));
        for id in notified.map(|(id, _)| id).collect::<Vec<_>>() {
            self.handle_again(turn, id, true);
        }
        let left = |engine: &Self, turn: &Turn<'_>| {
            let queues = engine
                .topics
                .get(source)
                .map_or(0, |topic| topic.config.read_queue_nums);
            (0..queues)
                .map(|queue_id| engine.left_to_pop(turn, group, source, queue_id))
                .sum::<i64>()
        };
        let mut before = left(self, turn);
        loop {
            let next = self
                .pops
                .waiting
                .point(group, topic)
                .find(|(_, pop)| !pop.notify && wants(pop));
            let Some((id, _)) = next else { return };
            self.handle_again(turn, id, true);
            let now = left(self, turn);
            if now == 0 || now >= before {
                return;
            }
            before = now;
        }
    }

    /// Messages that a pop of a queue would still look at.
    fn left_to_pop(&self, turn: &Turn<'_>, group: &str, topic: &str, queue_id: i32) -> i64 {
        let Some(queue) = turn.log.find_queue(topic, queue_id) else {
            return 0;
        };
        let committed = self
            .offsets
            .get(group, topic, queue_id)
            .unwrap_or(turn.log.min_offset(queue));
        let next = self
            .pops
            .table
            .queue(group, topic, queue_id)
            .map_or(0, |queue| queue.next);
        (turn.log.max_offset(queue) - committed.max(next)).max(0)
    }

    /// Answers requests whose time is over.
    pub(super) fn end_overdue_pops(&mut self, turn: &mut Turn<'_>) {
        while let Some((deadline, id)) = self.pops.waiting.deadlines.first().copied() {
            if deadline > turn.now.mono_ms {
                break;
            }
            self.handle_again(turn, id, false);
        }
    }

    /// Answers what waits for a topic, because the topic is gone.
    pub(in crate::engine) fn end_pops_of(&mut self, turn: &mut Turn<'_>, topic: &str) {
        let points = self
            .pops
            .waiting
            .points
            .get(topic)
            .into_iter()
            .flat_map(|groups| groups.values());
        for id in points.flatten().copied().collect::<Vec<_>>() {
            self.handle_again(turn, id, false);
        }
    }

    fn handle_again(&mut self, turn: &mut Turn<'_>, id: u64, may_wait: bool) {
        let Some(pop) = self.pops.waiting.remove(id) else {
            return;
        };
        let Ok(frame) = Frame::parse(&pop.frame) else {
            return;
        };
        let req = Request {
            to: ReplyTo::new(pop.connection, &frame),
            frame: &frame,
            bytes: &pop.frame,
        };
        let wait = if may_wait {
            Wait::UntilMonoMs(pop.deadline_mono_ms)
        } else {
            Wait::No
        };
        let result = match frame.code {
            request::NOTIFICATION => self.notification(turn, &req, wait),
            _ => self.pop(turn, &req, wait),
        };
        if let Err(refusal) = result {
            turn.refuse(req.to, &refusal);
        }
    }

    /// NOTIFICATION 200054: whether there is anything to pop; waits until there is.
    pub(in crate::engine) fn notification(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        wait: Wait,
    ) -> Result<(), Refusal> {
        let header = NotificationRequest::decode(&req.frame.ext)?;
        self.check_broker_pops("peeking")?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        let queues = self.check_popped(turn, &group, &topic, header.queue_id)?;
        let filter = self.pop_filter(header.exp_type, header.exp)?;
        let wanted = Wanted {
            group: &group,
            topic: &topic,
            queue_id: header.queue_id,
            queues,
            most: 1,
            filter: &filter,
            from_end: false,
            pop_ms: turn.now.wall_ms,
            attempt_id: &header
                .attempt_id
                .map(|text| text.to_str())
                .unwrap_or_default(),
        };
        let mut has_message = self.any_to_pop(turn, &wanted, &topic, header.queue_id, header.order);
        let retry = retry_topic(&group, &topic);
        if !has_message && !header.order && self.topics.get(&retry).is_some() {
            has_message = self.any_to_pop(turn, &wanted, &retry, -1, false);
        }
        let mut full = false;
        if !has_message {
            let born_ms = if header.born_time > 0 {
                header.born_time
            } else {
                turn.now.wall_ms
            };
            let left_ms = born_ms
                .saturating_add(header.poll_time)
                .saturating_sub(turn.now.wall_ms);
            let hold = Hold {
                group: &group,
                topic: &topic,
                queue_id: header.queue_id,
                notify: true,
            };
            match self.hold_pop(turn, req, hold, wait, left_ms.min(header.poll_time)) {
                None => return Ok(()),
                Some(code) => full = code == response::POLLING_FULL,
            }
        }
        let text = |yes: bool| if yes { "true" } else { "false" };
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| {
                fields.field("hasMsg", text(has_message));
                fields.field("pollingFull", text(full));
            },
            &[],
        );
        Ok(())
    }

    /// Whether a pop would find a message, apart from bounds. "Yes" where it would have to read first.
    fn any_to_pop(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        topic: &str,
        queue_id: i32,
        order: bool,
    ) -> bool {
        let queues = self
            .topics
            .get(topic)
            .map_or(0, |known| known.config.read_queue_nums);
        for queue_id in round_robin(queues, queue_id, 0) {
            let Some(queue) = turn.log.find_queue(topic, queue_id) else {
                continue;
            };
            let state = self.pops.table.queue(wanted.group, topic, queue_id);
            let ordered = state
                .and_then(|state| state.ordered.as_ref())
                .filter(|_| order);
            if ordered.is_some_and(|last| {
                last.blocked_until(wanted.attempt_id, turn.now.wall_ms)
                    .is_some()
            }) {
                continue;
            }
            let next = state.map_or(0, |state| state.next);
            let min = turn.log.min_offset(queue);
            let committed = self
                .offsets
                .get(wanted.group, topic, queue_id)
                .unwrap_or(min)
                .max(min);
            let from = if order {
                committed
            } else {
                committed.max(next)
            };
            if from < turn.log.max_offset(queue) && self.any_match(turn, queue, from, wanted.filter)
            {
                return true;
            }
        }
        false
    }

    /// POLLING_INFO 200055: how many pops wait for a queue.
    pub(in crate::engine) fn polling_info(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = PollingInfoRequest::decode(&req.frame.ext)?;
        self.check_broker_pops("peeking")?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        self.check_popped(turn, &group, &topic, header.queue_id)?;
        let waiting = self.pops.waiting.point(&group, &topic);
        let count = waiting
            .filter(|(_, pop)| !pop.notify && pop.queue_id == header.queue_id)
            .count();
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| fields.int_field("pollingNum", count as i64),
            &[],
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut held = HeldPops::default();
        let hold = |topic| Hold {
            group: "g",
            topic,
            queue_id: -1,
            notify: false,
        };
        held.insert(hold("a"), Connection(1), b"x", 10);
        held.insert(hold("a"), Connection(2), b"x", 5);
        held.insert(hold("b"), Connection(1), b"x", 7);
        assert_eq!((held.len(), held.deadline_mono_ms()), (3, 5));
        held.closed(Connection(1));
        assert_eq!(
            held.point("g", "a").map(|(id, _)| id).collect::<Vec<_>>(),
            [2]
        );
        held.closed(Connection(2));
        assert!(
            held.is_empty()
                && held.points.is_empty()
                && held.by_connection.is_empty()
                && held.deadlines.is_empty()
        );
    }
}
