//! A disk that takes its time, and a clock that goes back.

use super::fault_tests::{NoState, append, fill, open, options, read};
use super::shard::{SimShard, settings};
use super::{Faults, LogHost, SimDisk};
use crate::engine::Connection;
use crate::log::{AppendError, FlushMode, LogOptions};
use corelane_wire::FrameWriter;
use corelane_wire::body::ResetOffsetBody;
use corelane_wire::code::{request, response};

fn slow(least_ms: i64, most_ms: i64) -> Faults {
    Faults {
        delay_ms: Some((least_ms, most_ms)),
        ..Faults::default()
    }
}

#[test]
fn nothing_is_answered_before_a_slow_disk_has_it() {
    let mut shard = SimShard::new(1, settings(), options());
    let client = shard.connect();
    // The topic is made first.
    shard.send(client, "t", 0, "first", &[]);
    shard.settle();
    assert_eq!(shard.receive(client).len(), 1);
    shard.disk.set_faults(slow(500, 500));
    let asked: Vec<i32> = (0..20)
        .map(|number| shard.send(client, "t", 0, &number.to_string(), &[]))
        .collect();
    shard.advance(400);
    assert!(shard.receive(client).is_empty());
    assert_eq!(shard.stored("t", 0).len(), 1, "not visible either");
    // Opening the file and writing take 500 ms each.
    shard.advance(2_000);
    let answers = shard.receive(client);
    assert!(
        answers
            .iter()
            .all(|answer| answer.code == response::SUCCESS)
    );
    let answered: Vec<i32> = answers.iter().map(|answer| answer.opaque).collect();
    assert_eq!(answered, asked, "in the order of the log");
}

/// A commit of what is committed already is no promise either before the first one is on the disk.
#[test]
fn a_commit_that_changes_nothing_is_answered_when_it_is_durable() {
    let mut shard = SimShard::new(5, settings(), options());
    let client = shard.connect();
    shard.send(client, "t", 0, "first", &[]);
    shard.settle();
    shard.receive(client);
    shard.disk.set_faults(slow(500, 500));
    let commit = |shard: &mut SimShard| {
        let fields = |fields: &mut FrameWriter<'_>| {
            fields.field("consumerGroup", "DEFAULT_CONSUMER");
            fields.field("topic", "t");
            fields.int_field("queueId", 0);
            fields.int_field("commitOffset", 1);
        };
        shard.request(client, request::UPDATE_CONSUMER_OFFSET, fields, &[])
    };
    let asked = [commit(&mut shard), commit(&mut shard)];
    shard.advance(400);
    assert!(shard.receive(client).is_empty());
    shard.advance(2_000);
    let answers = shard.receive(client);
    let answered: Vec<(i32, i32)> = answers
        .iter()
        .map(|answer| (answer.opaque, answer.code))
        .collect();
    assert_eq!(answered, asked.map(|opaque| (opaque, response::SUCCESS)));
    commit(&mut shard);
    assert_eq!(
        shard.receive(client).len(),
        1,
        "there is nothing to wait for"
    );
}

#[test]
fn writes_that_finish_in_any_order_are_answered_in_the_order_of_the_log() {
    for seed in 0..20 {
        let mut shard = SimShard::new(seed, settings(), options());
        let client = shard.connect();
        shard.send(client, "t", 0, "first", &[]);
        shard.settle();
        shard.receive(client);
        shard.disk.set_faults(slow(1, 400));
        let mut asked = Vec::new();
        let mut answered = Vec::new();
        for number in 0..30 {
            asked.push(shard.send(client, "t", 0, &"x".repeat(number * 50), &[]));
            shard.advance(30);
            answered.extend(shard.receive(client));
        }
        shard.advance(5_000);
        answered.extend(shard.receive(client));
        let answered: Vec<i32> = answered.iter().map(|answer| answer.opaque).collect();
        assert_eq!(answered, asked, "seed {seed}");
    }
}

