//! What a group has committed stays committed: after kill -9 of the broker it receives new messages only.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, in_java_and_go, ledger, raw,
};

in_java_and_go!(a_group_receives_only_new_messages);

const WITHIN: Duration = Duration::from_secs(30);

fn a_group_receives_only_new_messages(language: Language) {
    let mut cluster = Cluster::start(
        &Options::new()
            .shards(2)
            .set("offset_commit_interval_ms", "200"),
    );
    let queues = cluster.create_topic("offsets", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let messages = |name: &str| -> Vec<Message> {
        (0..40)
            .map(|i| Message::new("offsets", format!("{name} {i}")))
            .collect()
    };
    client.send("producer", Mode::Sync, &messages("before"));
    client.consumer(&Consumer::new("group", "offsets").name("before"));
    client.receive("before", 40, WITHIN);
    std::thread::sleep(Duration::from_millis(500));
    client.shutdown("before");
    let addresses = cluster.brokers();
    corelane_tests::eventually("all is committed", WITHIN, || {
        let committed: i64 = queues
            .iter()
            .filter_map(|q| raw::committed(&addresses[&q.broker], "group", "offsets", q.id))
            .sum();
        (committed == 40).then_some(())
    });
    // Offsets are durable a moment after they are committed.
    std::thread::sleep(Duration::from_secs(1));
    cluster.kill9();
    cluster.start_again();

    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "offsets").name("after"));
    client.send("producer", Mode::Sync, &messages("after"));
    ledger::equal(&messages("after"), &client.receive("after", 40, WITHIN));
}
