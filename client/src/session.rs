//! One connection's requests and answers, without I/O.
//!
//! A [`Session`] allots the opaques, builds the frames of requests into one buffer that a transport sends, takes what the
//! transport received, and gives each answer back with the token that its request was started with. Any number of
//! requests may be in flight; nothing is allocated for a request once the buffers have grown. Requests of the server come
//! up in the same order as answers. An answer that nobody waits for any more is dropped and counted.

use std::ops::Range;

use corelane_wire::code::{VERSION, language};
use corelane_wire::frame::{Head, Serialization, split};
use corelane_wire::{Frame, FrameError, FrameWriter};

/// How many of an opaque's bits say which slot waits for it. The others tell its uses apart.
const SLOT_BITS: u32 = 20;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// The largest frame that a session takes unless it is told otherwise.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// What came in.
#[derive(Debug)]
pub enum Event<T> {
    /// The answer to the request that was started with `token`.
    Response {
        /// What the caller gave.
        token: T,
        /// Where the frame lies, for [`Session::frame`]; until the next call of [`Session::next_event`].
        frame: Range<usize>,
    },
    /// A request of the server.
    Request {
        /// As above.
        frame: Range<usize>,
    },
}

/// Why no request can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} requests wait for an answer on one connection", 1 << SLOT_BITS)]
pub struct TooManyInFlight;

/// The state of one connection. `T` is what a caller wants to be given back with an answer.
#[derive(Debug)]
pub struct Session<T> {
    serialization: Serialization,
    max_frame_bytes: usize,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    out: Vec<u8>,
    inbox: Vec<u8>,
    // The part of the inbox that no frame was taken from yet.
    unread: Range<usize>,
    late: u64,
}

#[derive(Debug)]
struct Slot<T> {
    opaque: u32,
    token: Option<T>,
}

impl<T> Session<T> {
    /// A session that writes its headers in this form.
    pub fn new(serialization: Serialization) -> Self {
        Self {
            serialization,
            max_frame_bytes: MAX_FRAME_BYTES,
            slots: Vec::new(),
            free: Vec::new(),
            out: Vec::new(),
            inbox: Vec::new(),
            unread: 0..0,
            late: 0,
        }
    }

    /// Starts a request. The caller adds its fields and finishes it; a writer that is dropped leaves no frame behind, but
    /// its opaque stays taken until it is forgotten.
    pub fn request(
        &mut self,
        code: i32,
        token: T,
    ) -> Result<(i32, FrameWriter<'_>), TooManyInFlight> {
        let opaque = self.allot(token)?;
        let head = self.head(code, opaque, 0);
        Ok((opaque, FrameWriter::new(&mut self.out, &head)))
    }

