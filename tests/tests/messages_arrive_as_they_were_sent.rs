//! Whatever way a message is sent, a consumer sees the same topic, tag, key, properties and body, and the id and the place
//! that the producer was told.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Sent, in_java_and_go, ledger,
};
use serde_json::json;

in_java_and_go!(every_mode_arrives, large_bodies_arrive);

const WITHIN: Duration = Duration::from_secs(30);

fn every_mode_arrives(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    let client = Client::start(language, &cluster);
    send_in_every_mode_and_compare(&cluster, client, language);
}

/// The other header serialisation that a Java client can be told to use.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn the_rocketmq_header_serialisation_arrives() {
    let cluster = Cluster::start(&Options::new());
    let client = Client::start_with(
        Language::Java,
        cluster.nameserver(),
        cluster.dir(),
        &["rocketmq.serialize.type=ROCKETMQ"],
    );
    send_in_every_mode_and_compare(&cluster, client, Language::Java);
}

/// Clients of the old days send to the port two below.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn the_vip_channel_arrives() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("vip", 1);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer_with("producer", json!({"vip_channel": true}));
    client.consumer(&Consumer::new("group", "vip"));
    let messages = [Message::new("vip", "one"), Message::new("vip", "two")];
    client.send("producer", Mode::Sync, &messages);
    ledger::equal(&messages, &client.receive("group", 2, WITHIN));
}

fn large_bodies_arrive(language: Language) {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("large", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "large"));
    // The clients compress bodies of 4 KiB and more; batches are never compressed.
    let sized = |bytes: usize| Message {
        body_bytes: bytes,
        ..Message::new("large", format!("{bytes} bytes"))
    };
    let single: Vec<Message> = [4_095, 4_096, 65_536, 1_000_000, 4 * 1024 * 1024]
        .map(sized)
        .to_vec();
    let batch: Vec<Message> = [1_000_001, 1_000_002, 1_000_003].map(sized).to_vec();
    client.send("producer", Mode::Sync, &single);
    client.send("producer", Mode::Batch, &batch);
    let all = [single, batch].concat();
    ledger::equal(&all, &client.receive("group", all.len(), WITHIN));
}

fn send_in_every_mode_and_compare(cluster: &Cluster, mut client: Client, language: Language) {
    let topic = "every-mode";
    cluster.create_topic(topic, 4);
    client.producer("producer");
    client.consumer(&Consumer::new("group", topic));
    let (mut messages, mut sent) = (Vec::new(), Vec::new());
    for mode in [Mode::Sync, Mode::Async, Mode::Oneway, Mode::Batch] {
        let these: Vec<Message> = (0..20).map(|i| message(topic, mode, i)).collect();
        let acknowledged = client.send("producer", mode, &these);
        match mode {
            Mode::Oneway => assert!(acknowledged.is_empty()),
            _ => assert_eq!(acknowledged.len(), these.len(), "{mode:?}"),
        }
        if mode == Mode::Batch {
            assert_consecutive(&acknowledged);
        }
        messages.extend(these);
        sent.extend(acknowledged);
    }
    let received = client.receive("group", messages.len(), WITHIN);
    ledger::equal(&messages, &received);
    ledger::nothing_twice(&received);
    ledger::no_two_at_one_place(&sent);
    ledger::nothing_lost(&sent, &received);

    let ids: BTreeMap<&str, &str> = received
        .iter()
        .map(|r| (r.key.as_str(), r.message_id.as_str()))
        .collect();
    let told = sent.iter().filter(|s| !s.message_id.is_empty());
    let same = told
        .inspect(|s| assert_eq!(ids[s.key.as_str()], s.message_id, "id of {}", s.key))
        .count();
    // The Go client is told no ids for a batch.
    assert_eq!(same, if language == Language::Go { 40 } else { 60 });
    for r in &received {
        assert!(
            r.born_ms <= r.stored_ms + 1000 && r.stored_ms - r.born_ms < 60_000,
            "times of {r:?}"
        );
    }
}

fn message(topic: &str, mode: Mode, i: usize) -> Message {
    let properties = [
        ("number", i.to_string()),
        ("text", "naïve ☃ = \"quoted\" {json: [1]}".to_owned()),
    ];
    Message {
        topic: topic.to_owned(),
        tag: ["even", "odd"][i % 2].to_owned(),
        key: format!("{mode:?}-{i}"),
        properties: properties.map(|(k, v)| (k.to_owned(), v)).into(),
        body: format!("message {i} in {mode:?}: grüße \u{1F680}\n\t\\"),
        body_bytes: i * 37,
        ..Message::default()
    }
}

fn assert_consecutive(batch: &[Sent]) {
    let first = &batch[0].place;
    for (i, s) in batch.iter().enumerate() {
        assert_eq!(
            (&s.place.broker, s.place.queue),
            (&first.broker, first.queue),
            "a batch lies in one queue"
        );
        assert_eq!(
            s.place.offset,
            first.offset + i as i64,
            "a batch has consecutive offsets"
        );
    }
}
