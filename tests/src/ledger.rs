//! What must be true of messages that were sent and received.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::message::{Message, Place, Received, Sent};
use crate::{Client, eventually};

/// No two acknowledged messages lie at one place.
pub fn no_two_at_one_place(sent: &[Sent]) {
    let mut at: HashMap<&Place, &str> = HashMap::new();
    for s in sent {
        if let Some(other) = at.insert(&s.place, &s.key) {
            panic!(
                "{other} and {} were both acknowledged at {:?}",
                s.key, s.place
            );
        }
    }
}

/// Every acknowledged message was received, from where it was acknowledged to lie; and nothing that was received lies where
/// something else was acknowledged.
pub fn nothing_lost(sent: &[Sent], received: &[Received]) {
    let at: HashMap<&Place, &str> = received
        .iter()
        .map(|r| (&r.place, r.key.as_str()))
        .collect();
    let mut missing: Vec<String> = Vec::new();
    for s in sent {
        match at.get(&s.place) {
            None => missing.push(format!("{} at {:?}", s.key, s.place)),
            Some(key) => assert_eq!(
                *key, s.key,
                "another message than the one acknowledged at {:?}",
                s.place
            ),
        }
    }
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged messages were not received, the first: {:?}",
        missing.len(),
        sent.len(),
        &missing[..missing.len().min(5)]
    );
}

/// No message was received twice.
pub fn nothing_twice(received: &[Received]) {
    let mut at: HashMap<&Place, usize> = HashMap::new();
    for r in received {
        *at.entry(&r.place).or_default() += 1;
    }
    let twice: Vec<_> = at.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "received more than once: {twice:?}");
}

/// In each queue the messages of a stream lie in the order in which they were sent, and a place never held two messages.
pub fn in_order(received: &[Received]) {
    let mut queues: BTreeMap<(&str, i32), BTreeMap<i64, &Received>> = BTreeMap::new();
    for r in received {
        let queue = queues.entry((&r.place.broker, r.place.queue)).or_default();
        if let Some(other) = queue.insert(r.place.offset, r) {
            assert_eq!(
                (&other.key, other.body_crc),
                (&r.key, r.body_crc),
                "two messages at {:?}",
                r.place
            );
        }
    }
    for ((broker, queue), messages) in queues {
        let mut last: HashMap<u64, (u64, i64)> = HashMap::new();
        for (offset, message) in messages {
            let (lane, number) = lane_and_number(&message.key);
            if let Some((before, at)) = last.insert(lane, (number, offset)) {
                assert!(
                    before < number,
                    "{broker} queue {queue}: {lane}-{before} at {at} is before {} at {offset}",
                    message.key
                );
            }
        }
    }
}

/// In each queue the messages came in the order of their offsets. True of a consumer with one thread whose queues stay its
/// own.
pub fn came_in_order(received: &[Received]) {
    let mut last: HashMap<(&str, i32), i64> = HashMap::new();
    for r in received {
        if let Some(before) = last.insert((&r.place.broker, r.place.queue), r.place.offset) {
            assert!(
                before < r.place.offset,
                "{} queue {}: {before} came before {}",
                r.place.broker,
                r.place.queue,
                r.place.offset
            );
        }
    }
}

/// What was received is what was sent: the same keys, each with its tag, properties and body. The order does not matter.
pub fn equal(sent: &[Message], received: &[Received]) {
    let by_key: HashMap<&str, &Received> = received.iter().map(|r| (r.key.as_str(), r)).collect();
    assert_eq!(
        received.len(),
        sent.len(),
        "sent {} and received {} messages",
        sent.len(),
        received.len()
    );
    for s in sent {
        let r = by_key
            .get(s.key.as_str())
            .unwrap_or_else(|| panic!("{} was not received", s.key));
        let body = s.full_body();
        assert_eq!(r.topic, s.topic, "topic of {}", s.key);
        assert_eq!(
            r.tag.as_deref().unwrap_or_default(),
            s.tag,
            "tag of {}",
            s.key
        );
        assert_eq!(
            (r.body_bytes, r.body_crc),
            (body.len(), crc32fast::hash(&body)),
            "body of {}: {}",
            s.key,
            r.body
        );
        assert_eq!(r.reconsume_times, 0, "first delivery of {}", s.key);
        for (name, value) in &s.properties {
            assert_eq!(
                r.properties.get(name),
                Some(value),
                "property {name} of {}",
                s.key
            );
        }
    }
}

/// Waits until these consumers of these clients together have received every one of `sent`; returns all that came.
pub fn receive_all(
    consumers: &[(&Client, &str)],
    sent: &[Sent],
    within: Duration,
) -> Vec<Received> {
    eventually(
        &format!("{} messages are received", sent.len()),
        within,
        || {
            let counted: usize = consumers
                .iter()
                .map(|(client, name)| client.received_count(name))
                .sum();
            if counted < sent.len() {
                return None;
            }
            let received: Vec<Received> = consumers
                .iter()
                .flat_map(|(client, name)| client.received(name))
                .collect();
            let at: std::collections::HashSet<&Place> = received.iter().map(|r| &r.place).collect();
            sent.iter()
                .all(|s| at.contains(&s.place))
                .then_some(received)
        },
    )
}

fn lane_and_number(key: &str) -> (u64, u64) {
    let parse = |text: &str| {
        text.parse()
            .unwrap_or_else(|e| panic!("{e} in the key {key}"))
    };
    let (lane, number) = key
        .split_once('-')
        .unwrap_or_else(|| panic!("{key} is no key of a stream"));
    (parse(lane), parse(number))
}
