//! The network plane allocates nothing for a frame once it is warm.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test with real sockets"
)]
#![allow(clippy::unwrap_used, missing_docs)]

use corelane_broker::net::service::{Service, Stop, serve};
use corelane_broker::net::{CloseReason, ConnId, Handler, Net, NetLimits, StableBytes};
use corelane_broker::ring::{Parker, Ring, RingOptions, executor};
use glommio::Placement;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Part(Rc<[u8]>);

// SAFETY: on the heap and never written.
unsafe impl StableBytes for Part {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Answers with 100 bytes and a shared part of 5,000. The part of a request's answer that starts with a 1 says how many
/// allocations this thread has made.
struct Answer {
    part: Rc<[u8]>,
}

const ANSWER_BYTES: usize = 5_100;

impl Handler<Part> for Answer {
    fn opened(&mut self, _: &mut Net<Part>, _: ConnId, _: SocketAddr, _: SocketAddr) {}

    fn frame(&mut self, net: &mut Net<Part>, conn: ConnId, _: &[u8]) -> ControlFlow<CloseReason> {
        let out = net.write(conn).unwrap();
        let start = out.len();
        out.extend_from_slice(&ALLOCATIONS.with(Cell::get).to_be_bytes());
        out.resize(start + 100, 0);
        net.write_shared(conn, Part(self.part.clone()));
        ControlFlow::Continue(())
    }

    fn closed(&mut self, _: &mut Net<Part>, _: ConnId, _: &CloseReason) {}
}

impl Service<Part> for Answer {
    fn tick(&mut self, _: &mut Net<Part>, _: u64) -> Duration {
        Duration::from_secs(1)
    }
}

/// Sends so many frames, and gives the count in the last answer.
fn exchange(stream: &mut TcpStream, frames: usize) -> u64 {
    let mut request = 1_200u32.to_be_bytes().to_vec();
    request.resize(1_204, 0);
    let mut sender = stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        // In pieces that are no multiple of a frame, so that buffers end inside of frames.
        for piece in request.repeat(frames).chunks(50_001) {
            sender.write_all(piece).unwrap();
        }
    });
    let mut answer = vec![0; ANSWER_BYTES];
    for _ in 0..frames {
        stream.read_exact(&mut answer).unwrap();
    }
    sending.join().unwrap();
    u64::from_be_bytes(answer[..8].try_into().unwrap())
}

#[test]
fn a_frame_costs_no_allocation() {
    let (tell, told) = mpsc::channel();
    let server = thread::spawn(move || {
        executor(Placement::Unbound)
            .make()
            .unwrap()
            .run(async move {
                let mut ring = Ring::new(&RingOptions::default()).unwrap();
                let mut parker = Parker::new(&ring).unwrap();
                let mut net = Net::new(&mut ring, NetLimits::default()).unwrap();
                let address = net
                    .listen(&mut ring, "127.0.0.1:0".parse().unwrap())
                    .unwrap();
                let stop = Stop::new(&parker);
                tell.send((address, stop.clone())).unwrap();
                let mut answer = Answer {
                    part: vec![7; 5_000].into(),
                };
                serve(&mut ring, &mut parker, &mut net, &mut answer, &stop)
                    .await
                    .unwrap();
            });
    });
    let (address, stop) = told.recv().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut before = exchange(&mut stream, 5_000);
    let frames = 20_000;
    // What is left is the executor's, for its wake-ups and timers, of which a busy machine brings about more: so the least
    // of some rounds counts. What a frame cost would be in each of them.
    let rounds = (0..5).map(|_| {
        let after = exchange(&mut stream, frames);
        after - std::mem::replace(&mut before, after)
    });
    let allocations = rounds.min().unwrap();
    assert!(
        allocations < frames as u64 / 50,
        "{allocations} allocations for {frames} frames"
    );
    drop(stream);
    stop.stop();
    server.join().unwrap();
}
