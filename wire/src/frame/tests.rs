#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ext::{ExtHeader, FieldError};
use crate::header::offset::GetMaxOffsetRequest;
use crate::{check, code};

fn framed(serialization: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u32 + body.len() as u32 + 4)
        .to_be_bytes()
        .to_vec();
    out.extend_from_slice(&(u32::from(serialization) << 24 | header.len() as u32).to_be_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(body);
    out
}

fn json_error(header: &str) -> FrameError {
    Frame::parse(&framed(0, header.as_bytes(), b"")).unwrap_err()
}

#[test]
fn lengths_are_bounded() {
    assert_eq!(split(&[0, 0, 1], 100), Ok(None));
    assert_eq!(split(&[0, 0, 0, 4, 0, 0, 0], 100), Ok(None));
    assert_eq!(split(&[0, 0, 0, 4, 0, 0, 0, 0, 9], 100), Ok(Some(8)));
    assert_eq!(announced_len(&[0, 0, 0, 96], 100), Ok(Some(100)));
    assert_eq!(
        announced_len(&[0, 0, 0, 97], 100),
        Err(FrameError::Length(97))
    );
    assert_eq!(
        announced_len(&[0, 0, 0, 3], 100),
        Err(FrameError::Length(3))
    );
    assert_eq!(announced_len(&[0xFF; 4], 100), Err(FrameError::Length(-1)));
    assert_eq!(
        Frame::parse(&framed(2, b"{}", b"")).unwrap_err(),
        FrameError::Serialization(2)
    );
    let mut longer_header = framed(0, b"{}", b"");
    longer_header[7] = 3;
    assert_eq!(
        Frame::parse(&longer_header).unwrap_err(),
        FrameError::HeaderLength(3)
    );
    let mut followed = framed(0, b"{\"code\":1}", b"");
    followed.push(0);
    assert!(matches!(
        Frame::parse(&followed),
        Err(FrameError::Length(_))
    ));
}

#[test]
fn a_json_header_is_read_with_tolerance() {
    let header = r#" { "flag" : 3 , "x":[{"a":"]"},[]], "language":"COBOL","extFields" :{"n":-7,"b":true,"s":"a\"\u0041\ud83d\ude00\ud800\/","z":null,
        "o":{"n":[1]}, "e":""},"version":"513","opaque":-2147483648,"code":11,"remark":null,"y":1.5e3 } "#;
    let bytes = framed(0, header.as_bytes(), b"body");
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(
        (frame.code, frame.flag, frame.version, frame.opaque),
        (11, 3, 513, i32::MIN)
    );
    assert_eq!(
        (frame.language, frame.remark, frame.body),
        (code::language::OTHER, None, &b"body"[..])
    );
    let fields: Vec<_> = frame
        .ext
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let expected = [
        ("n", "-7"),
        ("b", "true"),
        ("s", "a\"A\u{1F600}\u{FFFD}/"),
        ("e", ""),
    ];
    assert_eq!(
        fields,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(frame.ext.get("e"), Some(Text::plain("")));
    check::frame(&bytes);
}

