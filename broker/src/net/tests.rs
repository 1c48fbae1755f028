#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::service::{Service, Stop, serve};
use super::*;
use crate::ring::{Parker, RingOptions};
use glommio::LocalExecutor;
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
/// bytes say (a frame, half of its body a shared part), `c` answers with the frame and closes, `n` does nothing.
struct TestService {
    seen: Arc<Mutex<Seen>>,
    alive: Arc<AtomicUsize>,
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
        assert!(peer.ip().is_loopback() && local.ip().is_loopback() && peer != local);
        self.seen.lock().unwrap().opened += 1;
    }

    fn frame(
        &mut self,
        net: &mut Net<TestPart>,
        conn: ConnId,
        frame: &[u8],
    ) -> ControlFlow<&'static str> {
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
                return ControlFlow::Break("asked to");
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
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    alive: Arc<AtomicUsize>,
    stop: Stop,
    thread: Option<JoinHandle<bool>>,
}

impl Server {
    fn start(plain: bool, limits: NetLimits) -> Self {
        let (tell, told) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let alive = Arc::new(AtomicUsize::new(0));
        let mut service = TestService {
            seen: seen.clone(),
            alive: alive.clone(),
        };
        let thread = thread::spawn(move || {
            LocalExecutor::default().run(async move {
                let mut ring = Ring::new(&RingOptions {
                    plain,
                    ..RingOptions::default()
                })
                .unwrap();
                let mut parker = Parker::new(&ring).unwrap();
                let mut net = Net::new(&mut ring, limits).unwrap();
                let address = net
                    .listen(&mut ring, "127.0.0.1:0".parse().unwrap())
                    .unwrap();
                let stop = Stop::new(&parker);
                tell.send((address, stop.clone())).unwrap();
                serve(&mut ring, &mut parker, &mut net, &mut service, &stop)
                    .await
                    .unwrap();
                net.buffers.free() == usize::from(net.limits.receive_buffers)
                    && net.queued_bytes == 0
                    && net.assembly_bytes == 0
            })
        });
        let (address, stop) = told.recv().unwrap();
        Self {
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

#[test]
fn whole_frames_are_answered_in_order() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        for index in 0..200u32 {
            let request = frame(b'e', &index.to_be_bytes());
            stream.write_all(&request).unwrap();
            assert_eq!(read_frame(&mut stream).unwrap(), request);
        }
        server.end();
    });
}

#[test]
fn frames_cut_at_every_byte_come_whole() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        let mut bytes = Vec::new();
        for body in ["", "one", "and another"] {
            bytes.extend(frame(b'e', body.as_bytes()));
        }
        for cut in 1..bytes.len() {
            stream.write_all(&bytes[..cut]).unwrap();
            thread::sleep(Duration::from_micros(500));
            stream.write_all(&bytes[cut..]).unwrap();
            let mut answer = vec![0; bytes.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, bytes);
        }
        let seen = server.until("frames", |seen| {
            seen.counters.frames == 3 * (bytes.len() as u64 - 1)
        });
        assert!(seen.counters.frames_assembled > 10);
        server.end();
    });
}

/// Many frames of many sizes over few small buffers: cut, starved, left over.
#[test]
fn thousands_of_pipelined_frames_over_few_buffers_all_come_back_in_order() {
    let limits = NetLimits {
        receive_buffers: 4,
        receive_buffer_bytes: 1 << 10,
        max_frames_per_turn: 3,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let clients: Vec<_> = (0..8u32)
            .map(|client| {
                let mut stream = server.connect();
                thread::spawn(move || {
                    let request = move |index: u32| {
                        let most = if index % 8 == 0 { 3000 } else { 60 };
                        let len = (index * 7919 + client * 104_729) % most;
                        frame(b'e', &vec![(index ^ client) as u8; len as usize])
                    };
                    let mut sender = stream.try_clone().unwrap();
                    let sending = thread::spawn(move || {
                        for index in 0..2000 {
                            sender.write_all(&request(index)).unwrap();
                        }
                    });
                    for index in 0..2000 {
                        assert_eq!(
                            read_frame(&mut stream).unwrap(),
                            request(index),
                            "{client} {index}"
                        );
                    }
                    sending.join().unwrap();
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let seen = server.until("all frames", |seen| seen.counters.frames == 16_000);
        assert!(seen.counters.frames_assembled > 500, "{:?}", seen.counters);
        assert!(
            seen.counters.left_over > 0 && seen.counters.starved > 0,
            "{:?}",
            seen.counters
        );
        server.end();
    });
}

#[test]
fn large_answers_with_shared_parts_come_whole() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        for len in [100u32, 8_000, 100_000, 5_000_000] {
            for _ in 0..3 {
                stream.write_all(&big(len)).unwrap();
            }
            for _ in 0..3 {
                let answer = read_frame(&mut stream).unwrap();
                let len = len as usize;
                assert_eq!(answer.len(), len);
                assert!(answer[4..len / 2].iter().all(|&byte| byte == 1));
                assert!(answer[len / 2..].iter().all(|&byte| byte == 2));
            }
        }
        assert!(
            server
                .until("shared sends", |seen| seen.counters.sends_shared > 0)
                .counters
                .sends
                > 0
        );
        server.end();
    });
}

