//! Send back: what was accepted comes once in the retry topic, with one failure more and when its group's policy says, as that is
//! then, or is dead.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use corelane_wire::body::{
    CustomizedRetryPolicy, ExponentialRetryPolicy, GroupRetryPolicy, GroupRetryPolicyType,
    SubscriptionGroupConfig,
};
use corelane_wire::code::request;

use super::kept::Kept;
use super::{Feature, QUEUES, Received, World};
use crate::sim::shard::{StoredMessage, settings};

/// One for each policy: the broker's levels, an exponential one, waits of the group's own.
pub const TOPICS: [&str; 3] = ["failing", "failing-slower", "failing-often"];
pub const GROUPS: [&str; 3] = ["retriers", "slow-retriers", "own-retriers"];
const MAX_RETRIES: [i32; 3] = [3, 5, 4];
/// Queues of the retry topic.
const RETRY_QUEUES: [i32; 3] = [1, 1, 2];
/// The first level of a send back that names none.
const FIRST_LEVEL: i32 = 3;
const INITIAL_MS: i64 = 2_000;
const FACTOR: i64 = 3;
const MAX_MS: i64 = 20_000;
const WAITS_MS: [i64; 5] = [500, 700, 3_000, 0, 9_000];
/// How late a retry may be: the rest of its second, and what a disk under load takes.
const LATE_MS: i64 = 2_000;

/// A body, how often it has failed then, and whether it is dead.
type Place = (String, i32, bool);

#[derive(Default)]
struct Expected {
    /// The earliest moment of each one that may be there, and the latest but for what a disk takes.
    earliest_ms: Vec<i64>,
    latest_ms: Vec<i64>,
    /// So many must be there.
    accepted: Kept<usize>,
}

/// The groups.
pub fn groups() -> [SubscriptionGroupConfig; 3] {
    [0, 1, 2].map(|kind| group(kind, kind))
}

/// A group, with the policy that another one had first.
fn group(kind: usize, policy: usize) -> SubscriptionGroupConfig {
    let exponential = GroupRetryPolicy {
        kind: GroupRetryPolicyType::Exponential,
        exponential_retry_policy: Some(ExponentialRetryPolicy {
            initial: INITIAL_MS,
            max: MAX_MS,
            multiplier: FACTOR,
        }),
        ..GroupRetryPolicy::default()
    };
    let own = GroupRetryPolicy {
        kind: GroupRetryPolicyType::Customized,
        customized_retry_policy: Some(CustomizedRetryPolicy {
            next: WAITS_MS.to_vec(),
        }),
        ..GroupRetryPolicy::default()
    };
    SubscriptionGroupConfig {
        group_name: GROUPS[kind].to_owned(),
        retry_max_times: MAX_RETRIES[kind],
        retry_queue_nums: RETRY_QUEUES[kind],
        group_retry_policy: match policy {
            0 => GroupRetryPolicy::default(),
            1 => exponential,
            _ => own,
        },
        ..SubscriptionGroupConfig::default()
    }
}

pub struct Retries {
    kind: usize,
    expected: BTreeMap<Place, Expected>,
    sends: HashMap<i32, String>,
    backs: HashMap<i32, Place>,
    /// What was sent, and whether that was acknowledged.
    sent: BTreeMap<String, Kept<bool>>,
    /// The policies that may hold, and those that a crash may bring back.
    policies: BTreeSet<usize>,
    after_crash: BTreeSet<usize>,
    /// The change of the policy that is under way.
    change: Option<(i32, usize)>,
}

impl Retries {
    /// Of the topic and the group of that number.
    pub fn new(kind: usize) -> Self {
        Self {
            kind,
            expected: BTreeMap::new(),
            sends: HashMap::new(),
            backs: HashMap::new(),
            sent: BTreeMap::new(),
            policies: BTreeSet::from([kind]),
            after_crash: BTreeSet::from([kind]),
            change: None,
        }
    }

    /// Changes the policy, while nothing is under way that asks for it.
    fn change_policy(&mut self, world: &mut World) {
        let policy = world.random.below(3);
        let body = group(self.kind, policy).to_json();
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        let opaque = world.ask(code, &[], &body);
        self.change = Some((opaque, policy));
    }

    fn stored(&self, world: &mut World) -> Vec<StoredMessage> {
        let retry = format!("%RETRY%{}", GROUPS[self.kind]);
        let mut stored = Vec::new();
        for queue_id in 0..RETRY_QUEUES[self.kind] {
            stored.extend(world.shard.stored(&retry, queue_id));
        }
        for queue_id in 0..QUEUES {
            stored.extend(world.shard.stored(TOPICS[self.kind], queue_id));
        }
        stored
    }

    fn send_back(&mut self, world: &mut World) {
        let mut stored = self.stored(world);
        if stored.is_empty() {
            return;
        }
        let message = stored.swap_remove(world.random.below(stored.len()));
        let level = match world.random.below(6) {
            0 => -1,
            level @ 1..4 => level as i32,
            _ => 0,
        };
        // Some consumers say themselves how often is too often.
        let max = (world.random.one_in(4)).then(|| world.random.below(4) as i32);
        let (position, level_text) = (message.position.to_string(), level.to_string());
        let max_text = max.unwrap_or_default().to_string();
        let mut fields = vec![
            ("offset", &*position),
            ("group", GROUPS[self.kind]),
            ("delayLevel", &level_text),
            ("originMsgId", "id"),
        ];
        if max.is_some() {
            fields.push(("maxReconsumeTimes", &max_text));
        }
        let asked_ms = world.now_ms();
        let opaque = world.ask(request::CONSUMER_SEND_MSG_BACK, &fields, &[]);
        let failures = message.reconsume_times;
        let dead = level < 0 || failures >= max.unwrap_or(MAX_RETRIES[self.kind]);
        let waits_ms: Vec<i64> = match (dead, level) {
            (true, _) => vec![0],
            (_, 0) => {
                let policies = self.policies.iter();
                policies
                    .map(|policy| policy_ms(*policy, failures))
                    .collect()
            }
            (_, level) => vec![level_ms(level)],
        };
        let place = (message.body, failures + 1, dead);
        let expected = self.expected.entry(place.clone()).or_default();
        let (least, most) = (waits_ms.iter().min(), waits_ms.iter().max());
        expected.earliest_ms.push(asked_ms + least.unwrap());
        expected.latest_ms.push(asked_ms + most.unwrap());
        self.backs.insert(opaque, place);
    }
}

