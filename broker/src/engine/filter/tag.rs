//! Filtering by tag: `a || b`, decided on the hash codes that the index holds.
//!
//! Different tags can share a code, so a client compares the tags themselves once more; a filter here never refuses a
//! message that the client would take.

/// The codes of the wanted tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter {
    codes: Box<[i32]>, // sorted, each once
}

/// The expression consists of separators only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag expression names no tag")]
pub struct TagError;

impl TagFilter {
    /// Compiles tags separated by `||`; `None` stands for all messages (`*`, or nothing). Blanks around a tag and empty
    /// tags do not count. An expression of blanks is valid and wants no message, as clients see it.
    pub fn compile(expression: &str) -> Result<Option<Self>, TagError> {
        if expression.is_empty() || expression == "*" {
            return Ok(None);
        }
        if expression.split("||").all(str::is_empty) {
            return Err(TagError);
        }
        let tags = expression
            .split("||")
            .map(|tag| tag.trim_matches(|c| c <= ' '))
            .filter(|tag| !tag.is_empty());
        let mut codes: Vec<i32> = tags.map(tags_code).collect();
        codes.sort_unstable();
        codes.dedup();
        Ok(Some(Self {
            codes: codes.into(),
        }))
    }

    /// Whether a message with this tags code may carry a wanted tag.
    pub fn matches(&self, tags_code: i32) -> bool {
        self.codes.binary_search(&tags_code).is_ok()
    }
}

/// The code of a tag, 0 for none: Java's `String.hashCode`, which is over UTF-16 units.
pub fn tags_code(tag: &str) -> i32 {
    tag.encode_utf16().fold(0i32, |code, unit| {
        code.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn codes(expression: &str) -> Vec<i32> {
        TagFilter::compile(expression)
            .unwrap()
            .unwrap()
            .codes
            .into_vec()
    }

    #[test]
    fn codes_are_those_of_java() {
        for (tag, code) in [
            ("", 0),
            ("a", 97),
            ("Aa", 2112),
            ("BB", 2112),
            ("ä", 228),
            ("日本", 835_047),
            ("😀", 1_772_899),
            ("a b", 94_307),
            ("polygenelubricants", i32::MIN),
        ] {
            assert_eq!(tags_code(tag), code, "{tag}");
        }
    }

    #[test]
    fn expressions_split_as_in_java() {
        for (expression, expected) in [
            (" ", vec![]),
            ("|| ||", vec![]),
            ("  * ", vec![42]),
            ("a", vec![97]),
            ("b||a", vec![97, 98]),
            (" a || b ", vec![97, 98]),
            ("a||", vec![97]),
            ("||a", vec![97]),
            ("a||||b", vec![97, 98]),
            ("a||a", vec![97]),
            ("a||*", vec![42, 97]),
            ("a|b", vec![97_159]),
            ("a|||b", vec![97, 3942]),
            ("|a", vec![3941]),
            ("\u{a0}a", vec![5057]),
            ("\ta\n", vec![97]),
        ] {
            assert_eq!(codes(expression), expected, "{expression:?}");
        }
        for all in ["", "*"] {
            assert_eq!(TagFilter::compile(all), Ok(None));
        }
        for nothing in ["||", "||||"] {
            assert_eq!(TagFilter::compile(nothing), Err(TagError));
        }
    }

    #[test]
    fn a_message_without_a_wanted_tag_is_refused() {
        let filter = TagFilter::compile("red || Aa || nothing").unwrap().unwrap();
        for (tag, wanted) in [
            ("red", true),
            ("Aa", true),
            ("BB", true),
            ("green", false),
            ("", false),
        ] {
            assert_eq!(filter.matches(tags_code(tag)), wanted, "{tag}");
        }
    }
}
