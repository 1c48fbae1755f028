//! Topics come from admin clients, from the mqadmin command, or by themselves with the first message; each way their routes
//! are known at once, and after a delete they are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, eventually, in_java_and_go,
    ledger, raw,
};
use serde_json::{Value, json};

in_java_and_go!(
    an_admin_client_makes_and_deletes_topics,
    the_first_message_makes_a_topic,
    no_topic_comes_by_itself_when_forbidden
);

const WITHIN: Duration = Duration::from_secs(30);

fn wait_route(cluster: &Cluster, topic: &str, queues: i64) -> BTreeMap<String, i64> {
    let brokers = cluster.brokers();
    let wanted: BTreeMap<String, i64> = brokers.into_keys().map(|name| (name, queues)).collect();
    eventually(
        &format!("{topic} has {queues} queues on each shard"),
        WITHIN,
        || {
            let route = raw::route(cluster.nameserver(), topic);
            (route == wanted).then_some(route)
        },
    )
}

fn wait_no_route(cluster: &Cluster, topic: &str) {
    eventually(&format!("{topic} has no route any more"), WITHIN, || {
        raw::route(cluster.nameserver(), topic)
            .is_empty()
            .then_some(())
    });
}

fn listed(client: &mut Client, topic: &str) -> bool {
    let list = client.call("topics", json!({}));
    list["topics"]
        .as_array()
        .is_some_and(|topics| topics.contains(&Value::from(topic)))
}

