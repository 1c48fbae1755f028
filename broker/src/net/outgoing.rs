//! What is queued to one connection: bytes of our own, and parts that are sent from where they are.
//!
//! While the kernel sends it, an `Outgoing` is not touched and stays in its box: the kernel reads the message header, the
//! vectors, the bytes and the parts.

use super::StableBytes;
use crate::ring::Token;
use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use std::ptr;

/// More vectors do not go into one send; the rest goes with the next one. (The kernel's bound is 1,024.)
const MAX_VECTORS: usize = 512;

/// IORING_SEND_ZC_REPORT_USAGE.
const REPORT_USAGE: u16 = 1 << 3;

/// A part in front of which so many bytes of our own are sent.
struct Part<P> {
    at: usize,
    owner: P,
}

pub(super) struct Outgoing<P> {
    bytes: Vec<u8>,
    parts: Vec<Part<P>>,
    part_bytes: usize,
    sent: usize,
    /// Names it in the operations that leave its bytes in place.
    number: u16,
    /// Notifications that are still to come.
    notifications: u32,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl<P: StableBytes> Outgoing<P> {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            parts: Vec::new(),
            part_bytes: 0,
            sent: 0,
            number: 0,
            notifications: 0,
            vectors: Vec::new(),
            // SAFETY: plain integers and pointers, for which zero is a value.
            message: unsafe { std::mem::zeroed() },
        }
    }

    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn push(&mut self, owner: P) {
        self.part_bytes += owner.bytes().len();
        self.parts.push(Part {
            at: self.bytes.len(),
            owner,
        });
    }

    /// Bytes not yet sent.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() + self.part_bytes - self.sent
    }

    pub(super) fn advance(&mut self, sent: usize) {
        self.sent += sent;
    }

    /// Bytes of memory that it holds for the next use.
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity()
            + self.parts.capacity() * size_of::<Part<P>>()
            + self.vectors.capacity() * size_of::<libc::iovec>()
    }

    /// Whether [`Outgoing::entry`] gathers parts.
    pub(super) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Forgets what it held and keeps its room for the next use.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.notifications == 0, "the kernel still needs the bytes");
        self.bytes.clear();
        self.parts.clear();
        self.vectors.clear();
        self.part_bytes = 0;
        self.sent = 0;
    }

    /// The operation that sends what is left, or as much of it as goes into one.
    pub(super) fn entry(&mut self, fd: types::Fd, token: Token) -> Entry {
        let entry = if self.parts.is_empty() {
            let left = &self.bytes[self.sent..];
            opcode::Send::new(
                fd,
                left.as_ptr(),
                u32::try_from(left.len()).unwrap_or(u32::MAX),
            )
            .flags(libc::MSG_NOSIGNAL)
            .build()
        } else {
            self.gather();
            self.message.msg_name = ptr::null_mut();
            self.message.msg_iov = self.vectors.as_mut_ptr();
            self.message.msg_iovlen = self.vectors.len() as _;
            opcode::SendMsg::new(fd, &self.message)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build()
        };
        entry.user_data(token.raw())
    }

    /// The same, but the bytes stay where they are until the notification: see [`Outgoing::is_done`].
    pub(super) fn entry_in_place(&mut self, fd: types::Fd, token: Token) -> Entry {
        self.gather();
        self.message.msg_name = ptr::null_mut();
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len() as _;
        opcode::SendMsgZc::new(fd, &self.message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .ioprio(REPORT_USAGE)
            .build()
            .user_data(token.raw())
    }

    pub(super) fn set_number(&mut self, number: u16) {
        self.number = number;
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// A send of it has ended, and its notification is still to come.
    pub(super) fn notification_due(&mut self) {
        self.notifications += 1;
    }

    pub(super) fn notified(&mut self) {
        self.notifications -= 1;
    }

    /// Whether the kernel needs nothing of it any more, but for a send that is under way.
    pub(super) fn is_done(&self) -> bool {
        self.notifications == 0
    }

    fn gather(&mut self) {
        self.vectors.clear();
        let mut skip = self.sent;
        let mut from = 0;
        for part in &self.parts {
            if self.vectors.len() + 3 > MAX_VECTORS {
                return;
            }
            push_vector(&mut self.vectors, &mut skip, &self.bytes[from..part.at]);
            push_vector(&mut self.vectors, &mut skip, part.owner.bytes());
            from = part.at;
        }
        push_vector(&mut self.vectors, &mut skip, &self.bytes[from..]);
    }
}

fn push_vector(vectors: &mut Vec<libc::iovec>, skip: &mut usize, bytes: &[u8]) {
    let skipped = bytes.len().min(*skip);
    *skip -= skipped;
    let bytes = &bytes[skipped..];
    if !bytes.is_empty() {
        vectors.push(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::rc::Rc;

    fn gathered(outgoing: &mut Outgoing<Rc<[u8]>>) -> Vec<u8> {
        outgoing.gather();
        assert!(outgoing.vectors.len() <= MAX_VECTORS);
        let mut all = Vec::new();
        for vector in &outgoing.vectors {
            // SAFETY: made by `gather` from slices that are still there.
            all.extend(unsafe {
                std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len)
            });
        }
        all
    }

    proptest! {
        #[test]
        fn whatever_is_sent_at_a_time_arrives_once_and_in_order(
            pieces in prop::collection::vec((any::<bool>(), 0usize..40), 1..1500),
            sends in prop::collection::vec(1usize..3000, 1..20),
        ) {
            let mut outgoing = Outgoing::new();
            let mut expected: Vec<u8> = Vec::new();
            for (index, (shared, len)) in pieces.into_iter().enumerate() {
                let bytes = vec![index as u8; len];
                expected.extend(&bytes);
                if shared {
                    outgoing.push(Rc::<[u8]>::from(bytes));
                } else {
                    outgoing.bytes().extend(bytes);
                }
            }
            let mut arrived: Vec<u8> = Vec::new();
            let mut sends = sends.into_iter().cycle();
            while outgoing.left() > 0 {
                let some = gathered(&mut outgoing);
                prop_assert!(!some.is_empty());
                let sent = some.len().min(sends.next().unwrap());
                arrived.extend(&some[..sent]);
                outgoing.advance(sent);
            }
            prop_assert_eq!(arrived, expected);
        }
    }
}
