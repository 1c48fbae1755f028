//! Topics by hand: UPDATE_AND_CREATE_TOPIC 17 and its list form 18, DELETE_TOPIC_IN_BROKER 215, GET_ALL_TOPIC_CONFIG 21,
//! GET_TOPIC_CONFIG 351, GET_TOPIC_STATS_INFO 202, GET_SYSTEM_TOPIC_LIST_FROM_BROKER 305.

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::body::{
    CreateTopicListRequestBody, MessageQueue, TopicConfig, TopicFilterType, TopicList, TopicOffset,
    TopicStatsTable,
};
use corelane_wire::code::response;
use corelane_wire::header::topic::{
    DeleteTopicInBrokerRequest, GetTopicConfigRequest, GetTopicStatsInfoRequest,
    UpdateAndCreateTopicRequest,
};

use super::attribute;
use crate::engine::position::no_topic;
use crate::engine::turn::{Effect, Refusal, Request, Turn};
use crate::engine::{Engine, name};
use crate::log::{Position, ReadMiss};

impl Engine {
    pub(super) fn update_topic(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = UpdateAndCreateTopicRequest::decode(&req.frame.ext)?;
        let topic = header.topic.to_str().into_owned();
        let attributes = match header.attributes {
            Some(text) => attribute::parsed(&text.to_str())?,
            None => BTreeMap::new(),
        };
        let config = TopicConfig {
            topic_name: topic,
            read_queue_nums: header.read_queue_nums,
            write_queue_nums: header.write_queue_nums,
            perm: header.perm,
            topic_filter_type: TopicFilterType::from_name(&header.topic_filter_type.to_str())
                .unwrap_or_default(),
            topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
            order: header.order,
            attributes,
        };
        let end = self.update_checked(turn, config)?;
        self.answer_registered(turn, req, end);
        Ok(())
    }

    /// The NameServers keep order configurations of these topics: they are topics in order from now on.
    pub fn take_order(&mut self, turn: &mut Turn<'_>, table: &BTreeMap<String, String>) {
        let known = table.keys().filter_map(|topic| self.topics.get(topic));
        let new: Vec<TopicConfig> = known
            .filter(|topic| topic.kept && !topic.config.order)
            .map(|topic| TopicConfig {
                order: true,
                ..topic.config.clone()
            })
            .collect();
        for config in new {
            let topic = config.topic_name.clone();
            match self.put_topic(turn, config) {
                Ok(_) => turn.out.effect(Effect::Register {
                    version: self.topics.version(),
                }),
                // It is told again with the next registration.
                Err(refusal) => {
                    tracing::warn!(%topic, remark = %refusal.remark, "the topic cannot be marked as one in order");
                }
            }
        }
    }

    pub(super) fn update_topic_list(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let body = CreateTopicListRequestBody::from_json(req.frame.body)?;
        let mut end = None;
        for config in body.topic_config_list {
            end = self.update_checked(turn, config)?.or(end);
        }
        self.answer_registered(turn, req, end);
        Ok(())
    }

