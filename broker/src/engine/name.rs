//! Which names topics and groups may have, and which topics are the system's.

use super::turn::Refusal;
use corelane_wire::code::response;

/// Longest name of an ordinary topic, in bytes.
pub const MAX_TOPIC: usize = 127;
/// Longest name of a retry or dead letter topic, in bytes.
pub const MAX_RETRY_TOPIC: usize = 255;
/// Longest name of a group, in bytes.
pub const MAX_GROUP: usize = 120;

/// Prefix of the topic that holds what a group will consume again.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic that holds what a group gave up on.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// Any topic with this prefix is the system's.
pub const SYSTEM_PREFIX: &str = "rmq_sys_";
/// The topic whose settings automatic creation copies.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Where the clients' traces go.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// Where messages wait for the delay of their level; one queue a level.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// What the topics in which timers wait begin with.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";

/// Topics of the system by name; those with [`SYSTEM_PREFIX`] come on top.
pub const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    TRACE_TOPIC,
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "CHECKPOINT_TOPIC",
];

/// Topics that clients may not send to.
const NOT_FOR_CLIENTS: [&str; 6] = [
    SCHEDULE_TOPIC,
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

/// Whether a topic is the system's.
pub fn is_system_topic(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_PREFIX)
}

/// Whether clients may send to a topic.
pub fn is_for_clients(topic: &str) -> bool {
    !NOT_FOR_CLIENTS.contains(&topic) && !topic.starts_with(TIMER_TOPIC)
}

/// Whether a topic is one of a group's own (retry or dead letters).
pub fn is_group_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX)
}

fn legal(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'_' | b'-'))
}

/// Checks the name of a topic (protocol reference: letters, digits, `%`, `|`, `_`, `-`).
pub fn check_topic(topic: &str) -> Result<(), Refusal> {
    let longest = if is_group_topic(topic) {
        MAX_RETRY_TOPIC
    } else {
        MAX_TOPIC
    };
    if topic.is_empty() {
        return Err(Refusal::new(
            response::INVALID_PARAMETER,
            "the topic has no name",
        ));
    }
    if topic.len() > longest {
        return Err(Refusal::new(
            response::INVALID_PARAMETER,
            format!("the topic's name is longer than {longest} characters"),
        ));
    }
    if !legal(topic) {
        return Err(Refusal::new(
            response::INVALID_PARAMETER,
            format!(
                "the topic's name {topic:?} has characters other than letters, digits, %, |, _ and -"
            ),
        ));
    }
    Ok(())
}

/// Checks the name of a group.
pub fn check_group(group: &str) -> Result<(), Refusal> {
    if group.is_empty() || group.len() > MAX_GROUP || !legal(group) {
        return Err(Refusal::new(
            response::INVALID_PARAMETER,
            format!(
                "the group's name {group:?} must have 1 to {MAX_GROUP} letters, digits, %, |, _ and -"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_protocol_says() {
        for good in [
            "a",
            "TopicTest",
            "ns%topic",
            "%RETRY%group",
            "a|b_c-1",
            &"x".repeat(127),
        ] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "topic$", "t\u{e9}", "a\u{1}", &"x".repeat(128)] {
            assert!(check_topic(bad).is_err(), "{bad}");
        }
        assert_eq!(check_topic(&format!("%RETRY%{}", "x".repeat(200))), Ok(()));
        assert!(check_group(&"g".repeat(121)).is_err());
        assert_eq!(check_group("CID_a"), Ok(()));
    }
}
