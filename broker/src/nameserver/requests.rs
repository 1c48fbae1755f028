//! What each request does, as the protocol's section on the NameServer says.
//!
//! Where Apache refuses the first registration of a broker with exactly one topic, we take it.

use std::collections::BTreeSet;

use corelane_wire::body::{
    BrokerMemberGroup, ClusterInfo, DataVersion, GetBrokerMemberGroupResponseBody, KvTable,
    QueueData, RegisterBrokerBody, TopicConfigSerializeWrapper, TopicList, TopicRouteData,
};
use corelane_wire::code::{perm, request, response};
use corelane_wire::fastjson::Keys;
use corelane_wire::header::broker::{BrokerHeartbeatRequest, GetBrokerMemberGroupRequest};
use corelane_wire::header::nameserver::{
    AddWritePermOfBrokerRequest, DeleteKvConfigRequest, DeleteTopicInNamesrvRequest,
    GetKvConfigRequest, GetKvlistByNamespaceRequest, GetRouteinfoByTopicRequest,
    GetTopicsByClusterRequest, PutKvConfigRequest, QueryDataVersionRequest, RegisterBrokerRequest,
    RegisterTopicInNamesrvRequest, UnregisterBrokerRequest, WipeWritePermOfBrokerRequest,
};
use corelane_wire::{ExtHeader, Frame};

use super::brokers::{Outcome, Registration};
use super::kv::ORDER_TOPIC_CONFIG;
use super::settings::Refused;
use super::{Answer, NameServer, Refusal};

/// The `MQVersion` from which clients read routes in standard JSON.
const VERSION_WITH_STANDARD_JSON: i32 = 401;

/// What a compressed registration may inflate to.
const MAX_INFLATED_BYTES: usize = 64 << 20;

/// Bits of `topicSysFlag`.
const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

impl NameServer {
    pub(super) fn register(
        &mut self,
        now_ms: u64,
        connection: u64,
        frame: &Frame<'_>,
    ) -> Result<Answer, Refusal> {
        let header = RegisterBrokerRequest::decode(&frame.ext)?;
        if header.body_crc32 != 0
            && header.body_crc32 as u32 != crc32fast::hash(frame.body) & 0x7FFF_FFFF
        {
            return Err(Refusal::new(response::SYSTEM_ERROR, "crc32 not match"));
        }
        let body = match header.compressed {
            _ if frame.body.is_empty() => RegisterBrokerBody::default(),
            true => {
                RegisterBrokerBody::from_compressed(frame.body, frame.version, MAX_INFLATED_BYTES)?
            }
            false => RegisterBrokerBody::from_json(frame.body)?,
        };
        let wrapper = body.topic_config_serialize_wrapper;
        let (cluster, name) = (header.cluster_name.to_str(), header.broker_name.to_str());
        let (address, ha_address) = (header.broker_addr.to_str(), header.ha_server_addr.to_str());
        let registration = Registration {
            cluster: &cluster,
            name: &name,
            address: &address,
            id: header.broker_id,
            ha_address: &ha_address,
            timeout_ms: header.heartbeat_timeout_millis,
            acting_master: header.enable_acting_master,
            version: wrapper.data_version,
        };
        if self.brokers.version(&cluster, &address).is_none() {
            tracing::info!(
                "broker {name} of {cluster} registers at {address} with id {}",
                header.broker_id
            );
        }
        match self.brokers.register(now_ms, connection, &registration) {
            Outcome::Full => Err(Refusal::new(
                response::SYSTEM_ERROR,
                "this NameServer has no room for one more broker: raise max_registered_brokers",
            )),
            Outcome::Outdated => Ok(Answer::Registered {
                master: None,
                order_config: Vec::new(),
            }),
            Outcome::Taken {
                owns_topics,
                stands_in,
                changed,
                master,
            } => {
                if owns_topics && !self.take_topics(&name, wrapper, changed, stands_in) {
                    return Err(Refusal::new(
                        response::SYSTEM_ERROR,
                        "this NameServer has no room for all topics: raise max_registered_topics",
                    ));
                }
                Ok(Answer::Registered {
                    master,
                    order_config: self.order_config(),
                })
            }
        }
    }

    /// `false` when there was no room for all.
    fn take_topics(
        &mut self,
        broker: &str,
        wrapper: TopicConfigSerializeWrapper,
        changed: bool,
        read_only: bool,
    ) -> bool {
        let mut all = true;
        for (topic, config) in wrapper.topic_config_table {
            // What an administrator did to the queues stays until the broker has something new to say.
            if changed || !self.topics.has(&topic, broker) {
                let data = QueueData {
                    broker_name: broker.to_owned(),
                    perm: if read_only {
                        config.perm & !perm::WRITE
                    } else {
                        config.perm
                    },
                    read_queue_nums: config.read_queue_nums,
                    topic_sys_flag: config.topic_sys_flag,
                    write_queue_nums: config.write_queue_nums,
                };
                all &= self.topics.put(&topic, data);
            }
        }
        all
    }

