//! SEND_OK means that a message is there, whatever happens to the broker: after kill -9 and after a restart, under load, all
//! acknowledged messages are consumed, in their order, from where they were said to lie.

use std::time::Duration;

use corelane_tests::client::UNTIL_STOPPED;
use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Stream, eventually,
    in_java_and_go, ledger,
};
use serde_json::json;

/// As often as `CORELANE_KILLS` says, or 100 times:
/// `CORELANE_KILLS=1000 cargo test -p corelane-tests --test acknowledged_messages_survive_kill_9 many -- --ignored`
#[test]
#[ignore = "takes as long as it is told to"]
fn killed_many_times_under_load() {
    let times =
        std::env::var("CORELANE_KILLS").map_or(100, |times| times.parse().expect("a number"));
    interrupted_under_load(Language::Go, "killed", times, Cluster::kill9);
}

in_java_and_go!(
    killed_three_times_under_load,
    terminated_under_load,
    everything_is_there_for_a_group_of_later
);

const WITHIN: Duration = Duration::from_secs(90);

fn killed_three_times_under_load(language: Language) {
    interrupted_under_load(language, "killed", 3, Cluster::kill9);
}

fn terminated_under_load(language: Language) {
    interrupted_under_load(language, "terminated", 2, |cluster| {
        // Far more than it takes, unless others keep the disk from what was accepted.
        let status = cluster.sigterm(Duration::from_secs(30));
        assert!(status.success(), "SIGTERM under load: {status}");
    });
}

fn interrupted_under_load(
    language: Language,
    topic: &str,
    times: usize,
    interrupt: impl Fn(&mut Cluster),
) {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic(topic, 4);
    let mut client = Client::start(language, &cluster);
    client.producer_with("producer", json!({"timeout_ms": 3000}));
    client.consumer(&Consumer::new("group", topic));
    let stream = client.stream("producer", topic, &queues, UNTIL_STOPPED, 300);
    for time in 0..times {
        // Not always in the same state of things.
        flow(&client, stream, 200 + time * 397 % 1600);
        interrupt(&mut cluster);
        cluster.start_again();
    }
    flow(&client, stream, 1000);
    client.stop(stream);
    let outcome = client.end(stream, WITHIN);

    let received = ledger::receive_all(&[(&client, "group")], &outcome.sent, WITHIN);
    ledger::no_two_at_one_place(&outcome.sent);
    ledger::nothing_lost(&outcome.sent, &received);
    ledger::in_order(&received);
    assert!(
        !outcome.failed.is_empty(),
        "the broker was never missed: this test did not interrupt the stream"
    );
}

/// Waits until so many more messages are acknowledged.
fn flow(client: &Client, stream: Stream, count: usize) {
    let before = client.acknowledged(stream);
    eventually("messages flow", WITHIN, || {
        (client.acknowledged(stream) >= before + count).then_some(())
    });
}

/// The consumer did not exist before the crash; nothing of what it gets was ever read from memory.
fn everything_is_there_for_a_group_of_later(language: Language) {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("later", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let tagged = |name: &str| -> Vec<Message> {
        (0..50)
            .map(|i| Message {
                body_bytes: i * 200,
                ..Message::new("later", format!("{name} {i}")).tag("t")
            })
            .collect()
    };
    let (single, batch) = (tagged("single"), tagged("batch"));
    client.send("producer", Mode::Sync, &single);
    client.send("producer", Mode::Batch, &batch);
    cluster.kill9();
    cluster.start_again();
    // A new process: it knows nothing of before.
    let mut client = Client::start(language, &cluster);
    client.consumer(&Consumer::new("group", "later"));
    let all = [single, batch].concat();
    ledger::equal(&all, &client.receive("group", all.len(), WITHIN));
    client.producer("producer");
    let after = tagged("after");
    client.send("producer", Mode::Sync, &after);
    ledger::equal(
        &[all, after].concat(),
        &client.receive("group", 150, WITHIN),
    );
}
