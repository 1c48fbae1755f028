//! Answers that wait for the log to be durable.
//!
//! An answer is written when its record is appended, while everything that it says is at hand, and is copied to its
//! connection when the log is durable up to the record's end. Positions grow as records are appended, so the answers lie
//! in one queue and their bytes in one buffer, in order; nothing is allocated for a single answer in steady state.

use std::collections::VecDeque;

use super::turn::{Connection, Output};
use crate::log::Position;

/// How long an answer waits at most for the NameServers to know of a new topic, in milliseconds.
const REGISTRATION_WAIT_MS: i64 = 3_000;

struct Held {
    end: Position,
    connection: Connection,
    bytes: usize,
    /// Length of the request, which is held up until the log is durable.
    request_bytes: usize,
    /// Version of the topics that the NameServers must know before this answer may go; 0 for none.
    registration: u64,
    since_mono_ms: i64,
}

struct AwaitingRegistration {
    version: u64,
    deadline_mono_ms: i64,
    connection: Connection,
    bytes: Vec<u8>,
}

/// Bytes of released answers that the buffer may begin with before those that wait are moved to its start.
const MAX_RELEASED_BYTES: usize = 256 << 10;

/// The answers of one shard that wait.
#[derive(Default)]
pub struct HeldReplies {
    queue: VecDeque<Held>,
    /// The answers of `queue`, behind `released` bytes of such as are gone.
    bytes: Vec<u8>,
    released: usize,
    registering: Vec<AwaitingRegistration>,
    registered: u64,
    waits: Waits,
}

impl HeldReplies {
    /// Holds what `write` writes until the log is durable up to `end`, and, where `registration` is not 0, until the
    /// NameServers know that version of the topics (or did not answer in time).
    pub fn hold(
        &mut self,
        end: Position,
        (connection, request_bytes): (Connection, usize),
        registration: u64,
        mono_ms: i64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        debug_assert!(
            self.queue.back().is_none_or(|last| last.end <= end),
            "answers are held in log order"
        );
        let before = self.bytes.len();
        write(&mut self.bytes);
        let bytes = self.bytes.len() - before;
        self.queue.push_back(Held {
            end,
            connection,
            bytes,
            request_bytes,
            registration,
            since_mono_ms: mono_ms,
        });
    }

    /// Sends what waited for the log up to `durable`.
    pub fn release(&mut self, durable: Position, mono_ms: i64, out: &mut dyn Output) {
        while let Some(held) = self.queue.pop_front_if(|held| held.end <= durable) {
            self.waits.count(mono_ms - held.since_mono_ms);
            let answer = &self.bytes[self.released..self.released + held.bytes];
            self.released += held.bytes;
            out.let_go(held.connection, held.request_bytes);
            if held.registration > self.registered {
                self.registering.push(AwaitingRegistration {
                    version: held.registration,
                    deadline_mono_ms: mono_ms + REGISTRATION_WAIT_MS,
                    connection: held.connection,
                    bytes: answer.to_vec(),
                });
                continue;
            }
            out.buffer(held.connection).extend_from_slice(answer);
        }
        if self.queue.is_empty() || self.released > MAX_RELEASED_BYTES {
            self.bytes.drain(..self.released);
            self.released = 0;
        }
    }

    /// The NameServers know this version of the topics.
    pub fn registered(&mut self, version: u64, out: &mut dyn Output) {
        self.registered = self.registered.max(version);
        let known = self.registered;
        for waiting in self
            .registering
            .extract_if(.., |waiting| waiting.version <= known)
        {
            out.buffer(waiting.connection)
                .extend_from_slice(&waiting.bytes);
        }
    }

    /// Sends what waited too long for a NameServer.
    pub fn expire(&mut self, mono_ms: i64, out: &mut dyn Output) {
        for waiting in self
            .registering
            .extract_if(.., |waiting| waiting.deadline_mono_ms <= mono_ms)
        {
            out.buffer(waiting.connection)
                .extend_from_slice(&waiting.bytes);
        }
    }

    /// When `expire` has something to do.
    pub fn deadline_mono_ms(&self) -> Option<i64> {
        self.registering
            .iter()
            .map(|waiting| waiting.deadline_mono_ms)
            .min()
    }

    /// How many answers wait for the log.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// How long the answer that waits longest has waited for the log.
    pub fn oldest_ms(&self, mono_ms: i64) -> i64 {
        self.queue
            .front()
            .map_or(0, |held| mono_ms - held.since_mono_ms)
    }

    /// How long answers waited for the log.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }
}

/// How long answers waited for the log, in the steps that tools show.
#[derive(Debug, Default)]
pub struct Waits {
    counts: [u64; STEPS.len()],
    longest_ms: i64,
}

/// Upper ends of the steps in milliseconds, and their names.
const STEPS: [(i64, &str); 13] = [
    (0, "[<=0ms]"),
    (10, "[0~10ms]"),
    (50, "[10~50ms]"),
    (100, "[50~100ms]"),
    (200, "[100~200ms]"),
    (500, "[200~500ms]"),
    (1_000, "[500ms~1s]"),
    (2_000, "[1~2s]"),
    (3_000, "[2~3s]"),
    (4_000, "[3~4s]"),
    (5_000, "[4~5s]"),
    (10_000, "[5~10s]"),
    (i64::MAX, "[10s~]"),
];

impl Waits {
    fn count(&mut self, wait_ms: i64) {
        let step = STEPS.partition_point(|(end, _)| *end < wait_ms);
        self.counts[step] += 1;
        self.longest_ms = self.longest_ms.max(wait_ms);
    }

    /// The longest wait so far.
    pub fn longest_ms(&self) -> i64 {
        self.longest_ms
    }

    /// The end of the step that this part of all waits (0 to 1) stayed below, and never more than the longest.
    pub fn below_ms(&self, part: f64) -> f64 {
        let all: u64 = self.counts.iter().sum();
        let mut seen = 0;
        for (count, (end, _)) in self.counts.iter().zip(STEPS) {
            seen += count;
            if seen as f64 >= all as f64 * part {
                return end.min(self.longest_ms) as f64;
            }
        }
        self.longest_ms as f64
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (count, (_, name)) in self.counts.iter().zip(STEPS) {
            write!(f, "{name}:{count} ")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_counted_in_steps() {
        let mut waits = Waits::default();
        for wait_ms in [0, 0, 1, 10, 11, 700, 60_000] {
            waits.count(wait_ms);
        }
        let text = waits.to_string();
        assert!(
            text.starts_with("[<=0ms]:2 [0~10ms]:2 [10~50ms]:1 "),
            "{text}"
        );
        assert!(text.ends_with("[10s~]:1 "), "{text}");
        assert_eq!(waits.longest_ms(), 60_000);
        assert_eq!(
            (waits.below_ms(0.5), waits.below_ms(0.999)),
            (10.0, 60_000.0)
        );
    }
}
