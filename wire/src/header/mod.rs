//! The typed headers of requests and responses, grouped by what they are about.
//!
//! A struct is named after its code (`PULL_MESSAGE`: [`PullMessageRequest`](pull::PullMessageRequest) and
//! [`PullMessageResponse`](pull::PullMessageResponse)); its fields are Java's, in snake case. A field that is not an `Option`
//! is required, unless Java has a default for it. Codes without fields of their own have no struct.

/// Declares a header: a struct whose fields say their name on the wire (`topic: Text<'a> = "topic"`), and, with `or`, what
/// they are when the sender leaves them out (`committed: bool = "committed" or true`).
///
/// Types of fields: `i32`, `i64`, `bool`, `Text<'a>`, and `Option` of each.
macro_rules! ext_header {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<$life:lifetime> { $($fields:tt)* }
    ) => {
        ext_header!(@struct [$(#[$meta])*] $name [<$life>] $($fields)*);
        ext_header!(@impl [$life] $name [<$life>] $($fields)*);
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($fields:tt)* }
    ) => {
        ext_header!(@struct [$(#[$meta])*] $name [] $($fields)*);
        ext_header!(@impl ['a] $name [] $($fields)*);
    };
    (
        @struct [$($meta:tt)*] $name:ident [$($generics:tt)*]
        $($field:ident: $type:ty = $wire:literal $(or $default:expr)?,)*
    ) => {
        $($meta)*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name $($generics)* {
            $(#[doc = concat!("`", $wire, "`.")] pub $field: $type,)*
        }
    };
    (
        @impl [$life:lifetime] $name:ident [$($generics:tt)*]
        $($field:ident: $type:ty = $wire:literal $(or $default:expr)?,)*
    ) => {
        impl<$life> $crate::ext::ExtHeader<$life> for $name $($generics)* {
            fn decode(ext: &$crate::ext::ExtFields<$life>) -> Result<Self, $crate::ext::FieldError> {
                use $crate::ext::FieldType;
                $(let mut $field: Option<$type> = None;)*
                for (name, value) in ext.raw_fields() {
                    $(
                        if name.is($wire) {
                            if $field.is_none() {
                                $field = <$type as FieldType>::parse(value, $wire)?;
                            }
                            continue;
                        }
                    )*
                }
                Ok(Self {
                    $($field: match $field {
                        Some(value) => value,
                        None => ext_header!(@absent $type, $wire $(, $default)?),
                    },)*
                })
            }

            fn encode(&self, out: &mut $crate::frame::FrameWriter<'_>) {
                use $crate::ext::FieldType;
                $(FieldType::write(&self.$field, $wire, out);)*
            }
        }
    };
    (@absent $type:ty, $wire:literal, $default:expr) => { $default };
    (@absent $type:ty, $wire:literal) => {
        match <$type as FieldType>::absent() {
            Some(value) => value,
            None => return Err($crate::ext::FieldError::Missing($wire)),
        }
    };
}

pub mod broker;
pub mod client;
pub mod group;
pub mod nameserver;
pub mod notify;
pub mod offset;
pub mod pop;
pub mod pull;
pub mod query;
pub mod send;
pub mod stats;
pub mod topic;
