//! Everything that a broker remembers for its clients, on one shard with crashes: transactions, pops, retries by send back
//! under policies that change, timers with recall, locks, orderly pops, offsets set by hand and cloned, deleted topics with half
//! messages. Each has a model of its own that knows what may be delivered, when, and how often.
//!
//! The clients of a run never wait: a request is asked, and its answer is taken when it comes. So a crash meets any number
//! of requests on their way, and each model knows what is promised, what may be, and what must not be.

mod clones;
mod deletes;
mod handle;
mod kept;
mod locks;
mod orders;
mod pops;
mod resets;
mod retries;
mod timers;
mod transactions;

use corelane_wire::FrameWriter;
use corelane_wire::body::SubscriptionGroupConfig;
use corelane_wire::code::{request, response};

use super::options::small_options;
use super::random::Random;
use super::seeds::{run_many, run_named, run_one};
use super::shard::{Received, SimShard, settings};
use crate::engine::Connection;
use crate::engine::settings::Settings;
use crate::log::FlushMode;

/// Queues of each topic.
const QUEUES: i32 = 3;
/// How often a client says that it is there.
const HEARTBEAT_MS: i64 = 30_000;

/// The shard, its one client, and what all models share.
struct World {
    seed: u64,
    random: Random,
    shard: SimShard,
    client: Connection,
    crashes: u32,
    serial: u64,
    /// What is acknowledged is on the disk.
    sync: bool,
}

/// What a pop asks for.
struct AskedPop<'a> {
    group: &'a str,
    topic: &'a str,
    /// -1 for any queue.
    queue_id: i32,
    most: usize,
    invisible_ms: i64,
    poll_ms: i64,
}

impl World {
    /// A body that no other message has.
    fn body(&mut self, kind: &str) -> String {
        self.serial += 1;
        let filling = ".".repeat(self.random.below(400));
        format!("{kind}-{}-{filling}", self.serial)
    }

    fn queue_id(&mut self) -> i32 {
        self.random.below(QUEUES as usize) as i32
    }

    fn send(&mut self, topic: &str, body: &str, pairs: &[(&str, &str)]) -> i32 {
        let queue_id = self.queue_id();
        self.shard.send(self.client, topic, queue_id, body, pairs)
    }

    fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> i32 {
        let write = |out: &mut FrameWriter<'_>| {
            for (name, value) in fields {
                out.field(name, value);
            }
        };
        self.shard.request(self.client, code, write, body)
    }

    /// Asks for a pop; `more` are fields that not every pop has.
    fn pop(&mut self, asked: &AskedPop<'_>, more: &[(&str, &str)]) -> i32 {
        let (queue_id, most) = (asked.queue_id.to_string(), asked.most.to_string());
        let invisible_ms = asked.invisible_ms.to_string();
        let (poll_ms, now_ms) = (asked.poll_ms.to_string(), self.now_ms().to_string());
        let fields = [
            ("consumerGroup", asked.group),
            ("topic", asked.topic),
            ("queueId", &*queue_id),
            ("maxMsgNums", &most),
            ("invisibleTime", &invisible_ms),
            ("pollTime", &poll_ms),
            ("bornTime", &now_ms),
            ("initMode", "0"),
        ];
        self.ask(request::POP_MESSAGE, &[&fields, more].concat(), &[])
    }

    fn now_ms(&self) -> i64 {
        self.shard.now().wall_ms
    }

    /// How many copies there may be of what one crash can double.
    fn copies(&self) -> usize {
        1 << self.crashes.min(30)
    }

    /// Whether a request was done; one that was refused must have met a busy shard.
    fn done(&self, answer: &Received) -> bool {
        let busy = answer.code == response::SYSTEM_BUSY;
        assert!(
            busy || answer.code == response::SUCCESS,
            "seed {}: {} {:?}",
            self.seed,
            answer.code,
            answer.remark
        );
        !busy
    }
}

/// The model of one feature.
trait Feature {
    /// Asks for anything.
    fn act(&mut self, world: &mut World);
    /// Takes the answer to a request of its own, or a request of the broker's; says whether it was that.
    fn take(&mut self, world: &mut World, frame: &Received) -> bool;
    /// All that was appended is on the disk.
    fn flushed(&mut self, _: &World) {}
    /// The shard died: what was under way may have been done or not.
    fn crashed(&mut self, world: &World);
    /// A moment of the end, in which everything that waits comes to its end; called until all has had its time.
    fn finish(&mut self, _: &mut World) {}
    /// Looks at what was delivered.
    fn check(&mut self, world: &mut World);
}

