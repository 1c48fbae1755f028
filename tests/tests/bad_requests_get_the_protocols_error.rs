//! Requests that can be read but make no sense get the protocol's error; nothing of them is stored, and the connection goes
//! on.

use corelane_tests::raw::{self, Connection, Response, code};
use corelane_tests::{Cluster, Options};

const UNSUPPORTED: i64 = 3;
const MESSAGE_ILLEGAL: i64 = 13;
const INVALID_PARAMETER: i64 = 29;
const MIB: usize = 1024 * 1024;

/// A connection to the broker and what it says of itself.
struct Broker {
    connection: Connection,
}

impl Broker {
    fn of(cluster: &Cluster) -> Self {
        Self {
            connection: Connection::open(&cluster.broker()).expect("a connection"),
        }
    }

    fn ask(&mut self, what: &str, code: i64, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.connection
            .request(code, fields, body)
            .unwrap_or_else(|e| panic!("{what} got no answer: {e}"))
    }

    fn refuses(&mut self, what: &str, code: i64, fields: &[(&str, &str)], body: &[u8]) -> i64 {
        let answer = self.ask(what, code, fields, body);
        assert_ne!(answer.code, 0, "{what} was accepted: {answer:?}");
        assert!(
            !answer.remark.is_empty(),
            "{what} was refused with {} and without a word",
            answer.code
        );
        answer.code
    }

    fn end_of_queue(&mut self, topic: &str, queue: &str) -> i64 {
        let answer = self.ask(
            "the end of a queue",
            code::MAX_OFFSET,
            &[("topic", topic), ("queueId", queue)],
            &[],
        );
        answer.ext["offset"].parse().expect("a number")
    }
}

/// The fields of a send, with one of them replaced.
fn send_with<'a>(
    topic: &'a str,
    queue: &'a str,
    name: &'a str,
    value: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let fields = raw::send_fields(topic, queue)
        .into_iter()
        .filter(|(n, _)| *n != name);
    fields.chain([(name, value)]).collect()
}

#[test]
fn unknown_codes_are_unsupported_and_named_in_the_log() {
    let cluster = Cluster::start(&Options::new());
    let mut broker = Broker::of(&cluster);
    assert_eq!(broker.refuses("code 9999", 9999, &[], &[]), UNSUPPORTED);
    assert_eq!(broker.refuses("code -1", -1, &[], &[]), UNSUPPORTED);
    let mut nameserver = Connection::open(cluster.nameserver()).expect("a connection");
    let answer = nameserver.request(9998, &[], &[]).expect("an answer");
    assert_eq!(answer.code, UNSUPPORTED);
    let log = cluster.process().log();
    assert!(
        log.contains("9999") && log.contains("9998"),
        "the codes are not named:\n{log}"
    );
}

#[test]
fn queues_out_of_range_are_invalid() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("two", 2);
    let mut broker = Broker::of(&cluster);
    for queue in ["2", "99", "2147483647"] {
        let what = format!("a send to queue {queue} of 2");
        assert_eq!(
            broker.refuses(&what, code::SEND, &raw::send_fields("two", queue), b"x"),
            INVALID_PARAMETER,
            "{what}"
        );
        let what = format!("a pull of queue {queue} of 2");
        assert_eq!(
            broker.refuses(&what, code::PULL, &pull("two", queue, "0", "32"), &[]),
            INVALID_PARAMETER,
            "{what}"
        );
        assert_eq!(broker.end_of_queue("two", queue), 0);
    }
    // A negative queue lets the broker choose.
    let answer = broker.ask(
        "a send to queue -1",
        code::SEND,
        &raw::send_fields("two", "-1"),
        b"x",
    );
    assert!(
        answer.code == 0 && ["0", "1"].contains(&answer.ext["queueId"].as_str()),
        "{answer:?}"
    );
}

