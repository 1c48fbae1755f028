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
