//! Every code that is served gets requests that make no sense. Each is answered once, with a text that helps where it is
//! refused; nothing of it stays behind; and the connection, and everybody else, goes on.

use std::collections::BTreeSet;

use corelane_wire::FrameWriter;
use corelane_wire::code::{self, request, response};
use corelane_wire::frame::{Head, Serialization};

use super::compatibility_tests::served;
use super::name;
use super::turn::Connection;
use crate::sim::test_host::{Reply, TestHost, settings, small_log};

/// What a request looks like that makes sense. Fields are `name=value` with the kind before it: `i` and `l` for integers of
/// 32 and 64 bits, `b` for a boolean, `n` for the name of a topic or a group, `t` for any text; in capitals where the field
/// is required.
struct Good {
    code: i32,
    fields: &'static str,
    body: &'static [u8],
    /// Whether a body that is no JSON must be refused.
    json: bool,
}

const fn good(code: i32, fields: &'static str) -> Good {
    Good {
        code,
        fields,
        body: b"",
        json: false,
    }
}

const fn with(code: i32, fields: &'static str, body: &'static str) -> Good {
    Good {
        code,
        fields,
        body: body.as_bytes(),
        json: true,
    }
}

const fn plain(code: i32, fields: &'static str, body: &'static [u8]) -> Good {
    Good {
        code,
        fields,
        body,
        json: false,
    }
}

const SEND: &str = "N:producerGroup=p N:topic=t N:defaultTopic=TBW102 I:defaultTopicQueueNums=4 I:queueId=0 I:sysFlag=0 L:bornTimestamp=1 I:flag=0 t:properties= i:reconsumeTimes=0 b:unitMode=false i:maxReconsumeTimes=3";
const SEND_V2: &str =
    "N:a=p N:b=t N:c=TBW102 I:d=4 I:e=0 I:f=0 L:g=1 I:h=0 t:i= i:j=0 b:k=false i:l=3 b:m=false";
const PULL: &str = "N:consumerGroup=g N:topic=t I:queueId=0 L:queueOffset=0 I:maxMsgNums=32 I:sysFlag=6 L:commitOffset=0 L:suspendTimeoutMillis=1000 t:subscription=* L:subVersion=0 t:expressionType=TAG i:maxMsgBytes=1000";
const POP: &str = "N:consumerGroup=g N:topic=t I:queueId=0 I:maxMsgNums=1 L:invisibleTime=1000 L:pollTime=1000 L:bornTime=0 I:initMode=0 t:expType=TAG t:exp=* b:order=false t:attemptId=a";
const ACK: &str =
    "N:consumerGroup=g N:topic=t I:queueId=0 T:extraInfo=0_1_1000_0_0_broker-a_0_0 L:offset=0";
const MQ: &str = r#"[{"topic":"t","brokerName":"broker-a","queueId":0}]"#;
const LOCK: &str = r#"{"consumerGroup":"g","clientId":"c","mqSet":[{"topic":"t","brokerName":"broker-a","queueId":0}]}"#;
const HEARTBEAT: &str = r#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionDataSet":[{"topic":"t","subString":"*","subVersion":1}]}],"producerDataSet":[{"groupName":"p"}]}"#;

