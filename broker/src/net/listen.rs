//! Listening and accepting.

use super::connection::Conn;
use super::{Handler, Net, Operation, StableBytes, token};
use crate::ring::{Completion, Owner, Ring, Token};
use io_uring::{opcode, types};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;

/// Why an address cannot be listened on. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The port is taken.
    #[error("{0} is already in use: stop the process that listens there, or choose another port")]
    Taken(SocketAddr),
    /// A low port without the right to it.
    #[error(
        "no permission to listen on {0}: choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
    )]
    Permission(SocketAddr),
    /// The address is not one of this machine.
    #[error("{0} is not an address of this machine: see the listen address")]
    NoSuchAddress(SocketAddr),
    /// Anything else about an address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Receive buffers could not be had.
    #[error("cannot set up receive buffers: {0}")]
    Buffers(io::Error),
}

impl NetError {
    fn listen(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken(address),
            io::ErrorKind::PermissionDenied => Self::Permission(address),
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            _ => Self::Listen { address, source },
        }
    }
}

pub(super) struct Listener {
    /// `None` once closed; the index stays taken.
    socket: Option<TcpListener>,
    /// An accept operation is with the kernel.
    armed: bool,
    /// It is to end.
    closing: bool,
}

fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    let on: libc::c_int = 1;
    // SAFETY: calls on a descriptor that is ours, with a pointer to a live integer of the stated size.
    unsafe {
        if libc::listen(socket.as_raw_fd(), backlog) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Accepted connections inherit it, which saves a system call for each.
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        let on = ptr::from_ref(&on).cast();
        if libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            on,
            size,
        ) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

impl<P: StableBytes> Net<P> {
    /// Listens on one more address and says which one it is (the port may have been 0).
    pub fn listen(&mut self, ring: &mut Ring, address: SocketAddr) -> Result<SocketAddr, NetError> {
        let (socket, address) = bind(address, self.limits.backlog)
            .and_then(|socket| socket.local_addr().map(|address| (socket, address)))
            .map_err(|source| NetError::listen(address, source))?;
        self.listeners.push(Listener {
            socket: Some(socket),
            armed: false,
            closing: false,
        });
        self.arm_listeners(ring);
        Ok(address)
    }

    /// Stops listening; open connections go on.
    pub fn stop_listening(&mut self, ring: &mut Ring) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            listener.closing = true;
            if listener.armed {
                // The kernel keeps the port for as long as the operation lives.
                let entry = opcode::AsyncCancel::new(token(Operation::Accept, index as u32).raw())
                    .build()
                    .user_data(Token::new(Owner::Nobody, 0).raw());
                // SAFETY: points to nothing.
                unsafe { ring.push(entry) };
            } else {
                listener.socket = None;
            }
        }
    }

    pub(super) fn listening(&self) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.socket.is_some())
    }

    pub(super) fn arm_listeners(&mut self, ring: &mut Ring) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(socket) = listener
                .socket
                .as_ref()
                .filter(|_| !listener.armed && !listener.closing)
            else {
                continue;
            };
            let fd = types::Fd(socket.as_raw_fd());
            let entry = if ring.kernel().multishot_accept {
                opcode::AcceptMulti::new(fd)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            } else {
                opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            };
            // SAFETY: no address is asked for; the listener is closed after the operation's last completion.
            unsafe { ring.push(entry.user_data(token(Operation::Accept, index as u32).raw())) };
            listener.armed = true;
        }
    }

    pub(super) fn accepted(
        &mut self,
        ring: &mut Ring,
        index: u32,
        completion: Completion,
        handler: &mut impl Handler<P>,
    ) {
        if let Some(listener) = self.listeners.get_mut(index as usize)
            && !completion.more()
        {
            listener.armed = false;
            if listener.closing {
                listener.socket = None;
            }
        }
        match completion.result() {
            // SAFETY: a descriptor that the kernel just made for this completion; nobody else owns it.
            fd @ 0.. => self.open(ring, unsafe { TcpStream::from_raw_fd(fd) }, handler),
            error if error == -libc::ECANCELED => {}
            error => {
                self.counters.accept_errors += 1;
                let error = io::Error::from_raw_os_error(-error);
                tracing::warn!(%error, "a connection could not be accepted");
                // Armed again with the next tick: what is missing now is missing still.
                return;
            }
        }
        self.arm_listeners(ring);
    }

    fn open(&mut self, ring: &mut Ring, stream: TcpStream, handler: &mut impl Handler<P>) {
        if self.connections.len() >= self.limits.max_connections {
            self.counters.rejected += 1;
            return;
        }
        // A peer that is gone already has no address.
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
            return;
        };
        // Bytes for a peer on this machine are copied in any case.
        let is_local = peer.ip().is_loopback() || peer.ip() == local.ip();
        let zero_copy =
            ring.kernel().send_zero_copy && self.limits.zero_copy_bytes > 0 && !is_local;
        let id = self
            .connections
            .insert(Conn::new(stream, peer, zero_copy, self.now_ms));
        self.open += 1;
        self.counters.accepted += 1;
        handler.opened(self, id, peer, local);
        self.steer_receive(ring, id.slot());
    }
}
