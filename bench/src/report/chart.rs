//! The charts, as one picture that needs nothing from elsewhere: latency by percentile, and rate and latency over time.
//!
//! Colours are told apart also by those who see some of them alike, tracks also by their dashes; the picture is dark where
//! the reader's desktop is.

use std::fmt::Write;

use super::axis::{Axis, around, step};
use crate::expect::quantile_of;
use crate::outcome::{Outcome, Point, TrackOutcome, grouped};

const WIDTH: f64 = 900.0;
const PANEL: f64 = 320.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 864.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 264.0;

/// The most steps over time that a chart shows; a longer run has several seconds in each.
const MOST_STEPS: usize = 300;

const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

const STYLE: &str = "\
.corelane{font:12px system-ui,sans-serif}.corelane text{fill:#4b5563;stroke:none}.corelane .ground{fill:#fff}\
.corelane .title{font-size:15px;font-weight:600;fill:#111827}.corelane .grid{stroke:#e5e7eb}\
.corelane .axis{stroke:#9ca3af}.corelane .line{fill:none;stroke-width:2;stroke-linejoin:round}\
.corelane .thin{stroke-width:1;opacity:.75}.corelane .value{font-weight:600;fill:#111827}\
.corelane .t0{stroke:#0072b2;fill:#0072b2}.corelane .t1{stroke:#d55e00;fill:#d55e00}\
.corelane .t2{stroke:#009e73;fill:#009e73}.corelane .t3{stroke:#aa4499;fill:#aa4499}\
.corelane .line{fill:none}.corelane .area{stroke:none;opacity:.12}\
@media(prefers-color-scheme:dark){.corelane text{fill:#b6bcc6}.corelane .ground{fill:#14171c}\
.corelane .title,.corelane .value{fill:#f3f4f6}.corelane .grid{stroke:#2b3038}.corelane .axis{stroke:#6b7280}\
.corelane .t0{stroke:#56b4e9;fill:#56b4e9}.corelane .t1{stroke:#f2934f;fill:#f2934f}\
.corelane .t2{stroke:#3ecf9f;fill:#3ecf9f}.corelane .t3{stroke:#e08bd5;fill:#e08bd5}.corelane .line{fill:none}}";

/// All charts, one below the other.
pub fn svg(outcome: &Outcome) -> String {
    let panels = [latency_curve(outcome), rate(outcome), latency(outcome)];
    let height = PANEL * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"corelane\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
    );
    for (number, panel) in panels.iter().enumerate() {
        let down = PANEL * number as f64;
        // Writing to a string does not fail.
        let _ = writeln!(out, "<g transform=\"translate(0 {down})\">\n{panel}</g>");
    }
    out.push_str("</svg>\n");
    out
}

/// How long what was asked for took at most, for so many of a hundred.
fn latency_curve(outcome: &Outcome) -> String {
    let timed = |(_, track): &(usize, &TrackOutcome)| track.latency.count > 0;
    let tracks: Vec<_> = outcome.tracks.iter().enumerate().filter(timed).collect();
    let most = tracks.iter().map(|(_, track)| track.latency.count).max();
    // Beyond this share of all there is less than one of them.
    let nines = (most.unwrap_or(0).max(10) as f64).log10().ceil().min(7.0);
    let x = Axis::logarithmic((1.0, 10f64.powf(nines)), LEFT, RIGHT);
    let ends = tracks
        .iter()
        .flat_map(|(_, track)| [track.latency.min_ns, track.latency.max_ns]);
    let y = Axis::logarithmic(around(ends.map(ms)), BOTTOM, TOP);
    let mut panel = Panel::new("Latency by percentile");
    panel.up(&y, &y.marks(), duration);
    for nine in 0..=nines as usize {
        let name = match nine {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            _ => format!("99.{} %", "9".repeat(nine - 2)),
        };
        panel.mark_across(x.place(10f64.powi(nine as i32)), &name);
    }
    panel.name_across("percentile: this part of all was at most so slow");
    for (number, track) in &tracks {
        let mut line = Vec::new();
        let mut distance = 1.0;
        while distance <= track.latency.count as f64 {
            let ns = quantile_of(&track.buckets, 1.0 - 1.0 / distance);
            line.push((x.place(distance), y.place(ms(ns))));
            distance *= 1.03;
        }
        line.push((
            x.place(track.latency.count as f64),
            y.place(ms(track.latency.max_ns)),
        ));
        panel.line(&line, *number, "line");
    }
    // Values only of the track that it is about: more would lie on top of each other.
    let main = outcome.main_track();
    for (number, track) in &tracks {
        if main.is_none_or(|main| main.track != track.track) {
            continue;
        }
        for (distance, name) in [(2.0, "p50"), (100.0, "p99"), (1000.0, "p99.9")] {
            if distance <= track.latency.count as f64 {
                let value = ms(quantile_of(&track.buckets, 1.0 - 1.0 / distance));
                let text = format!("{name} {}", duration(value));
                panel.dot(x.place(distance), y.place(value), *number, &text);
            }
        }
    }
    panel.legend(&names(&tracks));
    panel.out
}

