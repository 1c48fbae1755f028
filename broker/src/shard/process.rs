//! The process: data directory, NameServer, shards, signals.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use nix::sys::resource::{Resource, getrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::directory::{DataDirectory, DirectoryError};
use super::host::{self, StopHandle};
use super::place::place;
use super::{ShardError, ShardOptions};
use crate::config::{Config, ConfigError, Flush, KEYS};
use crate::engine::settings::Settings;
use crate::log::{FlushMode, LogOptions};
use crate::nameserver::Limits;
use crate::nameserver::service::{self, NameServerError, NameServerHandle, NameServerOptions};
use crate::net::NetLimits;
use crate::ring::{Ring, RingError};

/// What a record needs beside its body, at most, in bytes.
const RECORD_OVERHEAD: usize = 128 << 10;
/// Timers that are due later than this are stored anew on their way, in milliseconds.
const TIMER_HORIZON_MS: i64 = 36 * 3_600_000;
/// Locked memory that the executor of a shard asks for, in KiB.
const MEMLOCK_KIB: u64 = 512;
/// How long an idle turn waits in the ring before the executor sleeps.
const LINGER: Duration = Duration::from_millis(1);

/// Why a server could not start, or had to stop. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This machine has no io_uring for us.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The executor of a shard needs more locked memory than this process may have.
    #[error(
        "the limit on locked memory (memlock) is {limit_kib} KiB, and io_uring needs {MEMLOCK_KIB}: raise it with `ulimit -l \
         {MEMLOCK_KIB}`, or LimitMEMLOCK= in the unit of the service"
    )]
    MemLock {
        /// The limit.
        limit_kib: u64,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The NameServer cannot start.
    #[error(transparent)]
    NameServer(#[from] NameServerError),
    /// A shard could not start, or the last one failed.
    #[error("{shard}: {cause}")]
    Shard {
        /// Name of its broker.
        shard: String,
        /// What happened.
        cause: ShardError,
    },
    /// Signals cannot be handled.
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
}

/// What threads tell the one that waits.
enum News {
    Bound {
        index: usize,
    },
    Ready {
        index: usize,
        stop: StopHandle,
    },
    Ended {
        shard: String,
        result: Result<(), ShardError>,
    },
    Signal(i32),
}

/// Runs the broker, and the NameServer beside it where the configuration wants one, until it is told to stop.
pub fn run(config: &Config) -> Result<(), RunError> {
    check_memlock()?;
    Ring::check()?;
    let directory = DataDirectory::hold(&config.data_dir)?;
    let shards = shard_options(config)?;
    let (tell, news) = mpsc::channel();
    listen_for_signals(&tell)?;
    let mut running = Running {
        shards: Vec::new(),
        nameserver: None,
    };
    for (index, options) in shards.into_iter().enumerate() {
        running.spawn(options, directory.shard(index)?, tell.clone())?;
    }
    // First every port, then the logs: what is wrong with the configuration is said before anything else happens.
    if !running.wait_for_all(&news, |shard| shard.bound)? {
        return Ok(());
    }
    if config.nameserver_embedded {
        running.nameserver = Some(service::spawn(nameserver_options(config, &directory))?);
    }
    for shard in &running.shards {
        let _ = shard.go.send(());
    }
    if !running.wait_for_all(&news, |shard| shard.stop.is_some())? {
        return Ok(());
    }
    tracing::info!(shards = running.shards.len(), data_dir = %config.data_dir.display(), "ready");
    running.wait(&news)
}

/// Runs a NameServer alone until it is told to stop.
pub fn run_nameserver(config: &Config) -> Result<(), RunError> {
    check_memlock()?;
    Ring::check()?;
    let directory = DataDirectory::hold(&config.data_dir)?;
    let (tell, news) = mpsc::channel();
    listen_for_signals(&tell)?;
    let nameserver = service::spawn(nameserver_options(config, &directory))?;
    tracing::info!(port = config.nameserver_port, "the NameServer is ready");
    while let Ok(news) = news.recv() {
        if let News::Signal(signal) = news {
            tracing::info!(signal, "stopping");
            break;
        }
    }
    Ok(nameserver.stop()?)
}

/// One shard, as the process sees it.
struct Shard {
    thread: ExecutorJoinHandle<()>,
    /// Lets it open its log; dropped, the shard ends before that.
    go: Sender<()>,
    bound: bool,
    /// There once it serves.
    stop: Option<StopHandle>,
}

struct Running {
    shards: Vec<Shard>,
    nameserver: Option<NameServerHandle>,
}

impl Running {
    fn spawn(
        &mut self,
        options: ShardOptions,
        path: PathBuf,
        tell: Sender<News>,
    ) -> Result<(), RunError> {
        let (index, name) = (self.shards.len(), options.name.clone());
        let (go, may_go) = mpsc::channel();
        let builder = LocalExecutorBuilder::new(Placement::Fixed(options.cpu)).name(&options.name);
        let shard = name.clone();
        let spawned = builder.spawn(move || async move {
            let (tell_bound, tell_ready) = (tell.clone(), tell.clone());
            let bound = move || {
                let _ = tell_bound.send(News::Bound { index });
                may_go.recv().is_ok()
            };
            let ready = move |stop| {
                let _ = tell_ready.send(News::Ready { index, stop });
            };
            let result = host::run(options, path, bound, ready).await;
            let _ = tell.send(News::Ended { shard, result });
        });
        let thread = spawned.map_err(|error| RunError::Shard {
            shard: name,
            cause: ShardError::Executor(error.to_string()),
        })?;
        self.shards.push(Shard {
            thread,
            go,
            bound: false,
            stop: None,
        });
        Ok(())
    }

    /// Waits until all shards have come so far. `false`: the process was told to stop meanwhile. Whatever does not serve yet
    /// has acknowledged nothing and need not be waited for.
    fn wait_for_all(
        &mut self,
        news: &Receiver<News>,
        come_so_far: impl Fn(&Shard) -> bool,
    ) -> Result<bool, RunError> {
        let result = loop {
            if self.shards.iter().all(&come_so_far) {
                return Ok(true);
            }
            match news.recv() {
                Ok(News::Bound { index }) => self.shards[index].bound = true,
                Ok(News::Ready { index, stop }) => self.shards[index].stop = Some(stop),
                Ok(News::Ended {
                    shard,
                    result: Err(cause),
                }) => break Err(RunError::Shard { shard, cause }),
                Ok(News::Signal(_) | News::Ended { .. }) | Err(_) => break Ok(false),
            }
        };
        self.shards.retain(|shard| shard.stop.is_some());
        self.stop();
        result
    }

    /// Waits for a signal, or for the last shard to end.
    fn wait(mut self, news: &Receiver<News>) -> Result<(), RunError> {
        let mut left = self.shards.len();
        let mut last_failure = None;
        while left > 0 {
            match news.recv() {
                Ok(News::Signal(signal)) => {
                    tracing::info!(signal, "stopping");
                    self.tell_to_stop();
                }
                Ok(News::Ended { shard, result }) => {
                    left -= 1;
                    match result {
                        Ok(()) => tracing::info!(%shard, "stopped"),
                        Err(cause) => {
                            tracing::error!(%shard, %cause, "the shard has ended");
                            last_failure = Some(RunError::Shard { shard, cause });
                        }
                    }
                }
                Ok(News::Bound { .. } | News::Ready { .. }) => {}
                Err(_) => break,
            }
        }
        self.stop();
        last_failure.map_or(Ok(()), Err)
    }

    fn tell_to_stop(&self) {
        for stop in self.shards.iter().filter_map(|shard| shard.stop.as_ref()) {
            stop.stop();
        }
    }

    fn stop(&mut self) {
        self.tell_to_stop();
        for shard in self.shards.drain(..) {
            let _ = shard.thread.join();
        }
        if let Some(Err(error)) = self.nameserver.take().map(NameServerHandle::stop) {
            tracing::error!(%error, "the NameServer has failed");
        }
    }
}

fn check_memlock() -> Result<(), RunError> {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((limit, _)) if limit < MEMLOCK_KIB << 10 => Err(RunError::MemLock {
            limit_kib: limit >> 10,
        }),
        _ => Ok(()),
    }
}