const GOOD: &[Good] = &[
    plain(10, SEND, b"body"),
    good(11, PULL),
    good(
        12,
        "N:topic=t T:key=k I:maxNum=4 L:beginTimestamp=0 L:endTimestamp=9",
    ),
    good(
        14,
        "N:consumerGroup=g N:topic=t I:queueId=0 b:setZeroIfNotFound=true",
    ),
    good(
        15,
        "N:consumerGroup=g N:topic=t I:queueId=0 L:commitOffset=1",
    ),
    good(
        17,
        "N:topic=t N:defaultTopic=TBW102 I:readQueueNums=4 I:writeQueueNums=4 I:perm=6 T:topicFilterType=SINGLE_TAG i:topicSysFlag=0 b:order=false t:attributes=",
    ),
    with(
        18,
        "",
        r#"{"topicConfigList":[{"topicName":"t","readQueueNums":4,"writeQueueNums":4,"perm":6}]}"#,
    ),
    good(21, ""),
    plain(25, "", b"recall=true\n"),
    good(26, ""),
    good(28, ""),
    good(
        29,
        "N:topic=t I:queueId=0 L:timestamp=5 t:boundaryType=LOWER",
    ),
    good(30, "N:topic=t I:queueId=0 b:committed=true"),
    good(31, "N:topic=t I:queueId=0"),
    good(32, "N:topic=t I:queueId=0"),
    good(33, "L:offset=0"),
    with(34, "", HEARTBEAT),
    good(35, "T:clientID=c n:producerGroup=p n:consumerGroup=g"),
    good(
        36,
        "L:offset=0 N:group=g I:delayLevel=0 t:originMsgId=x n:originTopic=t b:unitMode=false i:maxReconsumeTimes=3",
    ),
    good(
        37,
        "n:topic=t N:producerGroup=p L:tranStateTableOffset=0 L:commitLogOffset=0 I:commitOrRollback=8 b:fromTransactionCheck=false T:msgId=x t:transactionId=y",
    ),
    good(38, "N:consumerGroup=g"),
    with(41, "", LOCK),
    with(42, "", LOCK),
    good(43, ""),
    good(45, ""),
    with(
        46,
        "",
        r#"{"clientId":"c","group":"g","subscriptionData":{"topic":"t","subString":"a > 1","expressionType":"SQL92"}}"#,
    ),
    with(200, "", r#"{"groupName":"g","retryMaxTimes":3}"#),
    good(201, ""),
    good(202, "N:topic=t"),
    good(203, "N:consumerGroup=g"),
    good(204, "N:producerGroup=p"),
    good(207, "N:groupName=gone b:cleanOffset=true"),
    good(208, "N:consumerGroup=g n:topic=t"),
    good(215, "N:topic=gone"),
    good(
        222,
        "N:group=g N:topic=t i:queueId=0 l:offset=0 L:timestamp=0 B:isForce=true",
    ),
    good(223, "N:topic=t N:group=g t:clientAddr=c"),
    with(
        225,
        "",
        r#"{"groupConfigList":[{"groupName":"g","retryMaxTimes":3}]}"#,
    ),
    good(300, "N:topic=t"),
    good(303, "N:topic=t N:group=g"),
    good(305, ""),
    good(306, ""),
    good(307, "N:consumerGroup=g T:clientId=c b:jstackEnable=true"),
    good(308, "t:filterGroups=x N:compareGroup=g N:topic=t"),
    good(
        309,
        "N:consumerGroup=g t:clientId=c t:msgId=7F00000100002A9F0000000000000000 t:brokerName=broker-a n:topic=t i:topicSysFlag=0",
    ),
    plain(310, SEND_V2, b"body"),
    good(314, "N:srcGroup=g N:destGroup=h n:topic=t b:offline=true"),
    good(315, "T:statsName=TOPIC_PUT_NUMS T:statsKey=t"),
    good(316, ""),
    good(317, "B:isOrder=false"),
    plain(320, SEND_V2, BATCH),
    good(
        321,
        "n:topic=t i:queueId=0 l:index=0 i:count=10 n:consumerGroup=g",
    ),
    good(323, "n:topic=t t:msgId=x"),
    plain(324, SEND, b"body"),
    plain(325, SEND_V2, b"body"),
    good(328, ""),
    good(329, ""),
    good(343, "N:group=g"),
    good(345, "N:group=g n:topic=t"),
    good(351, "N:topic=t"),
    good(352, "N:group=g"),
    good(353, "N:group=g N:topic=t b:readable=true"),
    good(361, PULL),
    good(370, "n:producerGroup=p N:topic=t T:recallHandle=x"),
    with(
        400,
        "",
        r#"{"topic":"t","consumerGroup":"g","clientId":"c","strategyName":"AVG","messageModel":"CLUSTERING"}"#,
    ),
    with(
        401,
        "",
        r#"{"topic":"t","consumerGroup":"g","mode":"PULL","popShareQueueNum":0}"#,
    ),
    good(402, ""),
    good(200_050, POP),
    good(200_051, ACK),
    good(
        200_052,
        "N:topic=t I:queueId=0 I:maxMsgNums=1 N:consumerGroup=g",
    ),
    good(
        200_053,
        "N:consumerGroup=g N:topic=t I:queueId=0 T:extraInfo=0_1_1000_0_0_broker-a_0_0 L:offset=0 L:invisibleTime=1000",
    ),
    good(
        200_054,
        "N:consumerGroup=g N:topic=t I:queueId=0 L:pollTime=1000 L:bornTime=0 b:order=false",
    ),
    good(200_055, "N:consumerGroup=g N:topic=t I:queueId=0"),
    good(200_056, ""),
    with(
        200_151,
        "",
        r#"{"brokerName":"broker-a","acks":[{"c":"g","t":"t","r":"0","so":0,"q":0,"rq":0,"pt":1,"it":1000,"b":"AQ=="}]}"#,
    ),
];

/// One message of three bytes and no properties.
const BATCH: &[u8] = &[
    0, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c', 0, 0,
];

const NO_NUMBERS: [&str; 6] = [
    "many",
    "1.5",
    "0x1",
    "1e3",
    "99999999999999999999999",
    "\u{663}",
];
const EXTREMES: [&str; 6] = [
    "-1",
    "-2147483648",
    "2147483647",
    "0",
    "-9223372036854775808",
    "9223372036854775807",
];
const ODD_NAMES: [&str; 9] = [
    "",
    " ",
    "../../etc",
    "a b",
    "a\u{0}b",
    "a\u{1}b\u{2}",
    "\u{442}\u{435}\u{43c}\u{430}",
    "\u{1f980}\u{202e}",
    "%RETRY%",
];

#[derive(Clone, Copy)]
struct Field {
    kind: char,
    name: &'static str,
    value: &'static str,
}

impl Field {
    fn is_required(&self) -> bool {
        self.kind.is_ascii_uppercase()
    }

    fn is(&self, kinds: &str) -> bool {
        kinds.contains(self.kind.to_ascii_lowercase())
    }
}

impl Good {
    fn fields(&self) -> Vec<Field> {
        let field = |text: &'static str| {
            let (kind, rest) = text.split_once(':').unwrap();
            let (name, value) = rest.split_once('=').unwrap();
            Field {
                kind: kind.chars().next().unwrap(),
                name,
                value,
            }
        };
        self.fields.split_whitespace().map(field).collect()
    }
}

