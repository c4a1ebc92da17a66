//! How many files a running broker may open, exactly.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Lets a broker open so many more files and sockets than it has open, or as many as we may. One that has ended by
/// itself is left alone.
pub fn limit_descriptors(pid: u32, more: Option<usize>) {
    let ours = getrlimit(Resource::Nofile);
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let number = |file: fs::DirEntry| file.file_name().to_string_lossy().parse().ok();
    let open: BTreeSet<u64> = files.filter_map(number).collect();
    // What is limited is the number that a new one gets, and that is the lowest that is free.
    let free = |more| (0..).filter(|number| !open.contains(number)).nth(more);
    let current = more.map_or(ours.current, free);
    let pid = Pid::from_raw(pid as i32).expect("a process has a number");
    let _ = prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum: ours.maximum });
}
