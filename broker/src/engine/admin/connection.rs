//! Who is connected: GET_CONSUMER_CONNECTION_LIST 203, GET_PRODUCER_CONNECTION_LIST 204, GET_ALL_PRODUCER_INFO 328,
//! QUERY_SUBSCRIPTION_BY_CONSUMER 345.

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::body::{
    Connection, ConsumerConnection, ProducerConnection, ProducerInfo, ProducerTableInfo,
    QuerySubscriptionResponseBody,
};
use corelane_wire::code::{language, response};
use corelane_wire::header::client::{
    GetConsumerConnectionListRequest, GetProducerConnectionListRequest,
};
use corelane_wire::header::group::QuerySubscriptionByConsumerRequest;

use crate::engine::Engine;
use crate::engine::client::Client;
use crate::engine::turn::{Refusal, Request, Turn};

impl Engine {
    pub(super) fn consumer_connections(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetConsumerConnectionListRequest::decode(&req.frame.ext)?;
        let group = header.consumer_group.to_str();
        let Some(consumers) = self.clients.consumers(&group) else {
            return Err(Refusal::new(
                response::CONSUMER_NOT_ONLINE,
                format!("the consumer group[{group}] not online"),
            ));
        };
        let body = ConsumerConnection {
            connection_set: consumers
                .clients
                .iter()
                .map(|(id, client)| connection(id, client))
                .collect(),
            subscription_table: consumers
                .subscriptions
                .iter()
                .map(|(topic, sub)| (topic.clone(), sub.data.clone()))
                .collect(),
            consume_type: consumers.consume_type,
            message_model: consumers.message_model,
            consume_from_where: consumers.consume_from_where,
        };
        turn.answer_body(req.to, &body.to_json());
        Ok(())
    }

    pub(super) fn producer_connections(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetProducerConnectionListRequest::decode(&req.frame.ext)?;
        let group = header.producer_group.to_str();
        let Some(producers) = self.clients.producers(&group) else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("the producer group[{group}] not exist"),
            ));
        };
        let body = ProducerConnection {
            connection_set: producers
                .iter()
                .map(|(id, client)| connection(id, client))
                .collect(),
        };
        turn.answer_body(req.to, &body.to_json());
        Ok(())
    }

    pub(super) fn all_producers(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let seen_wall_ms =
            |client: &Client| turn.now.wall_ms - (turn.now.mono_ms - client.seen_mono_ms);
        let info = |(id, client): (&String, &Client)| ProducerInfo {
            client_id: id.clone(),
            remote_ip: client.address.to_string(),
            language: language::name(client.language).to_owned(),
            version: client.version,
            last_update_timestamp: seen_wall_ms(client),
        };
        let groups = self.clients.producer_groups();
        let data: BTreeMap<_, Vec<_>> = groups
            .map(|(group, clients)| (group.to_owned(), clients.iter().map(info).collect()))
            .collect();
        turn.answer_body(req.to, &ProducerTableInfo { data }.to_json());
        Ok(())
    }

    pub(super) fn subscription_of_group(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = QuerySubscriptionByConsumerRequest::decode(&req.frame.ext)?;
        let group = header.group.to_str();
        let topic = header.topic.map(|topic| topic.to_str()).unwrap_or_default();
        let subscription = self
            .clients
            .consumers(&group)
            .and_then(|members| members.subscriptions.get(&*topic));
        let body = QuerySubscriptionResponseBody {
            subscription_data: subscription.map(|subscription| subscription.data.clone()),
            group: group.into_owned(),
            topic: topic.into_owned(),
        };
        turn.answer_body(req.to, &body.to_json());
        Ok(())
    }
}

fn connection(client_id: &str, client: &Client) -> Connection {
    Connection {
        client_id: client_id.to_owned(),
        client_addr: client.address.to_string(),
        language: language::name(client.language).to_owned(),
        version: client.version,
    }
}
