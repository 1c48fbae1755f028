//! Compressed bodies, selectors and delivery to all shards work as the clients mean them, and what the broker does
//! not take it refuses with the protocol's code, keeping nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Outcome, Queue, Sent, ledger,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(30);

fn numbered(topic: &str, name: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")))
        .collect()
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn compressed_bodies_pass_through_kill_9_and_selectors_choose() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("packed", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let mut messages = Vec::new();
    let mut sent: Vec<Sent> = Vec::new();
    for kind in ["zlib", "lz4", "zstd"] {
        client.producer_with(kind, json!({"compress": kind}));
        let large: Vec<Message> = numbered("packed", kind, 6)
            .into_iter()
            .map(|m| Message {
                body_bytes: 50_000,
                ..m.tag(kind).property("kind", kind)
            })
            .collect();
        let mut acknowledged = client.send(kind, Mode::Sync, &large[..3]);
        acknowledged.extend(client.send(kind, Mode::Async, &large[3..]));
        messages.extend(large);
        sent.extend(acknowledged);
    }
    // Offsets in the log of two neighbours in a queue: the body lies there as it was sent, compressed.
    let mut positions: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for s in &sent {
        let position = i64::from_str_radix(&s.offset_message_id[16..], 16).expect("a position");
        positions.insert((s.place.broker.clone(), position), position);
    }
    let neighbours: Vec<i64> = positions.values().copied().collect();
    let narrow = neighbours
        .windows(2)
        .filter(|p| (1..10_000).contains(&(p[1] - p[0])));
    assert!(
        narrow.count() >= 4,
        "bodies of 50,000 bytes take as much: {positions:?}"
    );
    client.consumer(&Consumer::new("group", "packed"));
    let received = client.receive("group", messages.len(), WITHIN);
    ledger::equal(&messages, &received);
    ledger::nothing_lost(&sent, &received);
    cluster.kill9();
    cluster.start_again();
    let mut client = Client::start(Language::Java, &cluster);
    client.consumer(&Consumer::new("later", "packed"));
    ledger::equal(&messages, &client.receive("later", messages.len(), WITHIN));

    // The same key chooses the same queue, and different ones use several.
    cluster.create_topic("selected", 2);
    client.producer("producer");
    let mut queues: BTreeMap<String, BTreeSet<(String, i32)>> = BTreeMap::new();
    for _ in 0..3 {
        let messages = numbered("selected", "key", 12);
        for s in client.send("producer", Mode::Selector, &messages) {
            let queue = (s.place.broker, s.place.queue);
            queues.entry(s.key).or_default().insert(queue);
        }
    }
    assert!(
        queues.values().all(|of_key| of_key.len() == 1),
        "{queues:?}"
    );
    let used: BTreeSet<_> = queues.values().flatten().collect();
    assert_eq!(used.len(), 4, "queues that 12 keys choose");
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn batches_of_several_queues_and_properties_arrive_in_their_order() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("batched", 2);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "batched"));
    let mut all = Vec::new();
    for (i, queue) in queues.iter().enumerate() {
        let messages: Vec<Message> = numbered("batched", &format!("queue {i}"), 50)
            .into_iter()
            .enumerate()
            .map(|(n, m)| Message {
                body_bytes: n * 11,
                ..m.tag(["even", "odd"][n % 2])
                    .property("n", n)
                    .property("text", "naïve ☃ = \"quoted\"")
            })
            .collect();
        let sent = client.send_to(queue, "producer", Mode::Batch, &messages);
        for (n, s) in sent.iter().enumerate() {
            let place = (&s.place.broker, s.place.queue, s.place.offset);
            assert_eq!(place, (&queue.broker, queue.id, n as i64), "{}", s.key);
        }
        all.extend(messages);
    }
    let received = client.receive("group", all.len(), WITHIN);
    ledger::equal(&all, &received);
    ledger::came_in_order(&received);
}

