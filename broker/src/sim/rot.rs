//! Damage while a broker is down: a bit of a flushed frame turns, a page is as if it had never been
//! written, or a write meant for another page lies there; or all files of a replica are gone, with their
//! directory or without.
//!
//! Only a minority of the voters is short of anything at any time, so whatever gets lost is a bug.

use std::path::PathBuf;

use highwater_protocol::ids::LogIndex;

use crate::disk::Disk;
use crate::sim::checker::Checked;
use crate::sim::cluster::{Cluster, dir_of};

/// A place that is on disk.
struct Found {
    file: PathBuf,
    /// A byte of a frame.
    byte: u64,
    /// Where that frame starts in the log.
    frame: LogIndex,
    /// Where the first frame starts that has a byte in the same page, if all of those are flushed: what is
    /// not has no witness yet, and no replica can tell its loss from that of a write that never was.
    page: Option<LogIndex>,
}

impl Cluster {
    /// A process dies, and while it is down something that it had flushed is spoilt.
    pub(super) fn rot(&mut self, node: usize) -> Checked {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let partition = self.partitions[number];
        // One that lost its identity and is not trusted yet takes damage for a reason to begin anew.
        let trusted = self.view(node, partition).is_some_and(|view| view.trusted);
        let serves = trusted && !self.nodes[node].failed.contains(&partition);
        if !serves || self.nodes[node].disk.is_armed() || !self.may_fall_short(node, partition) {
            return Ok(());
        }
        let Some(found) = self.something_flushed(node, number) else { return Ok(()) };
        self.kill(node)?;
        let disk = &self.nodes[node].disk;
        // Only what was written back and dropped from the cache is read from the medium again.
        disk.write_back(&dir_of(number));
        let page = found.byte / PAGE_BYTES;
        let id = self.nodes[node].id;
        let (what, from) = match (self.rng.below(6), found.page) {
            (0, Some(from)) => {
                disk.spoil_page(&found.file, page, None);
                ("a lost page", from)
            }
            (1, Some(from)) => {
                disk.spoil_page(&found.file, page, Some(page - 1));
                ("a misdirected page", from)
            }
            (4, _) => {
                disk.remove_dir(&dir_of(number)).expect("it lies there");
                disk.write_back(&dir_of(number));
                self.checker.emptied(id, partition);
                ("the loss of all files", LogIndex::ZERO)
            }
            (5, _) => {
                disk.remove_all_in(&dir_of(number));
                self.checker.emptied(id, partition);
                ("the loss of all files but their directory", LogIndex::ZERO)
            }
            _ => {
                let bit = found.byte * 8 + self.rng.below(8);
                assert!(disk.flip_bit(&found.file, bit), "the frame was found there");
                ("a turned bit", found.frame)
            }
        };
        self.trace.note(
            self.now_us,
            format_args!("{what} on broker {node} damages partition {number} from {from} on"),
        );
        self.nodes[node].short.insert(partition);
        self.nodes[node].rotten.insert(partition);
        self.checker.rotted(id, partition, from);
        self.coverage.rotted += 1;
        self.coverage.rotted_amid_trims += u64::from(self.swarm.faults.trim > 0);
        self.coverage.pages_spoilt += u64::from(what.ends_with("page"));
        self.coverage.replicas_emptied += u64::from(from == LogIndex::ZERO);
        self.come_back_later(node);
        Ok(())
    }

    fn something_flushed(&mut self, node: usize, number: usize) -> Option<Found> {
        let (broker, partition) = (&self.nodes[node], self.partitions[number]);
        let replica = broker.shard.as_ref()?.replica(partition)?;
        let (files, view) = (replica.log().files(), replica.view());
        let newest = files.len().checked_sub(1)?;
        let nth = if self.rng.per_mille(500) {
            newest
        } else {
            self.rng.below(files.len() as u64) as usize
        };
        let (file, held) = files[nth].clone();
        let frames = &self.checker.shadow(broker.id, partition)?.frames;
        let until = view.flushed.min(held.end);
        let flushed = frames.partition_point(|frame| frame.end <= until);
        let back = self.rng.below(FRAMES_BACK) as usize;
        let nth = flushed.checked_sub(back + 1)?;
        if frames[nth].start < held.start {
            return None;
        }
        let frame = &frames[nth];
        let contents = broker.disk.open(&file, 0).ok()?;
        let contents = contents.read(0..contents.len()).ok()?;
        // A mark that says again who votes has the bytes of an earlier one, with others between them at times.
        let here = frames[..nth].iter().rev().take_while(|before| before.start >= held.start);
        let alike = here.filter(|before| before.bytes == frame.bytes).count();
        let windows = contents.windows(frame.bytes.len()).enumerate();
        let mut places = windows.filter(|(_, bytes)| *bytes == frame.bytes).map(|(at, _)| at);
        let at = places.nth(alike)? as u64;
        let byte = at + self.rng.below(frame.bytes.len() as u64);
        let (mut first, mut begins) = (nth, at);
        // The first page is the segment's header; what lies before the first frame was trimmed.
        while first > 0
            && frames[first].start > held.start
            && begins > (byte - byte % PAGE_BYTES).max(PAGE_BYTES)
        {
            first -= 1;
            begins -= frames[first].bytes.len() as u64;
        }
        let (mut last, mut ends) = (nth, at + frame.bytes.len() as u64);
        let page_end = (byte + 1).next_multiple_of(PAGE_BYTES);
        while let Some(next) = frames.get(last + 1)
            && ends < page_end
            && next.end <= held.end
        {
            last += 1;
            ends += next.bytes.len() as u64;
        }
        let page = (frames[last].end <= until).then_some(frames[first].start);
        Some(Found { file, byte, frame: frame.start, page })
    }
}

/// How far back a frame may lie that is struck.
const FRAMES_BACK: u64 = 8;
const PAGE_BYTES: u64 = 4096;
