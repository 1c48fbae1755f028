//! The server as a library: what `corelane start` and `corelane nameserver` run.

pub mod config;
pub mod nameserver;
pub mod net;
pub mod ring;

use config::Config;

/// Why a server could not start, or had to stop. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This build has no host for the engine.
    #[error("this build cannot run a broker yet")]
    NotBuilt,
}

/// Runs the broker, and the NameServer beside it where the configuration wants one, until it is told to stop.
pub fn run(config: Config) -> Result<(), RunError> {
    let _ = config;
    Err(RunError::NotBuilt)
}

/// Runs a NameServer alone until it is told to stop.
pub fn run_nameserver(config: Config) -> Result<(), RunError> {
    let _ = config;
    Err(RunError::NotBuilt)
}
