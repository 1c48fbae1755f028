#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::check;

proptest! {
    #[test]
    fn a_written_batch_reads_the_same(
        parts in vec((any::<i32>(), vec(any::<u8>(), 0..50), "[a-z\u{1}\u{2}]{0,20}"), 0..6), cut in any::<prop::sample::Index>(),
    ) {
        let written: Vec<_> =
            parts.iter().map(|(flag, body, properties)| BatchMessage { flag: *flag, body, properties }).collect();
        let mut bytes = Vec::new();
        for message in &written {
            push(&mut bytes, message).unwrap();
        }
        prop_assert!(messages(&bytes).eq(written.iter().copied().map(Ok)));
        check::batch(&bytes);
        if !bytes.is_empty() {
            let at = cut.index(bytes.len());
            check::batch(&bytes[..at]);
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x80;
            check::batch(&damaged);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        check::batch(&bytes);
    }
}

#[test]
fn the_broken_message_is_named_and_ends_the_batch() {
    let mut bytes = Vec::new();
    let message = BatchMessage {
        flag: 0,
        body: b"body",
        properties: "a\x01b\x02",
    };
    push(&mut bytes, &message).unwrap();
    let first_len = bytes.len();
    push(&mut bytes, &message).unwrap();
    bytes[first_len + 19] = 0xFF;
    assert_eq!(
        messages(&bytes).collect::<Vec<_>>(),
        [Ok(message), Err(BatchError::Lengths(1))]
    );
    assert_eq!(
        messages(&[0; 4]).collect::<Vec<_>>(),
        [Err(BatchError::Lengths(0))]
    );
}
