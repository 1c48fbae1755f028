//! Finds what is to be measured: brokers from their addresses or from a NameServer, their queues, and the offsets there.
//! Topics that do not exist are made.

use std::time::{Duration, Instant};

use corelane_client::{ClientError, Connection};
use corelane_wire::body::{ClusterInfo, TopicRouteData};
use corelane_wire::code::{perm, request, response};
use corelane_wire::header::nameserver::GetRouteinfoByTopicRequest;
use corelane_wire::header::offset::{
    GetMaxOffsetRequest, GetMaxOffsetResponse, GetMinOffsetRequest, GetMinOffsetResponse,
};
use corelane_wire::header::topic::UpdateAndCreateTopicRequest;
use corelane_wire::{ExtHeader, FrameWriter, Text};

use crate::error::BenchError;
use crate::plan::{Broker, PullRange, Queue};

const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a new topic may take to reach the NameServer.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(45);

/// The parts of a cluster that a run uses.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Masters.
    pub brokers: Vec<Broker>,
    /// The queues of the topics on them.
    pub queues: Vec<Queue>,
}

/// What of a cluster is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Brokers' addresses; where none is given, the NameServer is asked.
    pub brokers: Vec<String>,
    /// The NameServer's address.
    pub nameserver: String,
    /// The topics.
    pub topics: Vec<String>,
    /// How many queues a topic has on each broker, if it is made.
    pub queues: u32,
    /// Whether topics are made.
    pub create: bool,
}

impl Wanted {
    /// Finds it, and makes what is missing.
    pub fn find(&self) -> Result<Cluster, BenchError> {
        match self.brokers.is_empty() {
            true => self.through_nameserver(),
            false => self.straight(),
        }
    }

    fn straight(&self) -> Result<Cluster, BenchError> {
        let mut cluster = Cluster::default();
        for (number, address) in self.brokers.iter().enumerate() {
            cluster.brokers.push(Broker {
                name: None,
                address: address.clone(),
            });
            let mut connection = Connection::<()>::open(address, TIMEOUT)?;
            for topic in &self.topics {
                if self.create {
                    create_topic(&mut connection, topic, self.queues)?;
                }
                cluster.queues.extend((0..self.queues).map(|id| Queue {
                    broker: number,
                    topic: topic.clone(),
                    id: id as i32,
                }));
            }
        }
        Ok(cluster)
    }

    fn through_nameserver(&self) -> Result<Cluster, BenchError> {
        let mut nameserver = Connection::<()>::open(&self.nameserver, TIMEOUT)?;
        let mut cluster = Cluster::default();
        for topic in &self.topics {
            let route = match (route(&mut nameserver, topic)?, self.create) {
                (Some(route), _) => route,
                (None, true) => self.create_everywhere(&mut nameserver, topic)?,
                (None, false) => {
                    return Err(BenchError::Settings(format!(
                        "topic {topic} does not exist"
                    )));
                }
            };
            cluster.add(topic, &route);
        }
        if cluster.queues.is_empty() {
            return Err(BenchError::Settings(
                "no master has a queue of the topic that may be written".to_owned(),
            ));
        }
        Ok(cluster)
    }

