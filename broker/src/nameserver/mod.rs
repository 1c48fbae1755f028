//! The NameServer's state: who is a broker, and where the queues of a topic are.
//!
//! Pure: frames, the time and the ends of connections come in, replies go out. All state but KV config is what brokers
//! register, and is gone after a restart, until they register again (every 30 s). KV config is given to the host to
//! store ([`NameServer::take_kv_to_store`]). NameServers know nothing of each other. Everything is bounded by [`Limits`].

mod brokers;
mod kv;
mod requests;
pub mod service;
mod settings;
mod topics;

use corelane_wire::code::{VERSION, language, request, request_name, response};
use corelane_wire::fastjson::BodyError;
use corelane_wire::frame::Head;
use corelane_wire::{ExtHeader, FieldError, Frame, FrameWriter};

use brokers::Brokers;
use kv::KvConfig;
use settings::Settings;
use topics::Topics;

/// How much a NameServer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Addresses of brokers.
    pub brokers: usize,
    /// Topics, each counted once for every broker that has it.
    pub topic_entries: usize,
    /// Entries of KV config.
    pub kv_entries: usize,
}

/// One NameServer.
#[derive(Debug)]
pub struct NameServer {
    brokers: Brokers,
    topics: Topics,
    kv: KvConfig,
    settings: Settings,
    kv_is_new: bool,
}

/// What a request is answered with, beside SUCCESS.
enum Answer {
    Nothing,
    Body(Vec<u8>),
    KvValue(String),
    Wiped(i32),
    Added(i32),
    Changed {
        changed: bool,
        known: Vec<u8>,
    },
    Registered {
        master: Option<(String, String)>,
        order_config: Vec<u8>,
    },
}

/// Why a request is not granted.
struct Refusal {
    code: i32,
    remark: String,
}

impl Refusal {
    fn new(code: i32, remark: impl Into<String>) -> Self {
        Self {
            code,
            remark: remark.into(),
        }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl NameServer {
    /// A NameServer that knows nobody.
    pub fn new(limits: Limits) -> Self {
        Self {
            brokers: Brokers::new(limits.brokers),
            topics: Topics::new(limits.topic_entries),
            kv: KvConfig::new(limits.kv_entries),
            settings: Settings::default(),
            kv_is_new: false,
        }
    }

    /// Takes KV config as it was stored: what [`NameServer::take_kv_to_store`] gave, or Apache's `kvConfig.json`.
    pub fn restore_kv(&mut self, stored: &[u8]) -> Result<(), BodyError> {
        self.kv.restore(stored)
    }

    /// KV config, if it has changed since this was asked last. The host stores it before it sends the replies that came
    /// before.
    pub fn take_kv_to_store(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.kv_is_new).then(|| self.kv.to_bytes())
    }

    /// Appends the reply to a request; nothing for a oneway request or for a response.
    pub fn handle(&mut self, now_ms: u64, connection: u64, frame: &Frame<'_>, out: &mut Vec<u8>) {
        if frame.is_response() {
            return;
        }
        let outcome = self.answer(now_ms, connection, frame);
        if frame.is_oneway() {
            return;
        }
        match outcome {
            Ok(answer) => write_answer(frame, &answer, out),
            Err(Refusal { code, remark }) => head(frame, code, Some(&remark), out).finish(0),
        }
    }

    /// Forgets the brokers that registered on a connection.
    pub fn connection_closed(&mut self, connection: u64) {
        let gone = self.brokers.closed(connection);
        self.forget_brokers(&gone, "closed its connection");
    }

    /// Forgets the brokers that were silent for too long, and appends the connections to close. To be called every few
    /// seconds.
    pub fn tick(&mut self, now_ms: u64, to_close: &mut Vec<u64>) {
        let (gone, connections) = self.brokers.expire(now_ms);
        self.forget_brokers(&gone, "was silent for too long");
        to_close.extend(connections);
    }

    fn forget_brokers(&mut self, names: &[String], why: &str) {
        for name in names {
            tracing::info!("broker {name} {why}: it is forgotten, and so are its queues");
            self.topics.remove_broker(name);
        }
    }

    fn answer(
        &mut self,
        now_ms: u64,
        connection: u64,
        frame: &Frame<'_>,
    ) -> Result<Answer, Refusal> {
        match frame.code {
            request::REGISTER_BROKER => self.register(now_ms, connection, frame),
            request::UNREGISTER_BROKER => self.unregister(frame),
            request::BROKER_HEARTBEAT => self.heartbeat(now_ms, frame),
            request::QUERY_DATA_VERSION => self.query_data_version(now_ms, frame),
            request::GET_ROUTEINFO_BY_TOPIC => self.route(frame),
            request::GET_BROKER_CLUSTER_INFO => Ok(self.cluster_info()),
            request::GET_BROKER_MEMBER_GROUP => self.member_group(frame),
            request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.all_topics(),
            request::GET_TOPICS_BY_CLUSTER => self.topics_of_cluster(frame),
            request::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(self.system_topics()),
            request::GET_UNIT_TOPIC_LIST
            | request::GET_HAS_UNIT_SUB_TOPIC_LIST
            | request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => Ok(self.unit_topics(frame.code)),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(frame),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(frame),
            request::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_permission(frame),
            request::ADD_WRITE_PERM_OF_BROKER => self.add_write_permission(frame),
            request::PUT_KV_CONFIG => self.put_kv(frame),
            request::GET_KV_CONFIG => self.get_kv(frame),
            request::DELETE_KV_CONFIG => self.delete_kv(frame),
            request::GET_KVLIST_BY_NAMESPACE => self.kv_namespace(frame),
            request::UPDATE_NAMESRV_CONFIG => self.update_settings(frame),
            request::GET_NAMESRV_CONFIG => {
                Ok(Answer::Body(self.settings.to_properties().into_bytes()))
            }
            code => {
                tracing::warn!(
                    "request {code} {} is not supported here",
                    request_name(code).unwrap_or("(unknown)")
                );
                let remark = format!(" request type {code} not supported");
                Err(Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, remark))
            }
        }
    }
}

