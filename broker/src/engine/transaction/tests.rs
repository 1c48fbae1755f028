//! What is pending is remembered across crashes; commits are delivered, rollbacks never, and silent producers are asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use corelane_wire::code::{request, response, sys_flag};
use corelane_wire::message_id::OffsetId;
use corelane_wire::record::Record;

use super::*;
use crate::engine::turn::Connection;
use crate::sim::Random;
use crate::sim::test_host::{Reply, TestHost, settings, small_log};

fn offsets(transactions: &Transactions) -> Vec<(i64, u32)> {
    transactions
        .pending
        .iter()
        .map(|(offset, pending)| (*offset, pending.checks))
        .collect()
}

/// The state records of a snapshot, as replay hands them over.
fn records(transactions: &Transactions) -> Vec<(u16, Vec<u8>)> {
    let mut payload = transactions.next.to_le_bytes().to_vec();
    for (offset, pending) in &transactions.pending {
        push_checks(&mut payload, *offset, pending.checks);
    }
    vec![(PENDING, payload)]
}

#[test]
fn what_is_pending_comes_back_from_a_snapshot_and_the_ends_behind_it() {
    let mut before = Transactions::default();
    before.know_until(5, 10);
    before.remove(1);
    before
        .apply(
            CHECKED,
            &[3i64.to_le_bytes().as_slice(), &2u32.to_le_bytes()].concat(),
        )
        .unwrap();
    let mut after = Transactions::default();
    for (kind, payload) in records(&before) {
        after.apply(kind, &payload).unwrap();
    }
    assert_eq!(offsets(&after), [(0, 0), (2, 0), (3, 2), (4, 0)]);
    // Behind the snapshot: 5, 6 and 7 were stored, 6 and 0 ended.
    after.apply(ENDED, &6i64.to_le_bytes()).unwrap();
    after.apply(ENDED, &0i64.to_le_bytes()).unwrap();
    after.apply(ENDED, &0i64.to_le_bytes()).unwrap();
    after.recovered(0, 8, 100);
    assert_eq!(offsets(&after), [(2, 0), (3, 2), (4, 0), (5, 0), (7, 0)]);
    assert_eq!(after.due.len(), 5);
    assert_eq!(after.deadline_mono_ms(), Some(100));
    // Retention took the first ones.
    after.recovered(4, 8, 200);
    assert_eq!(offsets(&after), [(4, 0), (5, 0), (7, 0)]);
}

#[test]
fn records_that_are_cut_short_are_refused() {
    let mut transactions = Transactions::default();
    assert_eq!(transactions.apply(ENDED, &[0; 7]), None);
    assert_eq!(transactions.apply(CHECKED, &[0; 11]), None);
    assert_eq!(transactions.apply(PENDING, &[0; 9]), None);
}

const COMMIT: i32 = sys_flag::TRANSACTION_COMMIT;
const ROLLBACK: i32 = sys_flag::TRANSACTION_ROLLBACK;

fn start() -> (TestHost, Connection) {
    let mut host = TestHost::start(1, settings(), small_log());
    let connection = host.connect();
    host.produce(connection, "client", "producers");
    (host, connection)
}

/// A half message, as its producer knows it.
#[derive(Clone, Debug)]
struct Half {
    offset: String,
    position: String,
}

fn half_of(reply: &Reply) -> Half {
    assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
    Half {
        offset: reply.fields["queueOffset"].clone(),
        position: OffsetId::parse(&reply.fields["msgId"])
            .unwrap()
            .offset
            .to_string(),
    }
}

fn send_half(
    host: &mut TestHost,
    connection: Connection,
    body: &str,
    more: &[(&str, &str)],
) -> Half {
    let key = format!("key-{body}");
    let mut properties = vec![
        ("TRAN_MSG", "true"),
        ("PGROUP", "producers"),
        ("UNIQ_KEY", &*key),
        ("TAGS", "t"),
    ];
    properties.extend(more);
    let reply = host.send(connection, "topic", 2, body, &properties);
    assert_eq!(
        (
            reply.fields["queueId"].as_str(),
            &reply.fields["transactionId"]
        ),
        ("2", &key)
    );
    half_of(&reply)
}

