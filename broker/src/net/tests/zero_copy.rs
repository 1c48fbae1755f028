//! Sends that leave their bytes in place, to another network namespace. Skipped with a word where none can be made.

#![allow(clippy::print_stderr, reason = "says that it was skipped")]

use super::*;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

const SERVER: &str = "10.254.77.1:0";

/// A namespace behind a veth pair; one at a time.
struct Namespace {
    name: String,
    _alone: std::sync::MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    output.is_ok_and(|output| output.status.success())
}

impl Namespace {
    fn make() -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(|poison| poison.into_inner());
        let name = format!("clzc{}", std::process::id());
        let made = Self {
            name: name.clone(),
            _alone: alone,
        };
        let steps = [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name inner netns {name}"),
            format!("addr add 10.254.77.1/30 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add 10.254.77.2/30 dev inner"),
            format!("-n {name} link set inner up"),
        ];
        if steps.iter().all(|step| ip(step)) {
            return Some(made);
        }
        eprintln!("skipped: no network namespace can be made here");
        None
    }

    /// A connection from inside of it.
    fn connect(&self, to: SocketAddr) -> TcpStream {
        let path = format!("/var/run/netns/{}", self.name);
        let connecting = thread::spawn(move || {
            let namespace = File::open(path).unwrap();
            // SAFETY: a system call on an open descriptor, for this thread only.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0);
            TcpStream::connect(to).unwrap()
        });
        let stream = connecting.join().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
        ip(&format!("link del {}", self.name));
    }
}

fn limits() -> NetLimits {
    NetLimits {
        zero_copy_bytes: 10_000,
        ..NetLimits::default()
    }
}

fn expected(len: usize) -> Vec<u8> {
    let mut frame = ((len - 4) as u32).to_be_bytes().to_vec();
    frame.extend(vec![1; len / 2 - 4]);
    frame.extend(vec![2; len - len / 2]);
    frame
}

#[test]
fn what_is_sent_in_place_arrives_and_is_let_go_of() {
    let Some(namespace) = Namespace::make() else {
        return;
    };
    for plain in [false, true] {
        let server = Server::start_at(SERVER, plain, limits());
        let mut stream = namespace.connect(server.address);
        let mut sender = stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            for round in 0..200u32 {
                sender.write_all(&big(1_000 + round * 500)).unwrap();
                sender.write_all(&frame(b'e', &[round as u8; 100])).unwrap();
            }
        });
        for round in 0..200u32 {
            let len = (1_000 + round * 500) as usize;
            assert!(read_frame(&mut stream).unwrap() == expected(len));
            let small = read_frame(&mut stream).unwrap();
            assert_eq!(small, frame(b'e', &[round as u8; 100]));
        }
        sending.join().unwrap();
        let counters = server
            .until("the end", |seen| seen.counters.frames == 400)
            .counters;
        assert_eq!(counters.sends_zero_copy > 0, !plain, "{counters:?}");
        if counters.zero_copy_copied > 0 {
            // A pair of veths copies: after a few the plain way is taken.
            assert!(counters.sends_zero_copy < 50, "{counters:?}");
        }
        server.end();
    }
}

#[test]
fn a_reader_that_never_reads_holds_nothing_up_when_it_is_cut_off() {
    let Some(namespace) = Namespace::make() else {
        return;
    };
    let limits = NetLimits {
        stalled_ms: 300,
        ..limits()
    };
    let server = Server::start_at(SERVER, false, limits);
    let mut stream = namespace.connect(server.address);
    stream.write_all(&big(20 << 20)).unwrap();
    server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
    server.until("the end", |seen| seen.connections == 0);
    server.end();
}

#[test]
fn on_loopback_everything_is_copied() {
    let server = Server::start(false, limits());
    let mut stream = server.connect();
    stream.write_all(&big(1 << 20)).unwrap();
    assert!(read_frame(&mut stream).unwrap() == expected(1 << 20));
    let seen = server.until("the send", |seen| seen.counters.sent_bytes > 0);
    assert_eq!(seen.counters.sends_zero_copy, 0);
    server.end();
}
