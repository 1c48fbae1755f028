//! A message of a transaction is seen when it is committed, and never otherwise; where nobody has said, the broker asks a live
//! producer of the group, also when the first one has died and when the broker itself was killed in between.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, eventually, in_java_and_go, raw,
};
use serde_json::json;

in_java_and_go!(
    another_producer_of_the_group_is_asked_when_the_first_died_and_the_broker_too,
    only_committed_messages_are_seen,
    what_no_producer_ever_knows_is_found_in_the_dead_topic
);

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
        .chain([transaction("decided", "unknown", "commit", 9)
            .property("CHECK_IMMUNITY_TIME_IN_SECONDS", 7)])
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

    client.deliveries("group", 7, WITHIN, |_| true);
    let asked = client.deliveries("producer checks", 7, WITHIN, |_| true);
    // One has asked for more time.
    let patient = asked.iter().find(|r| r.key.ends_with('9'));
    let waited_ms = patient.map(|r| r.received_ms - r.born_ms);
    assert!(waited_ms.is_some_and(|ms| ms >= 7_000), "{waited_ms:?}");
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

fn another_producer_of_the_group_is_asked_when_the_first_died_and_the_broker_too(
    language: Language,
) {
    let mut cluster = Cluster::start(&options("6000"));
    cluster.create_topic("orphaned", 2);
    cluster.create_topic("elsewhere", 2);
    let mut first = Client::start(language, &cluster);
    let mut client = Client::start(language, &cluster);
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
    let seen = client.received_count("group");
    assert_eq!(seen, 4, "half messages were seen");
    client.producer_with("second", json!({"transactions": true, "group": "shared"}));
    // A producer that has sent nothing knows no broker.
    let hello = transaction("elsewhere", "commit", "none", 0);
    client.send("second", Mode::Transaction, &[hello]);

    client.receive("group", 8, WITHIN);
    client.deliveries("second checks", 8, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(3));
    let wanted: Vec<String> = (0..4)
        .map(|i| format!("commit then none {i}"))
        .chain((0..4).map(|i| format!("unknown then commit {i}")))
        .collect();
    let mut seen = keys(&client, "group");
    if language == Language::Go {
        // It commits its offsets every five seconds only.
        seen.dedup();
    }
    assert_eq!(seen, wanted);
    let asked = keys(&client, "second checks");
    assert!(
        asked.iter().all(|key| key.starts_with("unknown")),
        "asked about what was decided: {asked:?}"
    );
    assert!(keys(&client, "other checks").is_empty());
}

/// Waits until all shards know so many producers of a group: a Go client tells of itself every 30 s.
fn wait_known(cluster: &Cluster, group: &str, topic: &str, count: usize) {
    for address in cluster.brokers().into_values() {
        let mut broker = raw::Connection::open(&address).expect("a connection");
        eventually("the producers are known", WITHIN, || {
            let fields = [("producerGroup", group), ("topic", topic)];
            let answer = broker
                .request(raw::code::PRODUCER_CONNECTIONS, &fields, b"")
                .ok()?;
            let members = answer.body.windows(10).filter(|w| w == b"\"clientId\"");
            (answer.code == 0 && members.count() == count).then_some(())
        });
    }
}

/// Of two producers of a group one dies. The other one is asked as often as is configured and never knows: then the messages
/// lie where an operator finds them, also after a kill -9, and one that is taken up again is asked about anew.
fn what_no_producer_ever_knows_is_found_in_the_dead_topic(language: Language) {
    let mut cluster = Cluster::start(&options("4000").set("transaction_check_max", "3"));
    cluster.create_topic("unknown", 2);
    let mut victim = Client::start(language, &cluster);
    let mut client = Client::start(language, &cluster);
    client.consumer(&Consumer::new("group", "unknown"));
    client.consumer(&Consumer::new("operator", "TRANS_CHECK_MAX_TIME_TOPIC"));
    for (client, name) in [(&mut victim, "victim"), (&mut client, "heir")] {
        client.producer_with(name, json!({"transactions": true, "group": "shared"}));
        // A producer that has sent nothing knows no broker.
        let hello = transaction("unknown", "commit", "none", 0);
        client.send(name, Mode::Transaction, &[hello]);
    }
    wait_known(&cluster, "shared", "unknown", 2);
    let unknown: Vec<Message> = (0..4)
        .map(|i| Message::new("unknown", format!("unknown {i}")).property("local", "unknown"))
        .collect();
    victim.send("victim", Mode::Transaction, &unknown);
    let had = victim.kill9();
    let asked_before = had.get("victim checks").map_or(0, Vec::len);

    client.deliveries("heir checks", 4 * 3 - asked_before, WITHIN, |_| true);
    client.receive("operator", 4, WITHIN);
    cluster.kill9();
    cluster.start_again();
    std::thread::sleep(Duration::from_secs(4));
    let asked = client.received("heir checks");
    assert_eq!(asked.len(), 4 * 3 - asked_before, "{asked:#?}");
    assert!(asked.iter().all(|r| r.topic == "unknown"), "{asked:#?}");
    assert_eq!(client.received_count("operator"), 4);
    let dead = client.received("operator");
    for message in &unknown {
        let found = dead.iter().find(|r| r.key == message.key);
        let found = found.unwrap_or_else(|| panic!("{} is not in {dead:#?}", message.key));
        assert_eq!(found.body, message.key);
        for (name, value) in [
            ("REAL_TOPIC", "unknown"),
            ("PGROUP", "shared"),
            ("TRANSACTION_CHECK_TIMES", "3"),
        ] {
            assert_eq!(found.properties.get(name).map(String::as_str), Some(value));
        }
    }
    assert_eq!(keys(&client, "group"), ["commit then none 0"; 2]);
    if language == Language::Go {
        return; // Its admin client cannot take one up again.
    }
    client.shutdown("heir");
    let knows = json!({"transactions": true, "group": "shared", "check": "commit"});
    client.producer_with("knows", knows);
    let hello = transaction("unknown", "commit", "none", 0);
    client.send("knows", Mode::Transaction, &[hello]);
    wait_known(&cluster, "shared", "unknown", 1);
    let resume = |client: &mut Client, id: &str| {
        let verb = json!({"topic": "TRANS_CHECK_MAX_TIME_TOPIC", "message_id": id});
        client.try_call("resume_half", verb)
    };
    let resumed = resume(&mut client, &dead[0].message_id).expect("a half message again");
    assert_eq!(resumed["resumed"], true);
    let seen = client.deliveries("group", 1, WITHIN, |r| r.key == dead[0].key);
    assert_eq!(seen[0].topic, "unknown");
    let asked = client.deliveries("knows checks", 1, WITHIN, |_| true);
    assert_eq!(asked[0].properties["TRANSACTION_CHECK_TIMES"], "1");
    let refused = resume(&mut client, &asked[0].message_id.replace('0', "1"));
    assert!(refused.is_err(), "{refused:?}");
}
