//! A data directory at rest: its shards, and whether a broker runs in it.

use std::path::{Path, PathBuf};

use corelane_broker::shard::{DirectoryError, ReadHold};

use crate::output::Failure;

/// The directory of one shard.
pub struct Shard {
    /// How it is called in what is printed.
    pub name: String,
    /// Its number; nothing where only its own directory was named, and that has another name.
    pub index: Option<usize>,
    /// Where its log lies.
    pub path: PathBuf,
}

/// The shards of a data directory, or the directory itself where it is one of a shard.
pub fn shards(directory: &Path) -> Result<Vec<Shard>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::Said(format!("cannot read {}: {error}", directory.display()))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir()
            && let (name, Some(index)) = named(&path)
        {
            found.push(Shard {
                name,
                index: Some(index),
                path,
            });
        }
    }
    found.sort_by_key(|shard| shard.index);
    if found.is_empty() {
        let (name, index) = named(directory);
        found.push(Shard {
            name,
            index,
            path: directory.to_path_buf(),
        });
    }
    Ok(found)
}

fn named(path: &Path) -> (String, Option<usize>) {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let index = name.strip_prefix("shard-");
    let index = index.and_then(|index| index.parse().ok());
    (name, index)
}

/// Keeps a broker from starting in the directory, or in the one that a shard's directory lies in.
pub fn hold_to_read(directory: &Path) -> Result<Vec<ReadHold>, DirectoryError> {
    let parent = directory.join("..");
    let mut held = Vec::new();
    for place in [directory, &parent] {
        held.extend(ReadHold::take(place)?);
    }
    Ok(held)
}
