//! What administrators and tools ask: topics, groups, connections, statistics, the broker itself.
//!
//! None of it is on the path of a message; clarity comes before speed here.

mod attribute;
mod broker;
mod connection;
mod consumption;
mod group;
mod lookup;
mod offset;
mod remote;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
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
            request::SET_MESSAGE_REQUEST_MODE => self.set_request_mode(turn, req),
            request::GET_ALL_MESSAGE_REQUEST_MODE => self.all_request_modes(turn, req),
            request::GET_BROKER_RUNTIME_INFO => self.runtime_info(turn, req),
            request::GET_BROKER_CONFIG => self.broker_config(turn, req),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => self.update_group_list(turn, req),
            request::UPDATE_AND_GET_GROUP_FORBIDDEN => self.group_forbidden(turn, req),
            request::GET_ALL_PRODUCER_INFO => self.all_producers(turn, req),
            request::QUERY_SUBSCRIPTION_BY_CONSUMER => self.subscription_of_group(turn, req),
            request::GET_ALL_CONSUMER_OFFSET => self.all_consumer_offsets(turn, req),
            request::GET_ALL_DELAY_OFFSET => self.all_delay_offsets(turn, req),
            request::QUERY_CONSUME_TIME_SPAN => self.consume_time_span(turn, req),
            request::QUERY_CORRECTION_OFFSET => self.correction_offset(turn, req),
            request::CLONE_GROUP_OFFSET => self.clone_group_offset(turn, req),
            request::INVOKE_BROKER_TO_RESET_OFFSET => self.reset_offset(turn, req),
            request::GET_CONSUMER_RUNNING_INFO => self.consumer_running_info(turn, req),
            request::CONSUME_MESSAGE_DIRECTLY => self.consume_directly(turn, req),
            request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => self.consumer_status(turn, req),
            request::QUERY_MESSAGE => self.query_message(turn, req),
            request::VIEW_MESSAGE_BY_ID => self.view_message(turn, req),
            request::QUERY_CONSUME_QUEUE => self.query_consume_queue(turn, req),
            request::GET_BROKER_CONSUME_STATS => self.broker_consume_stats(turn, req),
            request::UPDATE_BROKER_CONFIG => self.update_config(turn, req),
            request::VIEW_BROKER_STATS_DATA => self.stats_data(turn, req),
            request::CLEAN_UNUSED_TOPIC
            | request::CLEAN_EXPIRED_CONSUMEQUEUE
            | request::DELETE_EXPIRED_COMMITLOG => self.clean(turn, req),
            request::RESUME_CHECK_HALF_MESSAGE => self.resume_half_message(turn, req),
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
