//! Two charts without anything from elsewhere: the latency curve, and rate and latency over time.

use std::fmt::Write;

use crate::expect::quantile_of;
use crate::outcome::{Outcome, TrackOutcome, grouped};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 40.0;

const COLORS: [&str; 4] = ["#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce"];

/// The charts as one picture.
pub fn svg(outcome: &Outcome) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        2.0 * HEIGHT
    );
    latency_curve(&mut out, outcome);
    let _ = write!(out, "<g transform=\"translate(0 {HEIGHT})\">");
    over_time(&mut out, outcome);
    out.push_str("</g>\n</svg>\n");
    out
}

/// The charts as a page, with the figures below.
pub fn html(outcome: &Outcome) -> String {
    let title = format!("corelane bench {}", outcome.workload);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font-family:system-ui,sans-serif;max-width:900px;margin:2em auto;color:#333}}\
         pre{{background:#f4f4f4;padding:1em;overflow:auto}}</style></head>\n\
         <body><h1>{title}</h1>\n<p>{arguments}</p>\n<p>{brokers}, {queues} queues, {seconds:.1} s</p>\n\
         {charts}<pre>{figures}</pre>\n</body></html>\n",
        arguments = escape(&outcome.arguments.join(" ")),
        brokers = escape(&outcome.brokers.join(", ")),
        queues = outcome.queues,
        seconds = outcome.seconds,
        charts = svg(outcome),
        figures = escape(&outcome.to_string()),
    )
}

/// A linear or logarithmic way from values to places.
struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    start: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| match self.logarithmic {
            true => value.max(self.from).ln(),
            false => value,
        };
        let part = (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from));
        self.start + part * (self.end - self.start)
    }
}

fn across(from: f64, to: f64, logarithmic: bool) -> Axis {
    Axis {
        from,
        to,
        logarithmic,
        start: LEFT,
        end: WIDTH - RIGHT,
    }
}

fn up(from: f64, to: f64, logarithmic: bool) -> Axis {
    Axis {
        from,
        to,
        logarithmic,
        start: HEIGHT - BOTTOM,
        end: TOP,
    }
}

fn latency_curve(out: &mut String, outcome: &Outcome) {
    let tracks: Vec<&TrackOutcome> = outcome
        .tracks
        .iter()
        .filter(|track| track.latency.count > 0)
        .collect();
    let most = tracks.iter().map(|track| track.latency.count).max();
    let nines = (most.unwrap_or(10).max(10) as f64)
        .log10()
        .ceil()
        .clamp(2.0, 7.0);
    let x = across(1.0, 10f64.powf(nines), true);
    let (low, high) =
        bounds(tracks.iter().flat_map(|track| {
            [track.latency.min_ns, track.latency.max_ns].map(|ns| ns as f64 / 1e6)
        }));
    let y = up(low, high, true);
    title(out, "Latency by percentile (ms)");
    let mut mark = low;
    while mark <= high * 1.001 {
        horizontal(out, y.place(mark), &trimmed(mark), LEFT);
        mark *= 10.0;
    }
    for nine in 0..=nines as i32 {
        let distance = 10f64.powi(nine);
        let label = match nine {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            _ => format!(
                "99{}{} %",
                if nine > 2 { "." } else { "" },
                "9".repeat(nine as usize - 2)
            ),
        };
        vertical(out, x.place(distance), &label);
    }
    for (number, track) in tracks.iter().enumerate() {
        let mut line = Vec::new();
        let mut distance = 1.0;
        while distance <= x.to {
            let ns = quantile_of(&track.buckets, 1.0 - 1.0 / distance);
            line.push((x.place(distance), y.place(ns as f64 / 1e6)));
            distance *= 1.05;
        }
        polyline(out, &line, COLORS[number % COLORS.len()]);
        legend(out, number, &format!("{:?}", track.track).to_lowercase());
    }
}

fn over_time(out: &mut String, outcome: &Outcome) {
    title(out, "Messages a second (left), p99 in ms (right, dotted)");
    let tracks = &outcome.tracks;
    let points = || tracks.iter().flat_map(|track| &track.series);
    let seconds = points().map(|point| point.second).max().unwrap_or(0).max(1);
    let rate = points()
        .map(|point| point.counts.messages)
        .max()
        .unwrap_or(0);
    let x = across(0.0, seconds as f64, false);
    let y = up(0.0, (rate as f64 * 1.1).max(1.0), false);
    let p99 = points().map(|point| point.latency.p99_ns as f64 / 1e6);
    let (low, high) = bounds(p99.filter(|ms| *ms > 0.0));
    let right = up(low, high, true);
    for step in 0..=4 {
        let value = y.to * f64::from(step) / 4.0;
        horizontal(out, y.place(value), &grouped(value as u64), LEFT);
    }
    let mut mark = low;
    while mark <= high * 1.001 {
        label(
            out,
            WIDTH - RIGHT + 6.0,
            right.place(mark) + 4.0,
            "start",
            &trimmed(mark),
        );
        mark *= 10.0;
    }
    let step = (seconds / 8).max(1);
    for second in (0..=seconds).step_by(step as usize) {
        vertical(out, x.place(second as f64), &format!("{second} s"));
    }
    for (number, track) in tracks.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let rates: Vec<_> = track
            .series
            .iter()
            .map(|point| {
                (
                    x.place(point.second as f64),
                    y.place(point.counts.messages as f64),
                )
            })
            .collect();
        polyline(out, &rates, color);
        for point in track.series.iter().filter(|point| point.latency.count > 0) {
            let place = right.place(point.latency.p99_ns as f64 / 1e6);
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{place:.1}\" r=\"2\" fill=\"{color}\"/>",
                x.place(point.second as f64)
            );
        }
        legend(out, number, &format!("{:?}", track.track).to_lowercase());
    }
}

/// Powers of ten around all values.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, 0.0f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if high <= 0.0 {
        return (0.1, 1.0);
    }
    let from = 10f64.powf(low.max(1e-4).log10().floor());
    let to = 10f64.powf(high.log10().ceil());
    (from, to.max(from * 10.0))
}

fn title(out: &mut String, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"600\">{text}</text>"
    );
}

fn label(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn horizontal(out: &mut String, y: f64, text: &str, left: f64) {
    let right = WIDTH - RIGHT;
    let _ = writeln!(
        out,
        "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\" fill=\"none\"/>"
    );
    label(out, left - 6.0, y + 4.0, "end", text);
}

fn vertical(out: &mut String, x: f64, text: &str) {
    let bottom = HEIGHT - BOTTOM;
    let _ = writeln!(
        out,
        "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#eee\" fill=\"none\"/>"
    );
    label(out, x, bottom + 18.0, "middle", text);
}

fn polyline(out: &mut String, points: &[(f64, f64)], color: &str) {
    let mut path = String::new();
    for (x, y) in points {
        let _ = write!(path, "{x:.1},{y:.1} ");
    }
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\"/>",
        path.trim_end()
    );
}

fn legend(out: &mut String, number: usize, text: &str) {
    let x = WIDTH - RIGHT - 90.0 * (number as f64 + 1.0);
    let color = COLORS[number % COLORS.len()];
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"11\" width=\"10\" height=\"10\" fill=\"{color}\"/>"
    );
    label(out, x + 15.0, 20.0, "start", text);
}

fn trimmed(value: f64) -> String {
    match value {
        1.0.. => format!("{value:.0}"),
        _ => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').to_owned()
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
