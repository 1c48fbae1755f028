//! How close the network plane comes to a plain epoll server: both answer every frame with 150 fixed bytes, on core 0,
//! while a closed-loop client on core 1 keeps so many 1 KiB requests in flight. Rounds are interleaved; trust the ratio.
//!
//! `cargo run --release -p corelane-broker --example net_echo [seconds per run] [rounds]`

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement"
)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use corelane_broker::net::service::{Service, Stop, serve};
use corelane_broker::net::{CloseReason, ConnId, Handler, Net, NetLimits, NoParts};
use corelane_broker::ring::{Parker, Ring, RingOptions, executor};
use glommio::Placement;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const REPLY_BYTES: usize = 150;
const REQUEST_BYTES: usize = 1100;

fn reply() -> Vec<u8> {
    let mut reply = ((REPLY_BYTES - 4) as u32).to_be_bytes().to_vec();
    reply.resize(REPLY_BYTES, 0);
    reply
}

struct Answer {
    reply: Vec<u8>,
}

impl Handler<NoParts> for Answer {
    fn opened(&mut self, _: &mut Net<NoParts>, _: ConnId, _: SocketAddr, _: SocketAddr) {}

    fn frame(
        &mut self,
        net: &mut Net<NoParts>,
        conn: ConnId,
        _: &[u8],
    ) -> ControlFlow<CloseReason> {
        if let Some(out) = net.write(conn) {
            out.extend_from_slice(&self.reply);
        }
        ControlFlow::Continue(())
    }

    fn closed(&mut self, _: &mut Net<NoParts>, _: ConnId, _: &CloseReason) {}
}

impl Service<NoParts> for Answer {
    fn tick(&mut self, _: &mut Net<NoParts>, _: u64) -> Duration {
        Duration::from_secs(1)
    }
}

type Running = (SocketAddr, Box<dyn FnOnce()>, JoinHandle<Duration>);

fn thread_cpu() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn ring_server(spin: Duration, linger: Duration, plain: bool) -> Running {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let executor = executor(Placement::Fixed(0)).make().unwrap();
        executor.run(async move {
            let mut ring = Ring::new(&RingOptions {
                plain,
                ..RingOptions::default()
            })
            .unwrap();
            let mut parker = Parker::new(&ring).unwrap();
            parker.set_spin(spin);
            parker.set_linger(linger);
            let mut net = Net::new(&mut ring, NetLimits::default()).unwrap();
            let address = net
                .listen(&mut ring, "127.0.0.1:0".parse().unwrap())
                .unwrap();
            let stop = Stop::new(&parker);
            tell.send((address, stop.clone())).unwrap();
            let mut answer = Answer { reply: reply() };
            serve(&mut ring, &mut parker, &mut net, &mut answer, &stop)
                .await
                .unwrap();
            thread_cpu()
        })
    });
    let (address, stop) = told.recv().unwrap();
    (address, Box::new(move || stop.stop()), thread)
}

fn pin(core: usize) {
    // SAFETY: a zeroed set is an empty one; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

struct Epoll(RawFd);

impl Epoll {
    fn new() -> Self {
        // SAFETY: a plain system call.
        Self(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
    }

    fn add(&self, fd: RawFd, index: usize) {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: index as u64,
        };
        // SAFETY: reads one event.
        let added = unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, fd, &mut event) };
        assert_eq!(added, 0);
    }

    fn wait(&self, ready: &mut Vec<usize>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: writes at most as many events as there is room for.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), 256, 100) };
        ready.clear();
        ready.extend(
            events[..count.max(0) as usize]
                .iter()
                .map(|event| event.u64 as usize),
        );
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { libc::close(self.0) };
    }
}

fn epoll_server() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        pin(0);
        let epoll = Epoll::new();
        listener.set_nonblocking(true).unwrap();
        epoll.add(listener.as_raw_fd(), usize::MAX);
        let (mut streams, mut ready) = (Vec::<(TcpStream, Vec<u8>)>::new(), Vec::new());
        let (mut buffer, mut out, reply) = (vec![0; 64 << 10], Vec::new(), reply());
        while !stopped.load(Ordering::Relaxed) {
            epoll.wait(&mut ready);
            for &index in &ready {
                if index == usize::MAX {
                    let (stream, _) = listener.accept().unwrap();
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    epoll.add(stream.as_raw_fd(), streams.len());
                    streams.push((stream, Vec::new()));
                    continue;
                }
                let (stream, rest) = &mut streams[index];
                let kept = rest.len();
                buffer[..kept].copy_from_slice(rest);
                let len = match stream.read(&mut buffer[kept..]) {
                    Ok(0) => {
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                        // SAFETY: removes a descriptor that is still open.
                        unsafe {
                            libc::epoll_ctl(
                                epoll.0,
                                libc::EPOLL_CTL_DEL,
                                stream.as_raw_fd(),
                                std::ptr::null_mut(),
                            )
                        };
                        continue;
                    }
                    Ok(len) => kept + len,
                    Err(_) => continue,
                };
                let mut at = 0;
                while let Some(word) = buffer[at..len].first_chunk::<4>() {
                    let frame = 4 + u32::from_be_bytes(*word) as usize;
                    if at + frame > len {
                        break;
                    }
                    at += frame;
                    out.extend_from_slice(&reply);
                }
                rest.clear();
                rest.extend_from_slice(&buffer[at..len]);
                let _ = stream.write_all(&out);
                out.clear();
            }
        }
        thread_cpu()
    });
    (
        address,
        Box::new(move || stop.store(true, Ordering::Relaxed)),
        thread,
    )
}

