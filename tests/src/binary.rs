//! The `corelane` binary of this workspace, and where the tests keep their files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The binary, built on the first call in a process with the profile of the running test. `CORELANE_BINARY` names another
/// one, for example that of a release.
pub fn corelane() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CORELANE_BINARY") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// The directory for what tests write: in the target directory, so on a real disk.
pub fn scratch() -> PathBuf {
    profile_dir()
        .parent()
        .map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
        .join("tmp")
}

/// A file or directory of this package's sources.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A running test lies in `<target>/<profile>/deps`.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    test.ancestors()
        .nth(2)
        .expect("a test lies in <profile>/deps")
        .to_path_buf()
}

fn build() -> PathBuf {
    let profile = match profile_dir().file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev".to_owned(),
        Some(name) => name.to_owned(),
    };
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "-p",
            "corelane",
            "--bin",
            "corelane",
            "--profile",
            &profile,
            "--message-format=json",
        ])
        .current_dir(source(".."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo build -p corelane failed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable")
}
