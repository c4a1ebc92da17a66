//! A disk of its own for each broker, which root on Linux can cut off, let hang, fill, slow down and starve: an
//! ext4 in a loop mount, inside the mount namespace of this process, which must be its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::chaos::files::walk;
use super::weather::next_random;

/// The disks; dropping them lets go of the file systems, also after a panic.
pub struct Disks {
    dir: PathBuf,
    nodes: usize,
}

/// What a disk can suffer while its broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Trouble {
    /// It hangs for two seconds
    Freeze,
    /// It is full for three seconds
    Fill,
    /// It takes a hundred kilobytes a second for three seconds
    Throttle,
    /// What it lies on has no more room: writes that were promised room fail with an I/O error
    Starve,
}

/// What a disk suffers, until it ends by itself.
#[must_use = "a disk is not to be touched before it has ended"]
pub struct Suffering(Option<Child>);

impl Suffering {
    /// Runs a script that says so when it has begun, and then ends it, whatever becomes of this process.
    fn begin(script: &str, arguments: &[&Path]) -> Suffering {
        let script = format!("trap '' INT TERM HUP\n{script}");
        let mut command = Command::new("sh");
        command.args(["-ec", &script, "sh"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("there is a shell");
        let mut said = String::new();
        let out = child.stdout.take().expect("it was asked for");
        BufReader::new(out).read_line(&mut said).expect("a pipe can be read");
        assert_eq!(said, "begun\n", "{script} {arguments:?}");
        Suffering(Some(child))
    }

    /// Returns when it has ended.
    pub fn wait(self) {
        if let Some(mut child) = self.0 {
            let status = child.wait().expect("it is ours");
            assert!(status.success(), "what a disk suffered did not end well: {status}");
        }
    }
}

impl Disks {
    /// A disk for each broker, with what is in its directory already.
    pub fn make(dir: &Path, nodes: usize, mib: u32) -> Disks {
        let disks = Disks { dir: dir.to_owned(), nodes };
        for node in 1..=nodes {
            // On a file system of its own, so that a disk can run out of what it lies on.
            let script = format!(
                r#"mkdir -p "$1" "$3" "$3.mnt"; mount -t tmpfs -o size={}m thin "$1"
                truncate -s {mib}M "$2"; mkfs.ext4 -q -F -m 0 -E lazy_itable_init=0 "$2"
                mount -o loop "$2" "$3.mnt"; cp -a "$3/." "$3.mnt/"; sync -f "$3.mnt"; mount --move "$3.mnt" "$3"; rmdir "$3.mnt""#,
                mib * 2
            );
            shell(&script, &[&disks.under(node), &disks.image(node), &disks.mounted(node)]);
        }
        disks
    }

    fn mounted(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}/data"))
    }

    fn under(&self, node: usize) -> PathBuf {
        self.dir.join(format!("under-{node}"))
    }

    fn image(&self, node: usize) -> PathBuf {
        self.under(node).join("disk")
    }

    /// The kernel may write back any part of what is dirty at any time.
    pub fn write_some_back(&self, node: usize, random: &mut u64) {
        for file in walk(&self.mounted(node)) {
            if next_random(random).is_multiple_of(4) {
                shell(r#"sync -d "$1""#, &[&file]);
            }
        }
    }

    /// From now on nothing reaches the disk, not even the file system's own journal.
    pub fn cut(&self, node: usize) {
        let ioctl = r#"perl -e 'open(my $d, "<", $ARGV[0]) or die $!; my $f = pack("L", 2); ioctl($d, 0x8004587d, $f) or die $!' "$1""#;
        shell(ioctl, &[&self.mounted(node)]);
    }

    /// The machine starts again: what is mounted is what was on the disk, without a check of it.
    pub fn mount_again(&self, node: usize) {
        shell(r#"umount "$2"; mount -o loop "$1" "$2""#, &[&self.image(node), &self.mounted(node)]);
    }

    /// Lets a disk suffer; returns once it does. That ends by itself even if this process is gone by then, but for a
    /// starved one, which is fed by `feed`.
    pub fn trouble(&self, node: usize, pid: u32, trouble: Trouble) -> Suffering {
        let mounted = self.mounted(node);
        match trouble {
            Trouble::Freeze => {
                let script = r#"fsfreeze -f "$1"; echo begun; sleep 2; fsfreeze -u "$1""#;
                Suffering::begin(script, &[&mounted])
            }
            Trouble::Fill => {
                // Its broker takes and frees room meanwhile.
                let script = r#"fill() { free=$(df --output=avail -B1 "$1" | tail -1); fallocate -l $((free - 65536)) "$1/ballast"; }
                tries=0; until fill "$1" 2> /dev/null; do rm -f "$1/ballast"; tries=$((tries + 1)); test $tries -lt 200; sleep 0.02; done
                echo begun; sleep 3; rm "$1/ballast""#;
                Suffering::begin(script, &[&mounted])
            }
            Trouble::Throttle => {
                let group = PathBuf::from(format!("{BLKIO}/highwater-{pid}"));
                // The broker may have ended by then.
                let script = format!(
                    r#"device=$(mountpoint -d "$1"); mkdir "$2"; echo "$device 100000" > "$2/blkio.throttle.write_bps_device"; echo {pid} > "$2/cgroup.procs"
                    echo begun; sleep 3; echo "$device 0" > "$2/blkio.throttle.write_bps_device"; echo {pid} > {BLKIO}/cgroup.procs 2> /dev/null || true
                    until rmdir "$2" 2> /dev/null; do sleep 0.1; done"#
                );
                Suffering::begin(&script, &[&mounted, &group])
            }
            Trouble::Starve => {
                // It grows meanwhile, and cannot be made smaller than what is used.
                let script = r#"until mount -o remount,size=$(($(df --output=used -B1 "$1" | tail -1) + 65536)) "$1" 2> /dev/null
                do sleep 0.01; done"#;
                shell(script, &[&self.under(node)]);
                Suffering(None)
            }
        }
    }

    /// What a starved disk lies on has room again, of `mib`. What failed meanwhile has failed for good.
    pub fn feed(&self, node: usize, mib: u32) {
        shell(&format!(r#"mount -o remount,size={}m "$1""#, mib * 2), &[&self.under(node)]);
    }

    /// Whether this machine can do that.
    pub fn can(trouble: Trouble) -> bool {
        match trouble {
            Trouble::Freeze | Trouble::Fill | Trouble::Starve => true,
            Trouble::Throttle => Path::new(BLKIO).join("blkio.throttle.write_bps_device").exists(),
        }
    }

    /// Brokers tell the death of a process from that of the machine by the kernel's boot id. This one is as good for all.
    pub fn boot_anew(&self, number: u64) {
        let boot = self.dir.join(format!("boot-{number}"));
        std::fs::write(&boot, format!("00000000-0000-4000-8000-{number:012x}\n"))
            .expect("it is ours");
        shell(r#"mount --bind "$1" /proc/sys/kernel/random/boot_id"#, &[&boot]);
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for node in 1..=self.nodes {
            // Brokers that still run keep it until they are killed, a moment later.
            for mounted in [self.mounted(node), self.under(node)] {
                let _ = Command::new("umount").arg("-l").arg(mounted).status();
            }
        }
    }
}

fn shell(script: &str, arguments: &[&Path]) {
    let status = Command::new("sh").args(["-ec", script, "sh"]).args(arguments).status();
    let status = status.expect("there is a shell");
    assert!(status.success(), "{script} {arguments:?}: {status}");
}

/// Where the kernel's first kind of groups limits what a process writes.
const BLKIO: &str = "/sys/fs/cgroup/blkio";
