//! `corelane verify`: whether every byte of a data directory is what was written.
//!
//! Segments and indexes of all shards are one list of work, which threads take from; what they found is judged a shard at a
//! time when all of it is there.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use corelane_broker::log::{
    Found, IndexId, IoError, LogFiles, SegmentReport, StdIo, VerifyReport, at_once,
};
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::data_directory::{self, Shard};
use crate::output::{Failure, Output};

/// How often the progress is shown on a terminal, and elsewhere.
const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_CHARS: u64 = 30;

/// What a thread does next.
enum Work {
    Segment { shard: usize, at: usize },
    Index { shard: usize, id: IndexId },
}

/// What threads found in one shard.
#[derive(Default)]
struct Seen {
    segments: Vec<(usize, SegmentReport)>,
    unsound: Vec<String>,
    failed: Option<IoError>,
}

/// A shard with its files.
struct Log {
    shard: Shard,
    files: LogFiles,
    seen: Mutex<Seen>,
}

impl Log {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks all shards of a directory.
pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let _held = data_directory::hold_to_read(&args.directory).map_err(Failure::from)?;
    let mut logs = Vec::new();
    for shard in data_directory::shards(&args.directory)? {
        let io = StdIo::read_only(shard.path.clone());
        let files = at_once(LogFiles::read(&io)).map_err(Failure::from)?;
        if files.segments.is_empty() && files.checkpoint_error.is_some() {
            return Err(Failure::Said(format!(
                "{} holds no log",
                shard.path.display()
            )));
        }
        logs.push(Log {
            shard,
            files,
            seen: Mutex::default(),
        });
    }
    let began = Instant::now();
    let bytes = read_all(&logs, args.threads);
    let took = began.elapsed();
    let mut out = Output::new(args.json);
    let (mut sums, mut bad) = ([0; 3], Vec::new());
    for log in &logs {
        let seen = std::mem::take(&mut *log.seen());
        if let Some(error) = seen.failed {
            return Err(Failure::Said(format!("{}: {error}", log.shard.name)));
        }
        let (report, missing) = judge(log, seen)?;
        for (sum, more) in sums
            .iter_mut()
            .zip([report.segments, report.groups, report.records])
        {
            *sum += more;
        }
        if let Some(line) = print(log, &report, &missing, &mut out)? {
            bad.push(line);
        }
    }
    let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
    let [segments, groups, records] = sums;
    out.record(
        &json!({
            "shards": logs.len(), "segments": segments, "groups": groups, "records": records, "bytes": bytes,
            "seconds": took.as_secs_f64(), "bytesPerSecond": rate as u64, "damagedShards": bad.len(),
        }),
        &format!(
            "{} shards, {segments} segments, {groups} groups, {records} records: {} in {:.1} s, {}/s; {}",
            logs.len(),
            size(bytes as f64),
            took.as_secs_f64(),
            size(rate),
            if bad.is_empty() { "all is sound" } else { "DAMAGED" }
        ),
    )?;
    if bad.is_empty() {
        Ok(())
    } else {
        Err(Failure::Said(bad.join("; ")))
    }
}

/// Reads everything and says how many bytes that were.
fn read_all(logs: &[Log], threads: Option<u16>) -> u64 {
    let (mut work, mut total) = (Vec::new(), 0);
    for (shard, log) in logs.iter().enumerate() {
        for (at, (_, len)) in log.files.segments.iter().enumerate() {
            work.push(Work::Segment { shard, at });
            total += len;
        }
        let indexes = log.files.indexes.iter();
        work.extend(indexes.map(|&id| Work::Index { shard, id }));
    }
    let threads = threads.map_or_else(
        || thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let (next, done, finished) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(work) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    do_work(logs, work, &done);
                }
                finished.fetch_add(1, Ordering::Release);
            });
        }
        show_progress(&done, total, || finished.load(Ordering::Acquire) == threads);
    });
    done.into_inner()
}

fn do_work(logs: &[Log], work: &Work, done: &AtomicU64) {
    let (Work::Segment { shard, .. } | Work::Index { shard, .. }) = *work;
    let log = &logs[shard];
    let io = StdIo::read_only(log.shard.path.clone());
    let result = match *work {
        Work::Segment { at, .. } => {
            let (segment, len) = log.files.segments[at];
            let mut counted = 0;
            let walked = at_once(log.files.walk(&io, at, &mut |found| {
                if let Found::Group(header) = found {
                    let so_far = header.end() - segment.0;
                    done.fetch_add(so_far - counted, Ordering::Relaxed);
                    counted = so_far;
                }
                ControlFlow::Continue(())
            }));
            done.fetch_add(len - counted, Ordering::Relaxed);
            walked.map(|report| log.seen().segments.push((at, report)))
        }
        Work::Index { id, .. } => match at_once(log.files.index_is_sound(&io, id)) {
            Ok(false) => {
                log.seen().unsound.push(id.file_name());
                Ok(())
            }
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        },
    };
    if let Err(error) = result {
        log.seen().failed = Some(error);
    }
}

