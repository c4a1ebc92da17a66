//! A broker's data directory: whose it is, how often it was booted on, and that only one uses it.
//!
//! `meta.json` names the cluster, the node and the directory itself; a broker refuses a directory
//! that is not its own, or that a newer build has written. The incarnation in it is raised and made
//! durable before anything else happens at a boot: peers rely on it never going back.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_protocol::ids::{DirectoryId, Incarnation, NodeId};
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::init::files::{Secrecy, attempt, make_dir, replace, write_new};
use crate::node::Made;
use crate::replica::LastLife;
use crate::shard::Directory;

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Where it lies.
    pub path: PathBuf,
    /// Its own identity.
    pub directory: DirectoryId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// Whether the last life may have left pages unwritten.
    pub last_life: LastLife,
    /// Whether there was a life before this one.
    pub used: Directory,
    /// What it was made for.
    pub made: Made,
    /// How often it crashed within the last hour.
    pub crashes: usize,
    meta: Meta,
    // Held for as long as the process lives; the kernel lets go of it whatever happens.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    cluster: String,
    node: u32,
    directory: String,
    /// Zero before the first boot.
    incarnation: u64,
    /// The machine's boot in which the directory was last in use: what a process wrote before it
    /// died is still in the page cache of that boot.
    machine_boot: String,
    /// Whether the last life ended with every log closed.
    clean: bool,
    /// Whether it takes the place of a directory that was lost, so that its node has forgotten votes.
    #[serde(default)]
    anew: bool,
    /// Whether the last life said that it ends: it was told to stop, or refused to go on. One that is
    /// killed while it stops, or that could not start, has not crashed.
    #[serde(default)]
    ended: bool,
    /// The lives that ended without a word, as the next life found it: those of the last hour.
    #[serde(default)]
    crashes: Vec<Crash>,
}

impl DataDir {
    /// Makes an empty data directory for a node.
    pub fn format(path: &Path, cluster: &str, node: NodeId, made: Made) -> io::Result<()> {
        make_dir(path)?;
        let meta = Meta {
            format: FORMAT,
            cluster: cluster.to_owned(),
            node: node.0,
            directory: Uuid::new_v4().to_string(),
            incarnation: 0,
            machine_boot: machine_boot(),
            clean: true,
            anew: match made {
                Made::New => false,
                Made::Anew => true,
            },
            ended: true,
            crashes: Vec::new(),
        };
        write_new(&path.join(META), &meta.encode(), Secrecy::Public)
    }

    /// Whether a directory is some node's data directory already.
    pub fn is_formatted(path: &Path) -> bool {
        path.join(META).exists()
    }

    /// Takes the directory for this process and counts the boot.
    pub fn open(path: &Path, cluster: &str, node: NodeId) -> io::Result<DataDir> {
        let file = path.join(META);
        if !file.exists() {
            return Err(refusal(format!(
                "{} is not a data directory: it has no {META}; \
                 make one with `highwater format -c <this broker's config.toml>`",
                path.display()
            )));
        }
        let lock = take_lock(path)?;
        let mut meta = Meta::read(&file)?;
        meta.check_owner(path, cluster, node)?;
        let directory = Uuid::parse_str(&meta.directory)
            .map_err(|error| refusal(format!("{} is damaged: {error}", file.display())))?;
        let all_written = meta.clean || meta.machine_boot == machine_boot();
        meta.count_crash(Crash::now());
        let used = if meta.incarnation == 0 { Directory::New } else { Directory::Used };
        meta.incarnation = incarnation_after(meta.incarnation, unix_seconds());
        (meta.clean, meta.ended) = (false, false);
        replace(&file, &meta.encode(), Secrecy::Public)?;
        Ok(DataDir {
            path: path.to_owned(),
            directory: DirectoryId(directory),
            incarnation: Incarnation(meta.incarnation),
            used,
            made: if meta.anew { Made::Anew } else { Made::New },
            last_life: if all_written { LastLife::Clean } else { LastLife::Unclean },
            crashes: meta.crashes.len(),
            meta,
            _lock: lock,
        })
    }

    /// Notes that whoever needs to know of an unclean end has written it down: only from now on
    /// may the next life forget it.
    pub fn settle(&mut self) -> io::Result<()> {
        self.meta.machine_boot = machine_boot();
        replace(&self.path.join(META), &self.meta.encode(), Secrecy::Public)
    }

    /// Notes that this life ends by its own will, whatever becomes of it on the way: it is no crash.
    pub fn ends(&mut self) -> io::Result<()> {
        self.meta.ended = true;
        replace(&self.path.join(META), &self.meta.encode(), Secrecy::Public)
    }

    /// Begins to count crashes anew: somebody has looked at them, or does not want them counted.
    pub fn forget_crashes(&mut self) -> io::Result<()> {
        if self.meta.crashes.is_empty() {
            return Ok(());
        }
        (self.crashes, self.meta.crashes) = (0, Vec::new());
        replace(&self.path.join(META), &self.meta.encode(), Secrecy::Public)
    }

