//! What the disk does: the floor under a durable broker.
//!
//! Writes go past the page cache and end when they are on the disk (O_DIRECT, O_DSYNC), one behind the other, into a file
//! whose blocks were all written before, and into one whose blocks were only allocated. Reads go past the page cache.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::measure::latencies;
use crate::outcome::{grouped, ms};
use crate::raw::{make_file, open_durable};
use crate::ring::{BLOCK_BYTES, BlockFile};

/// What is measured.
#[derive(Debug, Clone)]
pub struct DiskSettings {
    /// Where the file is made.
    pub dir: PathBuf,
    /// Sizes of an operation.
    pub block_bytes: Vec<usize>,
    /// How many at once.
    pub depths: Vec<usize>,
    /// The file's size.
    pub file_bytes: u64,
    /// How long each measurement takes.
    pub duration: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    WrittenAhead,
    Allocated,
    Read,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::WrittenAhead => "write, blocks written before",
            Self::Allocated => "write, blocks only allocated",
            Self::Read => "read in order",
        }
    }
}

/// Measures each kind with each size and depth, and hands over a line for each.
pub fn measure(
    settings: &DiskSettings,
    mut line: impl FnMut(String) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let path = settings
        .dir
        .join(format!("corelane-disk-{}.tmp", std::process::id()));
    let outcome = measure_all(settings, &path, &mut line);
    let _ = fs::remove_file(&path);
    outcome
}

fn measure_all(
    settings: &DiskSettings,
    path: &Path,
    line: &mut impl FnMut(String) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let failed = || BenchError::io(format!("cannot use {}", path.display()));
    for kind in [Kind::WrittenAhead, Kind::Allocated, Kind::Read] {
        for block_bytes in &settings.block_bytes {
            let block_bytes = block_bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
            for depth in &settings.depths {
                let file_bytes = settings.file_bytes.max((block_bytes * depth) as u64);
                let file = match kind {
                    Kind::Allocated => allocated(path, file_bytes),
                    Kind::WrittenAhead | Kind::Read => written(path, file_bytes, kind),
                }
                .map_err(failed())?;
                let text = one(
                    file,
                    kind,
                    block_bytes,
                    *depth,
                    file_bytes,
                    settings.duration,
                )
                .map_err(failed())?;
                line(text)?;
            }
        }
    }
    Ok(())
}

/// A file whose blocks were written; kept from one measurement to the next.
fn written(path: &Path, bytes: u64, kind: Kind) -> std::io::Result<File> {
    if fs::metadata(path).map_or(true, |found| found.len() != bytes) || kind == Kind::Read {
        make_file(path, bytes)?;
    }
    match kind {
        Kind::Read => File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path),
        Kind::WrittenAhead | Kind::Allocated => open_durable(path),
    }
}

/// A new file whose blocks are allocated and hold nothing.
fn allocated(path: &Path, bytes: u64) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::create(path)?;
    let bytes = i64::try_from(bytes).map_err(std::io::Error::other)?;
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, bytes)?;
    open_durable(path)
}

fn one(
    file: File,
    kind: Kind,
    block_bytes: usize,
    depth: usize,
    file_bytes: u64,
    duration: Duration,
) -> std::io::Result<String> {
    let mut blocks = BlockFile::new(file, depth, block_bytes, 0xA5)?;
    let mut histogram = latencies();
    let mut started = vec![Instant::now(); depth];
    let mut free: Vec<usize> = (0..depth).collect();
    let mut done = Vec::with_capacity(depth);
    let (mut offset, mut operations) = (0, 0u64);
    let start = Instant::now();
    loop {
        let goes_on = start.elapsed() < duration
            // Blocks that were only allocated are that but once.
            && (kind != Kind::Allocated || offset + block_bytes as u64 <= file_bytes);
        while goes_on && let Some(slot) = free.pop() {
            if offset + block_bytes as u64 > file_bytes {
                if kind == Kind::Allocated {
                    free.push(slot);
                    break;
                }
                offset = 0;
            }
            started[slot] = Instant::now();
            match kind {
                Kind::Read => blocks.read(slot, offset)?,
                Kind::WrittenAhead | Kind::Allocated => blocks.write(slot, offset)?,
            }
            offset += block_bytes as u64;
        }
        if free.len() == depth {
            break;
        }
        blocks.wait(&mut done)?;
        for done in done.drain(..) {
            if done.bytes != block_bytes {
                return Err(std::io::Error::other(format!(
                    "{} of {block_bytes} bytes",
                    done.bytes
                )));
            }
            operations += 1;
            histogram.saturating_record(started[done.slot].elapsed().as_nanos() as u64);
            free.push(done.slot);
        }
    }
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    Ok(format!(
        "{:29} {:4} KiB, {depth:3} at once: {:>9} /s  {:7.1} MB/s  p50 {}  p99 {}  max {}",
        kind.name(),
        block_bytes >> 10,
        grouped((operations as f64 / seconds) as u64),
        operations as f64 * block_bytes as f64 / seconds / 1e6,
        ms(histogram.value_at_quantile(0.5)),
        ms(histogram.value_at_quantile(0.99)),
        ms(histogram.max()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_size_and_depth_has_a_line() {
        let settings = DiskSettings {
            dir: std::env::temp_dir(),
            block_bytes: vec![4096, 10_000],
            depths: vec![1, 3],
            file_bytes: 1 << 20,
            duration: Duration::from_millis(20),
        };
        let mut lines = Vec::new();
        measure(&settings, |line| {
            lines.push(line);
            Ok(())
        })
        .unwrap();
        assert_eq!(lines.len(), 12);
        assert!(lines[0].contains("4 KiB,   1 at once"), "{}", lines[0]);
        assert!(lines[3].contains("12 KiB,   3 at once"), "{}", lines[3]);
    }
}
