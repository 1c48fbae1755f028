//! Which messages of a topic a subscription wants: all of them, those with certain tags, or those whose properties
//! fulfil an SQL92 condition.
//!
//! A filter is compiled once from what the client sent and is immutable from then on. Asking it costs no allocation.
//! The tag test needs only the tags code of the index; the SQL test needs the properties of the stored record.

pub mod sql;
pub mod tag;

use sql::{SqlError, SqlFilter};
use tag::{TagError, TagFilter};

/// A compiled subscription expression.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Every message.
    All,
    /// Messages whose tags code is in a set.
    Tag(TagFilter),
    /// Messages whose properties fulfil a condition.
    Sql(SqlFilter),
}

/// Why a subscription expression cannot be used; clients get it as SUBSCRIPTION_PARSE_FAILED (23) with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The tag expression names nothing.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The SQL92 expression does not compile.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The type is neither TAG nor SQL92.
    #[error("unknown expression type {0:?}: TAG and SQL92 are supported")]
    Type(String),
}

impl Filter {
    /// Compiles an expression. A type that is absent or empty is TAG; types are compared exactly. An expression that is
    /// absent is given as the empty string.
    pub fn compile(expression_type: Option<&str>, expression: &str) -> Result<Self, FilterError> {
        match expression_type {
            None | Some("" | "TAG") => {
                Ok(TagFilter::compile(expression)?.map_or(Self::All, Self::Tag))
            }
            Some("SQL92") => Ok(Self::Sql(SqlFilter::compile(expression)?)),
            Some(other) => Err(FilterError::Type(
                other.chars().take(MAX_SHOWN_CHARS).collect(),
            )),
        }
    }

    /// Whether every message is wanted.
    pub fn takes_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether the tags code alone cannot decide, so that [`Filter::matches_properties`] must be asked too.
    pub fn needs_properties(&self) -> bool {
        matches!(self, Self::Sql(_))
    }

    /// Whether a message with this tags code (see [`tag::tags_code`]) can be wanted.
    pub fn matches_tags_code(&self, tags_code: i32) -> bool {
        match self {
            Self::Tag(tags) => tags.matches(tags_code),
            Self::All | Self::Sql(_) => true,
        }
    }

    /// Whether a message with these properties (`name 0x01 value 0x02 ...`) can be wanted.
    pub fn matches_properties(&self, properties: &[u8]) -> bool {
        match self {
            Self::Sql(sql) => sql.matches(properties),
            Self::All | Self::Tag(_) => true,
        }
    }
}

const MAX_SHOWN_CHARS: usize = 40;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_type_chooses_the_language() {
        for all in [
            Filter::compile(None, ""),
            Filter::compile(Some(""), "*"),
            Filter::compile(Some("TAG"), "*"),
        ] {
            assert!(matches!(all.unwrap(), Filter::All));
        }
        let tags = Filter::compile(Some("TAG"), "a > 1").unwrap();
        assert!(matches!(tags, Filter::Tag(_)));
        assert!(!tags.needs_properties());
        assert!(tags.matches_tags_code(tag::tags_code("a > 1")) && !tags.matches_tags_code(0));
        assert!(tags.matches_properties(b""));

        let sql = Filter::compile(Some("SQL92"), "a > 1").unwrap();
        assert!(sql.needs_properties());
        assert!(sql.matches_tags_code(0));
        assert!(sql.matches_properties(b"a\x012\x02") && !sql.matches_properties(b"a\x011\x02"));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = |kind, expression| {
            Filter::compile(Some(kind), expression)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            text("sql", "a > 1"),
            "unknown expression type \"sql\": TAG and SQL92 are supported"
        );
        assert_eq!(text("TAG", "||"), "the tag expression names no tag");
        assert!(text("SQL92", "").starts_with("expected a value, found the end at position 1"));
        assert!(text("SQL92", "*").starts_with("arithmetic is not supported at position 1"));
    }
}
