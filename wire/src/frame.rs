//! One frame: `totalLen | serialization and headerLen | header | body`, all integers big-endian.
//!
//! `totalLen` does not count itself. The serialization of the header is said per frame: requests and responses of one
//! connection may differ.

use crate::ext::ExtFields;
use crate::text::Text;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Serialization {
    /// A JSON object.
    #[default]
    Json = 0,
    /// The compact binary form. Codes above 32,767 do not fit in it.
    Rocketmq = 1,
}

/// Why bytes are not a frame. The connection that sent them cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative, too small for a frame, or above the bound.
    #[error("frame of {0} bytes is out of bounds")]
    Length(i64),
    /// The header is longer than the frame.
    #[error("header of {0} bytes does not fit its frame")]
    HeaderLength(u32),
    /// The serialization is neither JSON nor ROCKETMQ.
    #[error("unknown header serialization {0}")]
    Serialization(u8),
    /// The header does not parse; the text says what was expected.
    #[error("broken header: {0}")]
    Header(&'static str),
}

/// Looks for one frame at the start of `bytes`: `Some(n)` when its `n` bytes (with the length word) are all there, `None`
/// when more must arrive. `max_frame_bytes` bounds `n`.
pub fn split(bytes: &[u8], max_frame_bytes: usize) -> Result<Option<usize>, FrameError> {
    let _ = (bytes, max_frame_bytes);
    todo!()
}

/// The number of bytes that the frame at the start of `bytes` will have in all, once its length word is there.
pub fn announced_len(bytes: &[u8], max_frame_bytes: usize) -> Result<Option<usize>, FrameError> {
    let _ = (bytes, max_frame_bytes);
    todo!()
}

/// A parsed frame. Borrows from the bytes it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// How the header was written; an answer mirrors it.
    pub serialization: Serialization,
    /// Request code, or response code where [`Frame::is_response`].
    pub code: i32,
    /// Language ordinal (0 = Java); unknown names count as 7 (OTHER).
    pub language: u8,
    /// The sender's `MQVersion` ordinal.
    pub version: i32,
    /// Chosen by the sender of a request, echoed in its response.
    pub opaque: i32,
    /// Bit 0: response; bit 1: oneway.
    pub flag: i32,
    /// Human text of an error.
    pub remark: Option<Text<'a>>,
    /// The fields of the request or response.
    pub ext: ExtFields<'a>,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Parses exactly one frame, length word included (see [`split`]).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let _ = bytes;
        todo!()
    }

    /// Whether this frame answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & 1 != 0
    }

    /// Whether the sender wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & 2 != 0
    }
}

/// What a frame says beside its fields and its body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// How to write the header. A code that does not fit ROCKETMQ is written as JSON.
    pub serialization: Serialization,
    /// Request or response code.
    pub code: i32,
    /// Language ordinal.
    pub language: u8,
    /// `MQVersion` ordinal.
    pub version: i32,
    /// See [`Frame::opaque`].
    pub opaque: i32,
    /// See [`Frame::flag`].
    pub flag: i32,
    /// Human text of an error.
    pub remark: Option<&'a str>,
}

/// Writes one frame to the end of a buffer: head, then fields in any number, then the length of the body.
/// A writer that is dropped without `finish` leaves the buffer as it was.
pub struct FrameWriter<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    // further state of the writer
}

impl<'b> FrameWriter<'b> {
    /// Starts a frame at the end of `out`.
    pub fn new(out: &'b mut Vec<u8>, head: &Head<'_>) -> Self {
        let _ = head;
        let start = out.len();
        Self { out, start }
    }

    /// Adds one field.
    pub fn field(&mut self, name: &str, value: &str) {
        let _ = (name, value);
        todo!()
    }

    /// Adds one integer field.
    pub fn int_field(&mut self, name: &str, value: i64) {
        let _ = (name, value);
        todo!()
    }

    /// Ends the header. The caller sends `body_len` bytes after it: behind it in the same buffer or from elsewhere.
    pub fn finish(self, body_len: usize) {
        let _ = (body_len, self.start, self.out);
        todo!()
    }

    /// Ends the header and appends the body.
    pub fn finish_with(self, body: &[u8]) {
        let _ = body;
        todo!()
    }
}
