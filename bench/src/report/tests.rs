use super::*;
use crate::measure::{Counts, Slice, Track, latencies};
use crate::outcome::{Gathered, Generator};

fn outcome(latency_ns: u64) -> Outcome {
    let mut gathered = Gathered::default();
    for number in 0..3 {
        let mut histogram = latencies();
        histogram.record_n(latency_ns, 900).unwrap();
        histogram.record_n(latency_ns * 10, 100).unwrap();
        gathered.add(Slice {
            number,
            track: Track::Send,
            counts: Counts {
                requests: 1000,
                messages: 1000,
                bytes: 1_024_000,
                errors: 0,
            },
            latencies: histogram,
            codes: Vec::new(),
        });
    }
    Outcome {
        version: "1".to_owned(),
        workload: "send".to_owned(),
        arguments: vec!["--expect".to_owned(), "p99<2ms".to_owned()],
        brokers: vec!["a & b".to_owned()],
        queues: 4,
        started_ms: 0,
        seconds: 3.0,
        tracks: vec![gathered.finish(Track::Send, 3.0)],
        unanswered: 0,
        unsent: 0,
        unexpected: 0,
        closed: Vec::new(),
        findings: None,
        generator: Generator::default(),
        missed: Vec::new(),
    }
}

#[test]
fn json_is_read_back_and_compared() {
    let dir = std::env::temp_dir().join(format!("corelane-report-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (before, after) = (dir.join("a.json"), dir.join("b.json"));
    write_json(&before, &outcome(1_000_000)).unwrap();
    write_json(&after, &outcome(1_500_000)).unwrap();
    let text = diff(&before, &after).unwrap();
    let p50 = text.lines().find(|line| line.contains("p50")).unwrap();
    // The histograms are exact to three digits.
    assert!(p50.contains("+50.") || p50.contains("+49."), "{p50}");
    let rate = text
        .lines()
        .find(|line| line.contains("messages/s"))
        .unwrap();
    assert!(rate.contains("1,000") && rate.ends_with("+0.0 %"), "{rate}");
    let header: Vec<&str> = text.lines().take(4).collect();
    assert!(header[0].starts_with("A  1970-01-01 00:00 UTC, 3.0 s: --expect p99<2ms"));
    assert!(header[3].trim_start().starts_with("A ") && header[3].ends_with("B to A"));
    assert!(diff(&before, &dir.join("none.json")).is_err());
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn percentiles_go_up_to_all() {
    let outcome = outcome(1_000_000);
    let text = hgrm::percentiles(&outcome.tracks[0].buckets);
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(2)
        .take_while(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_whitespace()
                .map(|cell| cell.parse().unwrap())
                .collect()
        })
        .collect();
    assert!(
        rows.windows(2)
            .all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] < pair[1][1])
    );
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    assert!((first[0] - 1.0).abs() < 0.002, "{first:?}");
    assert!((last[0] - 10.0).abs() < 0.02, "{last:?}");
    assert_eq!((first[2], last[2]), (2700.0, 3000.0));
    assert_eq!(hgrm::percentiles(&[]).lines().count(), 5);
}

#[test]
fn charts_need_nothing_from_elsewhere() {
    let page = page::html(&outcome(1_000_000));
    assert!(page.contains("p99&lt;2ms") && page.contains("a &amp; b"));
    // A sample in the legend of each chart, the curve, the rate, and two percentiles over time.
    assert_eq!(page.matches("<polyline").count(), 3 + 1 + 1 + 2);
    // The only address is the name of SVG's namespace.
    assert_eq!(page.matches("http").count(), 1);
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn charts_show_values_and_what_was_wrong() {
    let mut outcome = outcome(1_000_000);
    outcome.missed.push("p99<2ms: it was 10 ms".to_owned());
    outcome.generator.limited = Some("busy".to_owned());
    let page = page::html(&outcome);
    assert!(page.contains(">p50 1 ms<") && page.contains(">p99 10 ms<"));
    assert!(page.contains("Missed p99&lt;2ms") && page.contains("Limited by the load generator"));
    // A thousand messages in each full second, and in the last half of one.
    outcome.seconds = 2.5;
    assert!(chart::svg(&outcome).contains(">2,000<"));
}

#[test]
fn a_run_without_any_answer_has_charts() {
    let mut outcome = outcome(1_000_000);
    outcome.tracks = vec![Gathered::default().finish(Track::Send, 3.0)];
    let page = page::html(&outcome);
    assert!(!page.contains("NaN") && !page.contains("inf"));
    outcome.tracks.clear();
    assert!(!page::html(&outcome).contains("NaN"));
}
