//! What administrators ask, over a whole engine.

use corelane_wire::body::{
    ConsumeStats, ConsumeStatsList, GetConsumerStatusBody, KvTable, MessageQueue,
    QueryConsumeQueueResponseBody, QueryConsumeTimeSpanBody,
};
use corelane_wire::code::{perm, request, response};
use corelane_wire::message_id::OffsetId;
use corelane_wire::record::Record;

use crate::engine::topic;
use crate::engine::turn::Connection;
use crate::sim::test_host::{Reply, TestHost, settings, small_log};

fn start() -> (TestHost, Connection, Connection) {
    let mut host = TestHost::start(1, settings(), small_log());
    let (admin, client) = (host.connect(), host.connect());
    for number in 0..5 {
        host.send(
            client,
            "t",
            0,
            &number.to_string(),
            &[("TAGS", if number % 2 == 0 { "even" } else { "odd" })],
        );
    }
    host.consume(client, "client", "g", "t");
    host.requests(client);
    (host, admin, client)
}

fn commit(host: &mut TestHost, connection: Connection, group: &str, offset: &str) {
    let fields = [
        ("consumerGroup", group),
        ("topic", "t"),
        ("queueId", "0"),
        ("commitOffset", offset),
    ];
    assert_eq!(
        host.request(connection, request::UPDATE_CONSUMER_OFFSET, &fields, &[])
            .code,
        response::SUCCESS
    );
}

#[test]
fn a_message_is_viewed_by_its_position_and_by_no_other() {
    let (mut host, admin, _) = start();
    let position = host.messages("t", 0)[3].position;
    let view = |host: &mut TestHost, at: i64| {
        host.request(
            admin,
            request::VIEW_MESSAGE_BY_ID,
            &[("offset", &at.to_string())],
            &[],
        )
    };
    let reply = view(&mut host, position);
    assert_eq!(Record::parse(&reply.body).unwrap().0.body(), b"3");
    for at in [position + 1, -1, i64::MAX, 0] {
        assert_eq!(view(&mut host, at).code, response::SYSTEM_ERROR, "{at}");
    }
}

#[test]
fn a_clients_answer_goes_back_to_who_asked() {
    let (mut host, admin, client) = start();
    let fields = [
        ("consumerGroup", "g"),
        ("clientId", "client"),
        ("jstackEnable", "true"),
    ];
    let asked = host.ask(admin, request::GET_CONSUMER_RUNNING_INFO, &fields, b"");
    let (opaque, relayed) = host.requests(client).remove(0);
    assert_eq!(
        (relayed.code, relayed.fields["jstackEnable"].as_str()),
        (request::GET_CONSUMER_RUNNING_INFO, "true")
    );
    host.respond(client, opaque, 0, b"{running}");
    let reply = host.answer(admin, asked).unwrap();
    assert_eq!((reply.code, reply.body.as_slice()), (0, &b"{running}"[..]));

    let asked = host.ask(admin, request::GET_CONSUMER_RUNNING_INFO, &fields, b"");
    host.advance(10_001);
    assert_eq!(
        host.answer(admin, asked).unwrap().code,
        response::CONSUME_MSG_TIMEOUT
    );
    let nobody = [("consumerGroup", "g"), ("clientId", "nobody")];
    let reply = host.request(admin, request::GET_CONSUMER_RUNNING_INFO, &nobody, b"");
    assert!(
        reply.code == response::SYSTEM_ERROR && reply.remark.contains("not online"),
        "{}",
        reply.remark
    );
}

