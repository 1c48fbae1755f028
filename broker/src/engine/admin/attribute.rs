//! The attributes of topics and groups: which there are, what they may say, and how a request changes them.
//!
//! A request names each attribute with a sign: `+` sets it, `-` takes it away. What it does not name stays.

use std::collections::{BTreeMap, BTreeSet};

use corelane_wire::code::response;

use crate::engine::turn::Refusal;

/// Attributes by name; in a request with their signs.
pub(super) type Attributes = BTreeMap<String, String>;

/// What an attribute may say.
enum Values {
    OneOf(&'static [&'static str]),
    Number { min: i64, max: i64 },
}

/// An attribute that there is.
pub(super) struct Attribute {
    name: &'static str,
    values: Values,
    /// Whether it can be set when its topic or group is there.
    changeable: bool,
}

/// Those of topics.
pub(super) const OF_TOPICS: [Attribute; 4] = [
    Attribute {
        name: "message.type",
        values: Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "PRIORITY",
            "MIXED",
        ]),
        changeable: true,
    },
    Attribute {
        name: "queue.type",
        values: Values::OneOf(&["SimpleCQ", "BatchCQ"]),
        changeable: false,
    },
    Attribute {
        name: "cleanup.policy",
        values: Values::OneOf(&["DELETE", "COMPACTION"]),
        changeable: false,
    },
    Attribute {
        name: "reserve.time",
        values: Values::Number {
            min: -1,
            max: i64::MAX,
        },
        changeable: true,
    },
];

/// Those of groups.
pub(super) const OF_GROUPS: [Attribute; 1] = [Attribute {
    name: "priority.factor",
    values: Values::Number { min: 0, max: 100 },
    changeable: true,
}];

/// The changes that a text of the form `+key=value,-key` asks for.
pub(super) fn parsed(text: &str) -> Result<Attributes, Refusal> {
    let mut changes = Attributes::new();
    let parts = text.split(',').map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(wrong(format!("the attribute {key} is named twice")));
        }
    }
    Ok(changes)
}

/// What comes of the attributes `before`, `None` where there is nothing yet that has any, by these changes.
pub(super) fn changed(
    known: &[Attribute],
    before: Option<&Attributes>,
    changes: &Attributes,
) -> Result<Attributes, Refusal> {
    let mut after = before.cloned().unwrap_or_default();
    let mut named = BTreeSet::new();
    for (signed, value) in changes {
        let (sign, name) = signed.split_at_checked(1).unwrap_or(("", signed));
        if !named.insert(name) {
            return Err(wrong(format!("the attribute {name} is named twice")));
        }
        let Some(attribute) = known.iter().find(|attribute| attribute.name == name) else {
            return Err(wrong(format!("unsupported key: {name}")));
        };
        if before.is_some() && !attribute.changeable {
            return Err(wrong(format!(
                "the attribute {name} cannot be changed afterwards"
            )));
        }
        match sign {
            "+" if attribute.may_say(value) => {
                after.insert(name.to_owned(), value.clone());
            }
            "+" => {
                return Err(wrong(format!("the attribute {name} cannot be {value:?}")));
            }
            "-" if before.is_some() => {
                if after.remove(name).is_none() {
                    return Err(wrong(format!("there is no attribute {name} to remove")));
                }
            }
            _ => {
                return Err(wrong(format!(
                    "the attribute {signed:?} must begin with + (or - where there are some already)"
                )));
            }
        }
    }
    Ok(after)
}

impl Attribute {
    fn may_say(&self, value: &str) -> bool {
        match &self.values {
            Values::OneOf(values) => values.contains(&value),
            Values::Number { min, max } => value
                .parse()
                .is_ok_and(|number: i64| (*min..=*max).contains(&number)),
        }
    }
}

fn wrong(what: String) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: Option<&str>, text: &str) -> Option<String> {
        let before = before.map(|text| parsed(text).unwrap_or_default());
        let changes = parsed(text).ok()?;
        let after = changed(&OF_TOPICS, before.as_ref(), &changes).ok()?;
        let pairs: Vec<String> = after.iter().map(|(k, v)| format!("{k}={v}")).collect();
        Some(pairs.join(","))
    }

    #[test]
    fn requests_set_and_remove_what_there_is() {
        for (before, text, after) in [
            (None, "", ""),
            (None, "+message.type=FIFO", "message.type=FIFO"),
            (
                None,
                "+queue.type=BatchCQ, +reserve.time=-1",
                "queue.type=BatchCQ,reserve.time=-1",
            ),
            (
                Some("message.type=FIFO"),
                "+message.type=DELAY",
                "message.type=DELAY",
            ),
            (
                Some("message.type=FIFO,queue.type=SimpleCQ"),
                "-message.type,+reserve.time=5",
                "queue.type=SimpleCQ,reserve.time=5",
            ),
            (Some("message.type=FIFO"), "", "message.type=FIFO"),
        ] {
            assert_eq!(
                change(before, text).as_deref(),
                Some(after),
                "{before:?} {text}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (before, text) in [
            (None, "-message.type"),
            (None, "message.type=FIFO"),
            (None, "+message.type=NONSENSE"),
            (None, "+message.type"),
            (None, "+reserve.time=-2"),
            (None, "+reserve.time=soon"),
            (None, "+no.such=1"),
            (None, "+"),
            (None, "é=1"),
            (None, "+message.type=FIFO,+message.type=DELAY"),
            (
                Some("message.type=FIFO"),
                "+message.type=DELAY,-message.type",
            ),
            (Some(""), "-message.type"),
            (Some("queue.type=SimpleCQ"), "+queue.type=BatchCQ"),
            (Some("queue.type=SimpleCQ"), "-queue.type"),
            (Some(""), "+cleanup.policy=DELETE"),
        ] {
            assert_eq!(change(before, text), None, "{before:?} {text}");
        }
    }
}
