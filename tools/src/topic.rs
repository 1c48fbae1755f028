//! `corelane topic`: the topics of a cluster.

use corelane_client::cluster::Broker;
use corelane_wire::body::TopicConfig;
use corelane_wire::code::perm;
use serde_json::json;

use crate::cli::TopicCommand;
use crate::output::{Failure, Output};

/// Runs one of the commands about topics.
pub fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create {
            topic,
            queues,
            perm,
            attributes,
            cluster,
            at,
            json,
        } => {
            let config = TopicConfig {
                topic_name: topic,
                read_queue_nums: queues,
                write_queue_nums: queues,
                perm: permission(&perm),
                attributes: attributes.into_iter().collect(),
                ..TopicConfig::default()
            };
            let brokers = at.open()?.create_topic(&config, cluster.as_deref())?;
            let line = format!(
                "topic {} has {queues} queues on each of: {}",
                config.topic_name,
                names(&brokers)
            );
            let object =
                json!({ "topic": config.topic_name, "queues": queues, "brokers": list(&brokers) });
            Output::new(json).record(&object, &line)
        }
        TopicCommand::List { all, at, json } => {
            let mut cluster = at.open()?;
            let info = cluster.info()?;
            let own = |name: &String| {
                info.cluster_addr_table.contains_key(name)
                    || info.broker_addr_table.contains_key(name)
            };
            let topics = cluster.topics()?;
            let rows: Vec<_> = topics
                .iter()
                .filter(|name| all || !(is_internal(name) || own(name)))
                .map(|name| [json!(name)])
                .collect();
            Output::new(json).table(["topic"], &rows)
        }
        TopicCommand::Describe { topic, at, json } => {
            let offsets = at.open()?.topic_offsets(&topic)?;
            let rows: Vec<_> = offsets
                .iter()
                .map(|(queue, offset)| {
                    [
                        json!(queue.broker_name),
                        json!(queue.queue_id),
                        json!(offset.min_offset),
                        json!(offset.max_offset),
                        json!(offset.max_offset - offset.min_offset),
                    ]
                })
                .collect();
            Output::new(json).table(
                ["broker", "queue", "minOffset", "maxOffset", "messages"],
                &rows,
            )
        }
        TopicCommand::Delete {
            topic,
            cluster,
            at,
            json,
        } => {
            let mut open = at.open()?;
            if !open.topics()?.contains(&topic) {
                return Err(Failure::Said(format!("topic {topic} does not exist")));
            }
            let brokers = open.delete_topic(&topic, cluster.as_deref())?;
            let line = format!("topic {topic} is deleted from: {}", names(&brokers));
            Output::new(json).record(&json!({ "topic": topic, "brokers": list(&brokers) }), &line)
        }
    }
}

fn permission(text: &str) -> i32 {
    match text {
        "r" => perm::READ,
        "w" => perm::WRITE,
        _ => perm::READ | perm::WRITE,
    }
}

/// Whether a topic was made by brokers or for groups, not by users.
fn is_internal(topic: &str) -> bool {
    const SYSTEM: [&str; 11] = [
        "TBW102",
        "SELF_TEST_TOPIC",
        "BenchmarkTest",
        "SCHEDULE_TOPIC_XXXX",
        "OFFSET_MOVED_EVENT",
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "RMQ_SYS_TRACE_TOPIC",
        "CHECKPOINT_TOPIC",
        "DefaultHeartBeatSyncerTopic",
    ];
    SYSTEM.contains(&topic)
        || ["%RETRY%", "%DLQ%", "rmq_sys_", "RMQ_SYS_"]
            .iter()
            .any(|prefix| topic.starts_with(prefix))
        || topic.ends_with("_REPLY_TOPIC")
}

fn names(brokers: &[Broker]) -> String {
    list(brokers).join(", ")
}

fn list(brokers: &[Broker]) -> Vec<&str> {
    brokers.iter().map(|broker| broker.name.as_str()).collect()
}