#[test]
fn a_client_consumes_the_message_that_an_admin_names() {
    let (mut host, admin, client) = start();
    let position = host.messages("t", 0)[2].position;
    let id = OffsetId {
        store_host: host.engine.store_host,
        offset: position,
    }
    .encode();
    let fields = [
        ("consumerGroup", "g"),
        ("clientId", "client"),
        ("msgId", id.as_str()),
        ("topic", "t"),
    ];
    let asked = host.ask(admin, request::CONSUME_MESSAGE_DIRECTLY, &fields, b"");
    let (opaque, relayed) = host.requests(client).remove(0);
    assert_eq!(
        (
            relayed.fields["brokerName"].as_str(),
            relayed.fields["topicSysFlag"].as_str()
        ),
        ("broker-a", "0")
    );
    assert_eq!(Record::parse(&relayed.body).unwrap().0.body(), b"2");
    host.respond(client, opaque, 0, b"done");
    assert_eq!(host.answer(admin, asked).unwrap().body, b"done");
    let wrong = [
        ("consumerGroup", "g"),
        ("clientId", "client"),
        ("msgId", "nonsense"),
    ];
    assert_eq!(
        host.request(admin, request::CONSUME_MESSAGE_DIRECTLY, &wrong, b"")
            .code,
        response::SYSTEM_ERROR
    );
}

#[test]
fn a_survey_is_answered_when_every_client_answered_or_is_late() {
    let (mut host, admin, first) = start();
    let second = host.connect();
    host.consume(second, "second", "g", "t");
    host.requests(first);
    let fields = [("group", "g"), ("topic", "t")];
    let asked = host.ask(
        admin,
        request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS,
        &fields,
        b"",
    );
    let (opaque, _) = host.requests(first).remove(0);
    let queue = MessageQueue {
        broker_name: "broker-a".into(),
        queue_id: 0,
        topic: "t".into(),
    };
    let body = GetConsumerStatusBody {
        message_queue_table: [(queue.clone(), 3)].into(),
        ..Default::default()
    };
    host.respond(first, opaque, 0, &body.to_json());
    assert_eq!(host.answer(admin, asked), None);
    host.advance(5_001);
    let reply = host.answer(admin, asked).unwrap();
    let table = GetConsumerStatusBody::from_json(&reply.body)
        .unwrap()
        .consumer_table;
    assert_eq!(table, [("client".to_owned(), [(queue, 3)].into())].into());
}

#[test]
fn offsets_are_cloned_and_corrected() {
    let (mut host, admin, client) = start();
    commit(&mut host, client, "g", "4");
    let fields = [
        ("srcGroup", "g"),
        ("destGroup", "copy"),
        ("topic", "t"),
        ("offline", "true"),
    ];
    assert_eq!(
        host.request(admin, request::CLONE_GROUP_OFFSET, &fields, &[])
            .code,
        response::SUCCESS
    );
    host.crash_and_reopen();
    let admin = host.connect();
    assert_eq!(host.engine.offsets.get("copy", "t", 0), Some(4));
    host.consume(admin, "client", "slow", "t");
    commit(&mut host, admin, "slow", "1");
    let ask = |host: &mut TestHost, group, filtered| {
        let fields = [
            ("compareGroup", group),
            ("topic", "t"),
            ("filterGroups", filtered),
        ];
        let reply = host.request(admin, request::QUERY_CORRECTION_OFFSET, &fields, &[]);
        String::from_utf8(reply.body).unwrap()
    };
    assert!(ask(&mut host, "g", "").contains("{\"0\":1}"));
    assert!(ask(&mut host, "g", "slow").contains("{\"0\":4}"));
    assert!(ask(&mut host, "slow", "slow").contains(&i64::MAX.to_string()));
}

