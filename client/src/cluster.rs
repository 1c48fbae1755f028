//! A cluster as its NameServers show it: routes, brokers, and the administration of topics.
//!
//! NameServers know nothing of each other, so each question goes to one of them, and to the next when it does not answer;
//! what changes their state goes to all. Connections are opened when they are needed, and again after they broke.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use corelane_wire::body::{
    BrokerData, ClusterInfo, MessageQueue, SubscriptionGroupConfig, SubscriptionGroupWrapper,
    TopicConfig, TopicList, TopicOffset, TopicRouteData, TopicStatsTable,
};
use corelane_wire::code::{request, response};
use corelane_wire::fastjson::BodyError;
use corelane_wire::header::group::DeleteSubscriptiongroupRequest;
use corelane_wire::header::nameserver::{DeleteTopicInNamesrvRequest, GetRouteinfoByTopicRequest};
use corelane_wire::header::topic::{
    DeleteTopicInBrokerRequest, GetTopicStatsInfoRequest, UpdateAndCreateTopicRequest,
};
use corelane_wire::{ExtHeader, FrameWriter};

use crate::connection::{Connection, no_fields};
use crate::error::ClientError;

/// The topic whose route stands in for one that a send may create.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";

/// A broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// Where its master listens.
    pub address: String,
}

/// The NameServers of a cluster, and the connections to them and to brokers.
#[derive(Debug)]
pub struct Cluster {
    nameservers: Vec<String>,
    // The one that answered last.
    current: usize,
    connections: HashMap<String, Connection>,
    timeout: Duration,
}

