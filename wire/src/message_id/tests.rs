#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::check;

#[test]
fn an_offset_id_says_where_a_record_lies() {
    let id = OffsetId::parse("7F0000020000597F00000000000008AE").unwrap();
    assert_eq!(
        id,
        OffsetId {
            store_host: Host {
                ip: IpAddr::from([127, 0, 0, 2]),
                port: 22911
            },
            offset: 2222
        }
    );
    assert_eq!(id.encode().as_str(), "7F0000020000597F00000000000008AE");
    let v6 = OffsetId {
        store_host: Host {
            ip: IpAddr::from(Ipv6Addr::LOCALHOST),
            port: 10911,
        },
        offset: 1,
    };
    assert_eq!(v6.encode().len(), 56);
    assert_eq!(OffsetId::parse(&v6.encode()), Some(v6));
}

#[test]
fn a_unique_id_has_the_parts_of_java() {
    let id = UniqueId::parse("C0000202237E0000000068f21e900001").unwrap();
    assert_eq!(
        id,
        UniqueId {
            ip: IpAddr::from([192, 0, 2, 2]),
            pid: 0x237E,
            loader: 0,
            month_ms: 0x68f2_1e90,
            counter: 1
        }
    );
    let v6 = "FD00000000000000000000000000000244465FFD2B2768EA73B70005";
    assert_eq!(UniqueId::parse(v6).unwrap().encode().as_str(), v6);
}

#[test]
fn what_is_no_id_is_refused() {
    for text in [
        "",
        "7F",
        "7F0000020000597F00000000000008A",
        "7F0000020000597F00000000000008AG",
        &"0".repeat(58),
        "\u{e9}",
    ] {
        assert_eq!(OffsetId::parse(text), None, "{text}");
        assert_eq!(UniqueId::parse(text), None, "{text}");
    }
}

#[test]
fn a_recall_handle_is_javas() {
    let text = "djEgVG9waWMtZGVsYXkgYnJva2VyLWEgMTc5NTI1MjEzOTAwMSBGRDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMjVDQTQ1RkZEMkIyNzY4RjRFNTREMDAwMg==";
    let handle = RecallHandle::parse(text).unwrap();
    assert_eq!(
        (handle.topic.as_str(), handle.broker_name.as_str()),
        ("Topic-delay", "broker-a")
    );
    assert_eq!(handle.deliver_ms, 1795252139001);
    assert_eq!(
        handle.unique_key,
        "FD0000000000000000000000000000025CA45FFD2B2768F4E54D0002"
    );
    assert_eq!(handle.encode(), text);
    assert_eq!(RecallHandle::parse(&URL_SAFE.encode("v2 t b 1 k")), None);
    assert_eq!(RecallHandle::parse(&URL_SAFE.encode("v1 t b x k")), None);
    assert_eq!(
        RecallHandle::parse(&URL_SAFE.encode("v1 t b 1 k more")),
        None
    );
}

proptest! {
    #[test]
    fn ids_survive(ip in any::<[u8; 4]>(), port: u32, offset: i64) {
        let id = OffsetId { store_host: Host { ip: IpAddr::from(ip), port }, offset };
        prop_assert_eq!(OffsetId::parse(&id.encode()), Some(id));
    }

    #[test]
    fn arbitrary_text_never_panics(bytes in vec(any::<u8>(), 0..80), digits in "[0-9a-fA-F]{28,60}") {
        check::message_ids(&bytes);
        check::message_ids(digits.as_bytes());
        check::message_ids(URL_SAFE.encode(&bytes).as_bytes());
    }
}
