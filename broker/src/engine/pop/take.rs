//! Finding messages for a pop. Nothing is given out here and hardly anything changed: only what no filter wants is passed.

use corelane_wire::code::perm;

use super::checkpoint::QueueKey;
use super::handle::retry_topic;
use super::journal::Taken;
use super::order::OrderedPop;
use crate::engine::Engine;
use crate::engine::name::RETRY_PREFIX;
use crate::engine::pull::PullFilter;
use crate::engine::turn::Turn;
use crate::log::{LastGroup, QueueRef, ReadId, ReadMiss, Slice};

/// Index entries that one pop looks at in a queue; their distance from the start fits 16 bits.
const MAX_SCANNED: usize = 4096;
/// Index entries taken from the log in one go.
const SCAN_STEP: usize = 64;

/// What a pop asks for.
pub struct Wanted<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    /// Negative: any.
    pub queue_id: i32,
    /// Of the topic.
    pub queues: i32,
    /// Messages at most; 1 to 32.
    pub most: usize,
    pub filter: &'a PullFilter,
    /// Where a group begins that never consumed the queue: at its end or at its beginning.
    pub from_end: bool,
    pub pop_ms: i64,
    /// Empty for none.
    pub attempt_id: &'a str,
}

/// What was found for a pop.
#[derive(Default)]
pub struct Haul {
    /// By queue, in the order of the answer.
    pub taken: Vec<Taken>,
    /// Records of the topic, neighbours joined.
    pub parts: Vec<Slice>,
    /// Records of the retry topic.
    pub retried: Vec<Slice>,
    /// Of orderly pops: how often each message came before, like `taken`.
    pub counts: Vec<Vec<i32>>,
    /// Records in all.
    pub messages: usize,
    pub bytes: usize,
    /// What is left in the queues.
    pub rest: i64,
    /// A queue could not be looked at before this read is done.
    pub read: Option<ReadId>,
}

impl Engine {
    /// Takes from the topic and from the retry topic.
    pub(super) fn take(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        retry_first: bool,
    ) -> Haul {
        let mut haul = Haul::default();
        let retry = retry_topic(wanted.group, wanted.topic);
        let has_retry = !wanted.topic.starts_with(RETRY_PREFIX);
        if has_retry && retry_first {
            self.take_of_retry(turn, wanted, &retry, &mut haul);
        }
        self.take_of(
            turn,
            wanted,
            wanted.topic,
            wanted.queues,
            wanted.queue_id,
            &mut haul,
        );
        if has_retry && !retry_first && haul.messages < wanted.most {
            self.take_of_retry(turn, wanted, &retry, &mut haul);
        }
        haul
    }

    fn take_of_retry(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        topic: &str,
        haul: &mut Haul,
    ) {
        let Some(known) = self.topics.get(topic) else {
            return;
        };
        if known.config.perm & perm::READ != 0 {
            let queues = known.config.read_queue_nums;
            self.take_of(turn, wanted, topic, queues, -1, haul);
        }
    }

    fn take_of(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        topic: &str,
        queues: i32,
        queue_id: i32,
        haul: &mut Haul,
    ) {
        for queue_id in round_robin(queues, queue_id, self.pops.round) {
            let Some(queue) = turn.log.find_queue(topic, queue_id) else {
                continue;
            };
            let (from, max) = (
                self.pop_position(turn, wanted, topic, queue_id, queue),
                turn.log.max_offset(queue),
            );
            let mut taken = Taken {
                retry: topic != wanted.topic,
                queue_id,
                start: from,
                next: from,
                deltas: Vec::new(),
            };
            if haul.messages < wanted.most
                && from < max
                && self.may_pop(wanted, topic, queue_id, from)
            {
                self.scan_queue(turn, wanted, queue, &mut taken, haul);
            }
            haul.rest += max - taken.next;
            if !taken.deltas.is_empty() {
                haul.taken.push(taken);
            } else if taken.next > from {
                self.pass_over(&QueueKey::new(wanted.group, topic, queue_id), taken.next);
            }
        }
    }

    /// Takes from queues that no orderly pop blocks.
    pub(super) fn take_in_order(&mut self, turn: &mut Turn<'_>, wanted: &Wanted<'_>) -> Haul {
        let mut haul = Haul::default();
        for queue_id in round_robin(wanted.queues, wanted.queue_id, self.pops.round) {
            let Some(queue) = turn.log.find_queue(wanted.topic, queue_id) else {
                continue;
            };
            let from = self.first_position(turn, wanted, wanted.topic, queue_id, queue);
            let max = turn.log.max_offset(queue);
            let state = self.pops.table.queue(wanted.group, wanted.topic, queue_id);
            let before = state.and_then(|state| state.ordered.as_ref()).cloned();
            let blocked = before
                .as_ref()
                .and_then(|before| before.blocked_until(wanted.attempt_id, turn.now.wall_ms));
            let mut taken = Taken {
                retry: false,
                queue_id,
                start: from,
                next: from,
                deltas: Vec::new(),
            };
            if haul.messages < wanted.most && from < max && blocked.is_none() {
                self.scan_queue(turn, wanted, queue, &mut taken, &mut haul);
            }
            haul.rest += max - taken.next;
            if !taken.deltas.is_empty() {
                let offsets: Vec<i64> = taken
                    .deltas
                    .iter()
                    .map(|delta| from + i64::from(*delta))
                    .collect();
                let now = OrderedPop::after(
                    before.as_ref(),
                    wanted.pop_ms,
                    0,
                    wanted.attempt_id,
                    &offsets,
                );
                haul.counts
                    .push(now.messages.iter().map(|message| message.count).collect());
                haul.taken.push(taken);
            } else if taken.next > from {
                self.offsets
                    .commit(wanted.group, wanted.topic, queue_id, taken.next);
            }
        }
        haul
    }

