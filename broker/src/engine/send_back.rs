//! CONSUMER_SEND_MSG_BACK 36: a message that a group could not consume is to be consumed again later, or is given up.
//!
//! The message is stored anew for `%RETRY%group`, behind a delay that grows with every failure, or in `%DLQ%group` when the
//! group has failed too often. It keeps the id of its first self and the topic that it came from.

use corelane_wire::ExtHeader;
use corelane_wire::body::{
    GroupRetryPolicy, GroupRetryPolicyType, SubscriptionGroupConfig, TopicConfig,
};
use corelane_wire::code::{perm, response};
use corelane_wire::header::send::ConsumerSendMsgBackRequest;
use corelane_wire::message_id::OffsetId;
use corelane_wire::properties::{Edit, name as property};
use corelane_wire::record::Record;

use super::delay::Due;
use super::store::NewMessage;
use super::turn::{Effect, Refusal, Request, Turn};
use super::{Engine, name, topic};
use crate::log::ReadMiss;

/// Clients before this version send no `maxReconsumeTimes`.
const VERSION_WITH_MAX: i32 = 121;
/// The level of the first retry; each one after it is a level higher.
const FIRST_RETRY_LEVEL: i32 = 3;
/// Bit of a topic's system flag: it belongs to one unit.
const UNIT_SUB: i32 = 2;
/// The most failures by which an exponential policy grows.
const MAX_EXPONENT: u32 = 32;

impl Engine {
    /// CONSUMER_SEND_MSG_BACK 36.
    pub(super) fn send_back(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = ConsumerSendMsgBackRequest::decode(&req.frame.ext)?;
        let group = header.group.to_str();
        self.ensure_group(turn, &group)?;
        let Some(config) = self.groups.get(&group).cloned() else {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("subscription group not exist, {group}"),
            ));
        };
        self.check_broker_writable()?;
        if config.retry_queue_nums <= 0 {
            turn.answer_ok(req.to);
            return Ok(());
        }
        let not_found = || {
            Refusal::new(
                response::SYSTEM_ERROR,
                format!("look message by offset failed, {}", header.offset),
            )
        };
        let position = u64::try_from(header.offset).map_err(|_| not_found())?;
        let bytes = match turn.log.record_at(position) {
            Ok(bytes) => bytes,
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Err(ReadMiss::Gone) => return Err(not_found()),
            Err(miss) => return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string())),
        };
        let (record, _) = Record::parse(&bytes).map_err(|_| not_found())?;
        if !name::is_for_clients(record.topic()) {
            return Err(not_found());
        }
        let header_max = header
            .max_reconsume_times
            .filter(|_| req.frame.version >= VERSION_WITH_MAX);
        let most = header_max.unwrap_or(config.retry_max_times);
        let failures = record.reconsume_times();
        let dead = failures >= most || header.delay_level < 0;

        let (target, queue_id) = if dead {
            (format!("{}{group}", name::DLQ_PREFIX), 0)
        } else {
            self.send_round = self.send_round.wrapping_add(1);
            (
                format!("{}{group}", name::RETRY_PREFIX),
                self.send_round.rem_euclid(config.retry_queue_nums),
            )
        };
        let queues = if dead { 1 } else { config.retry_queue_nums };
        self.ensure_group_topic(turn, &target, queues, header.unit_mode && !dead)?;
        let Some(known) = self.topics.get_mut(&target) else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("topic[{target}] not exist"),
            ));
        };
        if known.config.perm & perm::WRITE == 0 {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!("the topic[{target}] sending message is forbidden"),
            ));
        }
        let queue = known.queue(turn.log, queue_id);

        let (due, level) = match dead {
            true => (Due::Now, Some(0)),
            false => self.retry_due(turn.now.wall_ms, &config, header.delay_level, failures),
        };
        let properties = record.properties();
        let [retry_topic, origin_id, tags] = properties.find([
            property::RETRY_TOPIC,
            property::ORIGIN_MESSAGE_ID,
            property::TAGS,
        ]);
        let retry_topic = retry_topic.map_or(record.topic().into(), |topic| topic.to_str());
        let own_id = OffsetId {
            store_host: record.store_host(),
            offset: record.physical_offset(),
        }
        .encode();
        let origin_id = origin_id.map_or(own_id.as_str().into(), |id| id.to_str());
        let level = level.map(|level| level.to_string()).unwrap_or_default();
        let append = [
            (property::RETRY_TOPIC, &*retry_topic),
            (property::ORIGIN_MESSAGE_ID, &*origin_id),
            (property::WAIT, "false"),
            (property::DELAY, &*level),
        ];
        // A level that the message came with says nothing about a wait that the group's policy sets.
        let without: &[&str] = if level.is_empty() {
            &[property::DELAY]
        } else {
            &[]
        };
        let message = NewMessage {
            topic: &target,
            queue_id,
            queue,
            tags: tags.map(|tags| tags.to_str()),
            flag: record.flag(),
            sys_flag: record.sys_flag(),
            born_timestamp: record.born_timestamp(),
            born_host: record.born_host(),
            reconsume_times: failures.saturating_add(1),
            prepared_transaction_offset: 0,
            body: record.body(),
            properties: Edit {
                ready: "",
                received: properties,
                without,
                append: &append,
            },
        };
        let end = self.store_due(turn, &message, due)?.appended.end;
        self.stats
            .sent_back(&group, record.topic(), turn.now.wall_ms);
        self.answer_when_durable(turn, req.to, end, 0);
        Ok(())
    }

    /// When a message is consumed again that failed so often before, and the level that its record shows.
    fn retry_due(
        &self,
        wall_ms: i64,
        config: &SubscriptionGroupConfig,
        level: i32,
        failures: i32,
    ) -> (Due, Option<i32>) {
        if level == 0
            && let Some(wait_ms) = policy_wait_ms(&config.group_retry_policy, failures)
        {
            let wait_ms = wait_ms.min(self.settings.timer_max_delay_ms);
            let due = if wait_ms > 0 {
                Due::At(wall_ms.saturating_add(wait_ms))
            } else {
                Due::Now
            };
            return (due, None);
        }
        let level = if level == 0 {
            FIRST_RETRY_LEVEL.saturating_add(failures)
        } else {
            level
        };
        let highest = self.settings.delay_levels_ms.len();
        (
            Due::Level(usize::try_from(level).unwrap_or(1).clamp(1, highest)),
            Some(level),
        )
    }

    /// A topic of a group's own, made where it is missing, and given more queues where the group has more now: what is sent
    /// to a queue that consumers do not see would never be consumed.
    pub(super) fn ensure_group_topic(
        &mut self,
        turn: &mut Turn<'_>,
        name: &str,
        queues: i32,
        unit: bool,
    ) -> Result<(), Refusal> {
        let config = match self.topics.get(name) {
            None => TopicConfig {
                topic_sys_flag: if unit { UNIT_SUB } else { 0 },
                ..topic::config(name, queues, perm::READ | perm::WRITE)
            },
            Some(known) if queues > 1 && known.config.read_queue_nums < queues => TopicConfig {
                read_queue_nums: queues,
                write_queue_nums: queues,
                ..known.config.clone()
            },
            Some(_) => return Ok(()),
        };
        self.put_topic(turn, config)?;
        turn.out.effect(Effect::Register {
            version: self.topics.version(),
        });
        Ok(())
    }
}

