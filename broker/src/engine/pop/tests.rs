//! Pops, by an engine over a log on the simulated disk: what is delivered, when again, and what a crash may change of that.

#![allow(clippy::unwrap_used, reason = "tests")]

mod assignment;
mod crash;
mod waiting;

use std::collections::BTreeMap;

use corelane_wire::body::{BatchAck, BatchAckMessageRequestBody};
use corelane_wire::code::{request, response};
use corelane_wire::record::Record;

use crate::engine::{Connection, topic};
use crate::log::LogOptions;
use crate::sim::test_host::{Reply, TestHost, settings, small_log};

/// A message as a client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Popped {
    body: String,
    topic: String,
    queue_id: i32,
    offset: i64,
    handle: String,
    reconsume_times: i32,
}

impl Popped {
    fn due_ms(&self) -> i64 {
        self.handle
            .split(' ')
            .skip(1)
            .take(2)
            .map(|part| part.parse::<i64>().unwrap())
            .sum()
    }
}

struct Group {
    host: TestHost,
    client: Connection,
}

const INVISIBLE_MS: i64 = 10_000;

impl Group {
    fn new(queues: i32) -> Self {
        Self::over(queues, small_log())
    }

    fn over(queues: i32, log: LogOptions) -> Self {
        let mut host = TestHost::start(7, settings(), log);
        let client = host.connect();
        host.make_topic("t", queues);
        Self { host, client }
    }

    fn ask_pop(&mut self, more: &[(&str, &str)]) -> i32 {
        let (born, invisible) = (self.host.now.wall_ms.to_string(), INVISIBLE_MS.to_string());
        let mut fields = BTreeMap::from([
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "-1"),
            ("maxMsgNums", "32"),
            ("invisibleTime", &invisible),
            ("pollTime", "0"),
            ("bornTime", &born),
            ("initMode", "1"),
        ]);
        fields.extend(more.iter().copied());
        let fields: Vec<_> = fields.into_iter().collect();
        self.host
            .ask(self.client, request::POP_MESSAGE, &fields, b"")
    }

    fn pop(&mut self, more: &[(&str, &str)]) -> Vec<Popped> {
        let opaque = self.ask_pop(more);
        self.host.run();
        let reply = self.host.answer(self.client, opaque).unwrap();
        popped(&reply)
    }

    fn pop_bodies(&mut self) -> Vec<(String, i32)> {
        let mut bodies: Vec<_> = self
            .pop(&[])
            .into_iter()
            .map(|message| (message.body, message.reconsume_times))
            .collect();
        bodies.sort();
        bodies
    }

    fn send(&mut self, queue_id: i32, body: &str) {
        assert_eq!(
            self.host
                .send(self.client, "t", queue_id, body, &[("TAGS", "a")])
                .code,
            response::SUCCESS
        );
    }

    fn ack(&mut self, message: &Popped) -> Reply {
        let (queue_id, offset) = (message.queue_id.to_string(), message.offset.to_string());
        let fields = [
            ("consumerGroup", "g"),
            ("topic", message.topic.as_str()),
            ("queueId", &queue_id),
            ("extraInfo", &message.handle),
            ("offset", &offset),
        ];
        self.host
            .request(self.client, request::ACK_MESSAGE, &fields, b"")
    }

    fn change(&mut self, message: &Popped, invisible_ms: i64) -> Popped {
        let (queue_id, offset) = (message.queue_id.to_string(), message.offset.to_string());
        let invisible = invisible_ms.to_string();
        let fields = [
            ("consumerGroup", "g"),
            ("topic", message.topic.as_str()),
            ("queueId", &queue_id),
            ("extraInfo", &message.handle),
            ("offset", &offset),
            ("invisibleTime", &invisible),
        ];
        let reply = self.host.request(
            self.client,
            request::CHANGE_MESSAGE_INVISIBLETIME,
            &fields,
            b"",
        );
        assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
        let field = |name: &str| reply.fields[name].clone();
        let handle = format!(
            "{offset} {} {} {} 0 broker-a {queue_id} {offset}",
            field("popTime"),
            field("invisibleTime"),
            field("reviveQid")
        );
        Popped {
            handle,
            ..message.clone()
        }
    }

    fn committed(&self, queue_id: i32) -> Option<i64> {
        self.host.engine.offsets.get("g", "t", queue_id)
    }

    fn crash(&mut self) {
        self.host.crash_and_reopen();
        self.client = self.host.connect();
    }
}

