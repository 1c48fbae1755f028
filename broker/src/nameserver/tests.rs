#![allow(clippy::unwrap_used)]

use corelane_wire::body::{
    ClusterInfo, DataVersion, GetBrokerMemberGroupResponseBody, KvTable, QueueData,
    RegisterBrokerBody, TopicConfig, TopicList, TopicRouteData,
};
use corelane_wire::code::response;
use corelane_wire::fastjson;
use corelane_wire::frame::{Serialization, split};
use corelane_wire::header::broker::*;
use corelane_wire::header::nameserver::*;
use proptest::prelude::*;

use super::*;

/// What Apache's broker 5.5.0 sent: its first registration, one after a topic was created, all topics again, farewell.
const REGISTER_FIRST: &[u8] = include_bytes!("testdata/register-first.frame");
const REGISTER_ONE_TOPIC: &[u8] = include_bytes!("testdata/register-one-topic.frame");
const REGISTER_AGAIN: &[u8] = include_bytes!("testdata/register-again.frame");
const UNREGISTER: &[u8] = include_bytes!("testdata/unregister.frame");
/// What Apache's NameServer answered afterwards.
const CLUSTER_INFO: &[u8] = include_bytes!("testdata/cluster-info.json");
const ROUTE: &[u8] = include_bytes!("testdata/route.json");

fn limits() -> Limits {
    Limits {
        brokers: 10,
        topic_entries: 1_000,
        kv_entries: 10,
    }
}

/// A reply, kept: code, remark, body, and the whole frame for its fields.
struct Reply {
    code: i32,
    remark: String,
    body: Vec<u8>,
    frame: Vec<u8>,
}

impl Reply {
    fn header<H: for<'a> ExtHeader<'a>>(&self) -> H {
        H::decode(&Frame::parse(&self.frame).unwrap().ext).unwrap()
    }

    fn field(&self, name: &str) -> Option<String> {
        Frame::parse(&self.frame)
            .unwrap()
            .ext
            .get(name)
            .map(|value| value.to_string())
    }
}

fn tell(server: &mut NameServer, now_ms: u64, connection: u64, request: &[u8]) -> Option<Reply> {
    let mut out = b"before".to_vec();
    server.handle(
        now_ms,
        connection,
        &Frame::parse(request).unwrap(),
        &mut out,
    );
    let out = out.strip_prefix(b"before").unwrap().to_vec();
    if out.is_empty() {
        return None;
    }
    assert_eq!(
        split(&out, 1 << 24).unwrap(),
        Some(out.len()),
        "one whole frame"
    );
    let frame = Frame::parse(&out).unwrap();
    assert!(frame.is_response());
    assert_eq!(frame.opaque, Frame::parse(request).unwrap().opaque);
    Some(Reply {
        code: frame.code,
        remark: frame
            .remark
            .map(|remark| remark.to_string())
            .unwrap_or_default(),
        body: frame.body.to_vec(),
        frame: out.clone(),
    })
}

fn request(
    code: i32,
    version: i32,
    flag: i32,
    fields: impl FnOnce(&mut FrameWriter<'_>),
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let head = Head {
        serialization: Serialization::Json,
        code,
        language: language::JAVA,
        version,
        opaque: 7,
        flag,
        remark: None,
    };
    let mut writer = FrameWriter::new(&mut out, &head);
    fields(&mut writer);
    writer.finish_with(body);
    out
}

fn ask<'a>(server: &mut NameServer, code: i32, header: &impl ExtHeader<'a>, body: &[u8]) -> Reply {
    tell(
        server,
        0,
        1,
        &request(code, VERSION, 0, |writer| header.encode(writer), body),
    )
    .unwrap()
}

fn ask_plain(server: &mut NameServer, code: i32, body: &[u8]) -> Reply {
    tell(server, 0, 1, &request(code, VERSION, 0, |_| {}, body)).unwrap()
}