fn pull_fields<'a>(group: &'a str, topic: &'a str, flag: &'a str) -> [(&'a str, &'a str); 10] {
    [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", flag),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ]
}

/// Pulls what the group's members subscribe to.
fn pull(host: &mut TestHost, client: Connection, group: &str, topic: &str) -> Reply {
    let fields = pull_fields(group, topic, "0");
    host.request(client, request::PULL_MESSAGE, &fields, &[])
}

#[test]
fn a_pull_that_is_not_permitted_says_what_forbids_it() {
    let (mut host, admin, client) = start();
    let off = br#"{"groupName":"off","consumeEnable":false}"#;
    let alone = br#"{"groupName":"alone","consumeBroadcastEnable":false}"#;
    for group in [&off[..], &alone[..]] {
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        assert_eq!(host.request(admin, code, &[], group).code, 0);
    }
    let body =
        br#"{"clientID":"b","consumerDataSet":[{"groupName":"alone","messageModel":"BROADCASTING",
        "subscriptionDataSet":[{"topic":"t","subString":"*","subVersion":1}]}]}"#;
    host.request(client, request::HEART_BEAT, &[], body);
    let unreadable = topic::config("unreadable", 1, perm::WRITE);
    let put = host.turn(|engine, turn| engine.put_topic(turn, unreadable));
    assert!(put.is_ok());
    for group in ["g", "alone"] {
        let set = [("group", group), ("topic", "t"), ("readable", "false")];
        let code = request::UPDATE_AND_GET_GROUP_FORBIDDEN;
        assert_eq!(host.request(admin, code, &set, &[]).code, 0);
    }
    for (group, topic, kind) in [
        ("off", "t", "2"),
        ("g", "unreadable", "3"),
        ("alone", "t", "4"),
        ("g", "t", "5"),
    ] {
        for code in [request::PULL_MESSAGE, request::LITE_PULL_MESSAGE] {
            let fields = pull_fields(group, topic, "0");
            let refused = host.request(client, code, &fields, &[]);
            assert_eq!(
                (refused.code, refused.fields.get("forbiddenType")),
                (response::NO_PERMISSION, Some(&kind.to_owned())),
                "{group} {topic}: {}",
                refused.remark
            );
        }
    }
}

#[test]
fn a_group_that_is_forbidden_a_topic_pulls_nothing_of_it() {
    let (mut host, admin, _) = start();
    let set = [("group", "g"), ("topic", "t"), ("readable", "false")];
    let reply = host.request(admin, request::UPDATE_AND_GET_GROUP_FORBIDDEN, &set, &[]);
    assert!(reply.code == 0 && String::from_utf8_lossy(&reply.body).contains("\"readable\":false"));
    host.crash_and_reopen();
    let client = host.connect();
    host.consume(client, "client", "g", "t");
    let refused = pull(&mut host, client, "g", "t");
    assert_eq!(refused.code, response::NO_PERMISSION);
    // Who brings the subscription along is not asked for the group's, as with Apache.
    let fields = pull_fields("g", "t", "4");
    let answer = host.request(client, request::PULL_MESSAGE, &fields, &[]);
    assert_eq!(answer.code, response::SUCCESS);
    // What was pulled and not committed is in flight.
    commit(&mut host, client, "g", "2");
    let set = [("group", "g"), ("topic", "t"), ("readable", "true")];
    host.request(client, request::UPDATE_AND_GET_GROUP_FORBIDDEN, &set, &[]);
    assert_eq!(pull(&mut host, client, "g", "t").code, response::SUCCESS);
    let reply = host.request(
        client,
        request::GET_CONSUME_STATS,
        &[("consumerGroup", "g")],
        &[],
    );
    let stats = ConsumeStats::from_json(&reply.body).unwrap();
    let queue = stats
        .offset_table
        .iter()
        .find(|(queue, _)| queue.queue_id == 0)
        .unwrap()
        .1;
    assert_eq!(
        (
            queue.broker_offset,
            queue.consumer_offset,
            queue.pull_offset
        ),
        (5, 2, 5)
    );
    assert!(stats.consume_tps > 0.0);
}

#[test]
fn a_consume_queue_shows_what_a_group_would_get() {
    let (mut host, admin, client) = start();
    let body = r#"{"clientID":"c","consumerDataSet":[{"groupName":"odd","subscriptionDataSet":[{"topic":"t","subString":
        "odd","tagsSet":["odd"],"codeSet":[109919],"subVersion":1}]}]}"#;
    host.request(client, request::HEART_BEAT, &[], body.as_bytes());
    let fields = [
        ("topic", "t"),
        ("queueId", "0"),
        ("index", "1"),
        ("count", "3"),
        ("consumerGroup", "odd"),
    ];
    let reply = host.request(admin, request::QUERY_CONSUME_QUEUE, &fields, &[]);
    let body = QueryConsumeQueueResponseBody::from_json(&reply.body).unwrap();
    assert_eq!((body.min_queue_index, body.max_queue_index), (0, 5));
    assert_eq!(
        body.queue_data
            .iter()
            .map(|entry| entry.eval)
            .collect::<Vec<_>>(),
        [true, false, true]
    );
}

