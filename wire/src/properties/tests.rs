#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::check;

fn pairs(text: &str) -> Vec<(String, String)> {
    Properties::from_plain(text)
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn pairs_are_split_as_java_splits_them() {
    assert_eq!(
        pairs("KEYS\x01a b\x02TAGS\x01t\x02"),
        owned(&[("KEYS", "a b"), ("TAGS", "t")])
    );
    assert_eq!(
        pairs("KEYS\x01a b\x02TAGS\x01t"),
        owned(&[("KEYS", "a b"), ("TAGS", "t")])
    );
    assert_eq!(pairs("a\x01b\x01c\x02"), owned(&[("a", "b\x01c")]));
    assert_eq!(
        pairs("\x01b\x02a\x01\x02ab\x02\x02x\x01y\x02"),
        owned(&[("x", "y")])
    );
    assert_eq!(pairs(""), owned(&[]));
}

#[test]
fn the_last_pair_of_a_name_counts() {
    let properties = Properties::from_plain("a\x011\x02b\x012\x02a\x013\x02");
    assert_eq!(
        properties.find(["a", "b", "c"]),
        [Some(Text::plain("3")), Some(Text::plain("2")), None]
    );
}

#[test]
fn an_edit_takes_out_and_appends() {
    let received =
        Properties::from_plain("KEYS\x01k\x02WAIT\x01true\x02CLUSTER\x01old\x02TAGS\x01t");
    let edit = Edit {
        ready: "",
        received,
        without: &["WAIT", "POP_CK"],
        append: &[("CLUSTER", "new"), ("TRACE_ON", "true")],
    };
    let edit = edit.measure();
    let mut out = vec![0; edit.len()];
    edit.write_to(&mut out);
    assert_eq!(
        std::str::from_utf8(&out).unwrap(),
        "KEYS\x01k\x02TAGS\x01t\x02CLUSTER\x01new\x02TRACE_ON\x01true\x02"
    );
}

#[test]
fn what_is_kept_whole_is_written_like_pair_by_pair() {
    for received in [
        "",
        "a\x011\x02",
        "a\x011\x02bb\x0122",
        "a\x011\x02rest",
        "\x02a\x011\x02",
        "a\x011\x02\x02b\x012\x02",
        "a\x01b\x01c\x02",
    ] {
        let pairwise: String = Properties::from_plain(received)
            .iter()
            .map(|(name, value)| format!("{name}\x01{value}\x02"))
            .collect();
        let edit = Edit {
            ready: "",
            received: Properties::from_plain(received),
            without: &["x"],
            append: &[("y", "1")],
        };
        let edit = edit.measure();
        let mut out = vec![0; edit.len()];
        assert_eq!(edit.write_to(&mut out), out.len());
        assert_eq!(out, format!("{pairwise}y\x011\x02").into_bytes());
    }
}

#[test]
fn tags_have_the_hash_of_java() {
    for (tag, code) in [
        ("", 0),
        ("tagA", 3552231),
        ("TagA", 2598919),
        ("hello world", 1794106052),
        ("\u{1F600}", 1772899),
    ] {
        assert_eq!(tags_code(tag), code, "{tag}");
    }
    assert_eq!(tags_code("polygenelubricants"), i64::from(i32::MIN));
}

proptest! {
    #[test]
    fn pairs_survive_every_form(text in "[ab\u{1}\u{2}\\\\\"\u{e9}\u{1F600}]{0,60}") {
        check::properties(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        check::properties(&bytes);
    }
}
