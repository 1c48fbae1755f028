//! Four ways from a file to a socket, for long runs of a sealed segment: reads with O_DIRECT into buffers that are sent (with
//! `send`, or with zero-copy sends), `sendfile`, and `splice` through a pipe. Throughput, and CPU time for a gigabyte: of
//! the sending process, and of the whole machine without what the receiver's process used.
//!
//! `net_sendfile receive ADDRESS CONNECTIONS` in one place, `net_sendfile send ADDRESS FILE [ROUNDS]` in another, which may be
//! another network namespace. The file is written first where it is missing (1 GiB). The sender runs on core 0, the receiver
//! on core 1.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

use corelane_broker::log::ReadBuffers;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::null_mut;
use std::time::Instant;

const FILE_BYTES: u64 = 1 << 30;
const CHUNK_BYTES: usize = 256 << 10;
const READS_IN_FLIGHT: usize = 8;
const PIPE_BYTES: i32 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    ReadAndSend,
    ReadAndSendZeroCopy,
    Sendfile,
    Splice,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["receive", address, connections] => receive(address, connections.parse().unwrap()),
        ["send", address, path] => send(address, path, 3),
        ["send", address, path, rounds] => send(address, path, rounds.parse().unwrap()),
        _ => eprintln!("net_sendfile receive ADDRESS CONNECTIONS | send ADDRESS FILE [ROUNDS]"),
    }
}

fn pin(core: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}

/// Reads all of a connection, then says how long this process has computed for it.
fn receive(address: &str, connections: usize) {
    pin(1);
    let listener = TcpListener::bind(address).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().unwrap();
        let before = process_cpu();
        let mut left = FILE_BYTES;
        while left > 0 {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the sender went away");
            left -= read as u64;
        }
        let cpu = process_cpu() - before;
        stream.write_all(&cpu.to_le_bytes()).unwrap();
    }
}

fn send(address: &str, path: &str, rounds: usize) {
    pin(0);
    write_file(Path::new(path));
    let ways = [
        Way::ReadAndSend,
        Way::ReadAndSendZeroCopy,
        Way::Sendfile,
        Way::Splice,
    ];
    println!("file, way: MB/s; CPU seconds a GB: of the sender, of the machine but the receiver");
    for _ in 0..rounds {
        for cold in [true, false] {
            for way in ways {
                if !cold && matches!(way, Way::ReadAndSend | Way::ReadAndSendZeroCopy) {
                    // O_DIRECT does not know the page cache.
                    continue;
                }
                one(address, path, way, cold);
            }
        }
    }
}

fn one(address: &str, path: &str, way: Way, cold: bool) {
    let file = open(path, way);
    prepare_cache(&open(path, Way::Sendfile), cold);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let (cpu, machine, began) = (process_cpu(), machine_cpu(), Instant::now());
    match way {
        Way::ReadAndSend => read_and_send(&file, &stream, false),
        Way::ReadAndSendZeroCopy => read_and_send(&file, &stream, true),
        Way::Sendfile => sendfile(&file, &stream),
        Way::Splice => splice(&file, &stream),
    }
    let mut receiver = [0; 8];
    stream.read_exact(&mut receiver).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, machine) = (process_cpu() - cpu, machine_cpu() - machine);
    let gb = FILE_BYTES as f64 / 1e9;
    println!(
        "{} {way:?}: {:.0} MB/s; {:.3}, {:.3}",
        if cold { "cold" } else { "cached" },
        FILE_BYTES as f64 / 1e6 / seconds,
        cpu / gb,
        (machine - f64::from_le_bytes(receiver)) / gb,
    );
}

fn open(path: &str, way: Way) -> File {
    let direct = matches!(way, Way::ReadAndSend | Way::ReadAndSendZeroCopy);
    let mut options = File::options();
    options.read(true);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    options.open(path).unwrap()
}

fn write_file(path: &Path) {
    if path.metadata().is_ok_and(|known| known.len() == FILE_BYTES) {
        return;
    }
    let file = File::create(path).unwrap();
    let bytes: Vec<u8> = (0..CHUNK_BYTES).map(|at| (at * 7 / 3) as u8).collect();
    for at in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
        file.write_all_at(&bytes, at).unwrap();
    }
    file.sync_all().unwrap();
}

fn prepare_cache(file: &File, cold: bool) {
    let advise = |advice| {
        // SAFETY: advice about an open file.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) };
    };
    if cold {
        advise(libc::POSIX_FADV_DONTNEED);
        advise(libc::POSIX_FADV_SEQUENTIAL);
        return;
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    for at in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
        file.read_exact_at(&mut buffer, at).unwrap();
    }
}

