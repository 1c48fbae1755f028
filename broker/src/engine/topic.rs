//! The topics of a shard: their settings, and the references of their queues in the log.
//!
//! Topics of the system are made at every start and never journalled; all others are journalled when they change
//! (see `state`). Every change raises the version that the NameServers must come to know.

use std::collections::{BTreeSet, VecDeque};

use foldhash::{HashMap, HashMapExt};

use corelane_wire::body::{
    DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper,
};
use corelane_wire::code::perm;

use super::settings::Settings;
use super::{name, permission};
use crate::log::{Log, QueueRef};

/// One topic.
pub struct Topic {
    /// What clients and tools see of it.
    pub config: TopicConfig,
    /// Whether the topic is journalled.
    pub kept: bool,
    queues: Vec<Option<QueueRef>>,
}

impl Topic {
    /// How many queue ids are valid: the larger of the two queue counts.
    pub fn queue_count(&self) -> i32 {
        self.config
            .read_queue_nums
            .max(self.config.write_queue_nums)
    }

    fn counted_queues(&self) -> i64 {
        if self.kept {
            self.queue_count().into()
        } else {
            0
        }
    }

    /// The log's reference of a queue; `queue_id` is not negative and bounded by the caller.
    pub fn queue(&mut self, log: &mut Log, queue_id: i32) -> QueueRef {
        let index = queue_id as usize;
        if self.queues.len() <= index {
            self.queues.resize(index + 1, None);
        }
        *self.queues[index].get_or_insert_with(|| log.queue(&self.config.topic_name, queue_id))
    }
}

/// Changes that are remembered one by one; who knows of less is told everything.
const MAX_CHANGES: usize = 4_096;

/// All topics of a shard.
pub struct Topics {
    by_name: HashMap<String, Topic>,
    version: u64,
    changed_wall_ms: i64,
    /// Queues of all topics that clients made.
    queues: i64,
    /// The topic that each of the latest versions put or removed, without a gap up to `version`.
    changes: VecDeque<(u64, String)>,
}

impl Topics {
    /// The topics of the system that every broker has.
    pub fn new(settings: &Settings) -> Self {
        let mut topics = Self {
            by_name: HashMap::new(),
            version: 1,
            changed_wall_ms: 0,
            queues: 0,
            changes: VecDeque::new(),
        };
        let mut system = |name: &str, queues: i32, perm: i32| {
            let mut config = config(name, queues, perm);
            config.perm = perm;
            topics.by_name.insert(
                name.to_owned(),
                Topic {
                    config,
                    kept: false,
                    queues: Vec::new(),
                },
            );
        };
        let inherited = perm::READ | perm::WRITE | perm::INHERIT;
        let both = perm::READ | perm::WRITE;
        if settings.auto_create_topic {
            system(
                name::AUTO_CREATE_TOPIC,
                settings.default_topic_queues,
                inherited,
            );
        }
        if settings.trace_topic {
            system(name::TRACE_TOPIC, 1, both);
        }
        system("SELF_TEST_TOPIC", 1, both);
        system("BenchmarkTest", 1024, both);
        system("OFFSET_MOVED_EVENT", 1, both);
        system(
            name::SCHEDULE_TOPIC,
            settings.delay_levels_ms.len() as i32,
            both,
        );
        system(name::TIMER_TOPIC, 1, both);
        system("RMQ_SYS_TRANS_HALF_TOPIC", 1, both);
        system("RMQ_SYS_TRANS_OP_HALF_TOPIC", 1, both);
        system("TRANS_CHECK_MAX_TIME_TOPIC", 1, both);
        system(&format!("{}_REPLY_TOPIC", settings.cluster_name), 1, both);
        system(&settings.cluster_name, 16, inherited);
        system(&settings.broker_name, 1, inherited);
        topics
    }

    /// The topic of that name.
    pub fn get(&self, topic: &str) -> Option<&Topic> {
        self.by_name.get(topic)
    }