#[test]
fn a_slow_reader_is_paused_and_gets_everything_in_the_end() {
    let limits = NetLimits {
        pause_queued_bytes: 100_000,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut stream = server.connect();
        let mut sender = stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            for index in 0..3000u32 {
                sender
                    .write_all(&frame(b'e', &[index as u8; 10_000]))
                    .unwrap();
            }
        });
        let seen = server.until("a pause", |seen| seen.counters.paused > 0);
        assert!(seen.closed.is_empty());
        for index in 0..3000u32 {
            assert_eq!(
                read_frame(&mut stream).unwrap(),
                frame(b'e', &[index as u8; 10_000])
            );
        }
        sending.join().unwrap();
        server.end();
    });
}

#[test]
fn a_reader_that_never_reads_is_cut_off_at_the_bound() {
    let limits = NetLimits {
        max_queued_bytes: 20 << 20,
        pause_queued_bytes: 1 << 30,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut stream = server.connect();
        for _ in 0..10 {
            stream.write_all(&big(4 << 20)).unwrap();
        }
        server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
        server.until("its count", |seen| {
            seen.connections == 0 && seen.counters.closed_slow == 1
        });
        server.end();
    });
}

#[test]
fn a_reader_that_never_reads_is_cut_off_after_its_time() {
    let limits = NetLimits {
        stalled_ms: 300,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut stream = server.connect();
        stream.write_all(&big(20 << 20)).unwrap();
        server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
        server.end();
    });
}

#[test]
fn over_the_total_bound_the_largest_queue_is_cut_off() {
    let limits = NetLimits {
        max_queued_bytes: 64 << 20,
        max_queued_bytes_total: 36 << 20,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut small = server.connect();
        small.write_all(&big(10 << 20)).unwrap();
        let mut large = server.connect();
        large.write_all(&big(40 << 20)).unwrap();
        server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
        assert_eq!(read_frame(&mut small).unwrap().len(), 10 << 20);
        assert!(read_frame(&mut large).is_err());
        server.end();
    });
}

#[test]
fn one_connection_too_many_is_closed_and_a_place_that_is_free_again_is_taken() {
    let limits = NetLimits {
        max_connections: 2,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut first = server.connect();
        let _second = server.connect();
        server.until("two", |seen| seen.opened == 2);
        let mut third = server.connect();
        assert!(at_its_end(&mut third));
        server.until("the rejection", |seen| seen.counters.rejected == 1);
        first.write_all(&frame(b'e', b"still here")).unwrap();
        read_frame(&mut first).unwrap();
        drop(first);
        server.until("the end", |seen| seen.closed == [CloseReason::Peer]);
        let mut fourth = server.connect();
        fourth.write_all(&frame(b'e', b"in")).unwrap();
        read_frame(&mut fourth).unwrap();
        server.end();
    });
}

#[test]
fn idle_connections_expire_and_active_ones_do_not() {
    let limits = NetLimits {
        idle_ms: 600,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut idle = server.connect();
        let mut active = server.connect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1800) {
            active.write_all(&frame(b'e', b"tick")).unwrap();
            read_frame(&mut active).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        assert!(at_its_end(&mut idle));
        let seen = server.seen();
        assert_eq!(seen.closed, [CloseReason::Idle]);
        assert_eq!(seen.connections, 1);
        server.end();
    });
}

