//! A namespace keeps topics and groups apart, with their retries and dead letters, although to the broker it is a part of their
//! names only.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, eventually, in_java_and_go,
    ledger, raw,
};
use serde_json::json;

in_java_and_go!(
    the_same_names_are_different_topics_and_groups,
    retries_and_dead_letters_stay_in_their_namespace
);

const WITHIN: Duration = Duration::from_secs(60);

fn numbered(topic: &str, name: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")))
        .collect()
}

/// The same names in two namespaces and without one are three topics and three groups.
fn the_same_names_are_different_topics_and_groups(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    for topic in ["apart", "one%apart", "two%apart"] {
        cluster.create_topic(topic, 2);
    }
    let mut client = Client::start(language, &cluster);
    for namespace in ["", "one", "two"] {
        let name = format!("of-{namespace}");
        let mut consumer = Consumer::new("group", "apart").name(&name);
        let mut producer = json!({"group": "producers"});
        if !namespace.is_empty() {
            consumer = consumer.with("namespace", namespace);
            producer["namespace"] = namespace.into();
        }
        client.consumer(&consumer);
        let producer_name = format!("producer-{namespace}");
        client.producer_with(&producer_name, producer);
        client.send(&producer_name, Mode::Sync, &numbered("apart", &name, 10));
    }
    for namespace in ["", "one", "two"] {
        let name = format!("of-{namespace}");
        client.deliveries(&name, 10, WITHIN, |_| true);
    }
    std::thread::sleep(Duration::from_secs(1));
    for namespace in ["", "one", "two"] {
        let name = format!("of-{namespace}");
        // The Go client shows the namespace.
        let topic = match language {
            Language::Go if !namespace.is_empty() => format!("{namespace}%apart"),
            _ => "apart".to_owned(),
        };
        ledger::equal(&numbered(&topic, &name, 10), &client.received(&name));
    }
}

/// How often each key was consumed.
fn tries(client: &Client, consumer: &str) -> BTreeMap<String, usize> {
    let mut tries = BTreeMap::new();
    for r in client.received(consumer) {
        *tries.entry(r.key).or_default() += 1;
    }
    tries
}

fn retries_and_dead_letters_stay_in_their_namespace(language: Language) {
    let options = Options::new().shards(2);
    let cluster = Cluster::start(&options.set("message_delay_levels", "1s 1s 1s 1s"));
    for topic in ["apart", "one%apart"] {
        cluster.create_topic(topic, 2);
    }
    let mut client = Client::start(language, &cluster);
    for namespace in ["", "one"] {
        let (consumer, producer) = (format!("c-{namespace}"), format!("p-{namespace}"));
        let mut options = json!({"group": "producers"});
        let mut group = Consumer::new("group", "apart").with("max_reconsume", 1);
        if !namespace.is_empty() {
            options["namespace"] = namespace.into();
            group = group.with("namespace", namespace);
        }
        client.producer_with(&producer, options);
        client.consumer(&group.name(&consumer));
        let messages = [("good", 0), ("once", 1), ("always", 2)].map(|(name, fails)| {
            Message::new("apart", format!("{name} of ns-{namespace}")).property("fails", fails)
        });
        client.send(&producer, Mode::Sync, &messages);
    }
    for (namespace, dead) in [("", "%DLQ%group"), ("one", "%DLQ%one%group")] {
        client.deliveries(&format!("c-{namespace}"), 5, WITHIN, |_| true);
        eventually("the dead letters have a topic", WITHIN, || {
            (!raw::route(cluster.nameserver(), dead).is_empty()).then_some(())
        });
        let undertaker = format!("undertaker-{namespace}");
        client.consumer(&Consumer::new(&undertaker, dead));
        client.deliveries(&undertaker, 1, WITHIN, |_| true);
    }
    if language == Language::Java {
        // In a namespace the topic of dead letters has the name that the group has there.
        let inside = Consumer::new("undertaker", "%DLQ%group").with("namespace", "one");
        client.consumer(&inside.name("inside"));
        client.deliveries("inside", 1, WITHIN, |_| true);
    }
    std::thread::sleep(Duration::from_secs(3));
    for namespace in ["", "one"] {
        let key = |name: &str| format!("{name} of ns-{namespace}");
        let wanted = [(key("always"), 2), (key("good"), 1), (key("once"), 2)];
        let seen = tries(&client, &format!("c-{namespace}"));
        assert_eq!(seen, wanted.into_iter().collect());
        let dead = tries(&client, &format!("undertaker-{namespace}"));
        assert_eq!(dead, [(key("always"), 1)].into_iter().collect());
    }
    if language == Language::Java {
        let dead = tries(&client, "inside");
        assert_eq!(
            dead,
            [("always of ns-one".to_owned(), 1)].into_iter().collect()
        );
    }
}

/// What the newer way of namespaces adds to requests is for proxies: a broker takes the names as they are.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn the_second_version_changes_no_name() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("apart", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let mut all = Vec::new();
    for namespace in ["one", "two"] {
        let producer = format!("producer-{namespace}");
        client.producer_with(&producer, json!({"namespace_v2": namespace}));
        let consumer = Consumer::new("group", "apart").name(namespace);
        client.consumer(&consumer.with("namespace_v2", namespace));
        let messages = numbered("apart", namespace, 10);
        client.send(&producer, Mode::Sync, &messages);
        all.extend(messages);
    }
    let received = eventually("the group has all messages", WITHIN, || {
        let received = [client.received("one"), client.received("two")].concat();
        (received.len() >= all.len()).then_some(received)
    });
    ledger::equal(&all, &received);
}