#[test]
fn a_slow_disk_makes_senders_wait_and_then_refuses_them() {
    let disk = SimDisk::new(2);
    let mut host = open(&disk).unwrap();
    fill(&mut host, 1);
    disk.set_faults(slow(1_000, 1_000));
    let mut taken = 0;
    let error = loop {
        match append(&mut host, &[1; 3000]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        host.settle(0).unwrap();
        assert!(taken < 1_000);
    };
    assert_eq!(error, AppendError::Busy);
    assert!(host.log.sizes().unflushed_bytes <= options().max_unflushed_bytes);
    let mut now_ms = 0;
    while host.log.durable() < host.log.max_position() {
        now_ms += 500;
        assert!(now_ms < 100_000);
        disk.set_now(now_ms);
        host.settle(now_ms).unwrap();
    }
    append(&mut host, &[1; 3000]).unwrap();
}

#[test]
fn with_asynchronous_flush_a_write_is_issued_in_time_also_when_the_clock_goes_back() {
    let disk = SimDisk::new(3);
    let flush = FlushMode::Async { interval_ms: 200 };
    let options = LogOptions { flush, ..options() };
    let (mut host, _) = LogHost::open(&disk, options, &mut NoState)
        .unwrap()
        .unwrap();
    host.settle(1_000_000).unwrap();
    append(&mut host, &[7; 100]).unwrap();
    host.settle(1_000_000).unwrap();
    assert_eq!(host.log.flush_deadline_ms(), Some(1_000_200));
    // An hour back: the wait begins anew at the most.
    let back_ms = 1_000_000 - 3_600_000;
    host.settle(back_ms).unwrap();
    assert!(host.log.durable() < host.log.max_position());
    assert_eq!(host.log.flush_deadline_ms(), Some(back_ms + 200));
    host.settle(back_ms + 200).unwrap();
    assert_eq!(host.log.durable(), host.log.max_position());
}

#[test]
fn a_clock_that_goes_back_retires_nothing_and_stops_nothing() {
    let disk = SimDisk::new(4);
    let options = LogOptions {
        retention_ms: 10_000,
        snapshot_bytes: u64::MAX,
        ..options()
    };
    let (mut host, _) = LogHost::open(&disk, options, &mut NoState)
        .unwrap()
        .unwrap();
    let go = |host: &mut LogHost, now_ms: i64| {
        // Records are stored at 7 ms.
        for _ in 0..60 {
            while append(host, &[7; 3000]).is_err() {
                host.settle(now_ms).unwrap();
            }
            host.settle(now_ms).unwrap();
        }
        for _ in 0..5 {
            if host.log.snapshot_due() {
                host.log.snapshot(Vec::new());
            }
            host.settle(now_ms).unwrap();
        }
        host.log.min_position()
    };
    assert_eq!(go(&mut host, 10_000), 0, "nothing is old enough");
    assert_eq!(
        go(&mut host, -100_000),
        0,
        "the clock is before all records"
    );
    let min = go(&mut host, 20_000);
    assert!(min > 0, "the clock is right again, and what is old goes");
    assert!(go(&mut host, 5_000) >= min, "what is gone stays gone");
    let queue = host.log.find_queue("t", 0).unwrap();
    assert!(host.log.min_offset(queue) > 0);
    assert_eq!(host.log.max_offset(queue), 240);
    let newest = host.log.max_position();
    assert!(read(&mut host, newest - 4096 + 64).is_ok());
}

/// A shard with a topic `t` of four queues and a message a second in one of them, whose log keeps one page in memory.
fn with_a_small_cache() -> (SimShard, Connection) {
    let options = LogOptions {
        first_segment_bytes: 65_536,
        segment_bytes: 65_536,
        buffer_bytes: 16_384,
        tail_cache_bytes: 0,
        read_cache_bytes: 0,
        max_group_bytes: 16_384,
        max_record_bytes: 20_000,
        max_unflushed_bytes: 65_536,
        ..LogOptions::default()
    };
    let mut shard = SimShard::new(3, settings(), options);
    let client = shard.connect();
    let body = ".".repeat(4_000);
    for number in 0..100 {
        shard.send(client, "t", number % 4, &body, &[]);
        shard.advance(1_000);
    }
    shard.receive(client);
    (shard, client)
}

/// Resets a group to the time between the 50th and the 51st message; gives the number of the request.
fn ask_reset(shard: &mut SimShard, client: Connection) -> i32 {
    let fields = |fields: &mut FrameWriter<'_>| {
        fields.field("group", "DEFAULT_CONSUMER");
        fields.field("topic", "t");
        fields.int_field("timestamp", 1_700_000_050_000);
        fields.field("isForce", "true");
    };
    shard.request(client, request::INVOKE_BROKER_TO_RESET_OFFSET, fields, &[])
}

/// The offsets that a reset has set, in ascending order.
fn reset_to(shard: &mut SimShard, client: Connection, asked: i32) -> Vec<i64> {
    let received = shard.receive(client);
    let answer = received.iter().find(|answer| answer.opaque == asked);
    let body = ResetOffsetBody::from_json(&answer.unwrap().body).unwrap();
    let mut offsets: Vec<i64> = body.offset_table.into_values().collect();
    offsets.sort_unstable();
    offsets
}

/// The committed offset of queue 0, as it is now.
fn committed(shard: &mut SimShard, client: Connection) -> i64 {
    let fields = |fields: &mut FrameWriter<'_>| {
        fields.field("consumerGroup", "DEFAULT_CONSUMER");
        fields.field("topic", "t");
        fields.int_field("queueId", 0);
    };
    let asked = shard.request(client, request::QUERY_CONSUMER_OFFSET, fields, &[]);
    let received = shard.receive(client);
    let answer = received.iter().find(|answer| answer.opaque == asked);
    let offset = answer.unwrap().fields.get("offset");
    offset.map_or(0, |offset| offset.parse().unwrap())
}

/// A reset looks into the index of every queue. It ends also where the log keeps one page of it in memory.
#[test]
fn a_reset_of_many_queues_ends_with_a_small_cache() {
    let (mut shard, client) = with_a_small_cache();
    let asked = ask_reset(&mut shard, client);
    shard.settle();
    assert_eq!(reset_to(&mut shard, client, asked), [12, 12, 13, 13]);
}

/// While a reset waits for the indexes of some queues, the topic is deleted and made again. What was found of the others
/// does not hold for the new queues, which have their numbers.
#[test]
fn a_reset_of_a_topic_that_is_made_again_is_one_of_the_new_queues() {
    for steps in 0.. {
        let (mut shard, client) = with_a_small_cache();
        let asked = ask_reset(&mut shard, client);
        for _ in 0..steps {
            shard.step();
        }
        if committed(&mut shard, client) > 0 {
            assert!(steps > 4, "a read for each queue at least");
            break;
        }
        let topic = |fields: &mut FrameWriter<'_>| fields.field("topic", "t");
        shard.request(client, request::DELETE_TOPIC_IN_BROKER, topic, &[]);
        for number in 0..40 {
            shard.send(client, "t", number % 4, "new", &[]);
        }
        shard.settle();
        assert_eq!(reset_to(&mut shard, client, asked), [0; 4], "{steps} steps");
    }
}