fn route(server: &mut NameServer, topic: &str) -> Reply {
    ask(
        server,
        105,
        &GetRouteinfoByTopicRequest {
            topic: topic.into(),
            accept_standard_json_only: None,
        },
        &[],
    )
}

fn topics(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.code, 0, "{}", reply.remark);
    TopicList::from_json(&reply.body).unwrap().topic_list
}

fn body(version: i64, topics: &[(&str, i32)]) -> Vec<u8> {
    let mut body = RegisterBrokerBody::default();
    body.topic_config_serialize_wrapper.data_version = DataVersion {
        counter: version,
        ..DataVersion::default()
    };
    for (topic, queues) in topics {
        let config = TopicConfig {
            topic_name: (*topic).to_owned(),
            read_queue_nums: *queues,
            write_queue_nums: *queues,
            ..TopicConfig::default()
        };
        body.topic_config_serialize_wrapper
            .topic_config_table
            .insert((*topic).to_owned(), config);
    }
    body.to_json()
}

fn registration(
    name: &'static str,
    address: &'static str,
    id: i64,
) -> RegisterBrokerRequest<'static> {
    RegisterBrokerRequest {
        broker_name: name.into(),
        broker_addr: address.into(),
        cluster_name: "c".into(),
        ha_server_addr: "ha:1".into(),
        broker_id: id,
        ..RegisterBrokerRequest::default()
    }
}

fn register(
    server: &mut NameServer,
    now_ms: u64,
    connection: u64,
    header: &RegisterBrokerRequest<'_>,
    body: &[u8],
) -> Reply {
    tell(
        server,
        now_ms,
        connection,
        &request(103, VERSION, 0, |writer| header.encode(writer), body),
    )
    .unwrap()
}

#[test]
fn apaches_broker_comes_and_goes() {
    let mut server = NameServer::new(limits());
    let reply = tell(&mut server, 0, 5, REGISTER_FIRST).unwrap();
    assert_eq!((reply.code, reply.body.len()), (0, 0), "{}", reply.remark);
    assert_eq!(ask_plain(&mut server, 106, &[]).body, CLUSTER_INFO);
    let first = topics(&ask_plain(&mut server, 206, &[]));
    assert!(
        first.iter().any(|topic| topic == "TBW102")
            && first.iter().any(|topic| topic == "DefaultCluster")
    );
    assert_eq!(
        route(&mut server, "Topic-x").code,
        response::TOPIC_NOT_EXIST
    );

    assert_eq!(tell(&mut server, 0, 5, REGISTER_ONE_TOPIC).unwrap().code, 0);
    assert_eq!(route(&mut server, "Topic-x").body, ROUTE);
    assert_eq!(tell(&mut server, 0, 5, REGISTER_AGAIN).unwrap().code, 0);
    assert_eq!(
        topics(&ask_plain(&mut server, 206, &[])).len(),
        first.len() + 1
    );

    let reply = tell(&mut server, 0, 5, UNREGISTER).unwrap();
    assert_eq!((reply.code, reply.body.len()), (0, 0));
    assert_eq!(
        ask_plain(&mut server, 106, &[]).body,
        br#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#
    );
    assert!(topics(&ask_plain(&mut server, 206, &[])).is_empty());
}

#[test]
fn a_broken_registration_is_refused() {
    let mut server = NameServer::new(limits());
    let mut damaged = REGISTER_FIRST.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let reply = tell(&mut server, 0, 5, &damaged).unwrap();
    assert_eq!((reply.code, reply.remark.as_str()), (1, "crc32 not match"));
    let header = registration("a", "h:1", 0);
    assert_eq!(
        register(&mut server, 0, 1, &header, b"{\"topicConfig").code,
        1
    );
    let compressed = RegisterBrokerRequest {
        compressed: true,
        ..header
    };
    assert_eq!(register(&mut server, 0, 1, &compressed, b"no zlib").code, 1);
    let reply = tell(&mut server, 0, 1, &request(103, VERSION, 0, |_| {}, &[])).unwrap();
    assert_eq!(reply.code, 1);
    assert!(reply.remark.contains("missing"), "{}", reply.remark);
    let info = ClusterInfo::from_json(&ask_plain(&mut server, 106, &[]).body).unwrap();
    assert!(info.broker_addr_table.is_empty());
}