/// How long a policy lets the next retry wait.
fn policy_ms(policy: usize, failures: i32) -> i64 {
    match policy {
        0 => level_ms(FIRST_LEVEL + failures),
        1 => (INITIAL_MS * FACTOR.pow(failures as u32)).min(MAX_MS),
        _ => WAITS_MS[(failures as usize + 2).min(WAITS_MS.len() - 1)],
    }
}

fn level_ms(level: i32) -> i64 {
    let levels = settings().delay_levels_ms;
    levels[(level as usize).clamp(1, levels.len()) - 1]
}

impl Feature for Retries {
    fn act(&mut self, world: &mut World) {
        if self.sent.len() < 15 && world.random.one_in(3) {
            let body = world.body("failing");
            let opaque = world.send(TOPICS[self.kind], &body, &[]);
            self.sent.insert(body.clone(), Kept::default());
            self.sends.insert(opaque, body);
        } else if self.change.is_some() {
            // A send back could meet either policy.
        } else if self.backs.is_empty() && world.random.one_in(4) {
            self.change_policy(world);
        } else {
            self.send_back(world);
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        if let Some(body) = self.sends.remove(&frame.opaque) {
            let done = world.done(frame);
            self.sent.entry(body).or_default().set(world, done);
            return true;
        }
        if let Some((_, policy)) = self.change.take_if(|(opaque, _)| *opaque == frame.opaque) {
            if world.done(frame) {
                self.policies = BTreeSet::from([policy]);
                self.after_crash.insert(policy);
                if world.sync {
                    self.after_crash = self.policies.clone();
                }
            }
            return true;
        }
        let Some(place) = self.backs.remove(&frame.opaque) else {
            return false;
        };
        if world.done(frame) {
            let accepted = &mut self.expected.entry(place).or_default().accepted;
            accepted.set(world, accepted.get() + 1);
        }
        true
    }

    fn flushed(&mut self, _: &World) {
        self.after_crash.clone_from(&self.policies);
        self.sent.values_mut().for_each(Kept::flushed);
        for expected in self.expected.values_mut() {
            expected.accepted.flushed();
        }
    }

    fn crashed(&mut self, _: &World) {
        self.policies.clone_from(&self.after_crash);
        if let Some((_, policy)) = self.change.take() {
            self.policies.insert(policy);
            self.after_crash.insert(policy);
        }
        self.sends.clear();
        self.backs.clear();
        self.sent.values_mut().for_each(Kept::crashed);
        for expected in self.expected.values_mut() {
            expected.accepted.crashed();
        }
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut found: BTreeMap<Place, Vec<i64>> = BTreeMap::new();
        let mut original: BTreeMap<String, usize> = BTreeMap::new();
        for message in self.stored(world) {
            if message.reconsume_times == 0 {
                *original.entry(message.body).or_default() += 1;
            } else {
                let place = (message.body, message.reconsume_times, false);
                found.entry(place).or_default().push(message.store_ms);
            }
        }
        let dead = format!("%DLQ%{}", GROUPS[self.kind]);
        for message in world.shard.stored(&dead, 0) {
            let place = (message.body, message.reconsume_times, true);
            found.entry(place).or_default().push(message.store_ms);
        }
        for (body, acknowledged) in &self.sent {
            let times = original.remove(body).unwrap_or(0);
            assert!(
                times <= 1 && (!acknowledged.get() || times == 1),
                "seed {seed}: {body}: {times}"
            );
        }
        assert!(original.is_empty(), "seed {seed}: {original:?}");
        // The shard may have slept when it was due.
        let late_ms = LATE_MS + i64::from(world.crashes) * 15_000;
        for (place, expected) in &mut self.expected {
            let mut came = found.remove(place).unwrap_or_default();
            let (least, most) = (*expected.accepted.get(), expected.earliest_ms.len());
            assert!(
                (least..=most).contains(&came.len()),
                "seed {seed}: {place:?} is there {} times, not {least} to {most}",
                came.len()
            );
            came.sort_unstable();
            expected.earliest_ms.sort_unstable();
            expected.latest_ms.sort_unstable();
            for (came_ms, earliest_ms) in came.iter().zip(&expected.earliest_ms) {
                assert!(
                    came_ms >= earliest_ms,
                    "seed {seed}: {place:?} came too early"
                );
            }
            let latest = expected.latest_ms.iter().rev();
            for (came_ms, latest_ms) in came.iter().rev().zip(latest) {
                assert!(
                    *came_ms <= latest_ms + late_ms,
                    "seed {seed}: {place:?} came {} ms late",
                    came_ms - latest_ms
                );
            }
        }
        assert!(found.is_empty(), "seed {seed}: nobody sent back {found:?}");
    }
}
