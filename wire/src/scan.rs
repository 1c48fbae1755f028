//! JSON as headers need it: a cursor over valid UTF-8 that checks syntax in one pass and gives back slices.
//!
//! It never recurses: nesting is bounded by [`MAX_DEPTH`], and everything below a header's members is only skipped.
//! Raw control characters inside strings are let through, as fastjson does.

use crate::frame::FrameError;
use crate::text::{Text, hex4};

/// How deep the members of a header may nest. Real headers have two levels.
const MAX_DEPTH: u32 = 32;

/// One value of a header's member or field.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// A number, `true` or `false`, as written.
    Bare(&'a str),
    Null,
    /// An object or an array.
    Nested,
}

/// A position in a JSON text.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

type Scan<T> = Result<T, FrameError>;

fn broken<T>(expected: &'static str) -> Scan<T> {
    Err(FrameError::Header(expected))
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// All of the text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The next byte that is not white space, without passing it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Passes `byte` if it is what comes next.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The name of the next member of an object, the comma before it and the colon after it passed; `None` at the object's
    /// end, which is the closing brace (not passed) or the end of the text.
    #[inline]
    pub(crate) fn name(&mut self, first: bool) -> Scan<Option<Text<'a>>> {
        match self.peek() {
            None | Some(b'}') => return Ok(None),
            Some(b',') if !first => self.at += 1,
            _ if first => {}
            _ => return broken("a comma between members"),
        }
        if self.peek() != Some(b'"') {
            return broken("a member's name");
        }
        let name = self.string()?;
        if !self.eat(b':') {
            return broken("a colon after a member's name");
        }
        Ok(Some(name))
    }

    /// Passes a member whose name and value are strings without escapes and that has no white space, as senders write most
    /// of them; anything else is left to the general way.
    #[inline]
    fn compact_member(&mut self, first: bool) -> Option<(&'a str, &'a str)> {
        let bytes = self.text.as_bytes();
        let open = match first {
            true => self.at,
            false if bytes.get(self.at) == Some(&b',') => self.at + 1,
            false => return None,
        };
        if bytes.get(open) != Some(&b'"') {
            return None;
        }
        let name_end = find_quote_or_backslash(bytes, open + 1);
        if bytes.get(name_end..)?.first_chunk() != Some(b"\":\"") {
            return None;
        }
        let value_at = name_end + 3;
        let value_end = find_quote_or_backslash(bytes, value_at);
        if bytes.get(value_end) != Some(&b'"') {
            return None;
        }
        let member = (
            self.text.get(open + 1..name_end)?,
            self.text.get(value_at..value_end)?,
        );
        self.at = value_end + 1;
        Some(member)
    }

    /// The value that comes next.
    #[inline]
    pub(crate) fn value(&mut self) -> Scan<Value<'a>> {
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{' | b'[') => {
                self.skip_nested()?;
                Ok(Value::Nested)
            }
            _ => self.bare(),
        }
    }

    /// Checks the members of the object whose opening brace comes next, shows them to `seen`, and gives the text between
    /// its braces.
    #[inline]
    pub(crate) fn object(&mut self, mut seen: impl FnMut(Text<'a>, Value<'a>)) -> Scan<&'a str> {
        if !self.eat(b'{') {
            return broken("an opening brace");
        }
        let from = self.at;
        let mut first = true;
        loop {
            if let Some((name, value)) = self.compact_member(first) {
                seen(Text::plain(name), Value::Text(Text::plain(value)));
            } else if let Some(name) = self.name(first)? {
                seen(name, self.value()?);
            } else {
                break;
            }
            first = false;
        }
        let inside = self.slice(from, self.at);
        if !self.eat(b'}') {
            return broken("a closing brace");
        }
        Ok(inside)
    }

    fn bare(&mut self) -> Scan<Value<'a>> {
        let bytes = self.text.as_bytes();
        let from = self.at;
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z' | b'E') = bytes.get(self.at) {
            self.at += 1;
        }
        let word = self.slice(from, self.at);
        match word {
            "null" => Ok(Value::Null),
            "true" | "false" => Ok(Value::Bare(word)),
            _ if is_number(word.as_bytes()) => Ok(Value::Bare(word)),
            _ => broken("a value"),
        }
    }

    /// The string whose opening quote comes next.
    #[inline]
    fn string(&mut self) -> Scan<Text<'a>> {
        let from = self.at + 1;
        let at = find_quote_or_backslash(self.text.as_bytes(), from);
        if self.text.as_bytes().get(at) == Some(&b'"') {
            self.at = at + 1;
            return Ok(Text::plain(self.slice(from, at)));
        }
        self.escaped_string(from, at)
    }

    /// The rest of a string that begins at `from` and has its first escape at `at`.
    fn escaped_string(&mut self, from: usize, mut at: usize) -> Scan<Text<'a>> {
        let bytes = self.text.as_bytes();
        loop {
            at = find_quote_or_backslash(bytes, at);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(_) => {
                    at += match bytes.get(at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') if hex4(bytes.get(at + 2..)).is_some() => 6,
                        _ => return broken("a valid escape"),
                    };
                }
                None => return broken("the end of a string"),
            }
        }
        self.at = at + 1;
        Ok(Text::escaped(self.slice(from, at)))
    }

    /// Passes the object or array that comes next. Of what is in it, strings, brackets and the bounds of depth are checked.
    fn skip_nested(&mut self) -> Scan<()> {
        let mut closers = 0u64;
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return broken("less nesting");
                    }
                    depth += 1;
                    closers = closers << 1 | u64::from(open == b'{');
                    self.at += 1;
                }
                Some(close @ (b'}' | b']')) => {
                    if (closers & 1 == 1) != (close == b'}') {
                        return broken("brackets in pairs");
                    }
                    depth -= 1;
                    closers >>= 1;
                    self.at += 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b',' | b':') => self.at += 1,
                Some(_) => {
                    self.bare()?;
                }
                None => return broken("a closing bracket"),
            }
        }
    }

    #[inline]
    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }
}

fn is_number(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    digits.first().is_some_and(u8::is_ascii_digit)
        && digits
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
}

/// The index of the next quote or backslash at or after `at`, or the length: eight bytes at a time, since most of a header is
/// inside strings.
#[inline]
fn find_quote_or_backslash(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let hits = bytes_equal(word, b'"') | bytes_equal(word, b'\\');
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|b| !matches!(b, b'"' | b'\\')) {
        at += 1;
    }
    at.min(bytes.len())
}

/// One in every byte.
const LOW: u64 = 0x0101_0101_0101_0101;

/// The high bit of every byte of `word` that equals `byte`; bits above the lowest such byte may be wrong.
#[inline]
pub(crate) fn bytes_equal(word: u64, byte: u8) -> u64 {
    let diff = word ^ (LOW * u64::from(byte));
    diff.wrapping_sub(LOW) & !diff & (LOW << 7)
}

/// Not zero where a byte of the word is a control character; the lowest that is marked is the first of them.
#[inline]
pub(crate) fn bytes_below_blank(word: u64) -> u64 {
    word.wrapping_sub(LOW * 0x20) & !word & (LOW << 7)
}
