//! What an operator takes from a broker as a whole, while it runs: to be read, to be written, lite pulls, transactions. Clients
//! find no queues for what is not permitted, and who asks for it still is refused as Apache refuses it; the rest goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::raw::{self, Connection, Response, code, pull_fields};
use corelane_tests::{
    Client, Cluster, Consumer, From, Language, Message, Mode, Options, eventually,
};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);

const NO_PERMISSION: i64 = 16;
const PULL_NOT_FOUND: i64 = 19;
const PULL_OFFSET_MOVED: i64 = 21;
const SEND_BACK: i64 = 36;
const END_TRANSACTION: i64 = 37;
const CREATE_GROUP: i64 = 200;
const SEND_REPLY: i64 = 324;
const LITE_PULL: i64 = 361;
const POP: i64 = 200_050;
const ACK: i64 = 200_051;
const PEEK: i64 = 200_052;
const CHANGE_INVISIBLE: i64 = 200_053;
const NOTIFICATION: i64 = 200_054;
const POLLING_INFO: i64 = 200_055;

/// A broker, and what tests ask of it.
struct Broker {
    connection: Connection,
    nameserver: String,
}

impl Broker {
    fn of(cluster: &Cluster) -> Self {
        Self {
            connection: Connection::open(&cluster.broker()).expect("a connection"),
            nameserver: cluster.nameserver().to_owned(),
        }
    }

    fn ask(&mut self, code: i64, fields: &[(&str, &str)], body: &[u8]) -> Response {
        let answer = self.connection.request(code, fields, body);
        answer.unwrap_or_else(|e| panic!("request {code}: {e}"))
    }

    fn takes(&mut self, code: i64, fields: &[(&str, &str)], body: &[u8]) -> Response {
        let answer = self.ask(code, fields, body);
        assert_eq!(answer.code, 0, "request {code}: {}", answer.remark);
        answer
    }

    /// The text and the `forbiddenType` with which a request is refused.
    fn refuses(&mut self, code: i64, fields: &[(&str, &str)], body: &[u8]) -> (String, String) {
        let answer = self.ask(code, fields, body);
        assert_eq!(
            answer.code, NO_PERMISSION,
            "request {code}: {}",
            answer.remark
        );
        let text = answer.remark.strip_prefix("the broker[127.0.0.1] ");
        let kind = answer.ext.get("forbiddenType").cloned().unwrap_or_default();
        (text.unwrap_or(&answer.remark).to_owned(), kind)
    }

    fn create_topic(&mut self, topic: &str, sys_flag: &str, order: &str) {
        let fields = [
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "1"),
            ("writeQueueNums", "1"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", sys_flag),
            ("order", order),
        ];
        self.takes(code::CREATE_TOPIC, &fields, b"");
    }

    /// Another value of a key, by its name in Apache's configuration.
    fn set(&mut self, key: &str, value: &str) {
        let text = format!("{key}={value}\n");
        self.takes(code::UPDATE_CONFIG, &[], text.as_bytes());
    }

    /// Sets the broker's permission, and waits until clients learn of it.
    fn permit(&mut self, permission: &str) {
        self.set("brokerPermission", permission);
        for topic in ["plain", "ordered"] {
            eventually("the route has the permission", WITHIN, || {
                let mut nameserver = Connection::open(&self.nameserver).ok()?;
                let route = nameserver
                    .request(code::ROUTE, &[("topic", topic)], &[])
                    .ok()?;
                let perm = route.json()["queueDatas"][0]["perm"].as_i64()?;
                (perm.to_string() == permission).then_some(())
            });
        }
    }
}

/// The fields of a send, some of them with other values.
fn send<'a>(topic: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields: BTreeMap<&str, &str> = raw::send_fields(topic, "0").into_iter().collect();
    fields.extend(more.iter().copied());
    fields.into_iter().collect()
}

const POPPED: [(&str, &str); 11] = [
    ("consumerGroup", "poppers"),
    ("topic", "plain"),
    ("queueId", "0"),
    ("maxMsgNums", "1"),
    ("invisibleTime", "60000"),
    ("pollTime", "0"),
    ("bornTime", "0"),
    ("initMode", "0"),
    ("expType", "TAG"),
    ("exp", "*"),
    ("order", "false"),
];