#[test]
fn routes_have_the_keys_that_a_client_expects() {
    let mut server = NameServer::new(limits());
    register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 4)]),
    );
    register(
        &mut server,
        0,
        1,
        &registration("b", "h:2", 0),
        &body(1, &[("T", 2)]),
    );
    let text = |version, standard: Option<bool>, server: &mut NameServer| {
        let header = GetRouteinfoByTopicRequest {
            topic: "T".into(),
            accept_standard_json_only: standard,
        };
        let request = request(105, version, 0, |writer| header.encode(writer), &[]);
        String::from_utf8(tell(server, 0, 1, &request).unwrap().body).unwrap()
    };
    assert!(text(400, None, &mut server).contains(r#"{0:"h:1"}"#));
    assert!(text(317, Some(true), &mut server).contains(r#"{"0":"h:1"}"#));
    assert!(text(401, None, &mut server).contains(r#"{"0":"h:2"}"#));
    let route = TopicRouteData::from_json(&route(&mut server, "T").body).unwrap();
    let queues: Vec<_> = route
        .queue_datas
        .iter()
        .map(|data| (data.broker_name.as_str(), data.write_queue_nums))
        .collect();
    assert_eq!(queues, [("a", 4), ("b", 2)]);
    assert_eq!(route.broker_datas.len(), 2);
    assert_eq!(route.order_topic_conf, None);
}

#[test]
fn order_config_is_told_to_brokers_and_where_wanted_to_clients() {
    let mut server = NameServer::new(limits());
    let header = PutKvConfigRequest {
        namespace: "ORDER_TOPIC_CONFIG".into(),
        key: "T".into(),
        value: "a:4".into(),
    };
    assert_eq!(ask(&mut server, 100, &header, &[]).code, 0);
    let reply = register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 4)]),
    );
    assert_eq!(KvTable::from_json(&reply.body).unwrap().table["T"], "a:4");
    assert_eq!(
        ask_plain(&mut server, 318, b"orderMessageEnable=true").code,
        0
    );
    let route = TopicRouteData::from_json(&route(&mut server, "T").body).unwrap();
    assert_eq!(route.order_topic_conf.as_deref(), Some("a:4"));
    ask_plain(&mut server, 318, b"returnOrderTopicConfigToBroker=false");
    assert!(
        register(
            &mut server,
            0,
            1,
            &registration("a", "h:1", 0),
            &body(1, &[])
        )
        .body
        .is_empty()
    );
}

#[test]
fn a_slave_is_told_its_master() {
    let mut server = NameServer::new(limits());
    let master = register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 4)]),
    );
    assert_eq!(master.field("masterAddr"), None);
    let slave = register(
        &mut server,
        0,
        2,
        &registration("a", "h:2", 1),
        &body(2, &[("U", 4)]),
    );
    assert_eq!(slave.field("masterAddr").as_deref(), Some("h:1"));
    assert_eq!(slave.field("haServerAddr").as_deref(), Some("ha:1"));
    assert_eq!(
        route(&mut server, "U").code,
        response::TOPIC_NOT_EXIST,
        "topics are the master's"
    );
    let header = GetBrokerMemberGroupRequest {
        cluster_name: "c".into(),
        broker_name: "a".into(),
    };
    let group =
        GetBrokerMemberGroupResponseBody::from_json(&ask(&mut server, 901, &header, &[]).body)
            .unwrap();
    assert_eq!(group.broker_member_group.broker_addrs.len(), 2);
}

