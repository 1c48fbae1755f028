//! What waits is delivered when it is due, where it belongs, in order and once, across crashes.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::FrameWriter;
use corelane_wire::code::{request, response};

use crate::engine::settings::Settings;
use crate::engine::turn::Connection;
use crate::log::LogOptions;
use crate::sim::Random;
use crate::sim::shard::{Received, SimShard, StoredMessage, settings};

/// A log that is small in every respect, so that what waits is read from disk.
fn small_log() -> LogOptions {
    LogOptions {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        block_bytes: 512,
        buffer_bytes: 64 << 10,
        tail_cache_bytes: 128 << 10,
        read_cache_bytes: 512 << 10,
        max_group_bytes: 16 << 10,
        max_record_bytes: 192 << 10,
        max_unflushed_bytes: 1 << 20,
        snapshot_bytes: 1 << 20,
        ..LogOptions::default()
    }
}

fn start(settings: Settings) -> (SimShard, Connection) {
    let mut shard = SimShard::new(1, settings, small_log());
    let connection = shard.connect();
    (shard, connection)
}

fn reopen(shard: &mut SimShard) -> Connection {
    shard.crash();
    assert!(shard.open().is_some());
    shard.connect()
}

fn bodies(stored: &[StoredMessage]) -> Vec<&str> {
    stored.iter().map(|message| message.body.as_str()).collect()
}

fn send(
    shard: &mut SimShard,
    connection: Connection,
    queue_id: i32,
    body: &str,
    pairs: &[(&str, &str)],
) -> Received {
    send_to(shard, connection, "t", queue_id, body, pairs)
}

fn send_to(
    shard: &mut SimShard,
    connection: Connection,
    topic: &str,
    queue_id: i32,
    body: &str,
    pairs: &[(&str, &str)],
) -> Received {
    shard.send(connection, topic, queue_id, body, pairs);
    shard.settle();
    shard.receive(connection).pop().unwrap()
}

#[test]
fn levels_deliver_in_order_and_never_early() {
    let (mut shard, connection) = start(settings());
    for level in [5, 3, 1, 0, 99] {
        for n in 0..3 {
            let reply = send(
                &mut shard,
                connection,
                1,
                &format!("{level}/{n}"),
                &[("DELAY", &level.to_string()), ("TAGS", "x")],
            );
            assert_eq!(
                (reply.code, reply.fields["queueId"].as_str()),
                (response::SUCCESS, "1")
            );
            assert_eq!(reply.fields.get("recallHandle"), None);
        }
    }
    let sent_ms = shard.now().wall_ms;
    assert_eq!(bodies(&shard.stored("t", 1)), ["0/0", "0/1", "0/2"]);
    shard.advance(999);
    assert_eq!(shard.stored("t", 1).len(), 3);
    shard.advance(60_001);
    let seen = shard.stored("t", 1);
    assert_eq!(
        bodies(&seen)[3..9],
        ["1/0", "1/1", "1/2", "3/0", "3/1", "3/2"]
    );
    assert_eq!(
        bodies(&seen)[9..],
        ["5/0", "5/1", "5/2", "99/0", "99/1", "99/2"]
    );
    for message in &seen[3..] {
        let level: usize = message.body.split('/').next().unwrap().parse().unwrap();
        let due_ms = sent_ms + settings().delay_levels_ms[level.min(5) - 1];
        assert!(
            (due_ms..due_ms + 5).contains(&message.store_ms),
            "{message:?}"
        );
        let property = |name: &str| message.properties.get(name).map(String::as_str);
        assert_eq!(property("REAL_TOPIC"), Some("t"));
        assert_eq!(property("REAL_QID"), Some("1"));
        assert_eq!(property("DELAY"), Some(level.to_string().as_str()));
        assert_eq!(
            (
                property("MSG_REGION"),
                property("TRACE_ON"),
                property("CLUSTER").is_some()
            ),
            (Some("DefaultRegion"), Some("true"), true)
        );
    }
}