fn listen_for_signals(tell: &Sender<News>) -> Result<(), RunError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(RunError::Signals)?;
    let tell = tell.clone();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if tell.send(News::Signal(signal)).is_err() {
                    break;
                }
            }
        })
        .map_err(RunError::Signals)?;
    Ok(())
}

fn nameserver_options(config: &Config, directory: &DataDirectory) -> NameServerOptions {
    NameServerOptions {
        listen_address: config.listen_address,
        port: config.nameserver_port,
        limits: Limits {
            brokers: config.max_registered_brokers,
            topic_entries: config.max_registered_topics,
            kv_entries: config.max_kv_entries,
        },
        net: net_limits(config),
        kv_path: Some(directory.kv_config()),
    }
}

fn shard_options(config: &Config) -> Result<Vec<ShardOptions>, RunError> {
    let ip = config.advertised_ip();
    let cpus = place(config.shards.into(), &config.cores.0);
    let mut shards = Vec::new();
    for (index, cpu) in (0u16..).zip(cpus) {
        let ports = config.ports(index)?;
        let name = config.shard_name(index);
        shards.push(ShardOptions {
            cpu,
            listen: [ports.main, ports.vip]
                .map(|port| SocketAddr::new(config.listen_address, port))
                .to_vec(),
            ha_address: SocketAddr::new(ip, ports.replication),
            nameservers: config.nameservers(),
            register_interval: Duration::from_millis(config.register_interval_ms),
            linger: LINGER,
            engine: engine_settings(config, &name, SocketAddr::new(ip, ports.main)),
            log: log_options(config),
            net: net_limits(config),
            config: config.clone(),
            name,
        });
    }
    Ok(shards)
}

