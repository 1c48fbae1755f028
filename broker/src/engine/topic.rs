//! The topics of a shard: their settings, and the references of their queues in the log.
//!
//! Topics of the system are made at every start and never journalled; all others are journalled when they change
//! (see `state`). Every change raises the version that the NameServers must come to know.

use foldhash::{HashMap, HashMapExt};

use corelane_wire::body::{
    DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper,
};
use corelane_wire::code::perm;

use super::name;
use super::settings::Settings;
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

    /// The log's reference of a queue; `queue_id` is not negative and bounded by the caller.
    pub fn queue(&mut self, log: &mut Log, queue_id: i32) -> QueueRef {
        let index = queue_id as usize;
        if self.queues.len() <= index {
            self.queues.resize(index + 1, None);
        }
        *self.queues[index].get_or_insert_with(|| log.queue(&self.config.topic_name, queue_id))
    }
}

/// All topics of a shard.
pub struct Topics {
    by_name: HashMap<String, Topic>,
    version: u64,
    changed_wall_ms: i64,
}

impl Topics {
    /// The topics of the system that every broker has.
    pub fn new(settings: &Settings) -> Self {
        let mut topics = Self {
            by_name: HashMap::new(),
            version: 1,
            changed_wall_ms: 0,
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
        match self.by_name.get_mut(&config.topic_name) {
            Some(topic) if topic.config == config => return false,
            Some(topic) => topic.config = config,
            None => {
                let kept = !name::is_system_topic(&config.topic_name);
                self.by_name.insert(
                    config.topic_name.clone(),
                    Topic {
                        config,
                        kept,
                        queues: Vec::new(),
                    },
                );
            }
        }
        self.changed(wall_ms);
        true
    }

    /// Removes a topic. Says whether it was there.
    pub fn remove(&mut self, topic: &str, wall_ms: i64) -> bool {
        let removed = self.by_name.remove(topic).is_some();
        if removed {
            self.changed(wall_ms);
        }
        removed
    }

    /// Queues of all topics that clients made.
    pub fn queues(&self) -> i64 {
        self.iter()
            .filter(|topic| topic.kept)
            .map(|topic| i64::from(topic.queue_count()))
            .sum()
    }

    /// Every topic, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values()
    }

    fn changed(&mut self, wall_ms: i64) {
        self.version += 1;
        self.changed_wall_ms = wall_ms;
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

    /// Sets the moment that the version counts from: a start is a change.
    pub fn started(&mut self, wall_ms: i64) {
        self.changed(wall_ms);
    }

    /// What a NameServer is told: all topics and their version.
    pub fn register_body(&self) -> RegisterBrokerBody {
        RegisterBrokerBody {
            topic_config_serialize_wrapper: self.wrapper(),
            ..RegisterBrokerBody::default()
        }
    }

    /// All topics with their version.
    pub fn wrapper(&self) -> TopicConfigSerializeWrapper {
        TopicConfigSerializeWrapper {
            topic_config_table: self
                .iter()
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
