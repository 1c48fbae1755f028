//! Holds the table of `docs/compatibility.md` against what the engine answers.

use corelane_wire::code::{request_name, response};

use crate::log::LogOptions;
use crate::sim::shard::{SimShard, settings};

/// Code, name and third column of every row.
fn table() -> Vec<(i32, &'static str, &'static str)> {
    let text = include_str!("../../../docs/compatibility.md");
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse().ok()?, cells.next()?, cells.next()?))
    };
    text.lines().filter_map(row).collect()
}

/// The codes that the engine serves.
pub(super) fn served() -> impl Iterator<Item = i32> {
    let rows = table().into_iter();
    rows.filter(|(_, _, here)| is_served(here))
        .map(|(code, _, _)| code)
}

fn is_served(here: &str) -> bool {
    here.starts_with("served") && !here.starts_with("served by the NameServer")
}

#[test]
fn every_code_is_where_the_table_says() {
    let rows = table();
    let options = LogOptions {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        max_record_bytes: 64 << 10,
        ..LogOptions::default()
    };
    let mut shard = SimShard::new(1, settings(), options);
    let client = shard.connect();
    for code in (0..6_000).chain(200_000..200_200) {
        let row = rows.iter().find(|(known, _, _)| *known == code);
        assert_eq!(request_name(code), row.map(|row| row.1), "code {code}");
        let Some((_, name, here)) = row else { continue };
        let answer = shard.call(client, code, |_| {}, &[]);
        let refused =
            answer.is_some_and(|answer| answer.code == response::REQUEST_CODE_NOT_SUPPORTED);
        assert_eq!(
            !refused,
            is_served(here),
            "code {code}, {name}: the table says {here:?}"
        );
    }
}
