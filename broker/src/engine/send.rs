//! SEND_MESSAGE 10, SEND_MESSAGE_V2 310, SEND_BATCH_MESSAGE 320.
//!
//! Everything is checked before anything is appended. The answer is written when the message is appended and sent when
//! it is durable; a message that says WAIT=false, and every message under ASYNC_FLUSH, is answered at once.

use std::borrow::Cow;
use std::rc::Rc;

use corelane_wire::batch;
use corelane_wire::body::TopicConfig;
use corelane_wire::code::{VERSION, language, perm, request, response, sys_flag};
use corelane_wire::frame::{Head, Serialization};
use corelane_wire::header::send::SendMessageRequest;
use corelane_wire::message_id::{OffsetId, RecallHandle};
use corelane_wire::properties::{Edit, Looked, Properties, look, name as property};
use corelane_wire::record::Host;
use corelane_wire::{ExtHeader, FrameTemplate, Text};

use super::delay::{Asked, Due, Taken};
use super::position::no_topic;
use super::store::NewMessage;
use super::turn::{Effect, Refusal, Request, Turn};
use super::{Engine, name, topic};
use crate::log::{Position, QueueRef};

/// The region that messages and answers name.
pub(super) const REGION: &str = "DefaultRegion";

/// What the broker adds to the properties of every message, as a record has it.
pub(super) fn stamp(cluster_name: &str) -> String {
    let pairs = [
        (property::MSG_REGION, REGION),
        (property::TRACE_ON, "true"),
        (property::CLUSTER, cluster_name),
    ];
    let pair = |(name, value)| format!("{name}\x01{value}\x02");
    pairs.map(pair).concat()
}

/// What every answer to a send begins with.
pub(super) fn answer() -> FrameTemplate {
    let head = Head {
        serialization: Serialization::Rocketmq,
        code: response::SUCCESS,
        language: language::JAVA,
        version: VERSION,
        opaque: 0,
        flag: 1,
        remark: None,
    };
    FrameTemplate::new(&head, &[("MSG_REGION", REGION), ("TRACE_ON", "true")])
}

/// Properties of a sent message that are not stored: the broker writes its own, or none.
const LEFT_OUT: [&str; 4] = [
    property::POP_CK,
    property::MSG_REGION,
    property::TRACE_ON,
    property::CLUSTER,
];

/// What the properties of a sent message mean to its broker. Where a name stands twice the last pair counts.
struct Meaning<'a> {
    /// As an edit without [`LEFT_OUT`] sees them.
    looked: Looked<'a>,
    wait: Option<&'a str>,
    tags: Option<&'a str>,
    transaction: Option<&'a str>,
    asked: Asked<'a>,
}

impl<'a> Meaning<'a> {
    fn of(properties: &'a str) -> Self {
        let (mut wait, mut tags, mut transaction) = (None, None, None);
        let mut asked = Asked::default();
        let looked = look(properties, |name, value| {
            match name {
                property::WAIT => wait = Some(value),
                property::TAGS => tags = Some(value),
                property::TRAN_MSG => transaction = Some(value),
                property::DELAY => asked.level = Some(Text::plain(value)),
                property::TIMER_DELAY_SEC => asked.delay_secs = Some(Text::plain(value)),
                property::TIMER_DELAY_MS => asked.delay_ms = Some(Text::plain(value)),
                property::TIMER_DELIVER_MS => asked.deliver_ms = Some(Text::plain(value)),
                property::TIMER_OUT_MS => asked.out_ms = Some(Text::plain(value)),
                _ => return !LEFT_OUT.contains(&name),
            }
            true
        });
        Self {
            looked,
            wait,
            tags,
            transaction,
            asked,
        }
    }
}

/// Where a message goes.
pub(super) struct Target<'a> {
    /// Its topic.
    pub topic: Cow<'a, str>,
    /// Its queue of that topic.
    pub queue_id: i32,
    /// The log's reference of that queue.
    pub queue: QueueRef,
    /// A group gave up on the message: it goes to its dead letters.
    pub dead: bool,
}

impl Engine {
    /// Stores one message, or the messages of a batch.
    pub(super) fn send(&mut self, turn: &mut Turn<'_>, req: &Request<'_>) -> Result<(), Refusal> {
        let header = match req.frame.code {
            request::SEND_MESSAGE => SendMessageRequest::decode(&req.frame.ext)?,
            _ => SendMessageRequest::decode_short(&req.frame.ext)?,
        };
        let is_batch = req.frame.code == request::SEND_BATCH_MESSAGE || header.batch == Some(true);
        let target = self.target(turn, &header)?;
        self.check_body(req.frame.body)?;
        match is_batch {
            true => self.send_batch(turn, req, &header, &target),
            false => self.send_one(turn, req, &header, &target),
        }
    }

