//! Bugs planted in the repair of what rotted and in the opening of a log, each found by a script: one
//! coincidence in thousands of seeds would find them in the simulator.
//!
//! What each breaks is listed in `MUTANTS.md`.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_broker::disk::{Disk, File, FlushFailure};
use highwater_broker::log::{GivingUp, Left, Log, Options, Recovered};
use highwater_broker::mutant::{self, Mutant};
use highwater_broker::raft::{
    HardState, Legible, Millis, Options as RaftOptions, Raft, Standing, Start, Suspicion,
    TermStart, TermStarts,
};
use highwater_broker::replica::{
    Boot, FlushPolicy, Identity, LastLife, Moving, OpenReplica, Output, Replica, ReplicaCommand,
    ReplicaOptions, RequestId, Retention,
};
use highwater_broker::shard::event::{Effect, Event};
use highwater_broker::shard::{Directory, Shard, ShardOptions};
use highwater_broker::sim::disk::{Fate, SimDisk, Unflushed};
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, Mark, VoterSet};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{
    Incarnation, LogIndex, NodeId, Offset, PartitionId, Position, RecoveryEpoch, Term, Timestamp,
    TopicId, TopicPartition,
};
use highwater_protocol::peer::{
    AppendRequest, Ballot, GroupMessage, Heartbeat, RaftMessage, VoteRequest,
};

const DIR: &str = "/data/t-0";
const LOG_OPTIONS: Options = Options { segment_bytes_max: 64 << 10, keep_free_bytes: 0 };

#[test]
fn a_log_that_ends_before_damage_that_its_index_describes_is_found_by_a_script() {
    check_script(Mutant::DamageCutsLog, || {
        let (disk, end) = rotten(b'a');
        let (log, recovered) = open(&disk);
        log.end() == end && recovered.damage.is_none() && recovered.faulty.len() == 1
    });
}

#[test]
fn a_batch_that_is_replaced_by_another_one_is_found_by_a_script() {
    check_script(Mutant::MendUnchecked, || {
        let (disk, _) = rotten(b'a');
        let (mut log, _) = open(&disk);
        // A replica whose log went another way: the same lengths, other records.
        let other = open(&filled(b'b').0).0;
        mend(&mut log, &other) == 0
    });
}

#[test]
fn a_mended_file_that_is_not_on_disk_when_it_takes_its_name_is_found_by_a_script() {
    check_script(Mutant::MendNotFlushed, || {
        let (disk, end) = rotten(b'a');
        let (mut log, _) = open(&disk);
        let peer = open(&filled(b'a').0).0;
        let mended = mend(&mut log, &peer);
        drop(log);
        disk.lose_power_by(&mut |_| Fate::Lost);
        let (log, recovered) = open(&disk);
        let sound = log.read_frames(LogIndex::ZERO, 1 << 20).expect("it reads");
        mended == 1 && recovered.faulty.is_empty() && sound.end == end
    });
}

#[test]
fn a_replica_that_stands_with_what_it_cannot_read_is_found_by_a_script() {
    check_script(Mutant::FaultyStands, || {
        let mut raft = raft_with_five_entries();
        raft.set_legible(Legible::Gaps);
        let mut stood = false;
        for ms in (0..20_000).step_by(20) {
            raft.tick(Millis(ms));
            stood |= raft.standing() != Standing::Alone;
        }
        raft.set_legible(Legible::All);
        for ms in (20_000..40_000).step_by(20) {
            raft.tick(Millis(ms));
        }
        !stood && raft.standing() == Standing::Sounds
    });
}

#[test]
fn a_segment_that_goes_on_behind_an_older_seal_is_found_by_a_script() {
    check_script(Mutant::SealedTakesAppends, || {
        let (disk, _) = filled(b'a');
        let (mut log, _) = open(&disk);
        log.end_segment().expect("end");
        // Of a segment within a term the summary is empty, and always fits.
        append(&mut log, b'b');
        log.end_segment().expect("end");
        drop(log);
        // The seal is there, and the entries are not.
        disk.lose_power_by(&mut |what| match what {
            Unflushed::Page(_, 1) => Fate::Lost,
            Unflushed::Page(..) | Unflushed::Length(_) | Unflushed::Name(_) => Fate::Kept,
        });
        let (mut log, _) = open(&disk);
        append(&mut log, b'c');
        let end = log.end();
        log.end_segment().expect("end");
        drop(log);
        // The entries are there, and no younger seal.
        disk.lose_power_by(&mut |what| match what {
            Unflushed::Page(_, 0) => Fate::Lost,
            Unflushed::Page(..) | Unflushed::Length(_) | Unflushed::Name(_) => Fate::Kept,
        });
        open(&disk).0.end() == end
    });
}