impl TestHost {
    fn make_topic(&mut self, name: &str, queues: i32) {
        let config = topic::config(name, queues, 6);
        self.turn(|engine, turn| engine.put_topic(turn, config))
            .unwrap();
        self.run();
    }
}

/// Makes handles out of the lists of an answer, as the Java client does.
fn popped(reply: &Reply) -> Vec<Popped> {
    let field = |name: &str| reply.fields.get(name).cloned().unwrap_or_default();
    let lists = |text: String| -> BTreeMap<String, String> {
        let lists = text.split(';').filter(|list| !list.is_empty());
        let split = |list: &str| {
            let (key, values) = list.rsplit_once(' ').unwrap();
            (key.to_owned(), values.to_owned())
        };
        lists.map(split).collect()
    };
    let (starts, offsets) = (
        lists(field("startOffsetInfo")),
        lists(field("msgOffsetInfo")),
    );
    let counts = lists(field("orderCountInfo"));
    let mut messages = Vec::new();
    let mut rest = reply.body.as_slice();
    while !rest.is_empty() {
        let (record, next) = Record::parse(rest).unwrap();
        rest = next;
        let own = record
            .properties()
            .get("POP_CK")
            .map(|handle| handle.to_str().into_owned());
        let (queue_id, offset) = (record.queue_id(), record.queue_offset());
        assert_eq!(record.topic(), "t");
        let topic = if own.is_some() { "%RETRY%g_t" } else { "t" };
        let key = format!("{} {queue_id}", i32::from(own.is_some()));
        assert!(
            offsets[&key]
                .split(',')
                .any(|listed| listed == offset.to_string())
        );
        let handle = own.unwrap_or_else(|| {
            let (pop_ms, invisible, revive) =
                (field("popTime"), field("invisibleTime"), field("reviveQid"));
            format!(
                "{} {pop_ms} {invisible} {revive} 0 broker-a {queue_id} {offset}",
                starts[&key]
            )
        });
        let count = counts
            .get(&format!("0 qo{queue_id}%{offset}"))
            .map(|count| count.parse().unwrap());
        messages.push(Popped {
            body: String::from_utf8(record.body().to_vec()).unwrap(),
            topic: topic.to_owned(),
            queue_id,
            offset,
            handle,
            reconsume_times: count.unwrap_or(record.reconsume_times()),
        });
    }
    messages
}

#[test]
fn what_is_acknowledged_is_done_with() {
    let mut group = Group::new(2);
    for (queue_id, body) in [(0, "a"), (1, "b"), (0, "c")] {
        group.send(queue_id, body);
    }
    let messages = group.pop(&[]);
    assert_eq!(messages.len(), 3);
    assert_eq!((group.committed(0), group.committed(1)), (Some(0), Some(0)));
    assert!(group.pop(&[]).is_empty());
    for message in &messages {
        assert_eq!(group.ack(message).code, response::SUCCESS);
    }
    assert_eq!((group.committed(0), group.committed(1)), (Some(2), Some(1)));
    group.host.advance(INVISIBLE_MS * 2);
    assert!(group.pop(&[]).is_empty());
    assert_eq!(group.host.engine.pops.table.count(), 0);
    assert_eq!(group.host.engine.pops.table.iter().count(), 0);
}

#[test]
fn what_is_not_comes_again_and_at_last_is_dead() {
    let mut group = Group::new(1);
    let mut config = crate::engine::group::config("g");
    config.retry_max_times = 2;
    group.host.engine.groups.put(config, 0);
    group.send(0, "good");
    group.send(0, "bad");
    let first = group.pop(&[]);
    group.ack(&first[0]);
    group.host.advance(INVISIBLE_MS - 1);
    assert!(group.pop(&[]).is_empty());
    for times in 1..=2 {
        group.host.advance(1);
        assert_eq!(group.pop_bodies(), [("bad".into(), times)]);
        assert_eq!(group.committed(0), Some(2));
        group.host.advance(INVISIBLE_MS - 1);
        assert!(group.pop(&[]).is_empty());
    }
    group.host.advance(INVISIBLE_MS);
    assert!(group.pop(&[]).is_empty());
    let dead = group.host.messages("%DLQ%g", 0);
    assert_eq!(
        (dead.len(), dead[0].body.as_str(), dead[0].reconsume_times),
        (1, "bad", 3)
    );
    assert_eq!(dead[0].properties["DLQ_ORIGIN_TOPIC"], "t");
    assert_eq!(dead[0].properties["ORIGIN_GROUP"], "g");
    assert!(
        dead[0].properties["1ST_POP_TIME"].parse::<i64>().unwrap()
            < dead[0].store_ms - 2 * INVISIBLE_MS
    );
}

