//! Opening a replica: what the log, the journal and the last life say about whether it can be
//! believed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{LogIndex, NodeId, Position, Term, TopicPartition};

use super::event::{Identity, Moving, OpenReplica};
use crate::disk::Disk;
use crate::log::{self, FaultyRange, Log, Recovered};
use crate::mutant::{self, Mutant};
use crate::raft::{
    CommitNews, Counts, HardState, Millis, Options, Raft, Start, Suspicion, TermStart, TermStarts,
};

use super::acks::Waiters;
use super::producers::Producers;
use super::receive::Parsed;
use super::recovery::{Recovery, made_with, since, term_min, voter_set};
use super::repair::Repair;
use super::retention::Starts;
use super::shortage::Shortage;
use super::vouch::Vouch;
use super::watermarks::Told;
use super::{Boot, Failure, Flush, LastLife, Replica, ReplicaOptions};

/// What must not be forgotten of a replica, whatever becomes of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Its term and vote.
    pub hard: HardState,
    /// Whether its log may lack what it once counted; a clean restart in between heals nothing.
    pub suspicion: Suspicion,
    /// Whether an unclean end lies between the last time that its files were opened and the next:
    /// then its tail may be gone, though no life has found that out yet.
    pub last_life: LastLife,
    /// The recovery that began its group, if one did.
    pub recovery: Option<Recovery>,
    /// What others may count of it: after an unclean end it may have lost that.
    pub vouches: Counts,
    /// Whether it ever had anything on disk.
    pub logged: Logged,
}

/// Whether a replica ever had anything on disk: then an empty directory is a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Logged {
    /// Not that the journal knew.
    Nothing,
    /// It had; so there is a segment, or a start that voids them all.
    Something,
}

impl Replica {
    /// Opens or makes the replica's log and starts as a follower. `known` is what the shard's
    /// journal holds of it.
    pub fn open(
        disk: Arc<dyn Disk>,
        known: Option<Remembered>,
        open: OpenReplica,
        boot: Boot,
        now: Millis,
    ) -> io::Result<Replica> {
        let Found { log, recovered, changes, suspicion } = take_stock(disk, known, &open, boot.me)?;
        let OpenReplica { partition, voters, learners, recovery, options, .. } = open;
        // Who began a group anew did so with its gaps: nobody has more.
        let founded = recovery.is_some_and(|recovery| recovery.founder == boot.me);
        let serves_nobody = voters == [boot.me] && !founded && log.is_faulty();
        let starts = Starts::recovered(&log, &recovered.marks);
        let start = Start {
            me: boot.me,
            hard: known.map(|known| known.hard).unwrap_or_default(),
            terms: shape(&log, &recovered.term_starts),
            flushed: log.durable().min(log.end()),
            term_min: term_min(recovery),
            made_with: made_with(recovery, voters, learners),
            changes,
            suspicion,
            seed: seed(boot, partition),
        };
        warn_if_suspect(partition, suspicion);
        let vouch = Vouch::new(known.map_or(Counts::Flushed, |known| known.vouches), log.end());
        let counts = vouch.counts(options.flush);
        let raft = Raft::new(start, raft_options(partition, &options, counts), now);
        let unflushed = log.durable() < log.end();
        let mut replica = Replica {
            partition,
            me: boot.me,
            recovery,
            options,
            now,
            log,
            raft,
            producers: Producers::default(),
            waiters: Waiters::default(),
            vouch,
            flush: Flush { under_way: None, oldest_unflushed: unflushed.then_some(now) },
            told: Told::default(),
            wishes: super::commands::Wishes::default(),
            starts,
            failure: Failure::None,
            disk_is_full: false,
            shortage: Shortage::default(),
            repair: Repair::opened(serves_nobody),
            parsed: Parsed::default(),
        };
        replica.fold_producers(recovered.producers_from);
        Ok(replica)
    }
}

/// What lies on the disk, and what of it can be believed.
struct Found {
    log: Log,
    recovered: Recovered,
    /// The changes of voters that the log names.
    changes: Vec<(LogIndex, VoterSet)>,
    suspicion: Suspicion,
}

