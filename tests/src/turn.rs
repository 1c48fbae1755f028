//! Whose turn it is: a test that loads the machine runs alone, others with real clients run beside each other. Holds
//! between all test processes of a target directory, through a lock on a file.

use std::fs::{self, File};

use crate::binary;

/// Held from the start to the end of a test.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits until no test runs that wants to be alone.
    pub fn shared() -> Self {
        let file = Self::file();
        file.lock_shared().expect("a lock on a file");
        Self { _lock: file }
    }

    /// Waits until no other test with clients runs.
    pub fn alone() -> Self {
        let file = Self::file();
        file.lock().expect("a lock on a file");
        Self { _lock: file }
    }

    fn file() -> File {
        let dir = binary::scratch();
        fs::create_dir_all(&dir).expect("a directory for the lock");
        File::create(dir.join("turn.lock")).expect("a file for the lock")
    }
}