pub(super) fn engine_settings(config: &Config, name: &str, store_host: SocketAddr) -> Settings {
    Settings {
        cluster_name: config.cluster_name.clone(),
        broker_name: name.to_owned(),
        store_host,
        max_message_bytes: config.max_message_bytes,
        auto_create_topic: config.auto_create_topic,
        default_topic_queues: config.default_topic_queues as i32,
        auto_create_group: config.auto_create_group,
        trace_topic: config.trace_topic,
        property_filter: config.property_filter,
        long_polling: config.long_polling,
        long_polling_max_ms: config.long_polling_max_ms as i64,
        sync_flush: config.flush == Flush::Sync,
        delay_levels_ms: config
            .message_delay_levels
            .0
            .iter()
            .map(|delay_ms| *delay_ms as i64)
            .collect(),
        timer_max_delay_ms: config.timer_max_delay_secs as i64 * 1_000,
        timer_horizon_ms: (config.retention_hours as i64 * 3_600_000 / 2).min(TIMER_HORIZON_MS),
        recall: config.recall,
        offset_flush_ms: config.offset_commit_interval_ms as i64,
        client_timeout_ms: config.client_timeout_ms as i64,
        pull_max_messages: config.max_pull_messages as usize,
        pull_max_bytes: config.max_pull_bytes,
        max_topics: config.max_topics,
        max_topic_queues: config.max_queues.min(i32::MAX as usize) as i32,
        max_groups: config.max_groups,
        max_queues: config.max_queues,
        max_clients: config.max_clients,
        max_offsets: config.max_offsets,
        max_held_pulls: config.max_held_pulls,
        transaction_timeout_ms: config.transaction_timeout_ms as i64,
        transaction_check_interval_ms: config.transaction_check_interval_ms as i64,
        transaction_check_max: config.transaction_check_max,
        max_pending_transactions: config.max_pending_transactions,
        described: described(config),
    }
}

/// Every key with its value, as Java properties.
fn described(config: &Config) -> String {
    let value = |name: &str| config.text(name).unwrap_or_default();
    KEYS.iter()
        .map(|key| format!("{}={}\n", key.name, value(key.name)))
        .collect()
}

fn log_options(config: &Config) -> LogOptions {
    let flush = match config.flush {
        Flush::Sync => FlushMode::Sync,
        Flush::Async => FlushMode::Async {
            interval_ms: config.flush_interval_ms,
        },
    };
    let defaults = LogOptions::default();
    LogOptions {
        segment_bytes: config.segment_bytes,
        first_segment_bytes: defaults.first_segment_bytes.min(config.segment_bytes),
        buffer_bytes: config.log_buffer_bytes,
        tail_cache_bytes: config.tail_cache_bytes,
        max_group_bytes: config.max_group_bytes,
        max_record_bytes: config.max_message_bytes + RECORD_OVERHEAD,
        max_writes_in_flight: config.max_writes_in_flight,
        max_unflushed_bytes: config.max_unflushed_bytes as u64,
        flush,
        ..defaults
    }
}

fn net_limits(config: &Config) -> NetLimits {
    NetLimits {
        max_connections: config.max_connections,
        max_frame_bytes: config.max_frame_bytes,
        max_assembly_bytes: config.max_inflight_bytes,
        max_queued_bytes: config.max_connection_unsent_bytes,
        idle_ms: config.client_timeout_ms,
        ..NetLimits::default()
    }
}
