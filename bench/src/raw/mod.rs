//! A server that only moves the bytes: what a broker could reach at best on this machine.
//!
//! It is an epoll loop on one core that answers every request with the same well-formed answer to a send: at once
//! ([`Mode::Answer`]), or after one write with O_DIRECT and O_DSYNC of all requests that came in the same turn
//! ([`Mode::Write`]). The file is written in full before the first request, so that no write has to extend it. Nothing is
//! looked at but the opaque; nothing can be consumed.

mod group;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use corelane_wire::ExtHeader;
use corelane_wire::Text;
use corelane_wire::code::{VERSION, language, response};
use corelane_wire::frame::{FrameWriter, Head, Serialization, split};
use corelane_wire::header::send::SendMessageResponse;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::BenchError;
use crate::reply;
use group::Group;
pub use group::{make_file, open_durable};

/// The largest frame that is taken.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// How much is read from a connection in one turn.
const READ_BYTES: usize = 256 << 10;

const LISTENER: u64 = u64::MAX;

/// When a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// At once.
    Answer,
    /// When it is on the disk, together with all that came in the same turn.
    Write,
}

/// What a server is to be.
#[derive(Debug, Clone)]
pub struct RawSettings {
    /// When it answers.
    pub mode: Mode,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the file of [`Mode::Write`] is made.
    pub dir: PathBuf,
    /// How large that file is; writing starts again at its beginning.
    pub file_bytes: u64,
}

/// The server, bound to its port.
pub struct RawServer {
    listener: TcpListener,
    epoll: Epoll,
    peers: Vec<Option<Peer>>,
    group: Option<Group>,
    answers: Answers,
    scratch: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    /// The start of a frame whose rest has not come.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// Whether the socket took less than it was given.
    clogged: bool,
}

