//! Power cuts of real brokers: each has a file system of its own that is cut off in an instant, so that
//! what was not flushed is gone. Needs root on Linux; everything is mounted in a namespace that vanishes with this process.
//!
//! `cargo build --release -p highwater-broker --bin highwater && cargo run --release -p highwater-broker --features sim --example power_cut -- --seed 1 --cuts 10`

#[path = "../tests/common/mod.rs"]
mod common;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use common::Cluster;
use common::chaos::files::walk;
use common::weather::next_random;
use highwater_bench::recorded::{self, Load, Recording};
use highwater_client::{AckMode, Client, NewTopic, TopicName};

/// Power cuts of real brokers.
#[derive(Parser)]
struct Args {
    /// The seed of pauses, victims and write-back.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cuts.
    #[arg(long, default_value_t = 5)]
    cuts: u64,
    /// Whom they hit.
    #[arg(long, default_value = "mixed")]
    victims: Victims,
    /// Between cuts, let one broker's disk hang for two seconds.
    #[arg(long)]
    freeze: bool,
    /// The topic's `flush`: `ack`, or an interval in milliseconds.
    #[arg(long, default_value = "ack")]
    flush: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Victims {
    All,
    One,
    Mixed,
}

const NODES: usize = 3;
const TOPIC: &str = "power";
const DISK_MIB: u32 = 1_024;
const INSIDE: &str = "HIGHWATER_POWER_CUT_INSIDE";

fn main() -> ExitCode {
    let args = Args::parse();
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "power_cut mounts file systems and cuts them off, which only root may do; run it as root"
        );
        return ExitCode::from(2);
    }
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().expect("this program is a file");
        let error = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(own)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        eprintln!("cannot enter a namespace of our own: {error}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> ExitCode {
    println!("seed {}", args.seed);
    let mut cluster = Cluster::made(NODES);
    let disks = Disks { dir: cluster.dir.path().to_owned() };
    (1..=NODES).for_each(|node| disks.make(node));
    disks.boot_anew(0);
    (1..=NODES).for_each(|node| cluster.start(node));
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, 4).replication(3).config("flush", args.flush.as_str());
    client.admin().create_topic(topic).await.expect("a healthy cluster makes a topic");
    let history = disks.dir.join("history");
    let recording = Arc::new(Recording::create(&history).expect("the history can be written"));
    let load = Arc::new(load(args.seed));
    let tasks = start_load(&cluster, &client, &recording, &load).await;
    play(args, &mut cluster, &disks, &recording).await;
    recording.stop();
    tasks.join_all().await;
    let fresh = cluster.client().await;
    let read =
        recorded::read_all_in_the_end(&fresh, &recording, &load, Duration::from_secs(60)).await;
    Arc::into_inner(recording)
        .expect("all tasks have ended")
        .finish()
        .expect("the history was written");
    let report = recorded::check(&history).expect("the history can be read");
    println!("{}", report.page());
    let enough = report.acked.values().sum::<u64>() > args.cuts * 300;
    if read.is_ok() && report.is_clean() && enough {
        return ExitCode::SUCCESS;
    }
    println!(
        "seed {} FAILED: readable {read:?}, enough acknowledged {enough}\n{}",
        args.seed,
        cluster.logs()
    );
    ExitCode::FAILURE
}

