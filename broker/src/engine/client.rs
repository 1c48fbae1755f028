//! Who is connected: connections, and the producers and consumers that they speak for.
//!
//! A client is registered by its heartbeats, per connection and group. It goes when it says so, when its connection
//! closes, or when it has been silent for `client_timeout_ms`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

use corelane_wire::body::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};

use super::filter::{Filter, FilterError};
use super::turn::Connection;

/// One member of a group.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where to reach it.
    pub connection: Connection,
    /// Its address.
    pub address: SocketAddr,
    /// Language ordinal of its frames.
    pub language: u8,
    /// `MQVersion` ordinal of its frames.
    pub version: i32,
    /// When it was last heard of.
    pub seen_mono_ms: i64,
}

/// What a group wants of a topic.
#[derive(Debug)]
pub struct Subscription {
    /// As the consumer sent it.
    pub data: SubscriptionData,
    /// The expression, compiled once.
    pub filter: Result<Filter, FilterError>,
}

impl Subscription {
    /// Compiles what a heartbeat says.
    pub fn new(data: SubscriptionData) -> Self {
        let filter = Filter::compile(Some(&data.expression_type), &data.sub_string);
        Self { data, filter }
    }
}

/// The consumers of one group.
#[derive(Debug, Default)]
pub struct ConsumerGroup {
    /// By client id, in the order that every member sees.
    pub clients: BTreeMap<String, Client>,
    /// By topic.
    pub subscriptions: BTreeMap<String, Rc<Subscription>>,
    /// How its members get their messages.
    pub consume_type: ConsumeType,
    /// Who of them gets a message.
    pub message_model: MessageModel,
    /// Where a new member starts.
    pub consume_from_where: ConsumeFromWhere,
}

impl ConsumerGroup {
    /// Whether every member gets every message.
    pub fn is_broadcasting(&self) -> bool {
        self.message_model == MessageModel::Broadcasting
    }
}

/// What a connection is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// Of a producer group, under a client id.
    Producer {
        /// Producer group.
        group: String,
        /// Client id.
        client_id: String,
    },
    /// Of a consumer group, under a client id.
    Consumer {
        /// Consumer group.
        group: String,
        /// Client id.
        client_id: String,
    },
}

struct Peer {
    address: SocketAddr,
    memberships: Vec<Membership>,
    /// Fingerprint of the last full heartbeat (0 for none).
    fingerprint: i32,
}

impl Peer {
    fn produces_as(&self, id: &str) -> bool {
        let is_it = |member: &Membership| matches!(member, Membership::Producer { client_id, .. } if client_id == id);
        self.memberships.iter().any(is_it)
    }
}

/// The register of a shard.
#[derive(Default)]
pub struct Clients {
    peers: foldhash::HashMap<Connection, Peer>,
    consumers: HashMap<String, ConsumerGroup>,
    producers: HashMap<String, BTreeMap<String, Client>>,
    /// Where producers are, by client id, whatever their groups.
    producer_ids: HashMap<String, Connection>,
    members: usize,
}

impl Clients {
    /// Members of all groups.
    pub fn members(&self) -> usize {
        self.members
    }

    /// A connection was opened.
    pub fn opened(&mut self, connection: Connection, address: SocketAddr) {
        self.peers.insert(
            connection,
            Peer {
                address,
                memberships: Vec::new(),
                fingerprint: 0,
            },
        );
    }

    /// Whether a connection speaks for any member.
    pub fn is_member(&self, connection: Connection) -> bool {
        self.peers
            .get(&connection)
            .is_some_and(|peer| !peer.memberships.is_empty())
    }

    /// The address at the other end of a connection that is open.
    pub fn address(&self, connection: Connection) -> Option<SocketAddr> {
        self.peers.get(&connection).map(|peer| peer.address)
    }

    /// A connection was closed. Gives what it was a member of; none of it is any more.
    pub fn closed(&mut self, connection: Connection) -> Vec<Membership> {
        let Some(peer) = self.peers.remove(&connection) else {
            return Vec::new();
        };
        peer.memberships
            .into_iter()
            .filter(|membership| self.forget(connection, membership))
            .collect()
    }

