#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelane_wire::check::offsets(bytes));
