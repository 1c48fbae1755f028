#![allow(clippy::unwrap_used)]

use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::check;
use crate::fastjson::{BodyError, Keys};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn missing_and_null_members_take_javas_defaults() {
    let config =
        TopicConfig::from_json(br#"{"topicName":"t","attributes":null,"more":{"a":1}}"#).unwrap();
    assert_eq!(
        config,
        TopicConfig {
            topic_name: "t".to_owned(),
            ..TopicConfig::default()
        }
    );
    assert_eq!((config.read_queue_nums, config.perm), (16, 6));
    let group = SubscriptionGroupConfig::from_json(
        br#"{"groupName":"g","groupRetryPolicy":{"type":"EXPONENTIAL"}}"#,
    )
    .unwrap();
    assert!(group.consume_enable && group.notify_consumer_ids_changed_enable);
    assert_eq!((group.retry_queue_nums, group.retry_max_times), (1, 16));
    assert_eq!(
        group.group_retry_policy.kind,
        GroupRetryPolicyType::Exponential
    );
}

#[test]
fn strings_and_ordinals_of_other_clients_are_read() {
    let json = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":1,"messageModel":"CLUSTERING",
        "consumeFromWhere":4,"subscriptionDataSet":[{"topic":"t","subString":"go","codeSet":["3304"],"subVersion":"7"}]}]}"#;
    let data = HeartbeatData::from_json(json).unwrap();
    let consumer = &data.consumer_data_set[0];
    assert_eq!(consumer.consume_type, ConsumeType::Passively);
    assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
    assert_eq!(
        (
            &consumer.subscription_data_set[0].code_set[..],
            consumer.subscription_data_set[0].sub_version
        ),
        (&[3304][..], 7)
    );
    assert_eq!(consumer.subscription_data_set[0].expression_type, "TAG");
    for broken in [
        r#"{"consumeType":"CONSUME_SOMEHOW"}"#,
        r#"{"consumeType":9}"#,
        r#"{"subscriptionDataSet":[{"codeSet":["x"]}]}"#,
    ] {
        assert!(
            matches!(
                ConsumerData::from_json(broken.as_bytes()),
                Err(BodyError::Value(_))
            ),
            "{broken}"
        );
    }
}

#[test]
fn routes_are_written_with_both_kinds_of_keys_and_without_blanks() {
    let broker = BrokerData {
        broker_addrs: [
            (0, "127.0.0.1:10911".to_owned()),
            (1, "127.0.0.1:10921".to_owned()),
        ]
        .into(),
        broker_name: "b".to_owned(),
        cluster: "c".to_owned(),
        ..BrokerData::default()
    };
    let route = TopicRouteData {
        broker_datas: vec![broker.clone()],
        ..TopicRouteData::default()
    };
    let expected = r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911","1":"127.0.0.1:10921"},"brokerName":"b","cluster":"c","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[]}"#;
    assert_eq!(text(route.to_json(Keys::Quoted)), expected);
    assert_eq!(
        text(route.to_json(Keys::Bare)),
        expected.replace("\"0\":", "0:").replace("\"1\":", "1:")
    );
    let cluster = ClusterInfo {
        broker_addr_table: [("b".to_owned(), broker)].into(),
        cluster_addr_table: [("c".to_owned(), vec!["b".to_owned()])].into(),
    };
    assert!(
        text(cluster.to_json(Keys::Bare))
            .starts_with(r#"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"127.0.0.1:10911",1:"#)
    );
}

#[test]
fn maps_from_queues_are_read_and_written_as_fastjson_does() {
    let json = r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:{"brokerOffset":2,"consumerOffset":1,"pullOffset":2,"lastTimestamp":9}}}"#;
    let stats = ConsumeStats::from_json(json.as_bytes()).unwrap();
    let queue = MessageQueue {
        broker_name: "b".to_owned(),
        queue_id: 0,
        topic: "t".to_owned(),
    };
    assert_eq!(stats.offset_table[&queue].consumer_offset, 1);
    assert_eq!(text(stats.to_json()), json);

    let reset = ResetOffsetBody {
        offset_table: [(queue.clone(), 123)].into(),
    };
    assert_eq!(
        text(reset.to_json()),
        r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:123}}"#
    );
    assert_eq!(
        text(reset.to_json_list()),
        r#"{"offsetTable":[{"brokerName":"b","queueId":0,"topic":"t","offset":123}]}"#
    );

    let status = GetConsumerStatusBody {
        consumer_table: [("client".to_owned(), [(queue, 5)].into())].into(),
        ..Default::default()
    };
    let json = r#"{"consumerTable":{"client":{{"brokerName":"b","queueId":0,"topic":"t"}:5}},"messageQueueTable":{}}"#;
    assert_eq!(text(status.to_json()), json);
    assert_eq!(
        GetConsumerStatusBody::from_json(json.as_bytes()).unwrap(),
        status
    );

    let list = ConsumeStatsList {
        consume_stats_list: vec![[("g".to_owned(), vec![stats])].into()],
        broker_addr: "a".to_owned(),
        total_diff: 1,
        total_inflight_diff: 0,
    };
    assert_eq!(ConsumeStatsList::from_json(&list.to_json()).unwrap(), list);
}

