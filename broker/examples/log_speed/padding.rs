//! Two ways to treat the last block of a group that is filled in part, on a raw file that was written before: pad it, so that
//! the next group begins with a block of its own, or write it again with what comes next.

use super::raw::{Raw, write_file};
use super::{Setting, median};
use std::time::Instant;

const BLOCK: usize = 4096;
/// What a message of 1 KiB takes in the log.
const MESSAGE_BYTES: usize = 1160;
const HEADER_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Pad,
    Rewrite,
}

struct Writer {
    raw: Raw,
    way: Way,
    /// Where the next group begins in the file.
    at: u64,
}

struct Count {
    messages: usize,
    written: u64,
    /// Bytes of the file that they take.
    used: u64,
}

impl Writer {
    /// Writes groups of so many messages, one after another, on this thread.
    fn run(&mut self, producers: usize, setting: &Setting) -> (f64, Count) {
        let message = vec![7; MESSAGE_BYTES];
        let mut count = Count {
            messages: 0,
            written: 0,
            used: 0,
        };
        let began = Instant::now();
        while began.elapsed() < setting.round {
            let bytes = HEADER_BYTES + producers * MESSAGE_BYTES;
            let kept = (self.at % BLOCK as u64) as usize;
            if self.at + (bytes + BLOCK) as u64 > self.raw.len() {
                self.at = kept as u64;
            }
            let buffer = self.raw.buffers[0].bytes();
            for number in 0..producers {
                let to = kept + HEADER_BYTES + number * MESSAGE_BYTES;
                buffer[to..to + MESSAGE_BYTES].copy_from_slice(&message);
            }
            let padded = (kept + bytes).next_multiple_of(BLOCK);
            self.raw.write_now_at(0, padded, self.at - kept as u64);
            count.messages += producers;
            count.written += padded as u64;
            let step = match self.way {
                Way::Pad => padded,
                Way::Rewrite => bytes,
            };
            self.at += step as u64;
            count.used += step as u64;
            // What the last block holds begins the next write.
            let left = (self.at % BLOCK as u64) as usize;
            let buffer = self.raw.buffers[0].bytes();
            let last = (kept + step) / BLOCK * BLOCK;
            buffer.copy_within(last..last + left, 0);
        }
        (count.messages as f64 / began.elapsed().as_secs_f64(), count)
    }
}

/// Groups of about 256 KiB that end within a block: padded ones may be in flight together, ones that share a block may not.
fn long_groups(raw: &mut Raw, in_flight: usize, setting: &Setting) -> f64 {
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < setting.round {
        while raw.in_flight() < in_flight
            && let Some(slot) = raw.free()
        {
            raw.write(slot, 256 << 10);
        }
        raw.wait(|_| done += 1);
    }
    let speed = f64::from(done * (256 << 10)) / began.elapsed().as_secs_f64();
    raw.settle();
    speed
}

pub fn measure(setting: &Setting) {
    let path = setting.directory.join("raw");
    write_file(&path, 1 << 30);
    let writer = |way| Writer {
        raw: Raw::open(&path, true, 1, 256 << 10),
        way,
        at: 0,
    };
    let (mut pad, mut rewrite) = (writer(Way::Pad), writer(Way::Rewrite));
    for producers in [1, 4, 16, 64] {
        let (mut speeds, mut line) = ([Vec::new(), Vec::new()], [(0.0, 0.0); 2]);
        let mut ratios = Vec::new();
        for _ in 0..setting.rounds {
            for (number, writer) in [&mut pad, &mut rewrite].into_iter().enumerate() {
                let (speed, count) = writer.run(producers, setting);
                let each = |bytes| bytes as f64 / count.messages as f64;
                line[number] = (each(count.written), each(count.used));
                speeds[number].push(speed / 1e3);
            }
            ratios.push(speeds[0][speeds[0].len() - 1] / speeds[1][speeds[1].len() - 1]);
        }
        let [padded, rewritten] = speeds.map(median);
        println!(
            "{producers} messages a group: padded {padded:.1} k/s, {:.0} B written and {:.0} B of log a message; written again \
             {rewritten:.1} k/s, {:.0} B written and {:.0} B of log; ratio {:.2}",
            line[0].0,
            line[0].1,
            line[1].0,
            line[1].1,
            median(ratios)
        );
    }
    let mut raw = Raw::open(&path, true, 4, 256 << 10);
    let (mut four, mut one) = (Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        four.push(long_groups(&mut raw, 4, setting) / 1e6);
        one.push(long_groups(&mut raw, 1, setting) / 1e6);
    }
    println!(
        "groups of 256 KiB: four in flight (padded) {:.0} MB/s, one in flight (written again) {:.0} MB/s",
        median(four),
        median(one)
    );
}