#[test]
fn numbers_that_are_none_are_refused() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("numbers", 1);
    let mut broker = Broker::of(&cluster);
    for (name, value) in [
        ("queueId", "zero"),
        ("queueId", ""),
        ("queueId", "99999999999999999999"),
        ("sysFlag", "1.5"),
        ("bornTimestamp", "yesterday"),
        ("flag", "0x1"),
    ] {
        broker.refuses(
            &format!("{name}={value:?}"),
            code::SEND,
            &send_with("numbers", "0", name, value),
            b"x",
        );
    }
    for name in ["topic", "queueId", "producerGroup"] {
        let without: Vec<_> = raw::send_fields("numbers", "0")
            .into_iter()
            .filter(|(n, _)| *n != name)
            .collect();
        broker.refuses(
            &format!("a send without {name}"),
            code::SEND,
            &without,
            b"x",
        );
    }
    broker.refuses("a send without any field", code::SEND, &[], b"x");
    broker.refuses("a pull without any field", code::PULL, &[], &[]);
    broker.refuses("a heartbeat that is no JSON", 34, &[], b"\x00garbage");
    broker.refuses("a consumer list without a group", 38, &[], &[]);
    assert_eq!(broker.end_of_queue("numbers", "0"), 0, "nothing was stored");
}

#[test]
fn pulls_at_impossible_places_find_nothing() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("places", 1);
    let mut broker = Broker::of(&cluster);
    broker.ask("a send", code::SEND, &raw::send_fields("places", "0"), b"x");
    for offset in ["-1", "-9223372036854775808", "2", "9223372036854775807"] {
        broker.refuses(
            &format!("a pull at {offset}"),
            code::PULL,
            &pull("places", "0", offset, "32"),
            &[],
        );
    }
    // How many messages at most: any number does, and none is more than there is.
    for count in ["-1", "0", "2147483647", "-2147483648"] {
        let answer = broker.ask(
            &format!("a pull of {count} messages"),
            code::PULL,
            &pull("places", "0", "0", count),
            &[],
        );
        assert!(answer.body.len() < 1000, "{} bytes", answer.body.len());
    }
}

#[test]
fn messages_beyond_the_limits_are_illegal() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("limits", 1);
    let mut broker = Broker::of(&cluster);
    let fields = raw::send_fields("limits", "0");
    let body = vec![b'x'; 4 * MIB + 1];
    let answer = broker.ask("a body of 4 MiB", code::SEND, &fields, &body[1..]);
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert_eq!(
        broker.refuses("a body of 4 MiB and a byte", code::SEND, &fields, &body),
        MESSAGE_ILLEGAL
    );
    for (length, accepted) in [(32_500, true), (32_800, false), (200_000, false)] {
        let properties = format!("long\u{1}{}\u{2}", "p".repeat(length));
        let fields = send_with("limits", "0", "properties", &properties);
        match accepted {
            true => assert_eq!(
                broker
                    .ask("long properties", code::SEND, &fields, b"x")
                    .code,
                0
            ),
            false => assert_eq!(
                broker.refuses("too long properties", code::SEND, &fields, b"x"),
                MESSAGE_ILLEGAL
            ),
        }
    }
    assert_eq!(broker.end_of_queue("limits", "0"), 2);
}

#[test]
fn the_limit_of_a_body_is_a_key() {
    let cluster = Cluster::start(&Options::new().set("max_message_bytes", "10000"));
    cluster.create_topic("small", 1);
    let mut broker = Broker::of(&cluster);
    let fields = raw::send_fields("small", "0");
    assert_eq!(
        broker
            .ask("10,000 bytes", code::SEND, &fields, &[b'x'; 10_000])
            .code,
        0
    );
    assert_eq!(
        broker.refuses("10,001 bytes", code::SEND, &fields, &[b'x'; 10_001]),
        MESSAGE_ILLEGAL
    );
}

