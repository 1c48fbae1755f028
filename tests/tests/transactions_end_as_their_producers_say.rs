//! A message of a transaction is seen when it is committed, and never otherwise; where nobody has said, the broker asks a live
//! producer of the group, also when the first one has died and when the broker itself was killed in between.

use std::time::Duration;

use corelane_tests::{Client, Cluster, Consumer, Language, Message, Mode, Options, in_java_and_go};
use serde_json::json;

in_java_and_go!(only_committed_messages_are_seen);

const WITHIN: Duration = Duration::from_secs(60);

fn options(timeout_ms: &str) -> Options {
    Options::new()
        .shards(2)
        .set("transaction_check_interval_ms", "1000")
        .set("transaction_timeout_ms", timeout_ms)
}

fn transaction(topic: &str, local: &str, check: &str, number: usize) -> Message {
    Message::new(topic, format!("{local} then {check} {number}"))
        .property("local", local)
        .property("check", check)
}

fn keys(client: &Client, consumer: &str) -> Vec<String> {
    let mut keys: Vec<_> = client
        .received(consumer)
        .into_iter()
        .map(|r| r.key)
        .collect();
    keys.sort_unstable();
    keys
}

fn only_committed_messages_are_seen(language: Language) {
    let cluster = Cluster::start(&options("2000"));
    cluster.create_topic("decided", 2);
    let mut client = Client::start(language, &cluster);
    client.producer_with("producer", json!({"transactions": true}));
    client.consumer(&Consumer::new("group", "decided"));
    let of = |local, check| (0..3).map(move |i| transaction("decided", local, check, i));
    let decided: Vec<Message> = of("commit", "none").chain(of("rollback", "none")).collect();
    let open: Vec<Message> = of("unknown", "commit")
        .chain(of("unknown", "rollback"))
        .collect();
    client.send("producer", Mode::Transaction, &open);
    client.send("producer", Mode::Transaction, &decided);
    client.deliveries("group", 3, WITHIN, |r| r.key.starts_with("commit"));
    // A half message is asked after no sooner than this, and not seen before.
    let early: Vec<_> = client
        .received("group")
        .into_iter()
        .filter(|r| r.key.starts_with("unknown"))
        .collect();
    let asked = client.received("producer checks");
    assert!(
        early.len() <= asked.len(),
        "seen before they were decided: {early:?}"
    );

    client.deliveries("group", 6, WITHIN, |_| true);
    client.deliveries("producer checks", 6, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(4));
    let wanted: Vec<String> = decided
        .iter()
        .chain(&open)
        .filter(|m| m.key.contains("commit"))
        .map(|m| m.key.clone())
        .collect();
    let mut wanted = wanted;
    wanted.sort_unstable();
    assert_eq!(keys(&client, "group"), wanted);
    // What was decided at once is never asked about, the others once each.
    let mut asked: Vec<String> = open.iter().map(|m| m.key.clone()).collect();
    asked.sort_unstable();
    assert_eq!(keys(&client, "producer checks"), asked);
    for r in client.received("group") {
        assert_eq!(r.body, r.key);
        assert_eq!(r.topic, "decided");
        assert_eq!(
            r.properties.get("PGROUP").map(String::as_str),
            Some("producer-group")
        );
    }
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn another_producer_of_the_group_is_asked_when_the_first_died_and_the_broker_too() {
    let mut cluster = Cluster::start(&options("6000"));
    cluster.create_topic("orphaned", 2);
    cluster.create_topic("elsewhere", 2);
    let mut first = Client::start(Language::Java, &cluster);
    let mut client = Client::start(Language::Java, &cluster);
    client.consumer(&Consumer::new("group", "orphaned"));
    first.producer_with("first", json!({"transactions": true, "group": "shared"}));
    client.producer_with("other", json!({"transactions": true, "group": "stranger"}));
    let of = |local, check| (0..4).map(move |i| transaction("orphaned", local, check, i));
    let all: Vec<Message> = of("unknown", "commit")
        .chain(of("unknown", "rollback"))
        .chain(of("commit", "none"))
        .chain(of("rollback", "none"))
        .collect();
    first.send("first", Mode::Transaction, &all);
    client.deliveries("group", 4, WITHIN, |r| r.key.starts_with("commit"));
    // The ends of transactions are one-way.
    std::thread::sleep(Duration::from_secs(1));
    first.kill9();
    // What was committed is consumed and its offset stored.
    std::thread::sleep(Duration::from_millis(1500));
    cluster.kill9();
    cluster.start_again();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(client.received("group").len(), 4, "half messages were seen");
    client.producer_with("second", json!({"transactions": true, "group": "shared"}));
    // A producer that has sent nothing knows no broker.
    let hello = transaction("elsewhere", "commit", "none", 0);
    client.send("second", Mode::Transaction, &[hello]);

    client.deliveries("group", 8, WITHIN, |_| true);
    client.deliveries("second checks", 8, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(3));
    let wanted: Vec<String> = (0..4)
        .map(|i| format!("commit then none {i}"))
        .chain((0..4).map(|i| format!("unknown then commit {i}")))
        .collect();
    assert_eq!(keys(&client, "group"), wanted);
    let asked = keys(&client, "second checks");
    assert!(
        asked.iter().all(|key| key.starts_with("unknown")),
        "asked about what was decided: {asked:?}"
    );
    assert!(keys(&client, "other checks").is_empty());
}