/// Opens the log, gives up what a founder's operator accepted, and refuses what nobody can fill again.
fn take_stock(
    disk: Arc<dyn Disk>,
    known: Option<Remembered>,
    open: &OpenReplica,
    me: NodeId,
) -> io::Result<Found> {
    let OpenReplica { partition, dir, identity, recovery, options, .. } = open;
    let forgotten = is_forgotten(*identity, known);
    let (mut log, recovered) = open_log(disk, dir, *partition, (options.log, forgotten))?;
    let suspicion = suspicion(known, *identity, &recovered);
    if *identity == Identity::Founds {
        accept_loss(*partition, *recovery, known, &mut log)?;
    }
    let since = since(*recovery);
    let marks = recovered.marks.iter().cloned();
    let changes: Vec<_> = marks.filter_map(|placed| voter_set(since, placed)).collect();
    if is_alone(open, &changes, me) {
        refuse_if_lost(*partition, &recovered, suspicion)?;
    }
    Ok(Found { log, recovered, changes, suspicion })
}

/// Whether nobody else votes, by the image and by what is left of the log: either may be the older one.
fn is_alone(open: &OpenReplica, changes: &[(LogIndex, VoterSet)], me: NodeId) -> bool {
    let settled = open.moving == Moving::No || mutant::active(Mutant::AloneAmidMove);
    let last = changes.last().map_or(&open.voters, |(_, set)| &set.voters);
    settled && open.voters == [me] && *last == [me]
}

/// Whether what lies there is no copy that anybody counts on.
fn is_forgotten(identity: Identity, known: Option<Remembered>) -> bool {
    let lost = |known: Remembered| known.suspicion == Suspicion::LostIdentity;
    identity == Identity::Joins || known.is_some_and(lost)
}

/// What is left of a deletion that was cut short is nobody's copy. With gaps it would pass for one: what
/// comes behind them is appended and counted.
fn open_log(
    disk: Arc<dyn Disk>,
    dir: &Path,
    partition: TopicPartition,
    (options, forgotten): (log::Options, bool),
) -> io::Result<(Log, Recovered)> {
    let opened = Log::open(Arc::clone(&disk), dir, partition, options)?;
    if !forgotten || opened.1.faulty.is_empty() {
        return Ok(opened);
    }
    drop(opened);
    log::remove(disk.as_ref(), dir)?;
    Log::open(disk, dir, partition, options)
}

/// How Raft goes about a replica with these options.
pub(super) fn raft_options(
    partition: TopicPartition,
    options: &ReplicaOptions,
    counts: Counts,
) -> Options {
    // Every broker acts on what the controller commits; consumers read at the leader.
    let commit_news = match partition == TopicPartition::CLUSTER {
        true => CommitNews::Prompt,
        false => CommitNews::Lazy,
    };
    let ReplicaOptions { lag_ms_max, learner_bytes_per_s, .. } = *options;
    Options { counts, commit_news, lag_ms_max, learner_bytes_per_s, ..Options::default() }
}

/// What the files and the last life give reason to doubt.
fn found_suspicion(
    known: Option<Remembered>,
    identity: Identity,
    recovered: &Recovered,
) -> Suspicion {
    let identity = match mutant::active(Mutant::JoinsTrusted) && identity == Identity::Joins {
        true => Identity::Same,
        false => identity,
    };
    tell_faulty(recovered);
    match (identity, &recovered.damage) {
        (Identity::Lost | Identity::Joins, _) => return Suspicion::LostIdentity,
        (Identity::Same, Some(damage)) => {
            tracing::error!(at = %damage.at, until = %damage.until, "{}", damage.detail);
            return Suspicion::Damage;
        }
        (Identity::Founds, _) => return Suspicion::None,
        (Identity::Same, None) => {}
    }
    // A replica without a term in the journal never acknowledged anything.
    let Some(known) = known else { return Suspicion::None };
    // By what others counted of it, whatever the topic says now.
    match (known.vouches, known.last_life) {
        (Counts::Appended, LastLife::Unclean) => Suspicion::LostTail,
        (Counts::Appended, LastLife::Clean)
        | (Counts::Flushed, LastLife::Unclean | LastLife::Clean) => Suspicion::None,
    }
}

