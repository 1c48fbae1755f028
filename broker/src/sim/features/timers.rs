//! Timers: once, never early, at most a second late; and never when they were recalled.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::request;

use super::kept::Kept;
use super::{Feature, QUEUES, Received, World};

pub const TOPIC: &str = "timed";
/// How late a timer may be: the rest of its second, and what a disk under load takes.
const LATE_MS: i64 = 2_000;

#[derive(Default)]
struct Timer {
    due_ms: i64,
    stored: Kept<bool>,
    handle: Option<String>,
    recall_asked: bool,
    recalled: Kept<bool>,
}

enum Asked {
    Send(String),
    Recall(String),
}

#[derive(Default)]
pub struct Timers {
    timers: BTreeMap<String, Timer>,
    asked: HashMap<i32, Asked>,
}

impl Timers {
    fn recall(&mut self, world: &mut World) {
        // A handle has the second's beginning; in its last second a timer cannot be recalled.
        let from_ms = world.now_ms() + 1_000;
        let mut waiting: Vec<_> = self
            .timers
            .iter_mut()
            .filter(|(_, timer)| timer.handle.is_some() && timer.due_ms > from_ms)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let at = world.random.below(waiting.len());
        let (body, timer) = waiting.swap_remove(at);
        let handle = timer.handle.clone().unwrap_or_default();
        let fields = [("topic", TOPIC), ("recallHandle", &handle)];
        let opaque = world.ask(request::RECALL_MESSAGE, &fields, &[]);
        timer.recall_asked = true;
        self.asked.insert(opaque, Asked::Recall(body.clone()));
    }
}

impl Feature for Timers {
    fn act(&mut self, world: &mut World) {
        if world.random.one_in(3) {
            self.recall(world);
            return;
        }
        let body = world.body("timer");
        let delay_ms =
            [300, 1_000, 5_000, 40_000][world.random.below(4)] + world.random.below(3_000) as i64;
        let due_ms = world.now_ms() + delay_ms;
        let (name, value) = match world.random.below(2) {
            0 => ("TIMER_DELAY_MS", delay_ms),
            _ => ("TIMER_DELIVER_MS", due_ms),
        };
        let pairs = [(name, &*value.to_string()), ("UNIQ_KEY", &body)];
        let opaque = world.send(TOPIC, &body, &pairs);
        let timer = Timer {
            due_ms,
            ..Timer::default()
        };
        self.timers.insert(body.clone(), timer);
        self.asked.insert(opaque, Asked::Send(body));
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        match self.asked.remove(&frame.opaque) {
            None => return false,
            Some(Asked::Send(body)) => {
                let timer = self.timers.get_mut(&body).unwrap();
                let done = world.done(frame);
                timer.stored.set(world, done);
                timer.handle = frame.fields.get("recallHandle").cloned();
                assert_eq!(timer.handle.is_some(), done, "seed {}", world.seed);
            }
            Some(Asked::Recall(body)) => {
                let timer = self.timers.get_mut(&body).unwrap();
                if world.done(frame) {
                    timer.recalled.set(world, true);
                }
            }
        }
        true
    }

    fn flushed(&mut self, _: &World) {
        for timer in self.timers.values_mut() {
            timer.stored.flushed();
            timer.recalled.flushed();
        }
    }

    fn crashed(&mut self, _: &World) {
        self.asked.clear();
        for timer in self.timers.values_mut() {
            timer.stored.crashed();
            timer.recalled.crashed();
        }
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut found: HashMap<String, usize> = HashMap::new();
        for queue_id in 0..QUEUES {
            for message in world.shard.stored(TOPIC, queue_id) {
                let timer = &self.timers[&message.body];
                let late_ms = message.store_ms - timer.due_ms;
                // The shard may have slept when it was due.
                let most_ms = LATE_MS + i64::from(world.crashes) * 15_000;
                assert!(
                    (0..=most_ms).contains(&late_ms),
                    "seed {seed}: {} came {late_ms} ms late",
                    message.body
                );
                *found.entry(message.body).or_default() += 1;
            }
        }
        for (body, timer) in &self.timers {
            let times = found.get(body).copied().unwrap_or(0);
            assert!(times <= 1, "seed {seed}: {body} came {times} times");
            if *timer.recalled.get() {
                assert_eq!(times, 0, "seed {seed}: {body} was recalled and came");
            } else if *timer.stored.get() && !timer.recall_asked {
                assert_eq!(times, 1, "seed {seed}: {body} was lost");
            }
        }
    }
}
