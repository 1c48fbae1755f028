//! How far groups have come: GET_CONSUME_STATS 208, QUERY_TOPIC_CONSUME_BY_WHO 300, QUERY_TOPICS_BY_CONSUMER 343.

use std::collections::BTreeSet;

use corelane_wire::ExtHeader;
use corelane_wire::body::{ConsumeStats, GroupList, OffsetWrapper, TopicList};
use corelane_wire::header::group::{QueryTopicConsumeByWhoRequest, QueryTopicsByConsumerRequest};
use corelane_wire::header::stats::GetConsumeStatsRequest;

use crate::engine::Engine;
use crate::engine::turn::{Refusal, Request, Turn};
use crate::log::ReadMiss;

impl Engine {
    pub(super) fn consume_stats(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetConsumeStatsRequest::decode(&req.frame.ext)?;
        let group = header.consumer_group.to_str().into_owned();
        let named = header
            .topic
            .map(|topic| topic.to_str().into_owned())
            .filter(|topic| !topic.is_empty());
        let topics: BTreeSet<String> = match named {
            Some(topic) => [topic].into(),
            None => self.offsets.topics(&group).map(str::to_owned).collect(),
        };
        let mut stats = ConsumeStats::default();
        for topic in topics {
            let Some(known) = self.topics.get(&topic) else {
                continue;
            };
            for queue_id in 0..known.config.read_queue_nums {
                match self.queue_progress(turn, &group, &topic, queue_id) {
                    Ok(progress) => {
                        stats
                            .offset_table
                            .insert(self.message_queue(&topic, queue_id), progress);
                    }
                    Err(ReadMiss::Wanted(read)) => {
                        self.retry_after_read(read, req);
                        return Ok(());
                    }
                    Err(_) => {}
                }
            }
        }
        turn.answer_body(req.to, &stats.to_json());
        Ok(())
    }

    fn queue_progress(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        queue_id: i32,
    ) -> Result<OffsetWrapper, ReadMiss> {
        let consumer_offset = self.offsets.get(group, topic, queue_id).unwrap_or(0);
        let mut progress = OffsetWrapper {
            consumer_offset,
            pull_offset: consumer_offset,
            ..OffsetWrapper::default()
        };
        if let Some(queue) = turn.log.find_queue(topic, queue_id) {
            progress.broker_offset = turn.log.max_offset(queue);
            progress.last_timestamp = self
                .store_time(turn, queue, Some(consumer_offset - 1))?
                .unwrap_or(0);
        }
        Ok(progress)
    }

    pub(super) fn groups_of_topic(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryTopicConsumeByWhoRequest::decode(&req.frame.ext)?;
        let topic = header.topic.to_str();
        let online = self
            .clients
            .consumer_groups()
            .filter(|(_, consumers)| consumers.subscriptions.contains_key(&*topic));
        let groups: BTreeSet<String> = online
            .map(|(group, _)| group)
            .chain(self.offsets.groups(&topic))
            .map(str::to_owned)
            .collect();
        turn.answer_body(
            req.to,
            &GroupList {
                group_list: groups.into_iter().collect(),
            }
            .to_json(),
        );
        Ok(())
    }

    pub(super) fn topics_of_group(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QueryTopicsByConsumerRequest::decode(&req.frame.ext)?;
        let topics = self
            .offsets
            .topics(&header.group.to_str())
            .map(str::to_owned)
            .collect();
        turn.answer_body(
            req.to,
            &TopicList {
                topic_list: topics,
                broker_addr: None,
            }
            .to_json(),
        );
        Ok(())
    }
}