struct Bench {
    host: TestHost,
    client: Connection,
    admin: Connection,
    other: Connection,
}

impl Bench {
    fn new() -> Self {
        let mut host = TestHost::start(1, settings(), small_log());
        let (client, admin, other) = (host.connect(), host.connect(), host.connect());
        let mut bench = Self {
            host,
            client,
            admin,
            other,
        };
        bench.restore();
        bench
    }

    /// What the requests are about; some of them take it away.
    fn restore(&mut self) {
        // Who was silent too long is gone meanwhile.
        self.host.close(self.other);
        self.other = self.host.connect();
        let (host, other) = (&mut self.host, self.other);
        host.send(other, "t", 0, "first", &[]);
        host.consume(other, "c", "g", "t");
        host.produce(other, "c", "p");
    }

    /// The answer, which is one: within 40 seconds, whatever the request asked for.
    fn ask(
        &mut self,
        what: &str,
        code: i32,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Reply> {
        self.host.close(self.client);
        self.client = self.host.connect();
        let opaque = self.host.ask(self.client, code, fields, body);
        self.host.run();
        let mut reply = self.host.answer(self.client, opaque);
        if reply.is_none() {
            self.host.advance(40_000);
            reply = self.host.answer(self.client, opaque);
        }
        let again = self.host.answer(self.client, opaque);
        assert_eq!(again, None, "{what} was answered twice");
        // The host changes its configuration itself, and here there is none.
        if code != request::UPDATE_BROKER_CONFIG {
            assert!(reply.is_some(), "{what} got no answer");
        }
        if let Some(reply) = &reply {
            assert!(
                reply.code != response::REQUEST_CODE_NOT_SUPPORTED,
                "{what}: {}",
                reply.remark
            );
            assert!(
                reply.code == 0 || !reply.remark.is_empty(),
                "{what} was refused with {} and without a word",
                reply.code
            );
        }
        reply
    }

    fn refuses(&mut self, what: &str, code: i32, fields: &[(&str, &str)], body: &[u8], says: &str) {
        let Some(reply) = self.ask(what, code, fields, body) else {
            return;
        };
        assert_ne!(reply.code, 0, "{what} was taken");
        assert!(
            reply.remark.contains(says),
            "{what}: {:?} does not say {says}",
            reply.remark
        );
    }

    /// The connection is served, and nothing waits any more.
    fn is_well(&mut self, what: &str) {
        let fields = [("topic", "SELF_TEST_TOPIC"), ("queueId", "0")];
        let reply = self
            .host
            .request(self.client, request::GET_MIN_OFFSET, &fields, b"");
        assert_eq!(reply.code, 0, "after {what}");
        let engine = &self.host.engine;
        assert_eq!(engine.held.len(), 0, "after {what}");
        assert!(engine.waiting_reads.is_empty(), "after {what}");
        for topic in engine.topics().iter() {
            let name = &topic.config.topic_name;
            assert_eq!(name::check_topic(name), Ok(()), "after {what}");
        }
        for group in engine.groups.iter() {
            assert_eq!(name::check_group(&group.group_name), Ok(()), "after {what}");
        }
    }
}

fn pairs<'a>(fields: &'a [Field], name: &str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    fields
        .iter()
        .filter(|field| field.name != name || value.is_some())
        .map(|field| match value {
            Some(value) if field.name == name => (field.name, value),
            _ => (field.name, field.value),
        })
        .collect()
}