#[test]
fn absurd_lengths_close_with_a_reason() {
    both(NetLimits::default(), |server| {
        for length in [
            0u32,
            3,
            (16 << 20) + 1,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
        ] {
            let mut stream = server.connect();
            stream.write_all(&frame(b'e', b"good")).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            // What was good before it is answered or not; nothing else comes.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty() || rest == frame(b'e', b"good"));
        }
        let seen = server.until("six closed", |seen| {
            seen.closed.len() == 6 && seen.counters.closed_frame == 6
        });
        assert!(
            seen.closed
                .iter()
                .all(|reason| matches!(reason, CloseReason::Frame(_))),
            "{:?}",
            seen.closed
        );
        server.end();
    });
}

#[test]
fn unfinished_frames_of_all_are_bounded() {
    let limits = NetLimits {
        max_assembly_bytes: 1 << 20,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut streams: Vec<_> = (0..4).map(|_| server.connect()).collect();
        let start_of_a_frame = &frame(b'e', &vec![0; 10 << 20])[..400_000];
        for stream in &mut streams {
            let _ = stream.write_all(start_of_a_frame);
        }
        let cut = |seen: &Seen| {
            !seen.closed.is_empty() && seen.counters.closed == seen.closed.len() as u64
        };
        let seen = server.until("the cut", cut);
        assert!(
            seen.closed
                .iter()
                .all(|reason| *reason == CloseReason::AssemblyMemory),
            "{:?}",
            seen.closed
        );
        assert!(seen.connections >= 1);
        server.end();
    });
}

#[test]
fn an_announced_length_takes_no_memory() {
    let limits = NetLimits {
        max_assembly_bytes: 1 << 20,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut streams: Vec<_> = (0..50).map(|_| server.connect()).collect();
        for stream in &mut streams {
            stream.write_all(&(10u32 << 20).to_be_bytes()).unwrap();
        }
        server.until("the bytes", |seen| seen.counters.received_bytes == 200);
        assert_eq!(server.seen().closed, []);
        server.end();
    });
}

#[test]
fn a_handler_closes_after_its_answer() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        let mut requests = frame(b'e', b"one");
        requests.extend(frame(b'c', b"two"));
        requests.extend(frame(b'e', b"never answered"));
        stream.write_all(&requests).unwrap();
        assert_eq!(read_frame(&mut stream).unwrap(), frame(b'e', b"one"));
        assert_eq!(read_frame(&mut stream).unwrap(), frame(b'c', b"two"));
        assert!(at_its_end(&mut stream));
        server.until("the reason", |seen| {
            seen.closed == [CloseReason::Requested("asked to")]
        });
        server.end();
    });
}

#[test]
fn a_peer_that_goes_during_a_send_frees_its_parts() {
    both(NetLimits::default(), |server| {
        for _ in 0..20 {
            let mut stream = server.connect();
            stream.write_all(&big(8 << 20)).unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
            assert!(server.alive.load(Ordering::SeqCst) > 0);
            drop(stream);
        }
        server.until("all closed", |seen| {
            seen.closed.len() == 20 && seen.connections == 0
        });
        let start = Instant::now();
        while server.alive.load(Ordering::SeqCst) > 0 {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(5));
        }
        server.end();
    });
}

#[test]
fn a_half_closed_peer_gets_what_was_queued() {
    both(
        NetLimits {
            max_frames_per_turn: 2,
            ..NetLimits::default()
        },
        |server| {
            let mut stream = server.connect();
            for _ in 0..9 {
                stream.write_all(&big(300_000)).unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            for _ in 0..9 {
                assert_eq!(read_frame(&mut stream).unwrap().len(), 300_000);
            }
            assert!(at_its_end(&mut stream));
            server.end();
        },
    );
}

#[test]
fn stopping_sends_what_is_queued() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        stream.write_all(&big(6 << 20)).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        let reading = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).map(|_| rest.len())
        });
        server.end();
        assert_eq!(reading.join().unwrap().unwrap(), (6 << 20) - 10);
    });
}

