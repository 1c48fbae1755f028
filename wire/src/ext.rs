//! The fields of a header (`extFields`), read without building a map, and the typed headers made of them.
//!
//! A typed header reads all its fields in one pass. Of a JSON header the places of the first fields are kept when it is
//! checked, so that its text is gone through once.

use std::borrow::Cow;

use crate::frame::{FrameError, FrameWriter, take};
use crate::scan::{Cursor, Value};
use crate::text::Text;

/// The fields of one header, validated when the frame was parsed.
#[derive(Debug, Clone, Copy)]
pub struct ExtFields<'a> {
    raw: Raw<'a>,
}

/// Fields of a JSON header whose places are kept: as many as any header of the protocol has, save for a few.
const KEPT_FIELDS: usize = 16;

/// A string of a JSON header: where it begins in the text, and its length, doubled, plus one where it is escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    at: u32,
    len_and_escaped: u32,
}

impl Place {
    const NOWHERE: Self = Self {
        at: 0,
        len_and_escaped: 0,
    };

    /// A header has at most 16 MiB, so both fit.
    #[inline]
    fn of(part: Text<'_>, text: &str) -> Self {
        let at = part.raw().as_ptr() as usize - text.as_ptr() as usize;
        Self {
            at: at as u32,
            len_and_escaped: (part.raw().len() as u32) << 1 | u32::from(part.is_escaped()),
        }
    }

    #[inline]
    fn in_text<'a>(self, text: &'a str) -> Text<'a> {
        let (from, len) = (self.at as usize, (self.len_and_escaped >> 1) as usize);
        let raw = text.get(from..from + len).unwrap_or_default();
        match self.len_and_escaped & 1 {
            0 => Text::plain(raw),
            _ => Text::escaped(raw),
        }
    }
}

/// The fields of a JSON header.
#[derive(Debug, Clone, Copy)]
struct JsonFields<'a> {
    /// The whole header.
    text: &'a str,
    /// The inside of the object, whose syntax was checked.
    inside: &'a str,
    /// Name and value of the first `count` fields.
    kept: [(Place, Place); KEPT_FIELDS],
    /// All fields, where they are not more than are kept.
    count: Option<u8>,
}

#[allow(clippy::large_enum_variant, reason = "lives for one request")]
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    Json(JsonFields<'a>),
    /// Entries whose lengths were checked; whether they are UTF-8 is seen when they are read.
    Rocketmq(&'a [u8]),
}

impl<'a> ExtFields<'a> {
    /// No fields.
    pub const EMPTY: Self = Self {
        raw: Raw::Rocketmq(&[]),
    };

    /// The object whose opening brace comes next.
    pub(crate) fn json(cursor: &mut Cursor<'a>) -> Result<Self, FrameError> {
        let text = cursor.text();
        let mut kept = [(Place::NOWHERE, Place::NOWHERE); KEPT_FIELDS];
        let mut count = Some(0);
        let inside = cursor.object(|name, value| {
            let value = match value {
                Value::Text(text) => text,
                Value::Bare(bare) => Text::plain(bare),
                Value::Null | Value::Nested => return,
            };
            let place = count.and_then(|count: u8| kept.get_mut(usize::from(count)));
            match place {
                Some(place) => {
                    *place = (Place::of(name, text), Place::of(value, text));
                    count = count.map(|count| count + 1);
                }
                None => count = None,
            }
        })?;
        Ok(Self {
            raw: Raw::Json(JsonFields {
                text,
                inside,
                kept,
                count,
            }),
        })
    }

    pub(crate) fn rocketmq(entries: &'a [u8]) -> Result<Self, FrameError> {
        let mut rest = entries;
        while !rest.is_empty() {
            (_, _, rest) = rocketmq_entry(rest).ok_or(FrameError::Header("a field that fits"))?;
        }
        Ok(Self {
            raw: Raw::Rocketmq(entries),
        })
    }

    /// Name and value of every field, in the order of the wire. Numbers and booleans that a JSON sender did not quote
    /// come as their text; `null`, objects and arrays are left out, and so is what is not UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (Text<'a>, Text<'a>)> {
        self.raw_fields()
            .filter_map(|(name, value)| Some((name.text()?, value.text()?)))
    }

    /// The value of one field; the first where a name stands twice.
    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        self.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Name and value of every field of a ROCKETMQ header.
    #[inline]
    pub(crate) fn rocketmq_entries(&self) -> Option<impl Iterator<Item = (&'a [u8], &'a [u8])>> {
        let Raw::Rocketmq(mut rest) = self.raw else {
            return None;
        };
        Some(std::iter::from_fn(move || {
            let (name, value, after) = rocketmq_entry(rest)?;
            rest = after;
            Some((name, value))
        }))
    }

    /// What `iter` gives, before it is known to be UTF-8.
    #[inline]
    pub(crate) fn raw_fields(&self) -> RawFields<'_, 'a> {
        match &self.raw {
            Raw::Json(fields) => match fields.count {
                Some(count) => RawFields::Kept {
                    text: fields.text,
                    places: fields.kept[..usize::from(count)].iter(),
                },
                None => RawFields::Json {
                    cursor: Cursor::new(fields.inside),
                    first: true,
                },
            },
            Raw::Rocketmq(entries) => RawFields::Rocketmq(entries),
        }
    }
}

