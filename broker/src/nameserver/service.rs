//! A NameServer on a light shard of its own: a thread with an executor that is not pinned, a ring, and the state machine.
//!
//! KV config is kept in one file, which is replaced as a whole and synced before the request that changed it is answered.
//! The thread waits for the disk meanwhile: such requests are rare, and nothing else on it is in a hurry.

#![allow(
    clippy::disallowed_methods,
    reason = "the host of the NameServer: its clock and its KV file"
)]

use super::{Limits, NameServer};
use crate::net::service::{Service, Stop, serve};
use crate::net::{CloseReason, ConnId, Handler, Net, NetError, NetLimits, NoParts};
use crate::ring::{Parker, Ring, RingError, RingOptions, executor};
use corelane_wire::Frame;
use corelane_wire::code::{VERSION, language, response};
use corelane_wire::frame::{FrameWriter, Head};
use glommio::Placement;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a NameServer runs with.
#[derive(Clone, Debug)]
pub struct NameServerOptions {
    /// Where it listens.
    pub listen_address: IpAddr,
    /// 0: any that is free (see [`NameServerHandle::address`]).
    pub port: u16,
    /// How much it keeps.
    pub limits: Limits,
    /// What its connections may take.
    pub net: NetLimits,
    /// The file of KV config; made with its directory when needed. `None`: KV config is forgotten at the end.
    pub kv_path: Option<PathBuf>,
}

/// Why a NameServer does not run. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NameServerError {
    /// It cannot listen.
    #[error("NameServer: {0}")]
    Net(#[from] NetError),
    /// No io_uring.
    #[error("NameServer: {0}")]
    Ring(#[from] RingError),
    /// The executor does not start.
    #[error("NameServer: its executor does not start: {0}")]
    Executor(String),
    /// KV config cannot be read.
    #[error(
        "NameServer: KV config in {path} cannot be read ({what}): repair the file, or move it away to start without"
    )]
    KvConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The ring failed while it ran.
    #[error("NameServer: {0}")]
    Io(#[from] io::Error),
    /// It ended with a panic.
    #[error("NameServer: its thread is gone; the log before this line says why")]
    Gone,
}

/// A NameServer that runs. Dropped, it is stopped.
pub struct NameServerHandle {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), NameServerError>>>,
}

impl NameServerHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// To stop it from elsewhere.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether it ended, by itself or stopped.
    pub fn ended(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(|thread| thread.is_finished())
    }

    /// Sends what is queued, closes all connections and waits for the end.
    pub fn stop(self) -> Result<(), NameServerError> {
        self.stop.stop();
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Result<(), NameServerError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(NameServerError::Gone),
            None => Ok(()),
        }
    }
}

impl Drop for NameServerHandle {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop();
            let _ = thread.join();
        }
    }
}

/// Starts a NameServer on a thread of its own. It listens when this returns.
pub fn spawn(options: NameServerOptions) -> Result<NameServerHandle, NameServerError> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("nameserver".to_owned())
        .spawn(move || {
            let executor = executor(Placement::Unbound)
                .io_memory(IO_MEMORY_BYTES)
                .make()
                .map_err(|error| NameServerError::Executor(error.to_string()))?;
            executor.run(run(options, tell))
        })?;
    match told.recv() {
        Ok((address, stop)) => Ok(NameServerHandle {
            address,
            stop,
            thread: Some(thread),
        }),
        // It ended before it listened.
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(NameServerError::Gone),
        },
    }
}

/// The executor reads nothing but an event descriptor.
const IO_MEMORY_BYTES: usize = 64 << 10;