/// Makes gaps of what cannot be read in these offsets; says of how many records.
fn give_up(log: &mut Log, offsets: Range<u64>) -> u64 {
    let mut giving = GivingUp::new(vec![Offset(offsets.start)..Offset(offsets.end)]);
    while log.give_up(&mut giving).expect("give up") == Left::Work {}
    giving.records()
}

#[test]
fn giving_up_what_can_be_read_is_found_by_a_script() {
    check_script(Mutant::GivesUpReadable, || {
        let (mut log, _) = open(&rotten(b'a').0);
        // As a reader noted it through a file that was mended since.
        log.end_segment().expect("end");
        let given = give_up(&mut log, 0..2);
        log.missing().expect("missing");
        given == 1
    });
}

#[test]
fn a_loss_that_is_accepted_before_it_is_on_disk_is_found_by_a_script() {
    check_script(Mutant::GapsNotFlushed, || {
        let (disk, end) = rotten(b'a');
        let (mut log, _) = open(&disk);
        log.end_segment().expect("end");
        give_up(&mut log, 1..2);
        drop(log);
        disk.lose_power_by(&mut |what| match what {
            Unflushed::Page(..) => Fate::Lost,
            Unflushed::Length(_) | Unflushed::Name(_) => Fate::Kept,
        });
        let (log, recovered) = open(&disk);
        log.end() == end
            && recovered.damage.is_none()
            && log.unreadable(Offset(0), 9).expect("told").runs.is_empty()
    });
}

#[test]
fn a_replica_made_anew_that_is_trusted_at_once_is_found_by_a_script() {
    check_script(Mutant::RebuiltTrusted, || Failed::follower().trusted() == [false; 3]);
}

#[test]
fn a_replica_made_anew_that_forgets_its_word_is_found_by_a_script() {
    check_script(Mutant::RebuiltForgetsItsWord, || {
        let mut failed = Failed::follower();
        failed.lead_for_ms(1_900);
        assert!(!failed.is_anew, "whoever leads may have lost its majority");
        failed.lead_for_ms(300);
        assert!(failed.is_anew && !failed.aside().is_empty());
        let told = |failed: &mut Failed, entries: Range<u64>| {
            failed.append(entries, 1);
            failed.is_trusted()
        };
        // Its leader may count both entries still, because of what the failed replica said.
        let early = told(&mut failed, 0..1);
        let late = told(&mut failed, 1..2);
        assert!(!late || failed.aside().is_empty(), "what was set aside is not needed any more");
        (early, late) == (false, true)
    });
}

#[test]
fn what_was_set_aside_before_a_restart_goes_once_the_replica_is_trusted() {
    let mut failed = Failed::follower();
    failed.lead_for_ms(2_200);
    assert!(failed.is_anew && failed.aside().len() == 1);
    failed.restart();
    failed.append(0..2, 0);
    assert!(!failed.is_trusted() && failed.aside().len() == 1, "nothing is committed yet");
    failed.lead_in(2);
    failed.append(2..3, 3);
    assert!(failed.is_trusted(), "it has all that was committed");
    assert!(failed.aside().is_empty(), "nobody needs it any more");
}

#[test]
fn files_that_cannot_be_moved_aside_at_once_are_moved_when_they_can() {
    let mut failed = Failed::follower();
    failed.disk.take_files(0);
    failed.lead_for_ms(3_000);
    assert!(failed.shard.replica(GROUP).is_none() && failed.aside().is_empty());
    failed.disk.give_files();
    failed.lead_for_ms(200);
    assert!(failed.shard.replica(GROUP).is_some_and(|replica| !replica.is_failed()));
    assert_eq!(failed.aside().len(), 1);
}

#[test]
fn where_heartbeats_are_rare_a_leader_has_to_be_heard_for_longer() {
    let mut failed = Failed::with_heartbeats_each(1_000);
    failed.lead_for_ms_each(19_000, 1_000);
    assert!(!failed.is_anew, "it may have lost its majority");
    failed.lead_for_ms_each(3_000, 1_000);
    assert!(failed.is_anew, "it was never silent for long");
}

/// The shard of a follower that had two entries of its leader, and whose disk failed then.
struct Failed {
    disk: Arc<SimDisk>,
    shard: Shard,
    now: Millis,
    is_anew: bool,
    heartbeat_ms: u64,
    life: u64,
    term: Term,
}

impl Failed {
    fn follower() -> Failed {
        Failed::with_heartbeats_each(100)
    }

    fn with_heartbeats_each(heartbeat_ms: u64) -> Failed {
        let disk = SimDisk::new(1);
        let (life, now, term) = (1, Millis(1), Term(1));
        let shard = open_shard(&disk, life, heartbeat_ms);
        let mut failed = Failed { disk, shard, now, is_anew: false, heartbeat_ms, life, term };
        failed.open();
        failed.append(0..1, 0);
        failed.disk.fail_next_flush_of(Path::new(DIR));
        failed.append(1..2, 0);
        assert!(failed.shard.replica(GROUP).expect("it is there").is_failed());
        failed
    }

