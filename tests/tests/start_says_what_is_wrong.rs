//! What keeps a broker from starting is said in one line that names the culprit, and the exit code is 1.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use corelane_tests::ports::Ports;
use corelane_tests::process::Process;
use corelane_tests::{Cluster, Options, binary, new_dir};

/// A start that must fail.
struct Failing {
    command: Command,
    log: std::path::PathBuf,
}

impl Failing {
    /// `corelane start` in `dir` on free ports with these settings on top.
    fn start(dir: &Path, ports: &Ports, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary::corelane());
        let data = dir.join("data").display().to_string();
        let (port, nameserver) = (ports.broker(0).to_string(), ports.nameserver().to_string());
        let usual = [
            ("data_dir", data.as_str()),
            ("listen_address", "127.0.0.1"),
            ("port", &port),
            ("nameserver_port", &nameserver),
            ("shards", "1"),
            ("segment_bytes", "16777216"),
        ];
        command
            .arg("start")
            .current_dir(dir)
            .env_remove("RUST_BACKTRACE");
        for (key, value) in usual
            .iter()
            .filter(|(key, _)| settings.iter().all(|(given, _)| given != key))
            .chain(settings)
        {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        Self {
            command,
            log: dir.join("failing.log"),
        }
    }

    /// Runs it; the one line that it says.
    fn says(self) -> String {
        let mut process = Process::start(self.command, &self.log, false);
        let status = process.wait(Duration::from_secs(20));
        let log = process.log();
        assert_eq!(
            status.code(),
            Some(1),
            "exit code of a start that fails:\n{log}"
        );
        assert!(!log.contains("panicked"), "{log}");
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| !line.contains(" INFO "))
            .collect();
        assert_eq!(
            lines.len(),
            1,
            "one line, and no other complaint, says what is wrong:\n{log}"
        );
        assert_eq!(
            log.lines().last(),
            lines.first().copied(),
            "it is the last line:\n{log}"
        );
        assert!(lines[0].starts_with("corelane: "), "{log}");
        lines[0].to_owned()
    }
}

fn assert_names(line: &str, culprits: &[&str]) {
    for culprit in culprits {
        assert!(line.contains(culprit), "{culprit:?} is not in: {line}");
    }
}

#[test]
fn a_second_start_on_the_same_data() {
    let cluster = Cluster::start(&Options::new());
    let (dir, ports) = (new_dir(), Ports::take());
    let data = cluster.dir().join("corelane").display().to_string();
    let line = Failing::start(&dir, &ports, &[("data_dir", &data)]).says();
    assert_names(&line, &[&data]);
    assert_eq!(cluster.brokers().len(), 1, "the first one goes on");
}

#[test]
fn a_broker_port_that_is_taken() {
    let (dir, ports) = (new_dir(), Ports::take());
    let _taken = TcpListener::bind(("127.0.0.1", ports.broker(0))).expect("a free port");
    let line = Failing::start(&dir, &ports, &[]).says();
    assert_names(&line, &[&ports.broker(0).to_string()]);
}

#[test]
fn a_vip_port_that_is_taken() {
    let (dir, ports) = (new_dir(), Ports::take());
    let port = ports.broker(0) - 2;
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let line = Failing::start(&dir, &ports, &[]).says();
    assert_names(&line, &[&port.to_string()]);
}

#[test]
fn the_port_of_the_second_shard_that_is_taken() {
    let (dir, ports) = (new_dir(), Ports::take());
    let _taken = TcpListener::bind(("127.0.0.1", ports.broker(1))).expect("a free port");
    let line = Failing::start(&dir, &ports, &[("shards", "2")]).says();
    assert_names(&line, &[&ports.broker(1).to_string()]);
}

#[test]
fn a_nameserver_port_that_is_taken() {
    let (dir, ports) = (new_dir(), Ports::take());
    let _taken = TcpListener::bind(("127.0.0.1", ports.nameserver())).expect("a free port");
    let line = Failing::start(&dir, &ports, &[]).says();
    assert_names(&line, &[&ports.nameserver().to_string()]);
}

