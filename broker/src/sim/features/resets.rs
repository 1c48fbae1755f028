//! Offsets that are set by hand, beside pops and pulls: a group goes on exactly there, what was popped before does not come
//! again by itself, and a group that pulls is told once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use corelane_wire::body::ResetOffsetBody;
use corelane_wire::code::{request, response};
use corelane_wire::record::Record;

use super::handle::Handle;
use super::{AskedPop, Feature, QUEUES, Received, World};

pub const TOPIC: &str = "rewound";
pub const POPPERS: &str = "rewinders";
pub const MAX_RETRIES: i32 = 1;
pub const PULLERS: &str = "pullers";
const RETRY: &str = "%RETRY%rewinders_rewound";
const DEAD: &str = "%DLQ%rewinders";
/// The pull commits an offset, and says itself what it subscribes to.
const PULL_FLAGS: &str = "5";

/// A pop of a message of the topic.
struct Pop {
    place: (i32, i64),
    due_ms: i64,
    /// A reset took it back before it was due.
    cancelled: bool,
}

/// A queue as the group that pops sees it.
#[derive(Default)]
struct Popped {
    /// Where the next pop may begin, and where after a crash.
    next: BTreeSet<i64>,
    after_crash: BTreeSet<i64>,
    /// What was popped since the reset that is under way.
    since_asked: bool,
    /// Messages that a reset may have passed over.
    passed: BTreeSet<i64>,
    /// Messages that were acknowledged since they were popped last.
    acked: BTreeSet<i64>,
}

/// A queue as the group that pulls sees it.
#[derive(Default)]
struct Pulled {
    at: i64,
    /// The next pull is told this.
    must_tell: Option<i64>,
    may_tell: BTreeSet<i64>,
    /// What was told; a crash may make the broker forget that it was.
    told: BTreeSet<i64>,
    since_asked: bool,
}

enum Asked {
    Send,
    Pop,
    Ack,
    /// By queue, and how many pops there were before.
    Reset(BTreeMap<i32, i64>, usize),
    /// The queue and the offset, where the group pops.
    Commit(Option<(i32, i64)>),
    Pull(i32),
    PullReset(BTreeMap<i32, i64>),
    Query(i32),
}

#[derive(Default)]
pub struct Resets {
    popped: BTreeMap<i32, Popped>,
    pops: Vec<Pop>,
    /// Handles that nobody acknowledged.
    handles: Vec<Handle>,
    pulled: BTreeMap<i32, Pulled>,
    asked: HashMap<i32, Asked>,
}

impl Resets {
    fn is_under_way(&self, what: impl Fn(&Asked) -> bool) -> bool {
        self.asked.values().any(what)
    }

    fn pop(&mut self, world: &mut World, most: usize) {
        let invisible_ms = [1_000, 5_000, 15_000][world.random.below(3)];
        let poll_ms = [0, 2_000][world.random.below(2)];
        let queue_id = world.random.below(QUEUES as usize + 1) as i32 - 1;
        let asked = AskedPop {
            group: POPPERS,
            topic: TOPIC,
            queue_id,
            most,
            invisible_ms,
            poll_ms,
        };
        let opaque = world.pop(&asked, &[]);
        self.asked.insert(opaque, Asked::Pop);
    }

    /// Acknowledges some of what was popped, some of it too late or before a reset.
    fn ack(&mut self, world: &mut World) {
        let mut handles = std::mem::take(&mut self.handles);
        let one_in = 1 + world.random.below(4);
        handles.retain(|handle| {
            let keep = !world.random.one_in(one_in);
            if keep {
                self.handles.push(handle.clone());
            }
            !keep
        });
        if handles.is_empty() {
            return;
        }
        for (retry, queue_id, offset) in handles.iter().map(|handle| handle.place) {
            if !retry {
                let queue = self.popped.entry(queue_id).or_default();
                queue.acked.insert(offset);
            }
        }
        let body = Handle::batch(&handles, POPPERS, TOPIC);
        let opaque = world.ask(request::BATCH_ACK_MESSAGE, &[], &body);
        self.asked.insert(opaque, Asked::Ack);
    }

