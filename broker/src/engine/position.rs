//! Where queues begin and end, and how far groups have come: QUERY_CONSUMER_OFFSET 14, UPDATE_CONSUMER_OFFSET 15,
//! SEARCH_OFFSET_BY_TIMESTAMP 29, GET_MAX_OFFSET 30, GET_MIN_OFFSET 31, GET_EARLIEST_MSG_STORETIME 32.

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::code::response;
use corelane_wire::header::offset::{
    GetEarliestMsgStoretimeRequest, GetMaxOffsetRequest, GetMinOffsetRequest,
    QueryConsumerOffsetRequest, SearchOffsetByTimestampRequest, UpdateConsumerOffsetRequest,
};

use super::Engine;
use super::turn::{Refusal, ReplyTo, Request, Turn};
use crate::log::{Boundary, ReadMiss};

impl Engine {
    /// QUERY_CONSUMER_OFFSET 14.
    pub(super) fn query_consumer_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryConsumerOffsetRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        if let Some(offset) = self.offsets.get(&group, &topic, header.queue_id) {
            answer_offset(turn, req.to, offset);
            return Ok(());
        }
        // A group that is new on a queue which still has its first message starts there, whatever the consumer prefers.
        let first_is_there = turn
            .log
            .find_queue(&topic, header.queue_id)
            .is_none_or(|queue| turn.log.min_offset(queue) == 0);
        if header.set_zero_if_not_found != Some(false) && first_is_there {
            answer_offset(turn, req.to, 0);
            return Ok(());
        }
        Err(Refusal::new(
            response::QUERY_NOT_FOUND,
            "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        ))
    }

    /// UPDATE_CONSUMER_OFFSET 15.
    pub(super) fn update_consumer_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = UpdateConsumerOffsetRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        let Some(known) = self.topics.get(&topic) else {
            return Err(no_topic(&topic));
        };
        if self.groups.get(&group).is_none() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("the group {group} does not exist"),
            ));
        }
        if header.queue_id < 0 || header.queue_id >= known.queue_count() {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!("{topic} has no queue {}", header.queue_id),
            ));
        }
        if header.commit_offset < 0 {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!("{} is not an offset", header.commit_offset),
            ));
        }
        if self.is_reset(&group, &topic, header.queue_id) {
            turn.answer_ok(req.to);
            return Ok(());
        }
        let is_new = self.offsets.get(&group, &topic, header.queue_id).is_none();
        if is_new && self.offsets.count() >= self.settings.max_offsets {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                format!(
                    "this broker keeps {} consumer offsets already (max_offsets)",
                    self.offsets.count()
                ),
            ));
        }
        let committed = self.offsets.get(&group, &topic, header.queue_id);
        // Only a reset by hand goes back.
        let goes_back = committed.is_some_and(|committed| header.commit_offset < committed);
        if req.to.oneway && !goes_back {
            self.offsets
                .commit(&group, &topic, header.queue_id, header.commit_offset);
            return Ok(());
        }
        let is_known = committed == Some(header.commit_offset);
        let end = if is_known && !self.offsets.is_dirty_in(&group, &topic) {
            // The commit that made it so may still be on its way to the disk.
            turn.log.max_position()
        } else {
            let target = BTreeMap::from([(header.queue_id, header.commit_offset)]);
            let room = self.room_to_set(&group, &topic, &target);
            turn.log.reserve(room.bytes, room.records)?;
            if goes_back {
                self.set_offsets(turn, &group, &topic, &target)?
            } else {
                self.offsets
                    .commit(&group, &topic, header.queue_id, header.commit_offset);
                self.journal_offsets(turn, &group, &topic)?
            }
        };
        self.answer_when_durable(turn, req.to, end, 0);
        Ok(())
    }

    /// GET_MAX_OFFSET 30.
    pub(super) fn get_max_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetMaxOffsetRequest::decode(&req.frame.ext)?;
        let queue = turn.log.find_queue(&header.topic.to_str(), header.queue_id);
        let offset = queue.map_or(0, |queue| turn.log.max_offset(queue));
        answer_offset(turn, req.to, offset);
        Ok(())
    }

    /// GET_MIN_OFFSET 31.
    pub(super) fn get_min_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetMinOffsetRequest::decode(&req.frame.ext)?;
        let queue = turn.log.find_queue(&header.topic.to_str(), header.queue_id);
        let offset = queue.map_or(0, |queue| turn.log.min_offset(queue));
        answer_offset(turn, req.to, offset);
        Ok(())
    }

    /// SEARCH_OFFSET_BY_TIMESTAMP 29.
    pub(super) fn search_offset(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = SearchOffsetByTimestampRequest::decode(&req.frame.ext)?;
        let upper = header
            .boundary_type
            .is_some_and(|text| text.to_str().eq_ignore_ascii_case("UPPER"));
        let boundary = if upper {
            Boundary::Upper
        } else {
            Boundary::Lower
        };
        let Some(queue) = turn.log.find_queue(&header.topic.to_str(), header.queue_id) else {
            answer_offset(turn, req.to, 0);
            return Ok(());
        };
        match turn.log.offset_by_time(queue, header.timestamp, boundary) {
            Ok(offset) => answer_offset(turn, req.to, offset),
            Err(ReadMiss::Wanted(read)) => self.retry_after_read(turn, read, req),
            Err(miss) => return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string())),
        }
        Ok(())
    }

    /// GET_EARLIEST_MSG_STORETIME 32.
    pub(super) fn earliest_store_time(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetEarliestMsgStoretimeRequest::decode(&req.frame.ext)?;
        let queue = turn.log.find_queue(&header.topic.to_str(), header.queue_id);
        let time = match queue.map(|queue| self.store_time(turn, queue, None)) {
            None => -1,
            Some(Ok(time)) => time.unwrap_or(-1),
            Some(Err(ReadMiss::Wanted(read))) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Some(Err(miss)) => return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string())),
        };
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| fields.int_field("timestamp", time),
            &[],
        );
        Ok(())
    }
}

fn answer_offset(turn: &mut Turn<'_>, to: ReplyTo, offset: i64) {
    turn.answer(
        to,
        response::SUCCESS,
        None,
        |fields| fields.int_field("offset", offset),
        &[],
    );
}

/// The refusal for a topic that is not there.
pub(super) fn no_topic(topic: &str) -> Refusal {
    Refusal::new(
        response::TOPIC_NOT_EXIST,
        format!("topic[{topic}] not exist, apply first please!"),
    )
}
