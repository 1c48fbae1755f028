//! Request modes and assignments.

use corelane_wire::body::{
    MessageRequestMode, QueryAssignmentResponseBody, QueueData, TopicRouteData,
};
use corelane_wire::code::{request, response};

use super::Group;

#[test]
fn modes_survive_and_assignments_cover_the_cluster() {
    let mut group = Group::new(2);
    let mode = br#"{"topic":"t","consumerGroup":"g","mode":"POP","popShareQueueNum":0}"#;
    assert_eq!(
        group
            .host
            .request(group.client, request::SET_MESSAGE_REQUEST_MODE, &[], mode)
            .code,
        response::SUCCESS
    );
    let retry = br#"{"topic":"%RETRY%g","consumerGroup":"g","mode":"POP","popShareQueueNum":0}"#;
    assert_eq!(
        group
            .host
            .request(group.client, request::SET_MESSAGE_REQUEST_MODE, &[], retry)
            .code,
        response::NO_PERMISSION
    );
    group.crash();
    let all = group.host.request(
        group.client,
        request::GET_ALL_MESSAGE_REQUEST_MODE,
        &[],
        b"",
    );
    assert!(
        String::from_utf8(all.body)
            .unwrap()
            .contains("\"mode\":\"POP\"")
    );
    let beat = br#"{"clientID":"c1","consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
        "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}]}"#;
    assert_eq!(
        group
            .host
            .request(group.client, request::HEART_BEAT, &[], beat)
            .code,
        response::SUCCESS
    );
    let asks = br#"{"topic":"t","consumerGroup":"g","clientId":"c1","strategyName":"AVG","messageModel":"CLUSTERING"}"#;
    let opaque = group
        .host
        .ask(group.client, request::QUERY_ASSIGNMENT, &[], asks);
    let queues = |broker: &str| QueueData {
        broker_name: broker.into(),
        perm: 6,
        read_queue_nums: 2,
        write_queue_nums: 2,
        topic_sys_flag: 0,
    };
    let route = TopicRouteData {
        queue_datas: vec![queues("broker-b"), queues("broker-a")],
        ..TopicRouteData::default()
    };
    group.host.give_route(Some(&route));
    let reply = group.host.answer(group.client, opaque).unwrap();
    let assigned = QueryAssignmentResponseBody::from_json(&reply.body)
        .unwrap()
        .message_queue_assignments;
    let seen: Vec<_> = assigned
        .iter()
        .map(|one| {
            (
                one.message_queue.broker_name.as_str(),
                one.message_queue.queue_id,
            )
        })
        .collect();
    assert_eq!(seen, [("broker-a", -1), ("broker-b", -1)]);
    assert!(
        assigned
            .iter()
            .all(|one| one.mode == MessageRequestMode::Pop)
    );
    // Without any NameServer the broker answers for itself.
    group.host.advance(6_000);
    let opaque = group
        .host
        .ask(group.client, request::QUERY_ASSIGNMENT, &[], asks);
    group.host.advance(3_000);
    let reply = group.host.answer(group.client, opaque).unwrap();
    let assigned = QueryAssignmentResponseBody::from_json(&reply.body)
        .unwrap()
        .message_queue_assignments;
    assert_eq!(assigned.len(), 1);
}
