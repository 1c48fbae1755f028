//! A blocking connection: one session over one TCP stream, every wait with a deadline.
//!
//! [`Connection::call`] sends a request and waits for its answer. [`Connection::start`] and [`Connection::next_reply`] keep
//! several in flight. Requests of the server that come in between are kept, up to a bound, for
//! [`Connection::take_request`]. After a time-out the connection goes on: the late answer is dropped when it comes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::time::{Duration, Instant};

use corelane_wire::code::response;
use corelane_wire::frame::Serialization;
use corelane_wire::{ExtHeader, Frame, FrameWriter};

use crate::error::ClientError;
use crate::session::{Event, Session};

/// How many requests of the server are kept; the oldest goes.
const KEPT_REQUESTS: usize = 1024;

const RECEIVE_BYTES: usize = 64 * 1024;

/// A request without fields.
pub fn no_fields(_: &mut FrameWriter<'_>) {}

/// One connection to a NameServer or a broker. `T` is what a caller wants back with an answer of a request that it only
/// started; callers of [`Connection::call`] take any.
#[derive(Debug)]
pub struct Connection<T = ()> {
    address: String,
    stream: TcpStream,
    session: Session<Waiting<T>>,
    requests: VecDeque<Vec<u8>>,
    // Answers to started requests that came while something else was waited for, and the one that was given out last.
    early: VecDeque<(T, Vec<u8>)>,
    given: Vec<u8>,
}

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting<T> {
    Call,
    Started(T),
}

/// Who waited for an answer, and where its frame lies in the session.
type Answer<T> = (Waiting<T>, Range<usize>);

/// The answer to a request that was started.
#[derive(Debug)]
pub struct Reply<'a, T> {
    /// What the request was started with.
    pub token: T,
    /// The answer, whatever its code is.
    pub frame: Frame<'a>,
}

impl<T> Connection<T> {
    /// Connects to `host:port`.
    pub fn open(address: &str, timeout: Duration) -> Result<Self, ClientError> {
        Self::open_with(address, timeout, Serialization::Json)
    }

    /// Connects, and writes headers in this form.
    pub fn open_with(
        address: &str,
        timeout: Duration,
        serialization: Serialization,
    ) -> Result<Self, ClientError> {
        let unreachable = |reason: String| ClientError::Address {
            address: address.to_owned(),
            reason,
        };
        let candidates = address
            .to_socket_addrs()
            .map_err(|error| unreachable(error.to_string()))?;
        let mut outcome = Err(unreachable("the name has no address".to_owned()));
        for candidate in candidates {
            match TcpStream::connect_timeout(&candidate, timeout.max(Duration::from_millis(1))) {
                Ok(stream) => {
                    outcome = Ok(stream);
                    break;
                }
                Err(source) => {
                    outcome = Err(ClientError::Connect {
                        address: address.to_owned(),
                        source,
                    })
                }
            }
        }
        let connection = Self {
            address: address.to_owned(),
            stream: outcome?,
            session: Session::new(serialization),
            requests: VecDeque::new(),
            early: VecDeque::new(),
            given: Vec::new(),
        };
        connection
            .stream
            .set_nodelay(true)
            .map_err(|source| connection.broken(source))?;
        Ok(connection)
    }

