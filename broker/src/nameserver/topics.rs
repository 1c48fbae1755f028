//! Which queues a topic has on which broker.

use std::collections::{BTreeMap, BTreeSet};

use corelane_wire::body::QueueData;

/// All topics. Bounded by the number of entries: a topic counts once for each broker that has it.
#[derive(Debug, Default)]
pub(super) struct Topics {
    // The queues of a topic, in the order of the brokers' names.
    by_name: BTreeMap<String, Vec<QueueData>>,
    entries: usize,
    max_entries: usize,
}

impl Topics {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            max_entries,
            ..Self::default()
        }
    }

    pub(super) fn has(&self, topic: &str, broker: &str) -> bool {
        self.by_name
            .get(topic)
            .is_some_and(|queues| position(queues, broker).is_ok())
    }

    /// Sets the queues of a topic on a broker; `false` when there is no room.
    pub(super) fn put(&mut self, topic: &str, data: QueueData) -> bool {
        let at = self
            .by_name
            .get(topic)
            .map_or(Err(0), |queues| position(queues, &data.broker_name));
        if at.is_err() {
            if self.entries >= self.max_entries {
                return false;
            }
            self.entries += 1;
        }
        let queues = self.by_name.entry(topic.to_owned()).or_default();
        match at {
            Ok(index) => queues[index] = data,
            Err(index) => queues.insert(index, data),
        }
        true
    }

    /// Takes a broker from all topics.
    pub(super) fn remove_broker(&mut self, broker: &str) {
        let mut removed = 0;
        self.by_name.retain(|_, queues| {
            if let Ok(index) = position(queues, broker) {
                queues.remove(index);
                removed += 1;
            }
            !queues.is_empty()
        });
        self.entries -= removed;
    }

    /// Takes a topic from these brokers, or from all.
    pub(super) fn remove(&mut self, topic: &str, brokers: Option<&BTreeSet<String>>) {
        let Some(queues) = self.by_name.get_mut(topic) else {
            return;
        };
        let before = queues.len();
        queues.retain(|data| brokers.is_some_and(|brokers| !brokers.contains(&data.broker_name)));
        self.entries -= before - queues.len();
        if queues.is_empty() {
            self.by_name.remove(topic);
        }
    }

    /// Changes the permission of all queues of a broker, and counts its topics.
    pub(super) fn set_permissions(&mut self, broker: &str, change: impl Fn(i32) -> i32) -> i32 {
        let mut topics = 0;
        for queues in self.by_name.values_mut() {
            if let Ok(index) = position(queues, broker) {
                queues[index].perm = change(queues[index].perm);
                topics += 1;
            }
        }
        topics
    }

    /// The queues of a topic; never empty.
    pub(super) fn get(&self, topic: &str) -> Option<&[QueueData]> {
        self.by_name.get(topic).map(Vec::as_slice)
    }

    /// The names of the topics whose queues are as wanted.
    pub(super) fn names(&self, wanted: impl Fn(&[QueueData]) -> bool) -> Vec<String> {
        self.by_name
            .iter()
            .filter(|(_, queues)| wanted(queues))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn position(queues: &[QueueData], broker: &str) -> Result<usize, usize> {
    queues.binary_search_by(|data| data.broker_name.as_str().cmp(broker))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn on(broker: &str) -> QueueData {
        QueueData {
            broker_name: broker.to_owned(),
            perm: 6,
            ..QueueData::default()
        }
    }

    #[test]
    fn entries_are_counted_and_bounded() {
        let mut topics = Topics::new(3);
        assert!(topics.put("t", on("b")) && topics.put("t", on("a")) && topics.put("u", on("a")));
        assert!(!topics.put("u", on("b")));
        assert!(
            topics.put("t", QueueData { perm: 4, ..on("a") }),
            "what is there takes no room"
        );
        assert_eq!(
            topics
                .get("t")
                .unwrap()
                .iter()
                .map(|data| data.perm)
                .collect::<Vec<_>>(),
            [4, 6]
        );
        topics.remove_broker("a");
        assert_eq!((topics.get("u"), topics.entries), (None, 1));
        assert!(topics.put("u", on("b")) && topics.put("u", on("c")));
        topics.remove("u", Some(&BTreeSet::from(["b".to_owned()])));
        assert!(!topics.has("u", "b") && topics.has("u", "c"));
        topics.remove("u", None);
        topics.remove("u", None);
        assert_eq!(
            (topics.names(|_| true), topics.entries),
            (vec!["t".to_owned()], 1)
        );
    }

    #[test]
    fn permissions_change_for_one_broker() {
        let mut topics = Topics::new(9);
        topics.put("t", on("a"));
        topics.put("t", on("b"));
        topics.put("u", on("b"));
        assert_eq!(topics.set_permissions("b", |perm| perm & !2), 2);
        assert_eq!(
            topics
                .get("t")
                .unwrap()
                .iter()
                .map(|data| data.perm)
                .collect::<Vec<_>>(),
            [6, 4]
        );
        assert_eq!(topics.set_permissions("none", |_| 0), 0);
    }
}
