//! What administrators ask of clients, through the broker: GET_CONSUMER_RUNNING_INFO 307, CONSUME_MESSAGE_DIRECTLY 309,
//! INVOKE_BROKER_TO_GET_CONSUMER_STATUS 223.

use corelane_wire::code::{request, response};
use corelane_wire::header::group::InvokeBrokerToGetConsumerStatusRequest;
use corelane_wire::header::notify::{ConsumeMessageDirectlyRequest, GetConsumerRunningInfoRequest};
use corelane_wire::message_id::OffsetId;
use corelane_wire::{ExtHeader, FrameWriter};

use crate::engine::Engine;
use crate::engine::calls::Then;
use crate::engine::turn::{Connection, Refusal, Request, Turn};
use crate::log::{Position, ReadMiss};

/// How long a client may take to tell about itself or to consume a message, in milliseconds.
const RELAY_WAIT_MS: i64 = 10_000;
/// How long a client may take to tell its offsets, in milliseconds.
const STATUS_WAIT_MS: i64 = 5_000;

impl Engine {
    pub(super) fn consumer_running_info(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetConsumerRunningInfoRequest::decode(&req.frame.ext)?;
        let client = self.consumer(
            &header.consumer_group.to_str(),
            Some(&header.client_id.to_str()),
        )?;
        self.relay_request(turn, req, client, &[], req.frame.body)
    }

    pub(super) fn consume_directly(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = ConsumeMessageDirectlyRequest::decode(&req.frame.ext)?;
        let client_id = header
            .client_id
            .map(|id| id.to_str())
            .filter(|id| !id.is_empty());
        let client = self.consumer(&header.consumer_group.to_str(), client_id.as_deref())?;
        let id = header.msg_id.map(|id| id.to_str()).unwrap_or_default();
        let position = OffsetId::parse(&id).and_then(|id| Position::try_from(id.offset).ok());
        let Some(position) = position else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("{id:?} is not an offset message id"),
            ));
        };
        let record = match turn.log.record_at(position) {
            Ok(record) => record,
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Err(miss) => {
                return Err(Refusal::new(
                    response::SYSTEM_ERROR,
                    format!("the message {id} cannot be read: {miss}"),
                ));
            }
        };
        let topic = header.topic.map(|topic| topic.to_str()).unwrap_or_default();
        let topic_flag = self
            .topics
            .get(&topic)
            .map_or(0, |topic| topic.config.topic_sys_flag)
            .to_string();
        let group_flag = self
            .groups
            .get(&header.consumer_group.to_str())
            .map_or(0, |group| group.group_sys_flag)
            .to_string();
        let broker_name = self.settings.broker_name.clone();
        let more = [
            ("brokerName", broker_name.as_str()),
            ("topicSysFlag", topic_flag.as_str()),
            ("groupSysFlag", group_flag.as_str()),
        ];
        self.relay_request(turn, req, client, &more, &record)
    }

    /// A member of a consumer group; any where none is named.
    fn consumer(&self, group: &str, client_id: Option<&str>) -> Result<Connection, Refusal> {
        let clients = self
            .clients
            .consumers(group)
            .map(|consumers| &consumers.clients);
        let client = match client_id {
            Some(id) => clients.and_then(|clients| clients.get(id)),
            None => clients.and_then(|clients| clients.values().next()),
        };
        client.map(|client| client.connection).ok_or_else(|| {
            let who = client_id.unwrap_or("any client");
            Refusal::new(
                response::SYSTEM_ERROR,
                format!("The Consumer <{group}> <{who}> not online"),
            )
        })
    }

    /// Sends a request on to a client as it came, with `more` fields, and its answer back.
    fn relay_request(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        client: Connection,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), Refusal> {
        let fields = |writer: &mut FrameWriter<'_>| {
            for (name, value) in req.frame.ext.iter() {
                if !more.iter().any(|(other, _)| name == *other) {
                    writer.text_field(&name.to_str(), value);
                }
            }
            for (name, value) in more {
                writer.field(name, value);
            }
        };
        self.call(
            turn,
            client,
            req.frame.code,
            RELAY_WAIT_MS,
            Then::Relay { to: req.to },
            fields,
            body,
        )
    }

    pub(super) fn consumer_status(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = InvokeBrokerToGetConsumerStatusRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.group.to_str(), header.topic.to_str());
        let wanted = header
            .client_addr
            .map(|id| id.to_str())
            .filter(|id| !id.is_empty());
        let members = self
            .clients
            .consumers(&group)
            .into_iter()
            .flat_map(|consumers| &consumers.clients);
        let clients: Vec<(String, Connection)> = members
            .filter(|(id, _)| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| id.as_str() == &**wanted)
            })
            .map(|(id, client)| (id.clone(), client.connection))
            .collect();
        if clients.is_empty() {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("No Any Consumer online in the consumer group: [{group}]"),
            ));
        }
        let survey = self.begin_survey(req.to, clients.len());
        for (client_id, connection) in clients {
            let then = Then::Status {
                survey,
                client_id: client_id.clone(),
            };
            let fields = |fields: &mut FrameWriter<'_>| {
                fields.field("topic", &topic);
                fields.field("group", &group);
            };
            let code = request::GET_CONSUMER_STATUS_FROM_CLIENT;
            if self
                .call(turn, connection, code, STATUS_WAIT_MS, then, fields, &[])
                .is_err()
            {
                self.fill_survey(turn, survey, client_id, None);
            }
        }
        Ok(())
    }
}
