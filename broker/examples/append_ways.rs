//! Measures the two ways to append to a segment, for the decision in `FORMAT.md`: a vectored write,
//! against a store through a map whose pages were populated ahead.
//!
//! `cargo run --release -p highwater-broker --example append_ways -- DIR` measures both in DIR, and
//! `append_ways -- --full DIR` shows what each does when the file system of DIR runs full (use a
//! small one: it is filled). Not part of the broker: this file has the only writable map there is.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::FallocateFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// How a frame gets into the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Write,
    Map,
}

/// When what was appended is flushed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flush {
    Never,
    EachPass,
}

struct Figures {
    bytes_per_second: f64,
    cpu_seconds_per_gb: f64,
    calls: Histogram<u64>,
}

struct Map {
    start: *mut u8,
    bytes: usize,
    populated: usize,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [dir] => measure_all(Path::new(dir)),
        ["--full", dir] => show_full(Path::new(dir)),
        _ => anyhow::bail!("usage: append_ways [--full] DIR"),
    }
}

fn measure_all(dir: &Path) -> anyhow::Result<()> {
    println!("| way | frame | flush | MB/s | CPU-s/GB | p50 us | p99 us | p99.9 us |");
    println!("|---|---|---|---|---|---|---|---|");
    for flush in [Flush::Never, Flush::EachPass] {
        for frame in [16 << 10, 64 << 10] {
            for way in [Way::Write, Way::Map] {
                let mut rounds = Vec::new();
                for _ in 0..ROUNDS {
                    rounds.push(measure(&dir.join("append_ways.tmp"), way, flush, frame)?);
                }
                rounds.sort_by(|a, b| a.bytes_per_second.total_cmp(&b.bytes_per_second));
                let figures = &rounds[ROUNDS / 2];
                let us = |q: f64| figures.calls.value_at_quantile(q) as f64 / 1000.0;
                println!(
                    "| {way:?} | {} KiB | {flush:?} | {:.0} | {:.2} | {:.1} | {:.1} | {:.1} |",
                    frame >> 10,
                    figures.bytes_per_second / 1e6,
                    figures.cpu_seconds_per_gb,
                    us(0.5),
                    us(0.99),
                    us(0.999)
                );
            }
        }
    }
    Ok(())
}

fn measure(path: &PathBuf, way: Way, flush: Flush, frame: usize) -> anyhow::Result<Figures> {
    let file = make(path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_BYTES as u64)?;
    file.sync_all()?;
    let (head, body) = (vec![7_u8; 61], vec![9_u8; frame - 61]);
    let mut map = if way == Way::Map { Some(Map::new(&file, SEGMENT_BYTES)?) } else { None };
    let mut calls = Histogram::new(3)?;
    let (begin, cpu_before) = (Instant::now(), cpu_time());
    for at in (0..SEGMENT_BYTES).step_by(frame) {
        if let Some(map) = &mut map {
            // As a helper thread would: outside of the append call, but part of the work.
            map.populate_up_to(at + frame)?;
        }
        let called = Instant::now();
        match &mut map {
            Some(map) => map.store(at, &[&head, &body]),
            None => write(&file, at as u64, &[&head, &body])?,
        }
        calls.record(called.elapsed().as_nanos() as u64)?;
        if flush == Flush::EachPass && (at + frame).is_multiple_of(PASS_BYTES) {
            file.sync_data()?;
        }
    }
    let took = begin.elapsed().max(Duration::from_nanos(1));
    let cpu = cpu_time().saturating_sub(cpu_before);
    std::fs::remove_file(path)?;
    Ok(Figures {
        bytes_per_second: SEGMENT_BYTES as f64 / took.as_secs_f64(),
        cpu_seconds_per_gb: cpu.as_secs_f64() * 1e9 / SEGMENT_BYTES as f64,
        calls,
    })
}

/// What this thread has used: a busy machine changes it far less than the time that passed.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes into the structure that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn show_full(dir: &Path) -> anyhow::Result<()> {
    let filler = make(&dir.join("filler.tmp"))?;
    let free = rustix::fs::statvfs(dir)?;
    let leave = 1 << 20;
    let fill = (free.f_bavail * free.f_frsize).saturating_sub(leave);
    rustix::fs::fallocate(&filler, FallocateFlags::empty(), 0, fill)?;

    let file = make(&dir.join("a.tmp"))?;
    let extended = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 16 << 20);
    println!(
        "fallocate of 16 MiB with 1 MiB free: {extended:?}, length {}",
        file.metadata()?.len()
    );

    let sparse = make(&dir.join("b.tmp"))?;
    sparse.set_len(16 << 20)?;
    let written = (0..16).map(|mib| write(&sparse, mib << 20, &[&vec![1; 1 << 20]]));
    let failed = written.enumerate().find_map(|(mib, done)| Some((mib, done.err()?)));
    println!("pwrite into a sparse file: {failed:?} (MiB at which it failed)");

    let hole = make(&dir.join("c.tmp"))?;
    hole.set_len(16 << 20)?;
    let mut map = Map::new(&hole, 16 << 20)?;
    let populated = map.populate_up_to(16 << 20);
    println!("MADV_POPULATE_WRITE of a sparse map: {populated:?} (a store would raise SIGBUS)");
    for name in ["filler.tmp", "a.tmp", "b.tmp", "c.tmp"] {
        std::fs::remove_file(dir.join(name))?;
    }
    Ok(())
}

fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

fn write(file: &File, mut at: u64, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let written = rustix::io::pwritev(file, left, at)?;
        at += written as u64;
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

impl Map {
    fn new(file: &File, bytes: usize) -> io::Result<Map> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, both, MapFlags::SHARED, file, 0)?
        };
        Ok(Map { start: start.cast(), bytes, populated: 0 })
    }

    fn populate_up_to(&mut self, end: usize) -> io::Result<()> {
        while self.populated < end {
            let step = AHEAD_BYTES.min(self.bytes - self.populated);
            // SAFETY: the range lies within the mapping.
            unsafe {
                let at = self.start.add(self.populated);
                rustix::mm::madvise(at.cast(), step, Advice::LinuxPopulateWrite)?;
            }
            self.populated += step;
        }
        Ok(())
    }

    fn store(&mut self, mut at: usize, parts: &[&[u8]]) {
        for part in parts {
            assert!(at + part.len() <= self.bytes, "a store behind the map");
            // SAFETY: the range lies within the mapping, nobody else has it, and its blocks are
            // allocated, so that no store can fail for lack of space.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), self.start.add(at), part.len()) };
            at += part.len();
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; no reference into it is left.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.bytes) };
    }
}

const SEGMENT_BYTES: usize = 256 << 20;
const PASS_BYTES: usize = 1 << 20;
const AHEAD_BYTES: usize = 4 << 20;
const ROUNDS: usize = 7;
