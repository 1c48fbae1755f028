//! The host of everything: a shard on each core, and around them the process.
//!
//! [`process::run`] holds the data directory, starts the NameServer and the shards, and waits for a signal or for the last
//! shard to end. A shard that fails stops alone; the process ends when none is left.

mod clock;
mod commit;
mod directory;
mod disk;
mod heap;
mod host;
mod offline;
mod options;
mod place;
pub mod process;
mod register;
mod sink;
mod writer;

use std::net::SocketAddr;
use std::time::Duration;

pub use directory::{DataDirectory, DirectoryError, ReadHold};
pub use disk::Disk;
pub use offline::open_offline;
pub use options::engine_settings;
pub use process::RunError;

use crate::config::Config;
use crate::engine::settings::Settings;
use crate::log::{LogFailure, LogOptions, OpenError};
use crate::net::{NetError, NetLimits};
use crate::ring::RingError;

/// What one shard is told.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// The name of its broker.
    pub name: String,
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What it is registered with for replicas.
    pub ha_address: SocketAddr,
    /// The NameServers, `host:port`.
    pub nameservers: Vec<String>,
    /// How often it registers when nothing changes.
    pub register_interval: Duration,
    /// How long an idle turn waits in the ring before the executor sleeps.
    pub linger: Duration,
    /// How long it looks for completions before that.
    pub spin: Duration,
    /// What all of this was made of; what changes while the shard runs is changed in here.
    pub config: Config,
    /// The engine's settings.
    pub engine: Settings,
    /// The log's options.
    pub log: LogOptions,
    /// The network plane's bounds.
    pub net: NetLimits,
}

/// Why a shard ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// No ring can be made.
    #[error(transparent)]
    Setup(#[from] RingError),
    /// The ring failed while it ran.
    #[error("io_uring failed: {0}")]
    Ring(#[source] std::io::Error),
    /// A port cannot be listened on.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be written any more.
    #[error(
        "the log has failed, and the shard stops so that nothing is acknowledged that may be lost: {0}"
    )]
    Log(LogFailure),
    /// The directory of the shard cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The executor of the shard cannot be made.
    #[error("cannot start the shard's thread: {0}")]
    Executor(String),
}
