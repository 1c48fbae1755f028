//! `corelane dump`: what lies in the logs of a data directory.

use std::ops::{ControlFlow, Range};

use corelane_broker::engine::records::describe;
use corelane_broker::log::{Found, GroupHeader, LogFiles, SegmentReport, StdIo, Stored, at_once};
use corelane_client::Received;
use corelane_wire::properties::name as property;
use corelane_wire::record::Record;
use serde_json::{Value, json};

use crate::cli::DumpArgs;
use crate::data_directory::{self, Shard};
use crate::message::object;
use crate::output::{self, Failure, Output};

/// Prints all logs of a directory, one after the other.
pub fn run(args: &DumpArgs) -> Result<(), Failure> {
    let shards = data_directory::shards(&args.directory)?;
    let held = data_directory::hold_to_read(&args.directory);
    if held.is_err() {
        output::complain(
            "a broker runs in this directory: what it writes or removes meanwhile may be missing",
        );
    }
    let mut out = Output::new(args.json);
    let mut damaged = Vec::new();
    for shard in shards {
        let dump = Dump {
            args,
            shard: &shard.name,
            out: &mut out,
            left: args.count.unwrap_or(u64::MAX),
            epoch: 0,
            failure: None,
        };
        damaged.extend(dump.run(&shard)?);
    }
    if damaged.is_empty() {
        Ok(())
    } else {
        Err(Failure::Said(damaged.join("; ")))
    }
}

/// One log on its way out.
struct Dump<'a> {
    args: &'a DumpArgs,
    shard: &'a str,
    out: &'a mut Output,
    left: u64,
    /// Groups of an earlier one were cut.
    epoch: u32,
    failure: Option<Failure>,
}