/// Messages a second over time.
fn rate(outcome: &Outcome) -> String {
    let tracks: Vec<_> = outcome.tracks.iter().enumerate().collect();
    let steps: Vec<Vec<Step>> = tracks.iter().map(|(_, t)| thinned(t, outcome)).collect();
    let highest = steps.iter().flatten().map(|step| step.rate);
    let highest = highest.fold(1.0, f64::max);
    let x = Axis::linear((0.0, outcome.seconds.max(0.1)), LEFT, RIGHT);
    let apart = step(highest * 1.05, 5.0);
    let top = (highest * 1.05 / apart).ceil() * apart;
    let y = Axis::linear((0.0, top), BOTTOM, TOP);
    let mut panel = Panel::new("Messages a second");
    let marks = (0..).map(|number| f64::from(number) * apart);
    let marks: Vec<f64> = marks.take_while(|mark| *mark <= top * 1.0001).collect();
    panel.up(&y, &marks, amount);
    panel.time(&x, outcome.seconds);
    for ((number, _), steps) in tracks.iter().zip(&steps) {
        let line = stairs(steps, &x, |step| y.place(step.rate));
        if tracks.len() == 1 {
            panel.area(&line, *number);
        }
        panel.line(&line, *number, "line");
    }
    panel.legend(&names(&tracks));
    panel.out
}

/// Percentiles over time: the 99th thick, the median thin.
fn latency(outcome: &Outcome) -> String {
    let timed = |(_, track): &(usize, &TrackOutcome)| track.latency.count > 0;
    let tracks: Vec<_> = outcome.tracks.iter().enumerate().filter(timed).collect();
    let steps: Vec<Vec<Step>> = tracks.iter().map(|(_, t)| thinned(t, outcome)).collect();
    let values = steps.iter().flatten().flat_map(|step| [step.p50, step.p99]);
    let x = Axis::linear((0.0, outcome.seconds.max(0.1)), LEFT, RIGHT);
    let y = Axis::logarithmic(around(values.filter(|ms| *ms > 0.0)), BOTTOM, TOP);
    let mut panel = Panel::new("Latency: p99 (thick) and median (thin)");
    panel.up(&y, &y.marks(), duration);
    panel.time(&x, outcome.seconds);
    for ((number, _), steps) in tracks.iter().zip(&steps) {
        // A second in which nothing was answered has no latency: the line has a gap.
        for run in steps.split(|step| step.p99 <= 0.0) {
            panel.line(&stairs(run, &x, |s| y.place(s.p99)), *number, "line");
            panel.line(&stairs(run, &x, |s| y.place(s.p50)), *number, "line thin");
        }
    }
    panel.legend(&names(&tracks));
    panel.out
}

fn names(tracks: &[(usize, &TrackOutcome)]) -> Vec<(usize, String)> {
    let name = |(number, track): &(usize, &TrackOutcome)| {
        (*number, format!("{:?}", track.track).to_lowercase())
    };
    tracks.iter().map(name).collect()
}

/// A second, or a few of a long run.
struct Step {
    from: f64,
    to: f64,
    /// Messages a second, in the mean of its seconds.
    rate: f64,
    /// Milliseconds, of its slowest second.
    p50: f64,
    p99: f64,
}

fn thinned(track: &TrackOutcome, outcome: &Outcome) -> Vec<Step> {
    let together = track.series.len().div_ceil(MOST_STEPS).max(1);
    let step = |points: &[Point]| {
        let from = points.first()?.second as f64;
        // The last second may be a part of one.
        let to = (points.last()?.second as f64 + 1.0).min(outcome.seconds);
        let messages: u64 = points.iter().map(|point| point.counts.messages).sum();
        let slowest = |of: fn(&Point) -> u64| points.iter().map(of).max().map_or(0.0, ms);
        (to - from > 0.05).then(|| Step {
            from,
            to,
            rate: messages as f64 / (to - from),
            p50: slowest(|point| point.latency.p50_ns),
            p99: slowest(|point| point.latency.p99_ns),
        })
    };
    track.series.chunks(together).filter_map(step).collect()
}