/// The handle of the only message of an answer to a pop, and its offset.
fn handle(popped: &Response) -> (String, String) {
    let of = |name: &str| popped.ext[name].clone();
    let last = |name: &str| of(name).rsplit(' ').next().map(str::to_owned);
    let start = last("startOffsetInfo").expect("a start");
    let offset = last("msgOffsetInfo").expect("an offset");
    let (at, invisible, revive) = (of("popTime"), of("invisibleTime"), of("reviveQid"));
    let handle = format!("{start} {at} {invisible} {revive} 0 broker-a-0 0 {offset}");
    (handle, offset)
}

/// One message as a batch holds it.
fn batched(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = 4 * 5 + body.len() + 2;
    for number in [len as u32, 0, 0, 0, body.len() as u32] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(body);
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn a_broker_refuses_what_it_does_not_permit_as_a_whole() {
    let cluster = Cluster::start(&Options::new());
    let mut broker = Broker::of(&cluster);
    broker.create_topic("plain", "0", "false");
    broker.create_topic("ordered", "0", "true");
    let batch = [("batch", "true")];
    for topic in ["plain", "ordered"] {
        for _ in 0..4 {
            broker.takes(code::SEND, &send(topic, &[]), b"body");
        }
    }
    let sent = broker.takes(code::SEND, &send("plain", &[]), b"body");
    let position = i64::from_str_radix(&sent.ext["msgId"][16..], 16).expect("a position");
    let position = position.to_string();
    let back = [
        ("offset", position.as_str()),
        ("group", "backward"),
        ("delayLevel", "0"),
        ("originTopic", "plain"),
        ("maxReconsumeTimes", "16"),
    ];
    broker.takes(SEND_BACK, &back, b"");
    let first = handle(&broker.takes(POP, &POPPED, b""));
    let second = handle(&broker.takes(POP, &POPPED, b""));

    // Nothing may be written.
    broker.permit("4");
    let says = ("sending message is forbidden".to_owned(), String::new());
    let in_batch = batched(b"body");
    assert_eq!(
        broker.refuses(code::SEND, &send("ordered", &[]), b"body"),
        says
    );
    assert_eq!(
        broker.refuses(code::SEND, &send("ordered", &batch), &in_batch),
        says
    );
    assert_eq!(
        broker.refuses(SEND_REPLY, &send("ordered", &[]), b"body"),
        says
    );
    assert_eq!(broker.refuses(SEND_BACK, &back, b""), says);
    // Who has a route of before goes on where order does not matter.
    broker.takes(code::SEND, &send("plain", &[]), b"body");
    broker.takes(code::SEND, &send("plain", &batch), &in_batch);
    broker.takes(code::SEND, &send("made-by-a-send", &[]), b"body");
    broker.takes(code::PULL, &pull_fields("pullers", "plain", "0"), b"");
    broker.takes(code::PULL, &pull_fields("pullers", "ordered", "0"), b"");
    broker.takes(POP, &POPPED, b"");

    // Nothing may be read.
    for permission in ["2", "0"] {
        broker.permit(permission);
        let pulls = ("pulling message is forbidden".to_owned(), "1".to_owned());
        for code in [code::PULL, LITE_PULL] {
            assert_eq!(
                broker.refuses(code, &pull_fields("pullers", "plain", "0"), b""),
                pulls
            );
            assert_eq!(
                broker.refuses(code, &pull_fields("pullers", "none", "0"), b""),
                pulls
            );
        }
        let pops = ("pop message is forbidden".to_owned(), String::new());
        assert_eq!(broker.refuses(POP, &POPPED, b""), pops);
        let peeks = ("peeking message is forbidden".to_owned(), String::new());
        for code in [PEEK, NOTIFICATION, POLLING_INFO] {
            assert_eq!(broker.refuses(code, &POPPED, b""), peeks);
        }
        let sends = broker.ask(code::SEND, &send("ordered", &[]), b"body");
        assert_eq!(
            sends.code,
            if permission == "0" { NO_PERMISSION } else { 0 }
        );
        let end = [("topic", "plain"), ("queueId", "0")];
        broker.takes(code::MAX_OFFSET, &end, b"");
    }
    // What was popped before is acknowledged all the same.
    let about = |(handle, offset): &(String, String), more: &[(&str, &str)]| {
        let fields = [
            ("consumerGroup", "poppers"),
            ("topic", "plain"),
            ("queueId", "0"),
            ("extraInfo", handle),
            ("offset", offset),
        ];
        let fields = fields.iter().chain(more);
        fields
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
    };
    let acked = about(&first, &[]);
    let changed = about(&second, &[("invisibleTime", "90000")]);
    for (code, fields) in [(ACK, acked), (CHANGE_INVISIBLE, changed)] {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        broker.takes(code, &fields, b"");
    }

    broker.permit("6");
    broker.takes(code::SEND, &send("ordered", &[]), b"body");
    broker.takes(SEND_BACK, &back, b"");
    broker.takes(code::PULL, &pull_fields("pullers", "plain", "0"), b"");
    broker.takes(POP, &POPPED, b"");

    // Lite pulls and no others.
    broker.set("litePullMessageEnable", "false");
    let lite = (
        "for lite pull consumer is forbidden".to_owned(),
        "1".to_owned(),
    );
    assert_eq!(
        broker.refuses(LITE_PULL, &pull_fields("pullers", "plain", "0"), b""),
        lite
    );
    broker.takes(code::PULL, &pull_fields("pullers", "plain", "0"), b"");
    broker.set("litePullMessageEnable", "true");
    broker.takes(LITE_PULL, &pull_fields("pullers", "plain", "0"), b"");
}

#[test]
fn a_broker_without_transactions_ends_those_that_it_has() {
    let cluster = Cluster::start(&Options::new());
    let mut broker = Broker::of(&cluster);
    broker.create_topic("plain", "0", "false");
    let half = [(
        "properties",
        "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}raw\u{2}UNIQ_KEY\u{1}7F00000100002A9F0000000000000001",
    )];
    let sent = broker.takes(code::SEND, &send("plain", &half), b"half");
    broker.set("rejectTransactionMessage", "true");
    let says = (
        "sending transaction message is forbidden".to_owned(),
        String::new(),
    );
    assert_eq!(
        broker.refuses(code::SEND, &send("plain", &half), b"half"),
        says
    );
    broker.takes(code::SEND, &send("plain", &[]), b"no transaction");
    let position = i64::from_str_radix(&sent.ext["msgId"][16..], 16).expect("a position");
    let end = [
        ("producerGroup", "raw"),
        ("tranStateTableOffset", &*sent.ext["queueOffset"]),
        ("commitLogOffset", &position.to_string()),
        ("commitOrRollback", "8"),
        ("fromTransactionCheck", "false"),
        ("msgId", &*sent.ext["msgId"]),
    ];
    broker.takes(END_TRANSACTION, &end, b"");
    eventually("both are there", WITHIN, || {
        let queue = [("topic", "plain"), ("queueId", "0")];
        let end = broker.takes(code::MAX_OFFSET, &queue, b"");
        (end.ext["offset"] == "2").then_some(())
    });
    broker.set("rejectTransactionMessage", "false");
    broker.takes(code::SEND, &send("plain", &half), b"half");
}

#[test]
fn pulls_are_told_the_flags_of_topic_and_group() {
    let cluster = Cluster::start(&Options::new());
    let mut broker = Broker::of(&cluster);
    broker.create_topic("flagged", "1", "false");
    broker.create_topic("plain", "0", "false");
    let group = json!({"groupName": "flagged-group", "groupSysFlag": 2}).to_string();
    broker.takes(CREATE_GROUP, &[], group.as_bytes());
    for topic in ["flagged", "plain"] {
        broker.takes(code::SEND, &send(topic, &[]), b"body");
    }
    for (group, topic, offset, code, flags) in [
        ("flagged-group", "flagged", "0", 0, ["1", "2"]),
        ("flagged-group", "flagged", "1", PULL_NOT_FOUND, ["1", "2"]),
        (
            "flagged-group",
            "flagged",
            "9",
            PULL_OFFSET_MOVED,
            ["1", "2"],
        ),
        ("flagged-group", "plain", "0", 0, ["0", "2"]),
        ("plain-group", "flagged", "0", 0, ["1", "0"]),
        ("plain-group", "plain", "0", 0, ["0", "0"]),
    ] {
        for request in [code::PULL, LITE_PULL] {
            let answer = broker.ask(request, &pull_fields(group, topic, offset), b"");
            let told = ["topicSysFlag", "groupSysFlag"].map(|name| answer.ext[name].as_str());
            assert_eq!((answer.code, told), (code, flags), "{answer:?}");
        }
    }
}

/// Sets a key of these brokers as operators do.
fn configure(
    client: &mut Client,
    cluster: &Cluster,
    brokers: &[(String, String)],
    key: &str,
    value: &str,
) {
    for (_, address) in brokers {
        let command = format!(
            "updateBrokerConfig -n {} -b {address} -k {key} -v {value}",
            cluster.nameserver()
        );
        let args: Vec<&str> = command.split(' ').collect();
        let output = client.call("mqadmin", json!({"args": args}))["output"].clone();
        let output = output.as_str().unwrap_or_default();
        assert!(output.contains("success"), "{output}");
    }
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn java_clients_go_round_a_broker_that_permits_nothing_to_them() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("moved", 2);
    let brokers: Vec<(String, String)> = cluster.brokers().into_iter().collect();
    let first = &brokers[..1];
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "moved").from(From::First));
    let messages = |name: &str| -> Vec<Message> {
        let message = |i| Message::new("moved", format!("{name} {i}"));
        (0..12).map(message).collect()
    };
    let on = |sent: &[corelane_tests::Sent], broker: &str| {
        let there = sent.iter().filter(|sent| sent.place.broker == broker);
        there.count()
    };
    let before = client.send("producer", Mode::Sync, &messages("before"));
    assert!(on(&before, &brokers[0].0) > 0 && on(&before, &brokers[1].0) > 0);

    configure(&mut client, &cluster, first, "brokerPermission", "4");
    eventually("the producer goes to the other broker", WITHIN, || {
        let sent = client.send("producer", Mode::Sync, &messages("meanwhile"));
        (on(&sent, &brokers[0].0) == 0).then_some(())
    });
    let after = client.send("producer", Mode::Sync, &messages("after"));
    assert_eq!(on(&after, &brokers[1].0), 12, "{after:?}");
    // What lies there is read still.
    for name in ["before", "after"] {
        client.deliveries("group", 12, WITHIN, |r| r.key.starts_with(name));
    }
    configure(&mut client, &cluster, first, "brokerPermission", "6");
    eventually("the producer comes back", WITHIN, || {
        let sent = client.send("producer", Mode::Sync, &messages("again"));
        (on(&sent, &brokers[0].0) > 0).then_some(())
    });

    // A lite pull consumer waits until it may pull.
    configure(
        &mut client,
        &cluster,
        &brokers,
        "litePullMessageEnable",
        "false",
    );
    client.lite_pull("lite", "lite-group", "moved", &From::First);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(client.received("lite").len(), 0);
    configure(
        &mut client,
        &cluster,
        &brokers,
        "litePullMessageEnable",
        "true",
    );
    client.deliveries("lite", 12, WITHIN, |r| r.key.starts_with("before"));

    // A producer hears that its transaction is not taken.
    client.producer_with("decides", json!({"transactions": true}));
    configure(
        &mut client,
        &cluster,
        &brokers,
        "rejectTransactionMessage",
        "true",
    );
    let half = Message::new("moved", "half").property("local", "commit");
    let outcome = client.try_send("decides", Mode::Transaction, None, &[half]);
    let why = format!("{:?}", outcome.failed);
    assert!(
        outcome.sent.is_empty() && why.contains("sending transaction message is forbidden"),
        "{outcome:?}"
    );
}