#[test]
fn illegal_topic_names_are_refused() {
    let cluster = Cluster::start(&Options::new());
    let mut broker = Broker::of(&cluster);
    let long = "x".repeat(128);
    for name in [
        "",
        " ",
        "a b",
        "../escape",
        "a/b",
        "a\\b",
        "topic$",
        "a\0b",
        "тема",
        "a\nb",
        "<topic>",
        &long,
    ] {
        let what = format!("topic {name:?}");
        broker.refuses(&what, code::SEND, &raw::send_fields(name, "0"), b"x");
        let answer = raw::create_topic(&cluster.broker(), name, 1).expect("an answer");
        assert_eq!(answer.code, INVALID_PARAMETER, "{what}: {}", answer.remark);
        assert!(
            raw::route(cluster.nameserver(), name).is_empty(),
            "{what} has a route"
        );
    }
    // Topics that the broker keeps for itself.
    for name in ["SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC"] {
        let answer = raw::create_topic(&cluster.broker(), name, 1).expect("an answer");
        assert_eq!(answer.code, INVALID_PARAMETER, "{name}: {}", answer.remark);
    }
}

#[test]
fn impossible_numbers_of_queues_are_refused() {
    let cluster = Cluster::start(&Options::new());
    let mut broker = Broker::of(&cluster);
    for (read, write) in [
        ("-1", "-1"),
        ("2147483647", "2147483647"),
        ("1", "-2147483648"),
        ("many", "1"),
    ] {
        let fields = [
            ("topic", "queues"),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", read),
            ("writeQueueNums", write),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        broker.refuses(
            &format!("a topic of {read} and {write} queues"),
            code::CREATE_TOPIC,
            &fields,
            &[],
        );
    }
    assert!(raw::route(cluster.nameserver(), "queues").is_empty());
}

#[test]
fn broken_batches_store_nothing() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("batches", 1);
    let mut broker = Broker::of(&cluster);
    let good = batch_entry(b"body", b"TAGS\x01t");
    let with_total = |total: u32| [&total.to_be_bytes(), &good[4..]].concat();
    let mut negative_body = good.clone();
    negative_body[16..20].copy_from_slice(&(-4i32).to_be_bytes());
    let mut negative_properties = good.clone();
    let at = good.len() - 6 - 2;
    negative_properties[at..at + 2].copy_from_slice(&(-6i16).to_be_bytes());
    let fields = send_with("batches", "0", "batch", "true");
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("an empty batch", Vec::new()),
        ("no batch", b"this is no batch".to_vec()),
        ("a message that is cut", good[..good.len() - 1].to_vec()),
        (
            "a second message that is cut",
            [&good[..], &good[..10]].concat(),
        ),
        ("a total size of 0", with_total(0)),
        ("a negative total size", with_total(u32::MAX)),
        (
            "a total size beyond the batch",
            with_total(good.len() as u32 + 1),
        ),
        ("a negative body", negative_body),
        ("negative properties", negative_properties),
    ];
    for (what, body) in broken {
        broker.refuses(what, code::SEND, &fields, &body);
        assert_eq!(
            broker.end_of_queue("batches", "0"),
            0,
            "{what} stored something"
        );
    }
    let answer = broker.ask(
        "a good batch",
        code::SEND,
        &fields,
        &[&good[..], &good[..]].concat(),
    );
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert_eq!(broker.end_of_queue("batches", "0"), 2);
}

/// A message in a batch: total size, magic, CRC, flag, body, properties, each with its length before it.
fn batch_entry(body: &[u8], properties: &[u8]) -> Vec<u8> {
    let total = 4 + 4 + 4 + 4 + 4 + body.len() + 2 + properties.len();
    let mut out = (total as u32).to_be_bytes().to_vec();
    out.extend([0; 12]);
    out.extend((body.len() as u32).to_be_bytes());
    out.extend(body);
    out.extend((properties.len() as u16).to_be_bytes());
    out.extend(properties);
    out
}

fn pull<'a>(
    topic: &'a str,
    queue: &'a str,
    offset: &'a str,
    count: &'a str,
) -> [(&'a str, &'a str); 11] {
    [
        ("consumerGroup", "raw-group"),
        ("topic", topic),
        ("queueId", queue),
        ("queueOffset", offset),
        ("maxMsgNums", count),
        // Subscription in the request, and no waiting.
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ]
}
