//! Messages that wait: delay levels, timers, and their recall.
//!
//! A message that asks for a later delivery is stored at once, in a topic of the system, with its own topic and queue in
//! `REAL_TOPIC` and `REAL_QID`. Nothing of it stays in memory: the log's queues are the index. When it is due it is stored
//! anew where it belongs ([`deliver`]); levels are queues of `SCHEDULE_TOPIC_XXXX` ([`level`]), timers lie in a queue for
//! each second ([`timer`]).
//!
//! Promises: a message is never delivered before it is due; messages of one level, and of one second, are delivered in the
//! order in which they were stored; every message is delivered once, also across a crash, for what was delivered and how
//! far that went are in one group of the log.

mod deliver;
mod level;
mod recall;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod timer;

use std::collections::{BTreeMap, HashSet};

use corelane_wire::Text;
use corelane_wire::code::response;
use corelane_wire::properties::name as property;

use super::Engine;
use super::name::SCHEDULE_TOPIC;
use super::settings::Settings;
use super::store::NewMessage;
use super::turn::{Now, Refusal, Turn};
use crate::log::{AppendError, Appended, Log, QueueRef, ReadId, StateWriter};
use level::Level;
use timer::Timers;

/// State records of this module. `(level from 0, offset)`: the level is delivered up to there.
pub(super) const LEVEL_PROGRESS: u16 = 10;
/// `(second, offset)`: all seconds before it are delivered, and it is up to there.
pub(super) const TIMER_PROGRESS: u16 = 11;
/// `(hour, 0)`: the hour has queues.
pub(super) const TIMER_HOUR: u16 = 12;
/// `(hour, 0)`: the hour and all before it are delivered, and their queues gone.
pub(super) const TIMER_HOUR_DONE: u16 = 13;
/// The kinds of state records that [`Engine::apply_delay`] takes.
pub(super) const STATE_KINDS: std::ops::RangeInclusive<u16> = LEVEL_PROGRESS..=TIMER_HOUR_DONE;

/// The most levels that can be configured.
const MOST_LEVELS: usize = 64;
/// Messages delivered in one call, about; others get their turn in between.
const MAX_A_CALL: usize = 256;
/// The longest time between two looks at the clock while something waits: the wall clock may jump.
const LOOK_AGAIN_MS: i64 = 1_000;
/// After so long the log is asked again when it was busy, or what was appended is not durable yet.
const RETRY_MS: i64 = 2;

/// When a message is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// At once.
    Now,
    /// After the delay of a level, counted from 1.
    Level(usize),
    /// At a time of the wall clock, in milliseconds.
    At(i64),
}

/// A message that was taken, now or for later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Where it was stored.
    pub appended: Appended,
    /// Of a timer: the time of delivery, rounded as the protocol does, in milliseconds.
    pub timer_out_ms: Option<i64>,
}

/// The properties that say when a message is to be delivered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub level: Option<Text<'a>>,
    pub delay_secs: Option<Text<'a>>,
    pub delay_ms: Option<Text<'a>>,
    pub deliver_ms: Option<Text<'a>>,
    /// Set where a timer had the message already.
    pub out_ms: Option<Text<'a>>,
}

/// When one source of waiting messages is to be looked at again.
#[derive(Debug, Clone, Copy)]
struct Wake {
    mono_ms: i64,
    /// It waits for the disk.
    reading: bool,
}

impl Wake {
    /// At once.
    const NOW: Self = Self {
        mono_ms: i64::MIN,
        reading: false,
    };
    /// When something is stored.
    const NEVER: Self = Self {
        mono_ms: i64::MAX,
        reading: false,
    };

    fn after_ms(now: Now, wait_ms: i64) -> Self {
        Self {
            mono_ms: now.mono_ms.saturating_add(wait_ms),
            reading: false,
        }
    }

    /// At a time of the wall clock, or a look at the clock before it.
    fn at_wall(now: Now, wall_ms: i64) -> Self {
        Self::after_ms(
            now,
            wall_ms.saturating_sub(now.wall_ms).clamp(0, LOOK_AGAIN_MS),
        )
    }

    fn reading(now: Now) -> Self {
        Self {
            mono_ms: now.mono_ms + LOOK_AGAIN_MS,
            reading: true,
        }
    }
}