#[test]
fn timers_deliver_within_a_second() {
    let (mut shard, connection) = start(settings());
    let sent_ms = shard.now().wall_ms;
    let at = |ms: i64| (sent_ms + ms).to_string();
    let cases = [
        ("past", [("TIMER_DELIVER_MS", at(-10_000))], 0),
        ("secs", [("TIMER_DELAY_SEC", "4".to_owned())], 4_000),
        ("ms", [("TIMER_DELAY_MS", "8500".to_owned())], 8_500),
        ("at", [("TIMER_DELIVER_MS", at(12_000))], 12_000),
        (
            "hours",
            [("TIMER_DELAY_SEC", "10000".to_owned())],
            10_000_000,
        ),
        (
            "days",
            [("TIMER_DELAY_SEC", "259200".to_owned())],
            259_200_000,
        ),
    ];
    for (body, properties, _) in &cases {
        let [(name, value)] = properties;
        let reply = send(
            &mut shard,
            connection,
            0,
            body,
            &[(name, value), ("UNIQ_KEY", body)],
        );
        assert_eq!(
            reply.code,
            response::SUCCESS,
            "{body}: {}",
            reply.remark.as_deref().unwrap_or_default()
        );
        assert_eq!(reply.fields.contains_key("recallHandle"), *body != "past");
    }
    shard.advance(259_202_000);
    let seen = shard.stored("t", 0);
    assert_eq!(bodies(&seen), ["past", "secs", "ms", "at", "hours", "days"]);
    for (message, (body, _, delay_ms)) in seen.iter().zip(&cases).skip(1) {
        let late_ms = message.store_ms - sent_ms - delay_ms;
        assert!(
            (0..1_010).contains(&late_ms),
            "{body} came {late_ms} ms late"
        );
        for name in [
            "TIMER_OUT_MS",
            "TIMER_ENQUEUE_MS",
            "TIMER_DEQUEUE_MS",
            "REAL_TOPIC",
            "REAL_QID",
        ] {
            assert!(
                message.properties.contains_key(name),
                "{body} has no {name}"
            );
        }
        assert_eq!(
            message.properties.contains_key("TIMER_ROLL_TIMES"),
            *body == "days"
        );
    }
    assert_eq!(seen[0].properties.get("REAL_TOPIC"), None);
    // What is delivered leaves no queues behind.
    shard.advance(7_200_000);
    let hour = sent_ms / 3_600_000;
    for hour in hour..hour + 75 {
        for queue_id in 0..7_200 {
            assert_eq!(
                shard.stored(&format!("rmq_sys_wheel_timer-{hour}"), queue_id),
                []
            );
        }
    }
}

#[test]
fn illegal_delays_are_refused() {
    let (mut shard, connection) = start(settings());
    let cases = [
        ("TIMER_DELAY_SEC", "259201"),
        ("TIMER_DELAY_SEC", "9223372036854775807"),
        ("TIMER_DELAY_MS", "9223372036854775807"),
        ("TIMER_DELIVER_MS", "9223372036854775807"),
        ("TIMER_DELAY_MS", "soon"),
        ("DELAY", "one"),
    ];
    for (name, value) in cases {
        let reply = send(&mut shard, connection, 0, "body", &[(name, value)]);
        assert_eq!(reply.code, response::MESSAGE_ILLEGAL, "{name}={value}");
    }
    for (name, value) in [
        ("TIMER_DELAY_MS", "-9223372036854775808"),
        ("DELAY", "-3"),
        ("TIMER_DELIVER_MS", "0"),
    ] {
        let reply = send(&mut shard, connection, 0, "body", &[(name, value)]);
        assert_eq!(reply.code, response::SUCCESS, "{name}={value}");
    }
    assert_eq!(shard.stored("t", 0).len(), 3);
    // Nobody puts anything where timers wait.
    for topic in [
        "rmq_sys_wheel_timer",
        "rmq_sys_wheel_timer-472222",
        "SCHEDULE_TOPIC_XXXX",
    ] {
        assert_eq!(
            send_to(&mut shard, connection, topic, 0, "body", &[]).code,
            response::NO_PERMISSION
        );
    }
}

