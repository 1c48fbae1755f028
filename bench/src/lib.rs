//! The load generator: how fast a broker that speaks the RocketMQ protocol is, Corelane or another.
//!
//! It measures from outside, over TCP, with an engine of its own so that it is not what limits: pinned threads, one
//! io_uring each, many connections with many requests in flight, frames made from templates. It says how busy it was.
#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client process with its own threads: no shard runs here"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[allow(unsafe_code, reason = "buffers that the kernel reads and writes")]
mod ring;

pub mod check;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod cpu;
pub mod disk;
pub mod error;
pub mod expect;
pub mod find_max;
mod idler;
pub mod layout;
mod live;
pub mod measure;
pub mod outcome;
pub mod plan;
mod producer;
mod puller;
mod random;
pub mod raw;
pub mod replay;
mod reply;
pub mod report;
pub mod run;
pub mod schedule;
pub mod sizes;
mod stamp;
pub mod subscribers;
pub mod template;
mod worker;
