//! The tests of `bench/compare`, which is in Python.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::process::Command;

#[test]
fn the_comparison_reads_tools_and_renders_tables() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/compare");
    let tests = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover", folder])
        .output();
    let Ok(tests) = tests else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let text = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success(), "{text}");
    assert!(!text.contains("Ran 0 tests"), "{text}");
}