impl RawServer {
    /// Makes the file, if there is to be one, and binds.
    pub fn bind(settings: &RawSettings) -> Result<Self, BenchError> {
        let group = match settings.mode {
            Mode::Answer => None,
            Mode::Write => {
                let made = Group::create(&settings.dir, settings.file_bytes);
                let what = format!("cannot write in {}", settings.dir.display());
                Some(made.map_err(BenchError::io(what))?)
            }
        };
        let set_up = || -> io::Result<(TcpListener, Epoll)> {
            let listener = TcpListener::bind(settings.address)?;
            listener.set_nonblocking(true)?;
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
            Ok((listener, epoll))
        };
        let what = format!("cannot listen on {}", settings.address);
        let (listener, epoll) = set_up().map_err(BenchError::io(what))?;
        Ok(Self {
            listener,
            epoll,
            peers: Vec::new(),
            group,
            answers: Answers::new(),
            scratch: vec![0; READ_BYTES],
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is set, which is looked at every 100 ms.
    pub fn serve(&mut self, stop: &AtomicBool) -> Result<(), BenchError> {
        let mut ready = vec![EpollEvent::empty(); 1024];
        let mut answered = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let count = match self.epoll.wait(&mut ready, EpollTimeout::from(100u8)) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(BenchError::io("epoll failed")(error.into())),
            };
            for event in &ready[..count] {
                if event.data() == LISTENER {
                    self.accept().map_err(BenchError::io("cannot accept"))?;
                    continue;
                }
                let number = event.data() as usize;
                match self.take(number) {
                    Ok(true) => answered.push(number),
                    Ok(false) => {}
                    // A peer that went, or that speaks something else.
                    Err(_) => self.peers[number] = None,
                }
            }
            if let Some(group) = &mut self.group {
                group.commit().map_err(BenchError::io("a write failed"))?;
            }
            for number in answered.drain(..) {
                if self.answer(number).is_err() {
                    self.peers[number] = None;
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let free = self.peers.iter().position(Option::is_none);
            let number = free.unwrap_or(self.peers.len());
            let interest = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            self.epoll.add(stream.as_fd(), interest)?;
            let peer = Peer {
                stream,
                partial: Vec::new(),
                out: Vec::new(),
                clogged: false,
            };
            match free {
                Some(number) => self.peers[number] = Some(peer),
                None => self.peers.push(Some(peer)),
            }
        }
    }

    /// Reads once, and prepares the answers to what came whole; whether there is something to send.
    fn take(&mut self, number: usize) -> io::Result<bool> {
        let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) else {
            return Ok(false);
        };
        if peer.clogged {
            return Ok(true);
        }
        let kept = peer.partial.len();
        let needed = kept + READ_BYTES;
        let room = match &mut self.group {
            // What is to be written is received where it will be written from.
            Some(group) => group.room(needed),
            None => {
                if self.scratch.len() < needed {
                    self.scratch.resize(needed, 0);
                }
                &mut self.scratch[..needed]
            }
        };
        let received = match peer.stream.read(&mut room[kept..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        room[..kept].copy_from_slice(&peer.partial);
        let bytes = &room[..kept + received];
        let mut whole = 0;
        loop {
            let rest = &bytes[whole..];
            let broken = |_| io::Error::from(ErrorKind::InvalidData);
            let Some(len) = split(rest, MAX_FRAME_BYTES).map_err(broken)? else {
                break;
            };
            self.answers
                .push(&rest[..len], &mut peer.out)
                .map_err(broken)?;
            whole += len;
        }
        peer.partial.clear();
        peer.partial.extend_from_slice(&bytes[whole..]);
        if let Some(group) = &mut self.group {
            group.take(whole);
        }
        Ok(!peer.out.is_empty())
    }

    fn answer(&mut self, number: usize) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(number).and_then(Option::as_mut) else {
            return Ok(());
        };
        let mut sent = 0;
        let clogged = loop {
            if sent == peer.out.len() {
                break false;
            }
            match peer.stream.write(&peer.out[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) => return Err(error),
            }
        };
        peer.out.drain(..sent);
        if clogged != peer.clogged {
            peer.clogged = clogged;
            let flags = if clogged {
                EpollFlags::EPOLLOUT
            } else {
                EpollFlags::EPOLLIN
            };
            let mut interest = EpollEvent::new(flags, number as u64);
            self.epoll.modify(peer.stream.as_fd(), &mut interest)?;
        }
        Ok(())
    }
}

/// The one answer, in both serializations, but for its opaque.
struct Answers {
    rocketmq: Vec<u8>,
    /// Before and behind the opaque.
    json: (Vec<u8>, Vec<u8>),
}

impl Answers {
    fn new() -> Self {
        let encode = |serialization| {
            let mut bytes = Vec::new();
            let head = Head {
                serialization,
                code: response::SUCCESS,
                language: language::JAVA,
                version: VERSION,
                opaque: 1_000_000_000,
                flag: 1,
                remark: None,
            };
            let mut writer = FrameWriter::new(&mut bytes, &head);
            SendMessageResponse {
                msg_id: Text::plain("7F00000100002A9F0000000000000000"),
                queue_id: 0,
                queue_offset: 0,
                transaction_id: Some(Text::plain("7F00000100002A9F0000000000000000")),
                msg_region: Some(Text::plain("DefaultRegion")),
                trace_on: Some(Text::plain("true")),
                ..SendMessageResponse::default()
            }
            .encode(&mut writer);
            writer.finish(0);
            bytes
        };
        let json = encode(Serialization::Json);
        let opaque = json
            .windows(10)
            .position(|window| window == b"1000000000")
            .unwrap_or_default();
        Self {
            rocketmq: encode(Serialization::Rocketmq),
            json: (json[..opaque].to_vec(), json[opaque + 10..].to_vec()),
        }
    }

    /// Appends the answer to this request.
    fn push(&self, request: &[u8], out: &mut Vec<u8>) -> Result<(), corelane_wire::FrameError> {
        let asked = reply::read(request)?;
        let start = out.len();
        if request[4] == Serialization::Rocketmq as u8 {
            out.extend_from_slice(&self.rocketmq);
            out[start + 13..start + 17].copy_from_slice(&asked.opaque.to_be_bytes());
            return Ok(());
        }
        out.extend_from_slice(&self.json.0);
        // Writing to memory does not fail.
        let _ = write!(out, "{}", asked.opaque);
        out.extend_from_slice(&self.json.1);
        let len = (out.len() - start - 8) as u32;
        out[start..start + 4].copy_from_slice(&(len + 4).to_be_bytes());
        out[start + 4..start + 8].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use corelane_client::Connection;
    use corelane_client::connection::no_fields;

    use super::*;

    #[test]
    fn requests_are_answered_in_both_modes_and_serializations() {
        let dir = std::env::temp_dir().join(format!("corelane-raw-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for mode in [Mode::Answer, Mode::Write] {
            let settings = RawSettings {
                mode,
                address: "127.0.0.1:0".parse().unwrap(),
                dir: dir.clone(),
                file_bytes: 1 << 20,
            };
            let mut server = RawServer::bind(&settings).unwrap();
            let address = server.address().unwrap().to_string();
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let serving = thread::spawn(move || server.serve(&stopped).unwrap());
            let soon = Duration::from_secs(10);
            for serialization in [Serialization::Json, Serialization::Rocketmq] {
                let mut connection =
                    Connection::<u32>::open_with(&address, soon, serialization).unwrap();
                for round in 0..3 {
                    // More than the file holds in all, and frames that come in pieces.
                    for number in 0..10 {
                        let body = vec![7; 60_000];
                        connection
                            .start(310, no_fields, &body, number + round)
                            .unwrap();
                    }
                    for number in 0..10 {
                        let reply = connection.next_reply(soon).unwrap().unwrap();
                        assert_eq!(reply.token, number + round);
                        let answer = SendMessageResponse::decode(&reply.frame.ext).unwrap();
                        assert_eq!(answer.queue_offset, 0);
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            serving.join().unwrap();
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
