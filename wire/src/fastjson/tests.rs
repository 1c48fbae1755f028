#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::body::MessageQueue;
use crate::check;

fn standard(json: &str) -> String {
    String::from_utf8(to_standard(json.as_bytes()).unwrap()).unwrap()
}

#[test]
fn keys_are_quoted() {
    assert_eq!(
        standard(r#"{0:"a",-1 : {name:[1, 2]}}"#),
        r#"{"0":"a","-1":{"name":[1,2]}}"#
    );
    assert_eq!(
        standard(r#"{{"q":0,"t":"a}\"b"}:1,{}:2}"#),
        r#"{"{\"q\":0,\"t\":\"a}\\\"b\"}":1,"{}":2}"#
    );
}

#[test]
fn null_members_are_left_out() {
    assert_eq!(
        standard(r#"{"a":null,"b":1,"c": null ,"d":[null,{"e":null}],0:null}"#),
        r#"{"b":1,"d":[null,{}]}"#
    );
}

#[test]
fn broken_text_is_refused() {
    for json in [
        "", "{", "[", "{\"a\"", "{\"a\":", "{\"a\":1", "[1", "[1 2]", "{,}", "{1}", "\"a", "\"a\\",
        "{}x", "]", "{{:1}", "[,]",
    ] {
        assert!(
            matches!(to_standard(json.as_bytes()), Err(BodyError::Syntax(_))),
            "{json}"
        );
    }
}

#[test]
fn depth_is_bounded() {
    for open in ["[", "{\"a\":", "{{\"a\":"] {
        assert!(
            matches!(
                to_standard(open.repeat(100_000).as_bytes()),
                Err(BodyError::Depth)
            ),
            "{open}"
        );
    }
    let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
    assert_eq!(standard(&deep), deep);
}

#[test]
fn integer_keys_are_written_in_both_forms() {
    let table = BTreeMap::from([("a\"b".to_owned(), BTreeMap::from([(0, "x"), (-1, "")]))]);
    let written = |keys| {
        let mut out = Vec::new();
        push(&mut out, &table, keys);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(written(Keys::Quoted), r#"{"a\"b":{"-1":"","0":"x"}}"#);
    assert_eq!(written(Keys::Bare), r#"{"a\"b":{-1:"",0:"x"}}"#);
    let empty_key = BTreeMap::from([("", 1), ("\n", 2)]);
    let mut out = Vec::new();
    push(&mut out, &empty_key, Keys::Bare);
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"":1,"\n":2}"#);
}

#[test]
fn object_keys_are_written_as_objects() {
    let queue = MessageQueue {
        broker_name: "b".to_owned(),
        queue_id: 3,
        topic: "t".to_owned(),
    };
    let mut out = Vec::new();
    push_object_keyed(
        &mut out,
        [
            (&queue, BTreeMap::from([(1, 2)])),
            (&queue, BTreeMap::new()),
        ],
    );
    let text = r#"{{"brokerName":"b","queueId":3,"topic":"t"}:{1:2},{"brokerName":"b","queueId":3,"topic":"t"}:{}}"#;
    assert_eq!(String::from_utf8(out).unwrap(), text);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "[\\[\\]{}:,\"\\\\a0 nul.-]{0,60}") {
        check::fastjson(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80)) {
        check::fastjson(&bytes);
    }
}
