//! What is fuzzed: every reader of files and decoder of this package, as functions of bytes.
//!
//! A target panics where its claim fails; any error that is returned is fine. Files have checksums that no
//! fuzzer guesses, so a target's bytes are edits of files that were written properly. The fuzzer of `fuzz_targets` and the
//! plain test `tests/fuzzed.rs` share this.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use highwater_broker::config::Config;
use highwater_broker::controller::{ClusterImage, Command, CommandReply, MetadataRecord};
use highwater_broker::disk::Disk;
use highwater_broker::init::invitation::Invitation;
use highwater_broker::log::{Log, Options, StartPoint};
use highwater_broker::node::snapshot::{self, Snapshot};
use highwater_broker::raft::Millis;
use highwater_broker::replica::LastLife;
use highwater_broker::shard::{Directory, Shard, ShardOptions};
use highwater_broker::sim::disk::SimDisk;
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, Mark};
use highwater_protocol::ids::{
    Incarnation, NodeId, Offset, PartitionId, Term, Timestamp, TopicId, TopicPartition,
};
use uuid::Uuid;

/// A target's name and the target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] = &[
    ("segment", segment),
    ("start_file", start_file),
    ("journal", journal),
    ("image_file", image_file),
    ("metadata", metadata),
    ("config", config),
    ("invitation", invitation),
];

/// Some inputs to begin with: valid ones, and edits here and there.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        Vec::new(),
        b"listen = \"127.0.0.1:9400\"\n[node]\nid = 1\n[data]\ndir = \"data\"\n".to_vec(),
        b"{\"highwater_invitation\":1,\"cluster\":\"c\",\"node\":4}".to_vec(),
    ];
    for place in 0..64_u16 {
        let [low, high] = (place * 251).to_le_bytes();
        seeds.push(vec![place as u8, low, high, 0xff, place as u8 + 1, high, low, 1]);
    }
    seeds
}

/// A log opens or says why not; reading what opens comes to an end, and it opens the same way again.
pub fn segment(edits: &[u8]) {
    static FILES: OnceLock<Files> = OnceLock::new();
    let disk = FILES.get_or_init(written_log).edited(edits);
    let Ok((log, _)) = open_log(&disk) else { return };
    let end = log.end();
    log.publish(log.end_offset());
    let reader = log.reader();
    let mut next = reader.log_start();
    while next < log.end_offset() {
        // Sealed segments are believed at opening; what is wrong in them shows when they are read.
        let Ok(slices) = reader.read(next, 1 << 16) else { break };
        let frames = slices.iter().flat_map(|slice| highwater_protocol::batch::frames(slice));
        let records: u64 = frames.map_while(Result::ok).map(|it| u64::from(it.0.records())).sum();
        if records == 0 {
            break;
        }
        next = next.advance(records);
    }
    drop(log);
    let (again, _) = open_log(&disk).expect("what opened once opens twice");
    assert_eq!(again.end(), end, "recovering twice gives the same log");
}

/// The block `start`.
pub fn start_file(bytes: &[u8]) {
    let _ = StartPoint::parse(bytes);
}

/// Both copies of the journal of terms and votes.
pub fn journal(edits: &[u8]) {
    static FILES: OnceLock<Files> = OnceLock::new();
    let disk = FILES.get_or_init(written_journal).edited(edits);
    let _ = open_shard(&disk, Directory::Used);
}

/// The saved image of the cluster.
pub fn image_file(edits: &[u8]) {
    static FILES: OnceLock<Files> = OnceLock::new();
    let disk = FILES.get_or_init(written_image).edited(edits);
    let _ = snapshot::load(&*disk, Path::new("/data"));
}

/// Records of the controller's log, and what brokers ask of it.
pub fn metadata(bytes: &[u8]) {
    let _ = MetadataRecord::decode(bytes);
    let _ = Command::decode(bytes);
    let _ = CommandReply::decode(bytes);
}

/// A broker's configuration.
pub fn config(bytes: &[u8]) {
    let _ = Config::parse(&String::from_utf8_lossy(bytes), Path::new("/etc/highwater/config.toml"));
}

