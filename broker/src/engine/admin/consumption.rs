//! How far groups have come: GET_CONSUME_STATS 208, GET_BROKER_CONSUME_STATS 317, QUERY_TOPIC_CONSUME_BY_WHO 300,
//! QUERY_TOPICS_BY_CONSUMER 343.

use std::collections::{BTreeMap, BTreeSet};

use corelane_wire::ExtHeader;
use corelane_wire::body::{ConsumeStats, ConsumeStatsList, GroupList, OffsetWrapper, TopicList};
use corelane_wire::header::group::{QueryTopicConsumeByWhoRequest, QueryTopicsByConsumerRequest};
use corelane_wire::header::stats::{GetBrokerConsumeStatsRequest, GetConsumeStatsRequest};

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
        let list = header
            .topic_list
            .map(|list| list.to_str())
            .unwrap_or_default();
        let listed: BTreeSet<&str> = list.split(';').filter(|topic| !topic.is_empty()).collect();
        let topics: BTreeSet<String> = match named {
            Some(topic) => [topic].into(),
            None if !listed.is_empty() => listed.into_iter().map(str::to_owned).collect(),
            None => self.offsets.topics(&group).map(str::to_owned).collect(),
        };
        let mut stats = ConsumeStats::default();
        for topic in topics {
            match self.add_progress(turn, &group, &topic, &mut stats) {
                Ok(()) | Err(ReadMiss::Gone | ReadMiss::Damaged { .. }) => {}
                Err(ReadMiss::Wanted(read)) => {
                    self.retry_after_read(turn, read, req);
                    return Ok(());
                }
            }
        }
        turn.answer_body(req.to, &stats.to_json());
        Ok(())
    }

    /// Of every group with offsets, topic by topic.
    pub(super) fn broker_consume_stats(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetBrokerConsumeStatsRequest::decode(&req.frame.ext)?;
        let mut pairs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (group, topic, _) in self.offsets.iter() {
            pairs
                .entry(group.to_owned())
                .or_default()
                .insert(topic.to_owned());
        }
        let mut list = ConsumeStatsList {
            broker_addr: self.settings.store_host.to_string(),
            ..ConsumeStatsList::default()
        };
        for (group, topics) in pairs {
            let mut of_group = Vec::new();
            for topic in topics {
                let ordered = self.topics.get(&topic).map(|topic| topic.config.order);
                if ordered.is_none_or(|ordered| header.is_order && !ordered) {
                    continue;
                }
                let mut stats = ConsumeStats::default();
                match self.add_progress(turn, &group, &topic, &mut stats) {
                    Ok(()) | Err(ReadMiss::Gone | ReadMiss::Damaged { .. }) => {}
                    Err(ReadMiss::Wanted(read)) => {
                        self.retry_after_read(turn, read, req);
                        return Ok(());
                    }
                }
                for queue in stats.offset_table.values() {
                    list.total_diff += queue.broker_offset - queue.consumer_offset;
                    list.total_inflight_diff += queue.pull_offset - queue.consumer_offset;
                }
                of_group.push(stats);
            }
            list.consume_stats_list.push([(group, of_group)].into());
        }
        turn.answer_body(req.to, &list.to_json());
        Ok(())
    }

    /// Adds a group's progress in one topic.
    fn add_progress(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
        stats: &mut ConsumeStats,
    ) -> Result<(), ReadMiss> {
        let Some(known) = self.topics.get(topic) else {
            return Ok(());
        };
        for queue_id in 0..known.config.read_queue_nums {
            let progress = self.queue_progress(turn, group, topic, queue_id)?;
            stats
                .offset_table
                .insert(self.message_queue(topic, queue_id), progress);
        }
        stats.consume_tps += self.stats.group_get_tps(group, topic, turn.now.wall_ms);
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
        let pull_offset = self
            .pulled
            .get(group, topic, queue_id)
            .unwrap_or(0)
            .max(consumer_offset);
        let mut progress = OffsetWrapper {
            consumer_offset,
            pull_offset,
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