#[test]
fn the_table_has_every_code_that_is_served() {
    let here: BTreeSet<i32> = GOOD.iter().map(|good| good.code).collect();
    assert_eq!(here.len(), GOOD.len(), "a code stands twice");
    let served: BTreeSet<i32> = served().collect();
    assert_eq!(here, served);
}

#[test]
fn fields_that_are_missing_or_no_numbers_are_named() {
    let mut bench = Bench::new();
    for good in GOOD {
        let fields = good.fields();
        for field in &fields {
            if field.is_required() {
                let what = format!("{} without {}", good.code, field.name);
                let pairs = pairs(&fields, field.name, None);
                bench.refuses(&what, good.code, &pairs, good.body, field.name);
            }
            for value in NO_NUMBERS.into_iter().filter(|_| field.is("il")) {
                let what = format!("{} with {}={value:?}", good.code, field.name);
                let pairs = pairs(&fields, field.name, Some(value));
                bench.refuses(&what, good.code, &pairs, good.body, field.name);
            }
        }
        bench.is_well(&good.code.to_string());
    }
}

#[test]
fn extreme_numbers_and_odd_names_are_answered() {
    let mut bench = Bench::new();
    let long = "x".repeat(70_000);
    for good in GOOD {
        let fields = good.fields();
        for field in &fields {
            let mut values: Vec<&str> = Vec::new();
            if field.is("il") {
                values.extend(EXTREMES);
            } else {
                values.extend(ODD_NAMES);
                values.push(&long);
            }
            for value in values {
                let shown: String = value.chars().take(30).collect();
                let what = format!("{} with {}={shown:?}", good.code, field.name);
                bench.ask(
                    &what,
                    good.code,
                    &pairs(&fields, field.name, Some(value)),
                    good.body,
                );
                bench.is_well(&what);
            }
        }
        bench.restore();
    }
}

#[test]
fn bodies_that_lie_are_refused_or_mean_nothing() {
    let mut bench = Bench::new();
    let deep = "[".repeat(100_000);
    let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20));
    for good in GOOD {
        let fields = good.fields();
        let pairs = pairs(&fields, "", Some(""));
        let mut bodies: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"\0\xff\xfe".to_vec(),
            b"null".to_vec(),
            b"[]".to_vec(),
            b"{}".to_vec(),
            b"{\"".to_vec(),
            deep.clone().into_bytes(),
            huge.clone().into_bytes(),
        ];
        bodies.extend(
            (1..good.body.len())
                .step_by(7)
                .map(|cut| good.body[..cut].to_vec()),
        );
        for (number, body) in bodies.iter().enumerate() {
            let what = format!("{} with body {number} of {} bytes", good.code, body.len());
            let no_json = good.json && matches!(number, 1 | 5 | 6);
            if no_json {
                bench.refuses(&what, good.code, &pairs, body, "");
            } else {
                bench.ask(&what, good.code, &pairs, body);
            }
            bench.is_well(&what);
        }
        bench.restore();
    }
}

#[test]
fn json_bodies_with_extreme_members_are_answered() {
    let mut bench = Bench::new();
    for good in GOOD.iter().filter(|good| good.json) {
        let text = std::str::from_utf8(good.body).unwrap();
        for number in [":0", ":1", ":3", ":4", ":1000"] {
            for value in [
                ":-1",
                ":9223372036854775807",
                ":-9223372036854775808",
                ":1e400",
                ":null",
                ":\"x\"",
            ] {
                for close in [",", "}"] {
                    let body =
                        text.replace(&format!("{number}{close}"), &format!("{value}{close}"));
                    if body != text {
                        let what = format!("{} with {body}", good.code);
                        bench.ask(&what, good.code, &[], body.as_bytes());
                        bench.is_well(&what);
                    }
                }
            }
        }
        for value in ["\"\"", "\"a b\"", "\"\\u0000\"", "null", "[]", "{}", "7"] {
            for known in ["\"t\"", "\"g\"", "\"c\"", "\"0\"", "\"AQ==\"", MQ] {
                let body = text.replace(&format!(":{known}"), &format!(":{value}"));
                if body != text {
                    let what = format!("{} with {body}", good.code);
                    bench.ask(&what, good.code, &[], body.as_bytes());
                    bench.is_well(&what);
                }
            }
        }
        bench.restore();
    }
}