/// Retention by size takes whole files, whatever lies in them: what waited there never comes, and stops nothing else.
#[test]
fn what_retention_takes_while_it_waits_is_lost_and_the_rest_comes() {
    let options = LogOptions {
        retention_bytes: 1 << 20,
        ..small_log()
    };
    let mut shard = SimShard::new(1, settings(), options);
    let connection = shard.connect();
    let waiting = |shard: &mut SimShard, name: &str| {
        for n in 0..3 {
            for (kind, pair) in [
                ("level", ("DELAY", "5")),
                ("timer", ("TIMER_DELAY_SEC", "60")),
            ] {
                let body = format!("{name} {kind} {n}");
                let reply = send(shard, connection, 0, &body, &[pair]);
                assert_eq!(reply.code, response::SUCCESS);
            }
        }
    };
    waiting(&mut shard, "early");
    let filler = "x".repeat(60_000);
    for _ in 0..100 {
        assert_eq!(
            send(&mut shard, connection, 1, &filler, &[]).code,
            response::SUCCESS
        );
        shard.advance(10);
    }
    waiting(&mut shard, "late");
    assert!(shard.stored("t", 1).len() < 60, "retention took the rest");
    shard.advance(70_000);
    let seen = shard.stored("t", 0);
    let mut came = bodies(&seen);
    came.sort_unstable();
    let late: Vec<String> = ["level", "timer"]
        .iter()
        .flat_map(|kind| (0..3).map(move |n| format!("late {kind} {n}")))
        .collect();
    assert_eq!(came, late);
    // The same after a restart.
    let connection = reopen(&mut shard);
    send(&mut shard, connection, 0, "again", &[("DELAY", "1")]);
    shard.advance(2_000);
    assert_eq!(shard.stored("t", 0).len(), 7);
}

fn recall(shard: &mut SimShard, connection: Connection, topic: &str, handle: &str) -> Received {
    let fields = |fields: &mut FrameWriter<'_>| {
        fields.field("producerGroup", "p");
        fields.field("topic", topic);
        fields.field("recallHandle", handle);
    };
    shard
        .call(connection, request::RECALL_MESSAGE, fields, &[])
        .unwrap()
}

#[test]
fn what_is_recalled_is_not_delivered() {
    let (mut shard, connection) = start(Settings {
        timer_horizon_ms: 3_600_000,
        ..settings()
    });
    send_to(&mut shard, connection, "other", 0, "body", &[]);
    let mut handles = Vec::new();
    for secs in ["5", "7200"] {
        for key in ["recalled", "kept"] {
            let reply = send(
                &mut shard,
                connection,
                0,
                key,
                &[("TIMER_DELAY_SEC", secs), ("UNIQ_KEY", key)],
            );
            handles.push(reply.fields["recallHandle"].clone());
        }
    }
    for handle in [&handles[0], &handles[0], &handles[2]] {
        let reply = recall(&mut shard, connection, "t", handle);
        assert_eq!(
            (reply.code, reply.fields["msgId"].as_str()),
            (response::SUCCESS, "recalled")
        );
    }
    assert_eq!(
        recall(&mut shard, connection, "other", &handles[1]).code,
        response::ILLEGAL_OPERATION
    );
    assert_eq!(
        recall(&mut shard, connection, "none", &handles[1]).code,
        response::TOPIC_NOT_EXIST
    );
    assert_eq!(
        recall(&mut shard, connection, "t", "nonsense").code,
        response::ILLEGAL_OPERATION
    );
    let connection = reopen(&mut shard);
    shard.advance(6_500);
    assert_eq!(bodies(&shard.stored("t", 0)), ["kept"]);
    assert_eq!(
        recall(&mut shard, connection, "t", &handles[1]).code,
        response::ILLEGAL_OPERATION
    );
    shard.advance(7_200_000);
    assert_eq!(bodies(&shard.stored("t", 0)), ["kept", "kept"]);
    let (mut shard, connection) = start(Settings {
        recall: false,
        ..settings()
    });
    assert_eq!(
        recall(&mut shard, connection, "t", &handles[1]).code,
        response::NO_PERMISSION
    );
}

