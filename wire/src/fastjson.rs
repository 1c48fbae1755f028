//! The JSON that Java's fastjson writes, and standard JSON: from one to the other.
//!
//! fastjson leaves integer keys unquoted (`{0:"a"}`) and writes keys that are objects as objects (`{{"queueId":0}:1}`).
//! [`to_standard`] quotes both; an object becomes a string that holds its text. In the other direction [`Keys`] says whether
//! integer keys are quoted, and [`push_object_keyed`] writes maps whose keys are objects.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// How deep a body may nest.
pub const MAX_DEPTH: usize = 64;

/// Why bytes are not JSON, or not the JSON that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The text breaks off or has a bracket where none may be; the byte where that was seen.
    #[error("broken JSON at byte {0}")]
    Syntax(usize),
    /// It nests deeper than [`MAX_DEPTH`].
    #[error("JSON nests deeper than {MAX_DEPTH}")]
    Depth,
    /// A value is not what the body has there.
    #[error("unexpected JSON: {0}")]
    Value(#[from] serde_json::Error),
    /// The compressed body is broken or inflates beyond its bound.
    #[error("broken compressed body: {0}")]
    Compressed(&'static str),
}

/// Reads a value from fastjson's text. Members that are `null` are as if they were not there.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, BodyError> {
    Ok(serde_json::from_slice(&to_standard(json)?)?)
}

/// Standard JSON for fastjson's: keys quoted, members that are `null` left out. Syntax is checked only as far as that needs;
/// takes linear time and at most twice the room, plus what escaping the keys adds.
pub fn to_standard(json: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut rewriter = Rewriter {
        json,
        at: 0,
        out: Vec::with_capacity(json.len() + json.len() / 8),
        open: Vec::new(),
    };
    rewriter.value()?;
    while !rewriter.open.is_empty() {
        rewriter.step()?;
    }
    match rewriter.peek() {
        None => Ok(rewriter.out),
        Some(_) => Err(BodyError::Syntax(rewriter.at)),
    }
}

struct Rewriter<'a> {
    json: &'a [u8],
    at: usize,
    out: Vec<u8>,
    open: Vec<Open>,
}

/// An object or an array that is not closed yet.
struct Open {
    is_object: bool,
    is_empty: bool,
    /// Whether something was written into it.
    has_written: bool,
}