    fn order_config(&self) -> Vec<u8> {
        match self.kv.namespace(ORDER_TOPIC_CONFIG) {
            Some(table) if self.settings.return_order_topic_config_to_broker => KvTable {
                table: table.clone(),
            }
            .to_json(),
            _ => Vec::new(),
        }
    }

    pub(super) fn unregister(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = UnregisterBrokerRequest::decode(&frame.ext)?;
        let (cluster, address) = (header.cluster_name.to_str(), header.broker_addr.to_str());
        let gone = self
            .brokers
            .unregister(&cluster, &address, &header.broker_name.to_str());
        self.forget_brokers(gone.as_slice(), "has unregistered");
        Ok(Answer::Nothing)
    }

    pub(super) fn heartbeat(&mut self, now_ms: u64, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = BrokerHeartbeatRequest::decode(&frame.ext)?;
        self.brokers.heard(
            now_ms,
            &header.cluster_name.to_str(),
            &header.broker_addr.to_str(),
        );
        Ok(Answer::Nothing)
    }

    pub(super) fn query_data_version(
        &mut self,
        now_ms: u64,
        frame: &Frame<'_>,
    ) -> Result<Answer, Refusal> {
        let header = QueryDataVersionRequest::decode(&frame.ext)?;
        let offered = DataVersion::from_json(frame.body)?;
        let (cluster, address) = (header.cluster_name.to_str(), header.broker_addr.to_str());
        let known = self.brokers.version(&cluster, &address);
        let changed = known != Some(offered);
        if !changed {
            self.brokers.heard(now_ms, &cluster, &address);
        }
        Ok(Answer::Changed {
            changed,
            known: known.map(|version| version.to_json()).unwrap_or_default(),
        })
    }

    pub(super) fn route(&self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = GetRouteinfoByTopicRequest::decode(&frame.ext)?;
        let topic = header.topic.to_str();
        let Some(queue_datas) = self.topics.get(&topic) else {
            let remark = format!("topic {topic} has no route: no broker has registered it");
            return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
        };
        let order = self
            .kv
            .get(ORDER_TOPIC_CONFIG, &topic)
            .filter(|_| self.settings.order_message_enable);
        let route = TopicRouteData {
            order_topic_conf: order.map(str::to_owned),
            broker_datas: queue_datas
                .iter()
                .filter_map(|data| self.brokers.get(&data.broker_name))
                .cloned()
                .collect(),
            queue_datas: queue_datas.to_vec(),
            ..TopicRouteData::default()
        };
        let standard = frame.version >= VERSION_WITH_STANDARD_JSON
            || header.accept_standard_json_only == Some(true);
        Ok(Answer::Body(route.to_json(if standard {
            Keys::Quoted
        } else {
            Keys::Bare
        })))
    }

    pub(super) fn cluster_info(&self) -> Answer {
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect();
        let info = ClusterInfo {
            broker_addr_table: self.brokers.by_name().clone(),
            cluster_addr_table: self
                .brokers
                .clusters()
                .iter()
                .map(|(cluster, brokers)| (cluster.clone(), names(brokers)))
                .collect(),
        };
        Answer::Body(info.to_json(Keys::Bare))
    }

    pub(super) fn member_group(&self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = GetBrokerMemberGroupRequest::decode(&frame.ext)?;
        let name = header.broker_name.to_str();
        let body = GetBrokerMemberGroupResponseBody {
            broker_member_group: BrokerMemberGroup {
                cluster: header.cluster_name.to_str().into_owned(),
                broker_addrs: self
                    .brokers
                    .get(&name)
                    .map(|data| data.broker_addrs.clone())
                    .unwrap_or_default(),
                broker_name: name.into_owned(),
            },
        };
        Ok(Answer::Body(body.to_json(Keys::Bare)))
    }