    /// Sets a group's offsets: to a time, to an offset of one queue, or to the end. Gives what they are to be.
    fn reset(&mut self, world: &mut World, group: &str) -> Option<(i32, BTreeMap<i32, i64>)> {
        let mut stored = Vec::new();
        for queue_id in 0..QUEUES {
            stored.push(world.shard.stored(TOPIC, queue_id));
        }
        if world.shard.has_crashed() {
            // Not all of it could be read.
            return None;
        }
        let one = world.random.below(QUEUES as usize);
        let len = |queue_id: usize| stored[queue_id].len() as i64;
        // What is sent meanwhile would move the end.
        let to_end = !self.is_under_way(|asked| matches!(asked, Asked::Send));
        let kind = world.random.below(if to_end { 3 } else { 2 });
        let (queue_id, offset, time_ms) = match kind {
            0 => {
                let offset = world.random.below(len(one) as usize + 1) as i64;
                (one as i32, offset, 0)
            }
            1 => {
                let all = stored.iter().flatten();
                let times: Vec<i64> = all.map(|message| message.store_ms).collect();
                if times.is_empty() {
                    return None;
                }
                (-1, -1, times[world.random.below(times.len())])
            }
            _ => (-1, -1, -1),
        };
        let mut targets = BTreeMap::new();
        for (id, messages) in (0..QUEUES).zip(&stored) {
            let after = messages
                .iter()
                .position(|message| message.store_ms >= time_ms);
            let target = match (kind, after) {
                (0, _) if id != queue_id => continue,
                (0, _) => offset,
                // Where everything is older, what is sent meanwhile would be the first that is not.
                (1, None) if !to_end => return None,
                (1, Some(at)) => at as i64,
                _ => messages.len() as i64,
            };
            targets.insert(id, target);
        }
        let fields = [
            ("group", group),
            ("topic", TOPIC),
            ("timestamp", &*time_ms.to_string()),
            ("isForce", "true"),
            ("queueId", &queue_id.to_string()),
            ("offset", &offset.to_string()),
        ];
        let opaque = world.ask(request::INVOKE_BROKER_TO_RESET_OFFSET, &fields, &[]);
        Some((opaque, targets))
    }

    fn reset_pops(&mut self, world: &mut World) {
        if self.is_under_way(|asked| matches!(asked, Asked::Reset(..))) {
            return;
        }
        if let Some((opaque, targets)) = self.reset(world, POPPERS) {
            for (queue_id, target) in &targets {
                self.popped.entry(*queue_id).or_default().may_go_to(*target);
            }
            let asked = Asked::Reset(targets, self.pops.len());
            self.asked.insert(opaque, asked);
        }
    }

    fn reset_pulls(&mut self, world: &mut World) {
        if self.is_under_way(|asked| matches!(asked, Asked::PullReset(_))) {
            return;
        }
        if let Some((opaque, targets)) = self.reset(world, PULLERS) {
            for (queue_id, target) in &targets {
                let queue = self.pulled.entry(*queue_id).or_default();
                queue.may_tell.insert(*target);
                queue.since_asked = false;
            }
            self.asked.insert(opaque, Asked::PullReset(targets));
        }
    }

    /// A client's own commit, which goes back only where somebody means it.
    fn commit(&mut self, world: &mut World, group: &str) -> i32 {
        let queue_id = world.queue_id();
        let len = world.shard.stored(TOPIC, queue_id).len();
        let target = world.random.below(len + 1) as i64;
        let fields = [
            ("consumerGroup", group),
            ("topic", TOPIC),
            ("queueId", &*queue_id.to_string()),
            ("commitOffset", &target.to_string()),
        ];
        let opaque = world.ask(request::UPDATE_CONSUMER_OFFSET, &fields, &[]);
        let mut moved = None;
        if group == POPPERS {
            let queue = self.popped.entry(queue_id).or_default();
            queue.may_go_to(target);
            queue.since_asked = true;
            moved = Some((queue_id, target));
        }
        self.asked.insert(opaque, Asked::Commit(moved));
        queue_id
    }

