//! What the generator needs of every answer: its opaque and its code, found without parsing the rest.

use corelane_wire::frame::{Frame, FrameError};

/// The essentials of an answer, or of a request that the server makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// What the request had.
    pub opaque: i32,
    /// The response code.
    pub code: i32,
    /// Not set in requests of the server.
    pub is_response: bool,
}

/// Reads one whole frame.
#[inline]
pub fn read(frame: &[u8]) -> Result<Reply, FrameError> {
    match frame.first_chunk::<21>() {
        Some(
            &[
                _,
                _,
                _,
                _,
                1,
                _,
                _,
                _,
                c0,
                c1,
                _,
                _,
                _,
                o0,
                o1,
                o2,
                o3,
                f0,
                f1,
                f2,
                f3,
            ],
        ) => Ok(Reply {
            opaque: i32::from_be_bytes([o0, o1, o2, o3]),
            code: i16::from_be_bytes([c0, c1]).into(),
            is_response: i32::from_be_bytes([f0, f1, f2, f3]) & 1 != 0,
        }),
        _ => read_json(frame),
    }
}

/// Looks for the members by their names; what does not have them in plain form is parsed.
fn read_json(frame: &[u8]) -> Result<Reply, FrameError> {
    let header_len = frame
        .get(5..8)
        .map_or(0, |len| len.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
    let header = frame.get(8..8 + header_len).unwrap_or_default();
    let (code, rest) = find(header, b"\"code\":");
    // Names of members stand in the order of the alphabet with every known sender, so one pass finds all.
    let (flag, rest) = find(rest, b"\"flag\":");
    let (opaque, _) = find(rest, b"\"opaque\":");
    match (code, flag, opaque) {
        (Some(code), Some(flag), Some(opaque)) => Ok(Reply {
            opaque,
            code,
            is_response: flag & 1 != 0,
        }),
        _ => Frame::parse(frame).map(|frame| Reply {
            opaque: frame.opaque,
            code: frame.code,
            is_response: frame.is_response(),
        }),
    }
}

/// The integer behind `name`, and what follows it; nothing where it is not there in plain form.
fn find<'a>(bytes: &'a [u8], name: &[u8]) -> (Option<i32>, &'a [u8]) {
    let mut at = 0;
    while let Some(quote) = bytes[at..].iter().position(|byte| *byte == b'"') {
        at += quote;
        if let Some(rest) = bytes[at..].strip_prefix(name) {
            return integer(rest);
        }
        at += 1;
    }
    (None, bytes)
}

fn integer(bytes: &[u8]) -> (Option<i32>, &[u8]) {
    let (negative, digits) = match bytes.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, bytes),
    };
    let len = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let value = digits[..len]
        .iter()
        .try_fold(0i32, |value, digit| {
            value.checked_mul(10)?.checked_add(i32::from(digit - b'0'))
        })
        .filter(|_| len > 0)
        .map(|value| if negative { -value } else { value });
    (value, &digits[len..])
}

#[cfg(test)]
mod tests {
    use corelane_wire::FrameWriter;
    use corelane_wire::frame::{Head, Serialization};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_the_parser_finds(
            json in any::<bool>(),
            code in -2000i32..2000,
            opaque in any::<i32>(),
            flag in 0i32..4,
            remark in proptest::option::of("[a-z\":,]{0,20}"),
            value in "[a-z\":0-9]{0,20}",
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assume!(flag & 1 == 1 || code >= 0);
            let head = Head {
                serialization: if json { Serialization::Json } else { Serialization::Rocketmq },
                code, language: 0, version: 1, opaque, flag, remark: remark.as_deref(),
            };
            let mut bytes = Vec::new();
            let mut writer = FrameWriter::new(&mut bytes, &head);
            writer.field("msgId", &value);
            writer.finish_with(&body);
            let frame = Frame::parse(&bytes).unwrap();
            let wanted = Reply { opaque: frame.opaque, code: frame.code, is_response: frame.is_response() };
            prop_assert_eq!(read(&bytes), Ok(wanted));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn members_in_another_order_are_found() {
        let header = br#"{"opaque":5,"extFields":{"a":"b"},"flag":1,"code":17}"#;
        let mut bytes = ((header.len() + 4) as u32).to_be_bytes().to_vec();
        bytes.extend((header.len() as u32).to_be_bytes());
        bytes.extend(header);
        let wanted = Reply {
            opaque: 5,
            code: 17,
            is_response: true,
        };
        assert_eq!(read(&bytes), Ok(wanted));
    }
}