    pub(super) fn all_topics(&self) -> Result<Answer, Refusal> {
        if !self.settings.enable_all_topic_list {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                "the list of all topics is disabled",
            ));
        }
        Ok(topic_list(self.topics.names(|_| true), None))
    }

    pub(super) fn topics_of_cluster(&self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = GetTopicsByClusterRequest::decode(&frame.ext)?;
        let names = match self
            .brokers
            .clusters()
            .get(header.cluster.to_str().as_ref())
        {
            Some(brokers) => self.topics.names(|queues| {
                queues
                    .iter()
                    .any(|data| brokers.contains(&data.broker_name))
            }),
            None => Vec::new(),
        };
        Ok(topic_list(names, None))
    }

    pub(super) fn system_topics(&self) -> Answer {
        let clusters = self.brokers.clusters();
        let names = clusters
            .iter()
            .flat_map(|(cluster, brokers)| std::iter::once(cluster).chain(brokers));
        let address = self
            .brokers
            .by_name()
            .values()
            .find_map(|data| data.broker_addrs.values().next());
        topic_list(names.cloned().collect(), address.cloned())
    }

    pub(super) fn unit_topics(&self, code: i32) -> Answer {
        let wanted = |queues: &[QueueData]| {
            let flags = queues.first().map_or(0, |data| data.topic_sys_flag);
            match code {
                request::GET_UNIT_TOPIC_LIST => flags & UNIT != 0,
                request::GET_HAS_UNIT_SUB_TOPIC_LIST => flags & UNIT_SUB != 0,
                _ => flags & UNIT_SUB != 0 && flags & UNIT == 0,
            }
        };
        topic_list(self.topics.names(wanted), None)
    }

    pub(super) fn register_topic(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = RegisterTopicInNamesrvRequest::decode(&frame.ext)?;
        let topic = header.topic.to_str();
        let route = TopicRouteData::from_json(frame.body)?;
        for data in route.queue_datas {
            // Queues of an unknown broker would stay for ever.
            if self.brokers.get(&data.broker_name).is_some() && !self.topics.put(&topic, data) {
                return Err(Refusal::new(
                    response::SYSTEM_ERROR,
                    "this NameServer has no room for the topic",
                ));
            }
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn delete_topic(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = DeleteTopicInNamesrvRequest::decode(&frame.ext)?;
        let topic = header.topic.to_str();
        match header.cluster_name.filter(|cluster| !cluster.is_empty()) {
            None => self.topics.remove(&topic, None),
            Some(cluster) => {
                if let Some(brokers) = self.brokers.clusters().get(cluster.to_str().as_ref()) {
                    self.topics.remove(&topic, Some(brokers));
                }
            }
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn wipe_write_permission(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let broker = WipeWritePermOfBrokerRequest::decode(&frame.ext)?
            .broker_name
            .to_str();
        Ok(Answer::Wiped(
            self.topics
                .set_permissions(&broker, |perm| perm & !perm::WRITE),
        ))
    }

    pub(super) fn add_write_permission(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let broker = AddWritePermOfBrokerRequest::decode(&frame.ext)?
            .broker_name
            .to_str();
        Ok(Answer::Added(
            self.topics
                .set_permissions(&broker, |_| perm::READ | perm::WRITE),
        ))
    }

    pub(super) fn put_kv(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = PutKvConfigRequest::decode(&frame.ext)?;
        let (namespace, key) = (header.namespace.to_str(), header.key.to_str());
        if !self.kv.put(&namespace, &key, &header.value.to_str()) {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                "this NameServer has no room for the entry: raise max_kv_entries, or keep texts below 64 KiB",
            ));
        }
        self.kv_is_new = true;
        Ok(Answer::Nothing)
    }

    pub(super) fn get_kv(&self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = GetKvConfigRequest::decode(&frame.ext)?;
        let (namespace, key) = (header.namespace.to_str(), header.key.to_str());
        match self.kv.get(&namespace, &key) {
            Some(value) => Ok(Answer::KvValue(value.to_owned())),
            None => {
                let remark = format!("there is no {key} in the namespace {namespace}");
                Err(Refusal::new(response::QUERY_NOT_FOUND, remark))
            }
        }
    }

    pub(super) fn delete_kv(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let header = DeleteKvConfigRequest::decode(&frame.ext)?;
        self.kv_is_new |= self
            .kv
            .delete(&header.namespace.to_str(), &header.key.to_str());
        Ok(Answer::Nothing)
    }

    pub(super) fn kv_namespace(&self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        let namespace = GetKvlistByNamespaceRequest::decode(&frame.ext)?
            .namespace
            .to_str();
        match self.kv.namespace(&namespace) {
            Some(table) => Ok(Answer::Body(
                KvTable {
                    table: table.clone(),
                }
                .to_json(),
            )),
            None => {
                let remark = format!("the namespace {namespace} is empty");
                Err(Refusal::new(response::QUERY_NOT_FOUND, remark))
            }
        }
    }

    pub(super) fn update_settings(&mut self, frame: &Frame<'_>) -> Result<Answer, Refusal> {
        match self.settings.update(frame.body) {
            Ok(()) => Ok(Answer::Nothing),
            Err(Refused::Forbidden(key)) => Err(Refusal::new(
                response::NO_PERMISSION,
                format!("{key} cannot be changed while running"),
            )),
            Err(Refused::Malformed) => Err(Refusal::new(
                response::SYSTEM_ERROR,
                "the body is not properties: key=value, a line each",
            )),
        }
    }
}

fn topic_list(topic_list: Vec<String>, broker_addr: Option<String>) -> Answer {
    Answer::Body(
        TopicList {
            topic_list,
            broker_addr,
        }
        .to_json(),
    )
}
