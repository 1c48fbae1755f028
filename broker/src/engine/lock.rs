//! LOCK_BATCH_MQ 41 and UNLOCK_BATCH_MQ 42: which client of a group consumes a queue in order.
//!
//! A lock belongs to a client id and lasts [`LOCK_MS`] from its last renewal. It is kept in memory only: after a restart
//! clients lock anew.

use std::collections::HashMap;

use corelane_wire::body::{LockBatchRequestBody, LockBatchResponseBody, UnlockBatchRequestBody};

use super::Engine;
use super::turn::{Refusal, Request, Turn};

/// How long a lock lasts without renewal, in milliseconds.
const LOCK_MS: i64 = 60_000;

struct QueueLock {
    client_id: String,
    renewed_mono_ms: i64,
}

/// The locks of a shard, by group, then by topic and queue id.
#[derive(Default)]
pub struct QueueLocks {
    by_group: HashMap<String, HashMap<(String, i32), QueueLock>>,
}

impl QueueLocks {
    /// Locks a queue for a client; says whether the client has it now.
    fn lock(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: i32,
        client_id: &str,
        mono_ms: i64,
    ) -> bool {
        let locks = self.by_group.entry(group.to_owned()).or_default();
        let lock = locks
            .entry((topic.to_owned(), queue_id))
            .or_insert_with(|| QueueLock {
                client_id: client_id.to_owned(),
                renewed_mono_ms: mono_ms,
            });
        if lock.client_id != client_id && mono_ms - lock.renewed_mono_ms <= LOCK_MS {
            return false;
        }
        if lock.client_id != client_id {
            lock.client_id = client_id.to_owned();
        }
        lock.renewed_mono_ms = mono_ms;
        true
    }

    fn unlock(&mut self, group: &str, topic: &str, queue_id: i32, client_id: &str) {
        let Some(locks) = self.by_group.get_mut(group) else {
            return;
        };
        let key = (topic.to_owned(), queue_id);
        if locks
            .get(&key)
            .is_some_and(|lock| lock.client_id == client_id)
        {
            locks.remove(&key);
        }
        if locks.is_empty() {
            self.by_group.remove(group);
        }
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: &str) {
        self.by_group.remove(group);
    }

    /// Forgets a topic in all groups.
    pub fn remove_topic(&mut self, topic: &str) {
        for locks in self.by_group.values_mut() {
            locks.retain(|(locked, _), _| locked != topic);
        }
        self.by_group.retain(|_, locks| !locks.is_empty());
    }
}

impl Engine {
    /// LOCK_BATCH_MQ 41: answers the queues that the client has now, as it named them.
    pub(super) fn lock_queues(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let mut body = LockBatchRequestBody::from_json(req.frame.body)?;
        let (group, client_id, now) = (body.consumer_group, body.client_id, turn.now.mono_ms);
        if self.groups.get(&group).is_none() {
            body.mq_set.clear();
        }
        let (topics, locks) = (&self.topics, &mut self.locks);
        // Only queues that exist can be locked, by groups that exist: names that a client makes up must not pile up here.
        body.mq_set.retain(|queue| {
            topics
                .get(&queue.topic)
                .is_some_and(|topic| (0..topic.queue_count()).contains(&queue.queue_id))
                && locks.lock(&group, &queue.topic, queue.queue_id, &client_id, now)
        });
        let locked = LockBatchResponseBody {
            lock_ok_mq_set: body.mq_set,
        };
        turn.answer_body(req.to, &locked.to_json());
        Ok(())
    }

    /// UNLOCK_BATCH_MQ 42.
    pub(super) fn unlock_queues(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let body = UnlockBatchRequestBody::from_json(req.frame.body)?;
        for queue in &body.mq_set {
            self.locks.unlock(
                &body.consumer_group,
                &queue.topic,
                queue.queue_id,
                &body.client_id,
            );
        }
        turn.answer_ok(req.to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_one_clients_until_it_expires_or_is_given_back() {
        let mut locks = QueueLocks::default();
        assert!(locks.lock("g", "t", 0, "a", 0));
        assert!(locks.lock("g", "t", 0, "a", 10));
        assert!(!locks.lock("g", "t", 0, "b", 20));
        assert!(locks.lock("other", "t", 0, "b", 20));
        locks.unlock("g", "t", 0, "b");
        assert!(!locks.lock("g", "t", 0, "b", 10 + LOCK_MS));
        assert!(locks.lock("g", "t", 0, "b", 11 + LOCK_MS));
        locks.unlock("g", "t", 0, "b");
        assert!(locks.lock("g", "t", 0, "a", 12 + LOCK_MS));
    }
}