/// Shows how far it is until it is finished: a bar on a terminal, otherwise a line now and then.
fn show_progress(done: &AtomicU64, total: u64, finished: impl Fn() -> bool) {
    let mut stderr = std::io::stderr();
    let on_terminal = stderr.is_terminal();
    let began = Instant::now();
    let mut shown = began;
    while !finished() {
        thread::sleep(Duration::from_millis(5));
        let every = if on_terminal { BAR_EVERY } else { LINE_EVERY };
        if shown.elapsed() < every {
            continue;
        }
        shown = Instant::now();
        let done = done.load(Ordering::Relaxed);
        // Whether somebody sees it does not matter.
        let _ = write!(
            stderr,
            "{}",
            progress(done, total, began.elapsed(), on_terminal)
        );
        let _ = stderr.flush();
    }
    if on_terminal {
        let _ = write!(stderr, "\r{:60}\r", "");
        let _ = stderr.flush();
    }
}

/// What is shown after so many of all bytes: a bar over the one before it, or a line.
fn progress(done: u64, total: u64, took: Duration, on_terminal: bool) -> String {
    let (done, total) = (done.min(total), total.max(1));
    let rate = size(done as f64 / took.as_secs_f64().max(1e-6));
    let percent = done * 100 / total;
    if !on_terminal {
        return format!("corelane: {percent}% verified, {rate}/s\n");
    }
    let full = (done * BAR_CHARS / total) as usize;
    let (full, rest) = ("#".repeat(full), "-".repeat(BAR_CHARS as usize - full));
    format!("\r[{full}{rest}] {percent:3}% {rate}/s   ")
}

/// What is to be said of a shard, and the names of indexes that are not there.
fn judge(log: &Log, mut seen: Seen) -> Result<(VerifyReport, Vec<String>), Failure> {
    seen.segments.sort_by_key(|(at, _)| *at);
    let segments: Vec<SegmentReport> = seen
        .segments
        .into_iter()
        .map(|(_, report)| report)
        .collect();
    let mut report = log.files.judge(&segments);
    seen.unsound.sort();
    report.unsound_indexes = seen.unsound;
    let io = StdIo::read_only(log.shard.path.clone());
    let mut missing = Vec::new();
    for at in 0..log.files.segments.len() {
        let index = at_once(log.files.missing_index(&io, at)).map_err(Failure::from)?;
        missing.extend(index.map(IndexId::file_name));
    }
    Ok((report, missing))
}

/// Prints what was found in a shard; gives a line where it is damaged.
fn print(
    log: &Log,
    report: &VerifyReport,
    missing: &[String],
    out: &mut Output,
) -> Result<Option<String>, Failure> {
    let name = &log.shard.name;
    let damage = report.damage.first().map(|damage| {
        let what = if damage.file == "checkpoint" {
            "state"
        } else {
            "bytes"
        };
        (what, damage)
    });
    let unsound = report.unsound_indexes.first();
    let ranges = |ranges: &mut dyn Iterator<Item = (u64, u64)>| -> Vec<_> {
        ranges
            .map(|(from, to)| json!({ "from": from, "to": to }))
            .collect()
    };
    let object = json!({
        "shard": name,
        "segments": report.segments,
        "groups": report.groups,
        "records": report.records,
        "tail": report.tail,
        "damage": report.damage.iter().map(|damage| json!({
            "offset": damage.position, "to": damage.to, "file": damage.file, "fileOffset": damage.offset,
            "what": if damage.file == "checkpoint" { "state" } else { "bytes" }, "reason": damage.what,
        })).collect::<Vec<_>>(),
        "unsoundIndexes": report.unsound_indexes,
        "missingIndexes": missing,
        "holes": ranges(&mut report.holes.iter().map(|hole| (hole.from, hole.to))),
        "unacknowledged": report.unacknowledged.as_ref().map(|range| json!({ "from": range.start, "to": range.end })),
    });
    let mut line = format!(
        "{name}: {} segments, {} groups, {} records up to {}",
        report.segments, report.groups, report.records, report.tail
    );
    for hole in &report.holes {
        line += &format!("; passed over from {} to {}", hole.from, hole.to);
    }
    if let Some(range) = &report.unacknowledged {
        line += &format!(
            "; never acknowledged and cut at the next start: {} to {}",
            range.start, range.end
        );
    }
    if !missing.is_empty() {
        line += &format!("; {} indexes are missing and will be built", missing.len());
    }
    out.record(&object, &line)?;
    Ok(match (damage, unsound) {
        (Some((what, damage)), _) => Some(format!(
            "{name} is damaged in its {what} at {} ({} at {}): {}{}",
            damage.position,
            damage.file,
            damage.offset,
            damage.what,
            match damage.to {
                Some(to) => format!(", up to {to}"),
                None => String::new(),
            }
        )),
        (None, Some(index)) => Some(format!(
            "{name} is damaged in its index {index}: remove that file, and the next start builds it anew"
        )),
        (None, None) => None,
    })
}

/// Bytes for people.
fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut bytes = bytes;
    while bytes >= 1024.0 && unit + 1 < units.len() {
        bytes /= 1024.0;
        unit += 1;
    }
    format!("{bytes:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_on_a_terminal_and_lines_elsewhere() {
        let shown = |done, terminal| progress(done, 3 << 30, Duration::from_secs(2), terminal);
        assert_eq!(
            shown(1 << 30, true),
            "\r[##########--------------------]  33% 512.0 MiB/s   "
        );
        assert_eq!(
            shown(4 << 30, true),
            format!("\r[{}] 100% 1.5 GiB/s   ", "#".repeat(30)),
            "a file that grew meanwhile"
        );
        assert_eq!(
            shown(1 << 30, false),
            "corelane: 33% verified, 512.0 MiB/s\n"
        );
        let empty = progress(0, 0, Duration::ZERO, false);
        assert!(empty.starts_with("corelane: 0% verified, 0"), "{empty}");
    }
}
