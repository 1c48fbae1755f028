//! An operator moves a group: to a time, online through its consumers and offline; past all that waits; to where another group
//! is; to an offset of one queue. The group goes on exactly there, also after a kill -9, and its progress shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Queue, eventually, now_ms,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);
const TOPIC: &str = "moved";

fn numbered(name: &str) -> Vec<Message> {
    (0..12)
        .map(|i| Message::new(TOPIC, format!("{name} {i:02}")))
        .collect()
}

fn keys(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| m.key.clone()).collect()
}

/// Twelve early and twelve late messages over all queues, and a time between them.
fn send_early_and_late(client: &mut Client, queues: &[Queue]) -> i64 {
    client.producer("producer");
    let mut between_ms = 0;
    for name in ["early", "late"] {
        for (i, message) in numbered(name).iter().enumerate() {
            let queue = &queues[i % queues.len()];
            client.send_to(queue, "producer", Mode::Sync, std::slice::from_ref(message));
        }
        if name == "early" {
            std::thread::sleep(Duration::from_millis(700));
            between_ms = now_ms();
            std::thread::sleep(Duration::from_millis(700));
        }
    }
    between_ms
}

/// What a new consumer of the group gets, sorted, when it is given a moment for more.
fn goes_on_with(client: &mut Client, group: &str, name: &str, count: usize) -> Vec<String> {
    client.consumer(&Consumer::new(group, TOPIC).name(name));
    client.deliveries(name, count, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(1));
    let mut keys: Vec<_> = client.received(name).into_iter().map(|r| r.key).collect();
    keys.sort_unstable();
    client.wait_committed(group, TOPIC, WITHIN);
    client.shutdown(name);
    keys
}

fn progress(client: &mut Client, group: &str) -> BTreeMap<(String, i64), i64> {
    let answer = client.call("progress", json!({"group": group, "topic": TOPIC}));
    by_queue(&answer, "committed")
}

fn by_queue(answer: &Value, member: &str) -> BTreeMap<(String, i64), i64> {
    answer["queues"]
        .as_array()
        .expect("queues")
        .iter()
        .map(|q| {
            let broker = q["broker"].as_str().expect("a broker").to_owned();
            let number = |name: &str| q[name].as_i64().expect("a number");
            ((broker, number("queue")), number(member))
        })
        .collect()
}

