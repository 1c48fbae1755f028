//! Request and reply: SEND_REPLY_MESSAGE 324 and SEND_REPLY_MESSAGE_V2 325, PUSH_REPLY_MESSAGE_TO_CLIENT 326.
//!
//! A request is an ordinary message. Its reply is stored in the cluster's reply topic, pushed to the producer that waits
//! for it, wherever that is named `REPLY_TO_CLIENT`, and acknowledged to its sender when that producer took it.

use corelane_wire::ExtHeader;
use corelane_wire::code::{request, response, sys_flag};
use corelane_wire::header::send::SendMessageRequest;
use corelane_wire::message_id::OffsetId;
use corelane_wire::properties::{Edit, Properties, name as property};

use super::Engine;
use super::calls::{StoredReply, Then};
use super::send::REGION;
use super::store::NewMessage;
use super::turn::{Refusal, ReplyTo, Request, Turn};

/// How long a client may take to accept a reply, in milliseconds.
const PUSH_WAIT_MS: i64 = 10_000;

impl Engine {
    /// SEND_REPLY_MESSAGE 324, SEND_REPLY_MESSAGE_V2 325.
    pub(super) fn send_reply(&mut self, turn: &mut Turn<'_>, req: &Request<'_>) -> Result<(), Refusal> {
        let header = match req.frame.code {
            request::SEND_REPLY_MESSAGE => SendMessageRequest::decode(&req.frame.ext)?,
            _ => SendMessageRequest::decode_short(&req.frame.ext)?,
        };
        let target = self.target(turn, &header)?;
        self.check_body(req.frame.body)?;
        let received = header.properties.map_or(Properties::from_plain(""), Properties::from_text);
        let [tags, client_id] = received.find([property::TAGS, property::REPLY_TO_CLIENT]);
        let pushed_at = turn.now.wall_ms.to_string();
        let append = [
            (property::MSG_REGION, REGION),
            (property::TRACE_ON, "true"),
            (property::PUSH_REPLY_TIME, pushed_at.as_str()),
        ];
        let born_host = self.born_host(req);
        let properties = Edit { received, without: &[property::POP_CK], append: &append };
        let message = NewMessage {
            topic: &target.topic,
            queue_id: target.queue_id,
            queue: target.queue,
            tags: tags.map(|tags| tags.to_str()),
            flag: header.flag,
            sys_flag: header.sys_flag & !sys_flag::TRANSACTION_MASK,
            born_timestamp: header.born_timestamp,
            born_host,
            reconsume_times: header.reconsume_times.unwrap_or(0),
            prepared_transaction_offset: 0,
            body: req.frame.body,
            properties,
        };
        let appended = self.store(turn, &message)?;
        let stored = StoredReply {
            msg_id: OffsetId { store_host: self.store_host, offset: appended.position as i64 }.encode(),
            queue_id: target.queue_id,
            queue_offset: appended.queue_offset,
        };

        let client_id = client_id.map(|id| id.to_str()).unwrap_or_default();
        let Some(connection) = self.clients.producer_connection(&client_id) else {
            let why = format!("no producer with the client id {client_id:?} is connected");
            self.answer_reply(turn, req.to, &stored, Some(&why));
            return Ok(());
        };
        let mut text = vec![0; properties.len()];
        properties.write_to(&mut text);
        let (text, store_host) = (String::from_utf8_lossy(&text).into_owned(), self.store_host.to_string());
        let store_ms = self.last_store_ms;
        let then = Then::Pushed { to: req.to, stored };
        self.call(
            turn,
            connection,
            request::PUSH_REPLY_MESSAGE_TO_CLIENT,
            PUSH_WAIT_MS,
            then,
            |fields| {
                fields.text_field("producerGroup", header.producer_group);
                fields.field("topic", &target.topic);
                fields.text_field("defaultTopic", header.default_topic);
                fields.int_field("defaultTopicQueueNums", header.default_topic_queue_nums.into());
                fields.int_field("queueId", target.queue_id.into());
                fields.int_field("sysFlag", header.sys_flag.into());
                fields.int_field("bornTimestamp", header.born_timestamp);
                fields.int_field("flag", header.flag.into());
                fields.field("properties", &text);
                fields.int_field("reconsumeTimes", header.reconsume_times.unwrap_or(0).into());
                fields.field("unitMode", if header.unit_mode == Some(true) { "true" } else { "false" });
                fields.field("bornHost", &born_host.to_string());
                fields.field("storeHost", &store_host);
                fields.int_field("storeTimestamp", store_ms);
            },
            req.frame.body,
        )
    }

    /// Tells the sender of a reply that it was stored, and whether it reached the client that waits for it.
    pub(super) fn answer_reply(
        &mut self,
        turn: &mut Turn<'_>,
        to: ReplyTo,
        stored: &StoredReply,
        failure: Option<&str>,
    ) {
        let remark = failure.map(|why| format!("push reply message to the client fail: {why}"));
        let code = if remark.is_some() { response::SYSTEM_ERROR } else { response::SUCCESS };
        // What was stored before is in front of the log's present end.
        let end = turn.log.max_position();
        self.reply_when_durable(turn, to, end, 0, true, |out| {
            let mut fields = to.write(out, code, remark.as_deref());
            fields.field("msgId", stored.msg_id.as_str());
            fields.int_field("queueId", stored.queue_id.into());
            fields.int_field("queueOffset", stored.queue_offset);
            fields.field("MSG_REGION", REGION);
            fields.field("TRACE_ON", "true");
            fields.finish(0);
        });
    }
}