#[test]
fn text_that_is_not_utf_8_is_refused_where_it_matters() {
    let mut bench = Bench::new();
    // The binary form of a header has 16 bits for the code.
    for good in GOOD.iter().filter(|good| i16::try_from(good.code).is_ok()) {
        let fields = good.fields();
        for wrong in fields
            .iter()
            .filter(|field| field.is("nt") && field.is_required())
        {
            let head = Head {
                serialization: Serialization::Rocketmq,
                code: good.code,
                language: code::language::JAVA,
                version: code::VERSION,
                opaque: 77,
                flag: 0,
                remark: None,
            };
            let mut bytes = Vec::new();
            let mut writer = FrameWriter::new(&mut bytes, &head);
            for field in &fields {
                let marked = field.name == wrong.name;
                writer.field(
                    field.name,
                    if marked {
                        "\u{7}\u{7}\u{7}"
                    } else {
                        field.value
                    },
                );
            }
            writer.finish_with(good.body);
            let at = bytes.windows(3).position(|three| three == [7; 3]).unwrap();
            bytes[at..at + 3].copy_from_slice(&[0xff, 0xc0, 0x80]);
            let client = bench.client;
            bench
                .host
                .turn(|engine, turn| engine.handle(turn, client, &bytes))
                .unwrap();
            bench.host.run();
            let what = format!("{} with {}", good.code, wrong.name);
            let reply = bench.host.answer(client, 77);
            let reply = reply.unwrap_or_else(|| panic!("{what} got no answer"));
            assert_ne!(reply.code, 0, "{} {}", good.code, wrong.name);
            assert!(reply.remark.contains(wrong.name), "{}", reply.remark);
        }
    }
}

#[test]
fn oneway_requests_are_never_answered_and_others_are_not_disturbed() {
    let mut bench = Bench::new();
    let pull = [
        ("consumerGroup", "w"),
        ("topic", "waited"),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "1"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    let admin = bench.admin;
    let create = [
        ("topic", "waited"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "1"),
        ("writeQueueNums", "1"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
    ];
    bench
        .host
        .ask(admin, request::UPDATE_AND_CREATE_TOPIC, &create, b"");
    bench.host.run();
    let waiting = bench.host.ask(admin, request::PULL_MESSAGE, &pull, b"");
    for good in GOOD {
        for (body, fields) in [(good.body, good.fields()), (&b"\xff"[..], Vec::new())] {
            let head = Head {
                serialization: Serialization::Json,
                code: good.code,
                language: code::language::JAVA,
                version: code::VERSION,
                opaque: 78,
                flag: 2,
                remark: None,
            };
            let mut bytes = Vec::new();
            let mut writer = FrameWriter::new(&mut bytes, &head);
            for field in &fields {
                writer.field(field.name, field.value);
            }
            writer.finish_with(body);
            let client = bench.client;
            bench
                .host
                .turn(|engine, turn| engine.handle(turn, client, &bytes))
                .unwrap();
            bench.host.run();
            let reply = bench.host.answer(client, 78);
            assert_eq!(reply, None, "{} was answered", good.code);
        }
    }
    bench.host.send(bench.other, "waited", 0, "here", &[]);
    let reply = bench.host.answer(admin, waiting).unwrap();
    assert_eq!(reply.code, 0, "{}", reply.remark);

    // Whatever waits for a connection goes with it.
    let waiting = bench.client;
    bench.host.ask(
        waiting,
        request::PULL_MESSAGE,
        &{
            let mut pull = pull;
            pull[3].1 = "1";
            pull
        },
        b"",
    );
    let pop: Vec<Field> = GOOD
        .iter()
        .find(|good| good.code == request::POP_MESSAGE)
        .unwrap()
        .fields();
    let mut pop = pairs(&pop, "topic", Some("waited"));
    pop.retain(|(name, _)| *name != "pollTime");
    pop.push(("pollTime", "15000"));
    bench.host.request(waiting, request::POP_MESSAGE, &pop, b"");
    bench.host.ask(waiting, request::POP_MESSAGE, &pop, b"");
    bench.host.run();
    assert_eq!(bench.host.engine.held_pulls.len(), 1);
    assert!(!bench.host.engine.pops.is_nobody_waiting());
    for connection in [bench.client, bench.admin, bench.other] {
        bench.host.close(connection);
    }
    assert_eq!(bench.host.engine.held_pulls.len(), 0);
    assert!(bench.host.engine.pops.is_nobody_waiting());
    assert_eq!(bench.host.engine.held.len(), 0);
    assert_eq!(bench.host.engine.clients.members(), 0);
    assert_eq!(bench.host.engine.calls.deadline_mono_ms(), None);
}