struct Result {
    answered: usize,
    seconds: f64,
    /// Between a write and the read that completes it.
    median_wait: Duration,
}

fn load(address: SocketAddr, connections: usize, in_flight: usize, time: Duration) -> Result {
    thread::spawn(move || {
        pin(1);
        let mut request = ((REQUEST_BYTES - 4) as u32).to_be_bytes().to_vec();
        request.resize(REQUEST_BYTES, 0);
        let requests = request.repeat(in_flight);
        let epoll = Epoll::new();
        let each = in_flight / connections;
        let mut streams: Vec<_> = (0..connections)
            .map(|index| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.write_all(&requests[..each * REQUEST_BYTES]).unwrap();
                stream.set_nonblocking(true).unwrap();
                epoll.add(stream.as_raw_fd(), index);
                (stream, 0, Instant::now())
            })
            .collect();
        let (mut buffer, mut ready, mut waits) = (vec![0; 64 << 10], Vec::new(), Vec::new());
        let start = Instant::now();
        let mut answered = 0;
        while start.elapsed() < time {
            epoll.wait(&mut ready);
            for &index in &ready {
                let (stream, part, since) = &mut streams[index];
                let len = match stream.read(&mut buffer) {
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => panic!("{error}"),
                };
                assert!(len > 0);
                let replies = (*part + len) / REPLY_BYTES;
                *part = (*part + len) % REPLY_BYTES;
                answered += replies;
                if replies > 0 {
                    let now = Instant::now();
                    waits.push(now.duration_since(*since));
                    *since = now;
                    let mut left = &requests[..replies * REQUEST_BYTES];
                    while !left.is_empty() {
                        match stream.write(left) {
                            Ok(written) => left = &left[written..],
                            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                        }
                    }
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        waits.sort();
        Result {
            answered,
            seconds,
            median_wait: waits.get(waits.len() / 2).copied().unwrap_or_default(),
        }
    })
    .join()
    .unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<f64>().unwrap());
    let time = Duration::from_secs_f64(arguments.next().unwrap_or(2.0));
    let rounds = arguments.next().unwrap_or(3.0) as usize;
    type Start = fn() -> Running;
    const NONE: Duration = Duration::ZERO;
    const MOMENT: Duration = Duration::from_millis(1);
    let servers: [(&str, Start); 6] = [
        ("epoll", epoll_server),
        ("ring", || ring_server(NONE, MOMENT, false)),
        ("ring, sleeps in executor", || {
            ring_server(NONE, NONE, false)
        }),
        ("ring, spins 50 us", || {
            ring_server(Duration::from_micros(50), MOMENT, false)
        }),
        ("ring, plain", || ring_server(NONE, MOMENT, true)),
        ("epoll again", epoll_server),
    ];
    for (connections, in_flight) in [(1, 1), (16, 64), (64, 1024)] {
        let mut rates = vec![Vec::new(); servers.len()];
        let mut waits = vec![Vec::new(); servers.len()];
        let mut costs = vec![Vec::new(); servers.len()];
        for _ in 0..rounds {
            for (index, (_, start)) in servers.iter().enumerate() {
                let (address, stop, thread) = start();
                let result = load(address, connections, in_flight, time);
                stop();
                let cpu = thread.join().unwrap();
                rates[index].push(result.answered as f64 / result.seconds);
                waits[index].push(result.median_wait.as_secs_f64() * 1e6);
                costs[index].push(cpu.as_secs_f64() * 1e6 / result.answered.max(1) as f64);
            }
        }
        let raw = median(rates[0].clone());
        println!("{in_flight} in flight over {connections} connections:");
        for (index, (name, _)) in servers.iter().enumerate() {
            let rate = median(rates[index].clone());
            let wait = median(waits[index].clone());
            let cost = median(costs[index].clone());
            let ratio = rate / raw;
            println!(
                "  {name:26} {rate:>10.0} /s  ratio {ratio:.2}  median wait {wait:>6.1} us  server CPU {cost:.2} us each"
            );
        }
    }
}
