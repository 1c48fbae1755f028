//! Keeps the NameServers told: one task for each, with a connection of its own.
//!
//! A task registers all topics of the shard when it connects and every `interval`, and those that changed whenever they
//! do. What happens between two registrations is told with the next one; a NameServer that cannot be reached is tried again
//! every [`RETRY_WAIT`]. What a task says it asks of the host when it is about to say it ([`Registrar::answer`]), so that a
//! flood of changes is written once. The host learns which version of the topics every reachable NameServer knows, and which
//! of them the NameServers want in order.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::task::{Poll, Waker as TaskWaker};
use std::time::Duration;

use corelane_wire::body::{KvTable, TopicRouteData};
use corelane_wire::frame::{self, Head, Serialization};
use corelane_wire::header::nameserver::{
    GetRouteinfoByTopicRequest, RegisterBrokerRequest, UnregisterBrokerRequest,
};
use corelane_wire::{ExtHeader, Frame, FrameWriter, Text, code};
use futures_lite::future::or;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use glommio::timer::Timer;

use crate::ring::Waker;

/// Between two attempts to reach a NameServer.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How long a NameServer may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// As whom a shard registers.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Cluster.
    pub cluster_name: String,
    /// Broker.
    pub broker_name: String,
    /// `ip:port` for clients.
    pub address: String,
    /// `ip:port` for replicas.
    pub ha_address: String,
}

/// What is said to a NameServer: the version of the topics, and the body.
type Said = (u64, Vec<u8>);

/// What one task wants to say next.
enum Wish {
    /// Everything, or what changed since a version.
    Asked(Option<u64>),
    Answered(Said),
}

#[derive(Default)]
struct Shared {
    /// Version of what is to be registered; 0 is nothing yet.
    version: Cell<u64>,
    stopping: Cell<bool>,
    /// By task.
    wishes: RefCell<Vec<Option<Wish>>>,
    /// Version that each NameServer knows; `None` where it cannot be reached.
    known: RefCell<Vec<Option<u64>>>,
    waiting: RefCell<Vec<TaskWaker>>,
    /// What a NameServer said last of topics in order.
    in_order: RefCell<Option<KvTable>>,
}

impl Shared {
    fn wake_tasks(&self) {
        for task in self.waiting.borrow_mut().drain(..) {
            task.wake();
        }
    }

