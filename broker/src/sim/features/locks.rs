//! Locks of queues: one client's at a time, for 60 s from its last renewal, and nobody's after a crash.

use std::collections::HashMap;

use corelane_wire::body::{LockBatchRequestBody, LockBatchResponseBody, MessageQueue};
use corelane_wire::code::request;

use super::{Feature, QUEUES, Received, World, retries};

const LOCK_MS: i64 = 60_000;

#[derive(Default)]
pub struct Locks {
    /// Who has a queue, and since when.
    held: HashMap<i32, (&'static str, i64)>,
    /// The queues that a lock must give.
    asked: HashMap<i32, Vec<i32>>,
}

impl Feature for Locks {
    fn act(&mut self, world: &mut World) {
        let client_id = ["one", "two", "three"][world.random.below(3)];
        // One queue more than there is: that one is nobody's.
        let wanted: Vec<i32> = (0..=QUEUES).filter(|_| world.random.one_in(2)).collect();
        let queue = |queue_id: &i32| MessageQueue {
            topic: retries::TOPICS[0].to_owned(),
            broker_name: "broker-a".to_owned(),
            queue_id: *queue_id,
        };
        let body = LockBatchRequestBody {
            consumer_group: retries::GROUPS[0].to_owned(),
            client_id: client_id.to_owned(),
            only_this_broker: false,
            mq_set: wanted.iter().map(queue).collect(),
        };
        let now_ms = world.shard.now().mono_ms;
        if world.random.one_in(4) {
            world.ask(request::UNLOCK_BATCH_MQ, &[], &body.to_json());
            self.held
                .retain(|queue_id, (holder, _)| *holder != client_id || !wanted.contains(queue_id));
            return;
        }
        let opaque = world.ask(request::LOCK_BATCH_MQ, &[], &body.to_json());
        let mut given = Vec::new();
        for queue_id in wanted.into_iter().filter(|queue_id| *queue_id < QUEUES) {
            let (holder, since_ms) = self.held.entry(queue_id).or_insert((client_id, now_ms));
            if *holder == client_id || now_ms - *since_ms > LOCK_MS {
                (*holder, *since_ms) = (client_id, now_ms);
                given.push(queue_id);
            }
        }
        self.asked.insert(opaque, given);
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        let Some(mut expected) = self.asked.remove(&frame.opaque) else {
            return false;
        };
        assert!(world.done(frame));
        let body = LockBatchResponseBody::from_json(&frame.body).unwrap();
        let mut given: Vec<i32> = body
            .lock_ok_mq_set
            .iter()
            .map(|queue| queue.queue_id)
            .collect();
        given.sort_unstable();
        expected.sort_unstable();
        assert_eq!(given, expected, "seed {}", world.seed);
        true
    }

    fn crashed(&mut self, _: &World) {
        self.held.clear();
        self.asked.clear();
    }

    fn check(&mut self, _: &mut World) {}
}