#[test]
fn stopping_does_not_wait_for_a_peer_that_does_not_read() {
    both(
        NetLimits {
            linger_ms: 300,
            ..NetLimits::default()
        },
        |server| {
            let mut stream = server.connect();
            stream.write_all(&big(20 << 20)).unwrap();
            server.until("the request", |seen| seen.counters.frames == 1);
            let start = Instant::now();
            server.end();
            assert!(start.elapsed() < Duration::from_secs(5));
        },
    );
}

#[test]
fn a_flood_does_not_starve_a_trickle() {
    let limits = NetLimits {
        receive_buffers: 16,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let stop = Arc::new(AtomicUsize::new(0));
        let floods: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = server.connect();
                let stop = stop.clone();
                thread::spawn(move || {
                    let bytes = frame(b'n', b"flood").repeat(10_000);
                    while stop.load(Ordering::SeqCst) == 0 {
                        stream.write_all(&bytes).unwrap();
                    }
                })
            })
            .collect();
        let mut trickle = server.connect();
        thread::sleep(Duration::from_millis(100));
        let mut waits = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            trickle.write_all(&frame(b'e', b"drop")).unwrap();
            read_frame(&mut trickle).unwrap();
            waits.push(start.elapsed());
        }
        stop.store(1, Ordering::SeqCst);
        for flood in floods {
            flood.join().unwrap();
        }
        waits.sort();
        assert!(waits[25] < Duration::from_millis(100), "{waits:?}");
        assert!(server.seen().counters.left_over > 0);
        server.end();
    });
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    LocalExecutor::default().run(async {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut net = Net::<NoParts>::new(&mut ring, NetLimits::default()).unwrap();
        let address = net
            .listen(&mut ring, "127.0.0.1:0".parse().unwrap())
            .unwrap();
        let error = net.listen(&mut ring, address).unwrap_err();
        assert!(matches!(error, NetError::Taken(_)), "{error}");
        assert!(error.to_string().contains(&address.to_string()));
        let error = net
            .listen(&mut ring, "192.0.2.1:0".parse().unwrap())
            .unwrap_err();
        assert!(matches!(error, NetError::NoSuchAddress(_)), "{error}");
    });
}

/// A descriptor that the server forgot to close would leave its side of the connection waiting for that.
fn held_open(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields
                .next()
                .is_some_and(|address| address.ends_with(&local));
            let state = fields.nth(1);
            is_ours && matches!(state, Some("01" | "08"))
        })
        .count()
}

#[test]
fn a_thousand_connections_leave_no_descriptor() {
    both(NetLimits::default(), |server| {
        for round in 0..10 {
            let streams: Vec<_> = (0..100).map(|_| server.connect()).collect();
            for mut stream in streams.iter().skip(round % 2).step_by(2) {
                stream.write_all(&frame(b'e', b"hello")).unwrap();
            }
        }
        server.until("all gone", |seen| {
            seen.closed.len() == 1000 && seen.connections == 0
        });
        let start = Instant::now();
        while held_open(server.address.port()) > 0 {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{}",
                held_open(server.address.port())
            );
            thread::sleep(Duration::from_millis(10));
        }
        let address = server.address;
        server.end();
        assert!(
            TcpStream::connect(address).is_err(),
            "the port is still open"
        );
    });
}

#[test]
fn accepted_connections_do_not_delay_small_answers() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        let start = Instant::now();
        // Two answers in a row on a connection that acknowledges late would wait 40 ms each without TCP_NODELAY.
        for _ in 0..50 {
            for _ in 0..2 {
                stream.write_all(&frame(b'e', b"small")).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
            read_frame(&mut stream).unwrap();
            read_frame(&mut stream).unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_millis(1500),
            "{:?}",
            start.elapsed()
        );
        server.end();
    });
}

#[test]
fn an_idle_server_with_a_hundred_connections_uses_no_cpu() {
    both(NetLimits::default(), |server| {
        let _streams: Vec<_> = (0..100).map(|_| server.connect()).collect();
        server.until("all open", |seen| seen.connections == 100);
        thread::sleep(Duration::from_millis(100));
        let before = server.seen().thread_cpu;
        thread::sleep(Duration::from_secs(2));
        let used = server.seen().thread_cpu - before;
        // The service of these tests ticks 50 times a second.
        assert!(used < Duration::from_millis(40), "{used:?} of 2 s");
        server.end();
    });
}