fn an_admin_client_makes_and_deletes_topics(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    let brokers: Vec<String> = cluster.brokers().into_values().collect();
    let mut client = Client::start(language, &cluster);
    client.call(
        "create_topic",
        json!({"topic": "made", "brokers": brokers, "queue_count": 3}),
    );
    wait_route(&cluster, "made", 3);
    assert!(listed(&mut client, "made"));
    // The same request changes a topic that is there.
    client.call(
        "create_topic",
        json!({"topic": "made", "brokers": brokers, "queue_count": 5}),
    );
    wait_route(&cluster, "made", 5);

    client.producer("producer");
    client.consumer(&Consumer::new("group", "made"));
    let messages: Vec<Message> = (0..20)
        .map(|i| Message::new("made", format!("message {i}")))
        .collect();
    client.send("producer", Mode::Sync, &messages);
    ledger::equal(&messages, &client.receive("group", messages.len(), WITHIN));
    client.shutdown("group");

    client.call("delete_topic", json!({"topic": "made", "brokers": brokers}));
    wait_no_route(&cluster, "made");
    assert!(!listed(&mut client, "made"));
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn an_admin_client_sees_the_cluster_its_consumers_and_their_progress() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("seen", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let info = client.call("cluster", json!({}));
    let brokers: BTreeMap<String, String> =
        serde_json::from_value(info["brokers"].clone()).expect("addresses by name");
    assert_eq!(brokers, cluster.brokers());
    let route = client.call("route", json!({"topic": "seen"}));
    assert_eq!(route["queues"].as_object().map(|q| q.len()), Some(2));

    client.producer("producer");
    client.consumer(&Consumer::new("group", "seen").name("watched"));
    let messages: Vec<Message> = (0..20)
        .map(|i| Message::new("seen", format!("message {i}")))
        .collect();
    client.send("producer", Mode::Sync, &messages);
    client.receive("watched", 20, WITHIN);
    let clients = eventually("the consumer is connected", WITHIN, || {
        Some(client.connections("group")).filter(|clients| !clients.is_empty())
    });
    assert!(
        clients.len() == 1 && clients[0].contains("watched"),
        "{clients:?}"
    );
    client.wait_committed("group", "seen", WITHIN);
    let offsets = client.call("offsets", json!({"topic": "seen", "timestamp_ms": 0}));
    let queues = offsets["queues"].as_array().expect("queues");
    assert_eq!(
        queues.iter().filter_map(|q| q["max"].as_i64()).sum::<i64>(),
        20
    );
    assert!(
        queues.iter().all(|q| q["min"] == 0 && q["at"] == 0),
        "{queues:?}"
    );
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn mqadmin_makes_lists_and_deletes_topics() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let nameserver = cluster.nameserver().to_owned();
    let mut client = Client::start(Language::Java, &cluster);
    let info = client.call("cluster", json!({}));
    let cluster_name = info["clusters"][0]
        .as_str()
        .expect("a cluster's name")
        .to_owned();
    let mut mqadmin = |args: &[&str]| -> String {
        let args: Vec<&str> = args.iter().copied().chain(["-n", &nameserver]).collect();
        let output = client.call("mqadmin", json!({"args": args}))["output"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(!output.contains("Exception"), "mqadmin {args:?}: {output}");
        output
    };
    let list = mqadmin(&["clusterList"]);
    for (name, address) in cluster.brokers() {
        assert!(
            list.contains(&name) && list.contains(&address),
            "clusterList: {list}"
        );
    }
    mqadmin(&[
        "updateTopic",
        "-c",
        &cluster_name,
        "-t",
        "commanded",
        "-r",
        "3",
        "-w",
        "3",
    ]);
    wait_route(&cluster, "commanded", 3);
    assert!(
        mqadmin(&["topicList"])
            .lines()
            .any(|line| line == "commanded")
    );
    let route = mqadmin(&["topicRoute", "-t", "commanded"]);
    assert!(
        cluster
            .brokers()
            .into_values()
            .all(|address| route.contains(&address)),
        "topicRoute: {route}"
    );
    mqadmin(&["deleteTopic", "-c", &cluster_name, "-t", "commanded"]);
    wait_no_route(&cluster, "commanded");
    assert!(
        !mqadmin(&["topicList"])
            .lines()
            .any(|line| line == "commanded")
    );
}

fn the_first_message_makes_a_topic(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let messages: Vec<Message> = (0..20)
        .map(|i| Message::new("by-itself", format!("message {i}")))
        .collect();
    client.send("producer", Mode::Sync, &messages);
    eventually("the topic has a route", WITHIN, || {
        (!raw::route(cluster.nameserver(), "by-itself").is_empty()).then_some(())
    });
    client.consumer(&Consumer::new("group", "by-itself"));
    ledger::equal(&messages, &client.receive("group", messages.len(), WITHIN));
}

fn no_topic_comes_by_itself_when_forbidden(language: Language) {
    let cluster = Cluster::start(&Options::new().set("auto_create_topic", "false"));
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    let outcome = client.try_send(
        "producer",
        Mode::Sync,
        None,
        &[Message::new("forbidden", "message")],
    );
    assert_eq!((outcome.sent.len(), outcome.failed.len()), (0, 1));
    assert!(raw::route(cluster.nameserver(), "forbidden").is_empty());
}

/// How many queues such a topic gets is what its producer asks for, within what its template has; a template that is not to be
/// inherited makes nothing.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn a_topic_that_comes_by_itself_is_like_its_template() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let brokers: Vec<String> = cluster.brokers().into_values().collect();
    let mut client = Client::start(Language::Java, &cluster);
    for (template, perm) in [("template", 7), ("sterile", 6)] {
        let verb =
            json!({"brokers": brokers, "topic": template, "read": 3, "write": 3, "perm": perm});
        client.call("set_topic", verb);
        wait_route(&cluster, template, 3);
    }
    let cases = [
        ("two", json!({"default_queues": 2}), Some(2)),
        ("many", json!({"default_queues": 100}), Some(8)),
        (
            "alike",
            json!({"default_queues": 3, "template": "template"}),
            Some(3),
        ),
        (
            "never",
            json!({"default_queues": 8, "template": "sterile"}),
            None,
        ),
        (
            "nowhere",
            json!({"default_queues": 8, "template": "unknown"}),
            None,
        ),
    ];
    for (topic, options, queues) in cases {
        client.producer_with(topic, options);
        let messages: Vec<Message> = (0..40)
            .map(|i| Message::new(topic, format!("message {i}")))
            .collect();
        let outcome = client.try_send(topic, Mode::Sync, None, &messages[..1]);
        let Some(queues) = queues else {
            assert!(outcome.sent.is_empty(), "{topic}: {outcome:?}");
            assert!(raw::route(cluster.nameserver(), topic).is_empty());
            continue;
        };
        assert!(outcome.failed.is_empty(), "{topic}: {outcome:?}");
        // The other shard makes the topic when its turn comes.
        client.send(topic, Mode::Sync, &messages[1..]);
        wait_route(&cluster, topic, queues);
        let config = client.call("topic", json!({"broker": brokers[0], "topic": topic}));
        let numbers = ["read", "write", "perm"].map(|name| config[name].as_i64());
        assert_eq!(numbers, [Some(queues), Some(queues), Some(6)], "{topic}");
    }
}

/// The queues of a topic in order are those that the NameServer says, whatever brokers come and go, or are taken out of
/// writing.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn the_queues_of_an_order_topic_are_what_the_nameserver_says() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let nameserver = cluster.nameserver().to_owned();
    let brokers = cluster.brokers();
    let names: Vec<&String> = brokers.keys().collect();
    let mut client = Client::start(Language::Java, &cluster);
    let addresses: Vec<&String> = brokers.values().collect();
    client.call(
        "set_topic",
        json!({"brokers": addresses, "topic": "sequence", "read": 4, "write": 4, "order": true}),
    );
    wait_route(&cluster, "sequence", 4);
    client.call(
        "set_topic",
        json!({"brokers": addresses, "topic": "plain", "read": 4, "write": 4}),
    );
    wait_route(&cluster, "plain", 4);
    let conf = format!("{}:1;{}:2", names[0], names[1]);
    let mqadmin = |client: &mut Client, args: &[&str]| -> String {
        let args: Vec<&str> = args.iter().copied().chain(["-n", &nameserver]).collect();
        let answer = client.call("mqadmin", json!({"args": args}));
        answer["output"].as_str().unwrap_or_default().to_owned()
    };
    let orders = |client: &mut Client, args: &[&str]| {
        let order = ["updateOrderConf", "-t", "sequence"];
        mqadmin(client, &[&order, args].concat())
    };
    let shows_orders = [
        "updateNamesrvConfig",
        "-k",
        "orderMessageEnable",
        "-v",
        "true",
    ];
    mqadmin(&mut client, &shows_orders);
    orders(&mut client, &["-v", &conf, "-m", "put"]);
    let told = orders(&mut client, &["-m", "get"]);
    assert!(told.contains(&conf), "{told}");
    let used = |client: &mut Client, producer: &str, topic: &str| {
        client.producer(producer);
        let messages: Vec<Message> = (0..24)
            .map(|i| Message::new(topic, format!("message {i}")))
            .collect();
        let sent = client.send(producer, Mode::Sync, &messages);
        let mut used: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for s in sent {
            let queues = used.entry(s.place.broker).or_default();
            if !queues.contains(&s.place.queue) {
                queues.push(s.place.queue);
                queues.sort_unstable();
            }
        }
        used
    };
    let wanted = BTreeMap::from([(names[0].clone(), vec![0]), (names[1].clone(), vec![0, 1])]);
    assert_eq!(used(&mut client, "in-order", "sequence"), wanted);
    // Consumers have all of them.
    client.consumer(&Consumer::new("group", "sequence"));
    client.receive("group", 24, WITHIN);

    // Nobody sends to a broker without permission to write, but where its queues are named.
    let all = (0..4).collect::<Vec<i32>>();
    let wiped = mqadmin(&mut client, &["wipeWritePerm", "-b", names[0]]);
    assert!(wiped.contains("OK"), "{wiped}");
    let other = BTreeMap::from([(names[1].clone(), all.clone())]);
    assert_eq!(used(&mut client, "plain-wiped", "plain"), other);
    assert_eq!(used(&mut client, "wiped", "sequence"), wanted);
    let added = mqadmin(&mut client, &["addWritePerm", "-b", names[0]]);
    assert!(added.contains("OK"), "{added}");
    let both = BTreeMap::from([(names[0].clone(), all.clone()), (names[1].clone(), all)]);
    assert_eq!(used(&mut client, "plain-again", "plain"), both);

    orders(&mut client, &["-m", "delete"]);
    assert_eq!(used(&mut client, "free", "sequence"), both);
}
