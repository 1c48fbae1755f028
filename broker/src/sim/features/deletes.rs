//! A topic that is deleted and made again: nothing of before comes afterwards, but what waits for its time, once.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::{request, response};
use corelane_wire::record::Record;

use super::handle::Handle;
use super::kept::Kept;
use super::{AskedPop, Feature, Received, World};

pub const TOPIC: &str = "doomed";
pub const GROUP: &str = "mourners";

struct Message {
    /// How often the topic was deleted before.
    epoch: u64,
    timer: bool,
    /// Places that it was popped from first.
    times: usize,
}

enum Asked {
    Send,
    Pop,
    Delete(u64),
    Other,
}

#[derive(Default)]
pub struct Deletes {
    messages: BTreeMap<String, Message>,
    handles: Vec<Handle>,
    epoch: u64,
    /// What was sent before this many deletions is gone.
    deleted: Kept<u64>,
    asked: HashMap<i32, Asked>,
}

impl Deletes {
    fn send(&mut self, world: &mut World, timer: bool) {
        let body = world.body("doomed");
        let delay_ms = (500 + world.random.below(20_000)).to_string();
        let pairs = [("TIMER_DELAY_MS", &*delay_ms), ("UNIQ_KEY", &body)];
        let opaque = world.send(TOPIC, &body, if timer { &pairs } else { &pairs[1..] });
        let message = Message {
            epoch: self.epoch,
            timer,
            times: 0,
        };
        self.messages.insert(body.clone(), message);
        self.asked.insert(opaque, Asked::Send);
    }

    fn pop(&mut self, world: &mut World) {
        let invisible_ms = [1_000, 6_000][world.random.below(2)];
        let asked = AskedPop {
            group: GROUP,
            topic: TOPIC,
            queue_id: -1,
            most: 8,
            invisible_ms,
            poll_ms: 0,
        };
        let opaque = world.pop(&asked, &[]);
        self.asked.insert(opaque, Asked::Pop);
    }

    /// Also by handles of a topic that is no more.
    fn ack(&mut self, world: &mut World) {
        let handles = std::mem::take(&mut self.handles);
        if !handles.is_empty() {
            let body = Handle::batch(&handles, GROUP, TOPIC);
            let opaque = world.ask(request::BATCH_ACK_MESSAGE, &[], &body);
            self.asked.insert(opaque, Asked::Other);
        }
    }

    fn delete(&mut self, world: &mut World) {
        let opaque = world.ask(request::DELETE_TOPIC_IN_BROKER, &[("topic", TOPIC)], &[]);
        self.epoch += 1;
        self.asked.insert(opaque, Asked::Delete(self.epoch));
    }

    fn delete_group(&mut self, world: &mut World) {
        let fields = [("groupName", GROUP), ("cleanOffset", "false")];
        let code = request::DELETE_SUBSCRIPTIONGROUP;
        let opaque = world.ask(code, &fields, &[]);
        self.asked.insert(opaque, Asked::Other);
    }

    fn take_pop(&mut self, world: &World, answer: &Received) {
        let seed = world.seed;
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let (record, next) = Record::parse(rest).unwrap();
            rest = next;
            let body = String::from_utf8_lossy(record.body()).into_owned();
            let message = self.messages.get_mut(&body).unwrap();
            assert!(
                message.timer || message.epoch >= *self.deleted.get(),
                "seed {seed}: {body} came after its topic was deleted"
            );
            message.times += usize::from(record.reconsume_times() == 0);
            self.handles.push(Handle::of(answer, &record));
        }
    }
}

impl Feature for Deletes {
    fn act(&mut self, world: &mut World) {
        match world.random.below(16) {
            0..5 => self.send(world, false),
            5 => self.send(world, true),
            6..11 => self.pop(world),
            11 | 12 => self.ack(world),
            13 => self.delete_group(world),
            _ => self.delete(world),
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        let Some(asked) = self.asked.remove(&frame.opaque) else {
            return false;
        };
        let nothing = [
            response::PULL_NOT_FOUND,
            response::POLLING_FULL,
            response::POLLING_TIMEOUT,
            response::TOPIC_NOT_EXIST,
        ];
        if nothing.contains(&frame.code) || !world.done(frame) {
            return true;
        }
        match asked {
            Asked::Pop => self.take_pop(world, frame),
            Asked::Delete(epoch) => self.deleted.set(world, epoch),
            Asked::Send | Asked::Other => {}
        }
        true
    }

    fn flushed(&mut self, _: &World) {
        self.deleted.flushed();
    }

    fn crashed(&mut self, _: &World) {
        self.asked.clear();
        self.deleted.crashed();
    }

    fn finish(&mut self, world: &mut World) {
        self.pop(world);
    }

    fn check(&mut self, world: &mut World) {
        // A group that is deleted forgets what it has popped, and so does a crash.
        for (body, message) in self.messages.iter().filter(|(_, message)| message.timer) {
            let stored: usize = (0..8)
                .map(|queue_id| world.shard.stored(TOPIC, queue_id))
                .map(|queue| queue.iter().filter(|stored| stored.body == *body).count())
                .sum();
            assert!(
                stored <= 1,
                "seed {}: {body} came {stored} times",
                world.seed
            );
            assert!(
                stored == 0 || message.times > 0 || self.epoch > 0,
                "seed {}: {body} was not popped",
                world.seed
            );
        }
    }
}