#[test]
fn a_wiped_permission_stays_until_the_broker_has_news() {
    let mut server = NameServer::new(limits());
    let header = registration("a", "h:1", 0);
    let perm = |server: &mut NameServer| {
        TopicRouteData::from_json(&route(server, "T").body)
            .unwrap()
            .queue_datas[0]
            .perm
    };
    register(&mut server, 0, 1, &header, &body(1, &[("T", 4), ("U", 1)]));
    let wiped = ask(
        &mut server,
        205,
        &WipeWritePermOfBrokerRequest {
            broker_name: "a".into(),
        },
        &[],
    );
    assert_eq!(
        wiped
            .header::<WipeWritePermOfBrokerResponse>()
            .wipe_topic_count,
        2
    );
    register(&mut server, 0, 1, &header, &body(1, &[("T", 4), ("U", 1)]));
    assert_eq!(perm(&mut server), 4);
    let added = ask(
        &mut server,
        327,
        &AddWritePermOfBrokerRequest {
            broker_name: "a".into(),
        },
        &[],
    );
    assert_eq!(
        added
            .header::<AddWritePermOfBrokerResponse>()
            .add_topic_count,
        2
    );
    assert_eq!(perm(&mut server), 6);
    ask(
        &mut server,
        205,
        &WipeWritePermOfBrokerRequest {
            broker_name: "a".into(),
        },
        &[],
    );
    register(&mut server, 0, 1, &header, &body(2, &[("T", 4)]));
    assert_eq!(perm(&mut server), 6);
}

#[test]
fn a_deleted_topic_is_gone_where_it_was_deleted() {
    let mut server = NameServer::new(limits());
    register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 4), ("U", 4)]),
    );
    let other = RegisterBrokerRequest {
        cluster_name: "d".into(),
        ..registration("b", "h:2", 0)
    };
    register(&mut server, 0, 1, &other, &body(1, &[("T", 4), ("V", 4)]));
    let delete = |cluster: Option<&'static str>| DeleteTopicInNamesrvRequest {
        topic: "T".into(),
        cluster_name: cluster.map(Into::into),
    };
    assert_eq!(ask(&mut server, 216, &delete(Some("d")), &[]).code, 0);
    let left = TopicRouteData::from_json(&route(&mut server, "T").body).unwrap();
    assert_eq!(
        (
            left.queue_datas.len(),
            left.queue_datas[0].broker_name.as_str()
        ),
        (1, "a")
    );
    let of_cluster = GetTopicsByClusterRequest {
        cluster: "d".into(),
    };
    assert_eq!(topics(&ask(&mut server, 224, &of_cluster, &[])), ["V"]);
    ask(&mut server, 216, &delete(None), &[]);
    assert_eq!(route(&mut server, "T").code, response::TOPIC_NOT_EXIST);
    assert_eq!(
        topics(&ask(
            &mut server,
            224,
            &GetTopicsByClusterRequest {
                cluster: "none".into()
            },
            &[]
        )),
        [""; 0]
    );
}

