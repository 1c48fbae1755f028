//! Pops and crashes.

use std::collections::BTreeSet;

use corelane_wire::code::response;

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
                .log
                .find_queue("t", queue_id)
                .map(|queue| group.host.log.max_offset(queue));
            assert_eq!(
                group.committed(queue_id),
                max,
                "seed {seed}, queue {queue_id}"
            );
        }
    }
}
