//! From which size on a shared part is cheaper to gather than to copy: a server answers every request with 64 KiB in parts
//! of one size, taken from 8 MiB in turn, once copying them into the send queue and once sending them from where they are.
//! What counts is the server's CPU time for a gigabyte.
//!
//! `cargo run --release -p corelane-broker --example net_gather [seconds per run]`

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement"
)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use corelane_broker::net::service::{Service, Stop, serve};
use corelane_broker::net::{CloseReason, ConnId, Handler, Net, NetLimits, StableBytes};
use corelane_broker::ring::{Parker, Ring, RingOptions, executor};
use glommio::Placement;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const REPLY_BYTES: usize = 64 << 10;
const SOURCE_BYTES: usize = 8 << 20;

struct Part {
    source: Rc<[u8]>,
    at: usize,
    len: usize,
}

// SAFETY: a part of bytes on the heap that nobody writes.
unsafe impl StableBytes for Part {
    fn bytes(&self) -> &[u8] {
        &self.source[self.at..self.at + self.len]
    }
}

struct Parts {
    source: Rc<[u8]>,
    at: usize,
    part_bytes: usize,
}

impl Handler<Part> for Parts {
    fn opened(&mut self, _: &mut Net<Part>, _: ConnId, _: SocketAddr, _: SocketAddr) {}

    fn frame(&mut self, net: &mut Net<Part>, conn: ConnId, _: &[u8]) -> ControlFlow<CloseReason> {
        if let Some(out) = net.write(conn) {
            out.extend_from_slice(&[1; 100]);
        }
        for _ in 0..REPLY_BYTES / self.part_bytes {
            let part = Part {
                source: self.source.clone(),
                at: self.at,
                len: self.part_bytes,
            };
            net.write_shared(conn, part);
            self.at = (self.at + self.part_bytes) % SOURCE_BYTES;
        }
        ControlFlow::Continue(())
    }

    fn closed(&mut self, _: &mut Net<Part>, _: ConnId, _: &CloseReason) {}
}

impl Service<Part> for Parts {
    fn tick(&mut self, _: &mut Net<Part>, _: u64) -> Duration {
        Duration::from_secs(1)
    }
}

fn thread_cpu() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Gigabytes a second, and milliseconds of the server's CPU for a gigabyte.
fn run(part_bytes: usize, copy: bool, time: Duration) -> (f64, f64) {
    let (tell, told) = mpsc::channel();
    let server = thread::spawn(move || {
        executor(Placement::Fixed(0))
            .make()
            .unwrap()
            .run(async move {
                let mut ring = Ring::new(&RingOptions::default()).unwrap();
                let mut parker = Parker::new(&ring).unwrap();
                let copy_below_bytes = if copy { usize::MAX } else { 0 };
                let limits = NetLimits {
                    copy_below_bytes,
                    ..NetLimits::default()
                };
                let mut net = Net::new(&mut ring, limits).unwrap();
                let address = net
                    .listen(&mut ring, "127.0.0.1:0".parse().unwrap())
                    .unwrap();
                let stop = Stop::new(&parker);
                tell.send((address, stop.clone())).unwrap();
                let mut parts = Parts {
                    source: vec![7; SOURCE_BYTES].into(),
                    at: 0,
                    part_bytes,
                };
                let before = thread_cpu();
                serve(&mut ring, &mut parker, &mut net, &mut parts, &stop)
                    .await
                    .unwrap();
                thread_cpu() - before
            })
    });
    let (address, stop) = told.recv().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = [0, 0, 0, 4, 0, 0, 0, 0];
    stream.write_all(&request.repeat(4)).unwrap();
    let mut buffer = vec![0; REPLY_BYTES + 100];
    let (start, mut replies) = (Instant::now(), 0);
    while start.elapsed() < time {
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&request).unwrap();
        replies += 1;
    }
    let gigabytes = (replies * buffer.len()) as f64 / 1e9;
    let seconds = start.elapsed().as_secs_f64();
    drop(stream);
    stop.stop();
    let cpu = server.join().unwrap();
    (gigabytes / seconds, cpu.as_secs_f64() * 1e3 / gigabytes)
}

fn main() {
    let time = std::env::args()
        .nth(1)
        .map_or(0.5, |argument| argument.parse().unwrap());
    let time = Duration::from_secs_f64(time);
    for shift in 7..=16 {
        let mut costs = [Vec::new(), Vec::new()];
        let mut rates = [0.0, 0.0];
        for _ in 0..5 {
            for copy in [true, false] {
                let (rate, cost) = run(1 << shift, copy, time);
                costs[usize::from(copy)].push(cost);
                rates[usize::from(copy)] = rate;
            }
        }
        for cost in &mut costs {
            cost.sort_by(f64::total_cmp);
        }
        println!(
            "parts of {:>6} bytes: copied {:>6.0} ms/GB ({:.2} GB/s), gathered {:>6.0} ms/GB ({:.2} GB/s)",
            1 << shift,
            costs[1][2],
            rates[1],
            costs[0][2],
            rates[0]
        );
    }
}
