//! Orderly pops: of a queue only one pop is out at a time, and what is not acknowledged comes again in its place.
//!
//! A queue is blocked while a message of the last pop is neither acknowledged nor visible again. Then the next pop begins
//! at the committed offset anew, so a retry goes through no other topic; how often a message came before is counted here.

/// The last orderly pop of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderedPop {
    /// When, in milliseconds.
    pub pop_ms: i64,
    /// How long its messages are invisible, in milliseconds.
    pub invisible_ms: i64,
    /// The client's name of its attempt; the same attempt may ask again at once. Empty for none.
    pub attempt_id: String,
    /// Its messages in ascending order of their offsets; at most 32.
    pub messages: Vec<OrderedMessage>,
}

/// A message of an orderly pop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderedMessage {
    /// Its offset.
    pub offset: i64,
    /// How often it was popped before.
    pub count: i32,
    /// Whether it is done with.
    pub acked: bool,
    /// When it is visible again, where somebody changed that; 0 where not.
    pub visible_wall_ms: i64,
}

/// What an acknowledgement of an orderly message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderedAck {
    /// The next message that the group has not consumed.
    Next(i64),
    /// It belongs to an earlier pop.
    Stale,
    /// It is none of the last pop's messages.
    Unknown,
}

impl OrderedPop {
    /// A pop after `before`, with the counts that follow from it.
    pub fn after(
        before: Option<&Self>,
        pop_ms: i64,
        invisible_ms: i64,
        attempt_id: &str,
        offsets: &[i64],
    ) -> Self {
        let same_attempt =
            before.is_some_and(|before| !attempt_id.is_empty() && before.attempt_id == attempt_id);
        let count = |offset: i64| {
            let before = before.and_then(|before| {
                before
                    .messages
                    .iter()
                    .find(|message| message.offset == offset)
            });
            before.map_or(0, |message| {
                message.count.saturating_add(i32::from(!same_attempt))
            })
        };
        let message = |&offset: &i64| OrderedMessage {
            offset,
            count: count(offset),
            acked: false,
            visible_wall_ms: 0,
        };
        let messages = offsets.iter().map(message).collect();
        Self {
            pop_ms,
            invisible_ms,
            attempt_id: attempt_id.to_owned(),
            messages,
        }
    }

    /// Until when the queue is blocked for others than `attempt_id`; `None` where it is not.
    pub fn blocked_until(&self, attempt_id: &str, wall_ms: i64) -> Option<i64> {
        if !attempt_id.is_empty() && self.attempt_id == attempt_id {
            return None;
        }
        let open = self.messages.iter().filter(|message| !message.acked);
        open.map(|message| match message.visible_wall_ms {
            0 => self.pop_ms.saturating_add(self.invisible_ms),
            changed => changed,
        })
        .max()
        .filter(|until| *until > wall_ms)
    }

    /// Takes an acknowledgement of a message that was popped at `pop_ms`.
    pub fn acknowledge(&mut self, pop_ms: i64, offset: i64) -> OrderedAck {
        if self.pop_ms != pop_ms {
            return OrderedAck::Stale;
        }
        let Some(message) = self
            .messages
            .iter_mut()
            .find(|message| message.offset == offset)
        else {
            return OrderedAck::Unknown;
        };
        message.acked = true;
        OrderedAck::Next(self.next())
    }

    /// The first message that is not acknowledged, or what follows the last.
    pub fn next(&self) -> i64 {
        let open = self
            .messages
            .iter()
            .find(|message| !message.acked)
            .map(|message| message.offset);
        open.unwrap_or_else(|| self.messages.last().map_or(0, |last| last.offset + 1))
    }

    /// Lets a message be visible again at `wall_ms`. Says whether it is one of these and still out.
    pub fn change(&mut self, pop_ms: i64, offset: i64, wall_ms: i64) -> bool {
        if self.pop_ms != pop_ms {
            return false;
        }
        let message = self
            .messages
            .iter_mut()
            .find(|message| message.offset == offset && !message.acked);
        message
            .map(|message| message.visible_wall_ms = wall_ms.max(1))
            .is_some()
    }

    /// Whether nothing of it is out.
    pub fn is_done(&self) -> bool {
        self.messages.iter().all(|message| message.acked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_blocked_until_all_is_acknowledged_or_visible() {
        let mut pop = OrderedPop::after(None, 1000, 500, "a", &[3, 4]);
        assert_eq!(pop.blocked_until("", 1000), Some(1500));
        assert_eq!(pop.blocked_until("a", 1000), None);
        assert_eq!(pop.acknowledge(1000, 4), OrderedAck::Next(3));
        assert!(pop.change(1000, 3, 1200));
        assert_eq!(
            (pop.blocked_until("b", 1100), pop.blocked_until("b", 1200)),
            (Some(1200), None)
        );
        assert_eq!(pop.acknowledge(999, 3), OrderedAck::Stale);
        assert_eq!(pop.acknowledge(1000, 5), OrderedAck::Unknown);
        assert_eq!(pop.acknowledge(1000, 3), OrderedAck::Next(5));
        assert!(pop.is_done() && pop.blocked_until("b", 0).is_none());
    }

    #[test]
    fn only_a_new_attempt_counts() {
        let first = OrderedPop::after(None, 1, 1, "a", &[3]);
        let again = OrderedPop::after(Some(&first), 2, 1, "a", &[3, 4]);
        let next = OrderedPop::after(Some(&again), 3, 1, "b", &[3, 4]);
        let counts = |pop: &OrderedPop| {
            pop.messages
                .iter()
                .map(|message| message.count)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (counts(&first), counts(&again), counts(&next)),
            (vec![0], vec![0, 0], vec![1, 1])
        );
    }
}