impl Rewriter<'_> {
    /// One member or item of the innermost object or array, or its end.
    fn step(&mut self) -> Result<(), BodyError> {
        let at = self.at;
        let byte = self.peek().ok_or(BodyError::Syntax(at))?;
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        let (is_object, has_written) = (open.is_object, open.has_written);
        if byte == if is_object { b'}' } else { b']' } {
            self.at += 1;
            self.out.push(byte);
            self.open.pop();
            return Ok(());
        }
        if !open.is_empty {
            if byte != b',' {
                return Err(BodyError::Syntax(self.at));
            }
            self.at += 1;
        }
        open.is_empty = false;
        let before = self.out.len();
        if has_written {
            self.out.push(b',');
        }
        if is_object {
            self.key()?;
            if self.peek() != Some(b':') {
                return Err(BodyError::Syntax(self.at));
            }
            self.at += 1;
            self.out.push(b':');
            if self.peek() == Some(b'n') && self.json[self.at..].starts_with(b"null") {
                self.at += 4;
                self.out.truncate(before);
                return Ok(());
            }
        }
        if let Some(open) = self.open.last_mut() {
            open.has_written = true;
        }
        self.value()
    }

    /// A scalar, or the opening of an object or array.
    fn value(&mut self) -> Result<(), BodyError> {
        match self.peek() {
            Some(byte @ (b'{' | b'[')) => {
                if self.open.len() == MAX_DEPTH {
                    return Err(BodyError::Depth);
                }
                self.open.push(Open {
                    is_object: byte == b'{',
                    is_empty: true,
                    has_written: false,
                });
                self.at += 1;
                self.out.push(byte);
                Ok(())
            }
            Some(b'"') => self.copy_string(),
            _ => self.copy_word(),
        }
    }

    fn key(&mut self) -> Result<(), BodyError> {
        match self.peek() {
            Some(b'"') => self.copy_string()?,
            Some(b'{') => {
                let from = self.at;
                self.skip_object()?;
                self.out.push(b'"');
                for &byte in &self.json[from..self.at] {
                    match byte {
                        b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                        b'\n' | b'\r' | b'\t' => self.out.push(b' '),
                        _ => self.out.push(byte),
                    }
                }
                self.out.push(b'"');
            }
            _ => {
                self.out.push(b'"');
                self.copy_word()?;
                self.out.push(b'"');
            }
        }
        Ok(())
    }

    /// Copies a number, a literal, or a name without quotes.
    fn copy_word(&mut self) -> Result<(), BodyError> {
        let from = self.at;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'+' | b'.' | b'_' | b'$') =
            self.json.get(self.at)
        {
            self.at += 1;
        }
        if from == self.at {
            return Err(BodyError::Syntax(from));
        }
        self.out.extend_from_slice(&self.json[from..self.at]);
        Ok(())
    }

    fn copy_string(&mut self) -> Result<(), BodyError> {
        let from = self.at;
        self.skip_string()?;
        self.out.extend_from_slice(&self.json[from..self.at]);
        Ok(())
    }

    /// Passes the string whose opening quote comes next.
    fn skip_string(&mut self) -> Result<(), BodyError> {
        let from = self.at;
        self.at += 1;
        loop {
            match self.json.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(BodyError::Syntax(from)),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Passes the object whose opening brace comes next.
    fn skip_object(&mut self) -> Result<(), BodyError> {
        let mut depth = 0;
        loop {
            match self.json.get(self.at) {
                Some(b'"') => {
                    self.skip_string()?;
                    continue;
                }
                Some(b'{') if self.open.len() + depth == MAX_DEPTH => return Err(BodyError::Depth),
                Some(b'{') => depth += 1,
                Some(b'}') => depth -= 1,
                Some(_) => {}
                None => return Err(BodyError::Syntax(self.at)),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.json.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }
}

/// How integer keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    /// `{"0":...}`: standard JSON.
    #[default]
    Quoted,
    /// `{0:...}`: as fastjson writes them, for clients that expect it.
    Bare,
}

/// Appends `value` as JSON.
pub fn push<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T, keys: Keys) {
    let before = out.len();
    let written = match keys {
        Keys::Quoted => serde_json::to_writer(&mut *out, value),
        Keys::Bare => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut *out,
            BareKeys::default(),
        )),
    };
    // A Vec takes every byte; what fails is a type that JSON cannot express, and the bodies have none.
    if written.is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

/// Appends a map whose keys are objects, in fastjson's form.
pub fn push_object_keyed<K: Serialize, V: Serialize>(
    out: &mut Vec<u8>,
    entries: impl IntoIterator<Item = (K, V)>,
) {
    out.push(b'{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, &key, Keys::Quoted);
        out.push(b':');
        push(out, &value, Keys::Bare);
    }
    out.push(b'}');
}

/// Leaves the quotes of integer keys out. Whether a key is an integer is known only after its quote was to be written, so the quote
/// waits.
#[derive(Default)]
struct BareKeys {
    in_key: bool,
    quote_waits: bool,
    bare: bool,
}

impl BareKeys {
    fn quote_if_waiting<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match std::mem::take(&mut self.quote_waits) {
            true => writer.write_all(b"\""),
            false => Ok(()),
        }
    }

    fn leave_quotes_out(&mut self) {
        self.bare = std::mem::take(&mut self.quote_waits);
    }
}

impl Formatter for BareKeys {
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.in_key = true;
        CompactFormatter.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.in_key = false;
        Ok(())
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.quote_waits = true;
        if self.in_key {
            Ok(())
        } else {
            self.quote_if_waiting(writer)
        }
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.quote_if_waiting(writer)?;
        match std::mem::take(&mut self.bare) {
            true => Ok(()),
            false => writer.write_all(b"\""),
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.quote_if_waiting(writer)?;
        CompactFormatter.write_string_fragment(writer, fragment)
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.quote_if_waiting(writer)?;
        CompactFormatter.write_char_escape(writer, escape)
    }

    fn write_i32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i32) -> io::Result<()> {
        self.leave_quotes_out();
        CompactFormatter.write_i32(writer, value)
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.leave_quotes_out();
        CompactFormatter.write_i64(writer, value)
    }
}

#[cfg(test)]
mod tests;
