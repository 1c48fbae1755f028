//! A consumer with a tag expression gets the messages of these tags and no others, and is not stopped by a long stretch of
//! others.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, in_java_and_go, ledger,
};

in_java_and_go!(only_subscribed_tags_arrive);

fn only_subscribed_tags_arrive(language: Language) {
    let cluster = Cluster::start(&Options::new());
    let queues = cluster.create_topic("tags", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let tags = ["apple", "pear", "plum", ""];
    let mixed: Vec<Message> = (0..40)
        .map(|i| Message::new("tags", format!("mixed {i}")).tag(tags[i % tags.len()]))
        .collect();
    client.send("producer", Mode::Sync, &mixed);
    let others: Vec<Message> = (0..500)
        .map(|i| Message::new("tags", format!("other {i}")).tag("pear"))
        .collect();
    client.send_to(&queues[0], "producer", Mode::Batch, &others);
    let last = Message::new("tags", "last").tag("plum");
    client.send_to(
        &queues[0],
        "producer",
        Mode::Sync,
        std::slice::from_ref(&last),
    );

    client.consumer(&Consumer::new("two-tags", "tags").expression("apple || plum"));
    client.consumer(&Consumer::new("no-such-tag", "tags").expression("cherry"));
    let wanted: Vec<Message> = mixed
        .into_iter()
        .filter(|m| m.tag == "apple" || m.tag == "plum")
        .chain([last])
        .collect();
    let received = client.receive("two-tags", wanted.len(), Duration::from_secs(30));
    // Time for what should not come.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(client.received("two-tags").len(), wanted.len());
    ledger::equal(&wanted, &received);
    assert_eq!(client.received_count("no-such-tag"), 0);
}
