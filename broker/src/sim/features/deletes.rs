//! A topic that is deleted and made again: nothing of before comes afterwards, but what waits for its time or its commit, once.
//! A half message is not delivered while its topic is gone, and does not bring it back.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::{request, response, sys_flag};
use corelane_wire::message_id::OffsetId;
use corelane_wire::record::Record;

use super::handle::Handle;
use super::kept::Kept;
use super::{AskedPop, Feature, Received, World, transactions};

pub const TOPIC: &str = "doomed";
pub const GROUP: &str = "mourners";

struct Message {
    /// How often the topic was deleted before.
    epoch: u64,
    timer: bool,
    /// Places that it was popped from first.
    times: usize,
    half: Option<Half>,
}

#[derive(Default)]
struct Half {
    /// Where it is: its offset in the half queue and its position.
    at: Kept<Option<(String, String)>>,
    commit_asked: bool,
    committed: Kept<bool>,
    /// The topic was deleted since, or while the commit was under way.
    may_be_gone: bool,
}

enum Asked {
    Send,
    Half(String),
    /// Whether the topic was surely gone.
    Commit(String, bool),
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
    /// The topic is gone: deleted, and nothing was sent since.
    gone: bool,
    /// Since the last deletion was asked for.
    sent_since: bool,
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
            half: None,
        };
        self.messages.insert(body.clone(), message);
        self.asked.insert(opaque, Asked::Send);
        (self.gone, self.sent_since) = (false, true);
    }

    fn send_half(&mut self, world: &mut World) {
        let body = world.body("doomed-half");
        let pairs = [
            ("TRAN_MSG", "true"),
            ("PGROUP", transactions::GROUP),
            ("UNIQ_KEY", &*body),
        ];
        let opaque = world.send(TOPIC, &body, &pairs);
        let message = Message {
            epoch: self.epoch,
            timer: false,
            times: 0,
            half: Some(Half::default()),
        };
        self.messages.insert(body.clone(), message);
        self.asked.insert(opaque, Asked::Half(body));
        (self.gone, self.sent_since) = (false, true);
    }

    fn commit(&mut self, world: &mut World) {
        let open = self.messages.iter_mut().filter_map(|(body, message)| {
            let half = message.half.as_mut()?;
            let at = half.at.get().clone()?;
            (!half.commit_asked).then_some((body, &mut message.epoch, half, at))
        });
        let mut open: Vec<_> = open.collect();
        if open.is_empty() {
            return;
        }
        let at = world.random.below(open.len());
        let (body, epoch, half, (offset, position)) = open.swap_remove(at);
        let fields = [
            ("producerGroup", transactions::GROUP),
            ("tranStateTableOffset", &*offset),
            ("commitLogOffset", &position),
            (
                "commitOrRollback",
                &sys_flag::TRANSACTION_COMMIT.to_string(),
            ),
            ("fromTransactionCheck", "false"),
            ("msgId", body),
        ];
        let opaque = world.ask(request::END_TRANSACTION, &fields, &[]);
        (half.commit_asked, half.may_be_gone) = (true, false);
        *epoch = self.epoch;
        let asked = Asked::Commit(body.clone(), self.gone);
        self.asked.insert(opaque, asked);
    }

    fn take_commit(&mut self, world: &World, answer: &Received, body: &str, was_gone: bool) {
        let message = self.messages.get_mut(body).unwrap();
        let half = message.half.as_mut().unwrap();
        match answer.code {
            response::SUCCESS => {
                assert!(
                    !(was_gone && self.gone),
                    "seed {}: {body} was committed to a topic that is gone",
                    world.seed
                );
                half.committed.set(world, true);
            }
            // It may be asked again, when somebody makes the topic anew.
            response::TOPIC_NOT_EXIST => half.commit_asked = false,
            // It was given up.
            response::SYSTEM_ERROR => {}
            _ => assert!(!world.done(answer)),
        }
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
        self.sent_since = false;
        // A commit that waits for a read may come to the next topic of the name.
        for asked in self.asked.values() {
            if let Asked::Commit(body, _) = asked {
                self.messages.get_mut(body).unwrap().epoch = self.epoch;
            }
        }
        for half in self.halves().filter(|half| half.commit_asked) {
            half.may_be_gone = true;
        }
        self.asked.insert(opaque, Asked::Delete(self.epoch));
    }

    fn halves(&mut self) -> impl Iterator<Item = &mut Half> {
        let messages = self.messages.values_mut();
        messages.filter_map(|message| message.half.as_mut())
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
                message.half.as_ref().is_none_or(|half| half.commit_asked),
                "seed {seed}: nobody committed {body}"
            );
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
        match world.random.below(20) {
            16 | 17 => self.send_half(world),
            18 | 19 => self.commit(world),
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
        if let Asked::Commit(body, was_gone) = &asked {
            self.take_commit(world, frame, body, *was_gone);
            return true;
        }
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
            Asked::Delete(epoch) => {
                self.deleted.set(world, epoch);
                self.gone |= epoch == self.epoch && !self.sent_since;
            }
            Asked::Half(body) => {
                let id = OffsetId::parse(&frame.fields["msgId"]).unwrap();
                let at = (frame.fields["queueOffset"].clone(), id.offset.to_string());
                if let Some(half) = self.messages.get_mut(&body).unwrap().half.as_mut() {
                    half.at.set(world, Some(at));
                }
            }
            Asked::Send | Asked::Commit(..) | Asked::Other => {}
        }
        true
    }

    fn flushed(&mut self, _: &World) {
        self.deleted.flushed();
        for half in self.halves() {
            half.at.flushed();
            half.committed.flushed();
        }
    }

    fn crashed(&mut self, _: &World) {
        self.asked.clear();
        self.deleted.crashed();
        (self.gone, self.sent_since) = (false, true);
        for half in self.halves() {
            half.at.crashed();
            half.committed.crashed();
        }
    }

    fn finish(&mut self, world: &mut World) {
        self.pop(world);
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut stored: HashMap<String, usize> = HashMap::new();
        for queue_id in 0..8 {
            for message in world.shard.stored(TOPIC, queue_id) {
                *stored.entry(message.body).or_default() += 1;
            }
        }
        // A group that is deleted forgets what it has popped, and so does a crash.
        for (body, message) in &self.messages {
            let stored = stored.get(body).copied().unwrap_or(0);
            let is = format!("seed {seed}: {body}, there {stored} times");
            if message.timer {
                assert!(stored <= 1, "{is}");
                assert!(
                    stored == 0 || message.times > 0 || self.epoch > 0,
                    "{is}, was not popped"
                );
            }
            if let Some(half) = &message.half {
                assert!(stored <= 1, "{is}");
                assert!(
                    stored == 0 || half.commit_asked,
                    "{is}, nobody committed it"
                );
                assert!(
                    stored == 1 || !half.committed.get() || half.may_be_gone,
                    "{is}, was lost"
                );
            }
        }
    }
}
