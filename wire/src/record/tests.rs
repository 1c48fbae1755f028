#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::check;

fn host() -> impl Strategy<Value = Host> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    (prop_oneof![v4, v6], any::<u32>()).prop_map(|(ip, port)| Host { ip, port })
}

prop_compose! {
    fn head()(
        (queue_id, flag, queue_offset, physical_offset) in any::<(i32, i32, i64, i64)>(),
        (sys_flag, born_timestamp, store_timestamp) in (0..0x10i32, any::<i64>(), any::<i64>()),
        (born_host, store_host) in (host(), host()),
        (reconsume_times, prepared_transaction_offset) in any::<(i32, i64)>(),
    ) -> RecordHead {
        RecordHead {
            queue_id, flag, queue_offset, physical_offset, sys_flag, born_timestamp, born_host, store_timestamp, store_host,
            reconsume_times, prepared_transaction_offset,
        }
    }
}

fn encoded(head: RecordHead, body: &[u8], topic: &str, properties: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    RecordFields {
        head,
        body,
        topic,
        properties,
    }
    .push_to(&mut out)
    .unwrap();
    out
}

proptest! {
    #[test]
    fn a_written_record_reads_the_same(
        head in head(), body in vec(any::<u8>(), 0..300), topic in "[a-zA-Z%_]{0,300}", properties in vec(any::<u8>(), 0..300),
    ) {
        let bytes = encoded(head, &body, &topic, &properties);
        let (record, rest) = Record::parse(&bytes).unwrap();
        prop_assert!(rest.is_empty());
        let mut head = head;
        head.sys_flag |= if head.born_host.is_v6() { sys_flag::BORN_HOST_V6 } else { 0 };
        head.sys_flag |= if head.store_host.is_v6() { sys_flag::STORE_HOST_V6 } else { 0 };
        prop_assert_eq!(record.head(), head);
        prop_assert_eq!(record.body(), &body[..]);
        prop_assert_eq!(record.topic(), &topic);
        prop_assert_eq!(record.properties_bytes(), &properties[..]);
        prop_assert_eq!(record.magic() == MAGIC_V2, topic.len() > 127);
        prop_assert!(record.check_body_crc());
        check::record(&bytes);
        for cut in 0..bytes.len() {
            prop_assert!(Record::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_damaged_record_never_panics(
        head in head(), body in vec(any::<u8>(), 0..40), damage in vec((0..200usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(head, &body, "topic", b"a\x01b\x02");
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        check::record(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..300), len in 0..300u32) {
        check::record(&bytes);
        if bytes.len() >= 8 {
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC_V1.to_be_bytes());
            check::record(&bytes);
        }
    }
}

fn plain_head() -> RecordHead {
    let host = Host {
        ip: IpAddr::from([127, 0, 0, 1]),
        port: 10911,
    };
    RecordHead {
        queue_id: 1,
        flag: 2,
        queue_offset: 3,
        physical_offset: 4,
        sys_flag: 0,
        born_timestamp: 5,
        born_host: host,
        store_timestamp: 6,
        store_host: host,
        reconsume_times: 7,
        prepared_transaction_offset: 8,
    }
}

#[test]
fn the_shortest_record_has_its_length() {
    assert_eq!(
        encoded(plain_head(), b"", "", b"").len(),
        RecordLayout::MIN_BYTES
    );
}

#[test]
fn parts_and_late_fields_make_the_same_record() {
    let whole = encoded(plain_head(), b"body in two parts", "topic", b"a\x01b\x02");
    let host = plain_head().born_host;
    let mut layout = RecordLayout::new(&host, &host, 17, 5, 100).unwrap();
    let mut bytes = vec![0xAA; layout.total_len()];
    layout.set_properties_len(4);
    layout.write_body_parts(&mut bytes, [&b"body in "[..], b"two parts"]);
    layout.write_topic(&mut bytes, "topic");
    layout
        .properties_mut(&mut bytes)
        .copy_from_slice(b"a\x01b\x02");
    layout.write_head(
        &mut bytes,
        &RecordHead {
            queue_offset: 0,
            physical_offset: 0,
            ..plain_head()
        },
    );
    set_queue_offset(&mut bytes, 3);
    set_physical_offset(&mut bytes, 4);
    assert_eq!(&bytes[..layout.total_len()], whole);
}

#[test]
fn what_does_not_fit_is_refused() {
    let head = plain_head();
    let long = "t".repeat(MAX_TOPIC_BYTES + 1);
    let properties = vec![b'p'; MAX_PROPERTIES_BYTES + 1];
    let topic_too_long = RecordFields {
        head,
        body: b"",
        topic: &long,
        properties: b"",
    };
    assert_eq!(
        topic_too_long.encoded_len(),
        Err(LayoutError::Topic(MAX_TOPIC_BYTES + 1))
    );
    let properties_too_long = RecordFields {
        head,
        body: b"",
        topic: "t",
        properties: &properties,
    };
    assert_eq!(
        properties_too_long.encoded_len(),
        Err(LayoutError::Properties(MAX_PROPERTIES_BYTES + 1))
    );
}

#[test]
fn filler_and_foreign_bytes_are_told_apart() {
    let mut filler = 4096u32.to_be_bytes().to_vec();
    filler.extend_from_slice(&MAGIC_BLANK.to_be_bytes());
    assert_eq!(
        Record::parse(&filler).unwrap_err(),
        RecordError::Blank(4096)
    );
    assert_eq!(Record::parse(&[0; 100]).unwrap_err(), RecordError::Magic(0));
    let mut short = encoded(plain_head(), b"", "", b"");
    short[3] = 90;
    assert_eq!(Record::parse(&short).unwrap_err(), RecordError::Length(90));
    let mut broken = encoded(plain_head(), b"body", "", b"");
    broken[87] = 200;
    assert_eq!(
        Record::parse(&broken).unwrap_err(),
        RecordError::Part("body")
    );
}

#[test]
fn a_changed_body_is_seen() {
    let mut bytes = encoded(plain_head(), b"body", "t", b"");
    bytes[88] ^= 1;
    assert!(!Record::parse(&bytes).unwrap().0.check_body_crc());
}
