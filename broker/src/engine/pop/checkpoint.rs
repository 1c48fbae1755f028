//! What was popped and not yet acknowledged: the table of checkpoints. It knows no log and no clock.
//!
//! A checkpoint is what one pop took of one queue: where its scan began and ended, the offsets that it gave out, and a bit
//! for each that is acknowledged. Of a queue there is `next`, where the next pop begins, and its checkpoints in the order
//! of their starts. A queue without checkpoints has no entry: then the committed offset says everything.
//!
//! Invariants: every offset below the committed one is done with; every offset between it and `next` is done with or in a
//! checkpoint; a checkpoint with all bits set is not kept; `due` has one entry for each checkpoint that is not being
//! revived just now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::order::OrderedPop;

/// Messages in one checkpoint: as many as `Checkpoint::acked` has bits.
pub const MAX_MESSAGES: usize = 32;

/// One queue as a group pops it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey {
    /// The group.
    pub group: Rc<str>,
    /// The topic that holds the messages: a retry topic where they are popped again.
    pub topic: Rc<str>,
    /// The queue.
    pub queue_id: i32,
}

impl QueueKey {
    /// The key of a queue.
    pub fn new(group: &str, topic: &str, queue_id: i32) -> Self {
        Self {
            group: group.into(),
            topic: topic.into(),
            queue_id,
        }
    }
}

/// Names a checkpoint within its queue: where it starts, and when it was popped.
pub type CheckpointId = (i64, i64);

/// What one pop took of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// One past the last offset that was looked at.
    pub next: i64,
    /// How long its messages are invisible, in milliseconds.
    pub invisible_ms: i64,
    /// Its messages: their distance from the start, ascending; 1 to [`MAX_MESSAGES`].
    pub deltas: Box<[u16]>,
    /// Bit i: message i is done with.
    pub acked: u32,
}

impl Checkpoint {
    fn all(&self) -> u32 {
        u32::MAX >> (MAX_MESSAGES - self.deltas.len().clamp(1, MAX_MESSAGES))
    }

    /// Whether every message is done with.
    pub fn is_done(&self) -> bool {
        self.acked & self.all() == self.all()
    }

    /// The bit of a message, where it is one of these.
    pub fn bit(&self, start: i64, offset: i64) -> Option<u32> {
        let delta = u16::try_from(offset.checked_sub(start)?).ok()?;
        let index = self.deltas.binary_search(&delta).ok()?;
        Some(1 << index)
    }

    /// Bit and offset of each message that is not done with.
    pub fn open(&self, start: i64) -> impl Iterator<Item = (u32, i64)> {
        let bits = self
            .deltas
            .iter()
            .enumerate()
            .map(move |(index, delta)| (1 << index, start + i64::from(*delta)));
        bits.filter(|(bit, _)| self.acked & bit == 0)
    }

    /// When its messages come again.
    pub fn due_wall_ms(&self, pop_ms: i64) -> i64 {
        pop_ms.saturating_add(self.invisible_ms)
    }
}

/// What is due at some time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When.
    pub wall_ms: i64,
    /// The queue.
    pub queue: QueueKey,
    /// The checkpoint to be revived; `None`: an orderly pop may go on.
    pub checkpoint: Option<CheckpointId>,
}

/// One queue.
#[derive(Debug, Default)]
pub struct QueuePops {
    /// Where the next pop begins.
    pub next: i64,
    /// By start, then by time of the pop.
    pub checkpoints: BTreeMap<CheckpointId, Checkpoint>,
    /// What was popped in order last.
    pub ordered: Option<OrderedPop>,
}

impl QueuePops {
    /// Everything before it is done with.
    pub fn done_before(&self) -> i64 {
        self.checkpoints
            .first_key_value()
            .map_or(self.next, |((start, _), _)| *start)
    }
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Nothing: there is no such checkpoint, or no such message in it, or it was acknowledged before.
    Unknown,
    /// Others of the checkpoint are still out.
    Some,
    /// It was the last of its checkpoint.
    Last,
}

type Queues = BTreeMap<i32, QueuePops>;

/// The checkpoints of a shard.
#[derive(Default)]
pub struct Checkpoints {
    by_group: HashMap<Rc<str>, HashMap<Rc<str>, Queues>>,
    due: BTreeSet<Due>,
    count: usize,
    /// Acknowledged since the last journal.
    dirty: BTreeMap<QueueKey, BTreeMap<CheckpointId, u32>>,
    dirty_orders: BTreeSet<QueueKey>,
}

