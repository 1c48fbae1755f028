//! Offsets that an operator set anew: INVOKE_BROKER_TO_RESET_OFFSET 222.
//!
//! The new offset is committed at once, and kept as a reset until the group pulls the queue the next time: that pull is
//! answered PULL_OFFSET_MOVED with it. Until then what the group commits for the queue is not taken, for it comes from
//! members that do not know yet. Resets are journalled: a restart between does not lose them.

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::body::ResetOffsetBody;
use corelane_wire::code::response;
use corelane_wire::header::group::InvokeBrokerToResetOffsetRequest;

use super::Engine;
use super::offset::QueueOffsets;
use super::position::no_topic;
use super::state::{RESETS, encode_offsets};
use super::turn::{Refusal, Request, Turn};
use crate::log::{Position, QueueRef, ReadMiss};

/// A state record of offsets takes at most so much beside its names and offsets,
const RECORD_BYTES: usize = 64;
/// and this for each offset.
const OFFSET_BYTES: usize = 12;

/// What records take in the log.
#[derive(Clone, Copy, Default)]
pub(super) struct Room {
    pub bytes: usize,
    pub records: usize,
}

impl Engine {
    /// INVOKE_BROKER_TO_RESET_OFFSET 222: of one queue to an offset, or of one or all queues to a time.
    pub(super) fn reset_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = InvokeBrokerToResetOffsetRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.group.to_str(), header.topic.to_str());
        let Some(known) = self.topics.get_mut(&topic) else {
            return Err(no_topic(&topic));
        };
        if self.groups.get(&group).is_none() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("the group {group} does not exist"),
            ));
        }
        let count = known.config.read_queue_nums;
        let queue_ids = match header.queue_id {
            id if id < 0 => 0..count,
            id if id < count => id..id + 1,
            id => {
                return Err(Refusal::new(
                    response::SYSTEM_ERROR,
                    format!("{topic} has {count} queues to read, and none is {id}"),
                ));
            }
        };
        let queues: Vec<(i32, QueueRef)> = queue_ids
            .map(|id| (id, known.queue(turn.log, id)))
            .collect();
        let offset = header
            .offset
            .filter(|offset| *offset != -1 && header.queue_id >= 0);
        let mut body = ResetOffsetBody::default();
        for (queue_id, queue) in &queues {
            let (min, max) = (turn.log.min_offset(*queue), turn.log.max_offset(*queue));
            let target = match offset {
                Some(offset) if (min..=max + 1).contains(&offset) => offset,
                Some(offset) => {
                    return Err(Refusal::new(
                        response::SYSTEM_ERROR,
                        format!(
                            "the offset {offset} is not between {min} and {max}, the queue's first and last"
                        ),
                    ));
                }
                None if header.timestamp < 0 => max,
                None => match self.first_stored_from(turn, *queue, header.timestamp) {
                    Ok(offset) => offset,
                    Err(ReadMiss::Wanted(read)) => {
                        self.retry_after_read(turn, read, req);
                        return Ok(());
                    }
                    Err(miss) => {
                        return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string()));
                    }
                },
            };
            body.offset_table
                .insert(self.message_queue(&topic, *queue_id), target);
        }
        let targets = body.offset_table.iter();
        let targets = targets
            .map(|(queue, target)| (queue.queue_id, *target))
            .collect();
        let room = self.room_to_set(&group, &topic, &targets);
        turn.log.reserve(2 * room.bytes, 2 * room.records)?;
        self.set_offsets(turn, &group, &topic, &targets)?;
        for (queue_id, target) in targets {
            self.resets.load(&group, &topic, queue_id, target);
        }
        let end = self.journal_resets(turn, &group, &topic)?;
        tracing::info!(%group, %topic, queues = queues.len(), timestamp = header.timestamp, "offsets were reset");
        for (_, queue) in queues {
            self.wake_all_of(turn, queue);
        }
        let json = body.to_json();
        self.reply_when_durable(turn, req.to, end, 0, true, |out| {
            req.to
                .write(out, response::SUCCESS, None)
                .finish_with(&json);
        });
        Ok(())
    }

    /// Room in the log for setting offsets of a group by hand. Who reserves it first sets all of them or, where there is no
    /// room, none.
    pub(super) fn room_to_set(&self, group: &str, topic: &str, targets: &QueueOffsets) -> Room {
        let of_names = group.len() + topic.len() + RECORD_BYTES;
        let with_pops = targets
            .keys()
            .filter(|queue_id| self.has_pops(group, topic, **queue_id));
        let pops = with_pops.count();
        let known = self.offsets.queues(group, topic).map_or(0, BTreeMap::len);
        Room {
            bytes: (pops + 1) * of_names + (known + targets.len()) * OFFSET_BYTES,
            records: pops + 1,
        }
    }

    /// Sets offsets of a group by hand; what it has popped there before does not count any more. Gives the log's end behind it.
    pub(super) fn set_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        targets: &QueueOffsets,
    ) -> Result<Position, Refusal> {
        for (queue_id, target) in targets {
            self.reset_pops(turn, group, topic, *queue_id)?;
            self.offsets.commit(group, topic, *queue_id, *target);
        }
        self.journal_offsets(turn, group, topic)
    }

    /// Whether commits of a group for a queue are not taken now.
    pub(super) fn is_reset(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        self.resets.get(group, topic, queue_id).is_some()
    }

    /// The offset that a pull is to go on from, where it was reset since the last one. It is told once.
    pub(super) fn take_reset(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<Option<i64>, Refusal> {
        let Some(offset) = self.resets.get(group, topic, queue_id) else {
            return Ok(None);
        };
        self.resets.forget_queue(group, topic, queue_id);
        if let Err(refusal) = self.journal_resets(turn, group, topic) {
            self.resets.load(group, topic, queue_id, offset);
            return Err(refusal);
        }
        Ok(Some(offset))
    }

    fn journal_resets(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
    ) -> Result<Position, Refusal> {
        let mut payload = Vec::new();
        encode_offsets(&self.resets, group, topic, &mut payload);
        Ok(turn.log.append_state(RESETS, &payload)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use corelane_wire::code::request;

    use super::*;
    use crate::engine::turn::Connection;
    use crate::sim::test_host::{Reply, TestHost, settings, small_log};

    fn start() -> (TestHost, Connection) {
        let mut host = TestHost::start(1, settings(), small_log());
        let connection = host.connect();
        for number in 0..10 {
            host.send(connection, "t", 0, &number.to_string(), &[]);
            host.advance(1_000);
        }
        host.consume(connection, "client", "g", "t");
        (host, connection)
    }

    fn reset(host: &mut TestHost, connection: Connection, more: &[(&str, &str)]) -> Reply {
        let mut fields = vec![("group", "g"), ("topic", "t"), ("isForce", "true")];
        fields.extend(more);
        host.request(
            connection,
            request::INVOKE_BROKER_TO_RESET_OFFSET,
            &fields,
            &[],
        )
    }

    fn pull(host: &mut TestHost, connection: Connection, offset: &str) -> Reply {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "0"),
            ("queueOffset", offset),
            ("maxMsgNums", "32"),
            ("sysFlag", "5"),
            ("commitOffset", "9"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        host.request(connection, request::PULL_MESSAGE, &fields, &[])
    }

    fn commit(host: &mut TestHost, connection: Connection, offset: &str) -> i32 {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "0"),
            ("commitOffset", offset),
        ];
        host.request(connection, request::UPDATE_CONSUMER_OFFSET, &fields, &[])
            .code
    }

    fn committed(host: &mut TestHost, connection: Connection) -> String {
        let fields = [("consumerGroup", "g"), ("topic", "t"), ("queueId", "0")];
        host.request(connection, request::QUERY_CONSUMER_OFFSET, &fields, &[])
            .fields["offset"]
            .clone()
    }

    #[test]
    fn the_next_pull_is_told_and_commits_before_it_do_not_count() {
        let (mut host, connection) = start();
        assert_eq!(commit(&mut host, connection, "10"), response::SUCCESS);
        let middle = (host.now.wall_ms - 5_500).to_string();
        let reply = reset(&mut host, connection, &[("timestamp", &middle)]);
        assert_eq!(reply.code, response::SUCCESS, "{}", reply.remark);
        let body = ResetOffsetBody::from_json(&reply.body).unwrap();
        let of_queue_0 = body
            .offset_table
            .iter()
            .find(|(queue, _)| queue.queue_id == 0)
            .map(|(_, offset)| *offset);
        assert_eq!(of_queue_0, Some(5));
        assert_eq!(commit(&mut host, connection, "10"), response::SUCCESS);
        assert_eq!(committed(&mut host, connection), "5");
        // Neither is it forgotten in a crash, nor told twice after one.
        host.crash_and_reopen();
        let connection = host.connect();
        host.consume(connection, "client", "g", "t");
        let reply = pull(&mut host, connection, "10");
        assert_eq!(
            (reply.code, reply.fields["nextBeginOffset"].as_str()),
            (response::PULL_OFFSET_MOVED, "5")
        );
        assert_eq!(committed(&mut host, connection), "5");
        host.crash_and_reopen();
        let connection = host.connect();
        host.consume(connection, "client", "g", "t");
        assert_eq!(pull(&mut host, connection, "5").code, response::SUCCESS);
        assert_eq!(commit(&mut host, connection, "7"), response::SUCCESS);
        assert_eq!(committed(&mut host, connection), "7");
    }

    #[test]
    fn a_held_pull_is_told_at_once() {
        let (mut host, connection) = start();
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "t"),
            ("queueId", "0"),
            ("queueOffset", "10"),
            ("maxMsgNums", "32"),
            ("sysFlag", "6"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "15000"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        let held = host.ask(connection, request::PULL_MESSAGE, &fields, &[]);
        host.run();
        assert_eq!(host.answer(connection, held), None);
        reset(&mut host, connection, &[("timestamp", "0")]);
        let reply = host.answer(connection, held).unwrap();
        assert_eq!(
            (reply.code, reply.fields["nextBeginOffset"].as_str()),
            (response::PULL_OFFSET_MOVED, "0")
        );
    }

    /// The log has room for all of a reset's records, for some or for none.
    #[test]
    fn what_is_refused_for_want_of_room_changes_nothing() {
        let (mut refused, mut done) = (0, 0);
        for spare in (0..2_000).step_by(50) {
            let (mut host, connection) = start();
            commit(&mut host, connection, "7");
            let fields = [
                ("consumerGroup", "g"),
                ("topic", "t"),
                ("queueId", "0"),
                ("maxMsgNums", "2"),
                ("invisibleTime", "60000"),
                ("pollTime", "0"),
                ("bornTime", "0"),
                ("initMode", "0"),
            ];
            let popped = host.request(connection, request::POP_MESSAGE, &fields, &[]);
            assert_eq!(popped.code, response::SUCCESS, "{}", popped.remark);
            for len in [60_000, 10_000, spare] {
                let body = "f".repeat(len);
                loop {
                    let sent = host.ask_send(connection, "filler", 0, &body, &[]);
                    if host.answer(connection, sent).is_some() {
                        break;
                    }
                }
            }
            let fields = [
                ("group", "g"),
                ("topic", "t"),
                ("isForce", "true"),
                ("timestamp", "0"),
            ];
            let code = request::INVOKE_BROKER_TO_RESET_OFFSET;
            let asked = host.ask(connection, code, &fields, &[]);
            let is_refused = host.answer(connection, asked).is_some_and(|reply| {
                assert_eq!(reply.code, response::SYSTEM_BUSY, "{}", reply.remark);
                true
            });
            let set = host.engine.offsets.get("g", "t", 0) == Some(0);
            let told = host.engine.is_reset("g", "t", 0);
            let forgotten = !host.engine.has_pops("g", "t", 0);
            assert_eq!([set, told, forgotten], [!is_refused; 3], "{spare} spare");
            refused += usize::from(is_refused);
            done += usize::from(!is_refused);
        }
        assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (mut host, connection) = start();
        let at = |offset| [("queueId", "0"), ("offset", offset), ("timestamp", "-1")];
        assert_eq!(
            reset(&mut host, connection, &at("3")).code,
            response::SUCCESS
        );
        assert_eq!(committed(&mut host, connection), "3");
        for offset in ["12", "-2"] {
            assert_eq!(
                reset(&mut host, connection, &at(offset)).code,
                response::SYSTEM_ERROR,
                "{offset}"
            );
        }
        let no_queue = [("queueId", "99"), ("timestamp", "-1")];
        assert_eq!(
            reset(&mut host, connection, &no_queue).code,
            response::SYSTEM_ERROR
        );
        for (group, topic, code) in [
            ("g", "none", response::TOPIC_NOT_EXIST),
            ("none", "t", response::SUBSCRIPTION_GROUP_NOT_EXIST),
        ] {
            let fields = [
                ("group", group),
                ("topic", topic),
                ("timestamp", "0"),
                ("isForce", "true"),
            ];
            let reply = host.request(
                connection,
                request::INVOKE_BROKER_TO_RESET_OFFSET,
                &fields,
                &[],
            );
            assert_eq!(reply.code, code);
        }
        // To the end.
        let reply = reset(&mut host, connection, &[("timestamp", "-1")]);
        assert_eq!(reply.code, response::SUCCESS);
        assert_eq!(committed(&mut host, connection), "10");
    }
}