    fn pull(&mut self, world: &mut World) {
        let queue_id = world.queue_id();
        let at = self.pulled.entry(queue_id).or_default().at.to_string();
        let is_pull = |asked: &Asked| matches!(asked, Asked::Pull(id) if *id == queue_id);
        if self.is_under_way(is_pull) {
            return;
        }
        let fields = [
            ("consumerGroup", PULLERS),
            ("topic", TOPIC),
            ("queueId", &*queue_id.to_string()),
            ("queueOffset", &at),
            ("maxMsgNums", "4"),
            ("sysFlag", PULL_FLAGS),
            ("commitOffset", &at),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        let opaque = world.ask(request::PULL_MESSAGE, &fields, &[]);
        self.asked.insert(opaque, Asked::Pull(queue_id));
    }

    fn query(&mut self, world: &mut World, queue_id: i32) {
        let fields = [
            ("consumerGroup", PULLERS),
            ("topic", TOPIC),
            ("queueId", &*queue_id.to_string()),
        ];
        let opaque = world.ask(request::QUERY_CONSUMER_OFFSET, &fields, &[]);
        self.asked.insert(opaque, Asked::Query(queue_id));
    }

    fn take_pop(&mut self, world: &World, answer: &Received) {
        let seed = world.seed;
        let under_way = self.targets_under_way();
        let mut came: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let (record, next) = Record::parse(rest).unwrap();
            rest = next;
            let handle = Handle::of(answer, &record);
            let (retry, queue_id, offset) = handle.place;
            if !retry {
                came.entry(queue_id).or_default().push(offset);
                self.pops.push(Pop {
                    place: (queue_id, offset),
                    due_ms: handle.due_ms(),
                    cancelled: false,
                });
            }
            self.handles.push(handle);
        }
        for (queue_id, offsets) in came {
            let queue = self.popped.entry(queue_id).or_default();
            let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
            let begins = queue.next.is_empty() && first == 0;
            assert!(
                begins || queue.next.contains(&first),
                "seed {seed}: queue {queue_id} goes on at {first}, not at {:?}",
                queue.next
            );
            assert!(offsets.iter().copied().eq(first..=last), "seed {seed}");
            queue.next = BTreeSet::from([last + 1]);
            queue
                .next
                .extend(under_way.get(&queue_id).into_iter().flatten());
            queue.after_crash.extend([first, last + 1]);
            queue.since_asked = true;
            for offset in first..=last {
                queue.acked.remove(&offset);
                if !under_way.contains_key(&queue_id) {
                    queue.passed.remove(&offset);
                }
            }
        }
    }

    /// What resets and commits that are not answered would set.
    fn targets_under_way(&self) -> BTreeMap<i32, BTreeSet<i64>> {
        let mut under_way: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for asked in self.asked.values() {
            match asked {
                Asked::Reset(targets, _) => {
                    for (queue_id, target) in targets {
                        under_way.entry(*queue_id).or_default().insert(*target);
                    }
                }
                Asked::Commit(Some((queue_id, target))) => {
                    under_way.entry(*queue_id).or_default().insert(*target);
                }
                _ => {}
            }
        }
        under_way
    }

    fn take_reset(&mut self, world: &World, targets: &BTreeMap<i32, i64>, before: usize) {
        for (queue_id, target) in targets {
            let queue = self.popped.entry(*queue_id).or_default();
            if !queue.since_asked {
                queue.next = BTreeSet::from([*target]);
                if world.sync {
                    queue.after_crash = queue.next.clone();
                }
            }
        }
        let now_ms = world.now_ms();
        for pop in self.pops[..before].iter_mut().filter(|_| world.sync) {
            pop.cancelled |= targets.contains_key(&pop.place.0) && pop.due_ms > now_ms;
        }
    }

    fn take_pull(&mut self, world: &World, answer: &Received, queue_id: i32) {
        let seed = world.seed;
        let under_way = self.is_under_way(|asked| matches!(asked, Asked::PullReset(_)));
        let queue = self.pulled.entry(queue_id).or_default();
        let next: i64 = answer.fields["nextBeginOffset"].parse().unwrap();
        let is = format!("seed {seed}: a pull of queue {queue_id} at {}", queue.at);
        if answer.code == response::PULL_OFFSET_MOVED
            && answer.remark.as_deref() == Some("OFFSET_RESET")
        {
            assert!(
                queue.must_tell == Some(next) || queue.may_tell.contains(&next),
                "{is} is told {next}, not {:?} or {:?}",
                queue.must_tell,
                queue.may_tell
            );
            // A crash may bring back any of them.
            queue.told.extend(queue.must_tell.take());
            if !under_way {
                queue.told.append(&mut queue.may_tell);
            }
            queue.told.insert(next);
            queue.since_asked = true;
        } else {
            assert_eq!(queue.must_tell, None, "{is} is not told of the reset");
            let mut rest = answer.body.as_slice();
            for offset in queue.at.. {
                let Some((record, next)) = Record::parse(rest).ok() else {
                    break;
                };
                rest = next;
                assert_eq!(record.queue_offset(), offset, "{is}");
            }
        }
        queue.at = next;
    }
}

impl Popped {
    /// The next pop may begin there from now on.
    fn may_go_to(&mut self, target: i64) {
        if self.next.is_empty() {
            self.next.insert(0);
        }
        self.passed.extend(0..target);
        self.next.insert(target);
        self.after_crash.extend(&self.next);
        self.since_asked = false;
    }
}

