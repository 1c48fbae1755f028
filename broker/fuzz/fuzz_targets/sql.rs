//! An expression and the properties of a message, separated by a zero byte.
#![no_main]

use corelane_broker::engine::filter::sql::SqlFilter;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (text, properties) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match SqlFilter::compile(text) {
        Ok(filter) => {
            let _ = filter.matches(properties);
        }
        Err(error) => assert!(text.is_char_boundary(error.offset) && !error.message.is_empty()),
    }
});
