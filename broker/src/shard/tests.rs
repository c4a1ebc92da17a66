//! What a shard must remember of a replica between its lives and within one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_protocol::ids::{Incarnation, NodeId, PartitionId, Term, TopicId, TopicPartition};

use super::event::{AfterClose, Effect, Event, Identity, OpenReplica};
use super::journal::Journal;
use super::{Directory, Shard, ShardOptions};
use crate::disk::Disk;
use crate::log;
use crate::raft::{HardState, Millis, Suspicion};
use crate::replica::{FlushPolicy, LastLife, Remembered, ReplicaOptions, Retention};
use crate::sim::disk::SimDisk;

const PARTITION: TopicPartition =
    TopicPartition { topic: TopicId::CLUSTER, partition: PartitionId(1) };
const DIR: &str = "/data/topic/1";
const SHARD_DIR: &str = "/data/shard-0";

fn open_event() -> Event {
    open_with(FlushPolicy::Ack)
}

fn open_with(flush: FlushPolicy) -> Event {
    let options = ReplicaOptions {
        log: log::Options { segment_bytes_max: 64 << 10, keep_free_bytes: 0 },
        flush,
        insync_replicas_min: 1,
        lag_ms_max: 1_000,
        retention: Retention::FOREVER,
        learner_bytes_per_s: None,
    };
    Event::Open(Box::new(OpenReplica {
        partition: PARTITION,
        dir: PathBuf::from(DIR),
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        learners: Vec::new(),
        identity: Identity::Same,
        options,
    }))
}

fn boot(disk: &Arc<SimDisk>, life: u64) -> Shard {
    boot_after(disk, life, LastLife::Clean)
}

fn boot_after(disk: &Arc<SimDisk>, life: u64, last_life: LastLife) -> Shard {
    let options = ShardOptions {
        me: NodeId(1),
        incarnation: Incarnation(life),
        seed: 7,
        heartbeat_ms: 100,
        dir: PathBuf::from(SHARD_DIR),
        last_life,
        directory: if life == 1 { Directory::New } else { Directory::Used },
        keep_free_bytes: 0,
    };
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    Shard::open(options, disk, Millis(0)).expect("a sound disk")
}

fn pass(shard: &mut Shard, events: Vec<Event>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for event in events {
        shard.step(Millis(1), event, &mut effects);
    }
    shard.finish_pass(Millis(1), &mut effects).expect("a sound disk");
    effects
}

fn suspicion(shard: &Shard) -> Suspicion {
    shard.replica(PARTITION).expect("it is open").suspicion()
}

/// Whatever cut, roll or clean restart lies between, files in order do not bring back what was counted.
#[test]
fn a_remembered_suspicion_outlives_closing_and_restarts_although_the_files_are_in_order() {
    for why in [Suspicion::LostTail, Suspicion::Damage, Suspicion::LostIdentity] {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new(DIR)).expect("a sound disk");
        let hard = HardState { term: Term(3), vote: None };
        let as_disk = Arc::clone(&disk) as Arc<dyn Disk>;
        let mut journal =
            Journal::open(as_disk, Path::new(SHARD_DIR), Directory::New, LastLife::Clean);
        let journal = journal.as_mut().expect("a sound disk");
        journal
            .remember(PARTITION, Remembered { hard, suspicion: why, last_life: LastLife::Clean });
        journal.flush().expect("a sound disk");
        for life in 2..4 {
            let mut shard = boot(&disk, life);
            pass(&mut shard, vec![open_event()]);
            assert_eq!(suspicion(&shard), why, "life {life}");
            let close = Event::Close(PARTITION, AfterClose::Keep);
            pass(&mut shard, vec![close, open_event()]);
            assert_eq!(suspicion(&shard), why, "closed and opened in life {life}");
        }
    }
}

#[test]
fn a_replica_that_lost_nothing_is_trusted_again_at_once() {
    let disk = SimDisk::new(1);
    for life in 1..4 {
        let mut shard = boot(&disk, life);
        pass(&mut shard, vec![open_event()]);
        assert_eq!(suspicion(&shard), Suspicion::None, "life {life}");
    }
}

/// The life after the unclean end may be killed before it has opened anything.
#[test]
fn an_unclean_end_is_remembered_until_the_files_were_opened() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR)).expect("a sound disk");
    let hard = HardState { term: Term(3), vote: None };
    let as_disk = Arc::clone(&disk) as Arc<dyn Disk>;
    let journal = Journal::open(as_disk, Path::new(SHARD_DIR), Directory::New, LastLife::Clean);
    let mut journal = journal.expect("a sound disk");
    let known = Remembered { hard, suspicion: Suspicion::None, last_life: LastLife::Clean };
    journal.remember(PARTITION, known);
    journal.flush().expect("a sound disk");
    drop(boot_after(&disk, 2, LastLife::Unclean));
    let mut shard = boot(&disk, 3);
    pass(&mut shard, vec![open_with(FlushPolicy::Interval { ms: 1_000 })]);
    assert_eq!(suspicion(&shard), Suspicion::LostTail);
}

/// It may have been here before, have voted, and have been deleted.
#[test]
fn a_replica_that_a_move_brings_is_suspect_unless_the_journal_remembers_it() {
    let disk = SimDisk::new(1);
    let joining = || match open_event() {
        Event::Open(mut open) => {
            open.identity = Identity::Joins;
            Event::Open(open)
        }
        other => other,
    };
    let mut shard = boot(&disk, 1);
    pass(&mut shard, vec![joining()]);
    assert_eq!(suspicion(&shard), Suspicion::LostIdentity);
    let delete = Event::Close(PARTITION, AfterClose::Delete);
    pass(&mut shard, vec![delete, open_event()]);
    assert_eq!(suspicion(&shard), Suspicion::None);
    let close = Event::Close(PARTITION, AfterClose::Keep);
    pass(&mut shard, vec![close, joining()]);
    assert_eq!(suspicion(&shard), Suspicion::None, "the journal knows that it lost nothing");
}