fn end_as(
    host: &mut TestHost,
    connection: Connection,
    half: &Half,
    how: i32,
    group: &str,
    from_check: bool,
) -> Reply {
    let (how, from_check) = (how.to_string(), from_check.to_string());
    let fields = [
        ("producerGroup", group),
        ("tranStateTableOffset", &*half.offset),
        ("commitLogOffset", &*half.position),
        ("commitOrRollback", &*how),
        ("fromTransactionCheck", &*from_check),
        ("msgId", "id"),
    ];
    host.request(connection, request::END_TRANSACTION, &fields, &[])
}

fn end(host: &mut TestHost, connection: Connection, half: &Half, how: i32) -> i32 {
    end_as(host, connection, half, how, "producers", false).code
}

fn bodies(host: &mut TestHost, topic: &str, queue_id: i32) -> Vec<String> {
    host.messages(topic, queue_id)
        .into_iter()
        .map(|message| message.body)
        .collect()
}

/// The half messages that a producer is asked about: by body, with the number of checks.
fn asked(host: &mut TestHost, connection: Connection) -> Vec<(String, String, Half)> {
    let requests = host.requests(connection);
    let checks = requests
        .into_iter()
        .filter(|(_, request)| request.code == request::CHECK_TRANSACTION_STATE);
    checks
        .map(|(_, check)| {
            let (record, rest) = Record::parse(&check.body).unwrap();
            assert!(rest.is_empty() && record.check_body_crc());
            assert_eq!((record.topic(), record.queue_id()), ("topic", 2));
            let times = record
                .properties()
                .get("TRANSACTION_CHECK_TIMES")
                .unwrap()
                .to_str()
                .into_owned();
            let half = Half {
                offset: check.fields["tranStateTableOffset"].clone(),
                position: check.fields["commitLogOffset"].clone(),
            };
            assert_eq!(
                OffsetId::parse(&check.fields["offsetMsgId"])
                    .unwrap()
                    .offset
                    .to_string(),
                half.position
            );
            (
                String::from_utf8_lossy(record.body()).into_owned(),
                times,
                half,
            )
        })
        .collect()
}

#[test]
fn a_commit_is_delivered_a_rollback_is_not_and_unknown_changes_nothing() {
    let (mut host, connection) = start();
    let committed = send_half(
        &mut host,
        connection,
        "committed",
        &[("DELAY", "3"), ("user", "u")],
    );
    let rolled_back = send_half(&mut host, connection, "rolled back", &[]);
    let unknown = send_half(&mut host, connection, "unknown", &[]);
    assert_eq!(bodies(&mut host, "topic", 2), [""; 0]);
    assert_eq!(
        end(&mut host, connection, &committed, COMMIT),
        response::SUCCESS
    );
    assert_eq!(
        end(&mut host, connection, &rolled_back, ROLLBACK),
        response::SUCCESS
    );
    assert_eq!(end(&mut host, connection, &unknown, 0), response::SUCCESS);
    let seen = host.messages("topic", 2);
    assert_eq!(seen.len(), 1);
    let message = &seen[0];
    assert_eq!(message.sys_flag & sys_flag::TRANSACTION_MASK, COMMIT);
    assert_eq!(
        message.prepared_transaction_offset.to_string(),
        committed.position
    );
    let property = |name: &str| message.properties.get(name).map(String::as_str);
    assert_eq!(
        (
            property("REAL_TOPIC"),
            property("REAL_QID"),
            property("DELAY")
        ),
        (None, None, None)
    );
    assert_eq!(property("TRANSACTION_CHECK_TIMES"), None);
    assert_eq!(
        (
            property("MSG_REGION"),
            property("TRACE_ON"),
            property("CLUSTER").is_some()
        ),
        (Some("DefaultRegion"), Some("true"), true)
    );
    assert_eq!(
        (property("__transactionId__"), property("TRAN_MSG")),
        (Some("key-committed"), Some("true"))
    );
    assert_eq!(
        (property("PGROUP"), property("user"), property("TAGS")),
        (Some("producers"), Some("u"), Some("t"))
    );
    // An end is an end.
    for how in [COMMIT, ROLLBACK] {
        assert_eq!(
            end(&mut host, connection, &committed, how),
            response::SYSTEM_ERROR
        );
        assert_eq!(
            end(&mut host, connection, &rolled_back, how),
            response::SYSTEM_ERROR
        );
    }
    assert_eq!(
        end(&mut host, connection, &unknown, COMMIT),
        response::SUCCESS
    );
    assert_eq!(bodies(&mut host, "topic", 2), ["committed", "unknown"]);
}