#[test]
fn the_runtime_info_has_what_tools_look_for() {
    let (mut host, admin, _) = start();
    host.advance(1_000);
    let reply = host.request(admin, request::GET_BROKER_RUNTIME_INFO, &[], &[]);
    let table = KvTable::from_json(&reply.body).unwrap().table;
    assert_eq!(
        (
            table["msgPutTotalTodayNow"].as_str(),
            table["putMessageTimesTotal"].as_str()
        ),
        ("5", "5")
    );
    let first_ms = host.messages("t", 0)[0].store_ms;
    assert_eq!(table["earliestMessageTimeStamp"], first_ms.to_string());
    for key in [
        "putTps",
        "getTransferredTps",
        "getFoundTps",
        "getMissTps",
        "getTotalTps",
    ] {
        let figures: Vec<f64> = table[key]
            .split(' ')
            .map(|figure| figure.parse().unwrap())
            .collect();
        assert_eq!(figures.len(), 3, "{key}");
    }
    assert!(
        table["putTps"].split(' ').all(|figure| figure != "0.0"),
        "{}",
        table["putTps"]
    );
    let stats = |host: &mut TestHost, item, key| {
        host.request(
            admin,
            request::VIEW_BROKER_STATS_DATA,
            &[("statsName", item), ("statsKey", key)],
            &[],
        )
    };
    assert!(
        String::from_utf8_lossy(&stats(&mut host, "TOPIC_PUT_NUMS", "t").body)
            .contains("\"sum\":5")
    );
    assert!(
        stats(&mut host, "TOPIC_PUT_NUMS", "none")
            .remark
            .contains("not exist")
    );
}

#[test]
fn messages_are_found_by_each_of_their_keys() {
    let (mut host, admin, client) = start();
    let from_ms = host.now.wall_ms;
    for (number, keys) in ["all one", "all two", "all"].into_iter().enumerate() {
        host.send(
            client,
            "t",
            0,
            keys,
            &[("KEYS", keys), ("UNIQ_KEY", &format!("ID{number}"))],
        );
        host.send(client, "other", 0, keys, &[("KEYS", keys)]);
        host.advance(1_000);
    }
    let ask = |host: &mut TestHost, key: &str, max: &str, from_ms: i64, unique: &str| {
        let (from, to) = (from_ms.to_string(), i64::MAX.to_string());
        let fields = [
            ("topic", "t"),
            ("key", key),
            ("maxNum", max),
            ("beginTimestamp", &from),
            ("endTimestamp", &to),
            ("_UNIQUE_KEY_QUERY", unique),
        ];
        let reply = host.request(admin, request::QUERY_MESSAGE, &fields, &[]);
        let (mut rest, mut bodies) = (reply.body.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (record, behind) = Record::parse(rest).unwrap();
            assert_eq!(record.topic(), "t");
            bodies.push(String::from_utf8_lossy(record.body()).into_owned());
            rest = behind;
        }
        bodies.sort();
        (reply.code, bodies)
    };
    assert_eq!(
        ask(&mut host, "all", "32", 0, "false"),
        (0, vec!["all".into(), "all one".into(), "all two".into()])
    );
    assert_eq!(
        ask(&mut host, "two", "32", 0, "false"),
        (0, vec!["all two".into()])
    );
    assert_eq!(ask(&mut host, "all", "2", 0, "false").1.len(), 2);
    assert_eq!(
        ask(&mut host, "all", "32", from_ms + 1_500, "false").1,
        ["all"]
    );
    assert_eq!(
        ask(&mut host, "ID1", "0", 0, "true"),
        (0, vec!["all two".into()])
    );
    for (key, max) in [
        ("none", "32"),
        ("", "32"),
        ("All", "32"),
        ("all", "0"),
        ("all", "-1"),
    ] {
        assert_eq!(
            ask(&mut host, key, max, 0, "false").0,
            response::QUERY_NOT_FOUND,
            "{key} {max}"
        );
    }
}

