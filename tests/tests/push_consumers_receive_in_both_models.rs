//! In clustering a group gets each message once; in broadcasting each of its consumers gets every message. A message wakes
//! the pulls that wait for it.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Model, Options, in_java_and_go, ledger,
    now_ms,
};

in_java_and_go!(
    each_group_receives_each_message_once,
    each_broadcasting_consumer_receives_all,
    a_message_wakes_waiting_pulls
);

const WITHIN: Duration = Duration::from_secs(30);

fn numbered(topic: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("message {i}")))
        .collect()
}

fn each_group_receives_each_message_once(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("clustering", 4);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let messages = numbered("clustering", 40);
    client.send("producer", Mode::Sync, &messages[..20]);
    for group in ["one", "other"] {
        client.consumer(&Consumer::new(group, "clustering"));
    }
    client.send("producer", Mode::Sync, &messages[20..]);
    for group in ["one", "other"] {
        ledger::equal(&messages, &client.receive(group, messages.len(), WITHIN));
    }
}

fn each_broadcasting_consumer_receives_all(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("broadcasting", 4);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let messages = numbered("broadcasting", 40);
    client.send("producer", Mode::Sync, &messages[..20]);
    for name in ["first", "second"] {
        client.consumer(
            &Consumer::new("group", "broadcasting")
                .name(name)
                .model(Model::Broadcasting),
        );
    }
    client.send("producer", Mode::Sync, &messages[20..]);
    for name in ["first", "second"] {
        ledger::equal(&messages, &client.receive(name, messages.len(), WITHIN));
    }
}

fn a_message_wakes_waiting_pulls(language: Language) {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("waiting", 1);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "waiting"));
    client.send("producer", Mode::Sync, &numbered("waiting", 1));
    client.receive("group", 1, WITHIN);
    // Long enough for every pull to wait, and far less than a held pull waits.
    std::thread::sleep(Duration::from_secs(2));
    let start_ms = now_ms();
    client.send("producer", Mode::Sync, &[Message::new("waiting", "late")]);
    client.receive("group", 2, WITHIN);
    let took_ms = now_ms() - start_ms;
    assert!(
        took_ms < 2000,
        "the message came after {took_ms} ms: its pull was not woken"
    );
}

/// However a consumer takes the messages, in large pulls or small ones, much ahead or little, it gets them all in their order.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn pulls_of_every_size_receive_the_same() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("sized", 1);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    let mut all = Vec::new();
    for (i, queue) in queues.iter().enumerate() {
        let messages: Vec<Message> = (0..300)
            .map(|n| Message {
                // More in all than one answer holds.
                body_bytes: if n % 10 == 0 { 40_000 } else { 10 },
                ..Message::new("sized", format!("{i} {n}"))
            })
            .collect();
        for part in messages.chunks(50) {
            client.send_to(queue, "producer", Mode::Batch, part);
        }
        all.extend(messages);
    }
    for (group, pull, consume, threshold) in [
        ("tiny", 1, 1, 2),
        ("even", 8, 8, 16),
        ("ragged", 7, 3, 10),
        ("huge", 1024, 1024, 1000),
    ] {
        let consumer = Consumer::new(group, "sized").with("pull_batch", pull);
        let consumer = consumer.with("consume_batch", consume);
        client.consumer(&consumer.with("threshold", threshold));
    }
    for group in ["tiny", "even", "ragged", "huge"] {
        let received = client.receive(group, all.len(), WITHIN);
        ledger::equal(&all, &received);
        ledger::came_in_order(&received);
    }
}
