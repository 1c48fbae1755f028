//! The server as a library: what `corelane start` and `corelane nameserver` run.

pub mod config;
pub mod engine;
pub mod log;
pub mod nameserver;
pub mod net;
pub mod ring;
pub mod shard;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use shard::process::{RunError, run, run_nameserver};
