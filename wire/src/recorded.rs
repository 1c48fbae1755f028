//! Frames that real clients and the real broker sent, as recorded on the wire (`frames/*.hex`).

#![allow(clippy::disallowed_methods, reason = "tests read recorded frames")]
#![allow(clippy::unwrap_used)]

use crate::body::{
    ConsumeStats, HeartbeatData, LockBatchRequestBody, MessageQueue, QueryAssignmentResponseBody,
    TopicRouteData,
};
use crate::code::{request, response};
use crate::fastjson::Keys;
use crate::frame::Serialization;
use crate::header::{notify, offset, pop, pull, query, send};
use crate::message_id::{OffsetId, RecallHandle, UniqueId};
use crate::properties::{Properties, name};
use crate::record::Record;
use crate::{ExtHeader, Frame, batch, check, code, properties};

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn recorded(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/frames/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    unhex(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn every_recorded_frame_parses_and_is_stable() {
    let directory =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames")).unwrap();
    let mut frames = 0;
    for entry in directory {
        let bytes = unhex(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
        let frame = Frame::parse(&bytes).unwrap();
        check::frame(&bytes);
        check::headers(&bytes);
        if frame.body.first() == Some(&b'{') {
            check::fastjson(frame.body);
            check::bodies(frame.body);
        }
        for cut in 0..bytes.len() {
            assert!(Frame::parse(&bytes[..cut]).is_err());
        }
        frames += 1;
    }
    assert!(frames >= 45, "{frames} frames");
}

#[test]
fn damaged_frames_never_panic() {
    for name in [
        "java-send-message-v2",
        "java-send-message-v2-binary",
        "java-pull-message",
        "java-send-batch-message",
    ] {
        let bytes = recorded(name);
        for at in 0..bytes.len() {
            for byte in [0, 0x22, 0x5C, 0x7D, 0xFF, bytes[at] ^ 1] {
                let mut damaged = bytes.clone();
                damaged[at] = byte;
                check::frame(&damaged);
                check::headers(&damaged);
            }
        }
    }
}

#[test]
fn a_send_in_json_and_in_binary() {
    for (name, serialization, topic, body) in [
        (
            "java-send-message-v2",
            Serialization::Json,
            "Topic-delay",
            "delay level 1",
        ),
        (
            "java-send-message-v2-binary",
            Serialization::Rocketmq,
            "Topic-send-rocketmq",
            "hello 0",
        ),
    ] {
        let bytes = recorded(name);
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(
            (frame.serialization, frame.code),
            (serialization, request::SEND_MESSAGE_V2)
        );
        assert_eq!(
            (frame.language, frame.version, frame.flag),
            (code::language::JAVA, code::VERSION, 0)
        );
        assert_eq!(frame.body, body.as_bytes());
        let header = send::SendMessageRequest::decode_short(&frame.ext).unwrap();
        assert_eq!(header.topic, topic);
        assert_eq!(
            (
                header.default_topic.as_plain(),
                header.default_topic_queue_nums
            ),
            (Some("TBW102"), 4)
        );
        assert_eq!((header.queue_id, header.sys_flag, header.flag), (1, 0, 0));
        assert_eq!(
            (header.batch, header.max_reconsume_times),
            (Some(false), None)
        );
        assert_eq!(header.bname, Some("broker-a".into()));
        let properties = Properties::from_text(header.properties.unwrap());
        let [keys, tags, unique] = properties.find([name::KEYS, name::TAGS, name::UNIQ_KEY]);
        assert_eq!(
            (keys, tags),
            (Some("key1 key2".into()), Some("tagA".into()))
        );
        assert!(UniqueId::parse(&unique.unwrap().to_str()).is_some());
    }
}

#[test]
fn a_send_of_go() {
    let bytes = recorded("go-send-message");
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(
        (frame.code, frame.language, frame.version),
        (request::SEND_MESSAGE, code::language::GO, 317)
    );
    assert_eq!(frame.remark, Some("".into()));
    let header = send::SendMessageRequest::decode(&frame.ext).unwrap();
    assert_eq!(
        (header.producer_group.as_plain(), header.topic.as_plain()),
        (Some("go-producer"), Some("Topic-go"))
    );
    assert_eq!(
        (header.born_timestamp, header.max_reconsume_times),
        (1795251898671, Some(0))
    );
}

#[test]
fn the_answer_to_a_send() {
    let bytes = recorded("apache-send-message-v2-response");
    let frame = Frame::parse(&bytes).unwrap();
    assert!(frame.is_response() && !frame.is_oneway());
    let header = send::SendMessageResponse::decode(&frame.ext).unwrap();
    assert_eq!((header.queue_id, header.queue_offset), (1, 1));
    assert_eq!(
        (header.msg_region, header.trace_on),
        (Some("DefaultRegion".into()), Some("true".into()))
    );
    assert_eq!(
        OffsetId::parse(&header.msg_id.to_str()).unwrap().offset,
        0x297C
    );
}

#[test]
fn a_batch() {
    let bytes = recorded("java-send-batch-message");
    let frame = Frame::parse(&bytes).unwrap();
    let header = send::SendMessageRequest::decode_short(&frame.ext).unwrap();
    assert_eq!(header.batch, Some(true));
    check::batch(frame.body);
    let messages: Vec<_> = batch::messages(frame.body)
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(
        messages
            .iter()
            .map(|message| message.body)
            .collect::<Vec<_>>(),
        [b"batch 0", b"batch 1", b"batch 2", b"batch 3", b"batch 4"]
    );
    assert_eq!(
        Properties::from_plain(messages[4].properties).get(name::TAGS),
        Some("tagA".into())
    );
}

#[test]
fn pulls_and_their_answers() {
    let bytes = recorded("java-pull-message");
    let header = pull::PullMessageRequest::decode(&Frame::parse(&bytes).unwrap().ext).unwrap();
    assert_eq!(
        (
            header.queue_id,
            header.max_msg_nums,
            header.suspend_timeout_millis
        ),
        (1, 32, 15000)
    );
    assert_eq!(
        (
            header.commit_offset,
            header.max_msg_bytes,
            header.subscription
        ),
        (-1, Some(262144), None)
    );

    let bytes = recorded("go-pull-message");
    let header = pull::PullMessageRequest::decode(&Frame::parse(&bytes).unwrap().ext).unwrap();
    assert_eq!(
        (header.subscription, header.expression_type),
        (Some("".into()), Some("TAG".into()))
    );

    let bytes = recorded("apache-pull-message-response-pull-not-found");
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(
        (frame.code, frame.remark),
        (response::PULL_NOT_FOUND, Some("NO_MESSAGE_IN_QUEUE".into()))
    );
    assert_eq!(
        pull::PullMessageResponse::decode(&frame.ext)
            .unwrap()
            .next_begin_offset,
        0
    );

    let bytes = recorded("apache-pull-message-response");
    let frame = Frame::parse(&bytes).unwrap();
    check::record(frame.body);
    let (record, rest) = Record::parse(frame.body).unwrap();
    assert!(rest.is_empty() && record.check_body_crc());
    assert_eq!(
        (record.body(), record.topic()),
        (&b"delay level 1"[..], "Topic-delay")
    );
    assert_eq!(
        (
            record.queue_id(),
            record.queue_offset(),
            record.physical_offset()
        ),
        (1, 0, 0x2F45)
    );
    assert_eq!(record.store_host().to_string(), "127.0.0.2:22911");
    assert_eq!(
        record.properties().get(name::CLUSTER),
        Some("DefaultCluster".into())
    );
}

#[test]
fn every_recorded_record_has_its_checksum() {
    for name in [
        "apache-check-transaction-state",
        "apache-pop-message-response",
        "apache-pull-message-response",
        "apache-query-message-response",
        "apache-view-message-by-id-response",
    ] {
        let bytes = recorded(name);
        let mut rest = Frame::parse(&bytes).unwrap().body;
        assert!(!rest.is_empty());
        while !rest.is_empty() {
            let (record, after) = Record::parse(rest).unwrap();
            assert!(record.check_body_crc(), "{name}");
            rest = after;
        }
    }
}

#[test]
fn heartbeats() {
    let bytes = recorded("java-heart-beat");
    let data = HeartbeatData::from_json(Frame::parse(&bytes).unwrap().body).unwrap();
    let with_tags = |data: &HeartbeatData| {
        let subscriptions = data
            .consumer_data_set
            .iter()
            .flat_map(|consumer| consumer.subscription_data_set.iter());
        let mut tagged = 0;
        for subscription in subscriptions {
            let mut codes: Vec<i64> = subscription
                .tags_set
                .iter()
                .map(|tag| properties::tags_code(tag))
                .collect();
            let mut sent: Vec<i64> = subscription
                .code_set
                .iter()
                .copied()
                .map(i64::from)
                .collect();
            codes.sort_unstable();
            sent.sort_unstable();
            assert_eq!(codes, sent);
            tagged += sent.len();
        }
        tagged
    };
    with_tags(&data);
    assert!(!data.client_id.is_empty() && !data.consumer_data_set.is_empty());
    let bytes = recorded("go-heart-beat");
    let data = HeartbeatData::from_json(Frame::parse(&bytes).unwrap().body).unwrap();
    assert_eq!(data.consumer_data_set[0].group_name, "go-consumer");
    assert_eq!(with_tags(&data), 1);
}

#[test]
fn routes_with_quoted_and_with_bare_keys() {
    let quoted = recorded("apache-get-routeinfo-by-topic-response");
    let quoted = Frame::parse(&quoted).unwrap();
    let route = TopicRouteData::from_json(quoted.body).unwrap();
    assert_eq!(route.broker_datas[0].broker_addrs[&0], "127.0.0.2:22911");
    assert_eq!(route.to_json(Keys::Quoted), quoted.body);
    let bare = recorded("apache-get-routeinfo-by-topic-response-bare-keys");
    let bare = Frame::parse(&bare).unwrap();
    let route = TopicRouteData::from_json(bare.body).unwrap();
    assert_eq!(route.to_json(Keys::Bare), bare.body);
}

#[test]
fn other_bodies() {
    let bytes = recorded("apache-get-consume-stats-response");
    let stats = ConsumeStats::from_json(Frame::parse(&bytes).unwrap().body).unwrap();
    let queue = MessageQueue {
        broker_name: "broker-a".to_owned(),
        queue_id: 0,
        topic: "Topic-push".to_owned(),
    };
    assert_eq!(stats.offset_table[&queue].consumer_offset, 2);

    let bytes = recorded("java-lock-batch-mq");
    let lock = LockBatchRequestBody::from_json(Frame::parse(&bytes).unwrap().body).unwrap();
    assert_eq!(
        (lock.mq_set[0].topic.as_str(), lock.only_this_broker),
        ("Topic-orderly", false)
    );

    let bytes = recorded("apache-query-assignment-response");
    let body = QueryAssignmentResponseBody::from_json(Frame::parse(&bytes).unwrap().body).unwrap();
    assert_eq!(body.message_queue_assignments[0].message_queue.queue_id, -1);
}

#[test]
fn other_headers() {
    let bytes = recorded("java-end-transaction");
    let frame = Frame::parse(&bytes).unwrap();
    assert!(frame.is_oneway());
    let header = send::EndTransactionRequest::decode(&frame.ext).unwrap();
    assert_eq!(
        (
            header.commit_or_rollback,
            header.commit_log_offset,
            header.from_transaction_check
        ),
        (8, 12839, false)
    );

    let bytes = recorded("java-recall-message");
    let header = send::RecallMessageRequest::decode(&Frame::parse(&bytes).unwrap().ext).unwrap();
    assert_eq!(
        RecallHandle::parse(&header.recall_handle.to_str())
            .unwrap()
            .topic,
        "Topic-delay"
    );

    let bytes = recorded("java-pop-message");
    let header = pop::PopMessageRequest::decode(&Frame::parse(&bytes).unwrap().ext).unwrap();
    assert_eq!(
        (header.queue_id, header.poll_time, header.order, header.exp),
        (-1, 15000, false, Some("tagA || tagB".into()))
    );

    let bytes = recorded("java-query-message");
    let header = query::QueryMessageRequest::decode(&Frame::parse(&bytes).unwrap().ext).unwrap();
    assert_eq!(
        (header.end_timestamp, header.unique_key_query),
        (i64::MAX, Some(false))
    );

    let bytes = recorded("java-search-offset-by-timestamp");
    let header =
        offset::SearchOffsetByTimestampRequest::decode(&Frame::parse(&bytes).unwrap().ext).unwrap();
    assert_eq!(header.boundary_type, Some("LOWER".into()));

    let bytes = recorded("apache-push-reply-message-to-client");
    let header =
        notify::PushReplyMessageToClientRequest::decode(&Frame::parse(&bytes).unwrap().ext)
            .unwrap();
    assert_eq!(header.born_host, "127.0.0.1:46892");
}
