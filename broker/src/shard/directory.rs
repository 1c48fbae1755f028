//! The data directory: made where it is missing, held by one process, with a directory for each shard.
//!
//! ```text
//! data_dir/lock          held with flock for as long as the process lives
//! data_dir/shard-0/      the log of shard 0, and so on
//! data_dir/kvConfig.json the NameServer's KV config
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "prepares directories before any shard runs"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why the data directory cannot be used. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made, or files cannot be made in it.
    #[error(
        "cannot write to {path}: {cause}; give a directory that this user may write to with --data-dir"
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process holds it.
    #[error(
        "{path} is in use by another Corelane process{holder}; stop that one, or give another directory with --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (process N)`, where that is known.
        holder: String,
    },
    /// A broker runs in what is to be read at rest.
    #[error(
        "{path} is in use by a running Corelane process{holder}: stop that one first, for it changes what is to be read"
    )]
    Running {
        /// The directory.
        path: PathBuf,
        /// ` (process N)`, where that is known.
        holder: String,
    },
}

/// Keeps every broker from starting in a data directory while its files are read; until dropped.
pub struct ReadHold(#[expect(dead_code, reason = "held")] Flock<File>);

impl ReadHold {
    /// Takes the directory to read it; nothing where no broker has ever held it. Fails while one runs in it.
    pub fn take(path: &Path) -> Result<Option<Self>, DirectoryError> {
        let Ok(file) = File::open(path.join("lock")) else {
            return Ok(None);
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((mut file, _)) => Err(DirectoryError::Running {
                path: path.to_owned(),
                holder: holder(&mut file),
            }),
        }
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
        _ => String::new(),
    }
}

/// The data directory of this process, held until dropped.
pub struct DataDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDirectory {
    /// Makes the directory where it is missing, and takes it for this process.
    pub fn hold(path: &Path) -> Result<Self, DirectoryError> {
        let not_writable = |cause| DirectoryError::NotWritable {
            path: path.to_owned(),
            cause,
        };
        // A shard's thread opens files below it by their whole paths.
        let path = &std::path::absolute(path).map_err(not_writable)?;
        fs::create_dir_all(path).map_err(not_writable)?;
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(lock)
            .map_err(not_writable)?;
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| {
                if errno != Errno::EWOULDBLOCK {
                    return not_writable(errno.into());
                }
                DirectoryError::InUse {
                    path: path.to_owned(),
                    holder: holder(&mut file),
                }
            })?;
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        noted.map_err(not_writable)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory of one shard, made where it is missing.
    pub fn shard(&self, index: usize) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(format!("shard-{index}"));
        fs::create_dir_all(&path).map_err(|cause| DirectoryError::NotWritable {
            path: path.clone(),
            cause,
        })?;
        Ok(path)
    }

    /// Where the NameServer keeps its KV config.
    pub fn kv_config(&self) -> PathBuf {
        self.path.join("kvConfig.json")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_directory_is_held_by_one_and_can_be_held_again() {
        let path = std::env::temp_dir().join(format!("corelane-hold-{}", std::process::id()));
        let held = DataDirectory::hold(&path).unwrap();
        assert!(ReadHold::take(&path).is_err_and(|error| error.to_string().contains("running")));
        let again = DataDirectory::hold(&path).err().unwrap().to_string();
        assert!(
            again.contains("in use") && again.contains(&std::process::id().to_string()),
            "{again}"
        );
        drop(held);
        let reading = ReadHold::take(&path).unwrap();
        assert!(reading.is_some() && DataDirectory::hold(&path).is_err());
        drop(reading);
        drop(DataDirectory::hold(&path).unwrap());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let name = format!("corelane-relative-{}", std::process::id());
        let held = DataDirectory::hold(Path::new(&name)).unwrap();
        assert_eq!(
            held.shard(0).unwrap(),
            std::env::current_dir().unwrap().join(&name).join("shard-0")
        );
        fs::remove_dir_all(&name).unwrap();
    }

    #[test]
    fn a_path_through_a_file_is_not_writable() {
        let wrong = DataDirectory::hold(Path::new("/proc/version/x"))
            .err()
            .unwrap()
            .to_string();
        assert!(
            wrong.starts_with("cannot write to") && wrong.contains("--data-dir"),
            "{wrong}"
        );
    }
}
