//! A string as it stands in a header: plain UTF-8, or still escaped as JSON writes it.
//!
//! Header values are looked at far more often than they are copied, so a value stays where it was received until
//! somebody writes it elsewhere; that is when the escapes are undone.

use std::borrow::Cow;

/// A borrowed header value. `raw` is UTF-8; where `escaped` is set it is the inside of a valid JSON string.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A value without escapes.
    pub const fn plain(raw: &'a str) -> Self {
        Self { raw, escaped: false }
    }

    /// The inside of a JSON string that the caller has validated, with at least one backslash in it.
    pub(crate) const fn escaped(raw: &'a str) -> Self {
        Self { raw, escaped: true }
    }

    /// The value without escapes; allocates only where there were some.
    pub fn to_str(&self) -> Cow<'a, str> {
        todo!()
    }

    /// The value, where it has no escapes.
    pub fn as_plain(&self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// How many bytes `write_to` will write.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether the value is the empty string.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Writes the unescaped bytes to the start of `dst` and returns how many; `dst` holds at least [`Text::len`] bytes.
    pub fn write_to(&self, dst: &mut [u8]) -> usize {
        let _ = dst;
        todo!()
    }

    /// Appends the unescaped bytes.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(raw: &'a str) -> Self {
        Self::plain(raw)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_str() == other.to_str()
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.to_str() == other
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