/// One cut after another, each once records are acknowledged again after the one before.
async fn play(args: &Args, cluster: &mut Cluster, disks: &Disks, recording: &Recording) {
    let mut random = args.seed;
    for cut in 1..=args.cuts {
        let acked = recording.acked();
        tokio::time::sleep(Duration::from_millis(1_500 + next_random(&mut random) % 2_000)).await;
        if args.freeze {
            disks.freeze((next_random(&mut random) % NODES as u64) as usize + 1);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let one = (next_random(&mut random) % NODES as u64) as usize + 1;
        let all = args.victims == Victims::All || (args.victims == Victims::Mixed && cut % 2 == 1);
        let victims = if all { (1..=NODES).collect() } else { vec![one] };
        victims.iter().for_each(|node| disks.write_some_back(*node, &mut random));
        victims.iter().for_each(|node| disks.cut(*node));
        victims.iter().for_each(|node| cluster.kill(*node));
        victims.iter().for_each(|node| disks.mount_again(*node));
        disks.boot_anew(cut);
        victims.iter().for_each(|node| cluster.start(*node));
        let began = Instant::now();
        let _healthy = cluster.client().await;
        let before = recording.acked();
        cluster
            .eventually("records are acknowledged again", async || {
                (recording.acked() > before + 50).then_some(())
            })
            .await;
        println!(
            "cut {cut} of {victims:?}: {} acked before, goes on after {:?}",
            before - acked,
            began.elapsed()
        );
    }
}

fn load(seed: u64) -> Load {
    Load {
        topic: TopicName::from(TOPIC),
        run: seed as u16,
        rate: 300,
        keys: 100,
        record_bytes: 200,
        delivery_timeout: Duration::from_secs(10),
        reader_lives: Duration::from_secs(7),
    }
}

async fn start_load(
    cluster: &Cluster,
    client: &Client,
    recording: &Arc<Recording>,
    load: &Arc<Load>,
) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for (number, acks) in (0..).zip([AckMode::SemiSync, AckMode::Sync]) {
        let (client, recording, load) = (client.clone(), Arc::clone(recording), Arc::clone(load));
        tasks.spawn(async move {
            recorded::produce(&client, &recording, &load, number, acks).await;
        });
    }
    let client = cluster.client().await;
    let (recording, load) = (Arc::clone(recording), Arc::clone(load));
    tasks.spawn(async move { recorded::tail(&client, &recording, &load).await });
    tasks
}

/// A disk for each broker: an image in a file.
struct Disks {
    dir: PathBuf,
}

impl Disks {
    fn mounted(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node-{node}/data"))
    }

    fn image(&self, node: usize) -> PathBuf {
        self.dir.join(format!("disk-{node}"))
    }

    /// Makes a broker's disk, with what is in its directory already.
    fn make(&self, node: usize) {
        let (image, data) = (self.image(node), self.mounted(node));
        let script = format!(
            r#"truncate -s {DISK_MIB}M "$1"; mkfs.ext4 -q -F -E lazy_itable_init=0 "$1"; mkdir -p "$2" "$2.mnt"
            mount -o loop "$1" "$2.mnt"; cp -a "$2/." "$2.mnt/"; sync -f "$2.mnt"; mount --move "$2.mnt" "$2"; rmdir "$2.mnt""#
        );
        shell(&script, &[&image, &data]);
    }

    /// The kernel may write back any part of what is dirty at any time.
    fn write_some_back(&self, node: usize, random: &mut u64) {
        for file in walk(&self.mounted(node)) {
            if next_random(random).is_multiple_of(4) {
                shell(r#"sync -d "$1""#, &[&file]);
            }
        }
    }

    /// From now on nothing reaches the disk, not even the file system's own journal.
    fn cut(&self, node: usize) {
        let ioctl = r#"perl -e 'open(my $d, "<", $ARGV[0]) or die $!; my $f = pack("L", 2); ioctl($d, 0x8004587d, $f) or die $!' "$1""#;
        shell(ioctl, &[&self.mounted(node)]);
    }

    /// The machine starts again: what is mounted is what was on the disk, without a check of it.
    fn mount_again(&self, node: usize) {
        shell(r#"umount "$2"; mount -o loop "$1" "$2""#, &[&self.image(node), &self.mounted(node)]);
    }

    /// Lets a disk hang; it goes on by itself even if this process is gone by then.
    fn freeze(&self, node: usize) {
        let script = r#"(sleep 2; fsfreeze -u "$1") & fsfreeze -f "$1""#;
        shell(script, &[&self.mounted(node)]);
    }

    /// Brokers tell the death of a process from that of the machine by the kernel's boot id. This one is as good for all.
    fn boot_anew(&self, number: u64) {
        let boot = self.dir.join(format!("boot-{number}"));
        std::fs::write(&boot, format!("00000000-0000-4000-8000-{number:012x}\n"))
            .expect("it is ours");
        shell(r#"mount --bind "$1" /proc/sys/kernel/random/boot_id"#, &[&boot]);
    }
}

impl Drop for Disks {
    /// Lets go of the file systems before the directory under them is removed, also after a panic.
    fn drop(&mut self) {
        for node in 1..=NODES {
            // Brokers that still run keep it until they are killed, a moment later.
            let _ = Command::new("umount").arg("-l").arg(self.mounted(node)).status();
        }
    }
}

fn shell(script: &str, arguments: &[&Path]) {
    let status = Command::new("sh").args(["-ec", script, "sh"]).args(arguments).status();
    let status = status.expect("there is a shell");
    assert!(status.success(), "{script} {arguments:?}: {status}");
}