    /// Whether a message may have this body.
    pub(super) fn check_body(&self, body: &[u8]) -> Result<(), Refusal> {
        if !body.is_empty() && body.len() <= self.settings.max_message_bytes {
            return Ok(());
        }
        Err(Refusal::new(
            response::MESSAGE_ILLEGAL,
            format!(
                "the body has {} bytes, and a message has 1 to {} (max_message_bytes)",
                body.len(),
                self.settings.max_message_bytes
            ),
        ))
    }

    fn send_one(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        header: &SendMessageRequest<'_>,
        target: &Target<'_>,
    ) -> Result<(), Refusal> {
        // Where the header is JSON the properties are escaped: undone once, everything behind reads plain text.
        let mut unescaped = std::mem::take(&mut self.unescaped);
        let properties = header.properties.unwrap_or_default();
        let properties = properties.as_plain().unwrap_or_else(|| {
            unescaped.clear();
            properties.push_str_to(&mut unescaped);
            &unescaped
        });
        let sent = self.send_with(turn, req, header, target, properties);
        self.unescaped = unescaped;
        sent
    }

    fn send_with(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        header: &SendMessageRequest<'_>,
        target: &Target<'_>,
        properties: &str,
    ) -> Result<(), Refusal> {
        let Meaning {
            looked,
            wait,
            tags,
            transaction,
            asked,
        } = Meaning::of(properties);
        let unique_key = Some(looked.keys().unique).filter(|key| !key.is_empty());
        // What a group sends back was a transaction's once, and is none any more.
        let is_retry = target.dead || header.reconsume_times.is_some_and(|times| times > 0);
        let is_half =
            !is_retry && transaction.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if is_half {
            self.check_broker_takes_halves()?;
        }
        // A transaction knows no delay.
        let due = if target.dead || is_half {
            Due::Now
        } else {
            self.due(turn.now.wall_ms, &asked)?
        };
        let made = unique_key.is_none().then(|| self.new_unique_key());
        let unique_key = unique_key.unwrap_or(made.as_deref().unwrap_or_default());
        let stamp = self.stamp.clone();
        let append = [
            (property::UNIQ_KEY, made.as_deref().unwrap_or_default()),
            (property::DELAY, if target.dead { "-1" } else { "" }),
        ];
        let properties = Edit {
            received: Properties::from_plain(properties),
            without: &LEFT_OUT,
            ready: &stamp,
            append: &append,
        };
        let message = NewMessage {
            topic: &target.topic,
            queue_id: target.queue_id,
            queue: target.queue,
            tags: tags.map(Cow::Borrowed),
            flag: header.flag,
            sys_flag: header.sys_flag & !sys_flag::TRANSACTION_MASK,
            born_timestamp: header.born_timestamp,
            born_host: self.born_host(req),
            reconsume_times: header.reconsume_times.unwrap_or(0),
            prepared_transaction_offset: 0,
            body: req.frame.body,
            properties,
        };
        let now = |appended| Taken {
            appended,
            timer_out_ms: None,
        };
        let taken = if is_half {
            let group = header.producer_group.to_str();
            now(self.store_half(turn, message, &group, unique_key)?)
        } else if due == Due::Now && !target.dead {
            let measured = properties.measure_looked(looked);
            now(self.store_measured(turn, &message, &measured)?)
        } else {
            self.store_due(turn, &message, due)?
        };
        let stored = taken.appended;
        let id = OffsetId {
            store_host: self.store_host,
            offset: stored.position as i64,
        }
        .encode();
        let recall_handle = taken
            .timer_out_ms
            .filter(|_| !target.topic.starts_with(name::RETRY_PREFIX))
            .map(|out_ms| {
                let handle = RecallHandle {
                    topic: target.topic.to_string(),
                    broker_name: self.settings.broker_name.clone(),
                    // Behind the rounded time, so that it rounds to that again.
                    deliver_ms: out_ms + 1,
                    unique_key: unique_key.to_owned(),
                };
                handle.encode()
            });
        let waits = wait.is_none_or(|wait| !wait.eq_ignore_ascii_case("false"));
        let queue_id = target.queue_id;
        let template = Rc::clone(&self.sent);
        self.reply_when_durable(turn, req.to, stored.end, 0, waits, |out| {
            let mut fields = template.start(out, req.to.serialization, req.to.opaque);
            fields.field("msgId", id.as_str());
            fields.int_field("queueId", queue_id.into());
            fields.int_field("queueOffset", stored.queue_offset);
            fields.field("transactionId", unique_key);
            if let Some(handle) = &recall_handle {
                fields.field("recallHandle", handle);
            }
            fields.finish(0);
        });
        Ok(())
    }

