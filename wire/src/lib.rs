//! The RocketMQ remoting protocol and its stored record, without I/O.
//!
//! Parsing borrows from the bytes that were received; nothing on the path of a message allocates. Everything that parses
//! is total: any input gives a value or an error, never a panic, and is a fuzz target (`wire/fuzz`).

pub mod batch;
pub mod body;
#[cfg(any(test, feature = "check"))]
pub mod check;
pub mod code;
pub mod ext;
pub mod fastjson;
pub mod frame;
pub mod header;
pub mod message_id;
pub mod properties;
pub mod record;
#[cfg(test)]
mod recorded;
mod scan;
mod template;
pub mod text;
mod write;

pub use ext::{ExtFields, ExtHeader, FieldError};
pub use frame::{Frame, FrameError, FrameWriter};
pub use template::FrameTemplate;
pub use text::Text;
