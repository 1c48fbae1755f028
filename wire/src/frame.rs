//! One frame: `totalLen | serialization and headerLen | header | body`, all integers big-endian.
//!
//! `totalLen` does not count itself. The serialization of the header is said per frame: requests and responses of one
//! connection may differ. A header is read in one pass, without a copy; `write` holds the other direction.

use crate::code;
use crate::ext::ExtFields;
use crate::scan::{Cursor, Value};
use crate::text::Text;

pub use crate::write::{FrameWriter, Head};

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
    #[error("broken header: expected {0}")]
    Header(&'static str),
}

/// Looks for one frame at the start of `bytes`: `Some(n)` when its `n` bytes (with the length word) are all there, `None`
/// when more must arrive. `max_frame_bytes` bounds `n`.
pub fn split(bytes: &[u8], max_frame_bytes: usize) -> Result<Option<usize>, FrameError> {
    Ok(announced_len(bytes, max_frame_bytes)?.filter(|&len| len <= bytes.len()))
}

/// The number of bytes that the frame at the start of `bytes` will have in all, once its length word is there.
pub fn announced_len(bytes: &[u8], max_frame_bytes: usize) -> Result<Option<usize>, FrameError> {
    let Some(word) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = i64::from(i32::from_be_bytes(*word)) + 4;
    match usize::try_from(len) {
        Ok(len) if len >= 8 && len <= max_frame_bytes => Ok(Some(len)),
        _ => Err(FrameError::Length(len - 4)),
    }
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
        let len = announced_len(bytes, usize::MAX)?;
        let (Some(len), Some((word, rest))) = (
            len,
            bytes
                .get(4..)
                .and_then(|rest| rest.split_first_chunk::<4>()),
        ) else {
            return Err(FrameError::Length(bytes.len() as i64 - 4));
        };
        if len != bytes.len() {
            return Err(FrameError::Length(len as i64 - 4));
        }
        let word = u32::from_be_bytes(*word);
        let header_len = word & 0xFF_FFFF;
        let Some((header, body)) = rest.split_at_checked(header_len as usize) else {
            return Err(FrameError::HeaderLength(header_len));
        };
        match (word >> 24) as u8 {
            0 => Self::parse_json(header, body),
            1 => Self::parse_rocketmq(header, body),
            other => Err(FrameError::Serialization(other)),
        }
    }

    /// Whether this frame answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & 1 != 0
    }

    /// Whether the sender wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & 2 != 0
    }

    fn empty(serialization: Serialization, body: &'a [u8]) -> Self {
        Self {
            serialization,
            code: 0,
            language: 0,
            version: 0,
            opaque: 0,
            flag: 0,
            remark: None,
            ext: ExtFields::EMPTY,
            body,
        }
    }

    fn parse_json(header: &'a [u8], body: &'a [u8]) -> Result<Self, FrameError> {
        let text = std::str::from_utf8(header).map_err(|_| FrameError::Header("UTF-8"))?;
        let mut frame = Self::empty(Serialization::Json, body);
        let mut cursor = Cursor::new(text);
        if !cursor.eat(b'{') {
            return Err(FrameError::Header("an object"));
        }
        let mut code = None;
        let mut first = true;
        while let Some(name) = cursor.name(first)? {
            first = false;
            let unescaped;
            let name = match name.as_plain() {
                Some(name) => name,
                None => {
                    unescaped = name.to_str();
                    &unescaped
                }
            };
            match name {
                "code" => code = int(cursor.value()?)?,
                "language" => frame.language = language(cursor.value()?),
                "version" => frame.version = int(cursor.value()?)?.unwrap_or(0),
                "opaque" => frame.opaque = int(cursor.value()?)?.unwrap_or(0),
                "flag" => frame.flag = int(cursor.value()?)?.unwrap_or(0),
                "remark" => {
                    frame.remark = match cursor.value()? {
                        Value::Text(text) => Some(text),
                        Value::Bare(bare) => Some(Text::plain(bare)),
                        Value::Null | Value::Nested => None,
                    }
                }
                "extFields" if cursor.peek() == Some(b'{') => {
                    frame.ext = ExtFields::json(&mut cursor)?
                }
                _ => {
                    cursor.value()?;
                }
            }
        }
        if !cursor.eat(b'}') || cursor.peek().is_some() {
            return Err(FrameError::Header("the end of the object"));
        }
        frame.code = code.ok_or(FrameError::Header("a code"))?;
        Ok(frame)
    }

    fn parse_rocketmq(header: &'a [u8], body: &'a [u8]) -> Result<Self, FrameError> {
        let mut frame = Self::empty(Serialization::Rocketmq, body);
        let Some((fixed, rest)) = header.split_first_chunk::<17>() else {
            return Err(FrameError::Header("21 bytes"));
        };
        let [
            c0,
            c1,
            language,
            v0,
            v1,
            o0,
            o1,
            o2,
            o3,
            f0,
            f1,
            f2,
            f3,
            r0,
            r1,
            r2,
            r3,
        ] = *fixed;
        frame.language = language;
        frame.version = i32::from(i16::from_be_bytes([v0, v1]));
        frame.opaque = i32::from_be_bytes([o0, o1, o2, o3]);
        frame.flag = i32::from_be_bytes([f0, f1, f2, f3]);
        let code = i16::from_be_bytes([c0, c1]);
        frame.code = if frame.is_response() {
            i32::from(code)
        } else {
            code::widen_request(code)
        };

        let (remark, rest) = take(rest, u32::from_be_bytes([r0, r1, r2, r3]))
            .ok_or(FrameError::Header("the remark"))?;
        if !remark.is_empty() {
            let remark = std::str::from_utf8(remark).map_err(|_| FrameError::Header("UTF-8"))?;
            frame.remark = Some(Text::plain(remark));
        }
        let (ext_len, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(FrameError::Header("the length of the fields"))?;
        let (ext, _) =
            take(rest, u32::from_be_bytes(*ext_len)).ok_or(FrameError::Header("the fields"))?;
        frame.ext = ExtFields::rocketmq(ext)?;
        Ok(frame)
    }
}

/// The first `len` bytes, and the rest; a length above `i32::MAX` never fits.
pub(crate) fn take(bytes: &[u8], len: u32) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(len).ok()?)
}

fn int(value: Value<'_>) -> Result<Option<i32>, FrameError> {
    let parsed = match value {
        Value::Bare(bare) => bare.parse(),
        Value::Text(text) => text.to_str().parse(),
        Value::Null => return Ok(None),
        Value::Nested => return Err(FrameError::Header("an integer")),
    };
    parsed
        .map(Some)
        .map_err(|_| FrameError::Header("an integer"))
}

fn language(value: Value<'_>) -> u8 {
    match value {
        Value::Text(text) => {
            code::language::ordinal(&text.to_str()).unwrap_or(code::language::OTHER)
        }
        Value::Bare(bare) => bare.parse().unwrap_or(code::language::OTHER),
        Value::Null | Value::Nested => code::language::OTHER,
    }
}

#[cfg(test)]
mod tests;