    fn send_batch(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        header: &SendMessageRequest<'_>,
        target: &Target<'_>,
    ) -> Result<(), Refusal> {
        if target.topic.len() > name::MAX_TOPIC || name::is_group_topic(&target.topic) {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                "a batch cannot go to a retry topic",
            ));
        }
        let born_host = self.born_host(req);
        let (mut bytes, mut count) = (0, 0);
        for message in batch::messages(req.frame.body) {
            let message = message
                .map_err(|error| Refusal::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
            let new = batched(header, target, born_host, &message);
            bytes += self.layout_at_most(&new)?.total_len();
            count += 1;
        }
        turn.log.reserve(bytes, count)?;
        let mut ids = String::with_capacity(count * 33);
        let (mut first_offset, mut end): (i64, Position) = (0, 0);
        for (index, message) in batch::messages(req.frame.body).flatten().enumerate() {
            let mut new = batched(header, target, born_host, &message);
            let looked = look(message.properties, |name, value| {
                if name == property::TAGS {
                    new.tags = Some(Cow::Borrowed(value));
                }
                true
            });
            let measured = new.properties.measure_looked(looked);
            let stored = self.store_measured(turn, &new, &measured)?;
            if index == 0 {
                first_offset = stored.queue_offset;
            } else {
                ids.push(',');
            }
            ids.push_str(
                OffsetId {
                    store_host: self.store_host,
                    offset: stored.position as i64,
                }
                .encode()
                .as_str(),
            );
            end = stored.end;
        }
        let queue_id = target.queue_id;
        let template = Rc::clone(&self.sent);
        self.reply_when_durable(turn, req.to, end, 0, true, |out| {
            let mut fields = template.start(out, req.to.serialization, req.to.opaque);
            fields.field("msgId", &ids);
            fields.int_field("queueId", queue_id.into());
            fields.int_field("queueOffset", first_offset);
            fields.finish(0);
        });
        Ok(())
    }

    /// Finds the queue that a send names, and makes its topic where that is allowed.
    pub(super) fn target<'h>(
        &mut self,
        turn: &mut Turn<'_>,
        header: &SendMessageRequest<'h>,
    ) -> Result<Target<'h>, Refusal> {
        let mut topic = header.topic.to_str();
        self.check_broker_takes(&topic)?;
        let mut queue_id = header.queue_id;
        let mut dead = false;
        let known = self.topics.get(&topic).is_some();
        if !known {
            name::check_topic(&topic)?;
        }
        if !name::is_for_clients(&topic) {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!("sending message to topic[{topic}] is forbidden"),
            ));
        }
        if let Some(group) = topic.strip_prefix(name::RETRY_PREFIX) {
            let Some(config) = self.groups.get(group) else {
                return Err(Refusal::new(
                    response::SUBSCRIPTION_GROUP_NOT_EXIST,
                    format!("subscription group [{group}] does not exist"),
                ));
            };
            let most = header.max_reconsume_times.unwrap_or(config.retry_max_times);
            if header.reconsume_times.is_some_and(|times| times > most) {
                let dlq = format!("{}{group}", name::DLQ_PREFIX);
                self.ensure_topic(turn, &dlq, 1)?;
                (topic, queue_id, dead) = (dlq.into(), 0, true);
            } else {
                let queues = config.retry_queue_nums.max(1);
                self.ensure_topic(turn, &topic, queues)?;
            }
        } else if !known {
            self.auto_create(turn, &topic, header)?;
        }
        self.send_round = self.send_round.wrapping_add(1);
        let round = self.send_round;
        let Some(known) = self.topics.get_mut(&topic) else {
            return Err(no_topic(&topic));
        };
        if queue_id < 0 {
            queue_id = round.rem_euclid(known.config.write_queue_nums.max(1));
        }
        if queue_id >= known.queue_count() {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "request queueId[{queue_id}] is illegal, topic[{topic}] has {} queues",
                    known.queue_count()
                ),
            ));
        }
        let queue = known.queue(turn.log, queue_id);
        Ok(Target {
            topic,
            queue_id,
            queue,
            dead,
        })
    }

    /// A readable and writable topic, made where it is missing.
    pub(super) fn ensure_topic(
        &mut self,
        turn: &mut Turn<'_>,
        name: &str,
        queues: i32,
    ) -> Result<(), Refusal> {
        if self.topics.get(name).is_none() {
            self.put_topic(turn, topic::config(name, queues, perm::READ | perm::WRITE))?;
            turn.out.effect(Effect::Register {
                version: self.topics.version(),
            });
        }
        Ok(())
    }

    /// Makes a topic as the template that the sender names says.
    fn auto_create(
        &mut self,
        turn: &mut Turn<'_>,
        name: &str,
        header: &SendMessageRequest<'_>,
    ) -> Result<(), Refusal> {
        let template_name = header.default_topic.to_str();
        let template = self.topics.get(&template_name).map(|topic| &topic.config);
        // A template that an operator made works also where nothing is made from the general one.
        let usable = self.settings.auto_create_topic || template_name != name::AUTO_CREATE_TOPIC;
        let allowed = |template: &&TopicConfig| usable && template.perm & perm::INHERIT != 0;
        let Some(template) = template.filter(allowed) else {
            return Err(no_topic(name));
        };
        let queues = header
            .default_topic_queue_nums
            .min(template.write_queue_nums)
            .max(0);
        let mut config = topic::config(name, queues, template.perm & !perm::INHERIT);
        config.topic_filter_type = template.topic_filter_type;
        tracing::info!(topic = name, queues, "the topic is made by a send");
        self.put_topic(turn, config)?;
        turn.out.effect(Effect::Register {
            version: self.topics.version(),
        });
        Ok(())
    }

    /// A unique key for a message whose sender made none: 32 digits that no other message of this broker has.
    fn new_unique_key(&mut self) -> String {
        self.unique_keys += 1;
        let address = crc32fast::hash(self.settings.store_host.to_string().as_bytes());
        format!(
            "{address:08X}{:012X}{:012X}",
            self.started_wall_ms & 0xffff_ffff_ffff,
            self.unique_keys & 0xffff_ffff_ffff
        )
    }
}