/// Everything that waits in a shard.
pub struct Delays {
    levels: Vec<Level>,
    timers: Timers,
    /// Reads that deliveries wait for.
    reads: HashSet<ReadId>,
    /// Up to which offset the records of queues that are being delivered were asked for.
    ahead: BTreeMap<QueueRef, i64>,
    /// Whether the levels that the log has queues of are known.
    loaded: bool,
    /// The earliest of all wakes, or earlier.
    deadline_mono_ms: i64,
    /// The source that is looked at first; the timers are the one behind the levels.
    first: usize,
}

impl Delays {
    /// Nothing waits, as far as is known before replay.
    pub fn new(settings: &Settings) -> Self {
        Self {
            levels: settings
                .delay_levels_ms
                .iter()
                .map(|delay_ms| Level::new(*delay_ms))
                .collect(),
            timers: Timers::new(),
            reads: HashSet::new(),
            ahead: BTreeMap::new(),
            loaded: false,
            deadline_mono_ms: i64::MIN,
            first: 0,
        }
    }

    /// When [`Engine::deliver_due`] has something to do.
    pub fn deadline_mono_ms(&self) -> i64 {
        self.deadline_mono_ms
    }

    /// A read is done: who waits for one looks again.
    pub fn read_done(&mut self, read: ReadId) {
        if !self.reads.remove(&read) {
            return;
        }
        let wakes = self
            .levels
            .iter_mut()
            .map(|level| &mut level.wake)
            .chain([&mut self.timers.wake]);
        for wake in wakes.filter(|wake| wake.reading) {
            *wake = Wake::NOW;
        }
        self.deadline_mono_ms = i64::MIN;
    }

    /// Finds the levels that were configured once and may still hold messages.
    fn load(&mut self, log: &Log) {
        let last = (0..MOST_LEVELS)
            .rev()
            .find(|index| log.find_queue(SCHEDULE_TOPIC, *index as i32).is_some());
        self.keep_levels(last.map_or(0, |index| index + 1));
        self.loaded = true;
    }

    /// Levels beyond the configured ones wait as long as the last of those.
    fn keep_levels(&mut self, count: usize) {
        let last_ms = self.levels.last().map_or(0, |level| level.delay_ms);
        while self.levels.len() < count {
            self.levels.push(Level::new(last_ms));
        }
    }

    /// How far each level is delivered that was ever used: its number from 1, and the offset.
    pub fn level_offsets(&self) -> impl Iterator<Item = (i32, i64)> {
        let levels = self.levels.iter().zip(1..);
        levels
            .filter(|(level, _)| level.offset > 0)
            .map(|(level, number)| (number, level.offset))
    }

    /// How many timers wait.
    pub fn timers_waiting(&self) -> i64 {
        self.timers.waiting()
    }

    /// For how many seconds timers have been due that are not delivered.
    pub fn timers_behind_secs(&self, now: Now) -> i64 {
        self.timers.behind_secs(now.wall_ms)
    }

    /// What must survive, as state records.
    pub fn snapshot(&self, writer: &mut StateWriter) {
        for (index, level) in self.levels.iter().enumerate() {
            if level.offset > 0 {
                writer.push(LEVEL_PROGRESS, &pair(index as i64, level.offset));
            }
        }
        self.timers.snapshot(writer);
    }
}

