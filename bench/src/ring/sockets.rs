//! Many connections of one thread: received bytes are looked at in place, sent bytes are gathered while others are sent.
//!
//! Each socket has at most one receive and one send under way. [`Sockets::out`] gives the buffer that gathers; a turn
//! hands it to the kernel when the send before it is done. Nothing is allocated once the buffers have grown.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

const RECEIVE: u64 = 0;
const SEND: u64 = 1;

/// The kernel's flag for "wait for readiness before the first try".
const POLL_FIRST: u16 = 1;

/// What a turn brought.
#[derive(Debug)]
pub enum Event {
    /// More bytes are in the inbox of this socket.
    Received(usize),
    /// The socket is at its end; the error that it ended with, if it was one. Comes once.
    Closed(usize, Option<io::Error>),
}

/// All connections of a thread. It must stay on the thread that made it.
pub struct Sockets {
    uring: IoUring,
    sockets: Vec<Socket>,
    /// Sockets whose receive is to be started.
    to_receive: Vec<usize>,
    /// Sockets that have gathered something.
    to_send: Vec<usize>,
    under_way: usize,
    done: Vec<(u64, i32)>,
}

struct Socket {
    stream: TcpStream,
    inbox: Box<[u8]>,
    unread_start: usize,
    unread_end: usize,
    receiving: bool,
    poll_first: bool,
    gathering: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
    queued: bool,
    closed: bool,
}

impl Socket {
    fn is_sending(&self) -> bool {
        self.sent < self.sending.len()
    }
}

impl Sockets {
    /// A ring for about this many sockets.
    pub fn new(expected: usize) -> io::Result<Self> {
        let submissions = (expected * 2).next_power_of_two().clamp(64, 4096) as u32;
        let completions = (expected * 2).next_power_of_two().clamp(256, 65_536) as u32;
        Ok(Self {
            uring: super::build(submissions, completions)?,
            sockets: Vec::with_capacity(expected),
            to_receive: Vec::with_capacity(expected),
            to_send: Vec::with_capacity(expected),
            under_way: 0,
            done: Vec::with_capacity(completions as usize),
        })
    }

