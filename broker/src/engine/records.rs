//! The engine's state records for who reads or fills a log without an engine: the tools `dump` and `import`.
//!
//! A state record is a kind and a payload. Whatever is made here is what the engine would have written itself.

use std::borrow::Cow;

use corelane_wire::body::{SubscriptionGroupConfig, TopicConfig};

use super::name::TIMER_TOPIC;
use super::state::{
    GROUP_DELETE, GROUP_PUT, OFFSETS, OFFSETS_DELETE, RESETS, TOPIC_DELETE, TOPIC_PUT,
    decode_offsets, encode_offsets,
};
use super::{delay, forbidden, offset::Offsets, pop, transaction};

pub use super::transaction::HALF_TOPIC;

/// Seconds of the hour that shares a topic of timers.
const HOUR_SECS: i64 = 3_600;

/// A topic is made, or changed.
pub fn topic(config: &TopicConfig) -> (u16, Vec<u8>) {
    (TOPIC_PUT, config.to_json())
}

/// A group is made, or changed.
pub fn group(config: &SubscriptionGroupConfig) -> (u16, Vec<u8>) {
    (GROUP_PUT, config.to_json())
}

/// How far a group has consumed the queues of a topic: queue id and offset of what it consumes next.
pub fn offsets(
    group: &str,
    topic: &str,
    queues: impl IntoIterator<Item = (i32, i64)>,
) -> (u16, Vec<u8>) {
    let mut offsets = Offsets::default();
    for (queue_id, offset) in queues {
        offsets.load(group, topic, queue_id, offset);
    }
    let mut payload = Vec::new();
    encode_offsets(&offsets, group, topic, &mut payload);
    (OFFSETS, payload)
}

/// Where a message waits that is to be delivered when a second of the clock is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerPlace {
    /// The topic that it is stored in.
    pub topic: String,
    /// The queue of that topic.
    pub queue_id: i32,
    /// What must be in the log before the first message of the topic.
    pub opened_by: (u16, Vec<u8>),
}

/// Where a message waits whose time, as in its property `TIMER_OUT_MS`, is in this second.
pub fn timer_place(second: i64) -> TimerPlace {
    let hour = second.div_euclid(HOUR_SECS);
    TimerPlace {
        topic: format!("{TIMER_TOPIC}-{hour}"),
        queue_id: second.rem_euclid(HOUR_SECS) as i32,
        opened_by: (delay::TIMER_HOUR, delay::pair(hour, 0).to_vec()),
    }
}

/// What a state record says, in a word and a text for people.
pub fn describe(kind: u16, payload: &[u8]) -> (&'static str, String) {
    let text = || String::from_utf8_lossy(payload).into_owned();
    let table = || {
        let mut queues = Vec::new();
        let names = decode_offsets(payload, |_, _, queue_id, offset| {
            queues.push(format!("{queue_id}:{offset}"));
        });
        let (group, topic) = names.unwrap_or(("?", "?"));
        format!("{group} {topic} {}", queues.join(" "))
    };
    let (name, text): (_, Cow<'_, str>) = match kind {
        TOPIC_PUT => ("topic", text().into()),
        TOPIC_DELETE => ("topic-deleted", text().into()),
        GROUP_PUT => ("group", text().into()),
        GROUP_DELETE => ("group-deleted", text().into()),
        OFFSETS => ("offsets", table().into()),
        OFFSETS_DELETE => ("offsets-deleted", text().into()),
        RESETS => ("resets", table().into()),
        forbidden::FORBIDDEN => ("forbidden", text().into()),
        delay::LEVEL_PROGRESS
        | delay::TIMER_PROGRESS
        | delay::TIMER_HOUR
        | delay::TIMER_HOUR_DONE => {
            let name = match kind {
                delay::LEVEL_PROGRESS => "level-progress",
                delay::TIMER_PROGRESS => "timer-progress",
                delay::TIMER_HOUR => "timer-hour",
                _ => "timer-hour-done",
            };
            let (key, value) = delay::unpair(payload).unwrap_or_default();
            (name, format!("{key} {value}").into())
        }
        transaction::ENDED => ("transaction-ended", numbers(payload).into()),
        transaction::CHECKED => ("transaction-checked", bytes(payload).into()),
        transaction::PENDING => ("transactions-pending", bytes(payload).into()),
        kind if pop::STATE_KINDS.contains(&kind) => ("pop", bytes(payload).into()),
        _ => ("unknown", bytes(payload).into()),
    };
    (name, text.into_owned())
}

fn numbers(payload: &[u8]) -> String {
    let number = payload.first_chunk().copied().map(i64::from_le_bytes);
    number.map_or_else(|| bytes(payload), |number| number.to_string())
}

fn bytes(payload: &[u8]) -> String {
    format!("{} bytes", payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_described() {
        let config = TopicConfig {
            topic_name: "orders".to_owned(),
            ..TopicConfig::default()
        };
        let (kind, payload) = topic(&config);
        let (name, text) = describe(kind, &payload);
        assert_eq!(name, "topic");
        assert!(text.contains("\"orders\""), "{text}");
        let (kind, payload) = offsets("g", "t", [(1, 7), (0, 5)]);
        assert_eq!(
            describe(kind, &payload),
            ("offsets", "g t 0:5 1:7".to_owned())
        );
        let place = timer_place(7_201);
        assert_eq!(
            (place.topic.as_str(), place.queue_id),
            ("rmq_sys_wheel_timer-2", 1)
        );
        let (kind, payload) = place.opened_by;
        assert_eq!(describe(kind, &payload), ("timer-hour", "2 0".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn anything_is_described(kind in 0u16..40, payload in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = describe(kind, &payload);
        }
    }
}
