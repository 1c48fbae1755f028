//! The JSON bodies of requests and responses, under the names of Java's classes.
//!
//! Each has `from_json`, which reads fastjson's relaxed text (see [`fastjson`](crate::fastjson)): members that are missing or
//! `null` take Java's defaults, unknown ones are ignored. Each has `to_json`, which writes what Java's and Go's clients read; where
//! a body has maps with integer keys, it asks whether those are to be quoted.

/// `from_json` and `to_json` for bodies that are standard JSON.
macro_rules! json_body {
    ($($body:ty),+ $(,)?) => {$(
        impl $body {
            /// Reads the body from JSON, standard or fastjson's.
            pub fn from_json(json: &[u8]) -> Result<Self, $crate::fastjson::BodyError> {
                $crate::fastjson::from_slice(json)
            }

            /// The body as JSON.
            pub fn to_json(&self) -> Vec<u8> {
                let mut out = Vec::new();
                $crate::fastjson::push(&mut out, self, $crate::fastjson::Keys::Quoted);
                out
            }
        }
    )+};
}

/// `from_json` and `to_json` for bodies with maps whose keys are integers.
macro_rules! json_body_with_keys {
    ($($body:ty),+ $(,)?) => {$(
        impl $body {
            /// Reads the body from JSON, standard or fastjson's.
            pub fn from_json(json: &[u8]) -> Result<Self, $crate::fastjson::BodyError> {
                $crate::fastjson::from_slice(json)
            }

            /// The body as JSON. Java reads both forms of keys.
            pub fn to_json(&self, keys: $crate::fastjson::Keys) -> Vec<u8> {
                let mut out = Vec::new();
                $crate::fastjson::push(&mut out, self, keys);
                out
            }
        }
    )+};
}

/// A Java enum: its constants in the order of their ordinals. JSON has the name; old C++ clients write the ordinal.
macro_rules! java_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// The constant's name in Java.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The constant of a name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let found = match $crate::body::lenient::NameOrOrdinal::deserialize(deserializer)? {
                    $crate::body::lenient::NameOrOrdinal::Name(name) => Self::from_name(&name),
                    $crate::body::lenient::NameOrOrdinal::Ordinal(ordinal) => Self::ALL.get(ordinal).copied(),
                };
                found.ok_or_else(|| serde::de::Error::custom(concat!("not a ", stringify!($name))))
            }
        }
    };
}

mod assignment;
mod connection;
mod group;
mod heartbeat;
mod lenient;
mod lock;
mod message_queue;
mod offset;
mod pop;
mod register;
mod route;
mod stats;
mod topic;

pub use assignment::*;
pub use connection::*;
pub use group::*;
pub use heartbeat::*;
pub use lock::*;
pub use message_queue::MessageQueue;
pub use offset::*;
pub use pop::*;
pub use register::RegisterBrokerBody;
pub use route::*;
pub use stats::*;
pub use topic::*;

#[cfg(test)]
mod tests;
