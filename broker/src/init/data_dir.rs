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
        let used = if meta.incarnation == 0 { Directory::New } else { Directory::Used };
        meta.incarnation = incarnation_after(meta.incarnation, unix_seconds());
        meta.clean = false;
        replace(&file, &meta.encode(), Secrecy::Public)?;
        Ok(DataDir {
            path: path.to_owned(),
            directory: DirectoryId(directory),
            incarnation: Incarnation(meta.incarnation),
            used,
            made: if meta.anew { Made::Anew } else { Made::New },
            last_life: if all_written { LastLife::Clean } else { LastLife::Unclean },
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