/// An invitation to join.
pub fn invitation(bytes: &[u8]) {
    let _ = Invitation::parse(&String::from_utf8_lossy(bytes));
}

/// Files as they were written.
struct Files(Vec<(PathBuf, Bytes)>);

impl Files {
    fn of(disk: &dyn Disk, dir: &str) -> Files {
        let dir = Path::new(dir);
        let names = disk.list(dir).expect("it was made");
        let read = |name: String| {
            let path = dir.join(name);
            let file = disk.open(&path, 1 << 20).expect("it was listed");
            let bytes = file.read(0..file.len()).expect("a simulated disk reads");
            (path, bytes)
        };
        Files(names.into_iter().map(read).collect())
    }

    /// A disk with these files, changed as four bytes each say: which file, where (two bytes, in 16 parts of it), what.
    fn edited(&self, edits: &[u8]) -> Arc<SimDisk> {
        let mut files: Vec<(&PathBuf, Vec<u8>)> =
            self.0.iter().map(|(path, bytes)| (path, bytes.to_vec())).collect();
        for edit in edits.chunks_exact(4) {
            let count = files.len();
            let bytes = &mut files[usize::from(edit[0] & 0x0f) % count].1;
            let within = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
            let part = usize::from(edit[0] >> 4) * bytes.len() / 16;
            if let Some(byte) = bytes.get_mut(part + within) {
                *byte = edit[3];
            }
        }
        let disk = SimDisk::new(1);
        for (path, bytes) in files {
            disk.create_dir(path.parent().expect("a file lies somewhere")).expect("a new disk");
            let length = bytes.len() as u64;
            let file = disk.create(path, length, 1 << 20).expect("a new disk");
            file.write_at(0, &[&bytes]).expect("a new disk");
            file.flush().expect("a new disk");
            disk.flush_dir(path.parent().expect("as before")).expect("a new disk");
        }
        disk
    }
}

fn written_log() -> Files {
    let disk = SimDisk::new(1);
    let (mut log, _) = open_log(&disk).expect("a new log");
    for (term, records) in [(1, 3), (1, 40), (2, 7), (3, 60), (3, 60), (3, 1)] {
        if term != log.last_term().0 {
            log.append_mark(Term(term), &Mark::TermStart).expect("a new disk");
        }
        log.append(Term(term), &batch(records)).expect("a new disk");
    }
    log.close().expect("a new disk");
    Files::of(&*disk, "/data/log")
}

fn batch(records: u32) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    for number in 0..records {
        let value = [number as u8; 100];
        builder.push(Timestamp(i64::from(number)), None, Some(&value), &[]);
    }
    builder.finish()
}

fn open_log(disk: &Arc<SimDisk>) -> std::io::Result<(Log, highwater_broker::log::Recovered)> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    let options = Options { segment_bytes_max: 8 << 10, keep_free_bytes: 0 };
    let partition = TopicPartition::new(TopicId(Uuid::from_u128(5)), PartitionId(0));
    Log::open(disk, Path::new("/data/log"), partition, options)
}

fn written_journal() -> Files {
    let disk = SimDisk::new(1);
    open_shard(&disk, Directory::New).expect("a new disk");
    Files::of(&*disk, "/data/shard-0")
}

fn open_shard(disk: &Arc<SimDisk>, directory: Directory) -> std::io::Result<Shard> {
    let options = ShardOptions {
        me: NodeId(1),
        incarnation: Incarnation(1),
        seed: 1,
        heartbeat_ms: 100,
        dir: PathBuf::from("/data/shard-0"),
        stray_dir: PathBuf::from("/data/stray"),
        last_life: LastLife::Clean,
        directory,
        keep_free_bytes: 0,
    };
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Shard::open(options, disk, Millis(0))
}

fn written_image() -> Files {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("/data")).expect("a new disk");
    let saved = Snapshot { image: ClusterImage::default(), applied: Offset(1) };
    snapshot::save(&*disk, Path::new("/data"), &saved).expect("a new disk");
    Files::of(&*disk, "/data")
}
