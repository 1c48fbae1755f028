//! Long polling: pulls that found nothing and wait for a message, or for their time to end.
//!
//! A held pull is the request itself. When a message that passes its filter becomes visible, when its time is over, or
//! when its queue goes, it is handled again and answers whatever there is then.

use std::collections::{BTreeSet, HashMap};

use super::Engine;
use super::pull::PullFilter;
use super::turn::{Connection, Request, Turn};
use crate::log::QueueRef;

struct HeldPull {
    connection: Connection,
    frame: Box<[u8]>,
    queue: QueueRef,
    /// Up to here nothing passes the filter.
    scanned: i64,
    filter: PullFilter,
    deadline_mono_ms: i64,
}

/// The pulls of a shard that wait.
#[derive(Default)]
pub struct HeldPulls {
    pulls: HashMap<u64, HeldPull>,
    by_queue: HashMap<QueueRef, Vec<u64>>,
    by_connection: BTreeSet<(Connection, u64)>,
    deadlines: BTreeSet<(i64, u64)>,
    last_id: u64,
}

impl HeldPulls {
    fn insert(&mut self, pull: HeldPull) {
        self.last_id += 1;
        let id = self.last_id;
        self.by_queue.entry(pull.queue).or_default().push(id);
        self.by_connection.insert((pull.connection, id));
        self.deadlines.insert((pull.deadline_mono_ms, id));
        self.pulls.insert(id, pull);
    }

    fn remove(&mut self, id: u64) -> Option<HeldPull> {
        let pull = self.pulls.remove(&id)?;
        if let Some(ids) = self.by_queue.get_mut(&pull.queue) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_queue.remove(&pull.queue);
            }
        }
        self.by_connection.remove(&(pull.connection, id));
        self.deadlines.remove(&(pull.deadline_mono_ms, id));
        Some(pull)
    }

    /// Forgets what a connection waited for.
    pub fn closed(&mut self, connection: Connection) {
        let range = (connection, 0)..=(connection, u64::MAX);
        let ids: Vec<u64> = self.by_connection.range(range).map(|(_, id)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// When the first of them ends.
    pub fn deadline_mono_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.pulls.len()
    }
}

impl Engine {
    /// Holds a pull of `queue` at `offset` for so long. Says whether there was room.
    pub(super) fn hold_pull(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        queue: QueueRef,
        offset: i64,
        wait_ms: i64,
        filter: PullFilter,
    ) -> bool {
        if self.held_pulls.len() >= self.settings.max_held_pulls || req.to.oneway {
            return false;
        }
        self.held_pulls.insert(HeldPull {
            connection: req.to.connection,
            frame: req.bytes.into(),
            queue,
            scanned: offset,
            filter,
            deadline_mono_ms: turn.now.mono_ms + wait_ms.min(self.settings.long_polling_max_ms),
        });
        true
    }

    /// A queue has new visible records: answers the pulls that wait for one of them.
    pub(super) fn wake_queue(&mut self, turn: &mut Turn<'_>, queue: QueueRef, max_offset: i64) {
        let Some(ids) = self.held_pulls.by_queue.get(&queue) else {
            return;
        };
        for id in ids.clone() {
            let Some(pull) = self.held_pulls.pulls.get(&id) else {
                continue;
            };
            if pull.scanned >= max_offset {
                continue;
            }
            let (from, filter) = (pull.scanned, pull.filter.clone());
            if self.any_match(turn, queue, from, &filter) {
                self.end_hold(turn, id);
            } else if let Some(pull) = self.held_pulls.pulls.get_mut(&id) {
                pull.scanned = max_offset;
            }
        }
    }

    /// Answers the pulls of a queue that is no more.
    pub(super) fn wake_all_of(&mut self, turn: &mut Turn<'_>, queue: QueueRef) {
        for id in self
            .held_pulls
            .by_queue
            .get(&queue)
            .cloned()
            .unwrap_or_default()
        {
            self.end_hold(turn, id);
        }
    }

    /// Answers the pulls whose time is over.
    pub(super) fn end_overdue_holds(&mut self, turn: &mut Turn<'_>) {
        while let Some((deadline, id)) = self.held_pulls.deadlines.first().copied() {
            if deadline > turn.now.mono_ms {
                break;
            }
            self.end_hold(turn, id);
        }
    }

    fn end_hold(&mut self, turn: &mut Turn<'_>, id: u64) {
        if let Some(pull) = self.held_pulls.remove(id) {
            self.dispatch(turn, pull.connection, &pull.frame, false);
        }
    }
}