/// How long a group's own policy lets the next retry wait, in milliseconds; `None` where it has none of its own.
fn policy_wait_ms(policy: &GroupRetryPolicy, failures: i32) -> Option<i64> {
    let failures = failures.max(0).unsigned_abs();
    match policy.kind {
        GroupRetryPolicyType::Exponential => {
            let policy = policy.exponential_retry_policy.as_ref()?;
            let factor = policy
                .multiplier
                .max(1)
                .saturating_pow(failures.min(MAX_EXPONENT));
            Some(
                policy
                    .initial
                    .saturating_mul(factor)
                    .clamp(0, policy.max.max(0)),
            )
        }
        GroupRetryPolicyType::Customized => {
            // The first two waits are for those who ask for them by level.
            let waits = &policy.customized_retry_policy.as_ref()?.next;
            let index = (failures as usize + 2).min(waits.len().checked_sub(1)?);
            waits.get(index).copied()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::turn::Connection;
    use crate::log::LogOptions;
    use crate::sim::shard::{Received, SimShard, settings};
    use corelane_wire::FrameWriter;
    use corelane_wire::body::{CustomizedRetryPolicy, ExponentialRetryPolicy};
    use corelane_wire::code::request;

    fn start() -> (SimShard, Connection) {
        let mut shard = SimShard::new(1, settings(), LogOptions::default());
        let connection = shard.connect();
        (shard, connection)
    }

    fn send_back(
        shard: &mut SimShard,
        connection: Connection,
        position: i64,
        level: &str,
        max: Option<&str>,
    ) -> Received {
        send_back_to(shard, connection, "g", position, level, max)
    }

    fn send_back_to(
        shard: &mut SimShard,
        connection: Connection,
        group: &str,
        position: i64,
        level: &str,
        max: Option<&str>,
    ) -> Received {
        let fields = |fields: &mut FrameWriter<'_>| {
            fields.int_field("offset", position);
            fields.field("group", group);
            fields.field("delayLevel", level);
            fields.field("originMsgId", "id");
            if let Some(max) = max {
                fields.field("maxReconsumeTimes", max);
            }
        };
        shard
            .call(connection, request::CONSUMER_SEND_MSG_BACK, fields, &[])
            .unwrap()
    }

    fn send(shard: &mut SimShard, connection: Connection, body: &str, pairs: &[(&str, &str)]) {
        shard.send(connection, "t", 0, body, pairs);
        shard.settle();
        assert_eq!(shard.receive(connection)[0].code, response::SUCCESS);
    }

    fn put_group(shard: &mut SimShard, connection: Connection, config: &SubscriptionGroupConfig) {
        let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        assert_eq!(
            shard
                .call(connection, code, |_| {}, &config.to_json())
                .unwrap()
                .code,
            response::SUCCESS
        );
    }

    #[test]
    fn a_group_that_gets_more_retry_queues_can_consume_from_them() {
        let (mut shard, connection) = start();
        send(&mut shard, connection, "body", &[]);
        let position = shard.stored("t", 0)[0].position;
        let retry = |shard: &mut SimShard, queues: i32| {
            let config = SubscriptionGroupConfig {
                group_name: "g".to_owned(),
                retry_queue_nums: queues,
                ..SubscriptionGroupConfig::default()
            };
            put_group(shard, connection, &config);
            let back = send_back(shard, connection, position, "1", None);
            assert_eq!(back.code, response::SUCCESS);
            let code = request::GET_TOPIC_CONFIG;
            let fields = |fields: &mut FrameWriter<'_>| fields.field("topic", "%RETRY%g");
            let answer = shard.call(connection, code, fields, &[]).unwrap();
            TopicConfig::from_json(&answer.body)
                .unwrap()
                .read_queue_nums
        };
        assert_eq!(retry(&mut shard, 1), 1);
        assert_eq!(retry(&mut shard, 4), 4);
        assert_eq!(retry(&mut shard, 2), 4);
    }

    #[test]
    fn a_message_is_retried_and_then_dead() {
        let (mut shard, connection) = start();
        send(
            &mut shard,
            connection,
            "body",
            &[("TAGS", "tag"), ("KEYS", "k")],
        );
        let first = shard.stored("t", 0)[0].clone();
        let mut position = first.position;
        for (failures, wait_ms) in [(1, 1_000), (2, 30_000)] {
            // Level 0 grows with the failures; another level is taken as it is.
            let level = if failures == 1 { "1" } else { "0" };
            assert_eq!(
                send_back(&mut shard, connection, position, level, Some("2")).code,
                response::SUCCESS
            );
            shard.advance(wait_ms - 10);
            assert_eq!(shard.stored("%RETRY%g", 0).len(), failures - 1);
            shard.advance(20);
            let retried = shard.stored("%RETRY%g", 0).pop().unwrap();
            assert_eq!(
                (retried.body.as_str(), retried.reconsume_times),
                ("body", failures as i32)
            );
            for (name, value) in [
                ("RETRY_TOPIC", "t"),
                ("REAL_TOPIC", "%RETRY%g"),
                ("WAIT", "false"),
                ("TAGS", "tag"),
            ] {
                assert_eq!(retried.properties[name], value);
            }
            position = retried.position;
        }
        assert_eq!(
            send_back(&mut shard, connection, position, "0", Some("2")).code,
            response::SUCCESS
        );
        let letters = shard.stored("%DLQ%g", 0);
        assert_eq!(letters.len(), 1);
        assert_eq!(
            (
                letters[0].reconsume_times,
                letters[0].properties["DELAY"].as_str()
            ),
            (3, "0")
        );
        let origin = OffsetId {
            store_host: "127.0.0.1:10911"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
            offset: first.position,
        };
        assert_eq!(
            letters[0].properties["ORIGIN_MESSAGE_ID"],
            origin.encode().as_str()
        );
        // A level below 0 gives up at once.
        assert_eq!(
            send_back(&mut shard, connection, first.position, "-1", None).code,
            response::SUCCESS
        );
        assert_eq!(shard.stored("%DLQ%g", 0).len(), 2);
    }

    #[test]
    fn a_groups_policy_says_how_long_a_retry_waits() {
        let (mut shard, connection) = start();
        let policy = GroupRetryPolicy {
            customized_retry_policy: Some(CustomizedRetryPolicy {
                next: vec![0, 0, 7_000],
            }),
            ..GroupRetryPolicy::default()
        };
        let config = SubscriptionGroupConfig {
            group_name: "g".into(),
            group_retry_policy: policy,
            ..SubscriptionGroupConfig::default()
        };
        put_group(&mut shard, connection, &config);
        send(&mut shard, connection, "body", &[("DELAY", "0")]);
        let position = shard.stored("t", 0)[0].position;
        assert_eq!(
            send_back(&mut shard, connection, position, "0", None).code,
            response::SUCCESS
        );
        shard.advance(6_990);
        assert_eq!(shard.stored("%RETRY%g", 0), []);
        shard.advance(1_020);
        let retried = shard.stored("%RETRY%g", 0);
        assert_eq!((retried.len(), retried[0].reconsume_times), (1, 1));
        assert_eq!(retried[0].properties.get("DELAY"), None);
    }

    #[test]
    fn what_a_consumer_sends_for_the_last_time_is_dead() {
        let (mut shard, connection) = start();
        put_group(&mut shard, connection, &group_g());
        for (failures, topic) in [(2, "%RETRY%g"), (3, "%DLQ%g")] {
            let fields = |fields: &mut FrameWriter<'_>| {
                for (letter, value) in [
                    ("a", "p"),
                    ("b", "%RETRY%g"),
                    ("c", "TBW102"),
                    ("d", "4"),
                    ("e", "0"),
                    ("f", "0"),
                ] {
                    fields.field(letter, value);
                }
                fields.field("g", "1");
                fields.field("h", "0");
                fields.field("i", "DELAY\u{1}1\u{2}RETRY_TOPIC\u{1}t\u{2}");
                fields.int_field("j", failures);
                fields.field("l", "2");
            };
            let reply = shard
                .call(connection, request::SEND_MESSAGE_V2, fields, b"body")
                .unwrap();
            assert_eq!(reply.code, response::SUCCESS, "{:?}", reply.remark);
            shard.advance(1_010);
            let stored = shard.stored(topic, 0);
            assert_eq!(stored.len(), 1);
            assert_eq!(stored[0].reconsume_times, failures as i32);
            let delay = if failures == 3 { "-1" } else { "1" };
            assert_eq!(stored[0].properties["DELAY"], delay);
        }
    }

    fn group_g() -> SubscriptionGroupConfig {
        SubscriptionGroupConfig {
            group_name: "g".into(),
            ..SubscriptionGroupConfig::default()
        }
    }

    #[test]
    fn what_cannot_be_sent_back_is_refused() {
        let (mut shard, connection) = start();
        send(&mut shard, connection, "body", &[]);
        for position in [-1, i64::MIN, i64::MAX, 1, 1 << 40] {
            assert_eq!(
                send_back(&mut shard, connection, position, "0", None).code,
                response::SYSTEM_ERROR,
                "{position}"
            );
        }
        // Records of the system are not for consumers.
        send(&mut shard, connection, "later", &[("DELAY", "1")]);
        let waiting = shard.stored("SCHEDULE_TOPIC_XXXX", 0)[0].position;
        assert_eq!(
            send_back(&mut shard, connection, waiting, "0", None).code,
            response::SYSTEM_ERROR
        );
        let position = shard.stored("t", 0)[0].position;
        let config = SubscriptionGroupConfig {
            group_name: "g".into(),
            retry_queue_nums: 0,
            ..SubscriptionGroupConfig::default()
        };
        put_group(&mut shard, connection, &config);
        assert_eq!(
            send_back(&mut shard, connection, position, "-1", None).code,
            response::SUCCESS
        );
        assert_eq!(shard.stored("%DLQ%g", 0), []);
        let reply = send_back_to(&mut shard, connection, "no group", position, "0", None);
        assert_eq!(reply.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    }

    #[test]
    fn policies_space_retries_as_the_protocol_says() {
        assert_eq!(policy_wait_ms(&GroupRetryPolicy::default(), 3), None);
        let exponential = GroupRetryPolicy {
            kind: GroupRetryPolicyType::Exponential,
            exponential_retry_policy: Some(ExponentialRetryPolicy {
                initial: 5_000,
                max: 60_000,
                multiplier: 2,
            }),
            customized_retry_policy: None,
        };
        let waits =
            [0, 1, 2, 3, 4, 1_000, -7].map(|failures| policy_wait_ms(&exponential, failures));
        assert_eq!(
            waits,
            [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 5_000].map(Some)
        );
        let mut customized = GroupRetryPolicy {
            customized_retry_policy: Some(CustomizedRetryPolicy {
                next: vec![1, 2, 3, 4],
            }),
            ..GroupRetryPolicy::default()
        };
        let waits = [0, 1, 2, 99].map(|failures| policy_wait_ms(&customized, failures));
        assert_eq!(waits, [3, 4, 4, 4].map(Some));
        customized.customized_retry_policy = Some(CustomizedRetryPolicy { next: Vec::new() });
        assert_eq!(policy_wait_ms(&customized, 0), None);
    }
}
