//! A shard under random requests and crashes, against a model of what was promised. A failing seed prints the line that runs
//! it alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use corelane_wire::code::{pull_flag, request, response};
use corelane_wire::record::Record;

use super::options::small_options;
use super::random::Random;
use super::seeds::{run_many, run_named, run_one};
use super::shard::{Received, SimShard, settings};
use crate::engine::Connection;
use crate::engine::settings::Settings;
use crate::log::FlushMode;

type Queue = (String, i32);

/// A send that was not answered yet.
struct Asked {
    queue: Queue,
    body: Vec<u8>,
    /// It is answered only when it is on the disk.
    waits: bool,
    /// It is to be delivered later.
    delayed: bool,
}

#[derive(Default)]
struct Promises {
    /// What SEND_OK said: the body at an offset of a queue.
    stored: BTreeMap<(Queue, i64), Vec<u8>>,
    /// What a consumer was given; it must stay, acknowledged or not.
    seen: BTreeMap<(Queue, i64), Vec<u8>>,
    /// Offsets whose commit was acknowledged.
    committed: BTreeMap<Queue, i64>,
    /// What will be delivered to a queue later, once.
    delayed: Vec<(Queue, Vec<u8>)>,
    /// Every body that was ever sent: nothing else may come out.
    sent: HashSet<Vec<u8>>,
}

struct Run {
    seed: u64,
    random: Random,
    shard: SimShard,
    client: Connection,
    asked: HashMap<i32, Asked>,
    commits: HashMap<i32, (Queue, i64)>,
    promises: Promises,
    /// Answered before they were on the disk: promised once that is idle and everything is written.
    unwritten: BTreeMap<(Queue, i64), Vec<u8>>,
    unwritten_delayed: Vec<(Queue, Vec<u8>)>,
    asynchronous: bool,
    serial: u64,
    acknowledged: u64,
    crashes: u64,
}