impl Engine {
    /// When the properties ask a message to be delivered.
    pub(super) fn due(&self, wall_ms: i64, asked: &Asked<'_>) -> Result<Due, Refusal> {
        if let Some(level) = asked.level {
            let level: i32 = number(property::DELAY, level)?;
            if level > 0 {
                return Ok(Due::Level(
                    (level as usize).min(self.settings.delay_levels_ms.len()),
                ));
            }
        }
        if asked.out_ms.is_some() {
            return Ok(Due::Now);
        }
        let deliver_ms = if let Some(secs) = asked.delay_secs {
            let secs: i64 = number(property::TIMER_DELAY_SEC, secs)?;
            wall_ms.saturating_add(secs.saturating_mul(1_000))
        } else if let Some(delay_ms) = asked.delay_ms {
            wall_ms.saturating_add(number(property::TIMER_DELAY_MS, delay_ms)?)
        } else if let Some(deliver_ms) = asked.deliver_ms {
            number(property::TIMER_DELIVER_MS, deliver_ms)?
        } else {
            return Ok(Due::Now);
        };
        if deliver_ms <= wall_ms {
            return Ok(Due::Now);
        }
        if deliver_ms - wall_ms > self.settings.timer_max_delay_ms {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!(
                    "timer message illegal, the delay must be at most {} s (timer_max_delay_secs)",
                    self.settings.timer_max_delay_ms / 1_000
                ),
            ));
        }
        Ok(Due::At(deliver_ms))
    }

    /// Stores a message where it belongs, or where it waits until it is due.
    pub(super) fn store_due(
        &mut self,
        turn: &mut Turn<'_>,
        message: &NewMessage<'_>,
        due: Due,
    ) -> Result<Taken, Refusal> {
        match due {
            Due::Now => Ok(Taken {
                appended: self.store(turn, message)?,
                timer_out_ms: None,
            }),
            Due::Level(level) => {
                let delay_ms = self
                    .settings
                    .delay_levels_ms
                    .get(level - 1)
                    .copied()
                    .unwrap_or(0);
                // So long the log need not keep it: as a timer it is stored anew in time.
                if delay_ms > self.settings.timer_horizon_ms {
                    return self.store_timer(
                        turn,
                        message,
                        turn.now.wall_ms.saturating_add(delay_ms),
                    );
                }
                Ok(Taken {
                    appended: self.store_level(turn, message, level - 1)?,
                    timer_out_ms: None,
                })
            }
            Due::At(deliver_ms) => self.store_timer(turn, message, deliver_ms),
        }
    }

    /// Delivers what is due, up to about [`MAX_A_CALL`] messages; `deadline_mono_ms` says when to come again.
    pub(super) fn deliver_due(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_ms < self.delays.deadline_mono_ms {
            return;
        }
        if !self.delays.loaded {
            self.delays.load(turn.log);
        }
        let sources = self.delays.levels.len() + 1;
        let mut delivered = 0;
        let mut progressed = true;
        while progressed && delivered < MAX_A_CALL {
            progressed = false;
            self.delays.first = (self.delays.first + 1) % sources;
            for source in 0..sources {
                let source = (self.delays.first + source) % sources;
                let messages = match self.delays.levels.get(source) {
                    Some(level) if level.wake.mono_ms > turn.now.mono_ms => 0,
                    Some(_) => self.deliver_level(turn, source),
                    None if self.delays.timers.wake.mono_ms > turn.now.mono_ms => 0,
                    None => self.deliver_timers(turn),
                };
                delivered += messages;
                progressed |= messages > 0;
            }
        }
        let levels = self
            .delays
            .levels
            .iter()
            .map(|level| level.wake.mono_ms)
            .min()
            .unwrap_or(i64::MAX);
        self.delays.deadline_mono_ms = levels.min(self.delays.timers.wake.mono_ms);
    }

    /// Takes back a state record of this module.
    pub(super) fn apply_delay(
        &mut self,
        log: &mut Log,
        kind: u16,
        payload: &[u8],
    ) -> Result<(), String> {
        let (key, value) = unpair(payload).ok_or("the progress of a delay is cut short")?;
        match kind {
            LEVEL_PROGRESS => {
                let index = usize::try_from(key)
                    .ok()
                    .filter(|index| *index < MOST_LEVELS)
                    .ok_or("no such delay level")?;
                self.delays.keep_levels(index + 1);
                self.delays.levels[index].offset = value;
            }
            TIMER_PROGRESS => self.delays.timers.reached(key, value),
            TIMER_HOUR => self.delays.timers.open_hour(key),
            TIMER_HOUR_DONE => self.delays.timers.end_hours_until(log, key),
            other => return Err(format!("unknown kind {other} of state record")),
        }
        Ok(())
    }
}

/// The number in a property; a refusal where it is none.
fn number<N: std::str::FromStr>(name: &str, text: Text<'_>) -> Result<N, Refusal> {
    let text = text.to_str();
    text.parse().map_err(|_| {
        Refusal::new(
            response::MESSAGE_ILLEGAL,
            format!("{name} is no number: {text:?}"),
        )
    })
}

/// After so long the log is asked again that took nothing.
fn retry_ms(error: AppendError) -> i64 {
    match error {
        AppendError::Busy => RETRY_MS,
        AppendError::TooLarge | AppendError::DiskFull | AppendError::Stopped => LOOK_AGAIN_MS,
    }
}

pub(super) fn pair(key: i64, value: i64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&key.to_le_bytes());
    out[8..].copy_from_slice(&value.to_le_bytes());
    out
}

pub(super) fn unpair(payload: &[u8]) -> Option<(i64, i64)> {
    let (key, value) = payload.split_first_chunk::<8>()?;
    let value = <&[u8; 8]>::try_from(value).ok()?;
    Some((i64::from_le_bytes(*key), i64::from_le_bytes(*value)))
}
