//! HEART_BEAT 34, UNREGISTER_CLIENT 35, CHECK_CLIENT_CONFIG 46, GET_CONSUMER_LIST_BY_GROUP 38, and the notice 40 that
//! tells a group's members to rebalance.

use std::collections::BTreeMap;
use std::rc::Rc;

use corelane_wire::ExtHeader;
use corelane_wire::body::{CheckClientRequestBody, ConsumerData, ConsumerList, HeartbeatData};
use corelane_wire::code::{request, response};
use corelane_wire::header::client::{GetConsumerListByGroupRequest, UnregisterClientRequest};

use super::client::{Client, ConsumerGroup, Membership, Subscription};
use super::filter::Filter;
use super::turn::{Connection, Refusal, Request, Turn};
use super::{Engine, group, name};

/// Subscriptions of one group, at most.
const MAX_SUBSCRIPTIONS: usize = 10_000;
/// How often silent clients are looked for, in milliseconds.
const SCAN_INTERVAL_MS: i64 = 10_000;

impl Engine {
    /// HEART_BEAT 34: registers producers and consumers, makes missing groups and their retry topics.
    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let beat = HeartbeatData::from_json(req.frame.body)?;
        let connection = req.to.connection;
        let mut subscriptions_changed = true;
        if beat.without_sub {
            subscriptions_changed =
                !self
                    .clients
                    .refresh(connection, beat.heartbeat_fingerprint, turn.now.mono_ms);
        } else {
            if beat.client_id.is_empty() {
                return Err(Refusal::new(
                    response::SYSTEM_ERROR,
                    "the heartbeat names no clientID",
                ));
            }
            let joining = beat.producer_data_set.len() + beat.consumer_data_set.len();
            if self.clients.members() + joining > self.settings.max_clients
                && !self.clients.is_member(connection)
            {
                return Err(Refusal::new(
                    response::SYSTEM_BUSY,
                    format!(
                        "this broker has {} clients already (max_clients)",
                        self.clients.members()
                    ),
                ));
            }
            for producer in &beat.producer_data_set {
                if name::check_group(&producer.group_name).is_err() {
                    continue;
                }
                if let Some(client) = self.client(turn, req) {
                    self.clients
                        .register_producer(&producer.group_name, &beat.client_id, client);
                }
            }
            for consumer in beat.consumer_data_set {
                self.register_consumer(turn, req, &beat.client_id, consumer)?;
            }
            self.clients
                .set_fingerprint(connection, beat.heartbeat_fingerprint);
        }
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| {
                fields.field("IS_SUPPORT_HEART_BEAT_V2", "true");
                fields.field(
                    "IS_SUB_CHANGE",
                    if subscriptions_changed {
                        "true"
                    } else {
                        "false"
                    },
                );
            },
            &[],
        );
        Ok(())
    }

    fn client(&self, turn: &Turn<'_>, req: &Request<'_>) -> Option<Client> {
        Some(Client {
            connection: req.to.connection,
            address: self.clients.address(req.to.connection)?,
            language: req.frame.language,
            version: req.frame.version,
            seen_mono_ms: turn.now.mono_ms,
        })
    }

    fn register_consumer(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        client_id: &str,
        says: ConsumerData,
    ) -> Result<(), Refusal> {
        let group_name = says.group_name;
        // A group that may not be made is passed over; its pulls will say so.
        if self.ensure_group(turn, &group_name)?.is_none() {
            return Ok(());
        }
        self.ensure_retry_topic(turn, &group_name)?;
        let Some(client) = self.client(turn, req) else {
            return Ok(());
        };
        if says.subscription_data_set.len() > MAX_SUBSCRIPTIONS {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("a group subscribes to at most {MAX_SUBSCRIPTIONS} topics"),
            ));
        }
        let mut subscriptions = BTreeMap::new();
        for data in says.subscription_data_set {
            let known = self
                .clients
                .consumers(&group_name)
                .and_then(|g| g.subscriptions.get(&data.topic));
            // Compiling is not for every heartbeat: the version tells whether anything is new.
            let subscription = match known {
                Some(known) if known.data == data => known.clone(),
                _ => Rc::new(Subscription::new(data)),
            };
            subscriptions.insert(subscription.data.topic.clone(), subscription);
        }
        let consumers = ConsumerGroup {
            clients: BTreeMap::new(),
            subscriptions,
            consume_type: says.consume_type,
            message_model: says.message_model,
            consume_from_where: says.consume_from_where,
        };
        if self
            .clients
            .register_consumer(&group_name, client_id, client, consumers)
        {
            self.notify_members(turn, &group_name);
        }
        Ok(())
    }

    /// The group, made where it is missing and may be made; `None` where it may not.
    pub(super) fn ensure_group(
        &mut self,
        turn: &mut Turn<'_>,
        name: &str,
    ) -> Result<Option<()>, Refusal> {
        if self.groups.get(name).is_some() {
            return Ok(Some(()));
        }
        let may = self.settings.auto_create_group || group::is_system_group(name);
        if !may || name::check_group(name).is_err() {
            return Ok(None);
        }
        self.put_group(turn, group::config(name))?;
        Ok(Some(()))
    }

    /// The topic that holds what the group consumes again.
    fn ensure_retry_topic(&mut self, turn: &mut Turn<'_>, group_name: &str) -> Result<(), Refusal> {
        let retry_topic = format!("{}{group_name}", name::RETRY_PREFIX);
        let queues = self
            .groups
            .get(group_name)
            .map_or(0, |config| config.retry_queue_nums);
        if queues <= 0 {
            return Ok(());
        }
        self.ensure_group_topic(turn, &retry_topic, queues, false)
    }

    /// UNREGISTER_CLIENT 35.
    pub(super) fn unregister_client(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = UnregisterClientRequest::decode(&req.frame.ext)?;
        let client_id = header.client_id.to_str();
        let mut left = Vec::new();
        if let Some(group) = header.producer_group {
            left.push(Membership::Producer {
                group: group.to_str().into_owned(),
                client_id: client_id.to_string(),
            });
        }
        if let Some(group) = header.consumer_group {
            left.push(Membership::Consumer {
                group: group.to_str().into_owned(),
                client_id: client_id.to_string(),
            });
        }
        left.retain(|membership| self.clients.leave(req.to.connection, membership));
        self.after_leaving(turn, &left);
        turn.answer_ok(req.to);
        Ok(())
    }

    /// Tells those who stay that somebody left.
    pub(super) fn after_leaving(&mut self, turn: &mut Turn<'_>, left: &[Membership]) {
        for membership in left {
            if let Membership::Consumer { group, .. } = membership {
                self.notify_members(turn, group);
            }
        }
    }

    /// NOTIFY_CONSUMER_IDS_CHANGED 40 to every member.
    fn notify_members(&mut self, turn: &mut Turn<'_>, group: &str) {
        let wanted = self
            .groups
            .get(group)
            .is_none_or(|config| config.notify_consumer_ids_changed_enable);
        let Some(consumers) = self.clients.consumers(group) else {
            return;
        };
        if !wanted || consumers.is_broadcasting() {
            return;
        }
        let members: Vec<Connection> = consumers
            .clients
            .values()
            .map(|client| client.connection)
            .collect();
        for connection in members {
            let opaque = self.next_opaque();
            let fields =
                |fields: &mut corelane_wire::FrameWriter<'_>| fields.field("consumerGroup", group);
            turn.notify(
                connection,
                opaque,
                request::NOTIFY_CONSUMER_IDS_CHANGED,
                fields,
                &[],
            );
        }
    }

    /// GET_CONSUMER_LIST_BY_GROUP 38.
    pub(super) fn consumer_list(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = GetConsumerListByGroupRequest::decode(&req.frame.ext)?;
        let group = header.consumer_group.to_str();
        let Some(consumers) = self.clients.consumers(&group) else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("no consumer for this group, {group}"),
            ));
        };
        let list = ConsumerList {
            consumer_id_list: consumers.clients.keys().cloned().collect(),
        };
        turn.answer_body(req.to, &list.to_json());
        Ok(())
    }

    /// CHECK_CLIENT_CONFIG 46: whether a subscription's expression compiles.
    pub(super) fn check_client_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let body = CheckClientRequestBody::from_json(req.frame.body)?;
        let data = body.subscription_data;
        self.compile(Some(&data.expression_type), &data.sub_string)?;
        turn.answer_ok(req.to);
        Ok(())
    }

    /// Compiles an expression, or says in the protocol's way why it cannot be used.
    pub(super) fn compile(
        &self,
        expression_type: Option<&str>,
        expression: &str,
    ) -> Result<Filter, Refusal> {
        let is_tag = expression_type.is_none_or(|kind| kind.is_empty() || kind == "TAG");
        if !is_tag && !self.settings.property_filter {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                "The broker does not support consumer to filter message by SQL92: property_filter is off",
            ));
        }
        Filter::compile(expression_type, expression)
            .map_err(|error| Refusal::new(response::SUBSCRIPTION_PARSE_FAILED, error.to_string()))
    }

    /// Lets go of clients that have been silent too long.
    pub(super) fn scan_clients(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_ms < self.next_scan_mono_ms {
            return;
        }
        self.next_scan_mono_ms = turn.now.mono_ms + SCAN_INTERVAL_MS;
        for connection in self
            .clients
            .silent(turn.now.mono_ms - self.settings.client_timeout_ms)
        {
            tracing::info!(
                connection = connection.0,
                "no heartbeat in time, the connection is closed"
            );
            turn.out.close(connection);
            self.closed(turn, connection);
        }
    }
}