impl Dump<'_> {
    /// Prints the log. Gives one line when it is damaged.
    fn run(mut self, shard: &Shard) -> Result<Option<String>, Failure> {
        let io = StdIo::read_only(shard.path.clone());
        let said = |error: &dyn std::fmt::Display| {
            Failure::Said(format!("{}: {error}", shard.path.display()))
        };
        let files = at_once(LogFiles::read(&io)).map_err(|error| said(&error))?;
        if let Some(error) = files
            .checkpoint_error
            .as_ref()
            .filter(|_| files.segments.is_empty())
        {
            return Err(said(&format!("the checkpoint is damaged: {error}")));
        }
        if self.args.states {
            self.checkpoint(&files)?;
        }
        let mut reports = Vec::new();
        for (at, &(segment, len)) in files.segments.iter().enumerate() {
            let range = segment.0..segment.0 + len;
            if range.end <= self.args.from {
                reports.push(SegmentReport::default());
                continue;
            }
            if range.start >= self.args.to || self.left == 0 {
                break;
            }
            if self.args.index {
                let mut none = true;
                for &id in files
                    .indexes
                    .iter()
                    .filter(|id| range.contains(&id.start()))
                {
                    let rows = at_once(files.index_rows(&io, id)).map_err(|error| said(&error))?;
                    self.index(id.start(), rows)?;
                    none = false;
                }
                if none {
                    self.index(segment.0, None)?;
                }
            }
            let cut = at_once(files.cut_at(&io, at)).map_err(|error| said(&error))?;
            let mut visit = |found: Found<'_>| self.found(found, cut.unwrap_or(u64::MAX));
            let walked = at_once(files.walk(&io, at, &mut visit));
            reports.push(walked.map_err(|error| said(&error))?);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
        let whole = self.args.from == 0 && reports.len() == files.segments.len() && self.left > 0;
        if !whole || self.args.to < u64::MAX {
            return Ok(None);
        }
        let report = files.judge(&reports);
        let object =
            json!({ "shard": self.shard, "end": report.tail, "checkpoint": files.checkpoint });
        self.out
            .record(&object, &format!("{} {} end", self.shard, report.tail))?;
        let first = report.damage.first();
        Ok(first.map(|damage| {
            format!(
                "{} is damaged at {} ({} at {}): {}",
                self.shard, damage.position, damage.file, damage.offset, damage.what
            )
        }))
    }

    fn found(&mut self, found: Found<'_>, cut: u64) -> ControlFlow<()> {
        if let Found::Group(header) = &found {
            if header.epoch < self.epoch {
                return ControlFlow::Break(());
            }
            self.epoch = header.epoch;
        }
        let (start, end) = match &found {
            Found::Gap(gap) => (gap.start, gap.end),
            Found::Group(header) => (header.position, header.end()),
            Found::Record { position, .. } => (*position, position + 1),
        };
        if start >= cut || start >= self.args.to || self.left == 0 {
            return ControlFlow::Break(());
        }
        if end <= self.args.from
            || (start < self.args.from && matches!(found, Found::Record { .. }))
        {
            return ControlFlow::Continue(());
        }
        let printed = match found {
            Found::Gap(gap) => self.gap(gap),
            Found::Group(header) => self.group(header),
            Found::Record {
                position,
                bytes,
                stored,
            } => match stored {
                Some(Stored::Message(record)) => self.message(position, &record),
                Some(Stored::State { kind, payload }) if self.args.states => {
                    self.state(Some(position), kind, payload)
                }
                Some(Stored::State { .. }) => Ok(()),
                None => self.unknown(position, bytes),
            },
        };
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    fn gap(&mut self, gap: Range<u64>) -> Result<(), Failure> {
        let shard = self.shard;
        let object = json!({ "shard": shard, "gap": gap.start, "to": gap.end });
        let line = format!("{shard} {} gap up to {}", gap.start, gap.end);
        self.out.record(&object, &line)
    }

    fn group(&mut self, header: &GroupHeader) -> Result<(), Failure> {
        if !self.args.groups {
            return Ok(());
        }
        let shard = self.shard;
        let object = json!({
            "shard": shard,
            "group": header.position,
            "follows": header.follows,
            "durable": header.durable,
            "epoch": header.epoch,
            "records": header.records,
            "bytes": header.padded,
        });
        let line = format!(
            "{shard} {} group of {} records, {} bytes, epoch {}",
            header.position, header.records, header.padded, header.epoch
        );
        self.out.record(&object, &line)
    }

    fn index(
        &mut self,
        segment: u64,
        rows: Option<Vec<corelane_broker::log::IndexRow>>,
    ) -> Result<(), Failure> {
        let shard = self.shard;
        let Some(rows) = rows else {
            let object = json!({ "shard": shard, "index": segment, "sound": false });
            let line = format!("{shard} {segment} has no index, or none that is sound");
            return self.out.record(&object, &line);
        };
        for row in rows {
            let object = json!({
                "shard": shard, "index": segment, "topic": row.topic, "queueId": row.queue_id,
                "from": row.offsets.start, "to": row.offsets.end, "position": row.position,
            });
            let line = format!(
                "{shard} {segment} index {} queue {} offsets {} to {} from {} on",
                row.topic, row.queue_id, row.offsets.start, row.offsets.end, row.position
            );
            self.out.record(&object, &line)?;
        }
        Ok(())
    }

    /// What the checkpoint has: where queues end, and state.
    fn checkpoint(&mut self, files: &LogFiles) -> Result<(), Failure> {
        let shard = self.shard;
        let object =
            json!({ "shard": shard, "checkpoint": files.checkpoint, "retired": files.retired });
        let line = format!(
            "{shard} checkpoint at {}, retired before {}",
            files.checkpoint, files.retired
        );
        self.out.record(&object, &line)?;
        for (topic, queue_id, next) in &files.queues {
            let object =
                json!({ "shard": shard, "queueOf": topic, "queueId": queue_id, "next": next });
            let line = format!("{shard} checkpoint queue {topic} {queue_id} goes on at {next}");
            self.out.record(&object, &line)?;
        }
        for (kind, payload) in &files.state {
            self.state(None, *kind, payload)?;
        }
        Ok(())
    }

    /// A state record, of the checkpoint where it has no position.
    fn state(&mut self, position: Option<u64>, kind: u16, payload: &[u8]) -> Result<(), Failure> {
        let shard = self.shard;
        let (name, text) = match corelane_broker::log::describe_own(kind, payload) {
            Some(own) => own,
            None => describe(kind, payload),
        };
        let object = json!({
            "shard": shard, "position": position, "state": name, "kind": kind, "bytes": payload.len(), "text": text,
        });
        let place = position.map_or("checkpoint".to_owned(), |position| position.to_string());
        self.out
            .record(&object, &format!("{shard} {place} state {name} {text}"))
    }

    fn unknown(&mut self, position: u64, bytes: &[u8]) -> Result<(), Failure> {
        let shard = self.shard;
        let error = match Record::parse(bytes) {
            Ok(_) => "it says that it lies elsewhere".to_owned(),
            Err(error) => error.to_string(),
        };
        let object = json!({ "shard": shard, "position": position, "error": error });
        let line = format!("{shard} {position} no record that can be read: {error}");
        self.out.record(&object, &line)
    }

    fn is_wanted(&self, record: &Record<'_>) -> bool {
        let args = self.args;
        let has = |name: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                let found = record.properties().get(name).map(|text| text.to_str());
                found.is_some_and(|found| match name {
                    property::KEYS => found.split(' ').any(|key| key == wanted),
                    _ => found == wanted.as_str(),
                })
            })
        };
        args.topic
            .as_ref()
            .is_none_or(|topic| topic == record.topic())
            && args.queue.is_none_or(|queue| queue == record.queue_id())
            && args
                .from_offset
                .is_none_or(|from| from <= record.queue_offset())
            && has(property::KEYS, &args.key)
            && has(property::UNIQ_KEY, &args.unique_key)
    }

    fn message(&mut self, position: u64, record: &Record<'_>) -> Result<(), Failure> {
        if !self.is_wanted(record) {
            return Ok(());
        }
        self.left -= 1;
        let shard = self.shard;
        let sound = record.check_body_crc();
        if self.args.json {
            let mut object = object(&Received::from_record(shard, record));
            object["position"] = json!(position);
            object["soundBody"] = json!(sound);
            return self.out.record(&object, "");
        }
        let head = record.head();
        let line = format!(
            "{shard} {position} {} queue {} offset {} stored {} body {} bytes{}",
            record.topic(),
            head.queue_id,
            head.queue_offset,
            head.store_timestamp,
            record.body().len(),
            if sound { "" } else { ", CHECKSUM WRONG" }
        );
        self.out.record(&Value::Null, &line)
    }
}