#[test]
fn an_unknown_key() {
    let (dir, ports) = (new_dir(), Ports::take());
    let line = Failing::start(&dir, &ports, &[("segment_byte", "16777216")]).says();
    assert_names(&line, &["segment_byte", "segment_bytes"]);
}

#[test]
fn an_unknown_key_in_the_file() {
    let (dir, ports) = (new_dir(), Ports::take());
    let file = dir.join("corelane.toml");
    fs::write(&file, "flsh = \"sync\"\n").expect("a file");
    let mut failing = Failing::start(&dir, &ports, &[]);
    failing.command.arg("--config").arg(&file);
    assert_names(&failing.says(), &["corelane.toml", "flsh", "flush"]);
}

#[test]
fn a_file_that_is_no_toml() {
    let (dir, ports) = (new_dir(), Ports::take());
    let file = dir.join("corelane.toml");
    fs::write(&file, "port = 10911\nthis is no TOML\n").expect("a file");
    let mut failing = Failing::start(&dir, &ports, &[]);
    failing.command.arg("--config").arg(&file);
    assert_names(&failing.says(), &["corelane.toml", "2"]);
}

#[test]
fn a_file_that_is_not_there() {
    let (dir, ports) = (new_dir(), Ports::take());
    let mut failing = Failing::start(&dir, &ports, &[]);
    failing.command.arg("--config").arg("nowhere.toml");
    assert_names(&failing.says(), &["nowhere.toml"]);
}

#[test]
fn values_that_break_the_rule_of_their_key() {
    for (key, value) in [
        ("flush", "sometimes"),
        ("port", "100000"),
        ("shards", "-1"),
        ("segment_bytes", "1000"),
    ] {
        let (dir, ports) = (new_dir(), Ports::take());
        let line = Failing::start(&dir, &ports, &[(key, value)]).says();
        assert_names(&line, &[key, value]);
    }
}

#[test]
fn a_directory_that_cannot_be_written() {
    let (dir, ports) = (new_dir(), Ports::take());
    // A file stands where the directory should be: not even root can write below it.
    fs::write(dir.join("file"), "").expect("a file");
    let data = dir.join("file/data").display().to_string();
    let line = Failing::start(&dir, &ports, &[("data_dir", &data)]).says();
    assert_names(&line, &[&data]);
}

#[test]
fn a_kernel_that_forbids_io_uring() {
    let (dir, ports) = (new_dir(), Ports::take());
    let mut failing = Failing::start(&dir, &ports, &[]);
    // SAFETY: between fork and exec only prctl is called, with a filter that outlives the call; nothing is allocated.
    unsafe {
        failing.command.pre_exec(forbid_io_uring);
    }
    assert_names(&failing.says(), &["io_uring"]);
}

#[test]
fn too_little_memory_that_may_be_locked() {
    let (dir, ports) = (new_dir(), Ports::take());
    let mut failing = Failing::start(&dir, &ports, &[]);
    // SAFETY: between fork and exec only setrlimit is called, with a structure on the stack.
    unsafe {
        failing.command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 16 * 1024,
                rlim_max: 16 * 1024,
            };
            match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    assert_names(&failing.says(), &["memlock", "ulimit -l"]);
}

/// As container runtimes do it: the calls of io_uring end with EPERM.
fn forbid_io_uring() -> io::Result<()> {
    const LOAD_CALL: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let calls = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    let [setup, enter, register] = calls.map(|call| call as u32);
    let mut program = [
        op(LOAD_CALL, 0, 0),
        op(JUMP_IF_EQUAL, 3, setup),
        op(JUMP_IF_EQUAL, 2, enter),
        op(JUMP_IF_EQUAL, 1, register),
        op(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        op(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives to the end of this function, and the kernel copies it.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
