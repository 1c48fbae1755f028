//! The results as one page: what it comes to, the charts, and all figures.

use std::fmt::Write;

use super::chart;
use crate::outcome::{Outcome, TrackOutcome, grouped, ms};

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:940px;margin:2em auto;padding:0 1em;\
color:#111827;background:#fff}h1{font-size:1.6em;margin:0}.quiet{color:#6b7280;margin:.2em 0 1.2em}\
.tiles{display:flex;flex-wrap:wrap;gap:.7em;margin:1em 0}.tile{flex:1 1 5.6em;border:1px solid #e5e7eb;\
border-radius:.5em;padding:.5em .7em}.tile b{display:block;font-size:1.15em;white-space:nowrap}.tile span{color:#6b7280;\
font-size:.85em}.bad{border-left:.35em solid #d55e00;background:#d55e001a;padding:.5em .8em;margin:.5em 0}\
svg{display:block;width:100%;height:auto;margin:1em 0}table{border-collapse:collapse;width:100%;font-variant-numeric:\
tabular-nums;font-size:.88em}th,td{padding:.3em .5em;text-align:right;border-bottom:1px solid #e5e7eb;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}pre{white-space:pre-wrap;padding:.8em;border:1px solid #e5e7eb;\
border-radius:.5em;font-size:.85em}\
@media(prefers-color-scheme:dark){body{color:#f3f4f6;background:#14171c}.tile,pre,th,td{border-color:#2b3038}\
.quiet,.tile span{color:#9ca3af}}";

/// The page.
pub fn html(outcome: &Outcome) -> String {
    let title = format!("corelane bench {}", outcome.workload);
    let about = [
        utc(outcome.started_ms),
        format!("{:.1} s", outcome.seconds),
        outcome.brokers.join(", "),
        format!("{} queues", grouped(outcome.queues as u64)),
        format!("version {}", outcome.version),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1>\n<p class=\"quiet\">{about}</p>\n{verdict}{tiles}{charts}{table}\
         <h2>In words</h2>\n<pre>{figures}</pre>\n<h2>Arguments</h2>\n<pre>{arguments}</pre>\n</body></html>\n",
        about = escape(&about.join(" \u{b7} ")),
        verdict = verdict(outcome),
        tiles = outcome.main_track().map(tiles).unwrap_or_default(),
        charts = chart::svg(outcome),
        table = table(outcome),
        figures = escape(&outcome.to_string()),
        arguments = escape(&outcome.arguments.join(" ")),
    )
}

/// What a reader must know before believing the figures.
fn verdict(outcome: &Outcome) -> String {
    let mut lines = Vec::new();
    if let Some(why) = &outcome.generator.limited {
        lines.push(format!("Limited by the load generator: {why}"));
    }
    if let Some(findings) = outcome.findings.filter(|findings| !findings.is_clean()) {
        let (lost, duplicates) = (grouped(findings.lost), grouped(findings.duplicates));
        let out_of_order = grouped(findings.out_of_order);
        lines.push(format!(
            "Not clean: {lost} lost, {duplicates} duplicates, {out_of_order} out of order, {} damaged, {} misplaced",
            findings.damaged, findings.misplaced
        ));
    }
    if outcome.unanswered > 0 {
        let unanswered = grouped(outcome.unanswered);
        lines.push(format!("No answer to {unanswered} messages"));
    }
    if outcome.unsent > 0 {
        let unsent = grouped(outcome.unsent);
        lines.push(format!(
            "{unsent} requests were due and had no room: latencies count them as if they were answered at the end"
        ));
    }
    if let Some(first) = outcome.closed.first() {
        lines.push(format!(
            "{} connections ended: {first}",
            outcome.closed.len()
        ));
    }
    lines.extend(
        outcome
            .missed
            .iter()
            .map(|missed| format!("Missed {missed}")),
    );
    let line = |line: &String| format!("<p class=\"bad\">{}</p>\n", escape(line));
    lines.iter().map(line).collect()
}

fn tiles(track: &TrackOutcome) -> String {
    let mut figures = vec![
        (grouped(track.messages_per_second as u64), "messages/s"),
        (format!("{:.1}", track.bytes_per_second / 1e6), "MB/s"),
    ];
    let latency = &track.latency;
    if latency.count > 0 {
        figures.extend([
            (ms(latency.p50_ns), "median"),
            (ms(latency.p99_ns), "p99"),
            (ms(latency.p999_ns), "p99.9"),
            (ms(latency.max_ns), "slowest"),
        ]);
    }
    figures.push((grouped(track.counts.errors), "errors"));
    let tile = |(value, name): &(String, &str)| {
        format!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>")
    };
    let tiles: String = figures.iter().map(tile).collect();
    format!("<div class=\"tiles\">{tiles}</div>\n")
}

fn table(outcome: &Outcome) -> String {
    let mut out = "<div class=\"wide\"><table><tr><th></th><th>messages</th><th>messages/s</th><th>MB/s</th>\
                   <th>errors</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th>\
                   <th>max</th></tr>\n"
        .to_owned();
    for track in &outcome.tracks {
        let latency = &track.latency;
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td>",
            format!("{:?}", track.track).to_lowercase(),
            grouped(track.counts.messages),
            grouped(track.messages_per_second as u64),
            track.bytes_per_second / 1e6,
            grouped(track.counts.errors),
        );
        for ns in [
            latency.mean_ns,
            latency.p50_ns,
            latency.p90_ns,
            latency.p99_ns,
            latency.p999_ns,
            latency.p9999_ns,
            latency.max_ns,
        ] {
            let cell = match latency.count {
                0 => "-".to_owned(),
                _ => ms(ns),
            };
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out + "</table></div>\n"
}

/// A time as `2026-01-31 23:59 UTC`.
pub fn utc(since_1970_ms: u64) -> String {
    let minutes = since_1970_ms / 60_000;
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    // Years that begin in March have their odd day at the end; 719,468 days lie between year 0 and 1970.
    let days = minutes / 1440 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_827_696_000), "2000-02-29 12:34 UTC");
        assert_eq!(utc(1_767_225_599_999), "2025-12-31 23:59 UTC");
    }
}
