//! A running broker with its NameServer.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::message::Queue;
use crate::ports::Ports;
use crate::process::Process;
use crate::server::Server;
use crate::turn::Turn;
use crate::{apache, eventually, new_dir, raw};

/// How long servers may take until they are registered, on a machine that does other things too.
const READY: Duration = Duration::from_secs(120);

/// How a cluster is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    shards: u16,
    alone: bool,
    apache: bool,
    settings: Vec<(String, String)>,
}

impl Options {
    /// One shard with the defaults, but small segments.
    pub fn new() -> Self {
        Self {
            shards: 1,
            ..Self::default()
        }
    }

    /// How many shards the broker has.
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        self
    }

    /// No other test with clients is to run at the same time.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Made of Apache RocketMQ's broker and NameServer.
    pub fn apache(mut self) -> Self {
        self.apache = true;
        self
    }

    /// Sets a key of the configuration.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// One process of `corelane start`, or what takes its place; see the crate's documentation.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
    shards: u16,
    nameserver: String,
    dir: PathBuf,
    ports: Ports,
    ready_after: Duration,
    _turn: Turn,
}

impl Cluster {
    /// Starts one and waits until all its shards are registered.
    pub fn start(options: &Options) -> Self {
        let turn = if options.alone {
            Turn::alone()
        } else {
            Turn::shared()
        };
        let (dir, ports) = (new_dir(), Ports::take());
        let nameserver = format!("127.0.0.1:{}", ports.nameserver());
        let start = Instant::now();
        let servers = match std::env::var("CORELANE_TESTS_BROKER").as_deref() {
            Ok("apache") => apache_servers(options, &dir, &ports, &nameserver),
            Ok(other) => panic!("CORELANE_TESTS_BROKER={other}: only apache is known"),
            Err(_) if options.apache => apache_servers(options, &dir, &ports, &nameserver),
            Err(_) => vec![corelane_server(options, &dir, &ports)],
        };
        let mut cluster = Self {
            servers,
            shards: options.shards,
            nameserver,
            dir,
            ports,
            ready_after: Duration::ZERO,
            _turn: turn,
        };
        cluster.wait_ready();
        cluster.ready_after = start.elapsed();
        cluster
    }

    /// `host:port` of the NameServer.
    pub fn nameserver(&self) -> &str {
        &self.nameserver
    }

    /// The addresses of the shards by broker name.
    pub fn brokers(&self) -> BTreeMap<String, String> {
        raw::masters(&self.nameserver)
    }

    /// The address of the first shard.
    pub fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.ports.broker(0))
    }

    /// How long the first start took until all shards were registered.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Ports that belong to this cluster; those of the broker are the first.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where everything of this cluster lies; the broker's data are below it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The broker's process.
    pub fn process(&self) -> &Process {
        self.servers
            .last()
            .expect("a cluster has a server")
            .process()
    }

    /// Makes a topic with so many queues on each shard and waits for its route. Returns the queues.
    pub fn create_topic(&self, topic: &str, queues: usize) -> Vec<Queue> {
        for (name, address) in self.brokers() {
            let response = raw::create_topic(&address, topic, queues)
                .unwrap_or_else(|e| panic!("topic {topic} on {name}: {e}"));
            assert_eq!(
                response.code, 0,
                "topic {topic} on {name}: {}",
                response.remark
            );
        }
        let route = eventually(&format!("the route of {topic}"), READY, || {
            let route = raw::route(&self.nameserver, topic);
            (route.len() == usize::from(self.shards)).then_some(route)
        });
        let ids = |(broker, count): (String, i64)| {
            (0..count).map(move |id| Queue {
                broker: broker.clone(),
                id: id as i32,
            })
        };
        route.into_iter().flat_map(ids).collect()
    }

    /// SIGKILL to everything.
    pub fn kill9(&mut self) {
        self.servers.iter_mut().rev().for_each(Server::kill9);
    }

    /// SIGTERM; panics when it has not ended after `within`.
    pub fn sigterm(&mut self, within: Duration) -> ExitStatus {
        self.servers
            .iter_mut()
            .rev()
            .map(|server| server.sigterm(within))
            .next_back()
            .expect("a cluster has a server")
    }

    /// Starts what was ended, with the same data and ports, and waits until all shards are registered.
    pub fn start_again(&mut self) {
        self.servers.iter_mut().for_each(Server::start_again);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        eventually(
            &format!("all shards are registered; see {}", self.dir.display()),
            READY,
            || {
                self.servers.iter_mut().for_each(Server::must_run);
                let brokers = raw::masters(&self.nameserver);
                let reachable = brokers
                    .values()
                    .all(|address| TcpStream::connect(address).is_ok());
                (brokers.len() == usize::from(self.shards) && reachable).then_some(())
            },
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in &self.servers {
                eprintln!("{}", server.log_end());
            }
            eprintln!("everything of this test is kept in {}", self.dir.display());
        } else {
            self.servers.clear();
            // What is left over is removed with the target directory.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn corelane_server(options: &Options, dir: &Path, ports: &Ports) -> Server {
    let numbers = [
        ("port", ports.broker(0)),
        ("nameserver_port", ports.nameserver()),
        ("shards", options.shards),
    ]
    .map(|(key, number)| (key.to_owned(), number.to_string()));
    let settings: Vec<(&str, &str)> = numbers
        .iter()
        .chain(&options.settings)
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    Server::corelane("corelane", "start", dir, &settings)
}

fn apache_servers(options: &Options, dir: &Path, ports: &Ports, nameserver: &str) -> Vec<Server> {
    let settings: Vec<String> = options
        .settings
        .iter()
        .map(|(key, value)| apache_setting(key, value))
        .collect();
    let broker = |i| {
        apache::broker(
            &format!("broker-a-{i}"),
            dir,
            ports.broker(i),
            nameserver,
            &settings,
        )
    };
    let nameserver = apache::nameserver("nameserver", dir, ports.nameserver());
    std::iter::once(nameserver)
        .chain((0..options.shards).map(broker))
        .collect()
}

/// The same key of Apache's `broker.conf`.
fn apache_setting(key: &str, value: &str) -> String {
    let name = match key {
        "auto_create_topic" => "autoCreateTopicEnable",
        "offset_commit_interval_ms" => "flushConsumerOffsetInterval",
        "message_delay_levels" => "messageDelayLevel",
        "recall" => "recallMessageEnable",
        "transaction_check_interval_ms" => "transactionCheckInterval",
        "transaction_timeout_ms" => "transactionTimeOut",
        "transaction_check_max" => "transactionCheckMax",
        "trace_topic" => "traceTopicEnable",
        "client_timeout_ms" => "channelExpiredTimeout",
        other => panic!("Apache's name of {other} is not known here"),
    };
    format!("{name}={value}")
}
