//! What fastjson takes where it expects something else: Go and C++ clients write some integers as strings.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// An integer, or a string that holds one.
pub(super) fn integer<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let Integer(value) = Integer::deserialize(deserializer)?;
    T::try_from(value).map_err(|_| Error::custom("an integer is out of range"))
}

/// A list of what [`integer`] reads.
pub(super) fn integers<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Integers<T>(std::marker::PhantomData<T>);

    impl<'de, T: TryFrom<i64>> Visitor<'de> for Integers<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of integers")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(Integer(value)) = items.next_element()? {
                all.push(
                    T::try_from(value).map_err(|_| Error::custom("an integer is out of range"))?,
                );
            }
            Ok(all)
        }
    }

    deserializer.deserialize_seq(Integers(std::marker::PhantomData))
}

struct Integer(i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerVisitor;

        impl Visitor<'_> for IntegerVisitor {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
                i64::try_from(value).map(Integer).map_err(Error::custom)
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Integer, E> {
                value.parse().map(Integer).map_err(Error::custom)
            }
        }

        deserializer.deserialize_any(IntegerVisitor)
    }
}

/// How a Java enum may come.
pub(super) enum NameOrOrdinal {
    Name(String),
    Ordinal(usize),
}

impl<'de> Deserialize<'de> for NameOrOrdinal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnumVisitor;

        impl Visitor<'_> for EnumVisitor {
            type Value = NameOrOrdinal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or the ordinal of an enum's constant")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<NameOrOrdinal, E> {
                Ok(NameOrOrdinal::Name(value.to_owned()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<NameOrOrdinal, E> {
                usize::try_from(value)
                    .map(NameOrOrdinal::Ordinal)
                    .map_err(Error::custom)
            }
        }

        deserializer.deserialize_any(EnumVisitor)
    }
}
