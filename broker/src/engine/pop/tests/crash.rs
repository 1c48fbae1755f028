//! Pops and crashes.

use std::collections::BTreeSet;

use corelane_wire::code::{request, response};

use super::{Group, INVISIBLE_MS, Popped};
use crate::log::LogOptions;
use crate::sim::Random;
use crate::sim::test_host::small_log;

#[test]
fn a_crash_takes_nothing_and_keeps_the_invisible_time() {
    let mut group = Group::new(1);
    group.send(0, "acked");
    group.send(0, "open");
    let messages = group.pop(&[]);
    group.ack(&messages[0]);
    group.host.advance(1_000);
    group.crash();
    assert!(group.pop(&[]).is_empty(), "invisible also after a crash");
    group.send(0, "new");
    assert_eq!(group.pop_bodies(), [("new".into(), 0)]);
    group.host.advance(INVISIBLE_MS);
    assert_eq!(group.pop_bodies(), [("new".into(), 1), ("open".into(), 1)]);
    // A handle from before the crash is good for as long as its message is out.
    assert_eq!(group.ack(&messages[1]).code, response::SUCCESS);
    assert_eq!(group.committed(0), Some(3));
}

#[test]
fn old_handles_are_good_after_a_crash() {
    let mut group = Group::new(1);
    group.send(0, "a");
    let messages = group.pop(&[]);
    group.crash();
    group.ack(&messages[0]);
    group.host.advance(INVISIBLE_MS * 2);
    assert!(group.pop(&[]).is_empty());
    assert_eq!(group.committed(0), Some(1));
}

/// A topic goes after what would be popped of it again. Wherever the broker dies between, nothing is left for a topic that is
/// made anew when the deletion is asked for once more.
#[test]
fn a_crash_amid_the_deletion_of_a_topic_leaves_nothing_to_pop() {
    let groups: Vec<String> = (0..12).map(|number| format!("g{number}")).collect();
    let retries: Vec<String> = groups
        .iter()
        .map(|group| format!("%RETRY%{group}_t"))
        .collect();
    let mut between = 0;
    // A group of the log ends before, between and behind the records of the deletion.
    for (len, steps) in (3_300..3_900)
        .step_by(50)
        .flat_map(|len| (1..=4).map(move |steps| (len, steps)))
    {
        let log = LogOptions {
            max_group_bytes: 4 << 10,
            ..small_log()
        };
        let mut group = Group::over(1, log);
        for (name, retry) in groups.iter().zip(&retries) {
            group.host.make_topic(retry, 1);
            group.host.engine.offsets.commit(name, "t", 0, 1);
        }
        group.host.advance(10_000);
        let is_there = |group: &Group, topic: &str| group.host.engine.topics.get(topic).is_some();
        let delete = request::DELETE_TOPIC_IN_BROKER;
        let body = "f".repeat(len);
        group.host.ask_send(group.client, "t", 0, &body, &[]);
        group.host.ask(group.client, delete, &[("topic", "t")], b"");
        let after = group.host.disk.steps() + steps;
        group.host.disk.crash_after(Some(after));
        group.host.run();
        group.crash();
        let left = retries.iter().filter(|retry| is_there(&group, retry));
        let left = left.count();
        let topic_is_left = is_there(&group, "t");
        assert!(topic_is_left || left == 0, "{left} outlive their topic");
        between += usize::from(topic_is_left && left < retries.len());
        let again = group
            .host
            .request(group.client, delete, &[("topic", "t")], b"");
        assert_eq!(again.code, response::SUCCESS);
        let any = retries.iter().any(|retry| is_there(&group, retry));
        assert!(!any && !is_there(&group, "t"));
    }
    assert!(between > 0);
}

/// The offset of a group that has popped is journalled later than what it has popped, and is known after a crash all the same.
#[test]
fn a_topic_that_is_deleted_after_a_crash_leaves_nothing_to_pop() {
    let mut group = Group::new(1);
    group.send(0, "a");
    group.send(0, "b");
    let messages = group.pop(&[]);
    group.change(&messages[0], 500);
    group.host.advance(1_500);
    group.crash();
    let is_there = |group: &Group| group.host.engine.topics.get("%RETRY%g_t").is_some();
    assert!(is_there(&group));
    let fields = [("topic", "t")];
    let code = request::DELETE_TOPIC_IN_BROKER;
    let deleted = group.host.request(group.client, code, &fields, b"");
    assert_eq!(deleted.code, response::SUCCESS);
    assert!(!is_there(&group));
    group.host.make_topic("t", 1);
    group.send(0, "new");
    assert_eq!(group.pop_bodies(), [("new".into(), 0)]);
}

/// Whatever happens, every message is acknowledged in the end, and one whose acknowledgement was journalled comes no more.
#[test]
fn nothing_is_lost_whenever_the_broker_dies() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        // Half of them start from snapshots rather than from the records alone.
        let snapshot_bytes = if seed % 2 == 0 { 4 << 10 } else { 1 << 20 };
        let mut group = Group::over(
            3,
            LogOptions {
                snapshot_bytes,
                ..small_log()
            },
        );
        let (mut sent, mut open, mut done) = (0, Vec::<Popped>::new(), BTreeSet::<String>::new());
        // Of `done`, what no crash can undo; and what was ever acknowledged in time.
        let (mut surely_done, mut acked) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..120 {
            match random.below(10) {
                0..=2 => {
                    group.send(random.below(3) as i32, &format!("m{sent}"));
                    sent += 1;
                }
                3..=4 => {
                    let most = (1 + random.below(6)).to_string();
                    let messages = group.pop(&[("maxMsgNums", &most)]);
                    for message in &messages {
                        assert!(
                            !surely_done.contains(&message.body),
                            "seed {seed}: {} came again",
                            message.body
                        );
                    }
                    open.extend(messages);
                }
                5..=6 if !open.is_empty() => {
                    let message = open.swap_remove(random.below(open.len()));
                    assert_eq!(group.ack(&message).code, response::SUCCESS);
                    if group.host.now.wall_ms < message.due_ms() {
                        acked.insert(message.body.clone());
                        done.insert(message.body);
                    }
                }
                7 if !open.is_empty() => {
                    let at = random.below(open.len());
                    let message = open.swap_remove(at);
                    if !message.topic.starts_with('%') && group.host.now.wall_ms < message.due_ms()
                    {
                        open.push(group.change(&message, 500 + random.below(20_000) as i64));
                    }
                }
                8 => {
                    group.host.advance(random.below(8_000) as i64);
                    group.host.advance(300);
                    surely_done.extend(done.iter().cloned());
                }
                9 if random.one_in(3) => {
                    done.clone_from(&surely_done);
                    group.crash();
                }
                _ => {}
            }
        }
        for _ in 0..200 {
            let messages = group.pop(&[]);
            for message in &messages {
                group.ack(message);
                acked.insert(message.body.clone());
            }
            group.host.advance(1_000);
        }
        let all: BTreeSet<String> = (0..sent).map(|number| format!("m{number}")).collect();
        // What an old handle acknowledged too late has come again and was acknowledged then.
        assert_eq!(acked, all, "seed {seed}");
        assert_eq!(group.host.engine.pops.table.count(), 0, "seed {seed}");
        for queue_id in 0..3 {
            let max = group
                .host
                .running
                .log
                .find_queue("t", queue_id)
                .map(|queue| group.host.running.log.max_offset(queue));
            assert_eq!(
                group.committed(queue_id),
                max,
                "seed {seed}, queue {queue_id}"
            );
        }
    }
}
