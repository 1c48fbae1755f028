//! Send back: what was accepted comes once in the retry topic, with one failure more and not before its time, or is dead.

use std::collections::BTreeMap;
use std::collections::HashMap;

use corelane_wire::code::{request, response};

use super::{Feature, QUEUES, Received, World};
use crate::sim::shard::{StoredMessage, settings};

pub const TOPIC: &str = "failing";
pub const GROUP: &str = "retriers";
pub const MAX_RETRIES: i32 = 3;
const RETRY: &str = "%RETRY%retriers";
const DEAD: &str = "%DLQ%retriers";
/// The first level of a send back that names none.
const FIRST_LEVEL: i32 = 3;

/// A body, how often it has failed then, and whether it is dead.
type Place = (String, i32, bool);

#[derive(Default)]
struct Expected {
    /// The earliest moment of each one that may be there.
    earliest_ms: Vec<i64>,
    /// So many must be there.
    accepted: usize,
}

#[derive(Default)]
pub struct Retries {
    expected: BTreeMap<Place, Expected>,
    sends: HashMap<i32, String>,
    backs: HashMap<i32, Place>,
    /// What was sent, and whether that was acknowledged.
    sent: BTreeMap<String, bool>,
}

impl Retries {
    fn stored(world: &mut World) -> Vec<StoredMessage> {
        let mut stored = world.shard.stored(RETRY, 0);
        for queue_id in 0..QUEUES {
            stored.extend(world.shard.stored(TOPIC, queue_id));
        }
        stored
    }

    fn send_back(&mut self, world: &mut World) {
        let mut stored = Self::stored(world);
        if stored.is_empty() {
            return;
        }
        let message = stored.swap_remove(world.random.below(stored.len()));
        let level = world.random.below(5) as i32 - 1;
        let fields = [
            ("offset", &*message.position.to_string()),
            ("group", GROUP),
            ("delayLevel", &level.to_string()),
            ("originMsgId", "id"),
        ];
        let asked_ms = world.now_ms();
        let opaque = world.ask(request::CONSUMER_SEND_MSG_BACK, &fields, &[]);
        let failures = message.reconsume_times;
        let dead = level < 0 || failures >= MAX_RETRIES;
        let wait_ms = match (dead, level) {
            (true, _) => 0,
            (_, 0) => delay_ms(FIRST_LEVEL + failures),
            (_, level) => delay_ms(level),
        };
        let place = (message.body, failures + 1, dead);
        let expected = self.expected.entry(place.clone()).or_default();
        expected.earliest_ms.push(asked_ms + wait_ms);
        self.backs.insert(opaque, place);
    }
}

fn delay_ms(level: i32) -> i64 {
    let levels = settings().delay_levels_ms;
    levels[(level as usize).clamp(1, levels.len()) - 1]
}

impl Feature for Retries {
    fn act(&mut self, world: &mut World) {
        if self.sent.len() < 30 && world.random.one_in(3) {
            let body = world.body("failing");
            let opaque = world.send(TOPIC, &body, &[]);
            self.sent.insert(body.clone(), false);
            self.sends.insert(opaque, body);
        } else {
            self.send_back(world);
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        if let Some(body) = self.sends.remove(&frame.opaque) {
            self.sent.insert(body, world.done(frame));
            return true;
        }
        let Some(place) = self.backs.remove(&frame.opaque) else {
            return false;
        };
        if frame.code == response::SUCCESS {
            self.expected.entry(place).or_default().accepted += 1;
        } else {
            world.done(frame);
        }
        true
    }

    fn crashed(&mut self) {
        self.sends.clear();
        self.backs.clear();
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut found: BTreeMap<Place, Vec<i64>> = BTreeMap::new();
        let mut original: BTreeMap<String, usize> = BTreeMap::new();
        for message in Self::stored(world) {
            if message.reconsume_times == 0 {
                *original.entry(message.body).or_default() += 1;
            } else {
                let place = (message.body, message.reconsume_times, false);
                found.entry(place).or_default().push(message.store_ms);
            }
        }
        for message in world.shard.stored(DEAD, 0) {
            let place = (message.body, message.reconsume_times, true);
            found.entry(place).or_default().push(message.store_ms);
        }
        for (body, acknowledged) in &self.sent {
            let times = original.remove(body).unwrap_or(0);
            assert!(
                times <= 1 && (!acknowledged || times == 1),
                "seed {seed}: {body}: {times}"
            );
        }
        assert!(original.is_empty(), "seed {seed}: {original:?}");
        for (place, expected) in &mut self.expected {
            let mut came = found.remove(place).unwrap_or_default();
            let most = expected.earliest_ms.len();
            assert!(
                (expected.accepted..=most).contains(&came.len()),
                "seed {seed}: {place:?} is there {} times, not {} to {most}",
                came.len(),
                expected.accepted
            );
            came.sort_unstable();
            expected.earliest_ms.sort_unstable();
            for (came_ms, earliest_ms) in came.iter().zip(&expected.earliest_ms) {
                assert!(
                    came_ms >= earliest_ms,
                    "seed {seed}: {place:?} came too early"
                );
            }
        }
        assert!(found.is_empty(), "seed {seed}: nobody sent back {found:?}");
    }
}