    /// Whether another checkpoint of a queue may be made.
    fn may_pop(&self, wanted: &Wanted<'_>, topic: &str, queue_id: i32, from: i64) -> bool {
        let queue = self.pops.table.queue(wanted.group, topic, queue_id);
        self.pops.table.count() < self.settings.max_pop_checkpoints
            && queue.is_none_or(|queue| {
                queue.checkpoints.len() < self.settings.max_queue_pop_checkpoints
                    && !queue.checkpoints.contains_key(&(from, wanted.pop_ms))
            })
    }

    /// Where the next pop of a queue begins.
    pub(super) fn pop_position(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        topic: &str,
        queue_id: i32,
        queue: QueueRef,
    ) -> i64 {
        let first = self.first_position(turn, wanted, topic, queue_id, queue);
        let next = self
            .pops
            .table
            .queue(wanted.group, topic, queue_id)
            .map_or(0, |queue| queue.next);
        let position = first.max(next).min(turn.log.max_offset(queue));
        turn.log.next_kept(queue, position)
    }

    /// Where a group stands in a queue, apart from what is out: its committed offset, or where it begins.
    fn first_position(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        topic: &str,
        queue_id: i32,
        queue: QueueRef,
    ) -> i64 {
        let (min, max) = (turn.log.min_offset(queue), turn.log.max_offset(queue));
        match self.offsets.get(wanted.group, topic, queue_id) {
            Some(committed) if committed > max => {
                // An offset that was set by hand lies beyond the end; what comes next is for this group.
                self.offsets.commit(wanted.group, topic, queue_id, max);
                max
            }
            Some(committed) => committed.max(min),
            // A queue that still has its first message is consumed from there, whatever the consumer prefers.
            None if !wanted.from_end || min == 0 || topic.starts_with(RETRY_PREFIX) => min,
            None => {
                let last = (max - 1).max(min);
                self.offsets.commit(wanted.group, topic, queue_id, last);
                last
            }
        }
    }

    /// Nothing up to `next` passes the filter.
    fn pass_over(&mut self, key: &QueueKey, next: i64) {
        match self
            .pops
            .table
            .queue(&key.group, &key.topic, key.queue_id)
            .is_some_and(|queue| !queue.checkpoints.is_empty())
        {
            true => self.pops.table.skip(key, next),
            false => {
                self.offsets
                    .commit(&key.group, &key.topic, key.queue_id, next);
            }
        }
    }

    fn scan_queue(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        queue: QueueRef,
        taken: &mut Taken,
        haul: &mut Haul,
    ) {
        let mut entries = std::mem::take(&mut self.entries);
        let result = self.scan_entries(turn, wanted, queue, taken, haul, &mut entries);
        self.entries = entries;
        match result {
            Ok(()) | Err(ReadMiss::Gone) => {}
            Err(ReadMiss::Wanted(read)) => haul.read = haul.read.or(Some(read)),
            Err(miss @ ReadMiss::Damaged { .. }) => {
                tracing::error!(
                    topic = wanted.topic,
                    queue_id = taken.queue_id,
                    "a pop met damage: {miss}"
                );
            }
        }
    }

    fn scan_entries(
        &mut self,
        turn: &mut Turn<'_>,
        wanted: &Wanted<'_>,
        queue: QueueRef,
        taken: &mut Taken,
        haul: &mut Haul,
        entries: &mut Vec<crate::log::Entry>,
    ) -> Result<(), ReadMiss> {
        let mut scanned = 0;
        let mut last = LastGroup::default();
        while scanned < MAX_SCANNED {
            entries.clear();
            let kept = turn.log.next_kept(queue, taken.next);
            if kept - taken.start > i64::from(u16::MAX) {
                return Ok(());
            }
            taken.next = kept;
            turn.log.entries(queue, taken.next, SCAN_STEP, entries)?;
            if entries.is_empty() {
                return Ok(());
            }
            scanned += entries.len();
            for entry in entries.iter() {
                let size = entry.size as usize;
                if let Some(slice) = self.matching(turn, &mut last, entry, wanted.filter)? {
                    if haul.messages > 0 && haul.bytes + size > self.settings.pull_max_bytes {
                        return Ok(());
                    }
                    haul.messages += 1;
                    haul.bytes += size;
                    taken.deltas.push((taken.next - taken.start) as u16);
                    match taken.retry {
                        true => haul.retried.push(slice),
                        false if haul.parts.last_mut().is_some_and(|last| last.join(&slice)) => {}
                        false => haul.parts.push(slice),
                    }
                }
                taken.next += 1;
                if haul.messages == wanted.most {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The queue that was asked for, or all of them from another one on each time.
pub fn round_robin(queues: i32, queue_id: i32, round: u32) -> impl Iterator<Item = i32> {
    let (first, count) = match queue_id {
        any if any < 0 => ((round % queues.max(1) as u32) as i32, queues),
        one => (one, 1),
    };
    (0..count).map(move |step| {
        if queue_id < 0 {
            (first + step) % queues
        } else {
            first
        }
    })
}
