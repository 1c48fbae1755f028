//! A message is found by each of its keys, by its unique id and by the id that says where it lies, within a range of time, on
//! whichever shard it is, also after a kill -9; a miss says so. What clients trace of their own doing is found the same way.

use std::time::{Duration, Instant};

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Sent, eventually, now_ms,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(30);

/// The bodies of what a query finds, sorted.
fn bodies(answer: &Value) -> Vec<String> {
    let mut bodies: Vec<String> = answer["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| m["body"].as_str().map(str::to_owned))
        .collect();
    bodies.sort_unstable();
    bodies
}

fn by_key(client: &mut Client, key: &str) -> Result<Vec<String>, String> {
    client
        .try_call("by_key", json!({"topic": "found", "key": key}))
        .map(|answer| bodies(&answer))
}

/// Code 208: there is no such message.
fn missed<T: std::fmt::Debug>(what: &str, result: Result<T, String>) {
    let error = result.expect_err(what);
    assert!(error.contains("code 208"), "{what}: {error}");
}

fn check_everything(client: &mut Client, sent: &[Sent], late_ms: i64) {
    let all: Vec<String> = (0..8).map(|i| format!("message {i}")).collect();
    eventually("all are in the index", WITHIN, || {
        (by_key(client, "all").as_ref() == Ok(&all)).then_some(())
    });
    assert_eq!(
        by_key(client, "even"),
        Ok(["message 0", "message 2", "message 4", "message 6"]
            .map(str::to_owned)
            .to_vec())
    );
    assert_eq!(by_key(client, "key3"), Ok(vec!["message 3".to_owned()]));
    for key in ["All", "none", "key"] {
        missed(key, by_key(client, key));
    }
    let other = json!({"topic": "other", "key": "key3"});
    missed("a key of another topic", client.try_call("by_key", other));
    let some = client.call("by_key", json!({"topic": "found", "key": "all", "max": 3}));
    // Each shard is asked for so many.
    assert!((3..=6).contains(&bodies(&some).len()), "{some}");
    let late = client.call(
        "by_key",
        json!({"topic": "found", "key": "all", "begin_ms": late_ms}),
    );
    assert_eq!(bodies(&late), all[4..].to_vec());
    let early = client.call(
        "by_key",
        json!({"topic": "found", "key": "all", "end_ms": late_ms - 1000}),
    );
    assert_eq!(bodies(&early), all[..4].to_vec());
    let before = json!({"topic": "found", "key": "all", "end_ms": late_ms - 3_600_000});
    missed("an hour ago", client.try_call("by_key", before));

    for (i, s) in sent.iter().enumerate() {
        let unique = client.call(
            "by_unique_key",
            json!({"topic": "found", "key": s.message_id}),
        );
        assert_eq!(bodies(&unique), [all[i].clone()]);
        for id in [&s.message_id, &s.offset_message_id] {
            let viewed = client.call("view", json!({"topic": "found", "message_id": id}));
            assert_eq!(
                (&viewed["body"], &viewed["queue"], &viewed["offset"]),
                (
                    &json!(all[i]),
                    &json!(s.place.queue),
                    &json!(s.place.offset)
                ),
                "by {id}"
            );
            assert_eq!(viewed["properties"]["number"], json!(i.to_string()));
        }
    }
    let (host, position) = sent[3].offset_message_id.split_at(16);
    let inside = i64::from_str_radix(position, 16).expect("a position") + 1;
    for id in [
        format!("{host}00000FFFFFFFFFFF"),
        format!("{host}{inside:016X}"),
        "7F000001000100000000000000000000".to_owned(),
        "nonsense".to_owned(),
    ] {
        missed(
            &id,
            client.try_call("view", json!({"topic": "found", "message_id": id})),
        );
    }
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn by_key_by_id_and_by_time_before_and_after_kill_9() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("found", 2);
    cluster.create_topic("other", 1);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    let message = |i: usize| Message {
        key: format!(
            "all key{i} {}",
            if i.is_multiple_of(2) { "even" } else { "odd" }
        ),
        ..Message::new("found", format!("message {i}")).property("number", i)
    };
    let early: Vec<Message> = (0..4).map(message).collect();
    let late: Vec<Message> = (4..8).map(message).collect();
    let mut sent = client.send("producer", Mode::Sync, &early);
    client.send("producer", Mode::Sync, &[Message::new("other", "all")]);
    std::thread::sleep(Duration::from_millis(2500));
    let late_ms = now_ms() - 500;
    sent.extend(client.send("producer", Mode::Sync, &late));
    let shards: std::collections::BTreeSet<_> = sent.iter().map(|s| &s.place.broker).collect();
    assert_eq!(shards.len(), 2, "both shards hold some");

    check_everything(&mut client, &sent, late_ms);
    cluster.kill9();
    cluster.start_again();
    let mut client = Client::start(Language::Java, &cluster);
    check_everything(&mut client, &sent, late_ms);
}

fn traces(client: &mut Client, topic: &str, key: &str) -> Vec<String> {
    let answer = client
        .try_call("traces", json!({"topic": topic, "key": key}))
        .unwrap_or_default();
    let mut lines: Vec<String> = answer["traces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|t| t["keys"] == "traced-key" && t["success"] == true)
        .map(|t| {
            let text = |name: &str| t[name].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("type"), text("group"))
        })
        .collect();
    lines.sort_unstable();
    // A client gathers what it traces: with the message asked for others may come.
    lines.dedup();
    lines
}

/// One side writes to the topic that the broker has for it, the other to one of the users'.
const TRACED: [([&str; 2], &str); 2] = [
    (["producer", "consumer"], "RMQ_SYS_TRACE_TOPIC"),
    (["producer-2", "consumer-2"], "own-traces"),
];

fn start_traced() -> Cluster {
    let cluster = Cluster::start(&Options::new().shards(2).set("trace_topic", "true"));
    cluster.create_topic("traced", 1);
    cluster.create_topic("own-traces", 1);
    cluster
}

/// Sends and consumes a message; gives its id.
fn send_traced(client: &mut Client, names: [&str; 2], topic: &str) -> String {
    client.producer_with(names[0], json!({"trace": true, "trace_topic": topic}));
    client.consumer(
        &Consumer::new(names[1], "traced")
            .with("trace", true)
            .with("trace_topic", topic),
    );
    let message = Message::new("traced", "traced-key");
    let sent = client.send(names[0], Mode::Sync, &[message]);
    let id = sent[0].message_id.clone();
    client.deliveries(names[1], 1, WITHIN, |r| r.message_id == id);
    id
}

/// What was done with a message is found by its id, and by its key.
fn check_traces(client: &mut Client, names: [&str; 2], topic: &str, id: &str) {
    let wanted = [
        format!("Pub {}-group", names[0]),
        format!("SubAfter {}", names[1]),
        format!("SubBefore {}", names[1]),
    ];
    let end = Instant::now() + WITHIN;
    let mut by_id = Vec::new();
    while by_id != wanted && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        by_id = traces(client, topic, id);
    }
    assert_eq!(by_id, wanted, "in {topic}");
    let by_key = traces(client, topic, "traced-key");
    assert!(
        wanted.iter().all(|line| by_key.contains(line)),
        "{by_key:?}"
    );
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn what_clients_trace_is_found_by_the_messages_id_and_key() {
    let cluster = start_traced();
    let mut client = Client::start(Language::Java, &cluster);
    for (names, topic) in TRACED {
        let id = send_traced(&mut client, names, topic);
        check_traces(&mut client, names, topic, &id);
    }
}

/// The Java client reads what the Go client has traced.
#[test]
#[cfg_attr(not(all(have_java, have_go)), ignore = "a JDK, Maven or Go is absent")]
fn what_the_go_client_traces_is_found_by_the_messages_id_and_key() {
    let cluster = start_traced();
    let mut reader = Client::start(Language::Java, &cluster);
    for (names, topic) in TRACED {
        // Its traces have one client a process, whose topic is that of the first.
        let mut client = Client::start(Language::Go, &cluster);
        let id = send_traced(&mut client, names, topic);
        check_traces(&mut reader, names, topic, &id);
    }
}