#[test]
fn a_broken_json_header_is_refused() {
    for header in [
        "",
        "[]",
        "{",
        "{}",
        "{\"code\":1",
        "{\"code\":1}}",
        "{\"code\":1,}",
        "{\"code\":1 \"flag\":1}",
        "{\"code\":x}",
        "{\"code\":}",
        "{\"code\":2147483648}",
        "{\"code\":1.5}",
        "{\"code\":{}}",
        "{code:1}",
        "{\"code\":1,\"extFields\":{\"a\":\"b}}",
        "{\"code\":1,\"extFields\":{\"a\":\"\\x\"}}",
        "{\"code\":1,\"extFields\":{\"a\":\"\\u12g4\"}}",
        "{\"code\":1,\"extFields\":{\"a\" \"b\"}}",
        "{\"code\":1,\"extFields\":{\"a\":[}}",
        "{\"code\":1,\"extFields\":{\"a\":tru}}",
        "{\"code\":1,\"x\":[}]}",
    ] {
        assert!(
            matches!(json_error(header), FrameError::Header(_)),
            "{header}"
        );
    }
    let deep = format!(
        "{{\"code\":1,\"x\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(json_error(&deep), FrameError::Header("less nesting"));
    assert_eq!(
        Frame::parse(&framed(0, b"{\"code\":1,\"x\":\"\xFF\"}", b"")).unwrap_err(),
        FrameError::Header("UTF-8")
    );
}

#[test]
fn pop_codes_are_widened_in_binary_requests_only() {
    let mut header = vec![
        0x0D, 0x72, 0, 2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(
        Frame::parse(&framed(1, &header, b"")).unwrap().code,
        code::request::POP_MESSAGE
    );
    header[12] = 1;
    assert_eq!(Frame::parse(&framed(1, &header, b"")).unwrap().code, 0x0D72);
    for cut in 0..header.len() {
        assert!(matches!(
            Frame::parse(&framed(1, &header[..cut], b"")),
            Err(FrameError::Header(_))
        ));
    }
}

fn head(serialization: Serialization) -> Head<'static> {
    Head {
        serialization,
        code: 0,
        language: 0,
        version: 513,
        opaque: 7,
        flag: 1,
        remark: None,
    }
}

#[test]
fn what_does_not_fit_the_binary_form_is_written_as_json() {
    let mut out = Vec::new();
    FrameWriter::new(
        &mut out,
        &Head {
            code: 200050,
            ..head(Serialization::Rocketmq)
        },
    )
    .finish(0);
    let frame = Frame::parse(&out).unwrap();
    assert_eq!(
        (frame.serialization, frame.code),
        (Serialization::Json, 200050)
    );
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let mut out = b"before".to_vec();
    let mut writer = FrameWriter::new(&mut out, &head(Serialization::Json));
    writer.field("a", "b");
    drop(writer);
    assert_eq!(out, b"before");
}

#[test]
fn the_body_may_follow_from_elsewhere() {
    let mut out = Vec::new();
    let mut writer = FrameWriter::new(
        &mut out,
        &Head {
            remark: Some("a \"b\"\n"),
            ..head(Serialization::Json)
        },
    );
    writer.int_field("i", i64::MIN);
    writer.finish(4);
    assert_eq!(split(&out, 1000), Ok(None));
    out.extend_from_slice(b"body");
    let frame = Frame::parse(&out).unwrap();
    assert_eq!(
        (frame.body, frame.remark),
        (&b"body"[..], Some(Text::plain("a \"b\"\n")))
    );
    assert_eq!(
        frame.ext.get("i"),
        Some(Text::plain("-9223372036854775808"))
    );
}

#[test]
fn a_header_stays_below_16_mib() {
    let long = "x".repeat(9 << 20);
    for serialization in [Serialization::Json, Serialization::Rocketmq] {
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(
            &mut out,
            &Head {
                remark: Some(&long),
                ..head(serialization)
            },
        );
        for name in ["first", "second", "third"] {
            writer.field(name, if name == "third" { "fits" } else { &long });
        }
        writer.finish(0);
        let frame = Frame::parse(&out).unwrap();
        let names: Vec<_> = frame.ext.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["first", "third"]);
        assert_eq!(frame.remark.unwrap().len(), 32767);
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(&mut out, &head(serialization));
        writer.field("too long", &long.repeat(2));
        writer.field("a", "b");
        writer.finish(0);
        assert_eq!(Frame::parse(&out).unwrap().ext.iter().count(), 1);
    }
}