    /// Notes that every log was closed and lets go of the directory.
    pub fn close(mut self) -> io::Result<()> {
        self.meta.clean = true;
        replace(&self.path.join(META), &self.meta.encode(), Secrecy::Public)
    }
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data always encodes");
        bytes.push(b'\n');
        bytes
    }

    fn read(file: &Path) -> io::Result<Meta> {
        let bytes = std::fs::read(file).map_err(|error| attempt("read", file, &error))?;
        // The format comes first: a newer one may have other fields, or none of these.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error| refusal(format!("{} is damaged: {error}", file.display()));
        let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(refusal(format!(
                "{} has format {format} and this build knows {FORMAT}: \
                 start the newer build that wrote it",
                file.display()
            )));
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Counts the last life's end if that was a crash, and forgets those of more than an hour ago.
    fn count_crash(&mut self, now: Crash) {
        self.crashes.retain(|crash| crash.age_s(&now) < CRASH_COUNTS_S);
        if !self.clean && !self.ended {
            self.crashes.push(now);
        }
        // The oldest go: how long ago the newest was decides when it is over.
        let too_many = self.crashes.len().saturating_sub(CRASHES_KEPT_MAX);
        self.crashes.drain(..too_many);
    }

    fn check_owner(&self, path: &Path, cluster: &str, node: NodeId) -> io::Result<()> {
        let path = path.display();
        if self.cluster != cluster {
            return Err(refusal(format!(
                "{path} belongs to cluster {}, this broker to {cluster}: check data.dir and \
                 cluster.id",
                self.cluster
            )));
        }
        if self.node != node.0 {
            return Err(refusal(format!(
                "{path} belongs to node {}, this broker is node {node}: check data.dir and node.id",
                self.node
            )));
        }
        Ok(())
    }
}

/// When it was found that a life had ended without a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Crash {
    /// In which boot of the machine, and how long after it began: nobody sets that clock.
    machine_boot: String,
    uptime_s: u64,
    /// For other boots, where little better is known.
    wall_s: u64,
}

impl Crash {
    fn now() -> Crash {
        let uptime = clock_gettime(ClockId::Boottime);
        let uptime_s = u64::try_from(uptime.tv_sec).unwrap_or_default();
        Crash { machine_boot: machine_boot(), uptime_s, wall_s: unix_seconds() }
    }

    fn age_s(&self, now: &Crash) -> u64 {
        match self.machine_boot == now.machine_boot {
            true => now.uptime_s.saturating_sub(self.uptime_s),
            // It was before this boot began, whatever the clock said then.
            false => now.wall_s.saturating_sub(self.wall_s).max(now.uptime_s),
        }
    }
}

/// A life must be later than every one that peers may remember of this node, and they drop what an
/// earlier one says. Counting alone would not do: a directory that was made anew after a disk was
/// lost, or that came back from an old copy, would begin below what they have seen. The clock puts
/// it above; where the clock was set back, at least the count goes on.
fn incarnation_after(before: u64, unix_seconds: u64) -> u64 {
    (before + 1).max(unix_seconds)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn take_lock(dir: &Path) -> io::Result<File> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| attempt("open", &path, &error))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(|error| attempt("read", &path, &error))?;
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "{} is in use by process {}: stop that one, or give this broker its own data.dir",
                dir.display(),
                pid.trim()
            ),
        ));
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The machine's boot id; a machine that does not tell is taken as rebooted every time.
fn machine_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}

