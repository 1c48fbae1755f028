//! What waits is delivered when it is due, where it belongs, in order and once, across crashes.

use std::collections::BTreeMap;

use corelane_wire::code::{request, response};

use crate::engine::settings::Settings;
use crate::engine::testhost::{Reply, Seen, TestHost, settings, small_log};
use crate::engine::turn::Connection;
use crate::sim::Random;

fn start(settings: Settings) -> (TestHost, Connection) {
    let mut host = TestHost::start(1, settings, small_log());
    let connection = host.connect();
    (host, connection)
}

fn bodies(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|message| message.body.as_str()).collect()
}

#[test]
fn levels_deliver_in_order_and_never_early() {
    let (mut host, connection) = start(settings());
    for level in [5, 3, 1, 0, 99] {
        for n in 0..3 {
            let reply = host.send(
                connection,
                "t",
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
    let sent_ms = host.now.wall_ms;
    assert_eq!(bodies(&host.messages("t", 1)), ["0/0", "0/1", "0/2"]);
    host.advance(999);
    assert_eq!(host.messages("t", 1).len(), 3);
    host.advance(60_001);
    let seen = host.messages("t", 1);
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
    }
}

#[test]
fn timers_deliver_within_a_second() {
    let (mut host, connection) = start(settings());
    let sent_ms = host.now.wall_ms;
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
        let reply = host.send(
            connection,
            "t",
            0,
            body,
            &[(name, value), ("UNIQ_KEY", body)],
        );
        assert_eq!(reply.code, response::SUCCESS, "{body}: {}", reply.remark);
        assert_eq!(reply.fields.contains_key("recallHandle"), *body != "past");
    }
    host.advance(259_202_000);
    let seen = host.messages("t", 0);
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
    host.advance(7_200_000);
    let hour = sent_ms / 3_600_000;
    for hour in hour..hour + 75 {
        for queue_id in 0..7_200 {
            assert_eq!(
                host.log
                    .find_queue(&format!("rmq_sys_wheel_timer-{hour}"), queue_id),
                None
            );
        }
    }
}

#[test]
fn illegal_delays_are_refused() {
    let (mut host, connection) = start(settings());
    let cases = [
        ("TIMER_DELAY_SEC", "259201"),
        ("TIMER_DELAY_SEC", "9223372036854775807"),
        ("TIMER_DELAY_MS", "9223372036854775807"),
        ("TIMER_DELIVER_MS", "9223372036854775807"),
        ("TIMER_DELAY_MS", "soon"),
        ("DELAY", "one"),
    ];
    for (name, value) in cases {
        let reply = host.send(connection, "t", 0, "body", &[(name, value)]);
        assert_eq!(reply.code, response::MESSAGE_ILLEGAL, "{name}={value}");
    }
    for (name, value) in [
        ("TIMER_DELAY_MS", "-9223372036854775808"),
        ("DELAY", "-3"),
        ("TIMER_DELIVER_MS", "0"),
    ] {
        let reply = host.send(connection, "t", 0, "body", &[(name, value)]);
        assert_eq!(reply.code, response::SUCCESS, "{name}={value}");
    }
    assert_eq!(host.messages("t", 0).len(), 3);
    // Nobody puts anything where timers wait.
    for topic in [
        "rmq_sys_wheel_timer",
        "rmq_sys_wheel_timer-472222",
        "SCHEDULE_TOPIC_XXXX",
    ] {
        assert_eq!(
            host.send(connection, topic, 0, "body", &[]).code,
            response::NO_PERMISSION
        );
    }
}

fn recall(host: &mut TestHost, connection: Connection, topic: &str, handle: &str) -> Reply {
    let fields = [
        ("producerGroup", "p"),
        ("topic", topic),
        ("recallHandle", handle),
    ];
    host.request(connection, request::RECALL_MESSAGE, &fields, &[])
}

#[test]
fn what_is_recalled_is_not_delivered() {
    let (mut host, connection) = start(Settings {
        timer_horizon_ms: 3_600_000,
        ..settings()
    });
    host.send(connection, "other", 0, "body", &[]);
    let mut handles = Vec::new();
    for secs in ["5", "7200"] {
        for key in ["recalled", "kept"] {
            let reply = host.send(
                connection,
                "t",
                0,
                key,
                &[("TIMER_DELAY_SEC", secs), ("UNIQ_KEY", key)],
            );
            handles.push(reply.fields["recallHandle"].clone());
        }
    }
    for handle in [&handles[0], &handles[0], &handles[2]] {
        let reply = recall(&mut host, connection, "t", handle);
        assert_eq!(
            (reply.code, reply.fields["msgId"].as_str()),
            (response::SUCCESS, "recalled")
        );
    }
    assert_eq!(
        recall(&mut host, connection, "other", &handles[1]).code,
        response::ILLEGAL_OPERATION
    );
    assert_eq!(
        recall(&mut host, connection, "none", &handles[1]).code,
        response::TOPIC_NOT_EXIST
    );
    assert_eq!(
        recall(&mut host, connection, "t", "nonsense").code,
        response::ILLEGAL_OPERATION
    );
    host.crash_and_reopen();
    host.advance(6_500);
    assert_eq!(bodies(&host.messages("t", 0)), ["kept"]);
    assert_eq!(
        recall(&mut host, connection, "t", &handles[1]).code,
        response::ILLEGAL_OPERATION
    );
    host.advance(7_200_000);
    assert_eq!(bodies(&host.messages("t", 0)), ["kept", "kept"]);
    let (mut host, connection) = start(Settings {
        recall: false,
        ..settings()
    });
    assert_eq!(
        recall(&mut host, connection, "t", &handles[1]).code,
        response::NO_PERMISSION
    );
}

#[test]
fn much_that_is_due_at_once_comes_from_disk_in_order() {
    let (mut host, connection) = start(settings());
    let filler = "x".repeat(400);
    for n in 0..2_000 {
        let body = format!("{n} {filler}");
        let pairs = if n % 2 == 0 {
            ("TIMER_DELAY_SEC", "60")
        } else {
            ("DELAY", "5")
        };
        host.ask_send(connection, "t", n % 2, &body, &[pairs]);
        if n % 50 == 0 {
            host.run();
        }
    }
    host.run();
    host.advance(62_000);
    for queue_id in 0..2 {
        let seen = host.messages("t", queue_id);
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
    let (mut host, connection) = start(settings());
    for secs in ["3", "4000", "90000"] {
        host.send(connection, "t", 0, secs, &[("TIMER_DELAY_SEC", secs)]);
    }
    host.send(connection, "t", 0, "level", &[("DELAY", "1")]);
    host.disk.crash();
    host.now.wall_ms += 200_000_000;
    host.crash_and_reopen();
    host.run();
    host.advance(10);
    let mut seen = host.messages("t", 0);
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
    let mut host = TestHost::start(seed, settings.clone(), small_log());
    let mut connection = host.connect();
    // By body: due time, and whether the send was acknowledged.
    let mut sent: BTreeMap<String, (i64, bool)> = BTreeMap::new();
    for life in 0..5 {
        let crash_at = host.disk.steps() + 20 + random.below(150) as u64;
        host.disk.crash_after(Some(crash_at));
        let mut waiting = Vec::new();
        while !host.disk.has_crashed() {
            for _ in 0..random.below(30) {
                let body = format!("{life}-{}", sent.len());
                let (name, value, wait_ms) = if random.one_in(2) {
                    let level = 1 + random.below(4);
                    (
                        "DELAY",
                        level.to_string(),
                        settings.delay_levels_ms[level - 1],
                    )
                } else {
                    let delay_ms = 1 + random.below(300_000) as i64;
                    ("TIMER_DELAY_MS", delay_ms.to_string(), delay_ms)
                };
                let opaque = host.ask_send(connection, "t", 0, &body, &[(name, &value)]);
                waiting.push((opaque, body.clone()));
                sent.insert(body, (host.now.wall_ms + wait_ms, false));
            }
            host.advance(random.below(4_000) as i64);
            waiting.retain(|(opaque, body)| match host.answer(connection, *opaque) {
                Some(reply) => {
                    assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
                    sent.get_mut(body).unwrap().1 = true;
                    false
                }
                None => true,
            });
        }
        host.crash_and_reopen();
        connection = host.connect();
    }
    host.advance(400_000);
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    for message in host.messages("t", 0) {
        let (due_ms, _) = sent[&message.body];
        assert!(message.store_ms >= due_ms, "{} came early", message.body);
        *came.entry(message.body).or_default() += 1;
    }
    for (body, (_, acknowledged)) in &sent {
        let times = came.get(body).copied().unwrap_or(0);
        assert!(times <= 1, "{body} came {times} times");
        assert!(
            times == 1 || !acknowledged,
            "{body} was acknowledged and never came"
        );
    }
}

#[test]
fn each_comes_once_across_crashes() {
    for seed in 0..30 {
        survives_crashes(seed);
    }
}