#[test]
fn lists_of_names() {
    let mut server = NameServer::new(limits());
    register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 4)]),
    );
    let reply = ask_plain(&mut server, 304, &[]);
    assert_eq!(topics(&reply), ["c", "a"]);
    assert_eq!(
        TopicList::from_json(&reply.body)
            .unwrap()
            .broker_addr
            .as_deref(),
        Some("h:1")
    );
    let unit = TopicRouteData {
        queue_datas: vec![
            QueueData {
                broker_name: "a".to_owned(),
                topic_sys_flag: 2,
                perm: 6,
                ..QueueData::default()
            },
            QueueData {
                broker_name: "nobody".to_owned(),
                ..QueueData::default()
            },
        ],
        ..TopicRouteData::default()
    };
    let header = RegisterTopicInNamesrvRequest {
        topic: "Unit".into(),
    };
    assert_eq!(
        ask(
            &mut server,
            217,
            &header,
            &unit.to_json(fastjson::Keys::Quoted)
        )
        .code,
        0
    );
    let registered = TopicRouteData::from_json(&route(&mut server, "Unit").body).unwrap();
    assert_eq!(
        registered.queue_datas.len(),
        1,
        "queues of an unknown broker are not taken"
    );
    assert!(topics(&ask_plain(&mut server, 311, &[])).is_empty());
    assert_eq!(topics(&ask_plain(&mut server, 312, &[])), ["Unit"]);
    assert_eq!(topics(&ask_plain(&mut server, 313, &[])), ["Unit"]);
    ask_plain(&mut server, 318, b"enableAllTopicList=false");
    assert_eq!(ask_plain(&mut server, 206, &[]).code, 1);
}

#[test]
fn the_version_says_whether_to_register() {
    let mut server = NameServer::new(limits());
    let header = QueryDataVersionRequest {
        broker_name: "a".into(),
        broker_addr: "h:1".into(),
        cluster_name: "c".into(),
        broker_id: 0,
    };
    let version = |counter| {
        DataVersion {
            counter,
            ..DataVersion::default()
        }
        .to_json()
    };
    let unknown = ask(&mut server, 322, &header, &version(1));
    assert!(unknown.header::<QueryDataVersionResponse>().changed && unknown.body.is_empty());
    register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 4)]),
    );
    let same = ask(&mut server, 322, &header, &version(1));
    assert!(!same.header::<QueryDataVersionResponse>().changed);
    assert_eq!(DataVersion::from_json(&same.body).unwrap().counter, 1);
    assert!(
        ask(&mut server, 322, &header, &version(2))
            .header::<QueryDataVersionResponse>()
            .changed
    );
}

#[test]
fn heartbeats_keep_a_broker_and_silence_ends_it() {
    let mut server = NameServer::new(limits());
    let header = RegisterBrokerRequest {
        heartbeat_timeout_millis: Some(1_000),
        ..registration("a", "h:1", 0)
    };
    register(&mut server, 0, 3, &header, &body(1, &[("T", 4)]));
    let heartbeat = BrokerHeartbeatRequest {
        cluster_name: "c".into(),
        broker_addr: "h:1".into(),
        broker_name: "a".into(),
        ..BrokerHeartbeatRequest::default()
    };
    let oneway = request(904, VERSION, 2, |writer| heartbeat.encode(writer), &[]);
    assert!(tell(&mut server, 900, 3, &oneway).is_none());
    let mut to_close = Vec::new();
    server.tick(1_900, &mut to_close);
    assert!(to_close.is_empty() && route(&mut server, "T").code == 0);
    server.tick(1_901, &mut to_close);
    assert_eq!(to_close, [3]);
    assert_eq!(route(&mut server, "T").code, response::TOPIC_NOT_EXIST);

    register(&mut server, 2_000, 4, &header, &body(1, &[("T", 4)]));
    server.connection_closed(3);
    assert_eq!(route(&mut server, "T").code, 0);
    server.connection_closed(4);
    assert_eq!(route(&mut server, "T").code, response::TOPIC_NOT_EXIST);
}