/// Eight reads in flight, whose buffers are sent in order: as the broker serves a reader that catches up, without its log.
fn read_and_send(file: &File, stream: &TcpStream, zero_copy: bool) {
    const SENT: u64 = 1 << 33;
    let mut ring = IoUring::new(64).unwrap();
    let (file, socket) = (types::Fd(file.as_raw_fd()), types::Fd(stream.as_raw_fd()));
    let slots = 2 * READS_IN_FLIGHT;
    let mut pool = ReadBuffers::new(slots * CHUNK_BYTES);
    let mut buffers: Vec<_> = (0..slots).map(|_| pool.take(CHUNK_BYTES)).collect();
    let chunks = (FILE_BYTES / CHUNK_BYTES as u64) as usize;
    let (mut asked, mut sent) = (0, 0);
    let mut arrived = vec![false; slots];
    // Buffers that the kernel may still look at after the send has ended.
    let mut lent = vec![0; slots];
    let (mut sending, mut at) = (false, 0);
    while sent < chunks {
        while asked < chunks && asked < sent + READS_IN_FLIGHT && lent[asked % slots] == 0 {
            let buffer = &mut buffers[asked % slots];
            let read = opcode::Read::new(file, buffer.as_mut_ptr(), CHUNK_BYTES as u32)
                .offset((asked * CHUNK_BYTES) as u64)
                .build()
                .user_data(asked as u64);
            // SAFETY: the buffer lives until the ring is gone, and is not used before the read has ended.
            unsafe { ring.submission().push(&read).unwrap() };
            asked += 1;
        }
        if !sending && sent < asked && arrived[sent % slots] {
            let rest = &buffers[sent % slots][at..];
            let (start, len) = (rest.as_ptr(), rest.len() as u32);
            let entry = if zero_copy {
                lent[sent % slots] += 1;
                opcode::SendZc::new(socket, start, len).build()
            } else {
                opcode::Send::new(socket, start, len).build()
            };
            // SAFETY: as above; a lent buffer is not read into before its notification.
            unsafe {
                let entry = entry.user_data(SENT | (sent % slots) as u64);
                ring.submission().push(&entry).unwrap();
            }
            sending = true;
        }
        ring.submit_and_wait(1).unwrap();
        let completions: Vec<_> = ring.completion().collect();
        for completion in completions {
            let token = completion.user_data();
            if io_uring::cqueue::notif(completion.flags()) {
                lent[(token & !SENT) as usize] -= 1;
            } else if token & SENT != 0 {
                let len = completion.result();
                assert!(len > 0, "send: {len}");
                at += len as usize;
                sending = false;
                if at == CHUNK_BYTES {
                    arrived[sent % slots] = false;
                    (sent, at) = (sent + 1, 0);
                }
            } else {
                assert_eq!(completion.result(), CHUNK_BYTES as i32);
                arrived[token as usize % slots] = true;
            }
        }
    }
    while lent.iter().any(|lent| *lent > 0) {
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completion() {
            if io_uring::cqueue::notif(completion.flags()) {
                lent[(completion.user_data() & !SENT) as usize] -= 1;
            }
        }
    }
}

fn sendfile(file: &File, stream: &TcpStream) {
    let mut offset = 0;
    while offset < FILE_BYTES as i64 {
        let most = (FILE_BYTES - offset as u64).min(CHUNK_BYTES as u64) as usize;
        // SAFETY: open descriptors, and an offset of ours.
        let sent =
            unsafe { libc::sendfile(stream.as_raw_fd(), file.as_raw_fd(), &mut offset, most) };
        assert!(sent > 0, "sendfile: {}", std::io::Error::last_os_error());
    }
}

fn splice(file: &File, stream: &TcpStream) {
    let mut pipe: [RawFd; 2] = [0; 2];
    // SAFETY: room for two descriptors; then a call on one of them.
    let made = unsafe { libc::pipe(pipe.as_mut_ptr()) };
    assert_eq!(made, 0);
    // SAFETY: see above.
    unsafe { libc::fcntl(pipe[1], libc::F_SETPIPE_SZ, PIPE_BYTES) };
    let [from, to] = pipe;
    let mut offset = 0;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_MORE;
    while offset < FILE_BYTES as i64 {
        // SAFETY: open descriptors, and an offset of ours.
        let taken = unsafe {
            libc::splice(
                file.as_raw_fd(),
                &mut offset,
                to,
                null_mut(),
                CHUNK_BYTES,
                flags,
            )
        };
        assert!(taken > 0, "splice: {}", std::io::Error::last_os_error());
        let mut left = taken as usize;
        while left > 0 {
            // SAFETY: open descriptors.
            let sent = unsafe {
                libc::splice(
                    from,
                    null_mut(),
                    stream.as_raw_fd(),
                    null_mut(),
                    left,
                    flags,
                )
            };
            assert!(sent > 0, "splice: {}", std::io::Error::last_os_error());
            left -= sent as usize;
        }
    }
    // SAFETY: descriptors of ours that nobody uses any more.
    unsafe {
        libc::close(from);
        libc::close(to);
    }
}

/// Seconds that this process has computed, in the kernel too.
fn process_cpu() -> f64 {
    // SAFETY: the structure is plain numbers, which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Seconds that all cores were busy.
fn machine_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<f64> = stat
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / 100.0
}