fn text(
    host: &mut TestHost,
    connection: Connection,
    code: i32,
    fields: &[(&str, &str)],
    body: &[u8],
) -> String {
    let reply = host.request(connection, code, fields, body);
    assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
    String::from_utf8(reply.body).unwrap()
}

#[test]
fn offsets_are_listed_for_tools() {
    let (mut host, admin, client) = start();
    commit(&mut host, client, "g", "4");
    let offsets = text(&mut host, admin, request::GET_ALL_CONSUMER_OFFSET, &[], &[]);
    assert!(offsets.contains(r#""t@g":{"0":4}"#), "{offsets}");
    let delayed = |host: &mut TestHost| text(host, admin, request::GET_ALL_DELAY_OFFSET, &[], &[]);
    assert!(delayed(&mut host).contains(r#""offsetTable":{}"#));
    host.send(client, "t", 0, "later", &[("DELAY", "2")]);
    host.advance(6_000);
    assert!(delayed(&mut host).contains(r#""offsetTable":{"2":1}"#));
}

#[test]
fn what_waits_is_in_the_runtime_info() {
    let (mut host, admin, client) = start();
    let info = |host: &mut TestHost, connection| {
        let reply = host.request(connection, request::GET_BROKER_RUNTIME_INFO, &[], &[]);
        KvTable::from_json(&reply.body).unwrap().table
    };
    for secs in ["5", "20", "20", "90000"] {
        host.send(client, "t", 0, "later", &[("TIMER_DELAY_SEC", secs)]);
    }
    host.send(client, "t", 0, "later", &[("DELAY", "1")]);
    host.send(client, "t", 0, "later", &[("DELAY", "1")]);
    let table = info(&mut host, admin);
    assert_eq!(
        (&*table["timerCongestNum"], &*table["timerReadBehind"]),
        ("4", "0")
    );
    assert!(!table.contains_key("scheduleMessageOffset_1"));
    host.advance(7_000);
    let table = info(&mut host, admin);
    assert_eq!(table["timerCongestNum"], "3");
    assert_eq!(table["scheduleMessageOffset_1"], "2,2");
    assert_ne!(
        (&*table["timerEnqueueTps"], &*table["timerDequeueTps"]),
        ("0.0", "0.0")
    );
    host.crash_and_reopen();
    let admin = host.connect();
    host.advance(1_000);
    assert_eq!(info(&mut host, admin)["timerCongestNum"], "3");
    host.advance(15_000);
    assert_eq!(info(&mut host, admin)["timerCongestNum"], "1");
}

#[test]
fn topics_that_nameservers_keep_an_order_of_are_in_order() {
    let (mut host, admin, _) = start();
    let order = |host: &mut TestHost, connection, topic| {
        let fields = [("topic", topic)];
        let reply = host.request(connection, request::GET_TOPIC_CONFIG, &fields, &[]);
        String::from_utf8(reply.body)
            .unwrap()
            .contains(r#""order":true"#)
    };
    assert!(!order(&mut host, admin, "t"));
    let table = ["t", "none", "SELF_TEST_TOPIC"].map(|topic| (topic.to_owned(), "b:4".to_owned()));
    host.turn(|engine, turn| engine.take_order(turn, &table.into()));
    host.run();
    assert!(order(&mut host, admin, "t") && !order(&mut host, admin, "SELF_TEST_TOPIC"));
    host.crash_and_reopen();
    let admin = host.connect();
    assert!(order(&mut host, admin, "t"));
}

#[test]
fn groups_are_made_in_lists() {
    let (mut host, admin, _) = start();
    let body =
        br#"{"groupConfigList":[{"groupName":"one","retryMaxTimes":3},{"groupName":"two"}]}"#;
    text(
        &mut host,
        admin,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
        &[],
        body,
    );
    host.crash_and_reopen();
    let admin = host.connect();
    let one = text(
        &mut host,
        admin,
        request::GET_SUBSCRIPTIONGROUP_CONFIG,
        &[("group", "one")],
        &[],
    );
    assert!(one.contains(r#""retryMaxTimes":3"#), "{one}");
    // None of a list is made where one cannot be.
    let body = br#"{"groupConfigList":[{"groupName":"three"},{"groupName":"no such name"}]}"#;
    let reply = host.request(
        admin,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
        &[],
        body,
    );
    assert_eq!(reply.code, response::INVALID_PARAMETER);
    assert!(host.engine.groups.get("three").is_none());
}

#[test]
fn a_time_span_says_how_far_behind_a_group_is() {
    let mut host = TestHost::start(1, settings(), small_log());
    let client = host.connect();
    let first_ms = host.now.wall_ms;
    for _ in 0..3 {
        host.send(client, "t", 0, "m", &[]);
        host.advance(1_000);
    }
    host.consume(client, "client", "g", "t");
    commit(&mut host, client, "g", "2");
    let span = text(
        &mut host,
        client,
        request::QUERY_CONSUME_TIME_SPAN,
        &[("topic", "t"), ("group", "g")],
        &[],
    );
    let span = QueryConsumeTimeSpanBody::from_json(span.as_bytes())
        .unwrap()
        .consume_time_span_set
        .remove(0);
    let times = [
        span.min_time_stamp,
        span.consume_time_stamp,
        span.max_time_stamp,
    ]
    .map(|ms| (ms - first_ms) / 1_000);
    assert_eq!((times, span.delay_time / 1_000), ([0, 1, 2], 1));
    let none = [("topic", "none"), ("group", "g")];
    assert_eq!(
        host.request(client, request::QUERY_CONSUME_TIME_SPAN, &none, &[])
            .code,
        response::TOPIC_NOT_EXIST
    );
}

#[test]
fn there_is_nothing_to_clean() {
    let (mut host, admin, _) = start();
    for code in [
        request::CLEAN_UNUSED_TOPIC,
        request::CLEAN_EXPIRED_CONSUMEQUEUE,
        request::DELETE_EXPIRED_COMMITLOG,
    ] {
        assert_eq!(host.request(admin, code, &[], &[]).code, response::SUCCESS);
    }
    assert_eq!(host.messages("t", 0).len(), 5);
}

#[test]
fn a_brokers_lag_is_the_sum_of_its_groups() {
    let (mut host, admin, client) = start();
    commit(&mut host, client, "g", "2");
    host.consume(client, "client", "h", "t");
    commit(&mut host, client, "h", "5");
    let list = text(
        &mut host,
        admin,
        request::GET_BROKER_CONSUME_STATS,
        &[("isOrder", "false")],
        &[],
    );
    let list = ConsumeStatsList::from_json(list.as_bytes()).unwrap();
    assert_eq!((list.total_diff, list.consume_stats_list.len()), (3, 2));
    assert_eq!(list.broker_addr, "127.0.0.1:10911");
    let ordered = text(
        &mut host,
        admin,
        request::GET_BROKER_CONSUME_STATS,
        &[("isOrder", "true")],
        &[],
    );
    assert_eq!(
        ConsumeStatsList::from_json(ordered.as_bytes())
            .unwrap()
            .total_diff,
        0
    );
}

#[test]
fn producers_and_subscriptions_are_shown() {
    let (mut host, admin, client) = start();
    host.produce(client, "client", "p");
    let producers = text(&mut host, admin, request::GET_ALL_PRODUCER_INFO, &[], &[]);
    assert!(
        producers.contains(r#""p":[{"clientId":"client""#),
        "{producers}"
    );
    let fields = [("group", "g"), ("topic", "t")];
    let subscription = text(
        &mut host,
        admin,
        request::QUERY_SUBSCRIPTION_BY_CONSUMER,
        &fields,
        &[],
    );
    assert!(
        subscription.contains(r#""subString":"*""#),
        "{subscription}"
    );
}