fn refusal(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

const FORMAT: u32 = 1;
const META: &str = "meta.json";
const LOCK: &str = "lock";
/// A crash that long ago is no part of a loop.
const CRASH_COUNTS_S: u64 = 3_600;
/// As many as can be asked for.
const CRASHES_KEPT_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn formatted() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        DataDir::format(dir.path(), "c1", NODE, Made::New)
            .expect("an empty directory can be formatted");
        dir
    }

    #[test]
    fn every_boot_is_a_later_life_of_the_same_directory() {
        let dir = formatted();
        let first = DataDir::open(dir.path(), "c1", NODE).expect("it is ours");
        let (directory, incarnation) = (first.directory, first.incarnation);
        drop(first);
        let second = DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        assert_eq!(second.directory, directory);
        assert!(second.incarnation > incarnation);
    }

    #[test]
    fn a_directory_made_anew_begins_after_all_that_peers_remember_of_the_old_one() {
        let open = |dir: &tempfile::TempDir| DataDir::open(dir.path(), "c1", NODE).expect("ours");
        let old = formatted();
        let first = open(&old);
        assert_eq!(first.used, Directory::New);
        drop(first);
        let second = open(&old);
        assert_eq!(second.used, Directory::Used);
        let seen = second.incarnation;
        let anew = open(&formatted());
        assert_eq!(anew.used, Directory::New);
        // The clock has seconds, and this test took less than one for two boots.
        assert!(anew.incarnation.0 + 1 >= seen.0, "{} after {seen}", anew.incarnation);
    }

    #[test]
    fn an_incarnation_rises_whatever_the_clock_says() {
        assert_eq!(incarnation_after(0, 1_800_000_000), 1_800_000_000);
        assert_eq!(incarnation_after(1_800_000_000, 1_800_000_000), 1_800_000_001);
        assert_eq!(incarnation_after(1_800_000_000, 5), 1_800_000_001, "the clock was set back");
        assert_eq!(incarnation_after(7, 1_800_000_000), 1_800_000_000, "an old copy came back");
    }

    #[test]
    fn only_a_reboot_of_the_machine_after_an_unclean_end_is_unclean() {
        let dir = formatted();
        drop(DataDir::open(dir.path(), "c1", NODE).expect("it is ours"));
        let killed = DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        assert_eq!(killed.last_life, LastLife::Clean, "the page cache is still there");
        drop(killed);
        let file = dir.path().join(META);
        let text = std::fs::read_to_string(&file).expect("readable");
        let rebooted = text.replace(&machine_boot(), "another boot");
        std::fs::write(&file, rebooted).expect("writable");
        let after = DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        assert_eq!(after.last_life, LastLife::Unclean);
        drop(after);
        let mut again = DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        assert_eq!(again.last_life, LastLife::Unclean, "nobody has written it down");
        again.settle().expect("writable");
        drop(again);
        let settled = DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        assert_eq!(settled.last_life, LastLife::Clean);
        settled.close().expect("writable");
        let next = DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        assert_eq!(next.last_life, LastLife::Clean);
    }

    #[test]
    fn crashes_are_counted_until_somebody_looked_at_them_and_clean_ends_are_not() {
        let dir = formatted();
        let open = || DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        open().close().expect("writable");
        assert_eq!(open().crashes, 0, "the last end was clean");
        assert_eq!(open().crashes, 1);
        assert_eq!(open().crashes, 2);
        open().close().expect("writable");
        let mut clean = open();
        assert_eq!(clean.crashes, 3, "a clean end adds none, and takes none back");
        clean.forget_crashes().expect("writable");
        clean.close().expect("writable");
        assert_eq!(open().crashes, 0);
    }

    #[test]
    fn a_life_that_was_killed_while_it_stopped_or_could_not_start_has_not_crashed() {
        let dir = formatted();
        let open = || DataDir::open(dir.path(), "c1", NODE).expect("nobody holds it");
        open().ends().expect("writable");
        assert_eq!(open().crashes, 0);
        assert_eq!(open().crashes, 1, "the life after it said nothing");
    }

    #[test]
    fn of_more_crashes_than_are_kept_the_newest_decide_when_it_is_over() {
        let mut meta = Meta::read(&formatted().path().join(META)).expect("just made");
        (meta.clean, meta.ended) = (false, false);
        let at = |uptime_s| Crash { machine_boot: "a".to_owned(), uptime_s, wall_s: 0 };
        for second in 0..200 {
            meta.count_crash(at(second));
        }
        assert_eq!(meta.crashes.len(), CRASHES_KEPT_MAX);
        meta.count_crash(at(199 + CRASH_COUNTS_S));
        assert_eq!(meta.crashes.len(), 1, "an hour after the last one");
    }

    #[test]
    fn a_crash_is_an_hour_old_after_an_hour_whatever_is_done_to_the_clock() {
        let at = |boot: &str, uptime_s, wall_s| Crash {
            machine_boot: boot.to_owned(),
            uptime_s,
            wall_s,
        };
        let crash = at("a", 100, 5_000);
        assert_eq!(crash.age_s(&at("a", 160, 9_000_000)), 60, "the clock was set ahead");
        assert_eq!(crash.age_s(&at("a", 3_700, 10)), 3_600, "it was set back");
        assert_eq!(crash.age_s(&at("b", 20, 5_300)), 300, "the machine was booted");
        assert_eq!(
            crash.age_s(&at("b", 20, 10)),
            20,
            "and its clock set back: since before it booted"
        );
    }

    #[test]
    fn a_directory_in_use_names_the_process_that_has_it() {
        let dir = formatted();
        let _held = DataDir::open(dir.path(), "c1", NODE).expect("it is ours");
        let error = DataDir::open(dir.path(), "c1", NODE).expect_err("it is held");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn the_directory_of_another_node_or_cluster_is_refused() {
        let dir = formatted();
        let other = DataDir::open(dir.path(), "c2", NODE).expect_err("another cluster");
        assert!(other.to_string().contains("cluster c1"), "{other}");
        let other = DataDir::open(dir.path(), "c1", NodeId(2)).expect_err("another node");
        assert!(other.to_string().contains("node 1"), "{other}");
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let dir = formatted();
        std::fs::write(dir.path().join(META), r#"{"format": 9, "new": true}"#).expect("writable");
        let error = DataDir::open(dir.path(), "c1", NODE).expect_err("too new");
        assert!(error.to_string().contains("format 9"), "{error}");
    }

    #[test]
    fn formatting_twice_keeps_what_is_there() {
        let dir = formatted();
        assert!(DataDir::format(dir.path(), "c1", NODE, Made::New).is_err());
    }
}
