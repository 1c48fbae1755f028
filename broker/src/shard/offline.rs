//! A shard's log and state without its broker: for tools that fill it.

use std::net::SocketAddr;

use super::ShardError;
use super::directory::DataDirectory;
use super::options::{engine_settings, log_options};
use crate::config::Config;
use crate::engine::Engine;
use crate::log::{FlushMode, OfflineLog};

/// Opens the log of a shard in a directory that is held; it keeps whatever it has, however old.
pub fn open_offline(
    config: &Config,
    directory: &DataDirectory,
    index: u16,
) -> Result<(OfflineLog, Engine), ShardError> {
    let address = SocketAddr::new(config.advertised_ip(), config.port);
    let settings = engine_settings(config, &config.shard_name(index), address);
    let mut engine = Engine::new(settings);
    let mut options = log_options(config);
    options.flush = FlushMode::Sync;
    options.retention_ms = i64::MAX;
    options.retention_bytes = u64::MAX;
    let (log, _) = OfflineLog::open(directory.shard(index.into())?, options, &mut engine)?;
    Ok((log, engine))
}
