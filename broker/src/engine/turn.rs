//! How the engine meets its host: one call is one [`Turn`].
//!
//! The host says what time it is, lends the log, and takes what goes out through an [`Output`]. Requests are answered with
//! [`Turn::answer`] and [`Turn::refuse`]; both know about oneway requests, for which nothing is ever written.

use std::borrow::Cow;

use corelane_wire::frame::{Head, Serialization};
use corelane_wire::{FieldError, Frame, FrameWriter, code};

use crate::log::{Log, Slice};

/// The time of a turn, as the host read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch. May go backward.
    pub wall_ms: i64,
    /// Milliseconds since some fixed moment. Never goes backward.
    pub mono_ms: i64,
}

/// One client connection, as the host numbers them. A number is never used twice in the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// What the engine wants of its host beside bytes on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The topics changed: register with every NameServer, and report [`super::Engine::registered`] with this version.
    Register {
        /// The version of the topics that must be registered at least.
        version: u64,
    },
    /// Somebody wants other settings: check them, and report [`super::Engine::configured`].
    Configure {
        /// Who asked.
        to: ReplyTo,
        /// `key=value`, one a line.
        text: String,
    },
    /// Ask a NameServer where a topic is, and report [`super::Engine::on_route`].
    Route {
        /// The topic.
        topic: String,
    },
}

/// Where the bytes of a turn go. Frames of one connection leave in the order in which they were written.
pub trait Output {
    /// The bytes that wait to be sent to a connection; more are appended behind them. A connection that is gone gives a
    /// buffer that nobody sends.
    fn buffer(&mut self, connection: Connection) -> &mut Vec<u8>;
    /// Bytes of the log, to be sent after what `buffer` holds now.
    fn shared(&mut self, connection: Connection, part: Slice);
    /// So many bytes that a connection sent are kept, or unanswered, until [`Output::let_go`]: who has too many of them is
    /// not read from meanwhile.
    fn hold_up(&mut self, connection: Connection, bytes: usize) {
        let _ = (connection, bytes);
    }
    /// The counterpart of [`Output::hold_up`].
    fn let_go(&mut self, connection: Connection, bytes: usize) {
        let _ = (connection, bytes);
    }
    /// Ends a connection after what is queued has been sent.
    fn close(&mut self, connection: Connection);
    /// Anything else.
    fn effect(&mut self, effect: Effect);
}

/// What an answer needs to know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Where the request came from.
    pub connection: Connection,
    /// The number that the sender gave the request.
    pub opaque: i32,
    /// How the request's header was written; its answer mirrors it.
    pub serialization: Serialization,
    /// Whether the sender wants no answer.
    pub oneway: bool,
}

impl ReplyTo {
    /// Whom to answer a frame that came from `connection`.
    pub fn new(connection: Connection, frame: &Frame<'_>) -> Self {
        Self {
            connection,
            opaque: frame.opaque,
            serialization: frame.serialization,
            oneway: frame.is_oneway(),
        }
    }

    /// Starts the frame of an answer at the end of `out`.
    pub fn write<'b>(
        &self,
        out: &'b mut Vec<u8>,
        code: i32,
        remark: Option<&str>,
    ) -> FrameWriter<'b> {
        let head = Head {
            serialization: self.serialization,
            code,
            language: code::language::JAVA,
            version: code::VERSION,
            opaque: self.opaque,
            flag: 1,
            remark,
        };
        FrameWriter::new(out, &head)
    }
}

/// One request, while it is handled.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Whom to answer.
    pub to: ReplyTo,
    /// The request, parsed.
    pub frame: &'a Frame<'a>,
    /// The request as it was received, for whoever has to handle it again.
    pub bytes: &'a [u8],
}

/// Why a request is not served: the protocol's code, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Response code.
    pub code: i32,
    /// What is wrong and what would help.
    pub remark: Cow<'static, str>,
    /// `forbiddenType` of the answer to a pull.
    pub forbidden_type: Option<i32>,
}

impl Refusal {
    /// A refusal with a text.
    pub fn new(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            remark: remark.into(),
            forbidden_type: None,
        }
    }

    /// A pull that is not permitted; the type says what forbids it (`code::forbidden`).
    pub fn forbidden_pull(forbidden_type: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self {
            forbidden_type: Some(forbidden_type),
            ..Self::new(code::response::NO_PERMISSION, remark)
        }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new(
            code::response::SYSTEM_ERROR,
            format!("the request's header cannot be read: {error}"),
        )
    }
}

impl From<corelane_wire::fastjson::BodyError> for Refusal {
    fn from(error: corelane_wire::fastjson::BodyError) -> Self {
        Self::new(
            code::response::SYSTEM_ERROR,
            format!("the request's body cannot be read: {error}"),
        )
    }
}

/// One call of the engine.
pub struct Turn<'a> {
    /// The time of the call.
    pub now: Now,
    /// The log of this shard.
    pub log: &'a mut Log,
    /// Where bytes and wishes go.
    pub out: &'a mut dyn Output,
}

impl Turn<'_> {
    /// Answers with a code, fields and a body.
    pub fn answer(
        &mut self,
        to: ReplyTo,
        code: i32,
        remark: Option<&str>,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) {
        if to.oneway {
            return;
        }
        let mut writer = to.write(self.out.buffer(to.connection), code, remark);
        fields(&mut writer);
        writer.finish_with(body);
    }

    /// Answers SUCCESS with a body and no fields.
    pub fn answer_body(&mut self, to: ReplyTo, body: &[u8]) {
        self.answer(to, code::response::SUCCESS, None, |_| {}, body);
    }

    /// Answers SUCCESS with nothing else.
    pub fn answer_ok(&mut self, to: ReplyTo) {
        self.answer_body(to, &[]);
    }

    /// Answers with a refusal.
    pub fn refuse(&mut self, to: ReplyTo, refusal: &Refusal) {
        let fields = |fields: &mut FrameWriter<'_>| {
            if let Some(kind) = refusal.forbidden_type {
                fields.int_field("forbiddenType", kind.into());
            }
        };
        self.answer(to, refusal.code, Some(&refusal.remark), fields, &[]);
    }

    /// Sends a request of our own that wants no answer.
    pub fn notify(
        &mut self,
        connection: Connection,
        opaque: i32,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) {
        self.send(connection, opaque, code, 2, fields, body);
    }

    /// Sends a request of our own that wants an answer (see `calls`).
    pub fn request(
        &mut self,
        connection: Connection,
        opaque: i32,
        code: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) {
        self.send(connection, opaque, code, 0, fields, body);
    }

    fn send(
        &mut self,
        connection: Connection,
        opaque: i32,
        code: i32,
        flag: i32,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) {
        let head = Head {
            serialization: Serialization::Json,
            code,
            language: code::language::JAVA,
            version: code::VERSION,
            opaque,
            flag,
            remark: None,
        };
        let mut writer = FrameWriter::new(self.out.buffer(connection), &head);
        fields(&mut writer);
        writer.finish_with(body);
    }
}
