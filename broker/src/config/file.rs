//! The two kinds of file: our TOML, and Apache's `broker.conf` (Java properties). Both become `(line, key, text)`.

use toml::de::{DeTable, DeValue};

/// One setting of a file, not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counted from 1.
    pub line: usize,
    pub key: String,
    /// The value as text, or in words what stands there instead of one.
    pub value: Result<String, String>,
}

/// Why a file cannot be read as its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub line: usize,
    pub message: String,
}

/// Reads flat TOML.
pub(super) fn toml(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let table = DeTable::parse(text).map_err(|error| SyntaxError {
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        message: error
            .message()
            .lines()
            .next()
            .unwrap_or("not TOML")
            .to_owned(),
    })?;
    let mut entries: Vec<Entry> = table
        .get_ref()
        .iter()
        .map(|(key, value)| Entry {
            line: line_of(text, key.span().start),
            key: key.get_ref().to_string(),
            value: match value.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                DeValue::Boolean(value) => Ok(value.to_string()),
                DeValue::Integer(number) => {
                    Ok(i64::from_str_radix(number.as_str(), number.radix())
                        .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()))
                }
                DeValue::Float(number) => Ok(number.as_str().to_owned()),
                DeValue::Table(_) => Err("a table".to_owned()),
                DeValue::Array(_) => Err("a list".to_owned()),
                DeValue::Datetime(_) => Err("a date".to_owned()),
            },
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// Reads Java properties. Any text is some properties, so this cannot fail.
pub(super) fn properties(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while continues(&whole) {
            whole.pop();
            match lines.next() {
                Some((_, next)) => whole.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split_property(&whole);
        entries.push(Entry {
            line: index + 1,
            key: unescape(key),
            value: Ok(unescape(value).trim_end().to_owned()),
        });
    }
    entries
}

/// Whether a line ends in a backslash that is not itself escaped.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// A key ends at the first `=`, `:` or blank that is not escaped.
fn split_property(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let ends = !escaped && (matches!(c, '=' | ':') || c.is_whitespace());
        escaped = !escaped && *c == '\\';
        ends
    });
    let Some((end, _)) = end else {
        return (line, "");
    };
    let rest = line[end..].trim_start();
    (
        &line[..end],
        rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start(),
    )
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let unit = u32::from_str_radix(&digits, 16).ok();
                out.push(
                    unit.and_then(char::from_u32)
                        .unwrap_or(char::REPLACEMENT_CHARACTER),
                );
            }
            Some(c) => out.push(c),
            None => {}
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(line: usize, key: &str, value: &str) -> Entry {
        Entry {
            line,
            key: key.to_owned(),
            value: Ok(value.to_owned()),
        }
    }

    #[test]
    fn toml_becomes_text_with_lines() {
        let entries = toml("# a\nport = 0x2a9f\n\nflush = \"async\"\nrecall = true\n").unwrap();
        assert_eq!(
            entries,
            [
                entry(2, "port", "10911"),
                entry(4, "flush", "async"),
                entry(5, "recall", "true")
            ]
        );
        assert_eq!(toml("port = 1\nport = = 2\n").unwrap_err().line, 2);
        assert_eq!(
            toml("[names]\na = 1\n").unwrap()[0].value,
            Err("a table".to_owned())
        );
    }

    #[test]
    fn properties_as_java_reads_them() {
        let text = "\n# c\n! c\nlistenPort=10911\nbrokerName : b\\u002da \nnamesrvAddr = a:1;\\\n   b\\:2\nkey\nlast=\\";
        assert_eq!(
            properties(text),
            [
                entry(4, "listenPort", "10911"),
                entry(5, "brokerName", "b-a"),
                entry(6, "namesrvAddr", "a:1;b:2"),
                entry(8, "key", ""),
                entry(9, "last", ""),
            ]
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in any::<String>(), tricky in "[a=:\\\\u0 \n#\"\\[\\]]*") {
            for text in [text, tricky] {
                let _ = toml(&text);
                let _ = properties(&text);
            }
        }
    }
}