impl Checkpoints {
    /// How many checkpoints there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A queue with something outstanding.
    pub fn queue(&self, group: &str, topic: &str, queue_id: i32) -> Option<&QueuePops> {
        self.by_group.get(group)?.get(topic)?.get(&queue_id)
    }

    /// The same, to change what was popped in order.
    pub fn queue_mut(&mut self, group: &str, topic: &str, queue_id: i32) -> Option<&mut QueuePops> {
        self.by_group
            .get_mut(group)?
            .get_mut(topic)?
            .get_mut(&queue_id)
    }

    /// A queue, made where there is none.
    pub fn open_queue(&mut self, key: &QueueKey) -> &mut QueuePops {
        let topics = self.by_group.entry(key.group.clone()).or_default();
        topics
            .entry(key.topic.clone())
            .or_default()
            .entry(key.queue_id)
            .or_default()
    }

    /// Every queue with something outstanding.
    pub fn iter(&self) -> impl Iterator<Item = (QueueKey, &QueuePops)> {
        self.by_group.iter().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |(topic, queues)| {
                queues.iter().map(move |(queue_id, queue)| {
                    (
                        QueueKey {
                            group: group.clone(),
                            topic: topic.clone(),
                            queue_id: *queue_id,
                        },
                        queue,
                    )
                })
            })
        })
    }

    /// A checkpoint.
    pub fn get(&self, key: &QueueKey, id: CheckpointId) -> Option<&Checkpoint> {
        self.queue(&key.group, &key.topic, key.queue_id)?
            .checkpoints
            .get(&id)
    }

    /// Adds what a pop took.
    pub fn insert(&mut self, key: &QueueKey, id: CheckpointId, checkpoint: Checkpoint) {
        self.due.insert(Due {
            wall_ms: checkpoint.due_wall_ms(id.1),
            queue: key.clone(),
            checkpoint: Some(id),
        });
        let queue = self.open_queue(key);
        queue.next = queue.next.max(checkpoint.next);
        if queue.checkpoints.insert(id, checkpoint).is_none() {
            self.count += 1;
        }
    }

    /// A pop looked at messages up to `next` and wanted none of them.
    pub fn skip(&mut self, key: &QueueKey, next: i64) {
        if let Some(queue) = self.queue_mut(&key.group, &key.topic, key.queue_id) {
            queue.next = queue.next.max(next);
        }
    }

    /// Sets bits of a checkpoint; to be journalled later. Forgets a checkpoint that is done with.
    pub fn acknowledge(&mut self, key: &QueueKey, id: CheckpointId, bits: u32) -> Acked {
        let acked = self.apply_acks(key, id, bits);
        if acked != Acked::Unknown {
            *self
                .dirty
                .entry(key.clone())
                .or_default()
                .entry(id)
                .or_default() |= bits;
        }
        acked
    }

    /// Sets bits of a checkpoint as the journal says.
    pub fn apply_acks(&mut self, key: &QueueKey, id: CheckpointId, bits: u32) -> Acked {
        let Some(queue) = self.queue_mut(&key.group, &key.topic, key.queue_id) else {
            return Acked::Unknown;
        };
        let Some(checkpoint) = queue.checkpoints.get_mut(&id) else {
            return Acked::Unknown;
        };
        if checkpoint.acked | bits == checkpoint.acked {
            return Acked::Unknown;
        }
        checkpoint.acked |= bits;
        if !checkpoint.is_done() {
            return Acked::Some;
        }
        let due = Due {
            wall_ms: checkpoint.due_wall_ms(id.1),
            queue: key.clone(),
            checkpoint: Some(id),
        };
        queue.checkpoints.remove(&id);
        self.count -= 1;
        self.due.remove(&due);
        Acked::Last
    }

    /// Forgets a queue that has nothing outstanding any more.
    pub fn close_queue(&mut self, key: &QueueKey) {
        let Some(topics) = self.by_group.get_mut(&key.group) else {
            return;
        };
        let Some(queues) = topics.get_mut(&key.topic) else {
            return;
        };
        if queues
            .get(&key.queue_id)
            .is_some_and(|queue| queue.checkpoints.is_empty() && queue.ordered.is_none())
        {
            queues.remove(&key.queue_id);
        }
        if queues.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.by_group.remove(&key.group);
        }
    }

    /// Something is to be done about a queue at a time.
    pub fn add_due(&mut self, due: Due) {
        self.due.insert(due);
    }

    /// What is due first, taken out, if its time has come.
    pub fn take_due(&mut self, wall_ms: i64) -> Option<Due> {
        if self.due.first()?.wall_ms > wall_ms {
            return None;
        }
        self.due.pop_first()
    }

    /// When the first of them is due.
    pub fn first_due_wall_ms(&self) -> Option<i64> {
        self.due.first().map(|due| due.wall_ms)
    }

    /// What was popped in order of a queue has changed; to be journalled later.
    pub fn mark_order(&mut self, key: &QueueKey) {
        self.dirty_orders.insert(key.clone());
    }

    /// Whether anything is to be journalled.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.dirty_orders.is_empty()
    }

    /// Whether anything of a queue is to be journalled.
    pub fn is_dirty_in(&self, key: &QueueKey) -> bool {
        self.dirty.contains_key(key) || self.dirty_orders.contains(key)
    }

    /// The next queue with acknowledgements to be journalled, and those.
    pub fn take_dirty(&mut self) -> Option<(QueueKey, BTreeMap<CheckpointId, u32>)> {
        self.dirty.pop_first()
    }

    /// Leaves acknowledgements for the next time.
    pub fn put_back_dirty(&mut self, key: QueueKey, acks: BTreeMap<CheckpointId, u32>) {
        self.dirty.insert(key, acks);
    }

    /// The next queue whose orderly pop is to be journalled.
    pub fn take_dirty_order(&mut self) -> Option<QueueKey> {
        self.dirty_orders.pop_first()
    }

    /// Forgets a topic in all groups.
    pub fn remove_topic(&mut self, topic: &str) {
        for topics in self.by_group.values_mut() {
            topics.remove(topic);
        }
        self.by_group.retain(|_, topics| !topics.is_empty());
        self.forget(|key| &*key.topic == topic);
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: &str) {
        self.by_group.remove(group);
        self.forget(|key| &*key.group == group);
    }

    /// Forgets one queue of a group: somebody set its offset by hand.
    pub fn remove_queue(&mut self, key: &QueueKey) {
        if let Some(queues) = self
            .by_group
            .get_mut(&key.group)
            .and_then(|topics| topics.get_mut(&key.topic))
        {
            queues.remove(&key.queue_id);
        }
        self.forget(|other| other == key);
        self.close_queue(key);
    }

    fn forget(&mut self, gone: impl Fn(&QueueKey) -> bool) {
        self.due.retain(|due| !gone(&due.queue));
        self.dirty.retain(|key, _| !gone(key));
        self.dirty_orders.retain(|key| !gone(key));
        let queues = self
            .by_group
            .values()
            .flat_map(|topics| topics.values())
            .flat_map(|queues| queues.values());
        self.count = queues.map(|queue| queue.checkpoints.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(next: i64, deltas: &[u16]) -> Checkpoint {
        Checkpoint {
            next,
            invisible_ms: 100,
            deltas: deltas.into(),
            acked: 0,
        }
    }

    #[test]
    fn the_front_moves_over_what_is_done_with() {
        let key = QueueKey::new("g", "t", 0);
        let mut table = Checkpoints::default();
        table.insert(&key, (0, 1), checkpoint(3, &[0, 2]));
        table.insert(&key, (3, 2), checkpoint(4, &[0]));
        let front = |table: &Checkpoints| table.queue("g", "t", 0).map(QueuePops::done_before);
        assert_eq!(table.acknowledge(&key, (3, 2), 1), Acked::Last);
        assert_eq!(front(&table), Some(0));
        assert_eq!(table.acknowledge(&key, (0, 1), 2), Acked::Some);
        assert_eq!(table.acknowledge(&key, (0, 1), 2), Acked::Unknown);
        assert_eq!(table.acknowledge(&key, (0, 1), 1), Acked::Last);
        assert_eq!(
            (front(&table), table.count(), table.first_due_wall_ms()),
            (Some(4), 0, None)
        );
        table.close_queue(&key);
        assert!(table.queue("g", "t", 0).is_none());
    }

    #[test]
    fn bits_are_those_of_the_messages() {
        let one = checkpoint(40, &[0, 7, 30]);
        assert_eq!(
            (one.bit(10, 17), one.bit(10, 18), one.bit(10, 9)),
            (Some(2), None, None)
        );
        assert_eq!(one.bit(i64::MIN, i64::MAX), None);
        assert_eq!(
            one.open(10).map(|(_, offset)| offset).collect::<Vec<_>>(),
            [10, 17, 40]
        );
        let full = Checkpoint {
            acked: u32::MAX,
            ..checkpoint(32, &(0..32).collect::<Vec<u16>>())
        };
        assert!(full.is_done());
    }
}
