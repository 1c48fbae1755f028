//! The Go side: the driver, built once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binary::{scratch, source};

/// The driver's binary. Go itself knows whether there is something to build.
pub fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let dir = scratch().join("go");
        fs::create_dir_all(&dir).expect("a directory for the driver");
        let lock = File::create(dir.join("lock")).expect("a file for a lock");
        lock.lock().expect("a lock on a file");
        let driver = dir.join("driver");
        let output = Command::new("go")
            .args(["build", "-o"])
            .arg(&driver)
            .arg(".")
            .current_dir(source("go"))
            .output()
            .unwrap_or_else(|e| panic!("go (Go 1.22 or newer is needed): {e}"));
        assert!(
            output.status.success(),
            "go build failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        driver
    })
}