    /// The topic of that name, to resolve its queues.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut Topic> {
        self.by_name.get_mut(topic)
    }

    /// Sees to the topic that automatic creation copies. Says whether it is new.
    pub fn allow_auto_creation(&mut self, settings: &Settings, wall_ms: i64) -> bool {
        if !settings.auto_create_topic || self.get(name::AUTO_CREATE_TOPIC).is_some() {
            return false;
        }
        let inherited = perm::READ | perm::WRITE | perm::INHERIT;
        self.put(
            config(
                name::AUTO_CREATE_TOPIC,
                settings.default_topic_queues,
                inherited,
            ),
            wall_ms,
        )
    }

    /// How many topics there are.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Makes or changes a topic. Says whether anything is different now.
    pub fn put(&mut self, config: TopicConfig, wall_ms: i64) -> bool {
        let name = config.topic_name.clone();
        let topic = match self.by_name.get_mut(&name) {
            Some(topic) if topic.config == config => return false,
            Some(topic) => {
                self.queues -= topic.counted_queues();
                topic.config = config;
                topic
            }
            None => {
                let kept = !name::is_system_topic(&name);
                self.by_name.entry(name.clone()).or_insert(Topic {
                    config,
                    kept,
                    queues: Vec::new(),
                })
            }
        };
        self.queues += topic.counted_queues();
        self.changed(wall_ms, name);
        true
    }

    /// Removes a topic. Says whether it was there.
    pub fn remove(&mut self, topic: &str, wall_ms: i64) -> bool {
        let Some(removed) = self.by_name.remove(topic) else {
            return false;
        };
        self.queues -= removed.counted_queues();
        self.changed(wall_ms, topic.to_owned());
        true
    }

    /// Queues of all topics that clients made.
    pub fn queues(&self) -> i64 {
        self.queues
    }

    /// Every topic, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values()
    }

    fn changed(&mut self, wall_ms: i64, topic: String) {
        self.version += 1;
        self.changed_wall_ms = wall_ms;
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((self.version, topic));
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version as the protocol writes it.
    pub fn data_version(&self) -> DataVersion {
        DataVersion {
            counter: self.version as i64,
            state_version: 0,
            timestamp: self.changed_wall_ms,
        }
    }

    /// A change of everything that NameServers are told: a start, or another permission of the broker.
    pub fn changed_all(&mut self, wall_ms: i64) {
        self.version += 1;
        self.changed_wall_ms = wall_ms;
        self.changes.clear();
    }

    /// What a NameServer is told by a broker of that permission: the version and all topics, or those that changed since a
    /// version that it knows. A NameServer keeps what it is not told of, and so those that are gone are left out either way.
    pub fn register_body(&self, known: Option<u64>, permission: i32) -> RegisterBrokerBody {
        let oldest = self
            .changes
            .front()
            .map_or(self.version, |(version, _)| version - 1);
        let mut wrapper = match known.filter(|known| *known >= oldest) {
            None => self.wrapper(),
            Some(known) => {
                let new = self.changes.iter().rev();
                let names: BTreeSet<&String> = new
                    .take_while(|(version, _)| *version > known)
                    .map(|(_, topic)| topic)
                    .collect();
                self.wrapper_of(names.into_iter().filter_map(|name| self.by_name.get(name)))
            }
        };
        for topic in wrapper.topic_config_table.values_mut() {
            topic.perm = permission::registered(topic.perm, permission);
        }
        RegisterBrokerBody {
            topic_config_serialize_wrapper: wrapper,
            ..RegisterBrokerBody::default()
        }
    }

    /// All topics with their version.
    pub fn wrapper(&self) -> TopicConfigSerializeWrapper {
        self.wrapper_of(self.iter())
    }

    fn wrapper_of<'t>(
        &self,
        topics: impl Iterator<Item = &'t Topic>,
    ) -> TopicConfigSerializeWrapper {
        TopicConfigSerializeWrapper {
            topic_config_table: topics
                .map(|topic| (topic.config.topic_name.clone(), topic.config.clone()))
                .collect(),
            data_version: self.data_version(),
        }
    }
}

/// The settings of a topic with as many queues to read as to write.
pub fn config(topic: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: topic.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        Topics::new(&crate::sim::test_host::settings())
    }

    fn told(topics: &Topics, known: Option<u64>) -> Vec<String> {
        let body = topics.register_body(known, 6);
        let mut names: Vec<_> = body
            .topic_config_serialize_wrapper
            .topic_config_table
            .into_keys()
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_nameserver_is_told_what_it_does_not_know() {
        let mut topics = topics();
        topics.put(config("before", 1, 6), 1);
        topics.changed_all(2);
        let start = topics.version();
        assert_eq!(told(&topics, Some(start)), [""; 0]);
        topics.put(config("a", 1, 6), 3);
        topics.put(config("b", 1, 6), 4);
        let known = topics.version();
        topics.put(config("b", 2, 6), 5);
        topics.put(config("c", 1, 6), 6);
        topics.remove("a", 7);
        assert_eq!(told(&topics, Some(known)), ["b", "c"]);
        assert_eq!(told(&topics, Some(start)), ["b", "c"]);
        // What it knew before the start is not what there was, and too many changes are everything.
        assert_eq!(told(&topics, Some(start - 1)).len(), topics.count());
        assert_eq!(told(&topics, None).len(), topics.count());
        for number in 0..=MAX_CHANGES as i64 {
            topics.put(config("b", 3, (number % 2) as i32 * 2 + 4), number);
        }
        assert_eq!(told(&topics, Some(known)).len(), topics.count());
    }

    #[test]
    fn queues_are_counted_as_topics_change() {
        let mut topics = topics();
        let sum = |topics: &Topics| -> i64 {
            let kept = topics.iter().filter(|topic| topic.kept);
            kept.map(|topic| i64::from(topic.queue_count())).sum()
        };
        for (name, queues) in [
            ("a", 4),
            ("b", 16),
            ("a", 8),
            ("b", 2),
            ("c", 0),
            ("SELF_TEST_TOPIC", 9),
        ] {
            topics.put(config(name, queues, 6), 1);
            assert_eq!(topics.queues(), sum(&topics), "{name}");
        }
        assert_eq!(topics.queues(), 10);
        topics.remove("a", 2);
        topics.remove("a", 2);
        assert_eq!((topics.queues(), sum(&topics)), (2, 2));
    }
}
