//! A server process that can be killed and started again as it was.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::binary;
use crate::process::{self, Process, describe};

/// A program with its arguments, running or not.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// Starts `program` in `dir`; its output goes to `<name>.log` there.
    pub fn start(name: &str, program: &Path, args: Vec<String>, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut server = Self {
            program: program.to_path_buf(),
            args,
            dir: dir.to_path_buf(),
            log,
            process: None,
        };
        server.start_again();
        server
    }

    /// Starts `corelane <command>` on this host only, with small segments and these keys of the configuration, which go
    /// before; its data are in `<name>` in `dir`.
    pub fn corelane(name: &str, command: &str, dir: &Path, settings: &[(&str, &str)]) -> Self {
        let data = dir.join(name).display().to_string();
        let common = [
            ("data_dir", data.as_str()),
            ("listen_address", "127.0.0.1"),
            ("broker_ip", "127.0.0.1"),
            ("segment_bytes", "16777216"),
        ];
        let sets = common
            .iter()
            .filter(|(key, _)| settings.iter().all(|(given, _)| given != key))
            .chain(settings)
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        Self::start(
            name,
            binary::corelane(),
            [command.to_owned()].into_iter().chain(sets).collect(),
            dir,
        )
    }

    /// Starts a NameServer alone.
    pub fn nameserver(name: &str, dir: &Path, port: u16) -> Self {
        Self::corelane(
            name,
            "nameserver",
            dir,
            &[("nameserver_port", &port.to_string())],
        )
    }

    /// Starts a broker of one shard, which is registered with these NameServers as `<name>-0`.
    pub fn broker(name: &str, dir: &Path, port: u16, nameservers: &str) -> Self {
        let port = port.to_string();
        let settings = [
            ("broker_name", name),
            ("port", &port),
            ("shards", "1"),
            ("nameserver_embedded", "false"),
            ("nameserver_addresses", nameservers),
        ];
        Self::corelane(name, "start", dir, &settings)
    }

    /// Starts it with the arguments it had; it must not run.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.program.display());
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env("NO_COLOR", "1");
        // Such a variable is a key of the configuration; what is set for the tests is not meant for the server.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORELANE_"))
        {
            command.env_remove(name);
        }
        self.process = Some(Process::start(command, &self.log, false));
    }

    /// Waits until it has ended by itself: how, and all that it has written to its log. Panics when it still runs after
    /// `within`.
    pub fn ended(&mut self, within: Duration) -> (ExitStatus, String) {
        let mut process = self.process.take().expect("a server that runs");
        let status = process.wait(within);
        (status, process.log())
    }

    /// The running process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a server that runs")
    }

    /// Panics with the log if it has ended by itself.
    pub fn must_run(&mut self) {
        let process = self.process.as_mut().expect("a server that runs");
        if let Some(status) = process.ended() {
            panic!(
                "{} ended with {}; {}",
                self.program.display(),
                describe(status),
                process.log_end()
            );
        }
    }

    /// The last lines of its log, of all its runs.
    pub fn log_end(&self) -> String {
        process::end_of(&self.log)
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// SIGTERM, and how it ended; panics when it still runs after `within`.
    pub fn sigterm(&mut self, within: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("a server that runs");
        process.sigterm();
        process.wait(within)
    }
}
