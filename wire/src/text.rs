//! A string as it stands in a header: plain UTF-8, or still escaped as JSON writes it.
//!
//! Header values are looked at far more often than they are copied, so a value stays where it was received until
//! somebody writes it elsewhere; that is when the escapes are undone.
//!
//! Invariant: where `escaped` is set, `raw` is the inside of a JSON string whose escapes were validated. A lone surrogate
//! (`\ud800` without its other half) is a valid escape and stands for U+FFFD.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use crate::scan::bytes_equal;

/// A borrowed header value. `raw` is UTF-8; where `escaped` is set it is the inside of a valid JSON string.
#[derive(Clone, Copy, Default)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A value without escapes.
    pub const fn plain(raw: &'a str) -> Self {
        Self {
            raw,
            escaped: false,
        }
    }

    /// The inside of a JSON string that the caller has validated, with at least one backslash in it.
    pub(crate) const fn escaped(raw: &'a str) -> Self {
        Self { raw, escaped: true }
    }

    /// A part of this text, `from..to` in raw bytes, that cuts no escape in two.
    #[inline]
    pub(crate) fn slice(&self, from: usize, to: usize) -> Self {
        let raw = self.raw.get(from..to).unwrap_or_default();
        Self {
            raw,
            escaped: self.escaped && raw.as_bytes().contains(&b'\\'),
        }
    }

    /// The bytes as they stand in the header.
    #[inline]
    pub(crate) fn raw(&self) -> &'a str {
        self.raw
    }

    /// Whether the value still has escapes, so that a copy is needed to read it as one `str`.
    pub fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The value without escapes; allocates only where there were some.
    pub fn to_str(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut owned = String::with_capacity(self.raw.len());
        self.push_str_to(&mut owned);
        Cow::Owned(owned)
    }

    /// The value, where it has no escapes.
    pub fn as_plain(&self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// How many bytes `write_to` will write.
    #[inline]
    pub fn len(&self) -> usize {
        if !self.escaped {
            return self.raw.len();
        }
        self.pieces()
            .map(|piece| match piece {
                Piece::Run(run) => run.len(),
                Piece::Char(c) => c.len_utf8(),
            })
            .sum()
    }

    /// Whether the value is the empty string.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Writes the unescaped bytes to the start of `dst` and returns how many; `dst` holds at least [`Text::len`] bytes.
    pub fn write_to(&self, dst: &mut [u8]) -> usize {
        if !self.escaped {
            dst[..self.raw.len()].copy_from_slice(self.raw.as_bytes());
            return self.raw.len();
        }
        let mut at = 0;
        for piece in self.pieces() {
            at += match piece {
                Piece::Run(run) => {
                    dst[at..at + run.len()].copy_from_slice(run.as_bytes());
                    run.len()
                }
                Piece::Char(c) => c.encode_utf8(&mut dst[at..]).len(),
            };
        }
        at
    }

    /// Appends the unescaped bytes.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        for piece in self.pieces() {
            match piece {
                Piece::Run(run) => out.extend_from_slice(run.as_bytes()),
                Piece::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    /// Appends the unescaped text.
    pub fn push_str_to(&self, out: &mut String) {
        if let Some(plain) = self.as_plain() {
            out.push_str(plain);
            return;
        }
        for piece in self.pieces() {
            match piece {
                Piece::Run(run) => out.push_str(run),
                Piece::Char(c) => out.push(c),
            }
        }
    }

    /// The value in pieces: runs that need no unescaping, and the characters that were escaped.
    fn pieces(&self) -> Pieces<'a> {
        Pieces {
            rest: self.raw,
            escaped: self.escaped,
        }
    }
}

enum Piece<'a> {
    Run(&'a str),
    Char(char),
}

struct Pieces<'a> {
    rest: &'a str,
    escaped: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let run = match self.escaped {
            true => find_backslash(self.rest.as_bytes()).unwrap_or(self.rest.len()),
            false => self.rest.len(),
        };
        if run > 0 {
            let (run, rest) = self.rest.split_at(run);
            self.rest = rest;
            return Some(Piece::Run(run));
        }
        let (c, len) = unescape(self.rest.as_bytes());
        self.rest = self.rest.get(len..).unwrap_or_default();
        Some(Piece::Char(c))
    }
}

#[inline]
fn find_backslash(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let hits = bytes_equal(u64::from_le_bytes(*chunk), b'\\');
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter()
        .position(|&byte| byte == b'\\')
        .map(|offset| at + offset)
}

/// The character that the escape at the start of `bytes` stands for, and the length of the escape.
fn unescape(bytes: &[u8]) -> (char, usize) {
    let c = match bytes.get(1) {
        Some(b'u') => return unescape_unicode(bytes),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&b) => char::from(b),
        None => char::REPLACEMENT_CHARACTER,
    };
    (c, 2)
}

fn unescape_unicode(bytes: &[u8]) -> (char, usize) {
    let Some(unit) = hex4(bytes.get(2..)) else {
        return (char::REPLACEMENT_CHARACTER, bytes.len());
    };
    if (0xD800..0xDC00).contains(&unit)
        && bytes.get(6..8) == Some(b"\\u")
        && let Some(low @ 0xDC00..0xE000) = hex4(bytes.get(8..))
    {
        let c = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (
        char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
        6,
    )
}

/// The value of four hexadecimal digits.
pub(crate) fn hex4(bytes: Option<&[u8]>) -> Option<u32> {
    let mut value = 0;
    for digit in *bytes?.first_chunk::<4>()? {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        value = value << 4 | u32::from(digit);
    }
    Some(value)
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(raw: &'a str) -> Self {
        Self::plain(raw)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match other.as_plain() {
            Some(plain) => self == plain,
            None => self.to_str() == other.to_str(),
        }
    }
}

impl Eq for Text<'_> {}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_str().hash(state);
    }
}

impl PartialEq<str> for Text<'_> {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        if !self.escaped {
            return self.raw == other;
        }
        let mut rest = other;
        for piece in self.pieces() {
            let after = match piece {
                Piece::Run(run) => rest.strip_prefix(run),
                Piece::Char(c) => rest.strip_prefix(c),
            };
            match after {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl std::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.to_str(), f)
    }
}

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_str())
    }
}