#[test]
fn fields_of_the_wrong_kind_are_named() {
    let decode = |fields: &str| {
        let bytes = framed(
            0,
            format!("{{\"code\":30,\"extFields\":{fields}}}").as_bytes(),
            b"",
        );
        GetMaxOffsetRequest::decode(&Frame::parse(&bytes).unwrap().ext)
            .map(|header| (header.queue_id, header.committed))
    };
    assert_eq!(decode(r#"{"topic":"t","queueId":"3"}"#), Ok((3, true)));
    assert_eq!(
        decode(r#"{"topic":"t","queueId":3,"committed":false}"#),
        Ok((3, false))
    );
    assert_eq!(
        decode(r#"{"t\u006fpic":"t","queueId":"\u0033","committed":"TRUE"}"#),
        Ok((3, true))
    );
    assert_eq!(
        decode(r#"{"queueId":"3"}"#),
        Err(FieldError::Missing("topic"))
    );
    assert_eq!(
        decode(r#"{"topic":"t","queueId":""}"#),
        Err(FieldError::Missing("queueId"))
    );
    for queue_id in ["3x", "-", "2147483648", "1.0", "99999999999999999999"] {
        let invalid = Err(FieldError::Invalid("queueId", "integer of 32 bits"));
        assert_eq!(
            decode(&format!(r#"{{"topic":"t","queueId":"{queue_id}"}}"#)),
            invalid
        );
    }
}

#[test]
fn binary_text_that_is_not_utf8_is_named_where_it_is_needed() {
    let mut header = vec![
        0, 30, 0, 2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 26,
    ];
    header.extend_from_slice(b"\0\x05topic\0\0\0\x01\xFF\0\x07queueId\0\0\0\x011");
    let bytes = framed(1, &header, b"");
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(frame.ext.iter().count(), 1);
    assert_eq!(
        GetMaxOffsetRequest::decode(&frame.ext),
        Err(FieldError::Invalid("topic", "UTF-8 text"))
    );
    check::frame(&bytes);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (code, language, version, opaque, flag) in any::<(i32, u8, i32, i32, i32)>(), remark in proptest::option::of(".{0,20}"),
        fields in vec((".{1,10}", ".{0,30}"), 0..8), body in vec(any::<u8>(), 0..50), binary: bool,
    ) {
        let serialization = if binary { Serialization::Rocketmq } else { Serialization::Json };
        let mut out = Vec::new();
        let head = Head { serialization, code, language, version, opaque, flag, remark: remark.as_deref() };
        let mut writer = FrameWriter::new(&mut out, &head);
        for (name, value) in &fields {
            writer.field(name, value);
        }
        writer.finish_with(&body);
        let frame = Frame::parse(&out).unwrap();
        prop_assert_eq!((frame.version, frame.opaque, frame.flag), (version, opaque, flag));
        prop_assert_eq!(frame.body, &body[..]);
        let expected = fields.iter().map(|(name, value)| (Text::plain(name), Text::plain(value)));
        prop_assert!(frame.ext.iter().eq(expected));
        for (_, value) in frame.ext.iter() {
            let mut copied = Vec::new();
            value.push_to(&mut copied);
            let mut written = vec![0; value.len()];
            prop_assert_eq!(value.write_to(&mut written), written.len());
            prop_assert_eq!(&written, &copied);
            let unescaped = value.to_str();
            prop_assert_eq!(unescaped.as_bytes(), &written[..]);
            prop_assert!(value == *unescaped.as_ref());
        }
        check::frame(&out);
        check::headers(&out);
    }

    #[test]
    fn arbitrary_headers_never_panic(header in "[{}\\[\\]:,\"\\\\a0-9 uexntlr.-]{0,80}", bytes in vec(any::<u8>(), 0..80), serialization in 0..3u8) {
        for header in [header.as_bytes(), &bytes, format!("{{\"code\":1,\"extFields\":{{{header}}}}}").as_bytes()] {
            let bytes = framed(serialization, header, b"");
            check::frame(&bytes);
            check::headers(&bytes);
        }
        check::frame(&bytes);
    }
}

#[test]
fn json_fields_are_the_same_however_many_there_are() {
    for fields in [0, 1, 15, 16, 17, 40] {
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(&mut out, &head(Serialization::Json));
        for index in 0..fields {
            writer.field(&format!("n\"{index}"), &format!("v\\{index}"));
        }
        writer.finish(0);
        let frame = Frame::parse(&out).unwrap();
        let read: Vec<_> = frame
            .ext
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let written: Vec<_> = (0..fields)
            .map(|index| (format!("n\"{index}"), format!("v\\{index}")))
            .collect();
        assert_eq!(read, written);
    }
}
