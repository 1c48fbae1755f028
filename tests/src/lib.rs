//! Drives the built `corelane` binary the way its users do: with the real Java client, the real Go client, raw frames and
//! the command line.
//!
//! A [`Cluster`] is a running broker with its NameServer in a directory of its own, on ports that nobody else has. A
//! [`Client`] is a process with the real client of a [`Language`]; both languages speak the same verbs, so one test body
//! serves both. [`ledger`] holds what must be true of all that was sent and received. Everything that a test starts dies with
//! the test. What is unexpected panics, with the end of the server's log.
//!
//! With `CORELANE_TESTS_BROKER=apache` a [`Cluster`] is made of Apache RocketMQ's own broker and NameServer: that is how one
//! finds out whether a test asks for what RocketMQ does.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "outside the broker threads may block and ask the time"
)]

pub mod apache;
pub mod binary;
pub mod client;
pub mod cluster;
pub mod consumer;
pub mod go;
pub mod java;
pub mod ledger;
pub mod loop_disk;
pub mod message;
pub mod ports;
pub mod process;
pub mod raw;
pub mod raw_queue;
pub mod server;
pub mod turn;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use client::{Client, Language, Stream};
pub use cluster::{Cluster, Options};
pub use consumer::{Consumer, From, Model};
pub use message::{Failed, Message, Mode, Outcome, Place, Queue, Received, Sent};

/// Makes a test of each of these functions for the Java and for the Go client; they take the [`Language`].
#[macro_export]
macro_rules! in_java_and_go {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            #[test]
            #[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
            fn java() {
                super::$test($crate::Language::Java);
            }

            #[test]
            #[cfg_attr(not(have_go), ignore = "Go is absent")]
            fn go() {
                super::$test($crate::Language::Go);
            }
        })+
    };
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_millis() as i64
}

/// Polls every 20 ms until there is a value; panics with `what` when there is none within `within`.
pub fn eventually<T>(what: &str, within: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A new directory on the disk of the build, named after the running test.
pub fn new_dir() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let test = thread::current()
        .name()
        .unwrap_or("test")
        .replace("::", "-");
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = binary::scratch().join(format!("{test}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    dir
}
