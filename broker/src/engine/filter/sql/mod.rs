//! The SQL92 filter: a condition over the properties of a message.
//!
//! ```text
//! region IN ('eu', 'us') AND (price BETWEEN 10 AND 20 OR vip = TRUE) AND note NOT CONTAINS 'test'
//! ```
//!
//! It knows AND, OR, NOT, `=` `<>` `<` `<=` `>` `>=`, BETWEEN, IN, IS NULL, CONTAINS, STARTSWITH and ENDSWITH; integers,
//! floats, strings (`'it''s'`), TRUE, FALSE and NULL; comments (`-- to the end of the line`, `/* */`). Keywords may be in
//! any case, names of properties are exact.
//!
//! [`SqlFilter::compile`] refuses what the language does not have and says where. [`SqlFilter::matches`] reads the stored
//! properties in place and allocates nothing. A message matches only when the condition is true: not when it is unknown
//! because a property is missing, and not when a property does not convert to the number that it is compared with.

mod expr;
mod lexer;
mod parser;

#[cfg(test)]
mod tests;

use expr::{Expr, Value};

/// Bytes that an expression may have.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Levels of parentheses, signs, NOT and operators that an expression may have.
pub const MAX_DEPTH: usize = 100;
/// Operators, values and properties that an expression may have in all; the strings of an IN do not count.
pub const MAX_PARTS: usize = 1024;
/// Different properties that an expression may name.
pub const MAX_NAMES: usize = 256;

/// Up to so many names the slots of an evaluation are few enough to clear for every message.
const FEW_NAMES: usize = 16;
/// Characters of the expression that an error shows on either side of its position.
const CONTEXT_CHARS: usize = 40;
/// Characters of a word that an error repeats.
const SHOWN_CHARS: usize = 32;

/// A compiled condition.
#[derive(Debug, Clone)]
pub struct SqlFilter {
    root: Expr,
    names: Box<[Box<str>]>, // sorted; the index of a name is its slot
}

/// Why an expression does not compile. The text is one line:
/// `expected a value, found the end at position 6: "a AND[here]"`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at position {position}: \"{context}\"")]
pub struct SqlError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes from the start of the expression.
    pub offset: usize,
    /// Where, in characters; the first one is 1.
    pub position: usize,
    /// The part of the expression around the position, which is marked with `[here]`.
    pub context: String,
}

impl SqlFilter {
    /// Compiles a condition.
    pub fn compile(text: &str) -> Result<Self, SqlError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(SqlError::new(
                text,
                0,
                format!("the expression is longer than {MAX_TEXT_BYTES} bytes"),
            ));
        }
        let (root, names) = parser::parse(text)?;
        Ok(Self {
            root: root.fold(),
            names: names.into(),
        })
    }

    /// Whether the condition is true for a message with these properties (`name 0x01 value 0x02 ...`). Any bytes will do.
    pub fn matches(&self, properties: &[u8]) -> bool {
        if self.names.len() <= FEW_NAMES {
            self.matches_in(properties, &mut [None; FEW_NAMES])
        } else {
            self.matches_in(properties, &mut [None; MAX_NAMES])
        }
    }

    fn matches_in<'a>(&'a self, properties: &'a [u8], slots: &mut [Option<&'a [u8]>]) -> bool {
        self.fill(properties, slots);
        self.root.evaluate(slots) == Ok(Value::Bool(true))
    }

    /// Finds the properties that the condition names. As in RocketMQ's clients an empty value counts as missing, what has no
    /// separator is skipped, and the last of several properties with one name is the one.
    fn fill<'a>(&self, properties: &'a [u8], slots: &mut [Option<&'a [u8]>]) {
        for pair in properties.split(|byte| *byte == 2) {
            let Some(separator) = pair.iter().position(|byte| *byte == 1) else {
                continue;
            };
            let (name, value) = (&pair[..separator], &pair[separator + 1..]);
            if value.is_empty() {
                continue;
            }
            if let Ok(slot) = self
                .names
                .binary_search_by(|known| known.as_bytes().cmp(name))
                && let Some(slot) = slots.get_mut(slot)
            {
                *slot = Some(value);
            }
        }
    }
}

impl SqlError {
    fn new(text: &str, offset: usize, message: String) -> Self {
        let (before, after) = text.split_at(offset);
        let position = before.chars().count() + 1;
        let skipped = (position - 1).saturating_sub(CONTEXT_CHARS);
        let mut context = String::new();
        context.push_str(if skipped > 0 { "..." } else { "" });
        context.extend(before.chars().skip(skipped).map(printable));
        context.push_str("[here]");
        context.extend(after.chars().take(CONTEXT_CHARS).map(printable));
        context.push_str(if after.chars().nth(CONTEXT_CHARS).is_some() {
            "..."
        } else {
            ""
        });
        Self {
            message,
            offset,
            position,
            context,
        }
    }
}

/// A part of an expression as an error repeats it: on one line, and not long.
fn shown(source: &str) -> String {
    let mut shown: String = source.chars().take(SHOWN_CHARS).map(printable).collect();
    shown.push_str(if source.chars().nth(SHOWN_CHARS).is_some() {
        "..."
    } else {
        ""
    });
    shown
}

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Feeds bytes to the filter as a fuzzer does: up to the first zero byte an expression, then properties.
pub fn fuzz(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    match SqlFilter::compile(&text) {
        Ok(filter) => {
            filter.matches(parts.next().unwrap_or_default());
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.offset), "{error:?}");
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }
}
