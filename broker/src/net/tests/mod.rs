//! The network plane over real sockets, with all that this kernel has and with what Linux 5.15 had.

#![allow(
    clippy::disallowed_methods,
    reason = "tests with real sockets wait for real time"
)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::service::{Service, Stop, serve};
use super::*;
use crate::ring::{Parker, RingOptions, executor};
use glommio::Placement;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a test sees of its server.
#[derive(Default, Clone)]
struct Seen {
    opened: usize,
    closed: Vec<CloseReason>,
    counters: NetCounters,
    connections: usize,
    /// Frames that were held up, and the most bytes that were at once.
    held_up: usize,
    inflight_bytes: usize,
    thread_cpu: Duration,
}

struct TestPart {
    bytes: Box<[u8]>,
    alive: Arc<AtomicUsize>,
}

impl TestPart {
    fn new(bytes: Vec<u8>, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self {
            bytes: bytes.into(),
            alive: alive.clone(),
        }
    }
}

impl Drop for TestPart {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

// SAFETY: on the heap and never written.
unsafe impl StableBytes for TestPart {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Does what the first byte of a frame's body says: `e` answers with the frame, `b` with as many bytes as the next four
/// bytes say (a frame, half of its body a shared part), `c` answers with the frame and closes, `h` holds the frame up, `l` lets
/// go of all that is held up and answers, `n` does nothing.
struct TestService {
    seen: Arc<Mutex<Seen>>,
    alive: Arc<AtomicUsize>,
    held_up: Vec<(ConnId, usize)>,
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32 + 4).to_be_bytes().to_vec();
    frame.extend([kind, 0, 0, 0]);
    frame.extend(body);
    frame
}

fn big(len: u32) -> Vec<u8> {
    frame(b'b', &len.to_be_bytes())
}

impl Handler<TestPart> for TestService {
    fn opened(&mut self, _: &mut Net<TestPart>, _: ConnId, peer: SocketAddr, local: SocketAddr) {
        assert!(peer.ip().is_loopback() == local.ip().is_loopback() && peer != local);
        self.seen.lock().unwrap().opened += 1;
    }

    fn frame(
        &mut self,
        net: &mut Net<TestPart>,
        conn: ConnId,
        frame: &[u8],
    ) -> ControlFlow<CloseReason> {
        assert_eq!(
            u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize + 4,
            frame.len()
        );
        match frame[4] {
            b'e' => net.write(conn).unwrap().extend_from_slice(frame),
            b'b' => {
                let len = u32::from_be_bytes(frame[8..12].try_into().unwrap()) as usize;
                let out = net.write(conn).unwrap();
                out.extend(((len - 4) as u32).to_be_bytes());
                out.extend(vec![1; len / 2 - 4]);
                net.write_shared(conn, TestPart::new(vec![2; len - len / 2], &self.alive));
            }
            b'c' => {
                net.write(conn).unwrap().extend_from_slice(frame);
                return ControlFlow::Break(CloseReason::Requested("asked to"));
            }
            b'h' => {
                net.hold_up(conn, frame.len());
                self.held_up.push((conn, frame.len()));
                let mut seen = self.seen.lock().unwrap();
                seen.held_up += 1;
                seen.inflight_bytes = seen.inflight_bytes.max(net.inflight_bytes());
            }
            b'l' => {
                for (conn, bytes) in self.held_up.drain(..) {
                    net.let_go(conn, bytes);
                }
                assert_eq!(net.inflight_bytes(), 0);
                net.write(conn).unwrap().extend_from_slice(frame);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn closed(&mut self, net: &mut Net<TestPart>, conn: ConnId, reason: &CloseReason) {
        assert!(net.write(conn).is_none());
        self.seen.lock().unwrap().closed.push(reason.clone());
    }
}

impl Service<TestPart> for TestService {
    fn tick(&mut self, net: &mut Net<TestPart>, _: u64) -> Duration {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes one timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
        let mut seen = self.seen.lock().unwrap();
        seen.counters = net.counters().clone();
        seen.connections = net.connections();
        seen.thread_cpu = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        Duration::from_millis(20)
    }
}

struct Server {
    plain: bool,
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    alive: Arc<AtomicUsize>,
    stop: Stop,
    thread: Option<JoinHandle<bool>>,
}

impl Server {
    fn start(plain: bool, limits: NetLimits) -> Self {
        Self::start_at("127.0.0.1:0", plain, limits)
    }

    fn start_at(address: &'static str, plain: bool, limits: NetLimits) -> Self {
        let (tell, told) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let alive = Arc::new(AtomicUsize::new(0));
        let mut service = TestService {
            seen: seen.clone(),
            alive: alive.clone(),
            held_up: Vec::new(),
        };
        let thread = thread::spawn(move || {
            executor(Placement::Unbound)
                .make()
                .unwrap()
                .run(async move {
                    let mut ring = Ring::new(&RingOptions {
                        plain,
                        ..RingOptions::default()
                    })
                    .unwrap();
                    let mut parker = Parker::new(&ring).unwrap();
                    let mut net = Net::new(&mut ring, limits).unwrap();
                    let address = net.listen(&mut ring, address.parse().unwrap()).unwrap();
                    let stop = Stop::new(&parker);
                    tell.send((address, stop.clone())).unwrap();
                    serve(&mut ring, &mut parker, &mut net, &mut service, &stop)
                        .await
                        .unwrap();
                    net.buffers.free() == usize::from(net.limits.receive_buffers)
                        && net.queued_bytes == 0
                        && net.assembly_bytes == 0
                        && net.inflight_bytes == 0
                })
        });
        let (address, stop) = told.recv().unwrap();
        Self {
            plain,
            address,
            seen,
            alive,
            stop,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    fn until(&self, what: &str, mut is: impl FnMut(&Seen) -> bool) -> Seen {
        let start = Instant::now();
        loop {
            let seen = self.seen();
            if is(&seen) {
                return seen;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "not seen: {what}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nothing may be left in the server's hands after it.
    fn end(mut self) {
        self.stop.stop();
        assert!(
            self.thread.take().unwrap().join().unwrap(),
            "buffers or queues are not given back"
        );
        assert_eq!(
            self.alive.load(Ordering::SeqCst),
            0,
            "shared parts are still held"
        );
    }
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let len = u32::from_be_bytes(frame[..].try_into().unwrap()) as usize;
    frame.resize(4 + len, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn at_its_end(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn both(limits: NetLimits, test: impl Fn(Server)) {
    test(Server::start(false, limits.clone()));
    test(Server::start(true, limits));
}

mod bounds;
mod traffic;
mod zero_copy;
