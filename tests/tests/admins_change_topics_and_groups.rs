//! What an operator sets of topics and groups takes effect for clients at once and holds after a kill -9: queues up and down,
//! permissions, limits of groups, deletes that leave nothing behind; and the broker shows who is there and what they do.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Model, Options, Queue, eventually, ledger,
    raw,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);

fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster.brokers().into_values().collect()
}

fn numbered(topic: &str, name: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")))
        .collect()
}

fn strings(value: &Value) -> BTreeSet<String> {
    let texts = value.as_array().into_iter().flatten();
    texts
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// The code that the client was refused with.
fn refused(what: &str, outcome: Result<Value, String>, code: &str) {
    let error = outcome.expect_err(what);
    assert!(error.contains(&format!("code {code}")), "{what}: {error}");
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn queues_and_permissions_of_a_topic() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    let brokers = addresses(&cluster);
    let mut client = Client::start(Language::Java, &cluster);
    let set = |client: &mut Client, read: i64, write: i64, perm: i64| {
        client.call(
            "set_topic",
            json!({"brokers": brokers, "topic": "changed", "read": read, "write": write, "perm": perm}),
        );
    };
    let shown = |client: &mut Client| {
        let answers: Vec<Value> = brokers
            .iter()
            .map(|b| client.call("topic", json!({"broker": b, "topic": "changed"})))
            .collect();
        let numbers = |a: &Value| ["read", "write", "perm"].map(|name| a[name].as_i64());
        assert_eq!(numbers(&answers[0]), numbers(&answers[1]));
        numbers(&answers[0]).map(Option::unwrap_or_default)
    };
    let used = |client: &mut Client, name: &str| -> BTreeSet<i32> {
        // A client looks for other queues every second.
        std::thread::sleep(Duration::from_millis(2500));
        let sent = client.send("producer", Mode::Sync, &numbered("changed", name, 24));
        sent.iter().map(|s| s.place.queue).collect()
    };
    set(&mut client, 2, 2, 6);
    eventually("the topic has a route", WITHIN, || {
        (raw::route(cluster.nameserver(), "changed").len() == 2).then_some(())
    });
    client.producer("producer");
    client.consumer(&Consumer::new("group", "changed"));
    assert_eq!(used(&mut client, "two"), BTreeSet::from([0, 1]));
    set(&mut client, 4, 4, 6);
    assert_eq!(used(&mut client, "four"), (0..4).collect());
    // Down: first nobody writes there any more, what is there is still read.
    set(&mut client, 4, 1, 6);
    assert_eq!(used(&mut client, "one"), BTreeSet::from([0]));
    client.receive("group", 72, WITHIN);

    set(&mut client, 4, 4, 4);
    eventually("a producer finds no queue of perm 4", WITHIN, || {
        let outcome = client.try_send("producer", Mode::Sync, None, &numbered("changed", "no", 1));
        outcome.sent.is_empty().then_some(())
    });
    set(&mut client, 4, 4, 2);
    let queue = Queue {
        broker: cluster.brokers().into_keys().next().expect("a shard"),
        id: 0,
    };
    let pull = json!({"group": "puller", "topic": "changed", "queue": queue, "offset": 0});
    refused(
        "a pull of perm 2",
        client.try_call("pull", pull.clone()),
        "16",
    );
    client.send_to(
        &queue,
        "producer",
        Mode::Sync,
        &numbered("changed", "write only", 1),
    );
    assert_eq!(shown(&mut client), [4, 4, 2]);
    cluster.kill9();
    cluster.start_again();
    let mut client = Client::start(Language::Java, &cluster);
    assert_eq!(shown(&mut client), [4, 4, 2]);
    refused("a pull of perm 2", client.try_call("pull", pull), "16");
    set(&mut client, 4, 4, 6);
    client.consumer(&Consumer::new("other", "changed"));
    let received = client.deliveries("other", 73, WITHIN, |r| r.key != "no 0");
    ledger::nothing_twice(&received);

    for (name, outcome) in [
        ("a b", "code 29"),
        ("x".repeat(128).as_str(), "code 29"),
        ("SCHEDULE_TOPIC_XXXX", "code 29"),
    ] {
        let verb = json!({"brokers": brokers, "topic": name, "read": 1, "write": 1});
        let error = client.try_call("set_topic", verb).expect_err(name);
        assert!(error.contains(outcome), "{name}: {error}");
    }
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn limits_of_a_group_and_deletes() {
    let mut cluster = Cluster::start(&Options::new().shards(2).set("auto_create_group", "true"));
    cluster.create_topic("limited", 2);
    let brokers = addresses(&cluster);
    let mut client = Client::start(Language::Java, &cluster);
    let set = |client: &mut Client, more: Value| {
        let mut verb = json!({"brokers": brokers, "group": "group"});
        for (name, value) in more.as_object().expect("members") {
            verb[name] = value.clone();
        }
        client.call("set_group", verb);
    };
    let shown =
        |client: &mut Client| client.call("group", json!({"broker": brokers[1], "group": "group"}));
    let listed = |client: &mut Client| {
        brokers
            .iter()
            .map(|b| {
                strings(&client.call("groups", json!({"broker": b}))["groups"]).contains("group")
            })
            .collect::<Vec<_>>()
    };
    set(
        &mut client,
        json!({"retry_max_times": 7, "retry_queues": 2}),
    );
    assert_eq!(listed(&mut client), [true, true]);
    let config = shown(&mut client);
    assert_eq!(
        (
            &config["retry_max_times"],
            &config["retry_queues"],
            &config["consume"]
        ),
        (&json!(7), &json!(2), &json!(true))
    );
    client.producer("producer");
    client.send("producer", Mode::Sync, &numbered("limited", "first", 10));
    client.consumer(&Consumer::new("group", "limited").name("member"));
    client.receive("member", 10, WITHIN);
    client.wait_committed("group", "limited", WITHIN);
    let groups = client.call("groups_of_topic", json!({"topic": "limited"}));
    assert_eq!(
        strings(&groups["groups"]),
        BTreeSet::from(["group".to_owned()])
    );
    let topics = client.call("topics_of_group", json!({"group": "group"}));
    assert!(strings(&topics["topics"]).contains("limited"), "{topics}");

    // A group that may not consume gets nothing, until it may again.
    set(&mut client, json!({"consume": false}));
    client.send("producer", Mode::Sync, &numbered("limited", "second", 10));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        client.received_count("member"),
        10,
        "consumed though it may not"
    );
    drop(client);
    cluster.kill9();
    cluster.start_again();
    let mut client = Client::start(Language::Java, &cluster);
    assert_eq!(shown(&mut client)["consume"], json!(false));
    set(&mut client, json!({"consume": true, "broadcast": false}));
    client.consumer(&Consumer::new("group", "limited").name("again"));
    client.deliveries("again", 10, WITHIN, |r| r.key.starts_with("second"));
    client.shutdown("again");
    client.consumer(
        &Consumer::new("group", "limited")
            .name("broadcast")
            .model(Model::Broadcasting),
    );
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        client.received_count("broadcast"),
        0,
        "broadcasting is forbidden"
    );
    client.shutdown("broadcast");

    // With the group its offsets go: it starts anew.
    client.call(
        "delete_group",
        json!({"brokers": brokers, "group": "group"}),
    );
    assert_eq!(listed(&mut client), [false, false]);
    client.consumer(&Consumer::new("group", "limited").name("anew"));
    client.receive("anew", 20, WITHIN);
    client.shutdown("anew");

    // With the topic its messages go: another one of its name is empty.
    client.call(
        "delete_topic",
        json!({"brokers": brokers, "topic": "limited"}),
    );
    eventually("the topic has no route", WITHIN, || {
        raw::route(cluster.nameserver(), "limited")
            .is_empty()
            .then_some(())
    });
    cluster.kill9();
    cluster.start_again();
    assert!(raw::route(cluster.nameserver(), "limited").is_empty());
    cluster.create_topic("limited", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let offsets = client.call("offsets", json!({"topic": "limited", "timestamp_ms": 0}));
    let queues = offsets["queues"].as_array().expect("queues");
    assert!(queues.iter().all(|q| q["max"] == 0), "{queues:?}");
    client.producer("producer");
    client.consumer(&Consumer::new("group", "limited"));
    let new = numbered("limited", "new", 4);
    client.send("producer", Mode::Sync, &new);
    ledger::equal(&new, &client.receive("group", 4, WITHIN));
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn who_is_there_and_what_they_do() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("watched", 2);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    client.consumer(
        &Consumer::new("group", "watched")
            .name("watched-one")
            .expression("a || b"),
    );
    let messages: Vec<Message> = numbered("watched", "message", 8)
        .into_iter()
        .map(|m| m.tag("a"))
        .collect();
    let sent = client.send("producer", Mode::Sync, &messages);
    client.receive("watched-one", 8, WITHIN);

    let producers = json!({"group": "producer-group", "topic": "watched"});
    let producers = client.call("producer_connections", producers);
    let producers = strings(&producers["clients"]);
    assert!(
        producers.len() == 1 && producers.iter().all(|c| c.contains("producer")),
        "{producers:?}"
    );
    let consumers = client.connections("group");
    assert!(
        consumers.len() == 1 && consumers[0].contains("watched-one"),
        "{consumers:?}"
    );
    let error = client
        .try_call("connections", json!({"group": "nobody"}))
        .expect_err("connections of nobody");
    assert!(error.contains("code 17"), "{error}");

    let running = client.call(
        "running_info",
        json!({"group": "group", "client": consumers[0]}),
    );
    let assigned = running["queues"].as_array().expect("queues");
    let assigned = assigned.iter().filter(|q| q["topic"] == "watched").count();
    assert_eq!(assigned, queues.len(), "{running}");
    assert!(
        strings(&running["subscriptions"]).contains("watched a || b"),
        "{running}"
    );
    assert_eq!(
        running["properties"]["PROP_CONSUME_TYPE"], "CONSUME_PASSIVELY",
        "{running}"
    );
    let status = client.call(
        "consume_status",
        json!({"group": "group", "topic": "watched", "client": consumers[0]}),
    );
    let positions = status[&consumers[0]]
        .as_array()
        .expect("positions of the client");
    let positions: i64 = positions.iter().filter_map(|q| q["offset"].as_i64()).sum();
    assert_eq!(positions, 8, "{status}");

    // The client consumes once more what the operator points at.
    let directly = client.call(
        "consume_directly",
        json!({"group": "group", "client": consumers[0], "topic": "watched", "message_id": sent[5].offset_message_id}),
    );
    assert_eq!(directly["result"], "CR_SUCCESS", "{directly}");
    let again = client.deliveries("watched-one", 2, WITHIN, |r| r.key == sent[5].key);
    assert_eq!(again[1].body, sent[5].key);

    let brokers = addresses(&cluster);
    let forbid = |client: &mut Client, readable: bool| {
        let verb =
            json!({"brokers": brokers, "group": "group", "topic": "watched", "readable": readable});
        client.call("forbid", verb);
    };
    forbid(&mut client, false);
    client.send(
        "producer",
        Mode::Sync,
        &[Message::new("watched", "forbidden").tag("b")],
    );
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        client
            .deliveries("watched-one", 0, WITHIN, |r| r.key == "forbidden")
            .len(),
        0
    );
    forbid(&mut client, true);
    client.deliveries("watched-one", 1, WITHIN, |r| r.key == "forbidden");
}

