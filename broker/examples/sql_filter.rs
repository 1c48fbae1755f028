//! How many evaluations a second one core does of SQL92 filters on messages with five properties.
//!
//! `cargo run --release -p corelane-broker --example sql_filter`

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement"
)]
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use corelane_broker::engine::filter::sql::{SqlError, SqlFilter};

const EXPRESSIONS: [(&str, &str); 7] = [
    ("one term", "price > 15"),
    (
        "three terms, all looked at",
        "region IN ('eu', 'us') AND price > 15 AND vip = TRUE",
    ),
    (
        "three terms, any of which may do",
        "region = 'cn' OR price BETWEEN 90 AND 99 OR note CONTAINS 'late'",
    ),
    (
        "three terms, floats",
        "weight > 0.5 AND weight < 9.75 AND price >= 10",
    ),
    (
        "three terms, unknown",
        "missing = 1 OR absent > 2 OR lacking IS NOT NULL",
    ),
    (
        "eight terms",
        "price > 1 AND price > 2 AND price > 3 AND price > 4 AND price > 5 AND price > 6 AND vip = TRUE AND price < 99",
    ),
    (
        "a list of thirty",
        "region IN ('a','b','c','d','e','f','g','h','i','j','k','l','m','n','o','p','q','r','s','t','aa','bb','cc','dd','ee','ff','gg','hh','eu','us')",
    ),
];

fn main() -> Result<(), SqlError> {
    let messages: Vec<Vec<u8>> = (0..64).map(message).collect();
    let bytes = messages.iter().map(Vec::len).sum::<usize>() / messages.len();
    println!("5 properties of {bytes} bytes a message");
    for (name, expression) in EXPRESSIONS {
        let filter = SqlFilter::compile(expression)?;
        let (mut evaluations, mut matched) = (0u64, 0u64);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            for properties in messages.iter().cycle().take(64 * 64) {
                matched += u64::from(black_box(&filter).matches(black_box(properties)));
            }
            evaluations += 64 * 64;
        }
        let rate = evaluations as f64 / start.elapsed().as_secs_f64();
        let share = 100.0 * matched as f64 / evaluations as f64;
        println!(
            "{:7.2} M evaluations/s  {name} ({share:.0} % match)",
            rate / 1e6
        );
    }
    Ok(())
}

fn message(i: usize) -> Vec<u8> {
    let region = ["eu", "us", "cn"][i % 3];
    let vip = i.is_multiple_of(2);
    format!(
        "UNIQ_KEY\x017F00000100002A139A5518B4AAC2{i:04}\x02region\x01{region}\x02price\x01{}\x02vip\x01{vip}\x02weight\x01{}.25\x02",
        10 + i,
        i % 10,
    )
    .into_bytes()
}
