//! Offsets of groups by hand: GET_ALL_CONSUMER_OFFSET 43, GET_ALL_DELAY_OFFSET 45, QUERY_CONSUME_TIME_SPAN 303,
//! QUERY_CORRECTION_OFFSET 308, CLONE_GROUP_OFFSET 314.

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::body::{
    ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper, QueryConsumeTimeSpanBody,
    QueryCorrectionOffsetBody, QueueTimeSpan,
};
use corelane_wire::code::response;
use corelane_wire::fastjson::Keys;
use corelane_wire::header::offset::{CloneGroupOffsetRequest, QueryCorrectionOffsetRequest};
use corelane_wire::header::query::QueryConsumeTimeSpanRequest;

use crate::engine::position::no_topic;
use crate::engine::reset::Room;
use crate::engine::turn::{Refusal, Request, Turn};
use crate::engine::{Engine, name};
use crate::log::ReadMiss;

/// Java reads numbers as keys either way; other clients want JSON.
const KEYS: Keys = Keys::Quoted;

impl Engine {
    pub(super) fn all_consumer_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let mut body = ConsumerOffsetSerializeWrapper::default();
        for (group, topic, queues) in self.offsets.iter() {
            body.offset_table
                .insert(format!("{topic}@{group}"), queues.clone());
        }
        turn.answer_body(req.to, &body.to_json(KEYS));
        Ok(())
    }

    /// How far each delay level is delivered. Timers have no level.
    pub(super) fn all_delay_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let body = DelayOffsetSerializeWrapper {
            offset_table: self.delays.level_offsets().collect(),
            ..DelayOffsetSerializeWrapper::default()
        };
        turn.answer_body(req.to, &body.to_json(KEYS));
        Ok(())
    }

    pub(super) fn consume_time_span(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryConsumeTimeSpanRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.group.to_str(), header.topic.to_str());
        let Some(known) = self.topics.get(&topic) else {
            return Err(no_topic(&topic));
        };
        let mut body = QueryConsumeTimeSpanBody::default();
        for queue_id in 0..known.config.write_queue_nums {
            match self.queue_time_span(turn, &group, &topic, queue_id) {
                Ok(span) => body.consume_time_span_set.push(span),
                Err(ReadMiss::Wanted(read)) => {
                    self.retry_after_read(turn, read, req);
                    return Ok(());
                }
                Err(miss) => return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string())),
            }
        }
        turn.answer_body(req.to, &body.to_json());
        Ok(())
    }

    fn queue_time_span(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<QueueTimeSpan, ReadMiss> {
        let mut span = QueueTimeSpan {
            message_queue: self.message_queue(topic, queue_id),
            min_time_stamp: -1,
            max_time_stamp: -1,
            consume_time_stamp: -1,
            delay_time: 0,
        };
        let Some(queue) = turn.log.find_queue(topic, queue_id) else {
            return Ok(span);
        };
        let max = turn.log.max_offset(queue);
        let offset = self.offsets.get(group, topic, queue_id).unwrap_or(-1);
        span.min_time_stamp = self.store_time(turn, queue, None)?.unwrap_or(-1);
        span.max_time_stamp = self.store_time(turn, queue, Some(max - 1))?.unwrap_or(-1);
        span.consume_time_stamp = match offset {
            1.. => self
                .store_time(turn, queue, Some(offset - 1))?
                .unwrap_or(-1),
            _ => span.min_time_stamp,
        };
        if offset < max
            && let Some(next_ms) = self.store_time(turn, queue, Some(offset.max(0)))?
        {
            span.delay_time = turn.now.wall_ms - next_ms;
        }
        Ok(span)
    }

    /// For each queue that the compared group has committed: the smallest offset of any group that is not filtered out;
    /// the largest number where the compared group itself lags behind all of them.
    pub(super) fn correction_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryCorrectionOffsetRequest::decode(&req.frame.ext)?;
        let topic = header.topic.to_str();
        let filtered = header
            .filter_groups
            .map(|groups| groups.to_str())
            .unwrap_or_default();
        let mut smallest: BTreeMap<i32, i64> = BTreeMap::new();
        for group in self.offsets.groups(&topic) {
            if filtered.split(',').any(|filtered| filtered == group) {
                continue;
            }
            for (queue_id, offset) in self.offsets.queues(group, &topic).into_iter().flatten() {
                let min = turn
                    .log
                    .find_queue(&topic, *queue_id)
                    .map_or(0, |queue| turn.log.min_offset(queue));
                if *offset >= min {
                    let entry = smallest.entry(*queue_id).or_insert(*offset);
                    *entry = (*entry).min(*offset);
                }
            }
        }
        for (queue_id, offset) in self
            .offsets
            .queues(&header.compare_group.to_str(), &topic)
            .into_iter()
            .flatten()
        {
            if smallest
                .get(queue_id)
                .is_none_or(|smallest| smallest > offset)
            {
                smallest.insert(*queue_id, i64::MAX);
            }
        }
        turn.answer_body(
            req.to,
            &QueryCorrectionOffsetBody {
                correction_offsets: smallest,
            }
            .to_json(KEYS),
        );
        Ok(())
    }

    pub(super) fn clone_group_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = CloneGroupOffsetRequest::decode(&req.frame.ext)?;
        let (source, target) = (header.src_group.to_str(), header.dest_group.to_str());
        name::check_group(&target)?;
        let named = header
            .topic
            .map(|topic| topic.to_str().into_owned())
            .filter(|topic| !topic.is_empty());
        let topics: Vec<String> = match named {
            Some(topic) => vec![topic],
            None => self.offsets.topics(&source).map(str::to_owned).collect(),
        };
        let mut cloned = Vec::new();
        let mut room = Room::default();
        for topic in topics {
            if self.topics.get(&topic).is_none() {
                continue;
            }
            // Members of the target that do not read the topic would never go on from the offsets.
            let members = self.clients.consumers(&target);
            if !header.offline
                && members.is_some_and(|members| !members.subscriptions.contains_key(&topic))
            {
                tracing::info!(group = %target, %topic, "offsets are not cloned: the group is online without the topic");
                continue;
            }
            let Some(queues) = self.offsets.queues(&source, &topic).cloned() else {
                continue;
            };
            let more = self.room_to_set(&target, &topic, &queues);
            room.bytes += more.bytes;
            room.records += more.records;
            cloned.push((topic, queues));
        }
        turn.log.reserve(room.bytes, room.records)?;
        let mut end = turn.log.durable();
        for (topic, queues) in cloned {
            end = self.set_offsets(turn, &target, &topic, &queues)?;
        }
        self.answer_when_durable(turn, req.to, end, 0);
        Ok(())
    }
}
