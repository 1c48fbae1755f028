//! A pull consumer gets what it asks for: each offset with its status, the wait for a message, what it seeks, and the offsets
//! that it has committed, also after a kill -9.

use std::time::{Duration, Instant};

use corelane_tests::{Client, Cluster, Language, Message, Mode, Options, Queue, eventually, raw};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);
const TOPIC: &str = "pulled";

fn send_forty(client: &mut Client, queue: &Queue) {
    client.producer("producer");
    let messages: Vec<Message> = (0..40)
        .map(|i| {
            Message::new(TOPIC, format!("m{i}"))
                .tag(if i % 4 == 0 { "fourth" } else { "other" })
                .property("n", i)
        })
        .collect();
    client.send_to(queue, "producer", Mode::Sync, &messages);
}

fn keys(from: usize, to: usize, step: usize) -> Vec<String> {
    (from..to).step_by(step).map(|i| format!("m{i}")).collect()
}

/// Status, next offset, least and greatest offset, and the keys of what was found.
fn told(answer: &Value) -> (String, i64, i64, i64, Vec<String>) {
    let number = |name: &str| answer[name].as_i64().expect("a number");
    let keys = answer["keys"].as_array().expect("keys");
    (
        answer["status"].as_str().expect("a status").to_owned(),
        number("next"),
        number("min"),
        number("max"),
        keys.iter()
            .filter_map(|k| k.as_str().map(str::to_owned))
            .collect(),
    )
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn every_status_of_a_pull() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic(TOPIC, 2);
    // One on the second shard, and an empty one.
    let (queue, empty) = (&queues[2], &queues[3]);
    let mut client = Client::start(Language::Java, &cluster);
    send_forty(&mut client, queue);
    let pull = |client: &mut Client, queue: &Queue, offset: i64, more: Value| {
        let mut verb = json!({"group": "group", "topic": TOPIC, "queue": queue, "offset": offset});
        for (name, value) in more.as_object().expect("members") {
            verb[name] = value.clone();
        }
        client.try_call("pull", verb).map(|answer| told(&answer))
    };
    let found = |next: i64, keys: Vec<String>| Ok(("FOUND".to_owned(), next, 0, 40, keys));
    let nothing = |status: &str, next: i64, max: i64| Ok((status.to_owned(), next, 0, max, vec![]));
    let none = json!({});
    assert_eq!(
        pull(&mut client, queue, 0, json!({"count": 8})),
        found(8, keys(0, 8, 1))
    );
    assert_eq!(
        pull(&mut client, queue, 36, none.clone()),
        found(40, keys(36, 40, 1))
    );
    assert_eq!(
        pull(
            &mut client,
            queue,
            1,
            json!({"expression": "fourth", "count": 8})
        ),
        found(33, keys(4, 33, 4))
    );
    assert_eq!(
        pull(&mut client, queue, 0, json!({"expression": "nothing"})),
        nothing("NO_MATCHED_MSG", 40, 40)
    );
    // A client learns from its first heartbeat that the broker knows SQL92.
    let sql = json!({"expression": "n > 30 AND TAGS = 'fourth'", "sql": true});
    let by_sql = eventually("the client may use SQL92", WITHIN, || {
        pull(&mut client, queue, 0, sql.clone()).ok()
    });
    assert_eq!(Ok(by_sql), found(40, keys(32, 40, 4)));
    let wrong = json!({"expression": "n >", "sql": true});
    let refused = pull(&mut client, queue, 0, wrong);
    assert!(
        refused.as_ref().is_err_and(|e| e.contains("code 23")),
        "{refused:?}"
    );
    assert_eq!(
        pull(&mut client, queue, 40, none.clone()),
        nothing("NO_NEW_MSG", 40, 40)
    );
    assert_eq!(
        pull(&mut client, queue, 41, none.clone()),
        nothing("OFFSET_ILLEGAL", 40, 40)
    );
    assert_eq!(
        pull(&mut client, queue, 1_000_000, none.clone()),
        nothing("OFFSET_ILLEGAL", 40, 40)
    );
    assert_eq!(
        pull(&mut client, empty, 0, none.clone()),
        nothing("NO_NEW_MSG", 0, 0)
    );
    assert_eq!(
        pull(&mut client, empty, 5, none.clone()),
        nothing("OFFSET_ILLEGAL", 0, 0)
    );
    let outside = Queue {
        id: 2,
        ..queue.clone()
    };
    let refused = pull(&mut client, &outside, 0, none.clone());
    assert!(
        refused.as_ref().is_err_and(|e| e.contains("code 29")),
        "{refused:?}"
    );

    // What waits is answered by the message, not by time.
    let mut other = Client::start(Language::Java, &cluster);
    other.producer("late");
    let start = Instant::now();
    let late = {
        let queue = queue.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            other.send_to(&queue, "late", Mode::Sync, &[Message::new(TOPIC, "late")]);
            other
        })
    };
    let waited = pull(&mut client, queue, 40, json!({"wait": true}));
    let took = start.elapsed();
    assert_eq!(
        waited,
        Ok(("FOUND".to_owned(), 41, 0, 41, vec!["late".to_owned()]))
    );
    assert!(
        (Duration::from_millis(1500)..Duration::from_secs(5)).contains(&took),
        "a pull that waits was answered after {took:?}"
    );
    drop(late.join());
}

