//! A disk that lies as far as its contract lets it, from a seed, and what runs the log's work on it.
//!
//! Deterministic: the same seed and the same calls give the same run. Compiled for tests only (feature `sim`).

mod disk;
mod host;
mod random;
pub mod shard;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod fault_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod features;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod gap_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod index_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod log_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod model;
#[cfg(test)]
mod options;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod read_ahead_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod seeds;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod shard_tests;
#[cfg(test)]
pub(crate) mod test_host;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod time_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod waiting_tests;

pub use disk::{Cause, Faults, SimDisk, SimIo};
pub use host::{LogHost, block_on};
pub use random::Random;