/// The first entry of a ROCKETMQ header: name, value, what follows.
#[inline]
fn rocketmq_entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (name, rest) = take(rest, u32::from(u16::from_be_bytes(*len)))?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = take(rest, u32::from_be_bytes(*len))?;
    Some((name, value, rest))
}

/// Iterates over the fields as they stand in the header.
pub(crate) enum RawFields<'e, 'a> {
    /// The places that are left.
    Kept {
        text: &'a str,
        places: std::slice::Iter<'e, (Place, Place)>,
    },
    /// A checked object, read so far.
    Json { cursor: Cursor<'a>, first: bool },
    /// The entries that are left.
    Rocketmq(&'a [u8]),
}

impl<'a> Iterator for RawFields<'_, 'a> {
    type Item = (RawText<'a>, RawText<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Kept { text, places } => {
                let (name, value) = places.next()?;
                Some((
                    RawText::Text(name.in_text(text)),
                    RawText::Text(value.in_text(text)),
                ))
            }
            Self::Json { cursor, first } => loop {
                let name = cursor.name(*first).ok()??;
                *first = false;
                let value = match cursor.value().ok()? {
                    Value::Text(text) => text,
                    Value::Bare(bare) => Text::plain(bare),
                    Value::Null | Value::Nested => continue,
                };
                return Some((RawText::Text(name), RawText::Text(value)));
            },
            Self::Rocketmq(rest) => {
                let (name, value, after) = rocketmq_entry(rest)?;
                *rest = after;
                Some((RawText::Bytes(name), RawText::Bytes(value)))
            }
        }
    }
}

/// A name or a value, UTF-8 or not yet known to be.
#[derive(Clone, Copy)]
pub(crate) enum RawText<'a> {
    Text(Text<'a>),
    Bytes(&'a [u8]),
}

impl<'a> RawText<'a> {
    /// The bytes, where nothing in them is escaped.
    #[inline]
    pub(crate) fn plain(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => text.as_plain().map(str::as_bytes),
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// The bytes without escapes.
    #[inline]
    pub(crate) fn bytes(&self) -> Cow<'a, [u8]> {
        match self {
            Self::Text(text) => match text.to_str() {
                Cow::Borrowed(str) => Cow::Borrowed(str.as_bytes()),
                Cow::Owned(string) => Cow::Owned(string.into_bytes()),
            },
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }

    /// Whether these are the bytes of `name`.
    #[inline]
    pub(crate) fn is(&self, name: &str) -> bool {
        match self {
            Self::Text(text) => *text == *name,
            Self::Bytes(bytes) => *bytes == name.as_bytes(),
        }
    }

    /// The value as text, if it is UTF-8.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        match self {
            Self::Text(text) => Some(*text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Text::plain),
        }
    }
}

