//! The built command: what it prints, where, and what it ends with.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn corelane(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command
        .args(args)
        .env_remove("NAMESRV_ADDR")
        .env_remove("CORELANE_CONFIG");
    command
}

fn run(args: &[&str]) -> Output {
    corelane(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of a failure.
fn failure(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text.trim_end()
        .strip_prefix("corelane: ")
        .unwrap()
        .to_owned()
}

/// A directory of its own, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("corelane-command-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_arguments_there_is_help() {
    let output = run(&[]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("Usage: corelane <COMMAND>"));
    // Nothing is coloured where nobody looks.
    assert!(!stdout(&output).contains('\u{1b}'));
}

#[test]
fn nonsense_ends_with_2() {
    for args in [
        &["bogus"][..],
        &["produce"],
        &["consume", "T", "--from", "yesterday"],
        &["start", "--no-such-key", "1"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(
            String::from_utf8(output.stderr).unwrap().contains("--help"),
            "{args:?}"
        );
    }
}

#[test]
fn a_bad_configuration_is_one_line() {
    let directory = Directory::new("bad");
    let file = directory.file("corelane.toml", "port = 10911\nflsh = \"sync\"\n");
    for command in ["start", "nameserver"] {
        let said = failure(&run(&[command, "--config", &file]));
        assert_eq!(
            said,
            format!("{file}:2: unknown key flsh; did you mean flush?")
        );
    }
    let said = failure(&run(&["start", "--port", "70000"]));
    assert_eq!(
        said,
        "--port: port = \"70000\": expected a whole number from 3 to 65534"
    );
    let said = failure(&run(&["start", "--set", "flush"]));
    assert_eq!(said, "--set flush: expected key=value");
    let said = failure(
        &corelane(&["start"])
            .env("CORELANE_SHARDS", "many")
            .output()
            .unwrap(),
    );
    assert!(
        said.starts_with("environment variable CORELANE_SHARDS: "),
        "{said}"
    );
    let said = failure(
        &corelane(&["config", "check"])
            .env("CORELANE_CONFIG", "/nowhere")
            .output()
            .unwrap(),
    );
    assert!(
        said.starts_with("cannot read the configuration /nowhere: "),
        "{said}"
    );
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let directory = Directory::new("check");
    let file = directory.file(
        "broker.conf",
        "brokerName=b\nbrokerId=0\nflushDiskType=ASYNC_FLUSH\n",
    );
    let output = run(&["config", "check", &file, "--set", "port=1234", "--json"]);
    assert!(output.status.success());
    let rows: Vec<serde_json::Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row["key"].as_str().unwrap(), row["value"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [("broker_name", "b"), ("port", "1234"), ("flush", "async")]
    );
    assert_eq!(rows[1]["from"], "--set");
    let warning = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        warning,
        format!("corelane: {file}: not used here: brokerId\n")
    );
    assert_eq!(
        stdout(&run(&["config", "check"])),
        "every key has its default\n"
    );
}

#[test]
fn every_key_is_listed_explained_and_a_flag() {
    let keys: Vec<serde_json::Value> = stdout(&run(&["config", "keys", "--json"]))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let example = stdout(&run(&["config", "example"]));
    let help = stdout(&run(&["start", "--help-all"]));
    let short = stdout(&run(&["start", "--help"]));
    assert!(keys.len() > 40);
    for key in &keys {
        let name = key["key"].as_str().unwrap();
        assert!(example.contains(&format!("\n#{name} = ")), "{name}");
        assert!(
            help.contains(&format!("{} ", key["flag"].as_str().unwrap())),
            "{name}"
        );
    }
    assert!(
        short.contains("--data-dir") && !short.contains("--max-held-pulls"),
        "{short}"
    );
}

#[test]
fn no_nameserver_is_said_with_what_to_do() {
    for args in [
        &["topic", "list"][..],
        &["produce", "T", "--body", "x"],
        &["consume", "T"],
        &["group", "list"],
    ] {
        // The discard port: nobody listens there.
        let said = failure(
            &corelane(args)
                .env("NAMESRV_ADDR", "127.0.0.1:9")
                .output()
                .unwrap(),
        );
        assert!(
            said.starts_with("no NameServer answers (cannot connect to 127.0.0.1:9: "),
            "{said}"
        );
        assert!(said.contains("corelane start"), "{said}");
    }
}

#[test]
fn a_dump_of_nothing_is_said() {
    let directory = Directory::new("dump");
    let path = directory.0.to_str().unwrap();
    assert_eq!(
        failure(&run(&["dump", path])),
        format!("{path}: the checkpoint is damaged: it is missing")
    );
    assert!(failure(&run(&["dump", "/nowhere"])).starts_with("cannot read /nowhere: "));
}

#[test]
fn a_check_of_nothing_is_said() {
    let directory = Directory::new("verify");
    let path = directory.0.to_str().unwrap();
    assert_eq!(
        failure(&run(&["verify", path])),
        format!("{path} holds no log")
    );
    assert!(failure(&run(&["verify", "/nowhere"])).starts_with("cannot read /nowhere: "));
}

#[test]
fn damage_to_pass_over_is_a_shard_and_an_offset() {
    for wrong in ["4096", "0:", "all", "0:-1"] {
        let output = run(&["start", "--skip-damage", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn the_version_is_json_where_wanted() {
    let version: serde_json::Value =
        serde_json::from_str(&stdout(&run(&["version", "--json"]))).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(stdout(&run(&["version"])).starts_with("corelane "));
}