#[test]
fn filters_pass_over_what_nobody_wants() {
    let mut group = Group::new(1);
    for (body, tag) in [("x", "x"), ("a", "a"), ("y", "x"), ("b", "b")] {
        group
            .host
            .send(group.client, "t", 0, body, &[("TAGS", tag)]);
    }
    let wants = [("exp", "a || b"), ("expType", "TAG")];
    let messages = group.pop(&wants);
    assert_eq!(
        messages
            .iter()
            .map(|m| (m.body.as_str(), m.offset))
            .collect::<Vec<_>>(),
        [("a", 1), ("b", 3)]
    );
    for message in &messages {
        group.ack(message);
    }
    assert_eq!(group.committed(0), Some(4));
    group.host.send(group.client, "t", 0, "z", &[("TAGS", "x")]);
    assert!(group.pop(&wants).is_empty());
    assert_eq!(group.committed(0), Some(5));
    let reply = group.ask_pop(&[("exp", "a > "), ("expType", "SQL92")]);
    assert_eq!(
        group.host.answer(group.client, reply).unwrap().code,
        response::SUBSCRIPTION_PARSE_FAILED
    );
}

#[test]
fn the_invisible_time_can_be_changed() {
    let mut group = Group::new(1);
    group.send(0, "sooner");
    group.send(0, "later");
    let messages = group.pop(&[]);
    group.host.advance(10);
    group.change(&messages[0], 1_000);
    let later = group.change(&messages[1], 60_000);
    group.crash();
    group.host.advance(1_000);
    assert_eq!(group.pop_bodies(), [("sooner".into(), 1)]);
    group.host.advance(INVISIBLE_MS);
    assert_eq!(group.pop_bodies(), [("sooner".into(), 2)]);
    assert_eq!(group.committed(0), Some(1));
    group.ack(&later);
    assert_eq!(group.committed(0), Some(2));
}

#[test]
fn a_batch_acknowledges_by_bits() {
    let mut group = Group::new(1);
    for body in ["a", "b", "c"] {
        group.send(0, body);
    }
    let messages = group.pop(&[]);
    let mut parts = messages[0]
        .handle
        .split(' ')
        .map(|part| part.parse::<i64>().unwrap_or(0));
    let ack = BatchAck {
        consumer_group: "g".into(),
        topic: "t".into(),
        retry: "0".into(),
        start_offset: parts.next().unwrap(),
        pop_time: parts.next().unwrap(),
        bit_set: [0, 2, 700].into_iter().collect(),
        ..BatchAck::default()
    };
    let body = BatchAckMessageRequestBody {
        broker_name: "broker-a".into(),
        acks: vec![ack],
    }
    .to_json();
    assert_eq!(
        group
            .host
            .request(group.client, request::BATCH_ACK_MESSAGE, &[], &body)
            .code,
        response::SUCCESS
    );
    group.host.advance(INVISIBLE_MS);
    assert_eq!(group.pop_bodies(), [("b".into(), 1)]);
    assert_eq!(
        group
            .host
            .request(group.client, request::BATCH_ACK_MESSAGE, &[], b"{}")
            .code,
        response::NO_MESSAGE
    );
}