fn wait_gone(client: &mut Client, group: &str) {
    eventually("no consumer is connected", WITHIN, || {
        client.connections(group).is_empty().then_some(())
    });
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn to_a_time_online_and_offline_and_past_everything() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic(TOPIC, 2);
    let mut client = Client::start(Language::Java, &cluster);
    let between_ms = send_early_and_late(&mut client, &queues);
    let late = keys(&numbered("late"));
    let all = [keys(&numbered("early")), late.clone()].concat();

    client.consumer(&Consumer::new("group", TOPIC).name("online"));
    client.deliveries("online", 24, WITHIN, |_| true);
    client.wait_committed("group", TOPIC, WITHIN);
    let reset = |client: &mut Client, timestamp_ms: i64| {
        let request =
            json!({"group": "group", "topic": TOPIC, "timestamp_ms": timestamp_ms, "force": true});
        by_queue(&client.call("reset", request), "offset")
    };
    let told = reset(&mut client, between_ms);
    assert_eq!(told.len(), queues.len());
    assert!(told.values().all(|offset| *offset == 3), "{told:?}");
    client.deliveries("online", 24 + 12, WITHIN, |_| true);
    client.wait_committed("group", TOPIC, WITHIN);
    std::thread::sleep(Duration::from_secs(1));
    let mut again: Vec<String> = client.received("online")[24..]
        .iter()
        .map(|r| r.key.clone())
        .collect();
    again.sort_unstable();
    assert_eq!(again, late, "after a reset of a group that is online");
    client.shutdown("online");
    wait_gone(&mut client, "group");

    reset(&mut client, between_ms);
    assert!(
        progress(&mut client, "group")
            .values()
            .all(|offset| *offset == 3)
    );
    assert_eq!(goes_on_with(&mut client, "group", "offline", 12), late);
    wait_gone(&mut client, "group");

    reset(&mut client, 0);
    cluster.kill9();
    cluster.start_again();
    let mut client = Client::start(Language::Java, &cluster);
    assert!(
        progress(&mut client, "group")
            .values()
            .all(|offset| *offset == 0)
    );
    assert_eq!(goes_on_with(&mut client, "group", "killed", 24), all);
    wait_gone(&mut client, "group");

    // -1 is the end: what has accumulated is skipped.
    reset(&mut client, 0);
    reset(&mut client, -1);
    client.producer("producer");
    client.send("producer", Mode::Sync, &[Message::new(TOPIC, "new")]);
    assert_eq!(goes_on_with(&mut client, "group", "skipped", 1), ["new"]);

    let unknown = json!({"group": "group", "topic": "nowhere", "timestamp_ms": 0, "force": true});
    let error = client
        .try_call("reset", unknown)
        .expect_err("an unknown topic");
    assert!(error.contains("code 17"), "{error}");
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn to_where_another_group_is_and_to_an_offset() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic(TOPIC, 2);
    let mut client = Client::start(Language::Java, &cluster);
    let between_ms = send_early_and_late(&mut client, &queues);
    assert_eq!(goes_on_with(&mut client, "source", "source", 24).len(), 24);
    client.call(
        "reset",
        json!({"group": "source", "topic": TOPIC, "timestamp_ms": between_ms, "force": true}),
    );
    // The other group has to be known.
    assert_eq!(
        goes_on_with(&mut client, "copy", "first-copy", 24).len(),
        24
    );
    wait_gone(&mut client, "copy");
    client.call(
        "clone_offsets",
        json!({"group": "source", "to_group": "copy", "topic": TOPIC, "offline": true}),
    );
    let cloned = progress(&mut client, "copy");
    assert_eq!(cloned, progress(&mut client, "source"));
    assert!(cloned.values().all(|offset| *offset == 3), "{cloned:?}");
    assert_eq!(
        goes_on_with(&mut client, "copy", "second-copy", 12),
        keys(&numbered("late"))
    );
    wait_gone(&mut client, "copy");

    let brokers = cluster.brokers();
    let queue = &queues[1];
    client.call(
        "set_offset",
        json!({"broker": brokers[&queue.broker], "group": "copy", "topic": TOPIC, "queue": queue, "offset": 5}),
    );
    let set = progress(&mut client, "copy");
    assert_eq!(set[&(queue.broker.clone(), i64::from(queue.id))], 5);
    // The sixth message of queue 1 of 4: early 01, 05, 09, late 01, 05, 09.
    assert_eq!(
        goes_on_with(&mut client, "copy", "third-copy", 1),
        ["late 09"]
    );
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn how_far_a_group_is_behind_is_told_and_skipped() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic(TOPIC, 2);
    let mut client = Client::start(Language::Java, &cluster);
    let between_ms = send_early_and_late(&mut client, &queues);
    assert_eq!(goes_on_with(&mut client, "group", "all", 24).len(), 24);
    let verb = json!({"group": "group", "topic": TOPIC, "timestamp_ms": between_ms, "force": true});
    client.call("reset", verb);
    wait_gone(&mut client, "group");
    let spans = client.call("time_spans", json!({"group": "group", "topic": TOPIC}));
    let [min, max, consumed, delay] =
        ["min_ms", "max_ms", "consumed_ms", "delay_ms"].map(|member| by_queue(&spans, member));
    assert_eq!(min.len(), queues.len(), "{spans}");
    for queue in min.keys() {
        // The last one that was consumed is an early one, and later ones wait.
        assert!(min[queue] <= consumed[queue], "{spans}");
        assert!(
            consumed[queue] < between_ms && between_ms < max[queue],
            "{spans}"
        );
        assert!(delay[queue] >= 1_000 && delay[queue] < 600_000, "{spans}");
    }
    let skip = ["-g", "group", "-t", TOPIC, "-f", "true", "-n"];
    let args: Vec<&str> = ["skipAccumulatedMessage"].into_iter().chain(skip).collect();
    let args: Vec<&str> = args.into_iter().chain([cluster.nameserver()]).collect();
    let told = client.call("mqadmin", json!({"args": args}))["output"].to_string();
    assert!(!told.contains("Exception"), "{told}");
    client.send("producer", Mode::Sync, &[Message::new(TOPIC, "new")]);
    assert_eq!(goes_on_with(&mut client, "group", "skipped", 1), ["new"]);
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn times_have_a_lower_and_an_upper_offset() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic(TOPIC, 2);
    let mut client = Client::start(Language::Java, &cluster);
    let between_ms = send_early_and_late(&mut client, &queues);
    let mut at = |timestamp_ms: i64| {
        let answer = client.call(
            "offsets",
            json!({"topic": TOPIC, "timestamp_ms": timestamp_ms}),
        );
        ["min", "max", "at", "lower", "upper"].map(|member| {
            let offsets = by_queue(&answer, member);
            assert_eq!(offsets.len(), queues.len());
            let first = *offsets.values().next().expect("a queue");
            assert!(
                offsets.values().all(|o| *o == first),
                "{member} {offsets:?}"
            );
            first
        })
    };
    // At no message's time the lower boundary is the next message and the upper one the last before.
    assert_eq!(at(between_ms), [0, 6, 3, 3, 2]);
    assert_eq!(at(0), [0, 6, 0, 0, 0]);
    assert_eq!(at(now_ms() + 3_600_000), [0, 6, 6, 6, 5]);
}
