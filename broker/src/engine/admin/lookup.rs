//! Messages looked up one by one: QUERY_MESSAGE 12, VIEW_MESSAGE_BY_ID 33, QUERY_CONSUME_QUEUE 321.

use corelane_wire::ExtHeader;
use corelane_wire::body::{ConsumeQueueData, QueryConsumeQueueResponseBody};
use corelane_wire::code::response;
use corelane_wire::header::query::{
    QueryConsumeQueueRequest, QueryMessageRequest, ViewMessageByIdRequest,
};
use corelane_wire::record::Record;

use crate::engine::Engine;
use crate::engine::position::no_topic;
use crate::engine::turn::{Refusal, Request, Turn};
use crate::log::{Position, ReadMiss, Slice};

/// Entries of a consume queue in one answer.
const MAX_ENTRIES: usize = 1024;
/// Messages in the answer to a query by key; and to one by unique key, whatever it asks for.
const MAX_FOUND: usize = 64;
const MAX_FOUND_BY_UNIQUE_KEY: usize = 32;

impl Engine {
    pub(super) fn query_message(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryMessageRequest::decode(&req.frame.ext)?;
        let (topic, key) = (header.topic.to_str(), header.key.to_str());
        let asked_for = usize::try_from(header.max_num).unwrap_or(0);
        let max = match header.unique_key_query {
            Some(true) => MAX_FOUND_BY_UNIQUE_KEY,
            _ => asked_for.min(MAX_FOUND),
        };
        let not_found = || {
            Refusal::new(
                response::QUERY_NOT_FOUND,
                "can not find message, maybe time range not correct",
            )
        };
        if key.is_empty() || max == 0 {
            return Err(not_found());
        }
        let records = match find_by_key(
            turn,
            &topic,
            &key,
            header.begin_timestamp,
            header.end_timestamp,
            max,
        ) {
            Ok(records) => records,
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Err(miss) => return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string())),
        };
        let Some((newest, _)) = records
            .first()
            .and_then(|record| Record::parse(record).ok())
        else {
            return Err(not_found());
        };
        if req.to.oneway {
            return Ok(());
        }
        let (newest_ms, newest_position) = (newest.store_timestamp(), newest.physical_offset());
        let mut fields = req
            .to
            .write(turn.out.buffer(req.to.connection), response::SUCCESS, None);
        fields.int_field("indexLastUpdateTimestamp", newest_ms);
        fields.int_field("indexLastUpdatePhyoffset", newest_position);
        fields.finish(records.iter().map(|record| record.len()).sum());
        for record in records {
            turn.out.shared(req.to.connection, record);
        }
        Ok(())
    }

    pub(super) fn view_message(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = ViewMessageByIdRequest::decode(&req.frame.ext)?;
        let not_there = || {
            Refusal::new(
                response::SYSTEM_ERROR,
                format!("can not find message by the offset, {}", header.offset),
            )
        };
        let position = Position::try_from(header.offset).map_err(|_| not_there())?;
        match turn.log.record_at(position) {
            Ok(record) => {
                if !req.to.oneway {
                    req.to
                        .write(turn.out.buffer(req.to.connection), response::SUCCESS, None)
                        .finish(record.len());
                    turn.out.shared(req.to.connection, record);
                }
                Ok(())
            }
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                Ok(())
            }
            Err(ReadMiss::Gone) => Err(not_there()),
            Err(miss @ ReadMiss::Damaged { .. }) => {
                Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string()))
            }
        }
    }

    pub(super) fn query_consume_queue(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryConsumeQueueRequest::decode(&req.frame.ext)?;
        let topic = header.topic.map(|topic| topic.to_str()).unwrap_or_default();
        if self.topics.get(&topic).is_none() {
            return Err(no_topic(&topic));
        }
        let Some(queue) = turn.log.find_queue(&topic, header.queue_id) else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!(
                    "{} of {topic} has no messages, and so no consume queue",
                    header.queue_id
                ),
            ));
        };
        let group = header
            .consumer_group
            .map(|group| group.to_str())
            .unwrap_or_default();
        let subscription = self
            .clients
            .consumers(&group)
            .and_then(|consumers| consumers.subscriptions.get(&*topic))
            .cloned();
        let (min, max) = (turn.log.min_offset(queue), turn.log.max_offset(queue));
        let mut body = QueryConsumeQueueResponseBody {
            subscription_data: subscription
                .as_ref()
                .map(|subscription| subscription.data.clone()),
            max_queue_index: max,
            min_queue_index: min,
            ..QueryConsumeQueueResponseBody::default()
        };
        let count = usize::try_from(header.count).unwrap_or(0).min(MAX_ENTRIES);
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        let mut from = header.index.max(min);
        // The log gives entries in stretches.
        let mut miss = None;
        while entries.len() < count && from < max && miss.is_none() {
            let before = entries.len();
            from = turn.log.next_kept(queue, from);
            miss = turn
                .log
                .entries(queue, from, count - before, &mut entries)
                .err();
            if entries.len() == before {
                break;
            }
            from += (entries.len() - before) as i64;
        }
        for entry in &entries {
            let mut item = ConsumeQueueData {
                physic_offset: entry.position as i64,
                physic_size: entry.size as i32,
                tags_code: entry.tags_code.into(),
                eval: true,
                ..ConsumeQueueData::default()
            };
            match subscription
                .as_ref()
                .map(|subscription| &subscription.filter)
            {
                Some(Ok(filter)) if !filter.matches_tags_code(entry.tags_code) => item.eval = false,
                Some(Ok(filter)) if filter.needs_properties() => {
                    match turn.log.record(entry.position, entry.size) {
                        Ok(slice) => {
                            item.eval = Record::parse(&slice).is_ok_and(|(record, _)| {
                                filter.matches_properties(record.properties_bytes())
                            });
                        }
                        Err(ReadMiss::Gone) => {
                            item.msg = Some("the message is not there any more".to_owned())
                        }
                        Err(other) => {
                            miss = Some(other);
                            break;
                        }
                    }
                }
                _ => {}
            }
            body.queue_data.push(item);
        }
        self.entries = entries;
        match miss {
            Some(ReadMiss::Wanted(read)) => self.retry_after_read(turn, read, req),
            Some(miss @ ReadMiss::Damaged { .. }) => {
                return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string()));
            }
            Some(ReadMiss::Gone) | None => turn.answer_body(req.to, &body.to_json()),
        }
        Ok(())
    }
}

/// The records of a topic that carry a key, newest first.
fn find_by_key(
    turn: &mut Turn<'_>,
    topic: &str,
    key: &str,
    from_ms: i64,
    to_ms: i64,
    max: usize,
) -> Result<Vec<Slice>, ReadMiss> {
    let positions = turn.log.find_by_key(topic, key, from_ms, to_ms, max)?;
    let mut records = Vec::with_capacity(positions.len());
    for position in positions {
        match turn.log.record_at(position) {
            // Retention took it between the two looks.
            Err(ReadMiss::Gone) => {}
            record => records.push(record?),
        }
    }
    Ok(records)
}
