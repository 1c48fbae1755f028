//! How far each group has consumed each queue.
//!
//! A commit changes the table at once. It is journalled at once where somebody waits for it, and otherwise with the next
//! batch of changes, `offset_flush_ms` later at most (see `state`).

use std::collections::{BTreeMap, HashMap, HashSet};

/// Offsets of one group in one topic, by queue id.
pub type QueueOffsets = BTreeMap<i32, i64>;

type Key = (String, String);

/// The consumer offsets of a shard.
#[derive(Default)]
pub struct Offsets {
    by_group: HashMap<String, HashMap<String, QueueOffsets>>,
    dirty: HashSet<Key>,
    count: usize,
}

impl Offsets {
    /// The committed offset: of the message that the group will consume next.
    pub fn get(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.by_group
            .get(group)?
            .get(topic)?
            .get(&queue_id)
            .copied()
    }

    /// All queues of a topic that the group has committed.
    pub fn queues(&self, group: &str, topic: &str) -> Option<&QueueOffsets> {
        self.by_group.get(group)?.get(topic)
    }

    /// The topics in which a group has committed anything.
    pub fn topics(&self, group: &str) -> impl Iterator<Item = &str> {
        self.by_group
            .get(group)
            .into_iter()
            .flatten()
            .map(|(topic, _)| topic.as_str())
    }

    /// The groups that have committed anything in a topic.
    pub fn groups<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.by_group
            .iter()
            .filter(move |(_, topics)| topics.contains_key(topic))
            .map(|(group, _)| group.as_str())
    }

    /// Group, topic and offsets of everything there is.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &QueueOffsets)> {
        self.by_group.iter().flat_map(|(group, topics)| {
            topics
                .iter()
                .map(move |(topic, queues)| (group.as_str(), topic.as_str(), queues))
        })
    }

    /// Sets an offset. Says whether that changed anything; where it did, the pair of group and topic is dirty.
    pub fn commit(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) -> bool {
        if self.get(group, topic, queue_id) == Some(offset) {
            return false;
        }
        self.load(group, topic, queue_id, offset);
        self.dirty.insert((group.to_owned(), topic.to_owned()));
        true
    }

    /// Sets an offset that is journalled already.
    pub fn load(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let topics = match self.by_group.get_mut(group) {
            Some(topics) => topics,
            None => self.by_group.entry(group.to_owned()).or_default(),
        };
        let queues = match topics.get_mut(topic) {
            Some(queues) => queues,
            None => topics.entry(topic.to_owned()).or_default(),
        };
        self.count += usize::from(queues.insert(queue_id, offset).is_none());
    }

    /// How many offsets there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Forgets the offset of one queue.
    pub fn forget_queue(&mut self, group: &str, topic: &str, queue_id: i32) {
        let Some(topics) = self.by_group.get_mut(group) else {
            return;
        };
        let Some(queues) = topics.get_mut(topic) else {
            return;
        };
        self.count -= usize::from(queues.remove(&queue_id).is_some());
        if queues.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.by_group.remove(group);
        }
    }

    /// Forgets the offsets of a group in one topic.
    pub fn forget(&mut self, group: &str, topic: &str) {
        let Some(topics) = self.by_group.get_mut(group) else {
            return;
        };
        self.count -= topics.remove(topic).map_or(0, |queues| queues.len());
        if topics.is_empty() {
            self.by_group.remove(group);
        }
    }

    /// Whether anything is to be journalled.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether anything of a pair is to be journalled.
    pub fn is_dirty_in(&self, group: &str, topic: &str) -> bool {
        !self.dirty.is_empty() && self.dirty.contains(&(group.to_owned(), topic.to_owned()))
    }

    /// The pairs of group and topic that changed since the last call.
    pub fn take_dirty(&mut self) -> HashSet<Key> {
        std::mem::take(&mut self.dirty)
    }

    /// Leaves a pair for the next time.
    pub fn mark_dirty(&mut self, group: String, topic: String) {
        self.dirty.insert((group, topic));
    }

    /// Takes one pair out of those that are to be journalled.
    pub fn clean(&mut self, group: &str, topic: &str) {
        self.dirty.remove(&(group.to_owned(), topic.to_owned()));
    }

    /// Forgets a topic in all groups.
    pub fn remove_topic(&mut self, topic: &str) {
        for topics in self.by_group.values_mut() {
            self.count -= topics.remove(topic).map_or(0, |queues| queues.len());
        }
        self.by_group.retain(|_, topics| !topics.is_empty());
        self.dirty.retain(|(_, dirty)| dirty != topic);
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: &str) {
        let removed = self.by_group.remove(group);
        self.count -= removed
            .iter()
            .flat_map(HashMap::values)
            .map(BTreeMap::len)
            .sum::<usize>();
        self.dirty.retain(|(dirty, _)| dirty != group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_what_is_there() {
        let mut offsets = Offsets::default();
        for group in ["g", "h", "i"] {
            for queue_id in 0..4 {
                offsets.commit(group, "t", queue_id, 1);
                offsets.commit(group, "u", queue_id, 1);
            }
        }
        let counted = |offsets: &Offsets| {
            let there: usize = offsets.iter().map(|(_, _, queues)| queues.len()).sum();
            assert_eq!(offsets.count(), there);
            there
        };
        assert_eq!(counted(&offsets), 24);
        offsets.forget_queue("g", "t", 0);
        offsets.forget_queue("g", "t", 0);
        assert_eq!(counted(&offsets), 23);
        offsets.forget("g", "t");
        assert_eq!(counted(&offsets), 20);
        offsets.remove_group("h");
        assert_eq!(counted(&offsets), 12);
        offsets.remove_topic("u");
        assert_eq!(counted(&offsets), 4);
        offsets.forget("i", "t");
        assert_eq!(counted(&offsets), 0);
    }
}