async fn run(
    options: NameServerOptions,
    tell: mpsc::SyncSender<(SocketAddr, Stop)>,
) -> Result<(), NameServerError> {
    let mut state = NameServer::new(options.limits);
    if let Some(path) = &options.kv_path {
        restore(&mut state, path)?;
    }
    let mut ring = Ring::new(&RingOptions::default())?;
    let mut parker = Parker::new(&ring)?;
    let mut net = Net::new(&mut ring, options.net)?;
    let address = net.listen(
        &mut ring,
        SocketAddr::new(options.listen_address, options.port),
    )?;
    let stop = Stop::new(&parker);
    tracing::info!(%address, "the NameServer listens ({})", ring.features());
    // Whoever started it waits for this.
    let _ = tell.send((address, stop.clone()));
    let mut host = Host {
        state,
        kv_path: options.kv_path,
        start: Instant::now(),
        to_close: Vec::new(),
    };
    serve(&mut ring, &mut parker, &mut net, &mut host, &stop).await?;
    tracing::info!(%address, "the NameServer has stopped");
    Ok(())
}

struct Host {
    state: NameServer,
    kv_path: Option<PathBuf>,
    start: Instant,
    to_close: Vec<u64>,
}

impl Host {
    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn answer(&mut self, conn: u64, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let before = out.len();
        self.state.handle(self.now_ms(), conn, frame, out);
        let Some(kv) = self.state.take_kv_to_store() else {
            return;
        };
        let Some(path) = &self.kv_path else {
            return;
        };
        if let Err(error) = store(path, &kv) {
            tracing::error!(path = %path.display(), %error, "KV config could not be stored");
            if out.len() > before {
                out.truncate(before);
                let remark = format!(
                    "the change holds until the NameServer stops, but could not be stored: {error}"
                );
                let head = Head {
                    serialization: frame.serialization,
                    code: response::SYSTEM_ERROR,
                    language: language::JAVA,
                    version: VERSION,
                    opaque: frame.opaque,
                    flag: 1,
                    remark: Some(&remark),
                };
                FrameWriter::new(out, &head).finish(0);
            }
        }
    }
}

impl Handler<NoParts> for Host {
    fn opened(&mut self, _: &mut Net<NoParts>, _: ConnId, _: SocketAddr, _: SocketAddr) {}

    fn frame(
        &mut self,
        net: &mut Net<NoParts>,
        conn: ConnId,
        frame: &[u8],
    ) -> ControlFlow<CloseReason> {
        match Frame::parse(frame) {
            Ok(frame) => {
                if let Some(out) = net.write(conn) {
                    self.answer(conn.as_u64(), &frame, out);
                }
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error.into()),
        }
    }

    fn closed(&mut self, _: &mut Net<NoParts>, conn: ConnId, _: &CloseReason) {
        self.state.connection_closed(conn.as_u64());
    }
}

impl Service<NoParts> for Host {
    fn tick(&mut self, net: &mut Net<NoParts>, _: u64) -> Duration {
        self.state.tick(self.now_ms(), &mut self.to_close);
        for conn in self.to_close.drain(..) {
            net.close(ConnId::from_u64(conn), "the broker was silent for too long");
        }
        Duration::from_secs(1)
    }
}