const TOPICS: [&str; 3] = ["orders", "payments", "audit-log"];
const QUEUES: i32 = 3;

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut options = small_options(&mut random);
        let asynchronous = random.one_in(5);
        options.flush = if asynchronous {
            FlushMode::Async { interval_ms: 20 }
        } else {
            FlushMode::Sync
        };
        // What retention takes is the log's own test; here everything that was promised must stay.
        (options.retention_bytes, options.retention_ms) = (u64::MAX, i64::MAX);
        let settings = Settings {
            sync_flush: !asynchronous,
            ..settings()
        };
        let mut shard = SimShard::new(seed, settings, options);
        let client = shard.connect();
        Self {
            seed,
            random,
            shard,
            client,
            asked: HashMap::new(),
            commits: HashMap::new(),
            promises: Promises::default(),
            unwritten: BTreeMap::new(),
            unwritten_delayed: Vec::new(),
            asynchronous,
            serial: 0,
            acknowledged: 0,
            crashes: 0,
        }
    }

    /// The disk will crash by itself before it has done so many operations more.
    fn crash_within(&mut self, operations: usize) {
        let after = self.shard.disk.steps() + 1 + self.random.below(operations) as u64;
        self.shard.disk.crash_after(Some(after));
    }

    fn queue(&mut self) -> Queue {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        (topic.to_owned(), self.random.below(QUEUES as usize) as i32)
    }

    fn send(&mut self) {
        let queue = self.queue();
        self.serial += 1;
        let mut body = format!("message {} of seed {} ", self.serial, self.seed).into_bytes();
        let len = body.len() + self.random.below(600);
        body.resize(len, b'.');
        let (topic, queue_id) = queue.clone();
        let waits = !self.random.one_in(6);
        let delayed = self.random.one_in(8);
        let mut properties = "TAGS\u{1}t\u{2}".to_owned();
        if !waits {
            properties += "WAIT\u{1}false\u{2}";
        }
        if delayed {
            properties += "DELAY\u{1}1\u{2}";
        }
        self.promises.sent.insert(body.clone());
        let opaque = self.shard.request(
            self.client,
            request::SEND_MESSAGE,
            |fields| {
                fields.field("producerGroup", "p");
                fields.field("topic", &topic);
                fields.field("defaultTopic", "TBW102");
                fields.int_field("defaultTopicQueueNums", QUEUES.into());
                fields.int_field("queueId", queue_id.into());
                fields.int_field("sysFlag", 0);
                fields.int_field("bornTimestamp", 1);
                fields.int_field("flag", 0);
                fields.field("properties", &properties);
            },
            &body,
        );
        let waits = waits && !self.asynchronous;
        let asked = Asked {
            queue,
            body,
            waits,
            delayed,
        };
        self.asked.insert(opaque, asked);
    }

    fn commit(&mut self) {
        let queue = self.queue();
        let offset = self.random.below(100) as i64;
        let (topic, queue_id) = queue.clone();
        let opaque = self.shard.request(
            self.client,
            request::UPDATE_CONSUMER_OFFSET,
            |fields| {
                fields.field("consumerGroup", "DEFAULT_CONSUMER");
                fields.field("topic", &topic);
                fields.int_field("queueId", queue_id.into());
                fields.int_field("commitOffset", offset);
            },
            &[],
        );
        self.commits.insert(opaque, (queue, offset));
    }

    /// Deletes a topic; the next send makes it again. Nothing that was promised of it before counts any more.
    fn delete_topic(&mut self) {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        self.take_answers();
        self.shard.request(
            self.client,
            request::DELETE_TOPIC_IN_BROKER,
            |fields| fields.field("topic", topic),
            &[],
        );
        let other = |queue: &Queue| queue.0 != topic;
        self.asked.retain(|_, asked| other(&asked.queue));
        self.commits.retain(|_, (queue, _)| other(queue));
        self.unwritten.retain(|(queue, _), _| other(queue));
        self.unwritten_delayed.retain(|(queue, _)| other(queue));
        let promises = &mut self.promises;
        promises.stored.retain(|(queue, _), _| other(queue));
        promises.seen.retain(|(queue, _), _| other(queue));
        promises.committed.retain(|queue, _| other(queue));
        promises.delayed.retain(|(queue, _)| other(queue));
    }

    fn take_answers(&mut self) {
        for answer in self.shard.receive(self.client) {
            self.take_answer(&answer);
        }
    }

    fn take_answer(&mut self, answer: &Received) {
        let seed = self.seed;
        if let Some(asked) = self.asked.remove(&answer.opaque) {
            if answer.code != response::SUCCESS {
                assert_eq!(
                    answer.code,
                    response::SYSTEM_BUSY,
                    "seed {seed}: {:?}",
                    answer.remark
                );
                return;
            }
            self.acknowledged += 1;
            if asked.delayed {
                let promised = if asked.waits {
                    &mut self.promises.delayed
                } else {
                    &mut self.unwritten_delayed
                };
                promised.push((asked.queue, asked.body));
                return;
            }
            let offset: i64 = answer.fields["queueOffset"].parse().unwrap();
            let queue_id: i32 = answer.fields["queueId"].parse().unwrap();
            assert_eq!(queue_id, asked.queue.1, "seed {seed}");
            let place = (asked.queue, offset);
            let twice = self.promises.stored.contains_key(&place)
                || self.unwritten.insert(place.clone(), asked.body).is_some();
            assert!(
                !twice,
                "seed {seed}: two messages were acknowledged at offset {offset}"
            );
            if asked.waits
                && let Some(body) = self.unwritten.remove(&place)
            {
                self.promises.stored.insert(place, body);
            }
        }
        if let Some((queue, offset)) = self.commits.remove(&answer.opaque)
            && answer.code == response::SUCCESS
            && !self.asynchronous
        {
            self.promises.committed.insert(queue, offset);
        }
    }

    /// Reads a queue from its start; what comes was seen.
    fn read(&mut self, queue: &Queue) -> BTreeMap<i64, Vec<u8>> {
        let seed = self.seed;
        let (mut next, mut got) = (0, BTreeMap::new());
        loop {
            let answer = self.shard.call(
                self.client,
                request::PULL_MESSAGE,
                |fields| {
                    fields.field("consumerGroup", "DEFAULT_CONSUMER");
                    fields.field("topic", &queue.0);
                    fields.int_field("queueId", queue.1.into());
                    fields.int_field("queueOffset", next);
                    fields.int_field("maxMsgNums", 32);
                    fields.int_field("sysFlag", pull_flag::SUBSCRIPTION.into());
                    fields.int_field("commitOffset", 0);
                    fields.int_field("suspendTimeoutMillis", 0);
                    fields.field("subscription", "*");
                    fields.int_field("subVersion", 1);
                },
                &[],
            );
            let Some(answer) = answer else { return got };
            if answer.code != response::SUCCESS {
                let nothing = [
                    response::PULL_NOT_FOUND,
                    response::TOPIC_NOT_EXIST,
                    response::PULL_OFFSET_MOVED,
                ];
                assert!(
                    nothing.contains(&answer.code),
                    "seed {seed}: {:?}",
                    answer.remark
                );
                return got;
            }
            let mut rest = answer.body.as_slice();
            while !rest.is_empty() {
                let (record, behind) = Record::parse(rest).unwrap();
                assert!(record.check_body_crc(), "seed {seed}");
                assert_eq!(
                    record.queue_offset(),
                    next,
                    "seed {seed}: offsets are dense"
                );
                assert!(
                    self.promises.sent.contains(record.body()),
                    "seed {seed}: a message that nobody sent"
                );
                got.insert(next, record.body().to_vec());
                if !self.asynchronous {
                    let place = (queue.clone(), next);
                    self.promises.seen.insert(place, record.body().to_vec());
                }
                next += 1;
                rest = behind;
            }
        }
    }

    fn work(&mut self, turns: usize) {
        for _ in 0..turns {
            if self.random.one_in(100) {
                self.delete_topic();
            }
            match self.random.below(10) {
                0 => self.commit(),
                1 => {
                    let ms = [50, 50, 700][self.random.below(3)];
                    self.shard.advance(ms);
                }
                2 => {
                    let queue = self.queue();
                    self.take_answers();
                    self.read(&queue);
                }
                3..6 => {
                    self.shard.step();
                }
                _ => self.send(),
            }
            self.take_answers();
            if self.shard.has_crashed() {
                return;
            }
            if self.shard.is_flushed() {
                self.promises.stored.append(&mut self.unwritten);
                let delayed = &mut self.promises.delayed;
                delayed.append(&mut self.unwritten_delayed);
            }
        }
    }

    fn crash_and_check(&mut self) {
        self.shard.crash();
        self.crashes += 1;
        self.asked.clear();
        self.unwritten.clear();
        self.unwritten_delayed.clear();
        let commits = std::mem::take(&mut self.commits);
        if self.random.one_in(3) {
            self.crash_within(60);
        }
        // A crash during the recovery: once more from the start.
        while self.shard.open().is_none() {
            self.shard.crash();
            self.crashes += 1;
        }
        self.shard.disk.crash_after(None);
        self.client = self.shard.connect();
        let seed = self.seed;
        for topic in TOPICS {
            for queue_id in 0..QUEUES {
                let queue = (topic.to_owned(), queue_id);
                let got = self.read(&queue);
                for ((_, offset), body) in range(&self.promises.stored, &queue) {
                    assert!(
                        got.get(offset) == Some(body),
                        "seed {seed}: {queue:?} lost the acknowledged message at {offset}"
                    );
                }
                for ((_, offset), body) in range(&self.promises.seen, &queue) {
                    assert!(
                        got.get(offset) == Some(body),
                        "seed {seed}: {queue:?} lost the seen message at {offset}"
                    );
                }
                if let Some(offset) = self.promises.committed.get(&queue).copied() {
                    let now = self.committed(&queue);
                    // A commit that was on its way may have come through as well.
                    let may = commits
                        .values()
                        .any(|(other, to)| *other == queue && Some(*to) == now);
                    assert!(
                        now == Some(offset) || may,
                        "seed {seed}: {queue:?} was committed at {offset}, is at {now:?}"
                    );
                    self.promises.committed.insert(queue, now.unwrap());
                }
            }
        }
    }

    /// Everything that waited comes, and nothing comes twice.
    fn check_deliveries(&mut self) {
        let seed = self.seed;
        self.shard.advance(3_000);
        let mut found = HashMap::new();
        for topic in TOPICS {
            for queue_id in 0..QUEUES {
                let queue = (topic.to_owned(), queue_id);
                for (offset, body) in self.read(&queue) {
                    let place = (queue.clone(), offset);
                    let twice = found.insert(body, place.clone());
                    assert!(
                        twice.is_none(),
                        "seed {seed}: one message at {place:?} and {twice:?}"
                    );
                }
            }
        }
        for (queue, body) in &self.promises.delayed {
            let at = found.get(body).map(|(queue, _)| queue);
            assert!(
                at == Some(queue),
                "seed {seed}: {queue:?} lost a message that waited for its time, found in {at:?}"
            );
        }
    }

    fn committed(&mut self, queue: &Queue) -> Option<i64> {
        let answer = self.shard.call(
            self.client,
            request::QUERY_CONSUMER_OFFSET,
            |fields| {
                fields.field("consumerGroup", "DEFAULT_CONSUMER");
                fields.field("topic", &queue.0);
                fields.int_field("queueId", queue.1.into());
                fields.field("setZeroIfNotFound", "false");
            },
            &[],
        )?;
        answer
            .fields
            .get("offset")
            .map(|offset| offset.parse().unwrap())
    }
}

fn range<'a>(
    map: &'a BTreeMap<(Queue, i64), Vec<u8>>,
    queue: &Queue,
) -> impl Iterator<Item = (&'a (Queue, i64), &'a Vec<u8>)> {
    map.range((queue.clone(), 0)..=(queue.clone(), i64::MAX))
}

/// Gives the number of crashes.
fn run(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    for _ in 0..4 {
        if run.random.one_in(2) {
            run.crash_within(400);
        }
        let turns = 40 + run.random.below(160);
        run.work(turns);
        run.crash_and_check();
    }
    run.check_deliveries();
    assert!(
        run.acknowledged > 0,
        "seed {seed}: nothing was ever acknowledged"
    );
    run.crashes
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_twice_at_one_offset() {
    for seed in 0..200 {
        run_named("one_shard_seed", seed, run);
    }
}

/// See `seeds` for how it is told what to do.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_shard_seeds() {
    run_many("one_shard_seed", run);
}

#[test]
fn one_shard_seed() {
    run_one(run);
}
