//! What administrators and tools ask: topics, groups, connections, statistics, the broker itself.
//!
//! None of it is on the path of a message; clarity comes before speed here.

mod broker;
mod connection;
mod consumption;
mod group;
mod topic;

use corelane_wire::code::{request, request_name, response};

use super::Engine;
use super::turn::{Refusal, Request, Turn};

impl Engine {
    /// Every code that is not on the path of a message. One that is not served gets the protocol's answer.
    pub(super) fn administer(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        match req.frame.code {
            request::UPDATE_AND_CREATE_TOPIC => self.update_topic(turn, req),
            request::UPDATE_AND_CREATE_TOPIC_LIST => self.update_topic_list(turn, req),
            request::DELETE_TOPIC_IN_BROKER => self.delete_topic_request(turn, req),
            request::GET_ALL_TOPIC_CONFIG => self.all_topic_config(turn, req),
            request::GET_TOPIC_CONFIG => self.topic_config(turn, req),
            request::GET_TOPIC_STATS_INFO => self.topic_stats(turn, req),
            request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => self.system_topic_list(turn, req),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => self.update_group(turn, req),
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => self.all_group_config(turn, req),
            request::GET_SUBSCRIPTIONGROUP_CONFIG => self.group_config(turn, req),
            request::DELETE_SUBSCRIPTIONGROUP => self.delete_group_request(turn, req),
            request::GET_CONSUMER_CONNECTION_LIST => self.consumer_connections(turn, req),
            request::GET_PRODUCER_CONNECTION_LIST => self.producer_connections(turn, req),
            request::GET_CONSUME_STATS => self.consume_stats(turn, req),
            request::QUERY_TOPIC_CONSUME_BY_WHO => self.groups_of_topic(turn, req),
            request::QUERY_TOPICS_BY_CONSUMER => self.topics_of_group(turn, req),
            request::GET_BROKER_RUNTIME_INFO => self.runtime_info(turn, req),
            request::GET_BROKER_CONFIG => self.broker_config(turn, req),
            code => {
                let name = request_name(code).unwrap_or("unknown");
                tracing::info!(
                    code,
                    name,
                    connection = req.to.connection.0,
                    "request code is not supported"
                );
                Err(Refusal::new(
                    response::REQUEST_CODE_NOT_SUPPORTED,
                    format!(" request type {code} not supported"),
                ))
            }
        }
    }
}