    /// Returns when there is something other than `version` to register, or it is time to stop.
    async fn changed(&self, version: u64) {
        poll_fn(|context| {
            if self.version.get() != version || self.stopping.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What the host has to say; `None` when it is time to stop.
    async fn ask(&self, task: usize, known: Option<u64>, host: &Waker) -> Option<Said> {
        self.wishes.borrow_mut()[task] = Some(Wish::Asked(known));
        host.wake();
        poll_fn(|context| {
            if self.stopping.get() {
                return Poll::Ready(None);
            }
            let wish = &mut self.wishes.borrow_mut()[task];
            match wish.take() {
                Some(Wish::Answered(said)) => return Poll::Ready(Some(said)),
                other => *wish = other,
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The tasks that register one shard.
pub struct Registrar {
    shared: Rc<Shared>,
    tasks: Vec<glommio::Task<()>>,
    reported: u64,
}

impl Registrar {
    /// Starts a task for each NameServer (`host:port`). They wait for the first [`Registrar::publish`].
    pub fn start(
        nameservers: &[String],
        identity: &Identity,
        interval: Duration,
        waker: &Waker,
    ) -> Self {
        let shared = Rc::new(Shared::default());
        shared.known.borrow_mut().resize(nameservers.len(), None);
        shared
            .wishes
            .borrow_mut()
            .resize_with(nameservers.len(), || None);
        let task = |(index, address): (usize, &String)| {
            let link = Link {
                shared: shared.clone(),
                index,
                address: address.clone(),
                identity: identity.clone(),
                interval,
                waker: waker.clone(),
            };
            glommio::spawn_local(link.run())
        };
        let tasks = nameservers.iter().enumerate().map(task).collect();
        Self {
            shared,
            tasks,
            reported: 0,
        }
    }

    /// Tasks for no NameServer at all.
    pub fn nobody() -> Self {
        Self {
            shared: Rc::default(),
            tasks: Vec::new(),
            reported: 0,
        }
    }

    /// The NameServers should know this version from now on.
    pub fn publish(&self, version: u64) {
        self.shared.version.set(version);
        self.shared.wake_tasks();
    }

    /// Answers the tasks that are about to register: `said` gives the version of the topics, and the body for a NameServer
    /// that knows a version of them, or none.
    pub fn answer(&self, said: impl Fn(Option<u64>) -> Said) {
        let mut answered = false;
        for wish in self.shared.wishes.borrow_mut().iter_mut().flatten() {
            if let Wish::Asked(known) = wish {
                let said = said(*known);
                self.shared
                    .version
                    .set(said.0.max(self.shared.version.get()));
                *wish = Wish::Answered(said);
                answered = true;
            }
        }
        if answered {
            self.shared.wake_tasks();
        }
    }

    /// What a NameServer has said of topics in order since the last call.
    pub fn take_in_order(&self) -> Option<KvTable> {
        self.shared.in_order.borrow_mut().take()
    }

    /// The version that every NameServer within reach knows, where it is a new one.
    pub fn take_registered(&mut self) -> Option<u64> {
        let version = self.shared.known.borrow().iter().flatten().min().copied()?;
        (version > self.reported).then(|| {
            self.reported = version;
            version
        })
    }

    /// Unregisters everywhere; returns when all has been said, or nobody listened for [`ANSWER_WAIT`].
    pub async fn stop(self) {
        self.shared.stopping.set(true);
        self.shared.wake_tasks();
        for task in self.tasks {
            let said = async {
                task.await;
            };
            or(said, async {
                Timer::new(ANSWER_WAIT).await;
            })
            .await;
        }
    }
}

/// Where a topic is, as the first NameServer says that knows it.
pub async fn topic_route(nameservers: &[String], topic: &str) -> Option<TopicRouteData> {
    let header = GetRouteinfoByTopicRequest {
        topic: Text::plain(topic),
        accept_standard_json_only: Some(true),
    };
    let request = request(code::request::GET_ROUTEINFO_BY_TOPIC, 1, &header, &[]);
    for nameserver in nameservers {
        let asked = async {
            let mut stream = TcpStream::connect(resolve(nameserver).await?).await?;
            stream.set_nodelay(true)?;
            TopicRouteData::from_json(&call(&mut stream, &request).await?).map_err(io::Error::other)
        };
        match asked.await {
            Ok(route) => return Some(route),
            Err(error) => tracing::debug!(%nameserver, topic, %error, "no route"),
        }
    }
    None
}

/// The way to one NameServer.
struct Link {
    shared: Rc<Shared>,
    index: usize,
    address: String,
    identity: Identity,
    interval: Duration,
    waker: Waker,
}

impl Link {
    async fn run(self) {
        self.shared.changed(0).await;
        let mut reachable = true;
        while !self.shared.stopping.get() {
            if let Err(error) = self.serve(&mut reachable).await
                && std::mem::replace(&mut reachable, false)
            {
                tracing::warn!(nameserver = %self.address, %error, "the NameServer cannot be reached, trying on");
            }
            self.know(None);
            if !self.shared.stopping.get() {
                Timer::new(RETRY_WAIT).await;
            }
        }
    }

    fn know(&self, version: Option<u64>) {
        self.shared.known.borrow_mut()[self.index] = version;
        self.waker.wake();
    }

    async fn serve(&self, reachable: &mut bool) -> io::Result<()> {
        let address = resolve(&self.address).await?;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut opaque = 0;
        let mut known = None;
        while let Some((version, body)) = self.shared.ask(self.index, known, &self.waker).await {
            opaque += 1;
            let answer = call(&mut stream, &self.register(opaque, &body)).await?;
            if !answer.is_empty() {
                match KvTable::from_json(&answer) {
                    Ok(table) => *self.shared.in_order.borrow_mut() = Some(table),
                    Err(error) => {
                        tracing::warn!(nameserver = %self.address, %error, "what it says of topics in order cannot be read");
                    }
                }
            }
            if !std::mem::replace(reachable, true) || version == 1 {
                tracing::info!(nameserver = %self.address, broker = %self.identity.broker_name, "registered");
            }
            self.know(Some(version));
            known = Some(version);
            or(self.shared.changed(version), async {
                Timer::new(self.interval).await;
            })
            .await;
            if self.shared.version.get() == version {
                // Nothing is new: everything is said again, for a NameServer that forgot.
                known = None;
            }
        }
        call(&mut stream, &self.unregister(opaque + 1)).await?;
        Ok(())
    }

    fn register(&self, opaque: i32, body: &[u8]) -> Vec<u8> {
        let header = RegisterBrokerRequest {
            broker_name: Text::plain(&self.identity.broker_name),
            broker_addr: Text::plain(&self.identity.address),
            cluster_name: Text::plain(&self.identity.cluster_name),
            ha_server_addr: Text::plain(&self.identity.ha_address),
            body_crc32: (crc32fast::hash(body) & 0x7fff_ffff) as i32,
            ..RegisterBrokerRequest::default()
        };
        request(code::request::REGISTER_BROKER, opaque, &header, body)
    }

    fn unregister(&self, opaque: i32) -> Vec<u8> {
        let header = UnregisterBrokerRequest {
            broker_name: Text::plain(&self.identity.broker_name),
            broker_addr: Text::plain(&self.identity.address),
            cluster_name: Text::plain(&self.identity.cluster_name),
            broker_id: 0,
        };
        request(code::request::UNREGISTER_BROKER, opaque, &header, &[])
    }
}

fn request<'h>(code: i32, opaque: i32, header: &impl ExtHeader<'h>, body: &[u8]) -> Vec<u8> {
    let head = Head {
        serialization: Serialization::Json,
        code,
        language: code::language::JAVA,
        version: code::VERSION,
        opaque,
        flag: 0,
        remark: None,
    };
    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes, &head);
    header.encode(&mut writer);
    writer.finish_with(body);
    bytes
}

/// Sends a request, waits for SUCCESS and gives the answer's body.
async fn call(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    let answered = async {
        stream.write_all(request).await?;
        stream.flush().await?;
        let mut bytes = vec![0; 4];
        stream.read_exact(&mut bytes).await?;
        let len = frame::announced_len(&bytes, MAX_ANSWER)
            .map_err(io::Error::other)?
            .unwrap_or(4);
        bytes.resize(len, 0);
        stream.read_exact(&mut bytes[4..]).await?;
        let answer = Frame::parse(&bytes).map_err(io::Error::other)?;
        if answer.code != code::response::SUCCESS {
            let remark = answer
                .remark
                .map(|text| text.to_str().into_owned())
                .unwrap_or_default();
            return Err(io::Error::other(format!(
                "the NameServer answered {}: {remark}",
                answer.code
            )));
        }
        Ok(answer.body.to_vec())
    };
    or(answered, async {
        Timer::new(ANSWER_WAIT).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

async fn resolve(address: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let name = address.to_owned();
    let resolved = glommio::executor()
        .spawn_blocking(move || name.to_socket_addrs().map(|mut found| found.next()))
        .await;
    resolved?.ok_or_else(|| io::Error::other("the name has no address"))
}