#[test]
fn only_the_right_end_of_the_right_message_is_taken() {
    let (mut host, connection) = start();
    let half = send_half(&mut host, connection, "half", &[]);
    let other = send_half(&mut host, connection, "other", &[]);
    let plain = half_of(&host.send(connection, "topic", 2, "plain", &[]));
    let wrong = [
        Half {
            offset: other.offset.clone(),
            position: half.position.clone(),
        },
        Half {
            offset: half.offset.clone(),
            position: plain.position.clone(),
        },
        Half {
            offset: half.offset.clone(),
            position: "1".to_owned(),
        },
        Half {
            offset: half.offset.clone(),
            position: "-1".to_owned(),
        },
        Half {
            offset: half.offset.clone(),
            position: i64::MAX.to_string(),
        },
        Half {
            offset: "-1".to_owned(),
            position: half.position.clone(),
        },
        Half {
            offset: i64::MAX.to_string(),
            position: half.position.clone(),
        },
    ];
    for wrong in wrong {
        assert_eq!(
            end(&mut host, connection, &wrong, COMMIT),
            response::SYSTEM_ERROR,
            "{wrong:?}"
        );
    }
    let reply = end_as(&mut host, connection, &half, COMMIT, "other group", false);
    assert_eq!(reply.code, response::SYSTEM_ERROR);
    assert_eq!(end(&mut host, connection, &half, 7), response::SYSTEM_ERROR);
    assert_eq!(bodies(&mut host, "topic", 2), ["plain"]);
    assert_eq!(end(&mut host, connection, &half, COMMIT), response::SUCCESS);
    // Its topic is gone: nothing is stored, and the half message stays.
    host.request(
        connection,
        request::DELETE_TOPIC_IN_BROKER,
        &[("topic", "topic")],
        &[],
    );
    assert_eq!(
        end(&mut host, connection, &other, COMMIT),
        response::TOPIC_NOT_EXIST
    );
    assert_eq!(host.engine.transactions.len(), 1);
}

#[test]
fn a_producer_is_asked_until_it_knows() {
    let (mut host, connection) = start();
    let half = send_half(&mut host, connection, "half", &[("WAIT", "true")]);
    host.advance(5_999);
    assert!(asked(&mut host, connection).is_empty());
    host.advance(2);
    let checks = asked(&mut host, connection);
    assert_eq!(
        (checks[0].0.as_str(), checks[0].1.as_str(), checks.len()),
        ("half", "1", 1)
    );
    assert_eq!(
        (&checks[0].2.offset, &checks[0].2.position),
        (&half.offset, &half.position)
    );
    assert_eq!(
        end_as(&mut host, connection, &half, 0, "producers", true).code,
        response::SUCCESS
    );
    host.advance(30_000);
    assert_eq!(asked(&mut host, connection)[0].1, "2");
    assert_eq!(
        end_as(&mut host, connection, &half, COMMIT, "producers", true).code,
        response::SUCCESS
    );
    host.advance(300_000);
    assert!(asked(&mut host, connection).is_empty());
    let seen = host.messages("topic", 2);
    assert_eq!(
        (
            seen[0].properties["TRANSACTION_CHECK_TIMES"].as_str(),
            seen[0].properties["WAIT"].as_str()
        ),
        ("2", "true")
    );
}

