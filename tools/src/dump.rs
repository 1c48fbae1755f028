//! `corelane dump`: what lies in the logs of a data directory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use corelane_broker::log::{Dumped, dump};
use corelane_client::Received;
use corelane_wire::record::Record;
use serde_json::{Value, json};

use crate::cli::DumpArgs;
use crate::message::object;
use crate::output::{Failure, Output};

/// Prints all logs of a directory, one after the other.
pub fn run(args: &DumpArgs) -> Result<(), Failure> {
    let mut out = Output::new(args.json);
    let mut damaged = Vec::new();
    for (name, path) in shards(&args.directory)? {
        if let Some(damage) = print(args, &name, &path, &mut out)? {
            damaged.push(damage);
        }
    }
    if damaged.is_empty() {
        Ok(())
    } else {
        Err(Failure::Said(damaged.join("; ")))
    }
}

/// The shards of a data directory, or the directory itself where it is one of a shard.
fn shards(directory: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::Said(format!("cannot read {}: {error}", directory.display()))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if let Some(index) = name
            .strip_prefix("shard-")
            .and_then(|index| index.parse::<u32>().ok())
            && path.is_dir()
        {
            found.push((index, name, path));
        }
    }
    found.sort();
    if found.is_empty() {
        let name = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        return Ok(vec![(name.unwrap_or_default(), directory.to_path_buf())]);
    }
    Ok(found
        .into_iter()
        .map(|(_, name, path)| (name, path))
        .collect())
}

/// Prints one log. Gives one line when it is damaged.
fn print(
    args: &DumpArgs,
    shard: &str,
    directory: &Path,
    out: &mut Output,
) -> Result<Option<String>, Failure> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut failure = None;
    let mut visit = |dumped: Dumped<'_>| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        match print_one(args, shard, &dumped, out) {
            Ok(true) if matches!(dumped, Dumped::Message { .. }) => left -= 1,
            Ok(_) => {}
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    let end = dump(directory, &mut visit)
        .map_err(|error| Failure::Said(format!("{}: {error}", directory.display())))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let whole = left > 0;
    if whole {
        let object = json!({ "shard": shard, "end": end.end, "checkpoint": end.checkpoint });
        out.record(&object, &format!("{shard} {} end", end.end))?;
    }
    let damaged = whole && end.end < end.checkpoint;
    Ok(damaged.then(|| {
        format!(
            "{shard} is damaged: no sound group at {}, and the checkpoint knows of {}",
            end.end, end.checkpoint
        )
    }))
}

/// Prints one thing; `false` where it is not wanted.
fn print_one(
    args: &DumpArgs,
    shard: &str,
    dumped: &Dumped<'_>,
    out: &mut Output,
) -> Result<bool, Failure> {
    match *dumped {
        Dumped::Group(header) => {
            if args.groups {
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
                out.record(&object, &line)?;
            }
            Ok(args.groups)
        }
        Dumped::State {
            position,
            kind,
            payload,
        } => {
            if args.states {
                let object = json!({ "shard": shard, "position": position, "state": kind, "bytes": payload.len() });
                out.record(
                    &object,
                    &format!(
                        "{shard} {position} state of kind {kind}, {} bytes",
                        payload.len()
                    ),
                )?;
            }
            Ok(args.states)
        }
        Dumped::Message { position, bytes } => print_message(args, shard, position, bytes, out),
    }
}

fn print_message(
    args: &DumpArgs,
    shard: &str,
    position: u64,
    bytes: &[u8],
    out: &mut Output,
) -> Result<bool, Failure> {
    let record = match Record::parse(bytes) {
        Ok((record, _)) => record,
        Err(error) => {
            let object =
                json!({ "shard": shard, "position": position, "error": error.to_string() });
            out.record(
                &object,
                &format!("{shard} {position} no record that can be read: {error}"),
            )?;
            return Ok(true);
        }
    };
    if args
        .topic
        .as_ref()
        .is_some_and(|topic| topic != record.topic())
    {
        return Ok(false);
    }
    if args.json {
        let mut object = object(&Received::from_record(shard, &record));
        object["position"] = json!(position);
        object["soundBody"] = json!(record.check_body_crc());
        out.record(&object, "")?;
        return Ok(true);
    }
    let head = record.head();
    let line = format!(
        "{shard} {position} {} queue {} offset {} stored {} body {} bytes{}",
        record.topic(),
        head.queue_id,
        head.queue_offset,
        head.store_timestamp,
        record.body().len(),
        if record.check_body_crc() {
            ""
        } else {
            ", CHECKSUM WRONG"
        }
    );
    out.record(&Value::Null, &line)?;
    Ok(true)
}