#[test]
fn kv_config_is_kept_and_given_to_the_host() {
    let mut server = NameServer::new(limits());
    let put = PutKvConfigRequest {
        namespace: "n".into(),
        key: "k".into(),
        value: "v".into(),
    };
    let get = GetKvConfigRequest {
        namespace: "n".into(),
        key: "k".into(),
    };
    assert_eq!(
        ask(&mut server, 101, &get, &[]).code,
        response::QUERY_NOT_FOUND
    );
    assert_eq!(server.take_kv_to_store(), None);
    assert_eq!(ask(&mut server, 100, &put, &[]).code, 0);
    let stored = server.take_kv_to_store().unwrap();
    assert_eq!(server.take_kv_to_store(), None);

    let mut server = NameServer::new(limits());
    server.restore_kv(&stored).unwrap();
    assert_eq!(
        ask(&mut server, 101, &get, &[]).field("value").as_deref(),
        Some("v")
    );
    let list = ask(
        &mut server,
        219,
        &GetKvlistByNamespaceRequest {
            namespace: "n".into(),
        },
        &[],
    );
    assert_eq!(KvTable::from_json(&list.body).unwrap().table.len(), 1);
    assert_eq!(
        ask(
            &mut server,
            102,
            &DeleteKvConfigRequest {
                namespace: "n".into(),
                key: "k".into()
            },
            &[]
        )
        .code,
        0
    );
    assert!(server.take_kv_to_store().is_some());
    let list = ask(
        &mut server,
        219,
        &GetKvlistByNamespaceRequest {
            namespace: "n".into(),
        },
        &[],
    );
    assert_eq!(list.code, response::QUERY_NOT_FOUND);
}

#[test]
fn settings_are_shown_and_guarded() {
    let mut server = NameServer::new(limits());
    assert_eq!(
        ask_plain(&mut server, 318, b"kvConfigPath=/x").code,
        response::NO_PERMISSION
    );
    let shown = String::from_utf8(ask_plain(&mut server, 319, &[]).body).unwrap();
    assert!(shown.contains("orderMessageEnable=false\n"), "{shown}");
}

#[test]
fn bounds_hold_and_unknown_codes_are_said() {
    let mut server = NameServer::new(Limits {
        brokers: 1,
        topic_entries: 2,
        kv_entries: 0,
    });
    let reply = register(
        &mut server,
        0,
        1,
        &registration("a", "h:1", 0),
        &body(1, &[("T", 1), ("U", 1), ("V", 1)]),
    );
    assert_eq!(reply.code, 1);
    assert_eq!(topics(&ask_plain(&mut server, 206, &[])).len(), 2);
    assert_eq!(
        register(
            &mut server,
            0,
            1,
            &registration("b", "h:2", 0),
            &body(1, &[])
        )
        .code,
        1
    );
    let put = PutKvConfigRequest {
        namespace: "n".into(),
        key: "k".into(),
        value: "v".into(),
    };
    assert_eq!(ask(&mut server, 100, &put, &[]).code, 1);
    let reply = ask_plain(&mut server, 10, &[]);
    assert_eq!(
        (reply.code, reply.remark.as_str()),
        (3, " request type 10 not supported")
    );
    let mut out = Vec::new();
    let answer = request(0, VERSION, 1, |_| {}, &[]);
    server.handle(0, 1, &Frame::parse(&answer).unwrap(), &mut out);
    assert!(out.is_empty(), "a response is not answered");
}

proptest! {
    #[test]
    fn any_request_has_one_answer(
        code in prop_oneof![100i32..107, Just(205), Just(206), 216i32..225, Just(304), 311i32..328, 900i32..906, any::<i32>()],
        fields in proptest::collection::vec(
            ("(topic|brokerName|brokerAddr|clusterName|brokerId|haServerAddr|namespace|key|value|cluster|compressed)", ".{0,12}"),
            0..8,
        ),
        body in prop_oneof![proptest::collection::vec(any::<u8>(), 0..60), Just(ROUTE.to_vec()), Just(b"{}".to_vec())],
    ) {
        let mut server = NameServer::new(limits());
        let request = request(code, VERSION, 0, |writer| fields.iter().for_each(|(name, value)| writer.field(name, value)), &body);
        prop_assert!(tell(&mut server, 0, 1, &request).is_some());
        server.connection_closed(1);
        server.tick(u64::MAX, &mut Vec::new());
        prop_assert!(topics(&ask_plain(&mut server, 206, &[])).is_empty(), "nothing outlives its broker");
    }
}