    /// Takes over a connected stream; the answer is its index. `inbox_bytes` is where its inbox starts; it grows with the
    /// largest frame.
    pub fn add(&mut self, stream: TcpStream, inbox_bytes: usize) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        let index = self.sockets.len();
        self.sockets.push(Socket {
            stream,
            inbox: vec![0; inbox_bytes].into_boxed_slice(),
            unread_start: 0,
            unread_end: 0,
            receiving: false,
            poll_first: true,
            gathering: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            queued: false,
            closed: false,
        });
        self.to_receive.push(index);
        Ok(index)
    }

    /// The buffer whose bytes leave with the next turn. Bytes for a closed socket are dropped.
    pub fn out(&mut self, index: usize) -> &mut Vec<u8> {
        let socket = &mut self.sockets[index];
        if !socket.queued {
            socket.queued = true;
            self.to_send.push(index);
        }
        &mut socket.gathering
    }

    /// Received bytes that nobody has taken.
    pub fn inbox(&self, index: usize) -> &[u8] {
        let socket = &self.sockets[index];
        &socket.inbox[socket.unread_start..socket.unread_end]
    }

    /// Says that the first `bytes` of the inbox are not needed any more.
    pub fn take(&mut self, index: usize, bytes: usize) {
        let socket = &mut self.sockets[index];
        assert!(bytes <= socket.unread_end - socket.unread_start);
        socket.unread_start += bytes;
    }

    /// Whether the socket has ended.
    pub fn is_closed(&self, index: usize) -> bool {
        self.sockets[index].closed
    }

    /// Sends what was gathered, starts receives, and waits: not at all (`Some(ZERO)`), at most so long, or until something
    /// happens (`None`). What happened is in `events` afterwards, which is emptied first.
    pub fn turn(&mut self, wait: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        self.start_sends()?;
        self.start_receives()?;
        let entered = match wait {
            Some(Duration::ZERO) => self.uring.submit(),
            Some(limit) => {
                let limit = Timespec::from(limit);
                let args = SubmitArgs::new().timespec(&limit);
                self.uring.submitter().submit_with_args(1, &args)
            }
            None => self.uring.submit_and_wait(1),
        };
        match entered {
            Ok(_) => {}
            Err(error) if is_wait(&error) => {}
            Err(error) => return Err(error),
        }
        self.reap(events);
        Ok(())
    }

    fn start_sends(&mut self) -> io::Result<()> {
        let mut at = 0;
        while let Some(&index) = self.to_send.get(at) {
            let socket = &mut self.sockets[index];
            if socket.closed {
                socket.gathering.clear();
            }
            if !socket.closed && socket.is_sending() {
                at += 1;
                continue;
            }
            self.to_send.swap_remove(at);
            socket.queued = false;
            if socket.gathering.is_empty() {
                continue;
            }
            socket.sending.clear();
            socket.sent = 0;
            std::mem::swap(&mut socket.gathering, &mut socket.sending);
            self.submit_send(index)?;
        }
        Ok(())
    }

    fn submit_send(&mut self, index: usize) -> io::Result<()> {
        let socket = &self.sockets[index];
        let rest = &socket.sending[socket.sent..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.stream.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data((index as u64) << 1 | SEND);
        // SAFETY: `sending` is not touched until the completion: `start_sends` waits for it, and `Drop` does.
        unsafe { self.push(&entry) }
    }

    fn start_receives(&mut self) -> io::Result<()> {
        for at in 0..self.to_receive.len() {
            let index = self.to_receive[at];
            let socket = &mut self.sockets[index];
            if socket.closed || socket.receiving {
                continue;
            }
            make_room(socket);
            let room = &mut socket.inbox[socket.unread_end..];
            let len = u32::try_from(room.len()).unwrap_or(u32::MAX);
            let ioprio = if socket.poll_first { POLL_FIRST } else { 0 };
            let entry = opcode::Recv::new(Fd(socket.stream.as_raw_fd()), room.as_mut_ptr(), len)
                .ioprio(ioprio)
                .build()
                .user_data((index as u64) << 1 | RECEIVE);
            socket.receiving = true;
            // SAFETY: while `receiving` is set the inbox is neither moved nor resized, and behind `unread_end`, where the
            // kernel writes, nobody reads.
            unsafe { self.push(&entry)? };
        }
        self.to_receive.clear();
        Ok(())
    }

    /// # Safety
    /// The buffer of the entry stays where it is until its completion is reaped.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: as the caller promises.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                self.under_way += 1;
                return Ok(());
            }
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if is_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        self.done.clear();
        let completions = self.uring.completion();
        self.done
            .extend(completions.map(|entry| (entry.user_data(), entry.result())));
        self.under_way -= self.done.len();
        for at in 0..self.done.len() {
            let (user_data, result) = self.done[at];
            let index = (user_data >> 1) as usize;
            if user_data & 1 == SEND {
                self.sent(index, result, events);
            } else {
                self.received(index, result, events);
            }
        }
    }

    fn sent(&mut self, index: usize, result: i32, events: &mut Vec<Event>) {
        let socket = &mut self.sockets[index];
        match result {
            0.. => socket.sent += result as usize,
            _ if is_wait(&io::Error::from_raw_os_error(-result)) => {}
            _ => {
                socket.sent = socket.sending.len();
                close(socket, index, Some(-result), events);
                return;
            }
        }
        if socket.is_sending() {
            // What is left goes before what was gathered since.
            socket.sending.drain(..socket.sent);
            socket.sending.append(&mut socket.gathering);
            std::mem::swap(&mut socket.gathering, &mut socket.sending);
            socket.sent = 0;
            socket.sending.clear();
            if !socket.queued {
                socket.queued = true;
                self.to_send.push(index);
            }
        }
    }

    fn received(&mut self, index: usize, result: i32, events: &mut Vec<Event>) {
        let socket = &mut self.sockets[index];
        socket.receiving = false;
        match result {
            0 => close(socket, index, None, events),
            1.. => {
                let room = socket.inbox.len() - socket.unread_end;
                // A receive that did not fill its room has emptied the socket.
                socket.poll_first = (result as usize) < room;
                socket.unread_end += result as usize;
                self.to_receive.push(index);
                events.push(Event::Received(index));
            }
            _ if is_wait(&io::Error::from_raw_os_error(-result)) => self.to_receive.push(index),
            _ if socket.poll_first && -result == libc::EINVAL => {
                // A kernel before 5.19 does not know the flag; a receive that failed so has taken nothing.
                socket.poll_first = false;
                self.to_receive.push(index);
            }
            _ => close(socket, index, Some(-result), events),
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = socket.stream.shutdown(Shutdown::Both);
        }
        let mut left = 100;
        while self.under_way > 0 && left > 0 {
            left -= 1;
            let limit = Timespec::from(Duration::from_millis(50));
            let args = SubmitArgs::new().timespec(&limit);
            let _ = self.uring.submitter().submit_with_args(1, &args);
            let reaped = self.uring.completion().count();
            self.under_way -= reaped;
        }
        if self.under_way > 0 {
            // The kernel still holds on to the buffers: they are given away rather than freed.
            std::mem::forget(std::mem::take(&mut self.sockets));
        }
    }
}