    /// Takes one member out of its group, if it is there on this connection.
    pub fn leave(&mut self, connection: Connection, membership: &Membership) -> bool {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.memberships.retain(|other| other != membership);
            peer.fingerprint = 0;
        }
        self.forget(connection, membership)
    }

    fn forget(&mut self, connection: Connection, membership: &Membership) -> bool {
        match membership {
            Membership::Producer { group, client_id } => {
                let Some(clients) = self.producers.get_mut(group) else {
                    return false;
                };
                let left = remove_if_on(clients, client_id, connection);
                self.members -= usize::from(left);
                if clients.is_empty() {
                    self.producers.remove(group);
                }
                let stays = self
                    .peers
                    .get(&connection)
                    .is_some_and(|peer| peer.produces_as(client_id));
                if !stays && self.producer_ids.get(client_id) == Some(&connection) {
                    self.producer_ids.remove(client_id);
                }
                left
            }
            Membership::Consumer { group, client_id } => {
                let Some(consumers) = self.consumers.get_mut(group) else {
                    return false;
                };
                let left = remove_if_on(&mut consumers.clients, client_id, connection);
                self.members -= usize::from(left);
                if consumers.clients.is_empty() {
                    self.consumers.remove(group);
                }
                left
            }
        }
    }

    fn join(&mut self, connection: Connection, membership: Membership) {
        if let Some(peer) = self.peers.get_mut(&connection)
            && !peer.memberships.contains(&membership)
        {
            peer.memberships.push(membership);
        }
    }

    /// Registers a producer.
    pub fn register_producer(&mut self, group: &str, client_id: &str, client: Client) {
        let membership = Membership::Producer {
            group: group.to_owned(),
            client_id: client_id.to_owned(),
        };
        self.join(client.connection, membership);
        self.producer_ids
            .insert(client_id.to_owned(), client.connection);
        let before = self
            .producers
            .entry(group.to_owned())
            .or_default()
            .insert(client_id.to_owned(), client);
        self.members += usize::from(before.is_none());
    }

    /// Registers a consumer with what it subscribes to; says whether the group's members or subscriptions changed.
    pub fn register_consumer(
        &mut self,
        group: &str,
        client_id: &str,
        client: Client,
        says: ConsumerGroup,
    ) -> bool {
        let membership = Membership::Consumer {
            group: group.to_owned(),
            client_id: client_id.to_owned(),
        };
        self.join(client.connection, membership);
        let known = self.consumers.entry(group.to_owned()).or_default();
        known.consume_type = says.consume_type;
        known.message_model = says.message_model;
        known.consume_from_where = says.consume_from_where;
        let mut changed = false;
        known.subscriptions.retain(|topic, _| {
            let stays = says.subscriptions.contains_key(topic);
            changed |= !stays;
            stays
        });
        for (topic, subscription) in says.subscriptions {
            match known.subscriptions.get_mut(&topic) {
                Some(old) if old.data.sub_version >= subscription.data.sub_version => {}
                Some(old) => *old = subscription,
                None => {
                    known.subscriptions.insert(topic, subscription);
                    changed = true;
                }
            }
        }
        let connection = client.connection;
        let before = known.clients.insert(client_id.to_owned(), client);
        self.members += usize::from(before.is_none());
        changed | before.is_none_or(|before| before.connection != connection)
    }

    /// The group's consumers, while there are any.
    pub fn consumers(&self, group: &str) -> Option<&ConsumerGroup> {
        self.consumers.get(group)
    }

    /// Every group with consumers.
    pub fn consumer_groups(&self) -> impl Iterator<Item = (&str, &ConsumerGroup)> {
        self.consumers
            .iter()
            .map(|(group, consumers)| (group.as_str(), consumers))
    }

    /// The group's producers by client id, while there are any.
    pub fn producers(&self, group: &str) -> Option<&BTreeMap<String, Client>> {
        self.producers.get(group)
    }

    /// The connection of the producer with that client id.
    pub fn producer_connection(&self, client_id: &str) -> Option<Connection> {
        self.producer_ids.get(client_id).copied()
    }

    /// Every group with producers.
    pub fn producer_groups(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, Client>)> {
        self.producers
            .iter()
            .map(|(group, clients)| (group.as_str(), clients))
    }

    /// Refreshes all that a connection is a member of. Says whether its last full heartbeat had this fingerprint.
    pub fn refresh(&mut self, connection: Connection, fingerprint: i32, mono_ms: i64) -> bool {
        let Some(peer) = self.peers.get(&connection) else {
            return false;
        };
        if fingerprint == 0 || peer.fingerprint != fingerprint {
            return false;
        }
        for membership in &peer.memberships {
            let client = match membership {
                Membership::Producer { group, client_id } => self
                    .producers
                    .get_mut(group)
                    .and_then(|g| g.get_mut(client_id)),
                Membership::Consumer { group, client_id } => self
                    .consumers
                    .get_mut(group)
                    .and_then(|g| g.clients.get_mut(client_id)),
            };
            if let Some(client) = client {
                client.seen_mono_ms = mono_ms;
            }
        }
        true
    }

    /// Remembers the fingerprint of a full heartbeat.
    pub fn set_fingerprint(&mut self, connection: Connection, fingerprint: i32) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.fingerprint = fingerprint;
        }
    }

    /// Connections of which some member has been silent since before `since_mono_ms`.
    pub fn silent(&self, since_mono_ms: i64) -> Vec<Connection> {
        let consumers = self
            .consumers
            .values()
            .flat_map(|group| group.clients.values());
        let mut silent: Vec<Connection> = consumers
            .chain(self.producers.values().flat_map(|clients| clients.values()))
            .filter(|client| client.seen_mono_ms < since_mono_ms)
            .map(|client| client.connection)
            .collect();
        silent.sort_unstable();
        silent.dedup();
        silent
    }
}

fn remove_if_on(
    clients: &mut BTreeMap<String, Client>,
    client_id: &str,
    connection: Connection,
) -> bool {
    let there = clients
        .get(client_id)
        .is_some_and(|client| client.connection == connection);
    if there {
        clients.remove(client_id);
    }
    there
}