struct Run {
    world: World,
    features: Vec<Box<dyn Feature>>,
    heartbeat_mono_ms: i64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut options = small_options(&mut random);
        let sync = options.flush == FlushMode::Sync;
        // What retention takes is the log's own test.
        (options.retention_bytes, options.retention_ms) = (u64::MAX, i64::MAX);
        let settings = Settings {
            broker_name: "broker-a".to_owned(),
            sync_flush: sync,
            ..settings()
        };
        let mut shard = SimShard::new(seed, settings, options);
        let client = shard.connect();
        let world = World {
            seed,
            random,
            shard,
            client,
            crashes: 0,
            serial: 0,
            sync,
        };
        let mut run = Self {
            world,
            features: vec![
                Box::new(transactions::Transactions::default()),
                Box::new(pops::Pops::default()),
                Box::new(retries::Retries::new(0)),
                Box::new(retries::Retries::new(1)),
                Box::new(retries::Retries::new(2)),
                Box::new(timers::Timers::default()),
                Box::new(locks::Locks::default()),
                Box::new(orders::Orders::default()),
                Box::new(resets::Resets::default()),
                Box::new(deletes::Deletes::default()),
                Box::new(clones::Clones::default()),
            ],
            heartbeat_mono_ms: 0,
        };
        let topics = [
            transactions::TOPIC,
            pops::TOPIC,
            timers::TOPIC,
            orders::TOPIC,
            resets::TOPIC,
            deletes::TOPIC,
            clones::TOPIC,
        ];
        for topic in topics.into_iter().chain(retries::TOPICS) {
            run.make_topic(topic);
        }
        let group = |name: &str, retry_max_times| SubscriptionGroupConfig {
            group_name: name.to_owned(),
            retry_max_times,
            ..SubscriptionGroupConfig::default()
        };
        let groups = [
            group(pops::GROUP, pops::MAX_RETRIES),
            group(resets::POPPERS, resets::MAX_RETRIES),
            group(resets::PULLERS, resets::MAX_RETRIES),
            group(clones::SOURCE, 1),
            group(clones::TARGET, 1),
        ];
        for group in retries::groups().iter().chain(&groups) {
            let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
            run.call(code, &[], &group.to_json());
        }
        run.introduce();
        run
    }

    /// Asks, and waits until that is done and on the disk.
    fn call(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) {
        let world = &mut self.world;
        let opaque = world.ask(code, fields, body);
        world.shard.advance(100);
        let frames = world.shard.receive(world.client);
        let answer = frames.iter().find(|frame| frame.opaque == opaque);
        assert_eq!(
            answer.map(|answer| answer.code),
            Some(response::SUCCESS),
            "seed {}",
            world.seed
        );
    }

    fn make_topic(&mut self, topic: &str) {
        let queues = QUEUES.to_string();
        let fields = [
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        self.call(request::UPDATE_AND_CREATE_TOPIC, &fields, &[]);
    }

    /// The client is there still; the broker would close its connection.
    fn heartbeat(&mut self) {
        if self.world.shard.now().mono_ms >= self.heartbeat_mono_ms + HEARTBEAT_MS {
            self.introduce();
        }
    }

    /// The client says that it is a producer, so that it is asked about its half messages.
    fn introduce(&mut self) {
        self.heartbeat_mono_ms = self.world.shard.now().mono_ms;
        let group = transactions::GROUP;
        let body =
            format!(r#"{{"clientID":"client","producerDataSet":[{{"groupName":"{group}"}}]}}"#);
        self.world.ask(request::HEART_BEAT, &[], body.as_bytes());
    }

    fn take_frames(&mut self) {
        for frame in self.world.shard.receive(self.world.client) {
            for feature in &mut self.features {
                if feature.take(&mut self.world, &frame) {
                    break;
                }
            }
        }
        if self.world.shard.is_flushed() {
            for feature in &mut self.features {
                feature.flushed(&self.world);
            }
        }
    }

    fn work(&mut self, turns: usize) {
        for _ in 0..turns {
            self.heartbeat();
            match self.world.random.below(10) {
                0 => {
                    let ms = [10, 50, 700, 4_000, 20_000][self.world.random.below(5)];
                    self.world.shard.advance(ms);
                }
                1..5 => {
                    self.world.shard.step();
                }
                _ => {
                    let at = self.world.random.below(self.features.len());
                    self.features[at].act(&mut self.world);
                }
            }
            self.take_frames();
            if self.world.shard.has_crashed() {
                return;
            }
        }
    }

    /// The disk will crash by itself before it has done so many operations more.
    fn crash_within(&mut self, operations: usize) {
        let world = &mut self.world;
        let after = world.shard.disk.steps() + 1 + world.random.below(operations) as u64;
        world.shard.disk.crash_after(Some(after));
    }

    fn crash(&mut self) {
        if self.world.random.one_in(3) {
            self.crash_within(60);
        }
        // A crash during the recovery: once more from the start.
        loop {
            self.world.shard.crash();
            self.world.crashes += 1;
            if self.world.random.one_in(3) {
                self.world.shard.sleep(15_000);
            }
            if self.world.shard.open().is_some() {
                break;
            }
        }
        self.world.shard.disk.crash_after(None);
        for feature in &mut self.features {
            feature.crashed(&self.world);
        }
        self.world.client = self.world.shard.connect();
        self.introduce();
    }

    /// Long enough for every check, every retry and every timer.
    fn finish(&mut self) {
        for _ in 0..80 {
            self.heartbeat();
            for feature in &mut self.features {
                feature.finish(&mut self.world);
            }
            self.world.shard.settle();
            self.take_frames();
            self.world.shard.advance(3_000);
            self.take_frames();
        }
        for feature in &mut self.features {
            feature.check(&mut self.world);
        }
    }
}

/// Gives the number of crashes.
fn run(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    // Without crashes there is less that may be.
    let crashes = !run.world.random.one_in(6);
    for _ in 0..3 {
        if crashes && run.world.random.one_in(2) {
            run.crash_within(500);
        }
        let turns = 120 + run.world.random.below(300);
        run.work(turns);
        if crashes {
            run.crash();
        }
    }
    run.finish();
    run.world.crashes.into()
}

#[test]
fn every_feature_keeps_its_promises_across_crashes() {
    for seed in 0..60 {
        run_named("one_features_seed", seed, run);
    }
}

/// See `seeds` for how it is told what to do.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_features_seeds() {
    run_many("one_features_seed", run);
}

#[test]
fn one_features_seed() {
    run_one(run);
}
