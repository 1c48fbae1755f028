//! Making a message a record of the log: the one place where records are assembled.
//!
//! The record is written once, into the log's own buffer: body with its checksum, topic, properties, and the head last.

use std::borrow::Cow;

use corelane_wire::properties::{Edit, Measured, java_hash};
use corelane_wire::record::{Host, LayoutError, MAX_PROPERTIES_BYTES, RecordHead, RecordLayout};

use super::Engine;
use super::turn::{Refusal, Request, Turn};
use crate::log::{Appended, QueueRef};
use corelane_wire::code::response;

/// A message that is about to be stored.
pub struct NewMessage<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its queue of that topic.
    pub queue_id: i32,
    /// The log's reference of that queue.
    pub queue: QueueRef,
    /// Its tag.
    pub tags: Option<Cow<'a, str>>,
    /// The user's flag.
    pub flag: i32,
    /// See `wire::code::sys_flag`.
    pub sys_flag: i32,
    /// The sender's clock, in milliseconds.
    pub born_timestamp: i64,
    /// The sender's address.
    pub born_host: Host,
    /// How often its group has failed to consume it.
    pub reconsume_times: i32,
    /// Of a committed transaction: where its half message is.
    pub prepared_transaction_offset: i64,
    /// The body, as it is to be stored.
    pub body: &'a [u8],
    /// The properties, as they are to be stored.
    pub properties: Edit<'a, 'a>,
}

impl Engine {
    /// Where a message that comes with a request was born.
    pub(super) fn born_host(&self, req: &Request<'_>) -> Host {
        self.clients
            .address(req.to.connection)
            .map_or(self.store_host, Host::from)
    }

    /// Where the parts of the record will stand.
    pub(super) fn layout(&self, message: &NewMessage<'_>) -> Result<RecordLayout, Refusal> {
        self.layout_with(message, message.properties.measure().len())
    }

    /// A layout that is at most one byte longer than the message's own, for who looks at many: the properties are only
    /// gone through where they may be too long.
    pub(super) fn layout_at_most(&self, message: &NewMessage<'_>) -> Result<RecordLayout, Refusal> {
        debug_assert!(message.properties.append.is_empty() && message.properties.ready.is_empty());
        self.layout_with(message, message.properties.received.raw_len() + 1)
            .or_else(|_| self.layout(message))
    }

    fn layout_with(
        &self,
        message: &NewMessage<'_>,
        properties: usize,
    ) -> Result<RecordLayout, Refusal> {
        RecordLayout::new(
            &message.born_host,
            &self.store_host,
            message.body.len(),
            message.topic.len(),
            properties,
        )
        .map_err(|error| match error {
            LayoutError::Properties(_) => properties_too_long(),
            other => Refusal::new(response::MESSAGE_ILLEGAL, other.to_string()),
        })
    }

    /// Appends a message to the log.
    pub(super) fn store(
        &mut self,
        turn: &mut Turn<'_>,
        message: &NewMessage<'_>,
    ) -> Result<Appended, Refusal> {
        self.store_measured(turn, message, &message.properties.measure())
    }

    /// As [`Engine::store`], where the message's properties were measured.
    pub(super) fn store_measured(
        &mut self,
        turn: &mut Turn<'_>,
        message: &NewMessage<'_>,
        properties: &Measured<'_, '_>,
    ) -> Result<Appended, Refusal> {
        let layout = self.layout_with(message, properties.len())?;
        let tags_code = message.tags.as_deref().map_or(0, java_hash);
        // Search by time needs store times that never go back within a queue, whatever the wall clock does.
        self.last_store_ms = self.last_store_ms.max(turn.now.wall_ms);
        let store_ms = self.last_store_ms;
        let len = layout.total_len();
        let appended = turn.log.append_message(
            message.queue,
            len,
            tags_code,
            store_ms,
            properties.keys(),
            |position, queue_offset, record| {
                layout.write_body(record, message.body);
                layout.write_topic(record, message.topic);
                properties.write_to(layout.properties_mut(record));
                layout.write_head(
                    record,
                    &RecordHead {
                        queue_id: message.queue_id,
                        flag: message.flag,
                        queue_offset,
                        physical_offset: position as i64,
                        sys_flag: message.sys_flag,
                        born_timestamp: message.born_timestamp,
                        born_host: message.born_host,
                        store_timestamp: store_ms,
                        store_host: self.store_host,
                        reconsume_times: message.reconsume_times,
                        prepared_transaction_offset: message.prepared_transaction_offset,
                    },
                );
            },
        )?;
        self.counters.messages_in += 1;
        self.counters.bytes_in += len as u64;
        self.stats.put(message.topic, len, turn.now.wall_ms);
        Ok(appended)
    }
}

/// The refusal for properties that no record can hold.
pub(super) fn properties_too_long() -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        format!("the properties of a message have at most {MAX_PROPERTIES_BYTES} bytes"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use corelane_wire::batch::{self, BatchMessage};
    use corelane_wire::code::{request, response};

    use super::*;
    use crate::sim::test_host::{TestHost, settings, small_log};

    #[test]
    fn a_batch_takes_properties_as_long_as_a_record_can_hold() {
        let mut host = TestHost::start(1, settings(), small_log());
        let connection = host.connect();
        assert_eq!(host.send(connection, "t", 0, "first", &[]).code, 0);
        for (closed, code) in [
            (true, response::SUCCESS),
            // The end that it lacks is one byte too many.
            (false, response::MESSAGE_ILLEGAL),
        ] {
            let end = if closed { "\x02" } else { "" };
            let value = "v".repeat(MAX_PROPERTIES_BYTES - 2 - end.len());
            let properties = format!("n\x01{value}{end}");
            assert_eq!(properties.len(), MAX_PROPERTIES_BYTES);
            let message = BatchMessage {
                flag: 0,
                body: b"b",
                properties: &properties,
            };
            let mut body = Vec::new();
            batch::push(&mut body, &message).unwrap();
            let fields = [
                ("a", "producers"),
                ("b", "t"),
                ("c", "TBW102"),
                ("d", "4"),
                ("e", "0"),
                ("f", "0"),
                ("g", "1700000000000"),
                ("h", "0"),
                ("m", "true"),
            ];
            let reply = host.request(connection, request::SEND_BATCH_MESSAGE, &fields, &body);
            assert_eq!(reply.code, code, "closed: {closed}");
        }
        assert_eq!(host.messages("t", 0).len(), 2);
    }
}