impl Feature for Resets {
    fn act(&mut self, world: &mut World) {
        match world.random.below(18) {
            0..3 => {
                let body = world.body("rewound");
                let opaque = world.send(TOPIC, &body, &[]);
                self.asked.insert(opaque, Asked::Send);
            }
            3..7 => {
                let most = 1 + world.random.below(8);
                self.pop(world, most);
            }
            7 | 8 => self.ack(world),
            9 | 16 => self.reset_pops(world),
            10 => {
                self.commit(world, POPPERS);
            }
            11 | 17 => self.reset_pulls(world),
            12 => {
                let queue_id = self.commit(world, PULLERS);
                self.query(world, queue_id);
            }
            13 => {
                let queue_id = world.queue_id();
                self.query(world, queue_id);
            }
            _ => self.pull(world),
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
            response::PULL_OFFSET_MOVED,
            response::PULL_RETRY_IMMEDIATELY,
            response::QUERY_NOT_FOUND,
        ];
        let is_nothing = nothing.contains(&frame.code);
        let done = is_nothing || world.done(frame);
        match asked {
            _ if !done => {}
            Asked::Pop if !is_nothing => self.take_pop(world, frame),
            Asked::Pull(queue_id) => self.take_pull(world, frame, queue_id),
            Asked::Reset(targets, before) => {
                told_as_expected(world, frame, &targets);
                self.take_reset(world, &targets, before);
            }
            Asked::PullReset(targets) => {
                told_as_expected(world, frame, &targets);
                for (queue_id, target) in targets {
                    let queue = self.pulled.entry(queue_id).or_default();
                    if !queue.since_asked {
                        // Before the new one is on the disk a crash may bring back the old one.
                        queue.told.extend(queue.must_tell.replace(target));
                        queue.told.append(&mut queue.may_tell);
                        if world.sync {
                            queue.told.clear();
                        }
                    }
                }
            }
            Asked::Query(queue_id) if !is_nothing => {
                let queue = self.pulled.entry(queue_id).or_default();
                if let Some(target) = queue.must_tell
                    && queue.may_tell.is_empty()
                {
                    let is = frame.fields["offset"].parse();
                    assert_eq!(is, Ok(target), "seed {}: queue {queue_id}", world.seed);
                }
            }
            _ => {}
        }
        true
    }

    fn flushed(&mut self, _: &World) {
        for queue in self.popped.values_mut() {
            queue.after_crash = queue.next.clone();
        }
        for queue in self.pulled.values_mut() {
            queue.told.clear();
        }
    }

    fn crashed(&mut self, world: &World) {
        self.asked.clear();
        for queue in self.popped.values_mut() {
            queue.next = queue.after_crash.clone();
        }
        for queue in self.pulled.values_mut() {
            queue.may_tell.append(&mut queue.told);
            if !world.sync {
                queue.may_tell.extend(queue.must_tell.take());
            }
        }
    }

    fn finish(&mut self, world: &mut World) {
        self.pop(world, 32);
        if world.random.one_in(3) {
            self.ack(world);
        }
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut again: HashMap<String, usize> = HashMap::new();
        let mut retried: BTreeSet<String> = BTreeSet::new();
        for message in world.shard.stored(RETRY, 0) {
            retried.insert(message.body.clone());
            *again.entry(message.body).or_default() += 1;
        }
        for message in world.shard.stored(DEAD, 0) {
            retried.insert(message.body);
        }
        for queue_id in 0..QUEUES {
            let queue = self.popped.entry(queue_id).or_default();
            let stored = world.shard.stored(TOPIC, queue_id);
            let end = stored.len() as i64;
            let is = format!("seed {seed}: queue {queue_id}");
            assert!(end == 0 || queue.next.contains(&end), "{is} has a rest");
            for (offset, message) in (0..).zip(stored) {
                let of = |pop: &&Pop| pop.place == (queue_id, offset);
                let due = self.pops.iter().filter(of).filter(|pop| !pop.cancelled);
                let most = due.count() * world.copies();
                let times = again.get(&message.body).copied().unwrap_or(0);
                assert!(
                    times <= most,
                    "{is} at {offset}: came again {times} times, not {most}"
                );
                let lost = !queue.passed.contains(&offset)
                    && !queue.acked.contains(&offset)
                    && !retried.contains(&message.body);
                assert!(!lost, "{is} at {offset}: lost");
            }
        }
    }
}

/// A reset says to which offsets it went.
fn told_as_expected(world: &World, answer: &Received, targets: &BTreeMap<i32, i64>) {
    let body = ResetOffsetBody::from_json(&answer.body).unwrap();
    let told = body.offset_table.iter();
    let told: BTreeMap<i32, i64> = told.map(|(queue, to)| (queue.queue_id, *to)).collect();
    assert_eq!(&told, targets, "seed {}", world.seed);
}