    /// Killed, and started again.
    fn restart(&mut self) {
        self.life += 1;
        self.disk.begin_process();
        self.shard = open_shard(&self.disk, self.life, self.heartbeat_ms);
        self.open();
    }

    /// The same leader won another term.
    fn lead_in(&mut self, term: u32) {
        self.term = Term(term);
        // It asked this replica for its vote, too, and got others.
        let last = Position { term: Term(1), index: LogIndex(2) };
        let (term, ballot) = (self.term, Ballot::Transfer);
        self.hear(RaftMessage::Vote(VoteRequest { term, ballot, last }));
    }

    fn open(&mut self) {
        let options = ReplicaOptions {
            log: LOG_OPTIONS,
            flush: FlushPolicy::Ack,
            insync_replicas_min: 1,
            lag_ms_max: 10_000,
            retention: Retention::FOREVER,
            learner_bytes_per_s: None,
        };
        self.pass(Event::Open(Box::new(OpenReplica {
            partition: GROUP,
            dir: PathBuf::from(DIR),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: Vec::new(),
            moving: Moving::No,
            identity: Identity::Same,
            recovery: None,
            options,
        })));
    }

    /// Whether it is trusted once it was made anew, and with each entry that it gets.
    fn trusted(&mut self) -> [bool; 3] {
        self.lead_for_ms(2_200);
        let anew = self.is_trusted();
        // Nothing is committed in the leader's own term yet.
        self.append(0..1, 0);
        let first = self.is_trusted();
        self.append(1..2, 0);
        [anew, first, self.is_trusted()]
    }

    fn is_trusted(&self) -> bool {
        self.shard.replica(GROUP).expect("it is there").suspicion() == Suspicion::None
    }

    fn aside(&self) -> Vec<String> {
        self.disk.list(Path::new(STRAYS)).unwrap_or_default()
    }

    fn lead_for_ms(&mut self, ms: u64) {
        self.lead_for_ms_each(ms, 100);
    }

    fn lead_for_ms_each(&mut self, ms: u64, each_ms: u64) {
        for _ in 0..ms / each_ms {
            self.now.0 += each_ms;
            self.pass(Event::Tick);
            let commit = LogIndex(0);
            self.hear(RaftMessage::Heartbeat(Heartbeat { term: self.term, commit }));
        }
    }

    /// The leader sends some of its entries, each the mark of its term, and all is flushed.
    fn append(&mut self, entries: Range<u64>, commit: u64) {
        let term = if entries.start == 0 { Term(0) } else { Term(1) };
        let prev = Position { term, index: LogIndex(entries.start) };
        let frames = entries.map(|_| Mark::TermStart.encode(Offset(0), self.term));
        self.hear(RaftMessage::Append(AppendRequest {
            term: self.term,
            prev,
            commit: LogIndex(commit),
            start: None,
            entries: frames.collect(),
        }));
    }

    fn hear(&mut self, message: RaftMessage) {
        let messages = vec![GroupMessage { group: GROUP, epoch: RecoveryEpoch(0), message }];
        let (incarnation, to) = (Incarnation(1), Some(Incarnation(self.life)));
        self.pass(Event::Peer { from: NodeId(2), incarnation, to, messages });
    }

    /// A pass with all that follows from its flushes.
    fn pass(&mut self, event: Event) {
        let mut effects = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.shard.step(self.now, event, &mut effects);
            self.shard.finish_pass(self.now, &mut effects).expect("its journal is sound");
            for effect in effects.drain(..) {
                self.is_anew |= matches!(effect, Effect::Rebuilding(_));
                if let Effect::Flush(ticket, files) = effect {
                    let failed = |(file, it): (usize, &Arc<dyn File>)| {
                        let error: io::Error = it.flush().err()?;
                        Some(FlushFailure { file, error })
                    };
                    let failures = files.iter().enumerate().filter_map(failed).collect();
                    events.push(Event::Flushed(ticket, failures));
                }
            }
        }
    }
}

fn open_shard(disk: &Arc<SimDisk>, life: u64, heartbeat_ms: u64) -> Shard {
    let options = ShardOptions {
        me: NodeId(1),
        incarnation: Incarnation(life),
        seed: 7,
        heartbeat_ms,
        dir: PathBuf::from("/data/shard-0"),
        stray_dir: PathBuf::from(STRAYS),
        last_life: LastLife::Clean,
        directory: if life == 1 { Directory::New } else { Directory::Used },
        keep_free_bytes: 0,
    };
    Shard::open(options, Arc::clone(disk) as Arc<dyn Disk>, Millis(0)).expect("a sound disk")
}

