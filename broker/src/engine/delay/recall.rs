//! RECALL_MESSAGE 370: a timer message is taken back before it is due.
//!
//! A recall is itself a record that waits in the second of the message, durable before it is acknowledged. It is read when
//! that second is delivered, so that recalling costs no memory until then, and recalling twice, or what never was, succeeds.

use corelane_wire::ExtHeader;
use corelane_wire::code::response;
use corelane_wire::header::send::RecallMessageRequest;
use corelane_wire::message_id::RecallHandle;
use corelane_wire::properties::{Edit, Properties, name as property};

use super::timer::recall_key;
use crate::engine::Engine;
use crate::engine::position::no_topic;
use crate::engine::send::REGION;
use crate::engine::store::NewMessage;
use crate::engine::turn::{Refusal, Request, Turn};

/// Recalls that may wait for one second: they are in memory together when it is delivered.
const MAX_A_SECOND: i64 = 100_000;

impl Engine {
    /// RECALL_MESSAGE 370.
    pub(in crate::engine) fn recall(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = RecallMessageRequest::decode(&req.frame.ext)?;
        if !self.settings.recall {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                "recall failed, operation is forbidden (recall is off)",
            ));
        }
        let topic = header.topic.to_str();
        if self.topics.get(&topic).is_none() {
            return Err(no_topic(&topic));
        }
        let illegal = |why: &'static str| {
            Refusal::new(response::ILLEGAL_OPERATION, format!("recall failed, {why}"))
        };
        let handle = RecallHandle::parse(&header.recall_handle.to_str())
            .ok_or_else(|| illegal("the handle is invalid"))?;
        if handle.topic != topic {
            return Err(illegal("the handle is of another topic"));
        }
        if handle.broker_name != self.settings.broker_name {
            return Err(illegal("the handle is of another broker"));
        }
        let left_ms = handle.deliver_ms.saturating_sub(turn.now.wall_ms);
        if left_ms <= 0 || left_ms >= self.settings.timer_max_delay_ms {
            return Err(illegal(
                "the message is delivered already, or the handle's time is invalid",
            ));
        }
        let slot = self.recall_slot(turn, handle.deliver_ms)?;
        if turn.log.next_offset(slot.queue) >= MAX_A_SECOND {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "too many messages of one second are recalled",
            ));
        }
        let key = recall_key(&handle.topic, &handle.unique_key);
        let out_ms = ((handle.deliver_ms - 1).div_euclid(1_000) * 1_000).to_string();
        let append = [
            (property::UNIQ_KEY, &*handle.unique_key),
            (property::TIMER_DEL_UNIQKEY, &*key),
            (property::TIMER_OUT_MS, &*out_ms),
            (property::REAL_TOPIC, &*handle.topic),
            (property::REAL_QID, "0"),
        ];
        let recall = NewMessage {
            topic: &slot.topic,
            queue_id: slot.queue_id,
            queue: slot.queue,
            tags: None,
            flag: 0,
            sys_flag: 0,
            born_timestamp: turn.now.wall_ms,
            born_host: self.born_host(req),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"0",
            properties: Edit {
                ready: "",
                received: Properties::from_plain(""),
                without: &[],
                append: &append,
            },
        };
        let stored = self.store_in(turn, &slot, &recall)?;
        self.reply_when_durable(turn, req.to, stored.end, 0, true, |out| {
            let mut fields = req.to.write(out, response::SUCCESS, None);
            fields.field("msgId", &handle.unique_key);
            fields.field("MSG_REGION", REGION);
            fields.finish(0);
        });
        Ok(())
    }
}
