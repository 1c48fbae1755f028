//! Transactions: half messages that no consumer sees until their producer says commit.
//!
//! A half message lies in queue 0 of [`HALF_TOPIC`], with the topic and the queue that it is for among its properties. It is
//! pending until it ends, and ends with a commit (the message is stored where it belongs), with a rollback, or, when its
//! producer was asked in vain too often, in [`DEAD_TOPIC`]. Every end is one state record, in one group of the log with
//! what the end stores; so after a restart the pending ones are those of the snapshot and all half messages behind it,
//! less those that ended, and no commit is delivered twice. They keep their place in the log while they are asked about:
//! the number of checks is kept here, and is written into what is sent and stored.
//!
//! Memory: one [`Pending`] and one entry of `due` a pending half message, at most `max_pending_transactions` of them.

mod check;
mod end;
mod half;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Engine;
use super::turn::Now;
use crate::log::{Log, ReadId, StateWriter};

/// Where half messages wait.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Where they go when their producer was asked in vain too often.
pub const DEAD_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

/// State record: the end of a half message. `offset i64`, little-endian as all of them.
pub(super) const ENDED: u16 = 20;
/// State record: checks that were made. `(offset i64, checks u32)...`.
pub(super) const CHECKED: u16 = 21;
/// State record of snapshots: half messages before `next` that have not ended. `next i64, (offset i64, checks u32)...`.
pub(super) const PENDING: u16 = 22;

/// A half message that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pending {
    /// How often its producer was asked.
    checks: u32,
    /// When it is looked at next; `i64::MAX` while a read is under way for it.
    due_mono_ms: i64,
}

/// The half messages of a shard that have not ended, by their offset in the half queue.
#[derive(Default)]
pub struct Transactions {
    pending: BTreeMap<i64, Pending>,
    due: BTreeSet<(i64, i64)>,
    reading: HashMap<ReadId, Vec<i64>>,
    /// Half messages from this offset on are not in `pending` yet.
    next: i64,
    /// No check before this moment, whatever is due.
    rest_until_mono_ms: i64,
    /// Which of a group's producers is asked next.
    round: usize,
}

impl Transactions {
    /// How many have not ended.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// When there is something to do.
    pub fn deadline_mono_ms(&self) -> Option<i64> {
        self.due
            .first()
            .map(|(due, _)| (*due).max(self.rest_until_mono_ms))
    }

    fn schedule(&mut self, offset: i64, due_mono_ms: i64) {
        let Some(pending) = self.pending.get_mut(&offset) else {
            return;
        };
        self.due.remove(&(pending.due_mono_ms, offset));
        pending.due_mono_ms = due_mono_ms;
        if due_mono_ms < i64::MAX {
            self.due.insert((due_mono_ms, offset));
        }
    }

    /// All half messages before `next` are known: those that are new are pending.
    fn know_until(&mut self, next: i64, due_mono_ms: i64) {
        for offset in self.next..next {
            self.pending.insert(
                offset,
                Pending {
                    checks: 0,
                    due_mono_ms: i64::MAX,
                },
            );
            self.schedule(offset, due_mono_ms);
        }
        self.next = self.next.max(next);
    }

    fn remove(&mut self, offset: i64) {
        if let Some(pending) = self.pending.remove(&offset) {
            self.due.remove(&(pending.due_mono_ms, offset));
        }
    }

    /// Forgets what an earlier life of the half topic held before `min`, and learns of what came behind the last snapshot.
    fn recovered(&mut self, min: i64, next: i64, due_mono_ms: i64) {
        self.next = self.next.max(min);
        self.pending = self.pending.split_off(&min);
        self.know_until(next, i64::MAX);
        for offset in self.pending.keys().copied().collect::<Vec<_>>() {
            self.schedule(offset, due_mono_ms);
        }
    }

    pub(super) fn snapshot(&self, writer: &mut StateWriter) {
        if self.next == 0 {
            return;
        }
        let mut payload = Vec::with_capacity(8 + self.pending.len() * 12);
        payload.extend_from_slice(&self.next.to_le_bytes());
        for (offset, pending) in &self.pending {
            push_checks(&mut payload, *offset, pending.checks);
        }
        writer.push(PENDING, &payload);
    }

    /// Takes a state record in; `None` for one that is cut short.
    pub(super) fn apply(&mut self, kind: u16, payload: &[u8]) -> Option<()> {
        let offset_of = |bytes: &[u8]| bytes.first_chunk().copied().map(i64::from_le_bytes);
        let checks = match kind {
            ENDED => {
                let offset = offset_of(payload)?;
                self.know_until(offset + 1, i64::MAX);
                self.remove(offset);
                return Some(());
            }
            CHECKED => payload,
            _ => {
                let next = offset_of(payload)?;
                self.pending.clear();
                self.next = next;
                payload.get(8..)?
            }
        };
        for entry in checks.chunks(12) {
            let (offset, count) = (
                offset_of(entry)?,
                u32::from_le_bytes(*entry.get(8..)?.first_chunk()?),
            );
            if kind == CHECKED {
                self.know_until(offset + 1, i64::MAX);
                if let Some(pending) = self.pending.get_mut(&offset) {
                    pending.checks = count;
                }
            } else {
                self.pending.insert(
                    offset,
                    Pending {
                        checks: count,
                        due_mono_ms: i64::MAX,
                    },
                );
            }
        }
        Some(())
    }
}

fn push_checks(payload: &mut Vec<u8>, offset: i64, checks: u32) {
    payload.extend_from_slice(&offset.to_le_bytes());
    payload.extend_from_slice(&checks.to_le_bytes());
}

impl Engine {
    /// Replay is over: half messages that were left pending are asked about again, one time-out from now.
    pub(super) fn transactions_started(&mut self, log: &Log, now: Now) {
        let (min, next) = log.find_queue(HALF_TOPIC, 0).map_or((0, 0), |queue| {
            (log.min_offset(queue), log.next_offset(queue))
        });
        self.transactions.recovered(
            min,
            next,
            now.mono_ms + self.settings.transaction_timeout_ms,
        );
        if self.transactions.len() > 0 {
            tracing::info!(
                pending = self.transactions.len(),
                "half messages wait for the end of their transaction"
            );
        }
    }
}