    /// The attributes of `config` are changes.
    fn update_checked(
        &mut self,
        turn: &mut Turn<'_>,
        mut config: TopicConfig,
    ) -> Result<Option<Position>, Refusal> {
        name::check_topic(&config.topic_name)?;
        if name::is_system_topic(&config.topic_name) {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "the topic[{}] is conflict with system topic",
                    config.topic_name
                ),
            ));
        }
        let queues = 0..=self.settings.max_topic_queues;
        if !queues.contains(&config.read_queue_nums) || !queues.contains(&config.write_queue_nums) {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "a topic has 0 to {} queues (max_topic_queues)",
                    self.settings.max_topic_queues
                ),
            ));
        }
        let known = self.topics.get(&config.topic_name);
        config.attributes = attribute::changed(
            &attribute::OF_TOPICS,
            known.map(|topic| &topic.config.attributes),
            &config.attributes,
        )?;
        self.put_topic(turn, config)
    }

    /// Answers when the change is durable and the NameServers know of it.
    fn answer_registered(&mut self, turn: &mut Turn<'_>, req: &Request<'_>, end: Option<Position>) {
        let Some(end) = end else {
            // The request that made it so may still be on its way to the disk.
            let end = turn.log.max_position();
            return self.answer_when_durable(turn, req.to, end, 0);
        };
        let version = self.topics.version();
        turn.out.effect(Effect::Register { version });
        self.answer_when_durable(turn, req.to, end, version);
    }

    pub(super) fn delete_topic_request(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = DeleteTopicInBrokerRequest::decode(&req.frame.ext)?;
        let topic = header.topic.to_str();
        name::check_topic(&topic)?;
        if name::is_system_topic(&topic) || self.topics.get(&topic).is_some_and(|topic| !topic.kept)
        {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!("the topic[{topic}] is a system topic"),
            ));
        }
        let count = self
            .topics
            .get(&topic)
            .map_or(0, |topic| topic.queue_count());
        let queues: Vec<_> = (0..count)
            .filter_map(|queue_id| turn.log.find_queue(&topic, queue_id))
            .collect();
        let groups: Vec<String> = self.offsets.groups(&topic).map(str::to_owned).collect();
        if self.topics.get(&topic).is_some() {
            self.delete_retry_topics(turn, &topic, &groups)?;
        }
        let Some(end) = self.delete_topic(turn, &topic)? else {
            let end = turn.log.max_position();
            self.answer_when_durable(turn, req.to, end, 0);
            return Ok(());
        };
        for queue in queues {
            self.wake_all_of(turn, queue);
        }
        self.end_pops_of(turn, &topic);
        turn.out.effect(Effect::Register {
            version: self.topics.version(),
        });
        self.answer_when_durable(turn, req.to, end, 0);
        Ok(())
    }

    pub(super) fn all_topic_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let body = self.topics.wrapper().to_json();
        let total = self.topics.count() as i64;
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| fields.int_field("totalTopicNum", total),
            &body,
        );
        Ok(())
    }

    pub(super) fn topic_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetTopicConfigRequest::decode(&req.frame.ext)?;
        let topic = header.topic.to_str();
        let Some(known) = self.topics.get(&topic) else {
            return Err(no_topic(&topic));
        };
        turn.answer_body(req.to, &known.config.to_json());
        Ok(())
    }

    pub(super) fn topic_stats(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetTopicStatsInfoRequest::decode(&req.frame.ext)?;
        let topic = header.topic.to_str().into_owned();
        let Some(known) = self.topics.get(&topic) else {
            return Err(no_topic(&topic));
        };
        let mut table = TopicStatsTable::default();
        for queue_id in 0..known.queue_count() {
            let mut stats = TopicOffset::default();
            if let Some(queue) = turn.log.find_queue(&topic, queue_id) {
                stats.min_offset = turn.log.min_offset(queue);
                stats.max_offset = turn.log.max_offset(queue);
                match self.store_time(turn, queue, Some(stats.max_offset - 1)) {
                    Ok(time) => stats.last_update_timestamp = time.unwrap_or(0),
                    Err(ReadMiss::Wanted(read)) => {
                        self.retry_after_read(turn, read, req);
                        return Ok(());
                    }
                    Err(_) => {}
                }
            }
            table
                .offset_table
                .insert(self.message_queue(&topic, queue_id), stats);
        }
        table.topic_put_tps = self.stats.topic_put_tps(&topic, turn.now.wall_ms);
        turn.answer_body(req.to, &table.to_json());
        Ok(())
    }

    /// A queue of this broker, as clients name it.
    pub(in crate::engine) fn message_queue(&self, topic: &str, queue_id: i32) -> MessageQueue {
        MessageQueue {
            topic: topic.to_owned(),
            broker_name: self.settings.broker_name.clone(),
            queue_id,
        }
    }

    pub(super) fn system_topic_list(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let topics = self
            .topics
            .iter()
            .filter(|topic| !topic.kept)
            .map(|topic| topic.config.topic_name.clone());
        let list = TopicList {
            topic_list: topics.collect(),
            broker_addr: None,
        };
        turn.answer_body(req.to, &list.to_json());
        Ok(())
    }
}