fn head<'b>(
    to: &Frame<'_>,
    code: i32,
    remark: Option<&str>,
    out: &'b mut Vec<u8>,
) -> FrameWriter<'b> {
    let head = Head {
        serialization: to.serialization,
        code,
        // Old Java clients do not know younger languages.
        language: language::JAVA,
        version: VERSION,
        opaque: to.opaque,
        flag: 1,
        remark,
    };
    FrameWriter::new(out, &head)
}

fn write_answer(to: &Frame<'_>, answer: &Answer, out: &mut Vec<u8>) {
    use corelane_wire::header::nameserver::{
        AddWritePermOfBrokerResponse, GetKvConfigResponse, QueryDataVersionResponse,
        RegisterBrokerResponse, WipeWritePermOfBrokerResponse,
    };
    let mut writer = head(to, response::SUCCESS, None, out);
    match answer {
        Answer::Nothing => writer.finish(0),
        Answer::Body(body) => writer.finish_with(body),
        Answer::KvValue(value) => {
            GetKvConfigResponse {
                value: Some(value.as_str().into()),
            }
            .encode(&mut writer);
            writer.finish(0);
        }
        Answer::Wiped(topics) => {
            WipeWritePermOfBrokerResponse {
                wipe_topic_count: *topics,
            }
            .encode(&mut writer);
            writer.finish(0);
        }
        Answer::Added(topics) => {
            AddWritePermOfBrokerResponse {
                add_topic_count: *topics,
            }
            .encode(&mut writer);
            writer.finish(0);
        }
        Answer::Changed { changed, known } => {
            QueryDataVersionResponse { changed: *changed }.encode(&mut writer);
            writer.finish_with(known);
        }
        Answer::Registered {
            master,
            order_config,
        } => {
            if let Some((ha_address, address)) = master {
                let header = RegisterBrokerResponse {
                    ha_server_addr: Some(ha_address.as_str().into()),
                    master_addr: Some(address.as_str().into()),
                };
                header.encode(&mut writer);
            }
            writer.finish_with(order_config);
        }
    }
}

#[cfg(test)]
mod tests;
