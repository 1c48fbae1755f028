//! The commands that are what brokers are measured against.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;

use super::args::{DiskArgs, RawArgs};
use super::print;
use crate::cpu;
use crate::disk::{self, DiskSettings};
use crate::error::BenchError;
use crate::raw::{RawServer, RawSettings};

/// Serves until it is ended by a signal.
pub fn raw(args: &RawArgs) -> Result<bool, BenchError> {
    pin(args.core)?;
    let settings = RawSettings {
        mode: args.mode,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        dir: args.dir.clone(),
        file_bytes: args.file_size as u64,
    };
    let mut server = RawServer::bind(&settings)?;
    // Scripts wait for this line.
    let _ = writeln!(io::stderr(), "listening on {}", settings.address);
    server.serve(&AtomicBool::new(false))?;
    Ok(true)
}

pub fn disk(args: &DiskArgs) -> Result<bool, BenchError> {
    pin(args.core)?;
    let settings = DiskSettings {
        dir: args.dir.clone(),
        block_bytes: args.block.clone(),
        depths: args.depth.iter().map(|depth| usize::from(*depth)).collect(),
        file_bytes: args.file_size as u64,
        duration: args.duration,
    };
    disk::measure(&settings, |line| print(line + "\n").map(drop))?;
    Ok(true)
}

fn pin(core: Option<usize>) -> Result<(), BenchError> {
    match core {
        Some(core) => cpu::pin(core).map_err(BenchError::io(format!("cannot stay on core {core}"))),
        None => Ok(()),
    }
}