fn make_room(socket: &mut Socket) {
    let unread = socket.unread_start..socket.unread_end;
    if unread.is_empty() {
        socket.unread_start = 0;
        socket.unread_end = 0;
    } else if socket.inbox.len() - unread.end < socket.inbox.len() / 2 {
        let len = unread.len();
        socket.inbox.copy_within(unread, 0);
        socket.unread_start = 0;
        socket.unread_end = len;
        if len > socket.inbox.len() / 2 {
            // A frame larger than half the inbox is on its way.
            let mut larger = vec![0; socket.inbox.len() * 2];
            larger[..len].copy_from_slice(&socket.inbox[..len]);
            socket.inbox = larger.into_boxed_slice();
        }
    }
}

fn close(socket: &mut Socket, index: usize, errno: Option<i32>, events: &mut Vec<Event>) {
    if !socket.closed {
        socket.closed = true;
        // A receive that is still under way ends by it.
        let _ = socket.stream.shutdown(Shutdown::Both);
        events.push(Event::Closed(
            index,
            errno.map(io::Error::from_raw_os_error),
        ));
    }
}

/// Whether an error means: nothing happened yet.
fn is_wait(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY)
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn echo() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut bytes = [0; 3000];
                    while let Ok(len @ 1..) = stream.read(&mut bytes) {
                        if stream.write_all(&bytes[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn what_is_sent_comes_back_whole_and_in_order() {
        let address = echo();
        let mut sockets = Sockets::new(3).unwrap();
        for _ in 0..3 {
            sockets
                .add(TcpStream::connect(address).unwrap(), 1024)
                .unwrap();
        }
        let mut events = Vec::new();
        let mut sent = [0u32; 3];
        let mut received = [0u32; 3];
        let total = 200_000;
        while received.iter().any(|count| *count < total) {
            for index in 0..3 {
                // More than a socket's buffers hold, so that sends are cut.
                while sent[index] < total && sent[index] - received[index] < 100_000 {
                    sockets
                        .out(index)
                        .extend_from_slice(&sent[index].to_be_bytes());
                    sent[index] += 1;
                }
            }
            sockets
                .turn(Some(Duration::from_secs(5)), &mut events)
                .unwrap();
            assert!(!events.is_empty() || sockets.under_way > 0);
            for event in events.drain(..) {
                let Event::Received(index) = event else {
                    panic!("{event:?}")
                };
                let words = sockets.inbox(index).len() / 4;
                for word in 0..words {
                    let at = word * 4;
                    let bytes = sockets.inbox(index)[at..at + 4].try_into().unwrap();
                    assert_eq!(u32::from_be_bytes(bytes), received[index]);
                    received[index] += 1;
                }
                sockets.take(index, words * 4);
            }
        }
    }

    #[test]
    fn an_end_is_said_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sockets = Sockets::new(1).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sockets.add(stream, 1024).unwrap();
        drop(listener.accept().unwrap());
        let mut events = Vec::new();
        let mut ends = 0;
        for _ in 0..5 {
            sockets.out(0).extend_from_slice(b"to nobody");
            sockets
                .turn(Some(Duration::from_millis(20)), &mut events)
                .unwrap();
            ends += events.len();
        }
        assert_eq!(ends, 1);
        assert!(sockets.is_closed(0));
    }

    #[test]
    fn a_turn_ends_in_time() {
        let mut sockets = Sockets::new(1).unwrap();
        let mut events = Vec::new();
        let start = std::time::Instant::now();
        sockets
            .turn(Some(Duration::from_millis(20)), &mut events)
            .unwrap();
        assert!(start.elapsed() >= Duration::from_millis(15));
    }
}