/// A producer that gathers messages by itself, and one that does not wait for the disk.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn gathered_messages_and_those_that_do_not_wait_arrive() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("gathered", 2);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer_with("gathers", json!({"auto_batch": true}));
    client.producer("producer");
    client.consumer(&Consumer::new("group", "gathered"));
    let messages: Vec<Message> = numbered("gathered", "gathered", 200)
        .into_iter()
        .enumerate()
        .map(|(n, m)| m.tag(["even", "odd"][n % 2]).property("n", n))
        .collect();
    let mut sent = client.send("gathers", Mode::Async, &messages[..100]);
    sent.extend(client.send_to(&queues[3], "gathers", Mode::Async, &messages[100..]));
    let hasty: Vec<Message> = numbered("gathered", "hasty", 20)
        .into_iter()
        .map(|m| m.with("wait_stored", false))
        .collect();
    sent.extend(client.send("producer", Mode::Sync, &hasty[..10]));
    sent.extend(client.send("producer", Mode::Batch, &hasty[10..]));
    ledger::no_two_at_one_place(&sent);
    let all = [messages, hasty].concat();
    let received = client.receive("group", all.len(), WITHIN);
    ledger::equal(&all, &received);
    ledger::nothing_lost(&sent, &received);
    cluster.kill9();
    cluster.start_again();
    let mut client = Client::start(Language::Java, &cluster);
    client.consumer(&Consumer::new("later", "gathered"));
    ledger::equal(&all, &client.receive("later", all.len(), WITHIN));
}

/// Why the one message of a send was refused.
fn refusal(what: &str, outcome: &Outcome) -> String {
    assert!(outcome.sent.is_empty(), "{what} was accepted: {outcome:?}");
    outcome.failed[0].error.clone()
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn what_is_not_taken_is_refused_with_its_code() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("strict", 2);
    let queue = &queues[0];
    let mut client = Client::start(Language::Java, &cluster);
    client.producer_with(
        "producer",
        json!({"max_message_bytes": 64 << 20, "compress": "none"}),
    );
    let sized = |bytes: usize| Message {
        body_bytes: bytes,
        ..Message::new("strict", "sized")
    };
    let with_property =
        |length: usize| Message::new("strict", "property").property("p", "x".repeat(length));
    let topic_of = |name: &str| Message::new(name, "illegal");
    let to = |id: i32| Queue {
        id,
        ..queue.clone()
    };
    let mut send = |message: Message, queue: Option<Queue>| {
        client.try_send("producer", Mode::Sync, queue.as_ref(), &[message])
    };
    for (what, message, queue, code) in [
        (
            "properties of 32,800",
            with_property(32_800),
            to(0),
            "code 13",
        ),
        (
            "properties of 40,000",
            with_property(40_000),
            to(0),
            "code 13",
        ),
        (
            "a body of 4 MiB and a byte",
            sized((4 << 20) + 1),
            to(0),
            "code 13",
        ),
        ("queue 2 of 2", sized(1), to(2), "code 29"),
        ("queue 99 of 2", sized(1), to(99), "code 29"),
        ("a blank in the topic", topic_of("a b"), to(0), "code -1"),
        (
            "a topic of 128 letters",
            topic_of(&"x".repeat(128)),
            to(0),
            "code -1",
        ),
        (
            "a topic for delays",
            topic_of("SCHEDULE_TOPIC_XXXX"),
            to(0),
            "code -1",
        ),
        (
            "a topic for half messages",
            topic_of("RMQ_SYS_TRANS_HALF_TOPIC"),
            to(0),
            "code -1",
        ),
    ] {
        let error = refusal(what, &send(message, Some(queue)));
        assert!(error.contains(code), "{what}: {error}");
    }
    for (what, message, queue) in [
        ("properties of 32,500", with_property(32_500), to(0)),
        ("any queue", sized(1), to(-1)),
        ("a body of 4 MiB", sized(4 << 20), to(1)),
    ] {
        let outcome = send(message, Some(queue));
        assert_eq!(outcome.sent.len(), 1, "{what}: {outcome:?}");
    }
    let offsets = client.call("offsets", json!({"topic": "strict", "timestamp_ms": 0}));
    let stored: i64 = offsets["queues"]
        .as_array()
        .expect("queues")
        .iter()
        .filter_map(|q: &Value| q["max"].as_i64())
        .sum();
    assert_eq!(stored, 3, "what was refused is not there: {offsets}");
}