const GROUP: TopicPartition = TopicPartition { topic: TopicId::CLUSTER, partition: PartitionId(9) };
const STRAYS: &str = "/data/stray";

#[test]
fn a_replica_that_gives_up_what_another_one_may_have_is_found_by_a_script() {
    check_script(Mutant::GivesUpForOthers, || {
        let (disk, _) = rotten(b'a');
        let open = OpenReplica {
            partition: TopicPartition::new(TopicId::CLUSTER, PartitionId(9)),
            dir: PathBuf::from(DIR),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: Vec::new(),
            moving: Moving::No,
            identity: Identity::Same,
            recovery: None,
            options: ReplicaOptions {
                log: LOG_OPTIONS,
                flush: FlushPolicy::Ack,
                insync_replicas_min: 1,
                lag_ms_max: 10_000,
                retention: Retention::FOREVER,
                learner_bytes_per_s: None,
            },
        };
        let boot = Boot { me: NodeId(1), incarnation: Incarnation(1), seed: 1 };
        let disk: Arc<dyn Disk> = disk;
        let mut replica = Replica::open(disk, None, open, boot, Millis(0)).expect("open");
        let mut out = Output::default();
        let wish = ReplicaCommand::Repair { give_up: vec![Offset(0)..Offset(9)], start: Offset(0) };
        replica.command(Millis(1), RequestId(7), wish, &mut out);
        let refused = |result: &Result<_, WireError>| {
            result.as_ref().is_err_and(|error| error.code == ErrorCode::Conflict)
        };
        matches!(&out.answered[..], [(RequestId(7), result)] if refused(result))
    });
}

/// Whether the script passes without the mutant and fails with it.
fn check_script(mutant: Mutant, script: impl Fn() -> bool) {
    mutant::choose(None);
    assert!(script(), "the script fails without any mutant");
    mutant::choose(Some(mutant));
    let survived = script();
    mutant::choose(None);
    assert!(!survived, "{mutant:?} was not found");
}

/// Three batches in one segment that takes appends, flushed and witnessed.
fn filled(value: u8) -> (Arc<SimDisk>, LogIndex) {
    let disk = SimDisk::new(3);
    let (mut log, _) = open(&disk);
    append(&mut log, value);
    (disk, log.end())
}

/// Appends three batches and flushes them.
fn append(log: &mut Log, value: u8) {
    for _ in 0..3 {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        builder.push(Timestamp(1), None, Some(&vec![value; 4_000]), &[]);
        log.append(Term(1), &builder.finish()).expect("append");
    }
    let (files, upto) = log.take_unflushed().expect("something was appended");
    files.iter().try_for_each(|file| file.flush()).expect("flush");
    log.flushed(upto).expect("flushed");
}

/// The same, with a bit of the second batch turned.
fn rotten(value: u8) -> (Arc<SimDisk>, LogIndex) {
    let (disk, end) = filled(value);
    disk.write_back(Path::new(DIR));
    let names = disk.list(Path::new(DIR)).expect("list");
    let name = names.iter().find(|name| name.ends_with(".log")).expect("there is one");
    assert!(disk.flip_bit(&PathBuf::from(DIR).join(name), (4_096 + 6_000) * 8));
    (disk, end)
}

fn open(disk: &Arc<SimDisk>) -> (Log, Recovered) {
    let partition = TopicPartition::new(TopicId::CLUSTER, PartitionId(9));
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    Log::open(disk, Path::new(DIR), partition, LOG_OPTIONS).expect("open")
}

/// Fetches what is missing from `peer`; says how many batches are whole again.
fn mend(log: &mut Log, peer: &Log) -> u64 {
    let missing = log.missing().expect("missing").expect("a batch rotted");
    let read = peer.read_frames(missing.behind.index, 1 << 20).expect("read");
    log.mend(missing.behind.index, &read.frames).expect("mend");
    let Some(mend) = log.take_mend().expect("take") else { return 0 };
    log.mended(mend.run()).expect("mended")
}

fn raft_with_five_entries() -> Raft {
    let base = Position { term: Term(0), index: LogIndex::ZERO };
    let starts = vec![TermStart { term: Term(1), start: LogIndex::ZERO }];
    let start = Start {
        me: NodeId(1),
        hard: HardState { term: Term(1), vote: None },
        terms: TermStarts::new(base, starts, LogIndex(5)),
        flushed: LogIndex(5),
        term_min: Term(0),
        made_with: VoterSet { voters: vec![NodeId(1), NodeId(2), NodeId(3)], learners: Vec::new() },
        changes: Vec::new(),
        suspicion: Suspicion::None,
        seed: 7,
    };
    Raft::new(start, RaftOptions::default(), Millis(0))
}
