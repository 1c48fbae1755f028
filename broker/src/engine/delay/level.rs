//! Delay levels: level n waits in queue n-1 of `SCHEDULE_TOPIC_XXXX`.
//!
//! All messages of a level wait equally long, so that the order in which they were stored is the order in which they are due,
//! and the head of the queue says when there is something to do: its store time and the level's delay.

use corelane_wire::properties::{Edit, name as property};

use super::{LEVEL_PROGRESS, RETRY_MS, Wake, retry_ms};
use crate::engine::Engine;
use crate::engine::name::SCHEDULE_TOPIC;
use crate::engine::store::NewMessage;
use crate::engine::turn::{Refusal, Turn};
use crate::log::{AppendError, Appended};

/// One delay level.
pub(super) struct Level {
    pub delay_ms: i64,
    /// Everything before it is delivered.
    pub offset: i64,
    pub wake: Wake,
}

impl Level {
    pub fn new(delay_ms: i64) -> Self {
        Self {
            delay_ms,
            offset: 0,
            wake: Wake::NOW,
        }
    }
}

impl Engine {
    /// Stores a message until the delay of a level, counted from 0, is over.
    pub(super) fn store_level(
        &mut self,
        turn: &mut Turn<'_>,
        message: &NewMessage<'_>,
        index: usize,
    ) -> Result<Appended, Refusal> {
        let queue_id = message.queue_id.to_string();
        let append = [
            message.properties.append,
            &[
                (property::REAL_TOPIC, message.topic),
                (property::REAL_QID, &queue_id),
            ],
        ]
        .concat();
        let without = [
            message.properties.without,
            &[
                property::TIMER_DELIVER_MS,
                property::TIMER_DELAY_SEC,
                property::TIMER_DELAY_MS,
            ],
        ]
        .concat();
        let waiting = NewMessage {
            topic: SCHEDULE_TOPIC,
            queue_id: index as i32,
            queue: turn.log.queue(SCHEDULE_TOPIC, index as i32),
            tags: message.tags.clone(),
            properties: Edit {
                without: &without,
                append: &append,
                ..message.properties
            },
            ..*message
        };
        let appended = self.store(turn, &waiting)?;
        let level = &mut self.delays.levels[index];
        let wake = Wake::at_wall(turn.now, turn.now.wall_ms.saturating_add(level.delay_ms));
        if wake.mono_ms < level.wake.mono_ms && !level.wake.reading {
            level.wake = wake;
        }
        self.delays.deadline_mono_ms = self.delays.deadline_mono_ms.min(wake.mono_ms);
        Ok(appended)
    }

    /// Delivers a batch of what is due of a level, and says how many messages that were.
    pub(super) fn deliver_level(&mut self, turn: &mut Turn<'_>, index: usize) -> usize {
        let level = &self.delays.levels[index];
        let (delay_ms, from) = (level.delay_ms, level.offset);
        let Some(queue) = turn.log.find_queue(SCHEDULE_TOPIC, index as i32) else {
            self.delays.levels[index].wake = Wake::NEVER;
            return 0;
        };
        let batch = self.collect(turn, queue, from, turn.now.wall_ms.saturating_sub(delay_ms));
        if batch.next == from {
            self.delays.levels[index].wake = match batch.later_ms {
                Some(stored_ms) => Wake::at_wall(turn.now, stored_ms.saturating_add(delay_ms)),
                None if batch.reading => Wake::reading(turn.now),
                None if turn.log.next_offset(queue) > from => Wake::after_ms(turn.now, RETRY_MS),
                None => Wake::NEVER,
            };
            return 0;
        }
        let result = self.deliver_batch(
            turn,
            &batch,
            LEVEL_PROGRESS,
            index as i64,
            |engine, turn, record| engine.deliver_record(turn, record, &[]).map(drop),
        );
        let level = &mut self.delays.levels[index];
        match result {
            Ok(reached) => {
                level.offset = reached;
                level.wake = if reached == batch.next {
                    Wake::NOW
                } else {
                    Wake::after_ms(turn.now, RETRY_MS)
                };
                (reached - from).unsigned_abs() as usize
            }
            Err(AppendError::TooLarge) => {
                tracing::error!(
                    level = index + 1,
                    offset = from,
                    "a delayed message is longer than this broker stores now"
                );
                level.offset = from + 1;
                1
            }
            Err(error) => {
                level.wake = Wake::after_ms(turn.now, retry_ms(error));
                0
            }
        }
    }
}