fn stairs(steps: &[Step], x: &Axis, up: impl Fn(&Step) -> f64) -> Vec<(f64, f64)> {
    let ends = |step: &Step| {
        let y = up(step);
        [(x.place(step.from), y), (x.place(step.to), y)]
    };
    steps.iter().flat_map(ends).collect()
}

/// One chart while it is drawn.
struct Panel {
    out: String,
}

impl Panel {
    fn new(title: &str) -> Self {
        Self {
            out: format!("<text class=\"title\" x=\"{LEFT}\" y=\"28\">{title}</text>\n"),
        }
    }

    fn add(&mut self, text: std::fmt::Arguments) {
        // Writing to a string does not fail.
        let _ = self.out.write_fmt(text);
        self.out.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// The marks of the axis at the left.
    fn up(&mut self, axis: &Axis, marks: &[f64], name: fn(f64) -> String) {
        for mark in marks {
            let y = axis.place(*mark);
            self.add(format_args!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>"
            ));
            self.text(LEFT - 8.0, y + 4.0, "end", &name(*mark));
        }
        self.add(format_args!(
            "<path class=\"axis\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>"
        ));
    }

    fn mark_across(&mut self, x: f64, name: &str) {
        self.add(format_args!(
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>"
        ));
        self.text(x, BOTTOM + 18.0, "middle", name);
    }

    fn name_across(&mut self, name: &str) {
        self.text((LEFT + RIGHT) / 2.0, BOTTOM + 38.0, "middle", name);
    }

    /// An axis of seconds.
    fn time(&mut self, axis: &Axis, seconds: f64) {
        let apart = step(seconds.max(0.1), 10.0);
        let mut at = 0.0;
        while at <= seconds * 1.0001 {
            let digits = usize::from(apart < 1.0);
            self.mark_across(axis.place(at), &format!("{at:.digits$}"));
            at += apart;
        }
        self.name_across("seconds since measuring began");
    }

    fn line(&mut self, points: &[(f64, f64)], number: usize, class: &str) {
        if points.is_empty() {
            return;
        }
        let (color, dash) = (number % 4, DASHES[number % DASHES.len()]);
        let places = places(points);
        self.add(format_args!(
            "<polyline class=\"t{color} {class}\" stroke-dasharray=\"{dash}\" points=\"{places}\"/>"
        ));
    }

    /// What is below a line.
    fn area(&mut self, points: &[(f64, f64)], number: usize) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return;
        };
        let (color, places) = (number % 4, places(points));
        let (from, to) = (first.0, last.0);
        self.add(format_args!(
            "<polygon class=\"t{color} area\" points=\"{places} {to:.1},{BOTTOM} {from:.1},{BOTTOM}\"/>"
        ));
    }

    /// A point of a line, with its value.
    fn dot(&mut self, x: f64, y: f64, number: usize, value: &str) {
        let color = number % 4;
        self.add(format_args!(
            "<circle class=\"t{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
        ));
        // Above the line and to its left, where it has not risen yet; or below it, where the axis is too near.
        let (x, y, anchor) = match x - LEFT < 110.0 {
            true => (x + 9.0, (y + 15.0).min(BOTTOM - 4.0), "start"),
            false => (x, (y - 9.0).max(TOP + 10.0), "end"),
        };
        self.add(format_args!(
            "<text class=\"value\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{value}</text>"
        ));
    }

    fn legend(&mut self, names: &[(usize, String)]) {
        let mut end = RIGHT;
        for (number, name) in names.iter().rev() {
            self.text(end, 28.0, "end", name);
            let line = end - 8.0 - 7.0 * name.len() as f64;
            self.line(&[(line - 26.0, 24.0), (line, 24.0)], *number, "line");
            end = line - 44.0;
        }
    }
}

fn places(points: &[(f64, f64)]) -> String {
    let places: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    places.join(" ")
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Milliseconds in the unit that suits them.
fn duration(ms: f64) -> String {
    match ms {
        ..0.9995 => format!("{} \u{b5}s", short(ms * 1e3)),
        ..999.5 => format!("{} ms", short(ms)),
        _ => format!("{} s", short(ms / 1e3)),
    }
}

/// A number with at most three digits that count.
fn short(value: f64) -> String {
    let digits = (2 - value.max(1e-9).log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A number of messages, short.
fn amount(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", short(value / 1e6)),
        1e4.. => format!("{} k", short(value / 1e3)),
        1.0.. => grouped(value as u64),
        _ => short(value),
    }
}
