//! A small RocketMQ client: for the tools, the load generator and the tests.

pub mod connection;
pub mod error;
pub mod session;

pub use connection::Connection;
pub use error::ClientError;
pub use session::Session;