#[test]
fn much_that_is_due_at_once_comes_from_disk_in_order() {
    let (mut shard, connection) = start(settings());
    let filler = "x".repeat(400);
    for n in 0..2_000 {
        let body = format!("{n} {filler}");
        let pairs = if n % 2 == 0 {
            ("TIMER_DELAY_SEC", "60")
        } else {
            ("DELAY", "5")
        };
        shard.send(connection, "t", n % 2, &body, &[pairs]);
        if n % 50 == 0 {
            shard.settle();
        }
    }
    shard.settle();
    shard.advance(62_000);
    for queue_id in 0..2 {
        let seen = shard.stored("t", queue_id);
        let numbers: Vec<i32> = seen
            .iter()
            .map(|m| m.body.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(
            numbers,
            (0..1_000).map(|n| 2 * n + queue_id).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_broker_that_was_away_delivers_at_once_what_became_due() {
    let (mut shard, connection) = start(settings());
    for secs in ["3", "4000", "90000"] {
        send(
            &mut shard,
            connection,
            0,
            secs,
            &[("TIMER_DELAY_SEC", secs)],
        );
    }
    send(&mut shard, connection, 0, "level", &[("DELAY", "1")]);
    shard.crash();
    shard.sleep(200_000_000);
    assert!(shard.open().is_some());
    shard.advance(10);
    let mut seen = shard.stored("t", 0);
    seen.sort_by(|a, b| a.body.cmp(&b.body));
    assert_eq!(bodies(&seen), ["3", "4000", "90000", "level"]);
}

/// Sends at random, crashes at random, and holds that every acknowledged message came once, when it was due, and that of
/// those that were not acknowledged none came twice.
fn survives_crashes(seed: u64) {
    let mut random = Random::new(seed);
    let settings = Settings {
        timer_horizon_ms: 120_000,
        ..settings()
    };
    // Groups so short that a batch would not fit by chance.
    let options = LogOptions {
        max_group_bytes: 4096,
        ..small_log()
    };
    let mut shard = SimShard::new(seed, settings.clone(), options);
    let mut connection = shard.connect();
    // By body: due time, and whether the send was acknowledged.
    let mut sent: BTreeMap<String, (i64, bool)> = BTreeMap::new();
    for life in 0..5 {
        let crash_at = shard.disk.steps() + 20 + random.below(400) as u64;
        shard.disk.crash_after(Some(crash_at));
        let mut waiting = HashMap::new();
        while !shard.has_crashed() {
            for _ in 0..random.below(60) {
                let filler = "x".repeat(random.below(900));
                let body = format!("{life}-{} {filler}", sent.len());
                let (name, value, wait_ms) = if random.one_in(2) {
                    let level = 1 + random.below(3);
                    (
                        "DELAY",
                        level.to_string(),
                        settings.delay_levels_ms[level - 1],
                    )
                } else {
                    let longest_ms = if random.one_in(10) { 300_000 } else { 4_000 };
                    let delay_ms = 1 + random.below(longest_ms) as i64;
                    ("TIMER_DELAY_MS", delay_ms.to_string(), delay_ms)
                };
                let opaque = shard.send(connection, "t", 0, &body, &[(name, &value)]);
                waiting.insert(opaque, body.clone());
                sent.insert(body, (shard.now().wall_ms + wait_ms, false));
            }
            shard.advance(random.below(4_000) as i64);
            for reply in shard.receive(connection) {
                assert_eq!(reply.code, response::SUCCESS, "{:?}", reply.remark);
                sent.get_mut(&waiting.remove(&reply.opaque).unwrap())
                    .unwrap()
                    .1 = true;
            }
        }
        connection = reopen(&mut shard);
    }
    shard.advance(400_000);
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    for message in shard.stored("t", 0) {
        let (due_ms, _) = sent[&message.body];
        assert!(message.store_ms >= due_ms, "{} came early", message.body);
        *came.entry(message.body).or_default() += 1;
    }
    for (body, (_, acknowledged)) in &sent {
        let times = came.get(body).copied().unwrap_or(0);
        let name = body.split(' ').next().unwrap();
        assert!(times <= 1, "seed {seed}: {name} came {times} times");
        assert!(
            times == 1 || !acknowledged,
            "seed {seed}: {name} was acknowledged and never came"
        );
    }
}

#[test]
fn each_comes_once_across_crashes() {
    for seed in 0..40 {
        survives_crashes(seed);
    }
}

#[test]
fn a_level_that_is_configured_no_more_is_still_delivered() {
    let (mut shard, connection) = start(settings());
    send(&mut shard, connection, 0, "body", &[("DELAY", "5")]);
    let few = Settings {
        delay_levels_ms: vec![1_000, 2_000],
        ..settings()
    };
    shard.crash();
    shard.set(few);
    assert!(shard.open().is_some());
    shard.advance(2_010);
    assert_eq!(bodies(&shard.stored("t", 0)), ["body"]);
}
