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
    pub(super) fn send_reply(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = match req.frame.code {
            request::SEND_REPLY_MESSAGE => SendMessageRequest::decode(&req.frame.ext)?,
            _ => SendMessageRequest::decode_short(&req.frame.ext)?,
        };
        let target = self.target(turn, &header)?;
        // Those that the Go client makes are empty.
        if !req.frame.body.is_empty() {
            self.check_body(req.frame.body)?;
        }
        let received = header
            .properties
            .map_or(Properties::from_plain(""), Properties::from_text);
        let [tags, client_id] = received.find([property::TAGS, property::REPLY_TO_CLIENT]);
        let pushed_at = turn.now.wall_ms.to_string();
        let append = [
            (property::MSG_REGION, REGION),
            (property::TRACE_ON, "true"),
            (property::PUSH_REPLY_TIME, pushed_at.as_str()),
        ];
        let born_host = self.born_host(req);
        let properties = Edit {
            ready: "",
            received,
            without: &[property::POP_CK],
            append: &append,
        };
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
            msg_id: OffsetId {
                store_host: self.store_host,
                offset: appended.position as i64,
            }
            .encode(),
            queue_id: target.queue_id,
            queue_offset: appended.queue_offset,
        };

        let client_id = client_id.map(|id| id.to_str()).unwrap_or_default();
        let Some(connection) = self.clients.producer_connection(&client_id) else {
            let why = format!("no producer with the client id {client_id:?} is connected");
            self.answer_reply(turn, req.to, &stored, Some(&why));
            return Ok(());
        };
        let properties = properties.measure();
        let mut text = vec![0; properties.len()];
        properties.write_to(&mut text);
        let (text, store_host) = (
            String::from_utf8_lossy(&text).into_owned(),
            self.store_host.to_string(),
        );
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
                fields.int_field(
                    "defaultTopicQueueNums",
                    header.default_topic_queue_nums.into(),
                );
                fields.int_field("queueId", target.queue_id.into());
                fields.int_field("sysFlag", header.sys_flag.into());
                fields.int_field("bornTimestamp", header.born_timestamp);
                fields.int_field("flag", header.flag.into());
                fields.field("properties", &text);
                fields.int_field("reconsumeTimes", header.reconsume_times.unwrap_or(0).into());
                fields.field(
                    "unitMode",
                    if header.unit_mode == Some(true) {
                        "true"
                    } else {
                        "false"
                    },
                );
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
        let code = if remark.is_some() {
            response::SYSTEM_ERROR
        } else {
            response::SUCCESS
        };
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::turn::Connection;
    use crate::sim::test_host::{TestHost, settings, small_log};

    const TOPIC: &str = "DefaultCluster_REPLY_TOPIC";

    fn ask_reply(host: &mut TestHost, connection: Connection, client_id: &str) -> i32 {
        ask_reply_of(host, connection, client_id, b"reply")
    }

    fn ask_reply_of(
        host: &mut TestHost,
        connection: Connection,
        client_id: &str,
        body: &[u8],
    ) -> i32 {
        let properties = format!("REPLY_TO_CLIENT\u{1}{client_id}\u{2}CORRELATION_ID\u{1}c\u{2}");
        let fields = [
            ("a", "answers"),
            ("b", TOPIC),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &properties),
        ];
        host.ask(connection, request::SEND_REPLY_MESSAGE_V2, &fields, body)
    }

    fn start() -> (TestHost, Connection, Connection) {
        let mut host = TestHost::start(1, settings(), small_log());
        let (asking, answering) = (host.connect(), host.connect());
        host.produce(asking, "asking", "questions");
        host.produce(asking, "asking", "CLIENT_INNER_PRODUCER");
        (host, asking, answering)
    }

    #[test]
    fn a_reply_is_acknowledged_when_the_client_that_waits_has_it() {
        let (mut host, asking, answering) = start();
        let opaque = ask_reply(&mut host, answering, "asking");
        host.run();
        assert_eq!(host.answer(answering, opaque), None);
        let (pushed, request) = host.requests(asking).remove(0);
        assert_eq!(
            (request.code, request.body.as_slice()),
            (request::PUSH_REPLY_MESSAGE_TO_CLIENT, &b"reply"[..])
        );
        assert_eq!(
            (
                request.fields["topic"].as_str(),
                request.fields["producerGroup"].as_str()
            ),
            (TOPIC, "answers")
        );
        let text = Properties::from_plain(&request.fields["properties"]);
        assert!(
            text.get("CORRELATION_ID").unwrap() == "c" && text.get("PUSH_REPLY_TIME").is_some()
        );
        // Nobody else answers for it.
        host.respond(answering, pushed, 0, &[]);
        host.run();
        assert_eq!(host.answer(answering, opaque), None);
        host.respond(asking, pushed, 0, &[]);
        host.run();
        let reply = host.answer(answering, opaque).unwrap();
        assert_eq!(
            (reply.code, reply.fields["queueOffset"].as_str()),
            (response::SUCCESS, "0")
        );
        assert_eq!(host.messages(TOPIC, 0).len(), 1);
    }

    #[test]
    fn an_empty_reply_is_one_too() {
        let (mut host, asking, answering) = start();
        let opaque = ask_reply_of(&mut host, answering, "asking", b"");
        host.run();
        let (pushed, request) = host.requests(asking).remove(0);
        assert!(request.body.is_empty());
        host.respond(asking, pushed, 0, &[]);
        host.run();
        assert_eq!(
            host.answer(answering, opaque).unwrap().code,
            response::SUCCESS
        );
        let later = ask_reply(&mut host, answering, "nobody");
        host.run();
        assert!(host.answer(answering, later).is_some());
        assert_eq!(host.messages(TOPIC, 0).len(), 2);
    }

    #[test]
    fn a_reply_that_does_not_arrive_is_stored_and_reported() {
        let (mut host, asking, answering) = start();
        let nobody = ask_reply(&mut host, answering, "nobody");
        let refused = ask_reply(&mut host, answering, "asking");
        let late = ask_reply(&mut host, answering, "asking");
        let cut = ask_reply(&mut host, answering, "asking");
        host.run();
        let pushed = host.requests(asking);
        host.respond(asking, pushed[0].0, response::SYSTEM_ERROR, &[]);
        host.run();
        for opaque in [nobody, refused] {
            assert_eq!(
                host.answer(answering, opaque).unwrap().code,
                response::SYSTEM_ERROR
            );
        }
        host.advance(9_999);
        assert_eq!(host.answer(answering, late), None);
        host.close(asking);
        host.run();
        for opaque in [late, cut] {
            assert_eq!(
                host.answer(answering, opaque).unwrap().code,
                response::SYSTEM_ERROR
            );
        }
        assert_eq!(host.messages(TOPIC, 0).len(), 4);
        host.advance(20_000);
        host.respond(asking, pushed[1].0, 0, &[]);
        assert_eq!(host.answer(answering, late), None);
    }

    #[test]
    fn time_runs_out() {
        let (mut host, _, answering) = start();
        let opaque = ask_reply(&mut host, answering, "asking");
        host.advance(10_001);
        let reply = host.answer(answering, opaque).unwrap();
        assert_eq!(reply.code, response::SYSTEM_ERROR);
        assert!(reply.remark.contains("in time"), "{}", reply.remark);
    }

    #[test]
    fn a_producer_is_found_as_long_as_one_of_its_groups_is_there() {
        let (mut host, asking, _) = start();
        let leave = |group| [("clientID", "asking"), ("producerGroup", group)];
        host.request(asking, request::UNREGISTER_CLIENT, &leave("questions"), &[]);
        assert_eq!(
            host.engine.clients.producer_connection("asking"),
            Some(asking)
        );
        host.request(
            asking,
            request::UNREGISTER_CLIENT,
            &leave("CLIENT_INNER_PRODUCER"),
            &[],
        );
        assert_eq!(host.engine.clients.producer_connection("asking"), None);
    }
}
