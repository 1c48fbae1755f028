//! Pops that find nothing, and requests that take nothing.

use corelane_wire::code::{request, response};

use super::{Group, INVISIBLE_MS, popped};

#[test]
fn a_waiting_pop_is_answered_by_a_message_or_by_time() {
    let mut group = Group::new(4);
    let waits = [("pollTime", "15000")];
    let first = group.ask_pop(&waits);
    let second = group.ask_pop(&waits);
    group.host.advance(5_000);
    assert_eq!(group.host.answer(group.client, first), None);
    let info = [("consumerGroup", "g"), ("topic", "t"), ("queueId", "-1")];
    assert_eq!(
        group
            .host
            .request(group.client, request::POLLING_INFO, &info, b"")
            .fields["pollingNum"],
        "2"
    );
    group.send(3, "a");
    let reply = group.host.answer(group.client, first).unwrap();
    assert_eq!((reply.code, popped(&reply).len()), (response::SUCCESS, 1));
    assert_eq!(group.host.answer(group.client, second), None);
    group.host.advance(10_000);
    let reply = group.host.answer(group.client, second).unwrap();
    assert_eq!(
        (reply.code, reply.fields["msgOffsetInfo"].as_str()),
        (response::POLLING_TIMEOUT, "")
    );
    // What comes again wakes as well as what is new.
    let third = group.ask_pop(&waits);
    group.host.advance(INVISIBLE_MS);
    assert_eq!(
        popped(&group.host.answer(group.client, third).unwrap())[0].reconsume_times,
        1
    );
}

#[test]
fn a_flood_wakes_as_many_as_it_has_work_for() {
    let mut group = Group::new(1);
    let waiting: Vec<i32> = (0..3)
        .map(|_| group.ask_pop(&[("pollTime", "15000")]))
        .collect();
    for body in 0..40 {
        group
            .host
            .ask_send(group.client, "t", 0, &body.to_string(), &[]);
    }
    group.host.run();
    let answers: Vec<_> = waiting
        .iter()
        .filter_map(|opaque| group.host.answer(group.client, *opaque))
        .collect();
    assert_eq!(
        answers
            .iter()
            .map(|reply| popped(reply).len())
            .sum::<usize>(),
        40
    );
}

#[test]
fn peeks_and_notifications_take_nothing() {
    let mut group = Group::new(2);
    let fields = [
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "-1"),
        ("maxMsgNums", "8"),
    ];
    assert_eq!(
        group
            .host
            .request(group.client, request::PEEK_MESSAGE, &fields, b"")
            .code,
        response::PULL_NOT_FOUND
    );
    let born = group.host.now.wall_ms.to_string();
    let notify = [
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "-1"),
        ("pollTime", "9000"),
        ("bornTime", &born),
    ];
    let waiting = group
        .host
        .ask(group.client, request::NOTIFICATION, &notify, b"");
    group.host.advance(100);
    assert_eq!(group.host.answer(group.client, waiting), None);
    group.send(1, "a");
    assert_eq!(
        group.host.answer(group.client, waiting).unwrap().fields["hasMsg"],
        "true"
    );
    let peeked = group
        .host
        .request(group.client, request::PEEK_MESSAGE, &fields, b"");
    assert_eq!((peeked.code, popped(&peeked).len()), (response::SUCCESS, 1));
    assert_eq!(group.pop(&[]).len(), 1);
    let waiting = group
        .host
        .ask(group.client, request::NOTIFICATION, &notify, b"");
    group.host.advance(9_000);
    assert_eq!(
        group.host.answer(group.client, waiting).unwrap().fields["hasMsg"],
        "false"
    );
}

#[test]
fn a_queue_with_too_much_out_gives_nothing_until_some_is_done() {
    let mut group = Group::new(1);
    let most = group.host.engine.settings.max_queue_pop_checkpoints;
    for body in 0..=most {
        group.send(0, &body.to_string());
    }
    let mut last = None;
    for _ in 0..most {
        last = group.pop(&[("maxMsgNums", "1")]).pop();
    }
    let last = last.unwrap();
    let waiting = group.ask_pop(&[("pollTime", "5000")]);
    group.host.run();
    assert_eq!(group.host.answer(group.client, waiting), None);
    group.ack(&last);
    assert_eq!(
        popped(&group.host.answer(group.client, waiting).unwrap()).len(),
        1
    );
}