impl Cluster {
    /// A cluster whose NameServers are these, as `host:port` separated by `;`. Each request may take `timeout`.
    pub fn new(nameservers: &str, timeout: Duration) -> Result<Self, ClientError> {
        let nameservers: Vec<String> = nameservers
            .split([';', ','])
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect();
        if nameservers.is_empty() {
            return Err(ClientError::Cluster("no NameServer is named".to_owned()));
        }
        Ok(Self {
            nameservers,
            current: 0,
            connections: HashMap::new(),
            timeout,
        })
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Does something with the connection to an address. The connection is given up when it fails in any other way than
    /// by a refusal.
    pub fn at<R>(
        &mut self,
        address: &str,
        action: impl FnOnce(&mut Connection, Duration) -> Result<R, ClientError>,
    ) -> Result<R, ClientError> {
        let connection = match self.connections.entry(address.to_owned()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Connection::open(address, self.timeout)?)
            }
        };
        let outcome = action(connection, self.timeout);
        if matches!(&outcome, Err(error) if error.code().is_none()) {
            self.connections.remove(address);
        }
        outcome
    }

    /// A request to an address, its answer's body read by `read`.
    fn ask<R>(
        &mut self,
        address: &str,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        read: impl FnOnce(&[u8]) -> Result<R, BodyError>,
    ) -> Result<R, ClientError> {
        self.at(address, |connection, timeout| {
            let frame = connection.request(code, fields, &[], timeout)?;
            read(frame.body).map_err(|error| ClientError::answer(address, error.to_string()))
        })
    }

    /// The same to the first NameServer that answers.
    fn ask_nameserver<R>(
        &mut self,
        code: i32,
        fields: impl Fn(&mut FrameWriter<'_>),
        read: impl Fn(&[u8]) -> Result<R, BodyError>,
    ) -> Result<R, ClientError> {
        let count = self.nameservers.len();
        let mut last = None;
        for step in 0..count {
            let index = (self.current + step) % count;
            let address = self.nameservers[index].clone();
            match self.ask(&address, code, &fields, &read) {
                Err(error) if error.code().is_none() => last = Some(error),
                answered => {
                    self.current = index;
                    return answered;
                }
            }
        }
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        Err(ClientError::Cluster(format!(
            "no NameServer answers ({why}): is one running there? `corelane start` runs one, --nameserver names another"
        )))
    }

    /// The route of a topic; `None` when it does not exist.
    pub fn route(&mut self, topic: &str) -> Result<Option<TopicRouteData>, ClientError> {
        let header = GetRouteinfoByTopicRequest {
            topic: topic.into(),
            accept_standard_json_only: Some(true),
        };
        let asked = self.ask_nameserver(
            request::GET_ROUTEINFO_BY_TOPIC,
            |writer| header.encode(writer),
            TopicRouteData::from_json,
        );
        match asked {
            Ok(route) => Ok(Some(route)),
            Err(error) if error.code() == Some(response::TOPIC_NOT_EXIST) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All brokers and clusters.
    pub fn info(&mut self) -> Result<ClusterInfo, ClientError> {
        self.ask_nameserver(
            request::GET_BROKER_CLUSTER_INFO,
            no_fields,
            ClusterInfo::from_json,
        )
    }

    /// The masters of a cluster, or of all, by name. An error when there is none.
    pub fn masters(&mut self, cluster: Option<&str>) -> Result<Vec<Broker>, ClientError> {
        let info = self.info()?;
        let wanted = |data: &&BrokerData| cluster.is_none_or(|cluster| data.cluster == cluster);
        let masters: Vec<Broker> = info
            .broker_addr_table
            .values()
            .filter(wanted)
            .filter_map(master)
            .collect();
        if masters.is_empty() {
            let known: Vec<&str> = info.cluster_addr_table.keys().map(String::as_str).collect();
            return Err(ClientError::Cluster(match cluster {
                Some(cluster) => format!(
                    "no broker of the cluster {cluster} is registered; clusters: {}",
                    known.join(", ")
                ),
                None => "no broker is registered at the NameServer: is one running?".to_owned(),
            }));
        }
        Ok(masters)
    }

    /// The names of all topics, sorted.
    pub fn topics(&mut self) -> Result<BTreeSet<String>, ClientError> {
        let list = self.ask_nameserver(
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
            no_fields,
            TopicList::from_json,
        )?;
        Ok(list.topic_list.into_iter().collect())
    }

    /// Creates or changes a topic on all masters of a cluster, or of all clusters.
    pub fn create_topic(
        &mut self,
        topic: &TopicConfig,
        cluster: Option<&str>,
    ) -> Result<Vec<Broker>, ClientError> {
        let attributes: Vec<String> = topic
            .attributes
            .iter()
            .map(|(key, value)| format!("+{key}={value}"))
            .collect();
        let attributes = attributes.join(",");
        let header = UpdateAndCreateTopicRequest {
            topic: topic.topic_name.as_str().into(),
            default_topic: AUTO_CREATE_TOPIC.into(),
            read_queue_nums: topic.read_queue_nums,
            write_queue_nums: topic.write_queue_nums,
            perm: topic.perm,
            topic_filter_type: topic.topic_filter_type.name().into(),
            topic_sys_flag: Some(topic.topic_sys_flag),
            order: topic.order,
            attributes: (!attributes.is_empty()).then(|| attributes.as_str().into()),
            force: false,
        };
        let masters = self.masters(cluster)?;
        for broker in &masters {
            let write = |writer: &mut FrameWriter<'_>| header.encode(writer);
            self.ask(
                &broker.address,
                request::UPDATE_AND_CREATE_TOPIC,
                write,
                |_| Ok(()),
            )?;
        }
        Ok(masters)
    }

    /// Deletes a topic from all masters of a cluster or of all clusters, and from every NameServer.
    pub fn delete_topic(
        &mut self,
        topic: &str,
        cluster: Option<&str>,
    ) -> Result<Vec<Broker>, ClientError> {
        let masters = self.masters(cluster)?;
        let header = DeleteTopicInBrokerRequest {
            topic: topic.into(),
        };
        for broker in &masters {
            let write = |writer: &mut FrameWriter<'_>| header.encode(writer);
            self.ask(
                &broker.address,
                request::DELETE_TOPIC_IN_BROKER,
                write,
                |_| Ok(()),
            )?;
        }
        let header = DeleteTopicInNamesrvRequest {
            topic: topic.into(),
            cluster_name: cluster.map(|cluster| cluster.into()),
        };
        for address in self.nameservers.clone() {
            let write = |writer: &mut FrameWriter<'_>| header.encode(writer);
            self.ask(
                &address,
                request::DELETE_TOPIC_IN_NAMESRV,
                write,
                |_| Ok(()),
            )?;
        }
        Ok(masters)
    }

    /// The offsets of all queues of a topic. An error when it does not exist.
    pub fn topic_offsets(
        &mut self,
        topic: &str,
    ) -> Result<BTreeMap<MessageQueue, TopicOffset>, ClientError> {
        let route = self.route(topic)?.ok_or_else(|| no_such_topic(topic))?;
        let header = GetTopicStatsInfoRequest {
            topic: topic.into(),
        };
        let mut offsets = BTreeMap::new();
        for broker in route.broker_datas.iter().filter_map(master) {
            let write = |writer: &mut FrameWriter<'_>| header.encode(writer);
            let stats = self.ask(
                &broker.address,
                request::GET_TOPIC_STATS_INFO,
                write,
                TopicStatsTable::from_json,
            )?;
            offsets.extend(stats.offset_table);
        }
        Ok(offsets)
    }

    /// Creates or changes a consumer group on all masters of a cluster, or of all clusters.
    pub fn put_group(
        &mut self,
        group: &SubscriptionGroupConfig,
        cluster: Option<&str>,
    ) -> Result<Vec<Broker>, ClientError> {
        let body = group.to_json();
        let masters = self.masters(cluster)?;
        for broker in &masters {
            self.at(&broker.address, |connection, timeout| {
                let code = request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
                connection
                    .request(code, no_fields, &body, timeout)
                    .map(drop)
            })?;
        }
        Ok(masters)
    }

    /// Deletes a consumer group from all masters of a cluster or of all clusters, with or without its offsets.
    pub fn delete_group(
        &mut self,
        group: &str,
        clean_offset: bool,
        cluster: Option<&str>,
    ) -> Result<Vec<Broker>, ClientError> {
        let header = DeleteSubscriptiongroupRequest {
            group_name: group.into(),
            clean_offset,
        };
        let masters = self.masters(cluster)?;
        for broker in &masters {
            let write = |writer: &mut FrameWriter<'_>| header.encode(writer);
            let code = request::DELETE_SUBSCRIPTIONGROUP;
            self.ask(&broker.address, code, write, |_| Ok(()))?;
        }
        Ok(masters)
    }

    /// The consumer groups of all masters, with the brokers that have them.
    pub fn groups(
        &mut self,
    ) -> Result<BTreeMap<String, (SubscriptionGroupConfig, Vec<String>)>, ClientError> {
        let mut groups: BTreeMap<String, (SubscriptionGroupConfig, Vec<String>)> = BTreeMap::new();
        for broker in self.masters(None)? {
            let code = request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
            let known = self.ask(
                &broker.address,
                code,
                no_fields,
                SubscriptionGroupWrapper::from_json,
            )?;
            for (name, config) in known.subscription_group_table {
                groups
                    .entry(name)
                    .or_insert_with(|| (config, Vec::new()))
                    .1
                    .push(broker.name.clone());
            }
        }
        Ok(groups)
    }
}

/// The master of a broker, or the slave with the lowest id that stands in for it.
pub fn master(data: &BrokerData) -> Option<Broker> {
    let address = data.broker_addrs.values().next()?;
    Some(Broker {
        name: data.broker_name.clone(),
        address: address.clone(),
    })
}

pub(crate) fn no_such_topic(topic: &str) -> ClientError {
    ClientError::Cluster(format!(
        "topic {topic} does not exist: `corelane topic create {topic}` makes it"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::testing::{answer, serve};

    const SOON: Duration = Duration::from_secs(10);

    fn nobody() -> String {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string()
    }

    #[test]
    fn another_nameserver_answers_when_one_does_not() {
        let there = serve(|frame, out| answer(frame, 0, &[], br#"{"topicList":["b","a"]}"#, out));
        let mut cluster = Cluster::new(&format!("{};{there}", nobody()), SOON).unwrap();
        let topics: Vec<_> = cluster.topics().unwrap().into_iter().collect();
        assert_eq!(topics, ["a", "b"]);
        assert_eq!(cluster.current, 1, "it is asked first from now on");
        let error = Cluster::new(&nobody(), SOON)
            .unwrap()
            .topics()
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("no NameServer answers (cannot connect to"),
            "{error}"
        );
        assert!(Cluster::new(" ; ", SOON).is_err());
    }

    #[test]
    fn a_missing_topic_is_none_and_another_refusal_an_error() {
        let code = |frame: &corelane_wire::Frame<'_>| match frame.ext.get("topic") {
            Some(topic) if topic == *"missing" => response::TOPIC_NOT_EXIST,
            _ => response::SYSTEM_ERROR,
        };
        let server = serve(move |frame, out| answer(frame, code(frame), &[], &[], out));
        let mut cluster = Cluster::new(&server, SOON).unwrap();
        assert!(cluster.route("missing").unwrap().is_none());
        assert_eq!(
            cluster.route("other").unwrap_err().code(),
            Some(response::SYSTEM_ERROR)
        );
        assert!(
            cluster
                .topic_offsets("missing")
                .unwrap_err()
                .to_string()
                .contains("topic create missing")
        );
    }

    #[test]
    fn masters_are_those_of_the_cluster() {
        let server = serve(|frame, out| {
            let body = br#"{"brokerAddrTable":{"a":{"brokerAddrs":{1:"s:1",0:"m:1"},"brokerName":"a","cluster":"c"},
                "b":{"brokerAddrs":{0:"m:2"},"brokerName":"b","cluster":"d"}},"clusterAddrTable":{"c":["a"],"d":["b"]}}"#;
            answer(frame, 0, &[], body, out);
        });
        let mut cluster = Cluster::new(&server, SOON).unwrap();
        let addresses = |brokers: Vec<Broker>| {
            brokers
                .into_iter()
                .map(|broker| broker.address)
                .collect::<Vec<_>>()
        };
        assert_eq!(addresses(cluster.masters(None).unwrap()), ["m:1", "m:2"]);
        assert_eq!(addresses(cluster.masters(Some("d")).unwrap()), ["m:2"]);
        let error = cluster.masters(Some("x")).unwrap_err().to_string();
        assert!(error.ends_with("clusters: c, d"), "{error}");
    }
}
