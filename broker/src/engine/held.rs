//! Answers that wait for the log to be durable.
//!
//! An answer is written when its record is appended, while everything that it says is at hand, and is copied to its
//! connection when the log is durable up to the record's end. Positions grow as records are appended, so the answers lie
//! in one queue and their bytes in one ring; nothing is allocated for a single answer in steady state.

use std::collections::VecDeque;

use super::turn::{Connection, Output};
use crate::log::Position;

/// How long an answer waits at most for the NameServers to know of a new topic, in milliseconds.
const REGISTRATION_WAIT_MS: i64 = 3_000;

struct Held {
    end: Position,
    connection: Connection,
    bytes: usize,
    /// Version of the topics that the NameServers must know before this answer may go; 0 for none.
    registration: u64,
}

struct AwaitingRegistration {
    version: u64,
    deadline_mono_ms: i64,
    connection: Connection,
    bytes: Vec<u8>,
}

/// The answers of one shard that wait.
#[derive(Default)]
pub struct HeldReplies {
    queue: VecDeque<Held>,
    bytes: VecDeque<u8>,
    scratch: Vec<u8>,
    registering: Vec<AwaitingRegistration>,
    registered: u64,
}

impl HeldReplies {
    /// Holds what `write` writes until the log is durable up to `end`, and, where `registration` is not 0, until the
    /// NameServers know that version of the topics (or did not answer in time).
    pub fn hold(
        &mut self,
        end: Position,
        connection: Connection,
        registration: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        debug_assert!(
            self.queue.back().is_none_or(|last| last.end <= end),
            "answers are held in log order"
        );
        self.scratch.clear();
        write(&mut self.scratch);
        self.bytes.extend(&self.scratch);
        self.queue.push_back(Held {
            end,
            connection,
            bytes: self.scratch.len(),
            registration,
        });
    }

    /// Sends what waited for the log up to `durable`.
    pub fn release(&mut self, durable: Position, mono_ms: i64, out: &mut dyn Output) {
        while let Some(held) = self.queue.pop_front_if(|held| held.end <= durable) {
            if held.registration > self.registered {
                self.registering.push(AwaitingRegistration {
                    version: held.registration,
                    deadline_mono_ms: mono_ms + REGISTRATION_WAIT_MS,
                    connection: held.connection,
                    bytes: self.bytes.drain(..held.bytes).collect(),
                });
                continue;
            }
            let buffer = out.buffer(held.connection);
            let (front, back) = self.bytes.as_slices();
            let first = held.bytes.min(front.len());
            buffer.extend_from_slice(&front[..first]);
            buffer.extend_from_slice(&back[..held.bytes - first]);
            self.bytes.drain(..held.bytes);
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
}