/// A message of a batch, its tags not looked for.
fn batched<'a>(
    header: &SendMessageRequest<'_>,
    target: &'a Target<'_>,
    born_host: Host,
    message: &batch::BatchMessage<'a>,
) -> NewMessage<'a> {
    let received = Properties::from_plain(message.properties);
    NewMessage {
        topic: &target.topic,
        queue_id: target.queue_id,
        queue: target.queue,
        tags: None,
        flag: message.flag,
        sys_flag: header.sys_flag & !sys_flag::TRANSACTION_MASK,
        born_timestamp: header.born_timestamp,
        born_host,
        reconsume_times: header.reconsume_times.unwrap_or(0),
        prepared_transaction_offset: 0,
        body: message.body,
        properties: Edit {
            ready: "",
            received,
            without: &[],
            append: &[],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::test_host::{TestHost, settings, small_log};

    #[test]
    fn only_the_general_template_depends_on_automatic_creation() {
        for (auto_create_topic, template, code) in [
            (true, "TBW102", response::SUCCESS),
            (false, "TBW102", response::TOPIC_NOT_EXIST),
            (true, "own", response::SUCCESS),
            (false, "own", response::SUCCESS),
            (false, "sterile", response::TOPIC_NOT_EXIST),
            (false, "none", response::TOPIC_NOT_EXIST),
        ] {
            let settings = crate::engine::Settings {
                auto_create_topic,
                ..settings()
            };
            let mut host = TestHost::start(1, settings, small_log());
            let connection = host.connect();
            for (topic, perm) in [("own", "7"), ("sterile", "6")] {
                let fields = [
                    ("topic", topic),
                    ("defaultTopic", "TBW102"),
                    ("readQueueNums", "2"),
                    ("writeQueueNums", "2"),
                    ("perm", perm),
                    ("topicFilterType", "SINGLE_TAG"),
                    ("order", "false"),
                ];
                host.ask(connection, request::UPDATE_AND_CREATE_TOPIC, &fields, b"");
                // No NameServer is there to hear of it.
                host.advance(4_000);
            }
            let fields = [
                ("a", "producers"),
                ("b", "new"),
                ("c", template),
                ("d", "4"),
                ("e", "0"),
                ("f", "0"),
                ("g", "1700000000000"),
                ("h", "0"),
            ];
            let reply = host.request(connection, request::SEND_MESSAGE_V2, &fields, b"body");
            assert_eq!(reply.code, code, "{auto_create_topic} {template}");
            let made = host.engine.topics.get("new");
            let shown = made.map(|topic| (topic.config.write_queue_nums, topic.config.perm));
            let queues = if template == "own" { 2 } else { 4 };
            assert_eq!(shown, (code == response::SUCCESS).then_some((queues, 6)));
        }
    }
}
