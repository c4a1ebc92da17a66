//! What a shard must remember of a replica between its lives and within one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_protocol::ids::{
    Incarnation, LogIndex, NodeId, PartitionId, RecoveryEpoch, Term, TopicId, TopicPartition,
};
use highwater_protocol::peer::{GroupMessage, Heartbeat, RaftMessage};

use super::event::{AfterClose, Effect, Event, Identity, Moving, OpenReplica};
use super::journal::Journal;
use super::{Directory, Shard, ShardOptions};
use crate::disk::{Disk, FlushFailure};
use crate::log;
#[cfg(feature = "mutants")]
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, HardState, Millis, Suspicion};
use crate::replica::{
    FlushPolicy, LastLife, Logged, Recovery, Remembered, ReplicaOptions, Retention,
};
use crate::sim::disk::{Fate, SimDisk};

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
        moving: Moving::No,
        identity: Identity::Same,
        recovery: None,
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
        stray_dir: PathBuf::from("/data/stray"),
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
        journal.remember(
            PARTITION,
            Remembered {
                hard,
                suspicion: why,
                last_life: LastLife::Clean,
                vouches: Counts::Flushed,
                recovery: None,
                logged: Logged::Nothing,
            },
        );
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

/// What a failed flush forgot may be in the page cache for a while, and gone when somebody counts on it.
#[test]
fn a_failed_flush_leaves_a_doubt_where_others_may_have_counted_what_it_was_to_reach() {
    for (flush, doubt) in [
        (FlushPolicy::Interval { ms: 5 }, Suspicion::LostTail),
        (FlushPolicy::Ack, Suspicion::None),
    ] {
        let disk = SimDisk::new(1);
        let open = || {
            let Event::Open(open) = open_with(flush) else { panic!("it opens") };
            Event::Open(Box::new(OpenReplica { voters: vec![NodeId(1)], ..*open }))
        };
        let mut shard = boot(&disk, 1);
        let mut effects = pass(&mut shard, vec![open()]);
        let mut ticket = None;
        for now in (2..1_000).map(Millis) {
            let flushes = |effect| {
                let Effect::Flush(ticket, _) = effect else { return None };
                Some(ticket)
            };
            ticket = effects.drain(..).find_map(flushes);
            if ticket.is_some() {
                break;
            }
            shard.step(now, Event::Tick, &mut effects);
            shard.finish_pass(now, &mut effects).expect("a sound disk");
        }
        let failure = FlushFailure { file: 0, error: io::Error::other("the device failed") };
        let ticket = ticket.expect("it led, and wrote that down");
        pass(&mut shard, vec![Event::Flushed(ticket, vec![failure])]);
        assert!(shard.replica(PARTITION).expect("it is there").is_failed());
        drop(shard);
        let mut shard = boot(&disk, 2);
        pass(&mut shard, vec![open()]);
        assert_eq!(suspicion(&shard), doubt, "{flush:?}");
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
    let known = Remembered {
        hard,
        suspicion: Suspicion::None,
        last_life: LastLife::Clean,
        vouches: Counts::Appended,
        recovery: None,
        logged: Logged::Nothing,
    };
    journal.remember(PARTITION, known);
    journal.flush().expect("a sound disk");
    drop(boot_after(&disk, 2, LastLife::Unclean));
    let mut shard = boot(&disk, 3);
    pass(&mut shard, vec![open_with(FlushPolicy::Interval { ms: 1_000 })]);
    assert_eq!(suspicion(&shard), Suspicion::LostTail);
}

/// The opening makes the directory, whose lack is all that tells.
#[test]
fn a_lost_directory_is_remembered_whenever_the_power_fails() {
    let disk = SimDisk::new(1);
    let as_disk = Arc::clone(&disk) as Arc<dyn Disk>;
    let journal = Journal::open(as_disk, Path::new(SHARD_DIR), Directory::New, LastLife::Clean);
    let mut journal = journal.expect("a sound disk");
    let hard = HardState { term: Term(3), vote: None };
    let (suspicion_then, last_life) = (Suspicion::None, LastLife::Clean);
    let known = Remembered {
        hard,
        suspicion: suspicion_then,
        last_life,
        vouches: Counts::Flushed,
        recovery: None,
        logged: Logged::Nothing,
    };
    journal.remember(PARTITION, known);
    journal.flush().expect("a sound disk");
    for operations in 1..20 {
        let disk = disk.fork();
        let mut shard = boot(&disk, 2);
        disk.arm(operations);
        let mut effects = Vec::new();
        shard.step(Millis(1), open_event(), &mut effects);
        // It may fail or not: the power does.
        let _ = shard.finish_pass(Millis(1), &mut effects);
        drop(shard);
        disk.lose_power_by(&mut |_| Fate::Kept);
        let mut shard = boot(&disk, 3);
        pass(&mut shard, vec![open_event()]);
        assert_eq!(suspicion(&shard), Suspicion::LostIdentity, "after {operations} operations");
    }
}

/// Somebody, or a file system's check, took all files and left the directory.
#[test]
fn a_directory_without_the_log_that_was_in_it_is_lost_and_one_that_never_had_one_is_not() {
    for (logged, expected) in
        [(Logged::Something, Suspicion::LostIdentity), (Logged::Nothing, Suspicion::None)]
    {
        let disk = SimDisk::new(1);
        let as_disk = Arc::clone(&disk) as Arc<dyn Disk>;
        let journal = Journal::open(as_disk, Path::new(SHARD_DIR), Directory::New, LastLife::Clean);
        let mut journal = journal.expect("a sound disk");
        let known = Remembered {
            hard: HardState { term: Term(3), vote: None },
            suspicion: Suspicion::None,
            last_life: LastLife::Clean,
            vouches: Counts::Flushed,
            recovery: None,
            logged,
        };
        journal.remember(PARTITION, known);
        journal.flush().expect("a sound disk");
        disk.create_dir(Path::new(DIR)).expect("a sound disk");
        for life in 2..4 {
            let mut shard = boot(&disk, life);
            pass(&mut shard, vec![open_event()]);
            assert_eq!(suspicion(&shard), expected, "{logged:?}, life {life}");
        }
    }
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

/// The replica of an epoch that another broker founds, or this one.
fn recovered(epoch: u32, founder: u32, identity: Identity) -> Event {
    let Event::Open(mut open) = open_event() else { unreachable!("it opens") };
    let since = Term(epoch * 1_000);
    let (epoch, founder) = (RecoveryEpoch(epoch), NodeId(founder));
    (open.identity, open.recovery) = (identity, Some(Recovery { epoch, founder, since }));
    Event::Open(open)
}

fn raft(shard: &Shard) -> &crate::raft::Raft {
    shard.replica(PARTITION).expect("it is open").raft()
}

#[test]
fn a_founder_leads_alone_in_a_term_of_the_new_group_whatever_it_was_suspected_of() {
    let disk = SimDisk::new(1);
    let mut shard = boot_after(&disk, 1, LastLife::Clean);
    pass(&mut shard, vec![open_with(FlushPolicy::Interval { ms: 5 })]);
    drop(shard);
    let mut shard = boot_after(&disk, 2, LastLife::Unclean);
    pass(&mut shard, vec![recovered(1, 1, Identity::Founds)]);
    pass(&mut shard, vec![Event::Tick]);
    assert_eq!(suspicion(&shard), Suspicion::None);
    assert_eq!(raft(&shard).voter_set().voters, [NodeId(1)]);
    assert!(raft(&shard).is_leader() && raft(&shard).term() >= Term(1_000));
    // Told again it stays, and an older image brings the old group not back.
    for again in [recovered(1, 1, Identity::Founds), open_event()] {
        pass(&mut shard, vec![again]);
        assert!(raft(&shard).is_leader());
    }
    drop(shard);
    let mut shard = boot(&disk, 3);
    pass(&mut shard, vec![open_event()]);
    assert_eq!(raft(&shard).voter_set().voters, [NodeId(1)], "the journal knows");
}

#[test]
fn what_is_left_of_the_old_group_is_discarded_before_the_new_one_is_opened() {
    let disk = SimDisk::new(1);
    let mut shard = boot(&disk, 1);
    let alone = |mut event: Event| {
        if let Event::Open(open) = &mut event {
            open.voters = vec![NodeId(1)];
        }
        event
    };
    pass(&mut shard, vec![alone(open_event())]);
    pass(&mut shard, vec![Event::Tick]);
    assert!(raft(&shard).is_leader() && raft(&shard).last().index > LogIndex(0));
    let effects = pass(&mut shard, vec![recovered(1, 2, Identity::Same)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Closed(_, AfterClose::Delete))));
    assert_eq!(raft(&shard).last().index, LogIndex(0));
    assert_eq!(suspicion(&shard), Suspicion::LostIdentity);
    assert_eq!(raft(&shard).voter_set().voters, [NodeId(2)]);
}

/// Nobody is left to repair it from, so it would wait for ever.
#[test]
fn a_replica_that_is_alone_in_its_group_and_lost_its_log_is_refused_whoever_founded_it() {
    assert!(is_refused_alone(recovered(1, 2, Identity::Same)));
    assert!(!is_refused_alone(open_event()), "an older image knows another group");
}

/// The image names the replicas with which the last move ended.
#[test]
fn amid_a_move_a_replica_that_lost_its_log_waits_for_others_though_the_image_names_none() {
    let amid_a_move = || {
        let mut event = recovered(1, 2, Identity::Same);
        if let Event::Open(open) = &mut event {
            open.moving = Moving::UnderWay;
        }
        event
    };
    assert!(!is_refused_alone(amid_a_move()));
    #[cfg(feature = "mutants")]
    {
        mutant::choose(Some(Mutant::AloneAmidMove));
        let refused = is_refused_alone(amid_a_move());
        mutant::choose(None);
        assert!(refused, "the planted bug is found");
    }
}

/// Whether a replica that lost its log is refused where the image names no other.
fn is_refused_alone(mut event: Event) -> bool {
    let disk = SimDisk::new(1);
    let mut shard = boot(&disk, 1);
    pass(&mut shard, vec![recovered(1, 2, Identity::Joins)]);
    drop(shard);
    if let Event::Open(open) = &mut event {
        open.voters = vec![NodeId(1)];
    }
    let effects = pass(&mut boot(&disk, 2), vec![event]);
    effects.iter().any(|effect| matches!(effect, Effect::Failed(..)))
}

#[test]
fn a_replica_hears_its_own_group_only() {
    let disk = SimDisk::new(1);
    let mut shard = boot(&disk, 1);
    pass(&mut shard, vec![recovered(1, 2, Identity::Joins)]);
    let term = raft(&shard).term();
    let mut hear = |epoch, commit| {
        let heartbeat = Heartbeat { term: term.next(), commit: LogIndex(commit) };
        let (group, epoch) = (PARTITION, RecoveryEpoch(epoch));
        let message = RaftMessage::Heartbeat(heartbeat);
        let (incarnation, to) = (Incarnation(1), Some(Incarnation(1)));
        let messages = vec![GroupMessage { group, epoch, message }];
        pass(&mut shard, vec![Event::Peer { from: NodeId(2), incarnation, to, messages }]);
        raft(&shard).term()
    };
    assert_eq!(hear(0, 0), term);
    assert_eq!(hear(2, 0), term);
    assert_eq!(hear(1, 0), term.next());
}

/// Its journal may have known that others vote in the group by now.
#[test]
fn a_replica_whose_journal_was_lost_founds_nothing() {
    let disk = SimDisk::new(1);
    let mut shard = boot(&disk, 1);
    pass(&mut shard, vec![open_event()]);
    drop(shard);
    for name in ["journal.a", "journal.b"] {
        disk.remove(&Path::new(SHARD_DIR).join(name)).expect("it is there");
    }
    let mut shard = boot(&disk, 2);
    pass(&mut shard, vec![recovered(1, 1, Identity::Founds)]);
    let opened = shard.replica(PARTITION);
    assert!(opened.is_none_or(|replica| replica.suspicion() == Suspicion::LostIdentity));
    drop(shard);
    let mut shard = boot(&disk, 3);
    pass(&mut shard, vec![recovered(2, 1, Identity::Founds)]);
    pass(&mut shard, vec![Event::Tick]);
    assert!(raft(&shard).is_leader(), "a further recovery begins with what it has");
}

/// Whatever the topic says by then: others may have counted what was not flushed.
#[test]
fn an_unclean_end_is_judged_by_what_the_journal_says_was_vouched_for() {
    let interval = || open_with(FlushPolicy::Interval { ms: 1_000 });
    let judged_after = |opened: Vec<Event>| {
        let disk = SimDisk::new(1);
        let mut shard = boot(&disk, 1);
        for open in opened {
            pass(&mut shard, vec![open]);
            pass(&mut shard, Vec::new());
        }
        drop(shard);
        let mut shard = boot_after(&disk, 2, LastLife::Unclean);
        pass(&mut shard, vec![open_event()]);
        suspicion(&shard)
    };
    assert_eq!(judged_after(vec![open_event()]), Suspicion::None);
    assert_eq!(judged_after(vec![interval()]), Suspicion::LostTail);
    assert_eq!(judged_after(vec![open_event(), interval()]), Suspicion::LostTail);
    assert_eq!(judged_after(vec![interval(), open_event()]), Suspicion::None, "all was flushed");
}
