//! Why a measurement could not be made.

use std::io;

/// A failure, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A broker or a NameServer did not do what the set-up needs.
    #[error(transparent)]
    Client(#[from] corelane_client::ClientError),
    /// A file, a socket or the ring failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The settings make no sense together, or the cluster is not what they need.
    #[error("{0}")]
    Settings(String),
}

impl BenchError {
    /// Says what an I/O error was about.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
