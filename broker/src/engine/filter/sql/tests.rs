//! The language as a whole. `observed.tsv` is what Apache RocketMQ 5.5.0 makes of each expression for one message: true,
//! false, unknown, fails (a property does not convert), refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::expr::{Failed, Value};
use super::*;

const OBSERVED: &str = include_str!("observed.tsv");
/// Of the message that was asked about; `m` and `k` are missing.
const PROPERTIES: &[u8] = b"i\x015\x02n\x01-7\x02f\x015.5\x02s\x01abc\x02q\x01it's\x02t\x01true\x02big\x019999999999\x02e\x011e3\x02";

/// Apache cannot cast the text on the right; the other way round it can, and so we do both.
const DIFFERS: [(&str, &str); 1] = [("TRUE = t", "true")];

fn outcome(expression: &str) -> &'static str {
    let Ok(filter) = SqlFilter::compile(expression) else {
        return "refused";
    };
    let mut slots = [None; MAX_NAMES];
    filter.fill(PROPERTIES, &mut slots);
    let result = filter.root.evaluate(&slots).map(Value::as_truth);
    assert_eq!(
        filter.matches(PROPERTIES),
        result == Ok(Some(true)),
        "{expression}"
    );
    match result {
        Ok(Some(true)) => "true",
        Ok(Some(false)) => "false",
        Ok(None) => "unknown",
        Err(Failed) => "fails",
    }
}

#[test]
fn expressions_are_worth_what_they_are_with_apache() {
    let mut wrong = Vec::new();
    for line in OBSERVED.lines() {
        let (expected, expression) = line.split_once('\t').unwrap();
        let expected = DIFFERS
            .iter()
            .find(|(differs, _)| *differs == expression)
            .map_or(expected, |(_, here)| here);
        let got = outcome(expression);
        if got != expected {
            wrong.push(format!("{expression}: {got}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn errors_show_where() {
    let error = |text: &str| SqlFilter::compile(text).unwrap_err();
    assert_eq!(
        error("a AND").to_string(),
        "expected a value, found the end at position 6: \"a AND[here]\""
    );
    for (text, position) in [
        ("i LIKE 'x'", 3),
        ("i + 1 = 5", 3),
        ("i != 5", 3),
        ("i IN (1)", 7),
        ("(i = 5", 7),
        ("i = 'x", 5),
        ("i = 5 s = 6", 7),
        ("s > 'x'", 5),
        ("i = 5 /* no end", 7),
    ] {
        assert_eq!(error(text).position, position, "{text}: {}", error(text));
    }
}

#[test]
fn bounds_are_errors_and_not_crashes() {
    let nested = |levels: usize| format!("{}a = 1{}", "(".repeat(levels), ")".repeat(levels));
    assert!(SqlFilter::compile(&nested(MAX_DEPTH / 2)).is_ok());
    assert!(SqlFilter::compile(&nested(100_000 / 4)).is_err());
    assert!(SqlFilter::compile(&"NOT ".repeat(10_000)).is_err());
    assert!(SqlFilter::compile(&vec!["a = 1"; MAX_PARTS].join(" OR ")).is_err());
    let names: Vec<_> = (0..=MAX_NAMES).map(|n| format!("p{n} IS NULL")).collect();
    assert!(SqlFilter::compile(&names.join(" OR ")).is_err());
    assert!(SqlFilter::compile(&"x".repeat(MAX_TEXT_BYTES + 1)).is_err());
}

/// Pieces of which most sequences are wrong and some are not.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "a",
            "b",
            "_c",
            "5",
            "-1",
            "2.5",
            ".5",
            "1e9",
            "'x'",
            "''",
            "TRUE",
            "FALSE",
            "NULL",
            "AND",
            "OR",
            "NOT",
            "=",
            "<>",
            "<",
            "<=",
            ">",
            ">=",
            "IS",
            "BETWEEN",
            "IN",
            "(",
            ")",
            ",",
            "CONTAINS",
            "STARTSWITH",
            "ENDSWITH",
            "+",
            "-",
            "--",
            "/*",
            "*/",
            "9223372036854775807L",
            "99999999999999999999",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #[test]
    fn no_text_and_no_properties_crash_it(
        pieces in proptest::collection::vec(piece(), 0..24),
        properties in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let text = pieces.join(" ");
        match SqlFilter::compile(&text) {
            Ok(filter) => {
                let _ = filter.matches(&properties);
                let _ = filter.matches(b"a\x015\x02b\x01x\x02_c\x01TRUE\x02");
            }
            Err(error) => {
                prop_assert!(error.offset <= text.len());
                prop_assert!(text.is_char_boundary(error.offset));
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