/// Why the fields of a header are not what its request needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A required field is not there.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A value does not parse as the type of its field.
    #[error("the field {0} is not a valid {1}")]
    Invalid(&'static str, &'static str),
}

/// A header with typed fields. Implemented by `ext_header!` (see `header`).
pub trait ExtHeader<'a>: Sized {
    /// Reads the fields; unknown ones are ignored.
    fn decode(ext: &ExtFields<'a>) -> Result<Self, FieldError>;
    /// Writes the fields; those that are `None` are left out.
    fn encode(&self, out: &mut FrameWriter<'_>);
}

/// A type that a field may have.
pub(crate) trait FieldType<'a>: Sized {
    /// `Ok(None)` where the value counts as absent.
    fn parse(raw: RawText<'a>, name: &'static str) -> Result<Option<Self>, FieldError>;
    /// What a header without the field has; `None` where the field is required.
    fn absent() -> Option<Self> {
        None
    }
    /// Writes the field, if there is something to write.
    fn write(&self, name: &str, out: &mut FrameWriter<'_>);
}

macro_rules! integer_field {
    ($type:ty, $name:literal) => {
        impl<'a> FieldType<'a> for $type {
            #[inline]
            fn parse(raw: RawText<'a>, name: &'static str) -> Result<Option<Self>, FieldError> {
                let parsed = match raw.plain() {
                    Some(bytes) => parse_integer(bytes),
                    None => parse_integer(&raw.bytes()),
                };
                match parsed {
                    Ok(None) => Ok(None),
                    Ok(Some(value)) => Self::try_from(value)
                        .map(Some)
                        .map_err(|_| FieldError::Invalid(name, $name)),
                    Err(()) => Err(FieldError::Invalid(name, $name)),
                }
            }

            fn write(&self, name: &str, out: &mut FrameWriter<'_>) {
                out.int_field(name, i64::from(*self));
            }
        }
    };
}

integer_field!(i32, "integer of 32 bits");
integer_field!(i64, "integer of 64 bits");

/// An empty value is none: the binary form cannot say more.
/// So many digits fit 64 bits whatever they are.
const MAX_SAFE_DIGITS: usize = 18;

#[inline]
fn parse_integer(bytes: &[u8]) -> Result<Option<i64>, ()> {
    let (negative, digits) = match bytes {
        [] => return Ok(None),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(());
    }
    let mut value = 0i64;
    if digits.len() <= MAX_SAFE_DIGITS {
        for digit in digits {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return Err(());
            }
            value = value * 10 + i64::from(digit);
        }
        return Ok(Some(if negative { -value } else { value }));
    }
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(());
        }
        let digit = if negative {
            -i64::from(digit)
        } else {
            i64::from(digit)
        };
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(digit))
            .ok_or(())?;
    }
    Ok(Some(value))
}

impl<'a> FieldType<'a> for bool {
    /// As in Java: everything but "true" is false.
    fn parse(raw: RawText<'a>, _: &'static str) -> Result<Option<Self>, FieldError> {
        let bytes = raw.bytes();
        Ok((!bytes.is_empty()).then(|| bytes.eq_ignore_ascii_case(b"true")))
    }

    fn write(&self, name: &str, out: &mut FrameWriter<'_>) {
        out.field(name, if *self { "true" } else { "false" });
    }
}

impl<'a> FieldType<'a> for Text<'a> {
    #[inline]
    fn parse(raw: RawText<'a>, name: &'static str) -> Result<Option<Self>, FieldError> {
        raw.text()
            .map(Some)
            .ok_or(FieldError::Invalid(name, "UTF-8 text"))
    }

    fn write(&self, name: &str, out: &mut FrameWriter<'_>) {
        out.text_field(name, *self);
    }
}

impl<'a, T: FieldType<'a>> FieldType<'a> for Option<T> {
    #[inline]
    fn parse(raw: RawText<'a>, name: &'static str) -> Result<Option<Self>, FieldError> {
        Ok(T::parse(raw, name)?.map(Some))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn write(&self, name: &str, out: &mut FrameWriter<'_>) {
        if let Some(value) = self {
            value.write(name, out);
        }
    }
}