    /// Starts a request that is not answered.
    pub fn oneway(&mut self, code: i32) -> FrameWriter<'_> {
        // No slot waits for it: the slot of this opaque, were there one, would have another generation.
        let head = self.head(code, i32::MAX, 2);
        FrameWriter::new(&mut self.out, &head)
    }

    /// Starts the answer to a request of the server.
    pub fn respond(&mut self, opaque: i32, code: i32) -> FrameWriter<'_> {
        let head = self.head(code, opaque, 1);
        FrameWriter::new(&mut self.out, &head)
    }

    /// Appends bytes to what is sent, as they are: for tests of what a server does with them.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Gives up waiting for an answer. `None` where nothing waited.
    pub fn forget(&mut self, opaque: i32) -> Option<T> {
        let slot = self.slots.get_mut((opaque as u32 & SLOT_MASK) as usize)?;
        if slot.opaque != opaque as u32 {
            return None;
        }
        let token = slot.token.take()?;
        self.free.push(opaque as u32 & SLOT_MASK);
        Some(token)
    }

    /// How many requests wait for their answer.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many answers came for which nothing waited.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// What is to be sent.
    pub fn outgoing(&self) -> &[u8] {
        &self.out
    }

    /// Says that the first `sent` bytes of [`Session::outgoing`] were sent.
    pub fn sent(&mut self, sent: usize) {
        self.out.drain(..sent);
    }

    /// Room for at least `bytes` more bytes from the peer. [`Session::received`] says how many came.
    pub fn space(&mut self, bytes: usize) -> &mut [u8] {
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        if self.inbox.len() - self.unread.end < bytes {
            self.inbox.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            let needed = self.unread.end + bytes;
            if self.inbox.len() < needed {
                self.inbox.resize(needed.next_power_of_two(), 0);
            }
        }
        let end = self.unread.end;
        &mut self.inbox[end..]
    }

    /// Says that `bytes` bytes were written to the start of [`Session::space`].
    pub fn received(&mut self, bytes: usize) {
        assert!(
            bytes <= self.inbox.len() - self.unread.end,
            "more received than there was room"
        );
        self.unread.end += bytes;
    }

    /// The next answer or request that has come whole. After an error the connection cannot go on.
    pub fn next_event(&mut self) -> Result<Option<Event<T>>, FrameError> {
        while let Some(len) = split(&self.inbox[self.unread.clone()], self.max_frame_bytes)? {
            let frame = self.unread.start..self.unread.start + len;
            self.unread.start += len;
            let parsed = Frame::parse(&self.inbox[frame.clone()])?;
            if !parsed.is_response() {
                return Ok(Some(Event::Request { frame }));
            }
            match self.forget(parsed.opaque) {
                Some(token) => return Ok(Some(Event::Response { token, frame })),
                None => self.late += 1,
            }
        }
        Ok(None)
    }

    /// The bytes of a frame that an event named.
    pub fn frame(&self, frame: Range<usize>) -> &[u8] {
        &self.inbox[frame]
    }

    fn head(&self, code: i32, opaque: i32, flag: i32) -> Head<'static> {
        Head {
            serialization: self.serialization,
            code,
            language: language::RUST,
            version: VERSION,
            opaque,
            flag,
            remark: None,
        }
    }

    fn allot(&mut self, token: T) -> Result<i32, TooManyInFlight> {
        let opaque = match self.free.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                // The generation wraps; the sign bit stays clear, as some servers print opaques.
                slot.opaque = slot.opaque.wrapping_add(1 << SLOT_BITS) & i32::MAX as u32;
                slot.token = Some(token);
                slot.opaque
            }
            None => {
                // The last slot is never used, so that i32::MAX is nobody's opaque.
                let index = u32::try_from(self.slots.len())
                    .ok()
                    .filter(|index| *index < SLOT_MASK);
                let opaque = index.ok_or(TooManyInFlight)?;
                self.slots.push(Slot {
                    opaque,
                    token: Some(token),
                });
                opaque
            }
        };
        Ok(opaque as i32)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a server would make of everything that was sent: answers in the order that `order` gives.
    fn answers(sent: &[u8], order: impl Fn(usize) -> usize) -> Vec<u8> {
        let mut requests = Vec::new();
        let mut rest = sent;
        while let Some(len) = split(rest, MAX_FRAME_BYTES).unwrap() {
            let frame = Frame::parse(&rest[..len]).unwrap();
            if !frame.is_oneway() {
                requests.push((frame.opaque, frame.code, frame.body.to_vec()));
            }
            rest = &rest[len..];
        }
        let mut out = Vec::new();
        for index in 0..requests.len() {
            let (opaque, code, body) = &requests[order(index)];
            let head = Head {
                serialization: Serialization::Json,
                code: *code,
                language: 0,
                version: 1,
                opaque: *opaque,
                flag: 1,
                remark: None,
            };
            FrameWriter::new(&mut out, &head).finish_with(body);
        }
        out
    }

    fn receive<T>(session: &mut Session<T>, bytes: &[u8]) {
        session.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        session.received(bytes.len());
    }

    fn tokens(session: &mut Session<u32>) -> Vec<u32> {
        let mut tokens = Vec::new();
        while let Some(event) = session.next_event().unwrap() {
            let Event::Response { token, frame } = event else {
                panic!("a request")
            };
            let frame = Frame::parse(session.frame(frame)).unwrap();
            assert_eq!(frame.body, token.to_be_bytes());
            tokens.push(token);
        }
        tokens
    }

    fn start(session: &mut Session<u32>, token: u32) -> i32 {
        let (opaque, writer) = session.request(10, token).unwrap();
        writer.finish_with(&token.to_be_bytes());
        opaque
    }

    #[test]
    fn a_late_answer_is_nobodys() {
        let mut session = Session::new(Serialization::Json);
        let opaque = start(&mut session, 1);
        let late = answers(session.outgoing(), |index| index);
        assert_eq!(session.forget(opaque), Some(1));
        assert_eq!(session.forget(opaque), None);
        session.sent(session.outgoing().len());
        // The slot is used again, for another request.
        start(&mut session, 2);
        receive(&mut session, &late);
        assert!(tokens(&mut session).is_empty());
        assert_eq!((session.late(), session.in_flight()), (1, 1));
    }

    #[test]
    fn requests_of_the_server_come_up() {
        let mut session = Session::<u32>::new(Serialization::Rocketmq);
        let mut server = Session::<u32>::new(Serialization::Json);
        let opaque = start(&mut server, 7);
        server.oneway(40).finish(0);
        let sent = server.outgoing().to_vec();
        receive(&mut session, &sent);
        let Some(Event::Request { frame }) = session.next_event().unwrap() else {
            panic!("no request")
        };
        assert_eq!(Frame::parse(session.frame(frame)).unwrap().opaque, opaque);
        session.respond(opaque, 0).finish_with(&7u32.to_be_bytes());
        let Some(Event::Request { frame }) = session.next_event().unwrap() else {
            panic!("no request")
        };
        assert!(Frame::parse(session.frame(frame)).unwrap().is_oneway());
        let answer = session.outgoing().to_vec();
        receive(&mut server, &answer);
        assert_eq!(tokens(&mut server), [7]);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut session = Session::<u32>::new(Serialization::Json);
        receive(&mut session, &[0xff; 16]);
        assert!(session.next_event().is_err());
    }

    proptest! {
        #[test]
        fn every_answer_finds_its_request(
            count in 1usize..40,
            rotate in 0usize..40,
            pieces in proptest::collection::vec(1usize..200, 1..20),
            rounds in 1usize..4,
        ) {
            let mut session = Session::new(Serialization::Json);
            for round in 0..rounds {
                let first = (round * count) as u32;
                let wanted: Vec<u32> = (first..first + count as u32).collect();
                for token in &wanted {
                    start(&mut session, *token);
                    session.oneway(34).finish(0);
                }
                prop_assert_eq!(session.in_flight(), count);
                let bytes = answers(session.outgoing(), |index| (index + rotate) % count);
                session.sent(session.outgoing().len());
                let mut got = Vec::new();
                let mut rest = &bytes[..];
                for piece in pieces.iter().cycle() {
                    let (now, later) = rest.split_at((*piece).min(rest.len()));
                    receive(&mut session, now);
                    got.extend(tokens(&mut session));
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                got.sort_unstable();
                prop_assert_eq!(got, wanted);
                prop_assert_eq!(session.in_flight(), 0);
            }
            prop_assert!(session.slots.len() <= count);
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut session = Session::<u32>::new(Serialization::Json);
            receive(&mut session, &bytes);
            while let Ok(Some(_)) = session.next_event() {}
        }
    }
}
