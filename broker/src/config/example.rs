//! The annotated example file, made of the schema.

use super::schema::{Config, KEYS};
use super::value::Rule;

const OPENING: &str = "\
# The configuration of Corelane. Every key is optional; what stands here after '#' is its default.
# A key is also an environment variable (CORELANE_PORT=10911), a flag (--port 10911) and an argument of
# --set (--set port=10911). A flag goes before --set, that before the environment, that before this file.
# Sizes are bytes, or have a unit: 64KiB, 64MiB, 1GiB. Other units stand in the name of the key.
";

const WIDTH: usize = 100;

/// The text of an example file that holds every key with its default, commented out.
pub fn example() -> String {
    let defaults = Config::default();
    let mut out = String::from(OPENING);
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            out.push_str(&format!("\n\n# ---- {section} ----\n"));
        }
        out.push('\n');
        let mut about = format!("{} Value: {}.", key.doc_line(), key.rule);
        if !key.aliases.is_empty() {
            about.push_str(&format!(" In broker.conf: {}.", key.aliases.join(", ")));
        }
        for line in wrap(&about) {
            out.push_str(&format!("# {line}\n"));
        }
        let value = defaults.text(key.name).unwrap_or_default();
        out.push_str(&format!(
            "#{} = {}\n",
            key.name,
            toml_value(&value, &key.rule)
        ));
    }
    out
}

fn toml_value(text: &str, rule: &Rule) -> String {
    match rule {
        Rule::Number { .. } | Rule::Bool => text.to_owned(),
        _ => toml::Value::from(text).to_string(),
    }
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
            continue;
        }
        if !lines[last].is_empty() {
            lines[last].push(' ');
        }
        lines[last].push_str(word);
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
mod tests {
    use super::super::load::Sources;
    use super::*;

    #[test]
    fn the_example_holds_every_default() {
        let active: String = example()
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_eq!(active.lines().count(), KEYS.len());
        let sources = Sources {
            file: Some(("corelane.toml".into(), active)),
            ..Sources::default()
        };
        let loaded = sources.load().unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn the_document_is_the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/corelane.example.toml");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == example(),
            "docs/corelane.example.toml is old: corelane config example > {path}"
        );
    }
}
