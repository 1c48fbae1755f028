//! Storing half messages: what a producer sends with `TRAN_MSG`, and what is put back for another round of checks.

use corelane_wire::Text;
use corelane_wire::code::response;
use corelane_wire::properties::{Edit, Properties, name as property};
use corelane_wire::record::Record;

use super::{HALF_TOPIC, Transactions};
use crate::engine::Engine;
use crate::engine::store::NewMessage;
use crate::engine::turn::{Refusal, Turn};
use crate::log::{Appended, QueueRef};

/// What a half message must not carry: delays (a transaction knows none) and what only the broker says.
const NOT_IN_A_HALF_MESSAGE: [&str; 7] = [
    property::POP_CK,
    property::DELAY,
    property::TIMER_DELAY_SEC,
    property::TIMER_DELAY_MS,
    property::TIMER_DELIVER_MS,
    property::TRANSACTION_CHECK_TIMES,
    property::TRAN_PREPARED_QUEUE_OFFSET,
];

impl Engine {
    /// Stores `message` as a half message of a transaction. `received` are its properties as the producer sent them, and
    /// `append` is what the broker adds to those of every message.
    pub(in crate::engine) fn store_half(
        &mut self,
        turn: &mut Turn<'_>,
        message: NewMessage<'_>,
        producer_group: &str,
        unique_key: &str,
    ) -> Result<Appended, Refusal> {
        self.check_room_for_half()?;
        let real_queue = message.queue_id.to_string();
        let group = message
            .properties
            .received
            .get(property::PGROUP)
            .unwrap_or(Text::plain(producer_group));
        let group = group.to_str();
        let mut append = message.properties.append.to_vec();
        append.extend([
            (property::PGROUP, &*group),
            (property::TRANSACTION_ID, unique_key),
            (property::REAL_TOPIC, message.topic),
            (property::REAL_QID, &*real_queue),
        ]);
        let without = [message.properties.without, &NOT_IN_A_HALF_MESSAGE].concat();
        let properties = Edit {
            without: &without,
            append: &append,
            ..message.properties
        };
        let half = NewMessage {
            topic: HALF_TOPIC,
            queue_id: 0,
            queue: self.half_queue(turn),
            properties,
            ..message
        };
        self.append_half(turn, &half)
    }

    /// Stores a given-up half message anew: its producer will be asked again from the beginning.
    pub(super) fn store_half_again(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
    ) -> Result<Appended, Refusal> {
        self.check_room_for_half()?;
        let queue = self.half_queue(turn);
        let without = [property::TRANSACTION_CHECK_TIMES];
        let properties = Edit {
            ready: "",
            received: record.properties(),
            without: &without,
            append: &[],
        };
        let half = copied(record, HALF_TOPIC, 0, queue, properties);
        self.append_half(turn, &half)
    }

    fn check_room_for_half(&self) -> Result<(), Refusal> {
        if self.transactions.len() < self.settings.max_pending_transactions {
            return Ok(());
        }
        Err(Refusal::new(
            response::SYSTEM_BUSY,
            format!(
                "{} transactions have not ended, and max_pending_transactions allows no more",
                self.transactions.len()
            ),
        ))
    }

    fn append_half(
        &mut self,
        turn: &mut Turn<'_>,
        half: &NewMessage<'_>,
    ) -> Result<Appended, Refusal> {
        let stored = self.store(turn, half)?;
        let due_mono_ms = turn.now.mono_ms + self.settings.transaction_timeout_ms;
        self.transactions.stored(stored.queue_offset, due_mono_ms);
        Ok(stored)
    }

    pub(super) fn half_queue(&mut self, turn: &mut Turn<'_>) -> QueueRef {
        self.system_queue(turn, HALF_TOPIC)
    }

    /// Queue 0 of a topic of the system.
    pub(super) fn system_queue(&mut self, turn: &mut Turn<'_>, topic: &str) -> QueueRef {
        match self.topics.get_mut(topic) {
            Some(topic) => topic.queue(turn.log, 0),
            None => turn.log.queue(topic, 0),
        }
    }
}

impl Transactions {
    fn stored(&mut self, offset: i64, due_mono_ms: i64) {
        self.know_until(offset + 1, due_mono_ms);
    }
}

/// A stored message, to be stored once more elsewhere.
pub(super) fn copied<'a>(
    record: &Record<'a>,
    topic: &'a str,
    queue_id: i32,
    queue: QueueRef,
    properties: Edit<'a, 'a>,
) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        queue,
        tags: Properties::from_bytes(record.properties_bytes())
            .get(property::TAGS)
            .map(|tags| tags.to_str()),
        flag: record.flag(),
        sys_flag: record.sys_flag(),
        born_timestamp: record.born_timestamp(),
        born_host: record.born_host(),
        reconsume_times: record.reconsume_times(),
        prepared_transaction_offset: 0,
        body: record.body(),
        properties,
    }
}