#[test]
fn a_bit_set_is_javas() {
    let json = br#"{"brokerName":"b","acks":[{"c":"g","t":"t","r":"0","so":10,"q":1,"rq":2,"pt":3,"it":4,"b":"BQE="}]}"#;
    let body = BatchAckMessageRequestBody::from_json(json).unwrap();
    assert_eq!(body.acks[0].bit_set.iter().collect::<Vec<_>>(), [0, 2, 8]);
    assert_eq!(BitSet::from_iter([8, 0, 2]), body.acks[0].bit_set);
    assert_eq!(
        BatchAckMessageRequestBody::from_json(&body.to_json()).unwrap(),
        body
    );
}

fn push_part(out: &mut Vec<u8>, part: &str) {
    out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    out.extend_from_slice(part.as_bytes());
}

fn inflated_registration() -> Vec<u8> {
    let mut out = Vec::new();
    push_part(&mut out, r#"{"counter":3,"stateVersion":1,"timestamp":5}"#);
    out.extend_from_slice(&2u32.to_be_bytes());
    push_part(&mut out, r#"t 4 8 6 SINGLE_TAG {"+message.type":"FIFO"}"#);
    push_part(&mut out, "u 1 1 2 MULTI_TAG ");
    push_part(&mut out, r#"["filter"]"#);
    out.extend_from_slice(&1u32.to_be_bytes());
    push_part(&mut out, "{}");
    out
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_registration_is_read_within_its_bound() {
    let inflated = inflated_registration();
    let body =
        RegisterBrokerBody::from_compressed(&deflated(&inflated), 513, inflated.len()).unwrap();
    let wrapper = &body.topic_config_serialize_wrapper;
    assert_eq!(
        wrapper.data_version,
        DataVersion {
            counter: 3,
            state_version: 1,
            timestamp: 5
        }
    );
    assert_eq!(
        (
            wrapper.topic_config_table["t"].read_queue_nums,
            wrapper.topic_config_table["t"].write_queue_nums
        ),
        (4, 8)
    );
    assert_eq!(
        wrapper.topic_config_table["t"].attributes["+message.type"],
        "FIFO"
    );
    assert_eq!(
        wrapper.topic_config_table["u"].topic_filter_type,
        TopicFilterType::MultiTag
    );
    assert_eq!(body.filter_server_list, ["filter"]);

    let bomb = deflated(&vec![0; 1 << 20]);
    assert!(matches!(
        RegisterBrokerBody::from_compressed(&bomb, 513, 1000),
        Err(BodyError::Compressed(_))
    ));
    assert!(
        RegisterBrokerBody::from_compressed(&deflated(&inflated), 513, inflated.len() - 1).is_err()
    );
    for cut in 0..inflated.len() {
        assert!(RegisterBrokerBody::from_inflated(&inflated[..cut], 513).is_err());
    }
}

proptest! {
    #[test]
    fn damaged_registrations_never_panic(at: prop::sample::Index, byte: u8, bytes in vec(any::<u8>(), 0..80)) {
        let mut inflated = inflated_registration();
        let at = at.index(inflated.len());
        inflated[at] = byte;
        check::register_body(&inflated);
        check::register_body(&deflated(&inflated));
        check::register_body(&bytes);
    }

    #[test]
    fn damaged_bodies_never_panic(which in 0..SAMPLES.len(), at: prop::sample::Index, byte: u8) {
        let mut json = SAMPLES[which].as_bytes().to_vec();
        check::bodies(&json);
        let at = at.index(json.len());
        json[at] = byte;
        check::fastjson(&json);
        check::bodies(&json);
        for one in [check::heartbeat, check::locks, check::acks, check::offsets, check::configs] {
            one(&json);
        }
        json.truncate(at);
        check::bodies(&json);
    }
}

const SAMPLES: &[&str] = &[
    r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:{"lastUpdateTimestamp":1,"maxOffset":2,"minOffset":0}},"topicPutTps":0.1}"#,
    r#"{"offsetTable":{"t@g":{0:100,1:7}},"dataVersion":{"counter":1,"timestamp":2}}"#,
    r#"{"correctionOffsets":{0:5},"offsetTable":{1:100}}"#,
    r#"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"a:1"},"brokerName":"b","cluster":"c"}},"clusterAddrTable":{"c":["b"]}}"#,
    r#"{"clientID":"c","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[{"groupName":"g","subscriptionDataSet":[{"codeSet":[1]}]}]}"#,
    r#"{"subscriptionGroupTable":{"g":{"groupName":"g","groupRetryPolicy":{"customizedRetryPolicy":{"next":[1,2]}}}}}"#,
    r#"{"data":{"g":[{"remoteIP":"1"}]},"table":{"k":"v"},"topicList":["t"],"statsMinute":{"sum":1,"tps":0.3,"avgpt":1e-3}}"#,
    r#"{"messageQueueAssignments":[{"messageQueue":{"queueId":-1},"mode":"POP"}],"acks":[{"b":"BQE="}],"lockOKMQSet":[{}]}"#,
];
