//! A consumer that vanishes without a word is replaced, and members of a group that do not agree on what they subscribe to harm
//! nobody but themselves.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Model, Options, eventually, in_java_and_go,
    ledger, raw,
};
use serde_json::json;

in_java_and_go!(a_vanished_consumer_is_replaced);

const WITHIN: Duration = Duration::from_secs(90);

fn numbered(topic: &str, name: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")))
        .collect()
}

/// The only consumer dies in the middle of its work and one in another process starts at once.
fn a_vanished_consumer_is_replaced(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("vanished", 2);
    let mut client = Client::start(language, &cluster);
    let mut victim = Client::start(language, &cluster);
    client.producer("producer");
    victim.consumer(&Consumer::new("group", "vanished").name("victim"));
    let before = numbered("vanished", "before", 20);
    client.send("producer", Mode::Sync, &before);
    victim.receive("victim", 20, WITHIN);
    let had = victim.kill9();
    let after = numbered("vanished", "after", 20);
    client.send("producer", Mode::Sync, &after);
    client.consumer(&Consumer::new("group", "vanished").name("heir"));
    client.deliveries("heir", 20, WITHIN, |r| r.key.starts_with("after"));
    let received = client.received("heir");
    let late: Vec<_> = received
        .iter()
        .filter(|r| r.key.starts_with("after"))
        .cloned()
        .collect();
    ledger::equal(&after, &late);
    ledger::equal(&before, &had["victim"]);
    ledger::nothing_twice(&received);
}

/// A client that keeps its connection and says nothing any more is given up after a time, and its queues are shared anew.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn a_silent_consumer_loses_its_queues() {
    let cluster = Cluster::start(&Options::new().set("client_timeout_ms", "4000"));
    cluster.create_topic("silent", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let heartbeat = json!({
        "clientID": "silent-one", "producerDataSet": [],
        "consumerDataSet": [{
            "groupName": "group", "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": false,
            "subscriptionDataSet": [{"topic": "silent", "subString": "*", "tagsSet": [], "codeSet": [],
                "subVersion": 1, "expressionType": "TAG", "classFilterMode": false}],
        }],
    });
    let mut silent = raw::Connection::open(&cluster.broker()).expect("a connection");
    let answer = silent.request(34, &[], heartbeat.to_string().as_bytes());
    assert_eq!(answer.expect("an answer to a heartbeat").code, 0);
    client.consumer(&Consumer::new("group", "silent").name("heir"));
    eventually("both are members", WITHIN, || {
        (client.connections("group").len() == 2).then_some(())
    });
    eventually("the silent one has a share", WITHIN, || {
        let answer = client.call("assigned", json!({"name": "heir", "topic": "silent"}));
        (answer["queues"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
    eventually("the silent one is given up", WITHIN, || {
        (client.connections("group").len() == 1).then_some(())
    });
    eventually("the other one has all queues", WITHIN, || {
        let answer = client.call("assigned", json!({"name": "heir", "topic": "silent"}));
        (answer["queues"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
    client.producer("producer");
    let messages = numbered("silent", "message", 10);
    client.send("producer", Mode::Sync, &messages);
    ledger::equal(&messages, &client.receive("heir", 10, WITHIN));
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn a_group_of_different_subscriptions_harms_nobody_else() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    for topic in ["left", "right"] {
        cluster.create_topic(topic, 2);
    }
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("odd", "left").name("odd-left"));
    client.consumer(&Consumer::new("odd", "right").name("odd-right"));
    client.consumer(
        &Consumer::new("odd", "left")
            .name("odd-tags")
            .expression("none"),
    );
    client.consumer(
        &Consumer::new("odd", "right")
            .name("odd-all")
            .model(Model::Broadcasting),
    );
    for topic in ["left", "right"] {
        client.consumer(&Consumer::new(&format!("good-{topic}"), topic));
    }
    eventually("the odd group is complete", WITHIN, || {
        (client.connections("odd").len() == 4).then_some(())
    });
    let mut sent: Vec<Message> = Vec::new();
    for round in ["before", "after"] {
        for topic in ["left", "right"] {
            let messages = numbered(topic, &format!("{topic} {round}"), 20);
            client.send("producer", Mode::Sync, &messages);
            sent.extend(messages);
        }
        for topic in ["left", "right"] {
            let wanted = sent.iter().filter(|m| m.topic == topic).count();
            client.receive(&format!("good-{topic}"), wanted, WITHIN);
            client.wait_committed(&format!("good-{topic}"), topic, WITHIN);
        }
        if round == "before" {
            cluster.kill9();
            cluster.start_again();
            eventually("the producer is there again", WITHIN, || {
                let probe = [Message::new("probes", "probe")];
                let sent = client.try_send("producer", Mode::Sync, None, &probe);
                sent.failed.is_empty().then_some(())
            });
        }
    }
    for topic in ["left", "right"] {
        let of_topic: Vec<Message> = sent.iter().filter(|m| m.topic == topic).cloned().collect();
        ledger::equal(&of_topic, &client.received(&format!("good-{topic}")));
    }
}
