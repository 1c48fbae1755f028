//! One program, both brokers, the same trace: what the Java client sees of retries, transactions, delays, POP, filters, queries,
//! offsets and errors is what it sees of Apache RocketMQ.
//!
//! A trace has no times, ids or addresses; what may come in any order is sorted. `docs/compatibility.md` says where we differ on
//! purpose; none of that is asked here.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Queue, Received, eventually, raw,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options::new()
        .set("message_delay_levels", "1s 1s 1s 1s 2s 2s")
        // Apache writes down what became of transactions every 3 s, and asks again about what it has not written down.
        .set("transaction_check_interval_ms", "5000")
        .set("transaction_timeout_ms", "5000")
        .set("recall", "true")
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn the_java_client_sees_the_same() {
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| trace(&Cluster::start(&options().apache())));
        let ours = trace(&Cluster::start(&options()));
        (ours, theirs.join().expect("a trace of Apache's broker"))
    });
    let all: Vec<_> = ours.keys().chain(theirs.keys()).collect();
    let mut differences = Vec::new();
    for area in all {
        if ours.get(area) != theirs.get(area) {
            let shown = format!(
                "{area}:\n  ours   {:#?}\n  theirs {:#?}",
                ours.get(area),
                theirs.get(area)
            );
            if !differences.contains(&shown) {
                differences.push(shown);
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(ours.values().map(Vec::len).sum::<usize>() > 60, "{ours:#?}");
}

type Trace = BTreeMap<&'static str, Vec<String>>;

fn trace(cluster: &Cluster) -> Trace {
    let mut client = Client::start(Language::Java, cluster);
    client.producer("producer");
    let mut traces = Trace::new();
    traces.insert("batches", batches(&mut client, cluster));
    traces.insert("retries", retries(&mut client, cluster));
    traces.insert("transactions", transactions(&mut client, cluster));
    traces.insert("delays", delays(&mut client, cluster));
    traces.insert("pop", pop(&mut client, cluster));
    traces.insert("pulls and offsets", pulls(&mut client, cluster));
    traces.insert("queries", queries(&mut client, cluster));
    traces.insert("errors", errors(&mut client, cluster));
    traces
}

/// A delivery with its properties, but for the values that differ from run to run.
fn shown(r: &Received) -> String {
    const VARY: [&str; 20] = [
        "UNIQ_KEY",
        "CONSUME_START_TIME",
        "MIN_OFFSET",
        "MAX_OFFSET",
        "__transactionId__",
        "ORIGIN_MESSAGE_ID",
        "DLQ_ORIGIN_MESSAGE_ID",
        "POP_CK",
        "1ST_POP_TIME",
        "TIMER_OUT_MS",
        "TIMER_DELIVER_MS",
        "TIMER_ENQUEUE_MS",
        "TIMER_DEQUEUE_MS",
        "TRAN_PREPARED_QUEUE_OFFSET",
        "REAL_QID",
        "TIMER_DELAY_MS",
        "TIMER_ROLL_TIMES",
        "BORN_HOST",
        "BORN_TIMESTAMP",
        "__STARTDELIVERTIME",
    ];
    let properties: Vec<String> = r
        .properties
        .iter()
        .map(|(name, value)| match VARY.contains(&name.as_str()) {
            true => name.clone(),
            false => format!("{name}={value}"),
        })
        .collect();
    format!(
        "{} reconsumed {} of {}: {}",
        r.body,
        r.reconsume_times,
        r.topic,
        properties.join(", ")
    )
}

fn sorted(received: &[Received]) -> Vec<String> {
    let mut lines: Vec<String> = received.iter().map(shown).collect();
    lines.sort_unstable();
    lines
}

/// Waits for so many deliveries and a moment longer.
fn all_of(client: &Client, name: &str, count: usize) -> Vec<String> {
    client.deliveries(name, count, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(2));
    sorted(&client.received(name))
}

fn queue_of(cluster: &Cluster, topic: &str) -> Queue {
    cluster.create_topic(topic, 1).remove(0)
}

fn outcome(result: Result<Value, String>) -> String {
    match result {
        Ok(mut answer) => {
            // The number of the verb in this run.
            if let Some(members) = answer.as_object_mut() {
                members.remove("id");
            }
            answer.to_string()
        }
        // The class and the code; the texts are each broker's own.
        Err(error) => error.split(':').next().unwrap_or_default().to_owned(),
    }
}

fn wait_routed(cluster: &Cluster, topic: &str) {
    eventually(&format!("{topic} has a route"), WITHIN, || {
        (!raw::route(cluster.nameserver(), topic).is_empty()).then_some(())
    });
}

fn batches(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queues = cluster.create_topic("batches", 2);
    client.consumer(&Consumer::new("batch-group", "batches"));
    client.producer_with("gathers", json!({"auto_batch": true}));
    let message = |name: &str| {
        let message = Message::new("batches", name).tag("t");
        message.property("n", name.len())
    };
    let hasty = |name: &str| message(name).with("wait_stored", false);
    let mut trace = Vec::new();
    for (name, producer, mode, queue, messages) in [
        (
            "batch",
            "producer",
            Mode::Batch,
            Some(1),
            vec![message("b1"), message("b2")],
        ),
        (
            "hasty batch",
            "producer",
            Mode::Batch,
            Some(0),
            vec![hasty("h1"), hasty("h2")],
        ),
        (
            "batch of one",
            "producer",
            Mode::Batch,
            Some(0),
            vec![message("alone")],
        ),
        (
            "hasty",
            "producer",
            Mode::Sync,
            Some(0),
            vec![hasty("single")],
        ),
        (
            "outside",
            "producer",
            Mode::Batch,
            Some(2),
            vec![message("o1"), message("o2")],
        ),
        (
            "gathered",
            "gathers",
            Mode::Async,
            Some(1),
            vec![message("g1")],
        ),
    ] {
        let queue = queue.map(|id: i32| Queue {
            id,
            ..queues[0].clone()
        });
        let members = json!({"producer": producer, "mode": match mode { Mode::Batch => "batch", Mode::Sync => "sync", _ => "async" },
            "messages": messages, "queue": queue});
        trace.push(format!(
            "{name}: {}",
            outcome(client.try_call("send", members))
        ));
    }
    trace.extend(all_of(client, "batch-group", 7));
    trace
}

fn retries(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queue = queue_of(cluster, "retries");
    client.consumer(&Consumer::new("retry-group", "retries").with("max_reconsume", 2));
    let messages = [
        Message::new("retries", "once")
            .tag("t")
            .property("fails", 1),
        Message::new("retries", "always")
            .tag("t")
            .property("fails", 3),
    ];
    client.send_to(&queue, "producer", Mode::Sync, &messages);
    let mut trace = all_of(client, "retry-group", 2 + 3);
    wait_routed(cluster, "%DLQ%retry-group");
    client.consumer(&Consumer::new("undertaker", "%DLQ%retry-group"));
    trace.extend(all_of(client, "undertaker", 1));
    for topic in ["%RETRY%retry-group", "%DLQ%retry-group"] {
        let config = client.call("topic", json!({"broker": cluster.broker(), "topic": topic}));
        trace.push(format!(
            "{topic} {} {} {}",
            config["read"], config["write"], config["perm"]
        ));
    }
    trace
}

fn transactions(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    queue_of(cluster, "transactions");
    client.producer_with("transactional", json!({"transactions": true}));
    client.consumer(&Consumer::new("transaction-group", "transactions"));
    let messages = [
        ("commit", "none"),
        ("rollback", "none"),
        ("unknown", "commit"),
        ("unknown", "rollback"),
    ]
    .map(|(local, check)| {
        Message::new("transactions", format!("{local} {check}"))
            .property("local", local)
            .property("check", check)
    });
    client.send("transactional", Mode::Transaction, &messages);
    client.deliveries("transactional checks", 2, WITHIN, |_| true);
    let mut trace = all_of(client, "transaction-group", 2);
    trace.extend(sorted(&client.received("transactional checks")));
    trace
}

fn delays(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queue = queue_of(cluster, "delays");
    client.consumer(&Consumer::new("delay-group", "delays"));
    let messages = [
        Message::new("delays", "level").with("delay_level", 2),
        Message::new("delays", "seconds").with("delay_sec", 2),
        Message::new("delays", "past").with("deliver_ms", 1_000),
        Message::new("delays", "recalled").with("delay_sec", 5),
    ];
    let sent = client.send_to(&queue, "producer", Mode::Sync, &messages);
    let mut trace: Vec<String> = sent
        .iter()
        .map(|s| format!("{} has a handle: {}", s.key, s.recall_handle.is_some()))
        .collect();
    std::thread::sleep(Duration::from_millis(1500));
    let handle = sent[3].recall_handle.clone().unwrap_or_default();
    for (topic, handle) in [
        ("delays", handle.as_str()),
        ("elsewhere", &handle),
        ("delays", "nonsense"),
    ] {
        let verb = json!({"producer": "producer", "topic": topic, "handle": handle});
        let recalled = client.try_call("recall", verb);
        let same = recalled.map(|answer| json!(answer["message_id"] == json!(sent[3].message_id)));
        trace.push(format!("recall: {}", outcome(same)));
    }
    let far = client.try_send(
        "producer",
        Mode::Sync,
        Some(&queue),
        &[Message::new("delays", "far").with("delay_sec", 4 * 24 * 3600)],
    );
    trace.extend(far.failed.into_iter().map(|f| outcome(Err(f.error))));
    client.deliveries("delay-group", 3, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(4));
    trace.extend(sorted(&client.received("delay-group")));
    trace
}

fn pop(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queue = queue_of(cluster, "popped");
    client.call(
        "request_mode",
        json!({"brokers": [cluster.broker()], "topic": "popped", "group": "pop-group", "mode": "POP"}),
    );
    client.consumer(
        &Consumer::new("pop-group", "popped")
            .expression("t")
            .with("client_rebalance", false)
            .with("max_reconsume", 1)
            .with("retry_level", 1),
    );
    let messages = [
        Message::new("popped", "good").tag("t"),
        Message::new("popped", "once").tag("t").property("fails", 1),
        Message::new("popped", "other").tag("u"),
    ];
    client.send_to(&queue, "producer", Mode::Sync, &messages);
    all_of(client, "pop-group", 3)
}

fn pulls(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queue = queue_of(cluster, "pulls");
    let messages: Vec<Message> = (0..20)
        .map(|i| {
            let tag = if i % 4 == 0 { "fourth" } else { "other" };
            Message::new("pulls", format!("m{i}"))
                .tag(tag)
                .property("n", i)
        })
        .collect();
    client.send_to(&queue, "producer", Mode::Sync, &messages);
    let mut trace = Vec::new();
    let sql = json!({"expression": "n > 15 AND TAGS <> 'fourth' OR n IN ('3')", "sql": true});
    let group = json!({"group": "pull-group", "topic": "pulls", "queue": queue});
    let pull = |client: &mut Client, offset: i64, more: &Value| {
        let mut verb = group.clone();
        verb["offset"] = offset.into();
        for (name, value) in more.as_object().expect("members") {
            verb[name] = value.clone();
        }
        client.try_call("pull", verb)
    };
    eventually("the client may use SQL92", WITHIN, || {
        pull(client, 0, &sql).ok()
    });
    for (offset, more) in [
        (0, json!({"count": 5})),
        (18, json!({})),
        (1, json!({"expression": "fourth"})),
        (0, json!({"expression": "none"})),
        (0, sql),
        (20, json!({})),
        (21, json!({})),
        (1000, json!({})),
    ] {
        let answer = pull(client, offset, &more);
        trace.push(format!("{offset} {more}: {}", outcome(answer)));
    }
    let outside = json!({"group": "pull-group", "topic": "pulls", "offset": 0, "queue": Queue { id: 1, ..queue.clone() }});
    trace.push(outcome(client.try_call("pull", outside)));
    for timestamp_ms in [0, 4_000_000_000_000_i64] {
        let offsets = client.call(
            "offsets",
            json!({"topic": "pulls", "timestamp_ms": timestamp_ms}),
        );
        let q = &offsets["queues"][0];
        trace.push(format!(
            "{} {} {} {} {}",
            q["min"], q["max"], q["at"], q["lower"], q["upper"]
        ));
    }
    client.consumer(&Consumer::new("reset-group", "pulls"));
    client.deliveries("reset-group", 20, WITHIN, |_| true);
    client.wait_committed("reset-group", "pulls", WITHIN);
    client.shutdown("reset-group");
    eventually("the consumer is gone", WITHIN, || {
        client.connections("reset-group").is_empty().then_some(())
    });
    for (topic, timestamp_ms) in [("pulls", 0), ("pulls", -1), ("nowhere", 0)] {
        let verb = json!({"group": "reset-group", "topic": topic, "timestamp_ms": timestamp_ms, "force": true});
        let told = client
            .try_call("reset", verb)
            .map(|answer| answer["queues"][0]["offset"].clone());
        trace.push(format!("reset {topic} {timestamp_ms}: {}", outcome(told)));
        let verb = json!({"group": "reset-group", "topic": "pulls"});
        let progress = client
            .try_call("progress", verb)
            .map(|answer| answer["queues"][0]["committed"].clone());
        trace.push(format!("now at {}", outcome(progress)));
    }
    trace
}

fn queries(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queue = queue_of(cluster, "queries");
    let messages: Vec<Message> = (0..6)
        .map(|i| Message {
            key: format!("all key{i}"),
            ..Message::new("queries", format!("m{i}"))
        })
        .collect();
    let sent = client.send_to(&queue, "producer", Mode::Sync, &messages);
    let found = |client: &mut Client, verb: &str, topic: &str, key: &str, max: i64| {
        let answer = client.try_call(verb, json!({"topic": topic, "key": key, "max": max}));
        let answer = answer.map(|answer| {
            let mut bodies: Vec<String> = answer["messages"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|m| format!("{} {}", m["body"], m["keys"]))
                .collect();
            bodies.sort_unstable();
            json!(bodies)
        });
        outcome(answer)
    };
    eventually("the index has all", WITHIN, || {
        found(client, "by_key", "queries", "all", 32)
            .contains("m5")
            .then_some(())
    });
    let mut trace = Vec::new();
    for (topic, key, max) in [
        ("queries", "all", 32),
        ("queries", "key3", 32),
        ("queries", "All", 32),
        ("queries", "none", 32),
        ("nowhere", "all", 32),
    ] {
        let line = found(client, "by_key", topic, key, max);
        trace.push(format!("{topic} {key} {max}: {line}"));
    }
    trace.push(found(
        client,
        "by_unique_key",
        "queries",
        &sent[2].message_id,
        32,
    ));
    let id = &sent[3].offset_message_id;
    for id in [
        id.clone(),
        sent[4].message_id.clone(),
        format!("{}00000FFFFFFFFFFF", &id[..16]),
        "nonsense".to_owned(),
    ] {
        let viewed = client.try_call("view", json!({"topic": "queries", "message_id": id}));
        let viewed = viewed.map(|m| {
            json!([
                m["body"],
                m["queue"],
                m["offset"],
                m["keys"],
                m["reconsume_times"]
            ])
        });
        trace.push(outcome(viewed));
    }
    trace
}

fn errors(client: &mut Client, cluster: &Cluster) -> Vec<String> {
    let queue = queue_of(cluster, "errors");
    let mut trace = Vec::new();
    let mut send = |what: &str, queue: Queue, message: Message| {
        let mut outcome_of = client.try_send("producer", Mode::Sync, Some(&queue), &[message]);
        let told = match outcome_of.failed.pop() {
            Some(failed) => outcome(Err(failed.error)),
            None => "sent".to_owned(),
        };
        trace.push(format!("{what}: {told}"));
    };
    let to = |id: i32| Queue {
        id,
        ..queue.clone()
    };
    let plain = Message::new("errors", "plain");
    send("queue 1 of 1", to(1), plain.clone());
    send("queue -1", to(-1), plain.clone());
    send("level 99", to(0), plain.clone().with("delay_level", 99));
    send(
        "properties of 32,500",
        to(0),
        plain.clone().property("p", "x".repeat(32_500)),
    );
    send(
        "properties of 32,800",
        to(0),
        plain.clone().property("p", "x".repeat(32_800)),
    );
    send("a template", to(0), Message::new("TBW102", "template"));
    let broker = cluster.broker();
    for (what, verb, members) in [
        (
            "a topic with a blank",
            "set_topic",
            json!({"brokers": [broker], "topic": "a b", "read": 1, "write": 1}),
        ),
        (
            "a system topic",
            "set_topic",
            json!({"brokers": [broker], "topic": "SCHEDULE_TOPIC_XXXX", "read": 1, "write": 1}),
        ),
        (
            "an attribute that is none",
            "set_topic",
            json!({"brokers": [broker], "topic": "errors-2", "read": 1, "write": 1, "attributes": {"+nonsense": "1"}}),
        ),
        (
            "progress of nobody",
            "progress",
            json!({"group": "nobody", "topic": "errors"}),
        ),
        (
            "consumers of nobody",
            "connections",
            json!({"group": "nobody"}),
        ),
        (
            "producers of nobody",
            "producer_connections",
            json!({"group": "nobody", "topic": "errors"}),
        ),
        (
            "a topic that is not there",
            "topic",
            json!({"broker": broker, "topic": "nowhere"}),
        ),
        (
            "running info of nobody",
            "running_info",
            json!({"group": "nobody", "client": "nobody"}),
        ),
        (
            "a route that is not there",
            "route",
            json!({"topic": "nowhere"}),
        ),
    ] {
        trace.push(format!(
            "{what}: {}",
            outcome(client.try_call(verb, members))
        ));
    }
    for attributes in [
        json!({"+message.type": "NONSENSE"}),
        json!({"-message.type": ""}),
        json!({"+message.type": "FIFO", "+queue.type": "SimpleCQ"}),
        json!({"+message.type": "DELAY"}),
        json!({"+queue.type": "BatchCQ"}),
        json!({"-queue.type": ""}),
        json!({"-reserve.time": ""}),
        json!({"+reserve.time": "soon"}),
        json!({"+reserve.time": "12"}),
        json!({"message.type": "FIFO"}),
        json!({"-message.type": ""}),
    ] {
        let verb = json!({"brokers": [broker], "topic": "errors-3", "read": 1, "write": 1, "attributes": attributes});
        let changed = outcome(client.try_call("set_topic", verb));
        let shown = client.try_call("topic", json!({"broker": broker, "topic": "errors-3"}));
        let shown = shown.map(|topic| topic["attributes"].clone());
        trace.push(format!(
            "topic {attributes}: {changed}, so {}",
            outcome(shown)
        ));
    }
    for attributes in [
        json!({"+nonsense": "1"}),
        json!({"+priority.factor": "101"}),
        json!({"+priority.factor": "50"}),
        json!({}),
        json!({"-priority.factor": ""}),
    ] {
        let verb = json!({"brokers": [broker], "group": "errors-group", "attributes": attributes});
        let changed = outcome(client.try_call("set_group", verb));
        let shown = client.try_call("group", json!({"broker": broker, "group": "errors-group"}));
        let shown = shown.map(|group| group["attributes"].clone());
        trace.push(format!(
            "group {attributes}: {changed}, so {}",
            outcome(shown)
        ));
    }
    for expression in ["n >", "n = 'a' AND", "a == 1", "n BETWEEN 5 AND 1"] {
        let group = format!("wrong-{}", trace.len());
        let refused = client.try_consumer(&Consumer::new(&group, "errors").sql(expression));
        trace.push(format!(
            "{expression}: {}",
            outcome(refused.map(|()| json!("started")))
        ));
    }
    trace
}
