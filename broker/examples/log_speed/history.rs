//! Starting with a long history: segments and indexes made by hand, as `docs/format.md` has them; sparse, but for what a start
//! reads. Behind them a real segment that a crash has left without a checkpoint.

use super::host::{Host, Message, TOPIC};
use super::{Setting, median};
use corelane_broker::log::LogOptions;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SEGMENT_BYTES: u64 = 1 << 30;
const SEGMENTS: u64 = 100;
/// Messages of 1 KiB in a segment.
const ENTRIES: u32 = 900_000;
const CHUNK_BLOCKS: u32 = (256 << 10) / 512;
const PAGE_BYTES: usize = 4096;
const LOG_ID: u64 = 77;

fn options() -> LogOptions {
    LogOptions {
        segments_ahead: 1,
        snapshot_bytes: u64::MAX,
        refuse_above_percent: 100,
        delete_above_percent: 100,
        retention_ms: i64::MAX,
        ..LogOptions::default()
    }
}

fn page(payload: &[u8], segment: u64, number: u32) -> Vec<u8> {
    let mut page = payload.to_vec();
    page.resize(PAGE_BYTES - 4, 0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&page);
    crc.update(&LOG_ID.to_le_bytes());
    crc.update(&segment.to_le_bytes());
    crc.update(&number.to_le_bytes());
    page.extend(crc.finalize().to_le_bytes());
    page
}

/// The index of a full segment in which each queue has as many messages.
fn write_index(directory: &Path, number: u64, queues: u32) {
    let (start, count) = (number * SEGMENT_BYTES, ENTRIES / queues);
    let mut meta = Vec::new();
    for queue in 0..queues {
        let name = if queue == 0 { TOPIC } else { "" };
        meta.extend((name.len() as u16).to_le_bytes());
        meta.extend(name.as_bytes());
        meta.extend((queue as i32).to_le_bytes());
        meta.extend((queue * count).to_le_bytes());
        meta.extend(count.to_le_bytes());
        meta.extend((number as i64 * i64::from(count)).to_le_bytes());
        meta.extend((start + 64 + u64::from(queue)).to_le_bytes());
    }
    let chunks = (SEGMENT_BYTES / 512) as u32 / CHUNK_BLOCKS;
    for chunk in 0..chunks {
        meta.extend((chunk * CHUNK_BLOCKS).to_le_bytes());
    }
    let mut header = b"CLINDEX2".to_vec();
    header.extend(LOG_ID.to_le_bytes());
    header.extend(start.to_le_bytes());
    header.extend((start + SEGMENT_BYTES).to_le_bytes());
    header.extend(1i64.to_le_bytes());
    header.extend(1i64.to_le_bytes());
    for field in [
        1,
        queues,
        chunks,
        count * queues,
        ENTRIES,
        meta.len() as u32,
    ] {
        header.extend(field.to_le_bytes());
    }
    let mut bytes = page(&header, start, 0);
    for (at, part) in meta.chunks(PAGE_BYTES - 4).enumerate() {
        bytes.extend(page(part, start, at as u32 + 1));
    }
    let file = File::create(directory.join(format!("{start:020}.index"))).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let pages = ENTRIES.div_ceil(170) + ENTRIES.div_ceil(511);
    file.set_len(bytes.len() as u64 + u64::from(pages) * PAGE_BYTES as u64)
        .unwrap();
    file.sync_all().unwrap();
}

fn write_checkpoint(directory: &Path, queues: u32) {
    let position = SEGMENTS * SEGMENT_BYTES;
    let next = SEGMENTS as i64 * i64::from(ENTRIES / queues);
    let mut out = b"CLCHECK2".to_vec();
    out.extend([0; 12]);
    out.extend(LOG_ID.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(position.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((64u64 << 20).to_le_bytes());
    out.extend(1i64.to_le_bytes());
    out.extend(u64::from(queues).to_le_bytes());
    for queue in 0..queues {
        let name = if queue == 0 { TOPIC } else { "" };
        out.extend((name.len() as u16).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((queue as i32).to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.extend(next.to_le_bytes());
    }
    out.extend(0u64.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    let len = out.len() as u64;
    out[12..20].copy_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
    std::fs::write(directory.join("checkpoint"), out).unwrap();
}

pub async fn start(setting: &Setting) {
    for queues in [1_000, 100_000] {
        let directory = setting.directory.join(format!("{queues}"));
        std::fs::create_dir(&directory).unwrap();
        for number in 0..=SEGMENTS {
            let name = format!("{:020}.log", number * SEGMENT_BYTES);
            let file = File::create(directory.join(name)).unwrap();
            file.set_len(SEGMENT_BYTES).unwrap();
            if number < SEGMENTS {
                write_index(&directory, number, queues);
            }
        }
        write_checkpoint(&directory, queues);
        let (mut seconds, mut scanned) = (Vec::new(), 0);
        for filled_mib in [0, 960] {
            if filled_mib > 0 {
                let message = Message::with_body(1024);
                let (mut host, ..) = Host::open(&directory, options()).await;
                let queue = host.log.queue(TOPIC, 0);
                while host.log.max_position() < SEGMENTS * SEGMENT_BYTES + (filled_mib << 20) {
                    host.turn(|log| {
                        for _ in 0..64 {
                            if message.append(log, queue, 0).is_none() {
                                break;
                            }
                        }
                        false
                    })
                    .await;
                }
                host.settle().await;
            }
            for _ in 0..setting.rounds {
                let (host, found, took) = Host::open(&directory, options()).await;
                assert_eq!((found.indexes, found.rebuilt), (SEGMENTS, 0));
                scanned = found.tail - found.scanned_from;
                seconds.push(took.as_secs_f64());
                drop(host);
            }
            println!(
                "start with {SEGMENTS} GiB, {queues} queues, {} MiB to scan, median: {:.2} s",
                scanned >> 20,
                median(std::mem::take(&mut seconds))
            );
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