    fn create_everywhere(
        &self,
        nameserver: &mut Connection,
        topic: &str,
    ) -> Result<TopicRouteData, BenchError> {
        let nothing = |_: &mut FrameWriter<'_>| {};
        let answer = nameserver.request(request::GET_BROKER_CLUSTER_INFO, nothing, &[], TIMEOUT)?;
        let info = ClusterInfo::from_json(answer.body)
            .map_err(|error| BenchError::Settings(format!("the cluster's members: {error}")))?;
        let masters: Vec<&String> = info
            .broker_addr_table
            .values()
            .filter_map(|broker| broker.broker_addrs.get(&0))
            .collect();
        if masters.is_empty() {
            return Err(BenchError::Settings(format!(
                "no broker is registered with the NameServer {}",
                self.nameserver
            )));
        }
        for address in &masters {
            let mut connection = Connection::<()>::open(address, TIMEOUT)?;
            create_topic(&mut connection, topic, self.queues)?;
        }
        let deadline = Instant::now() + ROUTE_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(route) = route(nameserver, topic)?
                && route.queue_datas.len() >= masters.len()
            {
                return Ok(route);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(BenchError::Settings(format!(
            "topic {topic} was made, but the NameServer {} does not know it",
            self.nameserver
        )))
    }
}

impl Cluster {
    fn add(&mut self, topic: &str, route: &TopicRouteData) {
        for queues in &route.queue_datas {
            let named = |broker: &&corelane_wire::body::BrokerData| {
                broker.broker_name == queues.broker_name
            };
            let address = route
                .broker_datas
                .iter()
                .find(named)
                .and_then(|broker| broker.broker_addrs.get(&0));
            let Some(address) = address.filter(|_| queues.perm & perm::WRITE != 0) else {
                continue;
            };
            let known = |broker: &Broker| broker.address == *address;
            let number = match self.brokers.iter().position(known) {
                Some(number) => number,
                None => {
                    self.brokers.push(Broker {
                        name: Some(queues.broker_name.clone()),
                        address: address.clone(),
                    });
                    self.brokers.len() - 1
                }
            };
            self.queues
                .extend((0..queues.write_queue_nums).map(|id| Queue {
                    broker: number,
                    topic: topic.to_owned(),
                    id,
                }));
        }
    }

    /// The offsets of all queues: first and next.
    pub fn ranges(&self) -> Result<Vec<PullRange>, BenchError> {
        let mut connections = Vec::new();
        for broker in &self.brokers {
            connections.push(Connection::<()>::open(&broker.address, TIMEOUT)?);
        }
        let mut ranges = Vec::new();
        for (number, queue) in self.queues.iter().enumerate() {
            let connection = &mut connections[queue.broker];
            let min = GetMinOffsetRequest {
                topic: Text::plain(&queue.topic),
                queue_id: queue.id,
            };
            let min: GetMinOffsetResponse =
                connection.ask(request::GET_MIN_OFFSET, &min, TIMEOUT)?;
            let max = GetMaxOffsetRequest {
                topic: Text::plain(&queue.topic),
                queue_id: queue.id,
                committed: true,
            };
            let max: GetMaxOffsetResponse =
                connection.ask(request::GET_MAX_OFFSET, &max, TIMEOUT)?;
            ranges.push(PullRange {
                queue: number,
                from: u64::try_from(min.offset).unwrap_or(0),
                to: Some(u64::try_from(max.offset).unwrap_or(0)),
            });
        }
        Ok(ranges)
    }
}

fn route(nameserver: &mut Connection, topic: &str) -> Result<Option<TopicRouteData>, BenchError> {
    let header = GetRouteinfoByTopicRequest {
        topic: Text::plain(topic),
        accept_standard_json_only: Some(true),
    };
    let fields = |writer: &mut FrameWriter<'_>| header.encode(writer);
    let code = request::GET_ROUTEINFO_BY_TOPIC;
    match nameserver.request(code, fields, &[], TIMEOUT) {
        Ok(answer) => TopicRouteData::from_json(answer.body)
            .map(Some)
            .map_err(|error| BenchError::Settings(format!("the route of {topic}: {error}"))),
        Err(ClientError::Refused {
            code: response::TOPIC_NOT_EXIST,
            ..
        }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn create_topic(connection: &mut Connection, topic: &str, queues: u32) -> Result<(), BenchError> {
    let header = UpdateAndCreateTopicRequest {
        topic: Text::plain(topic),
        default_topic: Text::plain("TBW102"),
        read_queue_nums: queues as i32,
        write_queue_nums: queues as i32,
        perm: perm::READ | perm::WRITE,
        topic_filter_type: Text::plain("SINGLE_TAG"),
        topic_sys_flag: Some(0),
        ..UpdateAndCreateTopicRequest::default()
    };
    let fields = |writer: &mut FrameWriter<'_>| header.encode(writer);
    connection.request(request::UPDATE_AND_CREATE_TOPIC, fields, &[], TIMEOUT)?;
    Ok(())
}
