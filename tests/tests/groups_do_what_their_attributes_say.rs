//! What an operator sets of a group takes effect for its consumers: how many queues its retries have, how long they wait, whether
//! its members are told of each other, and which broker they are to read from.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Received, eventually, raw,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);

fn set_group(client: &mut Client, cluster: &Cluster, group: &str, more: Value) {
    let brokers: Vec<String> = cluster.brokers().into_values().collect();
    let mut verb = json!({"brokers": brokers, "group": group});
    for (name, value) in more.as_object().expect("members") {
        verb[name] = value.clone();
    }
    client.call("set_group", verb);
}

fn failing(topic: &str, name: &str, count: usize, fails: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")).property("fails", fails))
        .collect()
}

/// The tries of one message, in their order.
fn tries<'a>(received: &'a [Received], key: &str) -> Vec<&'a Received> {
    let mut tries: Vec<_> = received.iter().filter(|r| r.key == key).collect();
    tries.sort_by_key(|r| r.number);
    tries
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn retries_have_as_many_queues_and_wait_as_long_as_their_group_says() {
    let mut cluster = Cluster::start(
        &Options::new()
            .shards(2)
            .set("message_delay_levels", "1s 1s 1s 1s 30m"),
    );
    cluster.create_topic("retried", 2);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");

    // Three queues for what comes again, none, and one without retries.
    set_group(&mut client, &cluster, "three", json!({"retry_queues": 3}));
    set_group(&mut client, &cluster, "none", json!({"retry_queues": 0}));
    // A policy of the group's own instead of the levels; as with these, the first two are not for retries.
    let custom =
        json!({"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [1, 1, 1000, 4000]}});
    set_group(
        &mut client,
        &cluster,
        "custom",
        json!({"retry_policy": custom}),
    );
    let exponential = json!({"type": "EXPONENTIAL", "exponentialRetryPolicy": {"initial": 1000, "max": 3000, "multiplier": 3}});
    set_group(
        &mut client,
        &cluster,
        "exponential",
        json!({"retry_policy": exponential}),
    );
    let broker = cluster.broker();
    let shown = |client: &mut Client, group: &str| {
        client.call("group", json!({"broker": broker, "group": group}))
    };
    let kept = |client: &mut Client| {
        let config = shown(client, "custom");
        assert_eq!(
            config["retry_policy"]["customizedRetryPolicy"]["next"],
            json!([1, 1, 1000, 4000])
        );
        let config = shown(client, "exponential");
        assert_eq!(
            config["retry_policy"]["exponentialRetryPolicy"]["multiplier"],
            3
        );
        assert_eq!(shown(client, "three")["retry_queues"], 3);
    };
    kept(&mut client);
    let groups = ["three", "none", "custom", "exponential"];
    for group in groups {
        client.consumer(&Consumer::new(group, "retried").with("threads", 4));
    }
    client.send("producer", Mode::Sync, &failing("retried", "once", 24, 1));
    client.send("producer", Mode::Sync, &failing("retried", "twice", 1, 2));
    let all = 25 + 24 + 2;
    for group in ["three", "custom", "exponential"] {
        client.deliveries(group, all, WITHIN, |_| true);
    }
    std::thread::sleep(Duration::from_secs(2));
    for group in ["three", "custom", "exponential"] {
        assert_eq!(client.received(group).len(), all, "{group}");
    }
    // Without a queue for retries a failure is the end of it.
    assert_eq!(client.received("none").len(), 25);
    let route = raw::route(cluster.nameserver(), "%RETRY%three");
    assert!(
        route.len() == 2 && route.values().all(|queues| *queues == 3),
        "{route:?}"
    );
    let again = client.received("three");
    let used: BTreeSet<i32> = again
        .iter()
        .filter(|r| r.reconsume_times > 0)
        .map(|r| r.place.queue)
        .collect();
    assert_eq!(used, BTreeSet::from([0, 1, 2]));
    for (group, waits_ms) in [("custom", [1000, 4000]), ("exponential", [1000, 3000])] {
        let received = client.received(group);
        let tries = tries(&received, "twice 0");
        for (i, wait_ms) in waits_ms.into_iter().enumerate() {
            let waited_ms = tries[i + 1].stored_ms - tries[i].received_ms;
            assert!(
                (wait_ms - 50..wait_ms + 2500).contains(&waited_ms),
                "{group}: try {i} waited {waited_ms} ms, not {wait_ms}"
            );
        }
    }
    cluster.kill9();
    cluster.start_again();
    kept(&mut Client::start(Language::Java, &cluster));
}

fn assigned(client: &mut Client, name: &str) -> usize {
    let answer = client.call("assigned", json!({"name": name, "topic": "told"}));
    answer["queues"].as_array().map_or(0, Vec::len)
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn members_are_told_of_each_other_unless_their_group_says_no() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("told", 6);
    // By themselves these clients look for others every two minutes.
    let mut client = Client::start_with(
        Language::Java,
        cluster.nameserver(),
        cluster.dir(),
        &["rocketmq.client.rebalance.waitInterval=120000"],
    );
    // Brokers for the other reads, if there were any; it says nothing of this one.
    set_group(
        &mut client,
        &cluster,
        "group",
        json!({"notify": false, "broker_id": 3, "slow_broker_id": 4}),
    );
    let broker = cluster.broker();
    let config = client.call("group", json!({"broker": broker, "group": "group"}));
    assert_eq!(
        [
            &config["notify"],
            &config["broker_id"],
            &config["slow_broker_id"]
        ],
        [&json!(false), &json!(3), &json!(4)]
    );
    client.consumer(&Consumer::new("group", "told").name("first"));
    eventually("the first one has all queues", WITHIN, || {
        (assigned(&mut client, "first") == 12).then_some(())
    });
    client.consumer(&Consumer::new("group", "told").name("second"));
    eventually("both are members", WITHIN, || {
        (client.connections("group").len() == 2).then_some(())
    });
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(
            assigned(&mut client, "first"),
            12,
            "it was told of the second one"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    set_group(
        &mut client,
        &cluster,
        "group",
        json!({"broker_id": 3, "slow_broker_id": 4}),
    );
    client.consumer(&Consumer::new("group", "told").name("third"));
    eventually("the queues are shared", Duration::from_secs(30), || {
        ["first", "second", "third"]
            .iter()
            .all(|name| assigned(&mut client, name) == 4)
            .then_some(())
    });
    client.producer("producer");
    let messages: Vec<Message> = (0..24)
        .map(|i| Message::new("told", format!("message {i}")))
        .collect();
    client.send("producer", Mode::Sync, &messages);
    eventually("all have come", WITHIN, || {
        let counts = ["first", "second", "third"].map(|name| client.received_count(name));
        (counts.iter().sum::<usize>() == 24).then_some(())
    });
}
