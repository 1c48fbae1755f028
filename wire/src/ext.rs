//! The fields of a header (`extFields`), read without building a map, and the typed headers made of them.

use crate::frame::FrameWriter;
use crate::text::Text;

/// The fields of one header, validated when the frame was parsed.
#[derive(Debug, Clone, Copy)]
pub struct ExtFields<'a> {
    raw: &'a [u8],
    // which serialization `raw` is in, and what else iteration needs
}

impl<'a> ExtFields<'a> {
    /// Name and value of every field, in the order of the wire. Numbers and booleans that a JSON sender did not quote
    /// come as their text; `null` values are left out.
    pub fn iter(&self) -> impl Iterator<Item = (Text<'a>, Text<'a>)> + use<'a> {
        let _ = self.raw;
        std::iter::empty()
    }

    /// The value of one field; the first where a name stands twice.
    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        self.iter().find(|(n, _)| n == name).map(|(_, v)| v)
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
