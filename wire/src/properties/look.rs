//! One look at plain properties: what a hot path wants to know of them, and what an edit needs to write them.

use super::{Edit, Measured, MessageKeys, NAME_END, PAIR_END};
use crate::scan::bytes_equal;

/// What a look found of the properties as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Looked<'a> {
    /// Bytes of the pairs that are kept, each with its end.
    len: usize,
    /// All is kept, and no byte is outside a pair.
    whole: bool,
    /// The last pair has its end.
    closed: bool,
    /// Of what is kept.
    keys: MessageKeys<'a>,
}

impl<'a> Looked<'a> {
    /// What a message with the pairs that are kept can be found by.
    pub fn keys(&self) -> MessageKeys<'a> {
        self.keys
    }
}

/// Shows every pair of `text` to `keep`, in order, which says whether an edit is to write it.
#[inline]
pub fn look<'a>(text: &'a str, mut keep: impl FnMut(&'a str, &'a str) -> bool) -> Looked<'a> {
    let (mut at, mut len, mut whole, mut closed) = (0, 0, true, true);
    let mut keys = MessageKeys::default();
    while at < text.len() {
        let name_end = mark(text, at, true);
        let (pair_end, is_pair) = match text.as_bytes().get(name_end) {
            Some(&NAME_END) => {
                let end = mark(text, name_end + 1, false);
                (end, name_end > at && end > name_end + 1)
            }
            _ => (name_end, false),
        };
        let pair = text.get(at..name_end).zip(text.get(name_end + 1..pair_end));
        match pair {
            Some((name, value)) if is_pair => {
                closed = pair_end < text.len();
                match keep(name, value) {
                    true => {
                        len += name.len() + value.len() + 2;
                        keys.note(name, value);
                    }
                    false => whole = false,
                }
            }
            _ => whole = false,
        }
        at = pair_end + 1;
    }
    Looked {
        len,
        whole,
        closed,
        keys,
    }
}

impl<'a> Edit<'_, 'a> {
    /// As [`Edit::measure`], where the received properties are plain and were looked at: `looked` kept just what this edit
    /// keeps.
    pub fn measure_looked<'m>(&'m self, looked: Looked<'m>) -> Measured<'m, 'a> {
        let appended = self.appended();
        let added: usize = appended
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        Measured {
            edit: self,
            len: looked.len + self.ready.len() + added,
            whole: looked.whole,
            closed: looked.closed,
            keys: self.keys_with(looked.keys),
        }
    }
}

/// Where the next end of a pair stands at or behind `at`, or, if `names`, the next end of a name before that; the text's
/// length where there is none.
#[inline]
fn mark(text: &str, mut at: usize, names: bool) -> usize {
    let bytes = text.as_bytes();
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let mut hits = bytes_equal(word, PAIR_END);
        if names {
            hits |= bytes_equal(word, NAME_END);
        }
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_mark = |&byte: &u8| byte == PAIR_END || (names && byte == NAME_END);
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter()
        .position(is_mark)
        .map_or(bytes.len(), |offset| at + offset)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::properties::Properties;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_look_says_what_iterating_and_measuring_say(text in "(a|b|KEYS|UNIQ_KEY|é|\u{1}|\u{2}){0,30}", left_out in "(a|b|KEYS)", appended in "u?") {
            let plain = Properties::from_plain(&text);
            let mut seen = Vec::new();
            let looked = look(&text, |name, value| {
                seen.push((name.to_owned(), value.to_owned()));
                name != left_out && (name != "UNIQ_KEY" || appended.is_empty())
            });
            let pairs = plain.iter().map(|(name, value)| {
                (name.to_str().into_owned(), value.to_str().into_owned())
            });
            prop_assert_eq!(seen, pairs.collect::<Vec<_>>());
            let edit = Edit {
                received: plain,
                without: &[&left_out],
                ready: "R\u{1}r\u{2}",
                append: &[("N", "v"), ("", "x"), ("UNIQ_KEY", appended.as_str())],
            };
            let (one, other) = (edit.measure_looked(looked), edit.measure());
            prop_assert_eq!(one.len(), other.len());
            prop_assert_eq!(one.keys(), other.keys());
            let (mut a, mut b) = (vec![0; one.len()], vec![0; other.len()]);
            prop_assert_eq!(one.write_to(&mut a), a.len());
            other.write_to(&mut b);
            prop_assert_eq!(&a, &b);
            prop_assert_eq!(one.keys(), MessageKeys::of(Properties::from_bytes(&a)));
        }
    }
}