/// The admin client is of one language and the consumer of the other.
#[test]
#[cfg_attr(not(all(have_java, have_go)), ignore = "a JDK, Maven or Go is absent")]
fn a_go_consumer_is_asked_and_moved_like_any_other() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("watched", 2);
    let mut admin = Client::start(Language::Java, &cluster);
    let mut client = Client::start(Language::Go, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "watched").name("go-one"));
    let sent = client.send("producer", Mode::Sync, &numbered("watched", "message", 8));
    client.receive("go-one", 8, WITHIN);
    let consumers = admin.connections("group");
    assert!(
        consumers.len() == 1 && consumers[0].contains("go-one"),
        "{consumers:?}"
    );
    let member = json!({"group": "group", "client": consumers[0]});
    let running = admin.call("running_info", member);
    let assigned = running["queues"].as_array().expect("queues");
    let assigned = assigned.iter().filter(|q| q["topic"] == "watched").count();
    assert_eq!(assigned, queues.len(), "{running}");
    assert!(
        strings(&running["subscriptions"]).contains("watched *"),
        "{running}"
    );
    let directly = admin.call(
        "consume_directly",
        json!({"group": "group", "client": consumers[0], "topic": "watched", "message_id": sent[5].offset_message_id}),
    );
    assert_eq!(directly["result"], "CR_SUCCESS", "{directly}");
    client.deliveries("go-one", 2, WITHIN, |r| r.key == sent[5].key);

    // Moved while it is online, it begins anew; it takes its time for that.
    admin.wait_committed("group", "watched", WITHIN);
    let reset = json!({"group": "group", "topic": "watched", "timestamp_ms": 0, "force": true});
    admin.call("reset", reset);
    let all = 8 + 1 + 8;
    client.deliveries("go-one", all, Duration::from_secs(120), |_| true);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(client.received("go-one").len(), all);
}
