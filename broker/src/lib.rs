//! The broker as a library: shards, NameServer, and the rooms they are made of (see ARCHITECTURE.md).

pub mod net;
pub mod ring;