fn poll(client: &mut Client, name: &str, count: usize) -> Vec<String> {
    let before = client.received(name).len();
    eventually(&format!("{name} has {count} messages"), WITHIN, || {
        client.call("lite_poll", json!({"name": name, "timeout_ms": 300}));
        (client.received(name).len() >= before + count).then_some(())
    });
    client.call("lite_poll", json!({"name": name, "timeout_ms": 700}));
    client.received(name)[before..]
        .iter()
        .map(|r| r.key.clone())
        .collect()
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn a_lite_consumer_seeks_commits_and_goes_on_after_kill_9() {
    let mut cluster = Cluster::start(
        &Options::new()
            .shards(2)
            .set("offset_commit_interval_ms", "500"),
    );
    let queues = cluster.create_topic(TOPIC, 2);
    let queue = &queues[2];
    let mut client = Client::start(Language::Java, &cluster);
    send_forty(&mut client, queue);
    let start = json!({"name": "assigned", "group": "group", "topic": TOPIC, "assign": true, "auto_commit": false});
    client.call("lite_start", start.clone());
    let seek = |client: &mut Client, offset: i64| {
        let verb = json!({"name": "assigned", "topic": TOPIC, "queue": queue, "offset": offset});
        client.try_call("lite_seek", verb)
    };
    let committed = |client: &mut Client, name: &str| {
        let verb = json!({"name": name, "topic": TOPIC, "queue": queue});
        client.call("lite_committed", verb)["offset"].as_i64()
    };
    assert_eq!(poll(&mut client, "assigned", 40), keys(0, 40, 1));
    seek(&mut client, 35).expect("an offset that is there");
    assert_eq!(poll(&mut client, "assigned", 5), keys(35, 40, 1));
    for offset in [41, -1] {
        let refused = seek(&mut client, offset);
        assert!(refused.is_err(), "a seek to {offset} of 0 to 40");
    }
    // What was polled counts, not what was pulled ahead.
    client.call("lite_commit", json!({"name": "assigned"}));
    eventually("40 is committed", WITHIN, || {
        let address = &cluster.brokers()[&queue.broker];
        (raw::committed(address, "group", TOPIC, queue.id) == Some(40)).then_some(())
    });
    client.shutdown("assigned");
    // Commits are written down a moment after they are made.
    std::thread::sleep(Duration::from_secs(1));
    cluster.kill9();
    cluster.start_again();

    let mut client = Client::start(Language::Java, &cluster);
    client.call("lite_start", start);
    assert_eq!(committed(&mut client, "assigned"), Some(40));
    client.producer("producer");
    client.send_to(queue, "producer", Mode::Sync, &[Message::new(TOPIC, "new")]);
    assert_eq!(poll(&mut client, "assigned", 1), ["new"]);
    client.shutdown("assigned");

    client.call(
        "lite_start",
        json!({"name": "subscribed", "group": "other", "topic": TOPIC, "subscribe": true, "expression": "fourth"}),
    );
    assert_eq!(poll(&mut client, "subscribed", 10), keys(0, 40, 4));
    let assignment = client.call("lite_assignment", json!({"name": "subscribed"}));
    assert_eq!(assignment["queues"].as_array().map(Vec::len), Some(4));
}

/// What the pull consumer of the Go client asks for by itself and what it is told to ask for.
#[test]
#[cfg_attr(not(have_go), ignore = "Go is absent")]
fn the_go_client_pulls_polls_and_commits_and_goes_on_after_kill_9() {
    let options = Options::new()
        .shards(2)
        .set("offset_commit_interval_ms", "500");
    let mut cluster = Cluster::start(&options.set("message_delay_levels", "1s 1s 1s 1s"));
    let queues = cluster.create_topic(TOPIC, 2);
    let (queue, empty) = (&queues[2], &queues[3]);
    let mut client = Client::start(Language::Go, &cluster);
    send_forty(&mut client, queue);
    let pull = |client: &mut Client, group: &str, queue: &Queue, offset: i64, more: Value| {
        let mut verb = json!({"group": group, "topic": TOPIC, "queue": queue, "offset": offset, "expression": "*"});
        for (name, value) in more.as_object().expect("members") {
            verb[name] = value.clone();
        }
        client.try_call("pull", verb).map(|answer| told(&answer))
    };
    let none = json!({});
    for (group, offset, more, wanted) in [
        ("all", 0, json!({"count": 8}), ("FOUND", 8, keys(0, 8, 1))),
        ("all", 36, none.clone(), ("FOUND", 40, keys(36, 40, 1))),
        (
            "tags",
            1,
            json!({"expression": "fourth", "count": 8}),
            ("FOUND", 33, keys(4, 33, 4)),
        ),
        (
            "nothing",
            0,
            json!({"expression": "nothing"}),
            ("NO_MATCHED_MSG", 40, vec![]),
        ),
        (
            "sql",
            0,
            json!({"expression": "n > 30 AND TAGS = 'fourth'", "sql": true}),
            ("FOUND", 40, keys(32, 40, 4)),
        ),
        ("all", 41, none.clone(), ("OFFSET_ILLEGAL", 40, vec![])),
        (
            "all",
            1_000_000,
            none.clone(),
            ("OFFSET_ILLEGAL", 40, vec![]),
        ),
    ] {
        let (status, next, found) = wanted;
        let wanted = (status.to_owned(), next, 0, 40, found);
        let shown = more.to_string();
        assert_eq!(
            pull(&mut client, group, queue, offset, more),
            Ok(wanted),
            "{offset} {shown}"
        );
    }
    // This client always waits where there is nothing, until a message comes or the time is over.
    let start = Instant::now();
    let waited = pull(&mut client, "all", empty, 0, none.clone());
    assert_eq!(waited, Ok(("NO_NEW_MSG".to_owned(), 0, 0, 0, vec![])));
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(40)).contains(&took),
        "a pull that waits in vain was answered after {took:?}"
    );
    let mut other = Client::start(Language::Go, &cluster);
    other.producer("late");
    let start = Instant::now();
    let late = {
        let queue = empty.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            other.send_to(&queue, "late", Mode::Sync, &[Message::new(TOPIC, "late")]);
        })
    };
    let waited = pull(&mut client, "all", empty, 0, none);
    let took = start.elapsed();
    assert_eq!(
        waited,
        Ok(("FOUND".to_owned(), 1, 0, 1, vec!["late".to_owned()]))
    );
    assert!(
        (Duration::from_millis(1500)..Duration::from_secs(8)).contains(&took),
        "a pull that waits was answered after {took:?}"
    );
    late.join().expect("the other client sends");

    // Polling: what is not acknowledged with success comes again.
    let again = Message::new(TOPIC, "again").property("fails", 1);
    client.send_to(queue, "producer", Mode::Sync, &[again]);
    let start = |client: &mut Client, name: &str| {
        let verb = json!({"name": name, "group": "polls", "topic": TOPIC, "expression": "*"});
        client.call("pull_start", verb);
    };
    let poll_until = |client: &mut Client, name: &str, count: usize| {
        eventually(&format!("{name} has {count} messages"), WITHIN, || {
            client.call("pull_poll", json!({"name": name, "timeout_ms": 300}));
            (client.received(name).len() >= count).then_some(())
        });
    };
    start(&mut client, "first");
    poll_until(&mut client, "first", 40 + 2 + 1);
    let received = client.received("first");
    let tries: Vec<i32> = received
        .iter()
        .filter(|r| r.key == "again")
        .map(|r| r.reconsume_times)
        .collect();
    assert_eq!(tries, [0, 1], "{received:#?}");
    let at = |client: &mut Client, name: &str| {
        let verb = json!({"name": name, "topic": TOPIC, "queue": queue});
        client.call("pull_offset", verb)["offset"].as_i64()
    };
    assert_eq!(at(&mut client, "first"), Some(41));
    // Back by hand, and the next one of the group goes on there.
    let set = json!({"name": "first", "topic": TOPIC, "queue": queue, "offset": 30});
    client.call("set_pull_offset", set);
    let committed = |cluster: &Cluster| {
        raw::committed(&cluster.brokers()[&queue.broker], "polls", TOPIC, queue.id)
    };
    eventually("the offset is set", WITHIN, || {
        (committed(&cluster) == Some(30)).then_some(())
    });
    client.shutdown("first");
    std::thread::sleep(Duration::from_secs(1));
    cluster.kill9();
    cluster.start_again();
    assert_eq!(committed(&cluster), Some(30));
    let mut client = Client::start(Language::Go, &cluster);
    start(&mut client, "second");
    poll_until(&mut client, "second", 11);
    let received: Vec<String> = client
        .received("second")
        .into_iter()
        .map(|r| r.key)
        .collect();
    let wanted = [keys(30, 40, 1), vec!["again".to_owned()]].concat();
    assert_eq!(received, wanted);
}
