//! A consumer without a stored offset starts at the first message, after the last, or at a time; a group that comes back
//! goes on where it was.

use std::thread::sleep;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, From, Language, Message, Mode, Model, Options, eventually,
    in_java_and_go, ledger, now_ms,
};

in_java_and_go!(
    a_group_on_a_young_topic_starts_at_zero,
    broadcasting_starts_where_it_says,
    a_group_goes_on_where_it_was
);

const WITHIN: Duration = Duration::from_secs(30);

/// Sends ten messages before and ten after a whole second, which is returned in milliseconds since 1970.
fn send_early_and_late(client: &mut Client, topic: &str) -> (Vec<Message>, Vec<Message>, i64) {
    let messages = |name: &str| -> Vec<Message> {
        (0..10)
            .map(|i| Message::new(topic, format!("{name} {i}")))
            .collect()
    };
    let (early, late) = (messages("early"), messages("late"));
    client.producer("producer");
    client.send("producer", Mode::Sync, &early);
    let between_ms = (now_ms() / 1000 + 1) * 1000;
    while now_ms() <= between_ms {
        sleep(Duration::from_millis(20));
    }
    client.send("producer", Mode::Sync, &late);
    (early, late, between_ms)
}

/// RocketMQ gives a new group the whole of a topic whose first message is still there and not far back, whatever the group
/// asks for: so a group that was made a moment too late misses nothing.
fn a_group_on_a_young_topic_starts_at_zero(language: Language) {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("young", 2);
    let mut client = Client::start(language, &cluster);
    let (early, late, between_ms) = send_early_and_late(&mut client, "young");
    let all = [early, late].concat();
    for (group, from) in [
        ("first", From::First),
        ("last", From::Last),
        ("by-time", From::TimestampMs(between_ms)),
    ] {
        client.consumer(&Consumer::new(group, "young").from(from));
        ledger::equal(&all, &client.receive(group, all.len(), WITHIN));
    }
}

/// In broadcasting no broker knows the group, so the client asks for the end or the offset of the time itself.
fn broadcasting_starts_where_it_says(language: Language) {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("starts", 2);
    let mut client = Client::start(language, &cluster);
    let (early, late, between_ms) = send_early_and_late(&mut client, "starts");
    for (group, from) in [
        ("first", From::First),
        ("last", From::Last),
        ("by-time", From::TimestampMs(between_ms)),
    ] {
        client.consumer(
            &Consumer::new(group, "starts")
                .model(Model::Broadcasting)
                .from(from),
        );
    }
    ledger::equal(
        &[early, late.clone()].concat(),
        &client.receive("first", 20, WITHIN),
    );
    ledger::equal(&late, &client.receive("by-time", 10, WITHIN));
    let mut next = 0;
    eventually(
        "the one that starts after the last message receives a new one",
        WITHIN,
        || {
            client.send(
                "producer",
                Mode::Sync,
                &[Message::new("starts", format!("new {next}"))],
            );
            next += 1;
            sleep(Duration::from_millis(200));
            (client.received_count("last") > 0).then_some(())
        },
    );
    let received = client.received("last");
    assert!(
        received.iter().all(|r| r.key.starts_with("new")),
        "messages from before the start: {received:?}"
    );
}

/// A pull consumer that seeks.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn a_pull_consumer_seeks_to_first_last_and_timestamp() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("seeks", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let (early, late, between_ms) = send_early_and_late(&mut client, "seeks");
    for (name, from) in [
        ("first", From::First),
        ("last", From::Last),
        ("by-time", From::TimestampMs(between_ms)),
    ] {
        client.lite_pull(name, &format!("{name}-group"), "seeks", &from);
    }
    let new = vec![Message::new("seeks", "new")];
    client.send("producer", Mode::Sync, &new);
    ledger::equal(
        &[early, late.clone(), new.clone()].concat(),
        &client.receive("first", 21, WITHIN),
    );
    ledger::equal(
        &[late, new.clone()].concat(),
        &client.receive("by-time", 11, WITHIN),
    );
    ledger::equal(&new, &client.receive("last", 1, WITHIN));
}

fn a_group_goes_on_where_it_was(language: Language) {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("goes-on", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let messages = |name: &str| -> Vec<Message> {
        (0..10)
            .map(|i| Message::new("goes-on", format!("{name} {i}")))
            .collect()
    };
    client.send("producer", Mode::Sync, &messages("before"));
    client.consumer(&Consumer::new("group", "goes-on").name("first time"));
    client.receive("first time", 10, WITHIN);
    // A message counts as consumed a moment after its listener has returned.
    sleep(Duration::from_millis(500));
    client.shutdown("first time");
    client.send("producer", Mode::Sync, &messages("between"));
    client.consumer(&Consumer::new("group", "goes-on").name("second time"));
    ledger::equal(
        &messages("between"),
        &client.receive("second time", 10, WITHIN),
    );
}
