//! What can go wrong between a client and a server. Each is one line that says who and what.

use std::io;
use std::time::Duration;

use corelane_wire::code::response_name;
use corelane_wire::{FieldError, FrameError};

use crate::session::TooManyInFlight;

/// Why a request has no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The text is no address, or its name is not known.
    #[error("{address} is not an address that can be reached: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Nobody listens there, or nobody answers.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke: {source}")]
    Broken {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server closed the connection.
    #[error("{address} closed the connection")]
    Closed {
        /// `host:port`.
        address: String,
    },
    /// No answer came in time.
    #[error("{address} did not answer within {} ms", waited.as_millis())]
    TimedOut {
        /// `host:port`.
        address: String,
        /// How long was waited.
        waited: Duration,
    },
    /// What came is not the protocol.
    #[error("{address} does not speak the RocketMQ protocol: {source}")]
    Frame {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The server refused.
    #[error("{address} answered {}{}", code_text(*code), remark_text(remark))]
    Refused {
        /// `host:port`.
        address: String,
        /// The response code.
        code: i32,
        /// The server's words, perhaps none.
        remark: String,
    },
    /// The answer is not what the protocol says.
    #[error("{address} sent an answer that makes no sense: {what}")]
    Answer {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// Too many requests wait for their answers.
    #[error(transparent)]
    TooManyInFlight(#[from] TooManyInFlight),
    /// What was asked for cannot be done in this cluster.
    #[error("{0}")]
    Cluster(String),
}

impl ClientError {
    /// The response code, where the server refused.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn answer(address: &str, what: impl Into<String>) -> Self {
        Self::Answer {
            address: address.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn field(address: &str, error: &FieldError) -> Self {
        Self::answer(address, error.to_string())
    }
}

fn code_text(code: i32) -> String {
    match response_name(code) {
        Some(name) => format!("{code} {name}"),
        None => code.to_string(),
    }
}

fn remark_text(remark: &str) -> String {
    // Java sends whole stack traces; the first line says it.
    match remark.trim().lines().next() {
        Some(line) => format!(": {line}"),
        None => String::new(),
    }
}
