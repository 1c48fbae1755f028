//! The broker as a library: one shard a core, each with its own log, engine and ports.

pub mod log;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