fn warn_if_suspect(partition: TopicPartition, suspicion: Suspicion) {
    if suspicion != Suspicion::None {
        tracing::warn!(%partition, ?suspicion, "the replica votes again once it caught up");
    }
}

/// Files that are in order again prove nothing: only a leader's word ends a suspicion, or a recovery
/// that begins with what there is.
fn suspicion(known: Option<Remembered>, identity: Identity, recovered: &Recovered) -> Suspicion {
    let found = found_suspicion(known, identity, recovered);
    let remembered = known.map_or(Suspicion::None, |known| known.suspicion);
    match (mutant::active(Mutant::SuspicionForgotten), identity) {
        (_, Identity::Founds) => Suspicion::None,
        (true, Identity::Same | Identity::Lost | Identity::Joins) => found,
        (false, Identity::Same | Identity::Lost | Identity::Joins) => found.max(remembered),
    }
}

fn accept_loss(
    partition: TopicPartition,
    recovery: Option<Recovery>,
    known: Option<Remembered>,
    log: &mut Log,
) -> io::Result<()> {
    refuse_if_too_new(partition, recovery, known, log)?;
    log.accept_loss()
}

/// The terms of a group that begins anew come after all that its log has: otherwise marks of the old
/// one would pass for its own.
fn refuse_if_too_new(
    partition: TopicPartition,
    recovery: Option<Recovery>,
    known: Option<Remembered>,
    log: &Log,
) -> io::Result<()> {
    let since = since(recovery);
    let newest = log.term_at(log.end()).unwrap_or_default();
    let newest = newest.max(known.map_or(Term(0), |known| known.hard.term));
    if newest < since || mutant::active(Mutant::OldVotersCount) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{partition} was to be recovered from here in term {since}, but term {newest} is known here already; recover \
         it again (`hw partition unsafe-recover`)"
    )))
}

/// Names what cannot be read any more, for people.
fn tell_faulty(recovered: &Recovered) {
    for range in recovered.faulty.iter().take(FAULTY_SHOWN) {
        let FaultyRange { from, until, file } = range;
        let file = file.display();
        tracing::error!(%from, %until, %file, "a batch cannot be read any more");
    }
}

/// A single voter has nobody to be repaired from: only people may accept a loss.
fn refuse_if_lost(
    partition: TopicPartition,
    recovered: &Recovered,
    suspicion: Suspicion,
) -> io::Result<()> {
    match suspicion {
        Suspicion::None | Suspicion::LostTail => return Ok(()),
        Suspicion::Damage | Suspicion::LostIdentity => {}
    }
    let gone = "its files are gone, or were damaged in an earlier life";
    let what = recovered.damage.as_ref().map_or(gone, |damage| &damage.detail);
    let way_out = match partition == TopicPartition::CLUSTER {
        true => {
            "put the lost ones back, or name in `cluster.controllers` the brokers that vote beside it by now"
        }
        false => "repair them or accept the loss (`hw partition unsafe-recover`)",
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the only replica of {partition} has lost records: {what}; the files are left as they \
             are, {way_out}"
        ),
    ))
}

/// So many damaged ranges are named one by one.
const FAULTY_SHOWN: usize = 20;

fn shape(log: &Log, term_starts: &[crate::log::TermStart]) -> TermStarts {
    let (start, _) = log.start();
    let term = log.term_at(start).unwrap_or_default();
    let to_raft =
        |start: &crate::log::TermStart| TermStart { term: start.term, start: start.start };
    let starts = term_starts.iter().map(to_raft).collect();
    TermStarts::new(Position { term, index: start }, starts, log.end())
}

/// A seed of its own for every replica: FNV-1a over what tells them apart.
fn seed(boot: Boot, partition: TopicPartition) -> u64 {
    let topic = partition.topic.0.as_u128();
    let words = [
        boot.seed,
        u64::from(boot.me.0),
        boot.incarnation.0,
        topic as u64,
        (topic >> 64) as u64,
        u64::from(partition.partition.0),
    ];
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