fn restore(state: &mut NameServer, path: &Path) -> Result<(), NameServerError> {
    let damaged = |what: String| NameServerError::KvConfig {
        path: path.to_owned(),
        what,
    };
    match fs::read(path) {
        Ok(bytes) => state
            .restore_kv(&bytes)
            .map_err(|error| damaged(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Replaces the file as a whole: after a crash it is the old one or the new one.
fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
#[allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests with real sockets"
)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use corelane_wire::ExtHeader;
    use corelane_wire::code::request;
    use corelane_wire::frame::Serialization;
    use corelane_wire::header::nameserver::GetKvConfigResponse;
    use std::io::Read;
    use std::net::TcpStream;

    fn options() -> NameServerOptions {
        NameServerOptions {
            listen_address: "127.0.0.1".parse().unwrap(),
            port: 0,
            limits: Limits {
                brokers: 10,
                topic_entries: 100,
                kv_entries: 100,
            },
            net: NetLimits::default(),
            kv_path: None,
        }
    }

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("corelane-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The reply's code, remark and fields.
    fn ask(stream: &mut TcpStream, code: i32, fields: &[(&str, &str)]) -> (i32, String, Vec<u8>) {
        let head = Head {
            serialization: Serialization::Json,
            code,
            language: language::JAVA,
            version: VERSION,
            opaque: 7,
            flag: 0,
            remark: None,
        };
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, &head);
        for (name, value) in fields {
            writer.field(name, value);
        }
        writer.finish(0);
        stream.write_all(&bytes).unwrap();
        let mut reply = vec![0; 4];
        stream.read_exact(&mut reply).unwrap();
        let len = u32::from_be_bytes(reply[..].try_into().unwrap()) as usize;
        reply.resize(4 + len, 0);
        stream.read_exact(&mut reply[4..]).unwrap();
        let frame = Frame::parse(&reply).unwrap();
        assert_eq!(frame.opaque, 7);
        let remark = frame
            .remark
            .map(|text| text.to_string())
            .unwrap_or_default();
        (frame.code, remark, reply)
    }

    const KEY: [(&str, &str); 2] = [("namespace", "n"), ("key", "k")];

    fn put(stream: &mut TcpStream, value: &str) -> (i32, String) {
        let (code, remark, _) = ask(
            stream,
            request::PUT_KV_CONFIG,
            &[KEY[0], KEY[1], ("value", value)],
        );
        (code, remark)
    }

    fn get(stream: &mut TcpStream) -> Option<String> {
        let (code, _, reply) = ask(stream, request::GET_KV_CONFIG, &KEY);
        let frame = Frame::parse(&reply).unwrap();
        (code == response::SUCCESS).then(|| {
            GetKvConfigResponse::decode(&frame.ext)
                .unwrap()
                .value
                .unwrap()
                .to_string()
        })
    }

    #[test]
    fn kv_config_outlives_a_restart() {
        let directory = Directory::new("kv");
        let with_kv = || NameServerOptions {
            kv_path: Some(directory.0.join("deep/kvConfig.json")),
            ..options()
        };
        let server = spawn(with_kv()).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        assert_eq!(get(&mut stream), None);
        assert_eq!(put(&mut stream, "one").0, response::SUCCESS);
        assert_eq!(put(&mut stream, "two").0, response::SUCCESS);
        server.stop().unwrap();

        let server = spawn(with_kv()).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        assert_eq!(get(&mut stream).as_deref(), Some("two"));
        server.stop().unwrap();
    }

    #[test]
    fn a_change_that_cannot_be_stored_is_said_to_be_so() {
        let directory = Directory::new("kv-refused");
        // A directory in the place of the file.
        let kv_path = directory.0.join("kvConfig.json");
        let server = spawn(NameServerOptions {
            kv_path: Some(kv_path.clone()),
            ..options()
        })
        .unwrap();
        fs::create_dir_all(kv_path.join("full")).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let (code, remark) = put(&mut stream, "one");
        assert_eq!(code, response::SYSTEM_ERROR);
        assert!(remark.contains("could not be stored"), "{remark}");
        server.stop().unwrap();
    }

    #[test]
    fn a_broken_kv_file_is_named() {
        let directory = Directory::new("kv-broken");
        let kv_path = directory.0.join("kvConfig.json");
        fs::write(&kv_path, b"{\"configTable\":").unwrap();
        let error = spawn(NameServerOptions {
            kv_path: Some(kv_path),
            ..options()
        })
        .err()
        .unwrap();
        assert!(matches!(error, NameServerError::KvConfig { .. }));
        assert!(error.to_string().contains("kvConfig.json"), "{error}");
    }

    #[test]
    fn a_taken_port_is_an_error_at_once() {
        let first = spawn(options()).unwrap();
        let port = first.address().port();
        let error = spawn(NameServerOptions { port, ..options() })
            .err()
            .unwrap();
        assert!(error.to_string().contains("already in use"), "{error}");
        first.stop().unwrap();
        spawn(NameServerOptions { port, ..options() })
            .unwrap()
            .stop()
            .unwrap();
    }

    #[test]
    fn a_frame_with_a_broken_header_ends_its_connection() {
        let server = spawn(options()).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream
            .write_all(&[0, 0, 0, 8, 0, 0, 0, 4, b'{', b'{', b'{', b'{'])
            .unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        let mut other = TcpStream::connect(server.address()).unwrap();
        assert_eq!(get(&mut other), None);
        drop(server);
    }
}