#[test]
fn an_orderly_queue_waits_for_its_acknowledgements() {
    let mut group = Group::new(1);
    for body in ["a", "b", "c"] {
        group.send(0, body);
    }
    let orderly = [("order", "true"), ("maxMsgNums", "2")];
    let first = group.pop(&orderly);
    assert_eq!(
        first.iter().map(|m| m.body.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert!(group.pop(&orderly).is_empty());
    group.ack(&first[0]);
    assert_eq!(group.committed(0), Some(1));
    group.host.advance(300);
    group.crash();
    assert!(group.pop(&orderly).is_empty(), "blocked also after a crash");
    let waiting = group.ask_pop(&[
        ("order", "true"),
        ("maxMsgNums", "2"),
        ("pollTime", "15000"),
    ]);
    group.host.advance(INVISIBLE_MS);
    let again = popped(&group.host.answer(group.client, waiting).unwrap());
    assert_eq!(
        again
            .iter()
            .map(|m| (m.body.as_str(), m.reconsume_times))
            .collect::<Vec<_>>(),
        [("b", 1), ("c", 0)]
    );
    assert_eq!(
        group.ack(&first[1]).code,
        response::SUCCESS,
        "too late, and of no effect"
    );
    assert!(group.pop(&orderly).is_empty());
    group.change(&again[0], 0);
    group.ack(&again[1]);
    let last = group.pop(&orderly);
    assert_eq!(
        last.iter()
            .map(|m| (m.body.as_str(), m.reconsume_times))
            .collect::<Vec<_>>(),
        [("b", 2), ("c", 1)]
    );
    for message in &last {
        group.ack(message);
    }
    assert_eq!(group.committed(0), Some(3));
    group.host.advance(INVISIBLE_MS);
    assert_eq!(group.host.engine.pops.table.iter().count(), 0);
}

#[test]
fn a_reset_by_hand_forgets_what_is_out() {
    let mut group = Group::new(1);
    group.send(0, "a");
    group.send(0, "b");
    let messages = group.pop(&[]);
    group.ack(&messages[0]);
    group.ack(&messages[1]);
    group.send(0, "c");
    assert_eq!(group.pop_bodies(), [("c".into(), 0)]);
    let fields = [
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "0"),
        ("commitOffset", "1"),
    ];
    assert_eq!(
        group
            .host
            .request(group.client, request::UPDATE_CONSUMER_OFFSET, &fields, b"")
            .code,
        response::SUCCESS
    );
    group.crash();
    assert_eq!(group.pop_bodies(), [("b".into(), 0), ("c".into(), 0)]);
}

#[test]
fn a_reset_by_a_tool_ends_with_the_pop_that_begins_there() {
    let mut group = Group::new(1);
    for body in ["a", "b", "c"] {
        group.send(0, body);
    }
    assert_eq!(group.pop(&[]).len(), 3);
    let fields = [
        ("group", "g"),
        ("topic", "t"),
        ("queueId", "0"),
        ("offset", "1"),
        ("timestamp", "0"),
        ("isForce", "true"),
    ];
    let code = request::INVOKE_BROKER_TO_RESET_OFFSET;
    let reply = group.host.request(group.client, code, &fields, b"");
    assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
    assert!(group.host.engine.is_reset("g", "t", 0));
    let messages = group.pop(&[]);
    assert_eq!(messages.len(), 2);
    assert!(!group.host.engine.is_reset("g", "t", 0));
    group.crash();
    assert!(!group.host.engine.is_reset("g", "t", 0));
    for message in &messages {
        group.ack(message);
    }
    // What the group commits counts again.
    assert_eq!(group.committed(0), Some(3));
}

#[test]
fn pops_are_counted() {
    let mut group = Group::new(1);
    group.send(0, "a");
    group.send(0, "b");
    group.pop(&[]);
    group.pop(&[]);
    let now_ms = group.host.now.wall_ms;
    let stats = &mut group.host.engine.stats;
    assert!(stats.group_get_tps("g", "t", now_ms) > 0.0);
    let [_, got, found, missed] = stats.broker_rates().unwrap();
    let totals = [got, found, missed].map(|rate| rate.totals(now_ms)[0]);
    assert_eq!(totals, [2, 1, 1]);
}

#[test]
fn bad_requests_get_the_codes_of_the_protocol() {
    let mut group = Group::new(1);
    group.send(0, "a");
    let message = group.pop(&[]).remove(0);
    let mut code = |more: &[(&str, &str)]| {
        let opaque = group.ask_pop(more);
        group.host.answer(group.client, opaque).unwrap().code
    };
    assert_eq!(code(&[("topic", "none")]), response::TOPIC_NOT_EXIST);
    assert_eq!(code(&[("queueId", "1")]), response::INVALID_PARAMETER);
    assert_eq!(code(&[("maxMsgNums", "33")]), response::SYSTEM_ERROR);
    assert_eq!(code(&[("maxMsgNums", "-1")]), response::SYSTEM_ERROR);
    assert_eq!(
        code(&[("invisibleTime", "-1")]),
        response::INVALID_PARAMETER
    );
    assert_eq!(
        code(&[("consumerGroup", "bad group")]),
        response::SUBSCRIPTION_GROUP_NOT_EXIST
    );
    assert_eq!(
        code(&[("bornTime", "1000"), ("pollTime", "15000")]),
        response::POLLING_TIMEOUT
    );
    assert_eq!(
        code(&[("invisibleTime", "9223372036854775807")]),
        response::POLLING_TIMEOUT
    );
    assert_eq!(
        group
            .ack(&Popped {
                handle: "nonsense".into(),
                ..message.clone()
            })
            .code,
        response::MESSAGE_ILLEGAL
    );
    assert_eq!(
        group
            .ack(&Popped {
                offset: 9,
                ..message.clone()
            })
            .code,
        response::NO_MESSAGE
    );
    assert_eq!(
        group
            .ack(&Popped {
                queue_id: 3,
                ..message.clone()
            })
            .code,
        response::MESSAGE_ILLEGAL
    );
    assert_eq!(
        group
            .ack(&Popped {
                topic: "none".into(),
                ..message
            })
            .code,
        response::TOPIC_NOT_EXIST
    );
}

#[test]
fn deleting_a_topic_ends_its_pops() {
    let mut group = Group::new(1);
    group.send(0, "a");
    assert_eq!(group.pop(&[]).len(), 1);
    group.host.advance(INVISIBLE_MS);
    assert_eq!(group.pop(&[]).len(), 1);
    let waiting = group.ask_pop(&[("pollTime", "15000")]);
    let deleted = group.host.request(
        group.client,
        request::DELETE_TOPIC_IN_BROKER,
        &[("topic", "t")],
        b"",
    );
    assert_eq!(deleted.code, response::SUCCESS);
    assert_eq!(
        group.host.answer(group.client, waiting).unwrap().code,
        response::TOPIC_NOT_EXIST
    );
    assert!(group.host.engine.topics.get("%RETRY%g_t").is_none());
    assert_eq!(group.host.engine.pops.table.count(), 0);
    group.crash();
    assert_eq!(group.host.engine.pops.table.count(), 0);
}

#[test]
fn a_pull_consumer_sees_everything_that_is_not_acknowledged() {
    let mut group = Group::new(1);
    for body in ["a", "b", "c"] {
        group.send(0, body);
    }
    let first = group.pop(&[("maxMsgNums", "1")]);
    let second = group.pop(&[("maxMsgNums", "1")]);
    group.ack(&second[0]);
    assert_eq!(group.committed(0), Some(0));
    let mut pull = |from: i64| {
        let from = from.to_string();
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "0"),
            ("queueOffset", from.as_str()),
            ("maxMsgNums", "32"),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        let reply = group
            .host
            .request(group.client, request::PULL_MESSAGE, &fields, b"");
        (reply.code, reply.fields["nextBeginOffset"].clone())
    };
    assert_eq!(pull(0), (response::SUCCESS, "3".into()));
    group.ack(&first[0]);
    assert_eq!(group.committed(0), Some(2));
    // What a pull consumer of the group commits is not popped again.
    let commit = [
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "0"),
        ("commitOffset", "3"),
    ];
    assert_eq!(
        group
            .host
            .request(group.client, request::UPDATE_CONSUMER_OFFSET, &commit, b"")
            .code,
        response::SUCCESS
    );
    assert!(group.pop(&[]).is_empty());
    assert_eq!(
        group
            .host
            .request(group.client, request::POP_ROLLBACK, &[], b"")
            .code,
        response::SUCCESS
    );
}

#[test]
fn messages_that_are_on_disk_only_come_again() {
    let mut group = Group::new(2);
    group.send(0, "old");
    assert_eq!(group.pop(&[]).len(), 1);
    let filler = "x".repeat(8_000);
    for _ in 0..120 {
        group.host.send(group.client, "other", 0, &filler, &[]);
    }
    let queue = group.host.running.log.find_queue("t", 0).unwrap();
    let mut entries = Vec::new();
    group
        .host
        .running
        .log
        .entries(queue, 0, 1, &mut entries)
        .unwrap();
    assert!(
        group
            .host
            .running
            .log
            .record(entries[0].position, entries[0].size)
            .is_err(),
        "it is in memory still"
    );
    group.host.advance(INVISIBLE_MS);
    assert_eq!(group.pop_bodies(), [("old".into(), 1)]);
}
