//! A child process that dies with its test.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::ports;

/// Killed when it is dropped, and when the thread that started it ends: a test's thread, that is. Its standard error goes
/// to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; appends its standard error, and its standard output unless that is piped, to the file `log`.
    pub fn start(mut command: Command, log: &Path, piped: bool) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command
                .stdin(Stdio::null())
                .stdout(file.try_clone().expect("a second handle of a file"));
        }
        command.stderr(file);
        die_with_parent(&mut command);
        let sockets = ports::keep_sockets();
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{:?} does not start: {e}", command.get_program()));
        drop(sockets);
        Self {
            child,
            log: log.to_path_buf(),
        }
    }

    /// The two pipes; only once, and only of a process that was started with them.
    pub fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (
            self.child.stdin.take().expect("a piped input"),
            self.child.stdout.take().expect("a piped output"),
        )
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// Waits for its end; panics when it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "process {} still runs after {within:?}\n{}",
                self.id(),
                self.log_end()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; does not wait.
    pub fn sigterm(&self) {
        // SAFETY: kill takes no memory; the child has not been waited for, so the id is still its own.
        let result = unsafe { libc::kill(self.id() as libc::pid_t, libc::SIGTERM) };
        assert_eq!(
            result,
            0,
            "SIGTERM to {}: {}",
            self.id(),
            io::Error::last_os_error()
        );
    }

    /// All that it has written to its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log, with the name of the file.
    pub fn log_end(&self) -> String {
        end_of(&self.log)
    }

    /// User and system time that it has used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a process that runs");
        // The second field is a name in parentheses, which may contain anything.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name in parentheses") + 2..]
            .split(' ')
            .collect();
        let ticks: u64 =
            fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        // The kernel counts in hundredths here on every architecture that we know.
        Duration::from_millis(ticks * 10)
    }

    /// Memory that it has in RAM, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a process that runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number of kB")
            * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last 40 lines of a file, under its name.
pub fn end_of(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    format!("the end of {}:\n{end}", log.display())
}

/// How a status reads in a message.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {signal:?}"),
    }
}

fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
}