#[test]
fn another_producer_of_the_group_is_asked_when_one_is_gone() {
    let (mut host, first) = start();
    let second = host.connect();
    host.produce(second, "second", "producers");
    let stranger = host.connect();
    host.produce(stranger, "stranger", "strangers");
    let half = send_half(&mut host, first, "half", &[]);
    host.close(first);
    host.advance(6_001);
    assert_eq!(asked(&mut host, second).len(), 1);
    assert!(asked(&mut host, stranger).is_empty());
    assert_eq!(
        end_as(&mut host, second, &half, COMMIT, "producers", true).code,
        response::SUCCESS
    );
    assert_eq!(bodies(&mut host, "topic", 2), ["half"]);
}

#[test]
fn a_message_may_ask_for_immunity() {
    let (mut host, connection) = start();
    let half = send_half(
        &mut host,
        connection,
        "half",
        &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "60")],
    );
    host.advance(59_999);
    assert!(asked(&mut host, connection).is_empty());
    host.advance(1_002);
    assert_eq!(asked(&mut host, connection).len(), 1);
    assert_eq!(
        end(&mut host, connection, &half, COMMIT),
        response::ILLEGAL_OPERATION
    );
    assert_eq!(
        end_as(&mut host, connection, &half, COMMIT, "producers", true).code,
        response::SUCCESS
    );
}

#[test]
fn what_nobody_knows_goes_to_the_dead_topic_and_may_be_resumed() {
    let (mut host, connection) = start();
    send_half(&mut host, connection, "half", &[]);
    host.advance(6_001 + 2 * 30_000);
    let times: Vec<_> = asked(&mut host, connection)
        .into_iter()
        .map(|(_, times, _)| times)
        .collect();
    assert_eq!(times, ["1", "2", "3"]);
    assert!(host.messages(DEAD_TOPIC, 0).is_empty());
    host.advance(30_000);
    assert!(asked(&mut host, connection).is_empty());
    let dead = host.messages(DEAD_TOPIC, 0);
    assert_eq!(
        (
            dead.len(),
            dead[0].body.as_str(),
            dead[0].properties["REAL_TOPIC"].as_str()
        ),
        (1, "half", "topic")
    );
    assert_eq!(host.engine.transactions.len(), 0);

    let id = |position| {
        OffsetId {
            store_host: host.engine.store_host,
            offset: position,
        }
        .encode()
        .to_string()
    };
    let (right, wrong) = (id(dead[0].position), id(dead[0].position + 1));
    for id in [wrong.as_str(), "nonsense", ""] {
        let reply = host.request(
            connection,
            request::RESUME_CHECK_HALF_MESSAGE,
            &[("msgId", id)],
            &[],
        );
        assert_eq!(reply.code, response::SYSTEM_ERROR, "{id}");
    }
    let reply = host.request(
        connection,
        request::RESUME_CHECK_HALF_MESSAGE,
        &[("msgId", &right)],
        &[],
    );
    assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
    host.advance(6_001);
    let checks = asked(&mut host, connection);
    assert_eq!(checks[0].1, "1");
    assert_eq!(
        end_as(
            &mut host,
            connection,
            &checks[0].2,
            COMMIT,
            "producers",
            true
        )
        .code,
        response::SUCCESS
    );
    assert_eq!(bodies(&mut host, "topic", 2), ["half"]);
}

#[test]
fn without_producers_half_messages_are_given_up_in_the_same_time() {
    let (mut host, connection) = start();
    send_half(&mut host, connection, "half", &[]);
    host.close(connection);
    host.advance(6_001 + 3 * 30_000);
    assert_eq!(bodies(&mut host, DEAD_TOPIC, 0), ["half"]);
}