    /// What it was opened with.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request and waits for its answer, whatever its code is.
    pub fn call(
        &mut self,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
        timeout: Duration,
    ) -> Result<Frame<'_>, ClientError> {
        let deadline = Instant::now() + timeout;
        let (opaque, mut writer) = self.session.request(code, Waiting::Call)?;
        fields(&mut writer);
        writer.finish_with(body);
        match self
            .flush(deadline, timeout)
            .and_then(|()| self.wait_for_call(deadline, timeout))
        {
            Ok(frame) => self.parse(frame),
            Err(error) => {
                self.session.forget(opaque);
                Err(error)
            }
        }
    }

    /// Sends a request and waits for SUCCESS; another code is [`ClientError::Refused`].
    pub fn request(
        &mut self,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
        timeout: Duration,
    ) -> Result<Frame<'_>, ClientError> {
        let address = self.address.clone();
        let frame = self.call(code, fields, body, timeout)?;
        accept(&address, &frame)?;
        Ok(frame)
    }

    /// Sends a request with a typed header, and reads a typed header out of the answer.
    pub fn ask<'q, 'r, Q: ExtHeader<'q>, R: ExtHeader<'r>>(
        &'r mut self,
        code: i32,
        header: &Q,
        timeout: Duration,
    ) -> Result<R, ClientError> {
        let address = self.address.clone();
        let frame = self.request(code, |writer| header.encode(writer), &[], timeout)?;
        R::decode(&frame.ext).map_err(|error| ClientError::field(&address, &error))
    }

    /// Sends a request that is not answered.
    pub fn oneway(
        &mut self,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let mut writer = self.session.oneway(code);
        fields(&mut writer);
        writer.finish_with(body);
        self.flush(Instant::now() + timeout, timeout)
    }

    /// Puts a request on its way without waiting; [`Connection::next_reply`] gives `token` back. It leaves with the next
    /// call that waits, or with [`Connection::push`].
    pub fn start(
        &mut self,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
        token: T,
    ) -> Result<(), ClientError> {
        let (_, mut writer) = self.session.request(code, Waiting::Started(token))?;
        fields(&mut writer);
        writer.finish_with(body);
        Ok(())
    }

    /// Sends what was started.
    pub fn push(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.flush(Instant::now() + timeout, timeout)
    }

    /// The next answer to a request that was started; `None` when none came in time.
    pub fn next_reply(&mut self, timeout: Duration) -> Result<Option<Reply<'_, T>>, ClientError> {
        let deadline = Instant::now() + timeout;
        self.flush(deadline, timeout)?;
        if let Some((token, frame)) = self.early.pop_front() {
            self.given = frame;
            let frame = Frame::parse(&self.given).map_err(|source| ClientError::Frame {
                address: self.address.clone(),
                source,
            })?;
            return Ok(Some(Reply { token, frame }));
        }
        loop {
            match self.next_answer()? {
                Some((Waiting::Started(token), frame)) => {
                    return Ok(Some(Reply {
                        token,
                        frame: self.parse(frame)?,
                    }));
                }
                Some((Waiting::Call, _)) => {}
                None if self.receive(deadline)? => {}
                None => return Ok(None),
            }
        }
    }

    /// The oldest request of the server that nobody has looked at: one whole frame.
    pub fn take_request(&mut self) -> Option<Vec<u8>> {
        self.requests.pop_front()
    }

    /// Waits for a request of the server; `None` when none came in time.
    pub fn next_request(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, ClientError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(request) = self.take_request() {
                return Ok(Some(request));
            }
            match self.next_answer()? {
                Some((Waiting::Started(token), frame)) => self.keep(token, frame),
                Some((Waiting::Call, _)) => {}
                None if self.receive(deadline)? => {}
                None => return Ok(self.take_request()),
            }
        }
    }

    /// Answers a request of the server.
    pub fn respond(
        &mut self,
        opaque: i32,
        code: i32,
        body: &[u8],
        timeout: Duration,
    ) -> Result<(), ClientError> {
        self.session.respond(opaque, code).finish_with(body);
        self.flush(Instant::now() + timeout, timeout)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8], timeout: Duration) -> Result<(), ClientError> {
        self.session.raw(bytes);
        self.flush(Instant::now() + timeout, timeout)
    }

    fn wait_for_call(
        &mut self,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Range<usize>, ClientError> {
        loop {
            match self.next_answer()? {
                Some((Waiting::Call, frame)) => return Ok(frame),
                Some((Waiting::Started(token), frame)) => self.keep(token, frame),
                None if self.receive(deadline)? => {}
                None => return Err(self.timed_out(timeout)),
            }
        }
    }

    fn next_answer(&mut self) -> Result<Option<Answer<T>>, ClientError> {
        loop {
            match self.session.next_event() {
                Ok(Some(Event::Response { token, frame })) => return Ok(Some((token, frame))),
                Ok(Some(Event::Request { frame })) => {
                    if self.requests.len() == KEPT_REQUESTS {
                        self.requests.pop_front();
                    }
                    self.requests.push_back(self.session.frame(frame).to_vec());
                }
                Ok(None) => return Ok(None),
                Err(source) => {
                    return Err(ClientError::Frame {
                        address: self.address.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Keeps an answer for [`Connection::next_reply`]. There are never more of them than requests were started.
    fn keep(&mut self, token: T, frame: Range<usize>) {
        self.early
            .push_back((token, self.session.frame(frame).to_vec()));
    }

    fn parse(&self, frame: Range<usize>) -> Result<Frame<'_>, ClientError> {
        Frame::parse(self.session.frame(frame)).map_err(|source| ClientError::Frame {
            address: self.address.clone(),
            source,
        })
    }

    fn flush(&mut self, deadline: Instant, timeout: Duration) -> Result<(), ClientError> {
        let mut sent = 0;
        let outcome = loop {
            let rest = &self.session.outgoing()[sent..];
            if rest.is_empty() {
                break Ok(());
            }
            let Some(left) = time_left(deadline) else {
                break Err(self.timed_out(timeout));
            };
            let written = self
                .stream
                .set_write_timeout(Some(left))
                .and_then(|()| self.stream.write(rest));
            match written {
                Ok(0) => {
                    break Err(ClientError::Closed {
                        address: self.address.clone(),
                    });
                }
                Ok(bytes) => sent += bytes,
                Err(error) if is_wait(&error) => {}
                Err(source) => break Err(self.broken(source)),
            }
        };
        self.session.sent(sent);
        outcome
    }

    /// Receives once; `false` when nothing came in time.
    fn receive(&mut self, deadline: Instant) -> Result<bool, ClientError> {
        while let Some(left) = time_left(deadline) {
            let room = self.session.space(RECEIVE_BYTES);
            match self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(room))
            {
                Ok(0) => {
                    return Err(ClientError::Closed {
                        address: self.address.clone(),
                    });
                }
                Ok(bytes) => {
                    self.session.received(bytes);
                    return Ok(true);
                }
                Err(error) if is_wait(&error) => {}
                Err(source) => return Err(self.broken(source)),
            }
        }
        Ok(false)
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken {
            address: self.address.clone(),
            source,
        }
    }

    fn timed_out(&self, waited: Duration) -> ClientError {
        ClientError::TimedOut {
            address: self.address.clone(),
            waited,
        }
    }
}

/// An error unless the frame says SUCCESS.
pub(crate) fn accept(address: &str, frame: &Frame<'_>) -> Result<(), ClientError> {
    if frame.code == response::SUCCESS {
        return Ok(());
    }
    let remark = frame
        .remark
        .map(|remark| remark.to_str().into_owned())
        .unwrap_or_default();
    Err(ClientError::Refused {
        address: address.to_owned(),
        code: frame.code,
        remark,
    })
}

fn time_left(deadline: Instant) -> Option<Duration> {
    // A time-out of zero would mean none at all.
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| *left >= Duration::from_micros(1))
}

fn is_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::testing::{head, serve};

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn calls_are_answered_and_requests_kept() {
        let address = serve(|frame, out| {
            FrameWriter::new(out, &head(1, 40, 2, None)).finish(0);
            FrameWriter::new(out, &head(frame.opaque, 0, 1, None)).finish_with(frame.body);
        });
        let mut connection = Connection::<()>::open(&address, SOON).unwrap();
        let frame = connection.request(10, no_fields, b"one", SOON).unwrap();
        assert_eq!(frame.body, b"one");
        let request = connection.take_request().unwrap();
        assert_eq!(Frame::parse(&request).unwrap().code, 40);
        assert!(connection.take_request().is_none());
    }

    #[test]
    fn started_requests_come_back_with_their_tokens() {
        let address = serve(|frame, out| {
            FrameWriter::new(out, &head(frame.opaque, 0, 1, None)).finish_with(frame.body);
        });
        let mut connection = Connection::open(&address, SOON).unwrap();
        for token in 0u8..50 {
            connection.start(11, no_fields, &[token], token).unwrap();
        }
        for _ in 0..50 {
            let reply = connection.next_reply(SOON).unwrap().unwrap();
            assert_eq!(reply.frame.body, [reply.token]);
        }
        assert!(
            connection
                .next_reply(Duration::from_millis(20))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_refusal_says_code_and_first_line() {
        let address = serve(|frame, out| {
            FrameWriter::new(out, &head(frame.opaque, 17, 1, Some("no topic\nat java"))).finish(0);
        });
        let mut connection = Connection::<()>::open(&address, SOON).unwrap();
        let error = connection.request(105, no_fields, &[], SOON).unwrap_err();
        assert_eq!(error.code(), Some(17));
        assert_eq!(
            error.to_string(),
            format!("{address} answered 17 TOPIC_NOT_EXIST: no topic")
        );
    }

    #[test]
    fn silence_ends_in_time_and_the_late_answer_is_dropped() {
        let address = serve(|frame, out| {
            // The first request, whose opaque is 0, is answered with the second.
            if frame.code == 2 {
                FrameWriter::new(out, &head(0, 0, 1, None)).finish_with(b"late");
                FrameWriter::new(out, &head(frame.opaque, 0, 1, None)).finish_with(b"right");
            }
        });
        let mut connection = Connection::<()>::open(&address, SOON).unwrap();
        let error = connection
            .call(1, no_fields, &[], Duration::from_millis(30))
            .unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
        let frame = connection.call(2, no_fields, &[], SOON).unwrap();
        assert_eq!(frame.body, b"right");
    }

    #[test]
    fn nobody_there_is_said() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let error = Connection::<()>::open(&free, SOON).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot connect to {free}")),
            "{error}"
        );
        assert!(Connection::<()>::open("no-such-host.invalid:1", SOON).is_err());
    }
}
