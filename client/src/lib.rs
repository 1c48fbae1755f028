//! A small RocketMQ client: for the tools, the load generator and the tests.
//!
//! [`Session`] does no I/O; [`Connection`] carries it over a blocking socket. On that stand the administration of a
//! [`Cluster`], a [`Producer`] and a [`Consumer`]. It does not take the place of the official clients: consumers of one
//! group do not share queues among each other.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "outside the broker threads may block and ask the time"
)]

pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod message;
pub mod producer;
pub mod session;
#[cfg(test)]
mod testing;

pub use cluster::Cluster;
pub use connection::Connection;
pub use consumer::Consumer;
pub use error::ClientError;
pub use message::{Message, Received};
pub use producer::Producer;
pub use session::Session;
