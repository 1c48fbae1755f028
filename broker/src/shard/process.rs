//! The process: data directory, NameServer, shards, signals.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use glommio::{ExecutorJoinHandle, Placement};
use nix::sys::resource::{Resource, getrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::directory::{DataDirectory, DirectoryError};
use super::host::{self, StopHandle};
use super::options::{nameserver_options, shard_options};
use super::{ShardError, ShardOptions};
use crate::config::{Config, ConfigError};
use crate::log::{OpenError, Position};
use crate::nameserver::service::{self, NameServerError, NameServerHandle};
use crate::ring::{Ring, RingError, executor};

/// Locked memory that the executor of a shard asks for, in KiB.
const MEMLOCK_KIB: u64 = 512;

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
    /// A log is damaged, and there is a way to go on without what is.
    #[error(
        "{shard}: {cause}; `corelane verify {directory}` says what else is damaged; \
         `corelane start --skip-damage {index}:{position}` goes on without this damage, and says what is lost with it"
    )]
    Damaged {
        /// Name of the shard's broker.
        shard: String,
        /// Its number.
        index: usize,
        /// The data directory.
        directory: String,
        /// Where the damage begins.
        position: Position,
        /// What happened.
        cause: Box<OpenError>,
    },
    /// Damage was to be passed over in a shard that is not there.
    #[error("--skip-damage: there is no shard {index}, only {count} from 0 on")]
    NoShard {
        /// Its number.
        index: usize,
        /// How many there are.
        count: usize,
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
        index: usize,
        result: Result<(), ShardError>,
    },
    Signal(i32),
}

/// Runs the broker, and the NameServer beside it where the configuration wants one, until it is told to stop. Where
/// `skip_damage` names a shard, that one goes on without the damage at that position of its log.
pub fn run(config: &Config, skip_damage: &[(usize, Position)]) -> Result<(), RunError> {
    check_memlock()?;
    Ring::check()?;
    let directory = DataDirectory::hold(&config.data_dir)?;
    let mut shards = shard_options(config)?;
    for &(index, position) in skip_damage {
        let count = shards.len();
        let shard = shards
            .get_mut(index)
            .ok_or(RunError::NoShard { index, count })?;
        shard.log.skip_damage = Some(position);
    }
    let (tell, news) = mpsc::channel();
    listen_for_signals(&tell)?;
    let mut running = Running {
        directory: config.data_dir.display().to_string(),
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
    /// Where the data lie, for messages.
    directory: String,
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
        let builder = executor(Placement::Fixed(options.cpu)).name(&options.name);
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
            let _ = tell.send(News::Ended {
                shard,
                index,
                result,
            });
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
                    index,
                    result: Err(cause),
                }) => break Err(self.not_started(shard, index, cause)),
                Ok(News::Signal(_) | News::Ended { .. }) | Err(_) => break Ok(false),
            }
        };
        self.shards.retain(|shard| shard.stop.is_some());
        self.stop();
        result
    }

    /// Why a shard did not start, and what can be done.
    fn not_started(&self, shard: String, index: usize, cause: ShardError) -> RunError {
        match cause {
            ShardError::Open(cause @ OpenError::Damaged { position, .. }) => RunError::Damaged {
                shard,
                index,
                directory: self.directory.clone(),
                position,
                cause: Box::new(cause),
            },
            cause => RunError::Shard { shard, cause },
        }
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
                Ok(News::Ended { shard, result, .. }) => {
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