#[test]
fn so_many_may_be_pending_and_no_more() {
    let mut settings = settings();
    settings.max_pending_transactions = 2;
    let mut host = TestHost::start(1, settings, small_log());
    let connection = host.connect();
    let first = send_half(&mut host, connection, "1", &[]);
    send_half(&mut host, connection, "2", &[]);
    let refused = host.send(connection, "topic", 2, "3", &[("TRAN_MSG", "true")]);
    assert_eq!(refused.code, response::SYSTEM_BUSY);
    assert_eq!(
        end(&mut host, connection, &first, ROLLBACK),
        response::SUCCESS
    );
    send_half(&mut host, connection, "3", &[]);
}

#[test]
fn half_messages_that_are_on_disk_only_are_checked_and_committed() {
    let (mut host, connection) = start();
    let half = send_half(&mut host, connection, "half", &[]);
    let filler = "f".repeat(20_000);
    for _ in 0..40 {
        assert_eq!(
            host.send(connection, "filler", 0, &filler, &[]).code,
            response::SUCCESS
        );
    }
    host.advance(6_001);
    assert_eq!(asked(&mut host, connection).len(), 1);
    assert_eq!(end(&mut host, connection, &half, COMMIT), response::SUCCESS);
    assert_eq!(bodies(&mut host, "topic", 2), ["half"]);
}

#[test]
fn checks_are_counted_across_crashes() {
    let (mut host, connection) = start();
    send_half(&mut host, connection, "half", &[]);
    host.advance(6_001);
    host.crash_and_reopen();
    let connection = host.connect();
    host.produce(connection, "client", "producers");
    host.advance(6_001);
    assert_eq!(asked(&mut host, connection)[0].1, "2");
}

/// Transactions that begin and end at random, with crashes between; in the end every producer knows.
fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut settings = settings();
    settings.transaction_check_max = 1_000;
    let mut host = TestHost::start(seed, settings, small_log());
    let mut connection = host.connect();
    host.produce(connection, "client", "producers");
    let mut open: BTreeMap<String, Half> = BTreeMap::new();
    let mut decided: HashMap<String, i32> = HashMap::new();
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for number in 0..150 {
        match random.below(12) {
            0..6 => {
                let body = format!("{number}{}", "x".repeat(random.below(3_000)));
                open.insert(body.clone(), send_half(&mut host, connection, &body, &[]));
                decided.insert(
                    body,
                    if random.below(2) == 0 {
                        COMMIT
                    } else {
                        ROLLBACK
                    },
                );
            }
            6..10 => {
                let Some((body, half)) = open.pop_first() else {
                    continue;
                };
                assert_eq!(
                    end(&mut host, connection, &half, decided[&body]),
                    response::SUCCESS
                );
                acknowledged.insert(body);
            }
            10 => host.advance(random.below(20_000) as i64),
            _ => {
                host.crash_and_reopen();
                connection = host.connect();
                host.produce(connection, "client", "producers");
            }
        }
        for (body, _, half) in asked(&mut host, connection) {
            assert!(!acknowledged.contains(&body), "{body} had ended");
            open.insert(body, half);
        }
    }
    // Every one that has not ended is asked about, without anybody else's help.
    open.clear();
    host.advance(40_000);
    for (body, _, half) in asked(&mut host, connection) {
        assert!(!acknowledged.contains(&body), "{body} had ended");
        let reply = end_as(
            &mut host,
            connection,
            &half,
            decided[&body],
            "producers",
            true,
        );
        if open.insert(body, half).is_none() {
            assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
        }
    }
    let mut delivered = bodies(&mut host, "topic", 2);
    delivered.sort();
    let mut wanted: Vec<String> = decided
        .iter()
        .filter(|(_, how)| **how == COMMIT)
        .map(|(body, _)| body.clone())
        .collect();
    wanted.sort();
    assert_eq!(delivered.len(), wanted.len());
    assert!(delivered == wanted);
    assert_eq!(host.engine.transactions.len(), 0);
}

#[test]
fn every_commit_is_delivered_once_and_no_rollback_ever() {
    for seed in 0..30 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            panic!("seed {seed}: {:?}", panic.downcast_ref::<String>());
        }
    }
}
