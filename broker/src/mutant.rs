//! Planted bugs, to prove that the simulator finds bugs: each is one line in the code it spoils,
//! `if mutant::active(Mutant::Name)`, and is chosen at run time by the test of the tests.
//!
//! Without the feature `mutants` the question is answered `false` by the compiler and the line is
//! gone. With it, a thread runs as at most one mutant at a time. What each breaks and which
//! invariant finds it is listed in `MUTANTS.md`.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name),*];

            /// What it breaks, in words.
            pub fn breaks(self) -> &'static str {
                match self { $(Mutant::$name => concat!($($doc),*),)* }
            }
        }
    };
}

mutants! {
    /// A voter forgets whom it voted for in this term.
    VoteTwice,
    /// A voter gives its vote to a candidate whose log is behind its own.
    VoteForStaleLog,
    /// A voter compares the terms of the last entries only, not the ends of the logs.
    VoteByTermOnly,
    /// A leader commits an entry of an earlier term because a majority holds it (Raft paper, figure 8).
    CommitOldTerm,
    /// A leader takes one less than a majority for a majority.
    CommitByMinority,
    /// A leader counts its own entries before they are on disk.
    LeaderCountsUnflushed,
    /// A replica counts by an interval, and has others count so, before its journal says that it may.
    CountsBeforeNoted,
    /// The journal takes back that unflushed entries were counted before they are all on disk.
    VouchTakenBackEarly,
    /// A leader that goes by an interval counts what a follower has appended, though it does not vouch for it.
    LeaderCountsUnvouched,
    /// A follower reports what it appended as flushed.
    FollowerReportsUnflushed,
    /// A follower cuts its log at the end of an append that it holds already.
    CutOnLateAppend,
    /// A follower does not compare the term where an append joins on.
    JoinAnywhere,
    /// A follower stores other records than it was sent, with checksums that fit them.
    FollowerAltersRecords,
    /// A leader believes what it knew of a follower before that restarted.
    TrustOldLife,
    /// A shard lets frames of an earlier life pass.
    NoIncarnationFence,
    /// What a pass wants said leaves before its flushes are through.
    SpeaksBeforeFlushed,
    /// A vote is not written to the journal before the answer leaves.
    VoteNotJournaled,
    /// A Suspect replica votes and stands as if nothing was lost.
    SuspectVotes,
    /// A Suspect replica is trusted again with the first append that joins on.
    SuspectClearedEarly,
    /// A Suspect is trusted when it has appended what was committed, before that is on disk.
    TrustedAtAppend,
    /// With an interval a replica lets others count what lies behind a change of voters that is not on its disk.
    UnflushedVotersForgotten,
    /// A voter that forgot its votes lets the first leader that it hears count it.
    ForgottenVotesIgnored,
    /// A learner gets its vote before what is committed is on its disk.
    VoteBeforeFlushed,
    /// A learner gets its vote although it said that it cannot read all of its log.
    VoteWithGaps,
    /// What an earlier life knew to be lost is not handed on when a replica is opened again.
    SuspicionForgotten,
    /// A follower that was closed and opened again waits for an idle leader to speak first.
    ReopenedUnheard,
    /// A life that ends before it opened its replicas forgets that the one before ended uncleanly.
    UncleanEndForgotten,
    /// Where a voter's log ends counts for a Suspect although it was said to no life in particular.
    StaleReportCounts,
    /// A follower takes the leader's commit for its own log beyond what provably agrees.
    CommitUnmatched,
    /// A leader changes voters before it has committed in its own term.
    ChangeVotersEarly,
    /// A leader changes voters before the change before is committed.
    ChangeBeforeCommitted,
    /// A leader counts a learner as a voter.
    LearnerCounts,
    /// A leader counts a voter that the last change removed.
    RemovedVoterCounts,
    /// A learner gets its vote before it has what is committed.
    VoteBeforeCaughtUp,
    /// A voter is removed though those that stay do not keep up.
    ShrinksBlindly,
    /// A broker that left in this term comes back in it: what it said before it was deleted counts.
    BackInTheSameTerm,
    /// A replica that a move brings trusts its blank log.
    JoinsTrusted,
    /// A leader changes voters for a move that it asked about in an earlier term.
    MoveOutlivesItsTerm,
    /// A leader whose image has moved on meanwhile changes voters for the move it asked about.
    OldMoveLed,
    /// A leader says that the voters are the ones aimed at before that is committed.
    MoveOverAtAppend,
    /// A leader says that the voters are the ones aimed at without making sure that it leads still.
    MoveOverUnproven,
    /// Who is the only replica by the image takes itself for the only voter amid a move.
    AloneAmidMove,
    /// The end of another move of the partition ends this one.
    AnyMoveEnds,
    /// A move that is cancelled keeps its id: late word of the old aim ends it.
    CancelKeepsTheId,
    /// A cancelled move goes on to where it was going.
    CancelGoesOn,
    /// More moves than allowed are under way at once.
    MovesUnbounded,
    /// The record that ends a move names nobody whose replicas go.
    EndDropsNobody,
    /// Replicas are deleted while the saved image still has them.
    DeletedBeforeSaved,
    /// Entries that may have to be cut are replaced without asking whether there is room for a new segment.
    CutNeedsNoRoom,
    /// The journal is read from its first copy alone.
    SecondCopyIgnored,
    /// A directory without files passes for all that there was, although the journal knows better.
    EmptyDirectoryBelieved,
    /// A replica goes back to a broker that has not carried out yet that it was taken from it.
    ReturnsBeforeGivenUp,
    /// A broker says that it has given up a replica before it has deleted it.
    GivesUpTooEarly,
    /// A broker says that it has given up a replica while the saved image does not know that it was taken.
    GivesUpUnsaved,
    /// Word that an earlier replica was given up counts for one that was taken later.
    LateWordCounts,
    /// A broker that boots deletes what a move took from it before it knows whether another one brought it back.
    GivesUpBeforeCaughtUp,
    /// A broker without a saved image opens and closes what it reads of, before it has caught up.
    FollowsBlindly,
    /// A broker without an image to go by saves what it has read so far.
    SavesBlindly,
    /// The end of a flush vouches for what was appended after it began.
    FlushVouchesForLater,
    /// A failed flush is taken for a flush.
    FlushErrorIgnored,
    /// A Suspect stands, and is trusted when it wins, with entries that are not on disk.
    SuspectWinsUnflushed,
    /// A replica that was made anew is trusted, in the same term, before it has what it once said that it has.
    RebuiltForgetsItsWord,
    /// A replica whose files failed begins anew as one that has nothing to catch up with.
    RebuiltTrusted,
    /// A file that cannot be flushed takes every replica of the same flush out of service.
    FlushErrorSpreads,
    /// A flush that a closed replica had asked for counts for the one opened in its place.
    LateFlushCounts,
    /// The cut of a log is not flushed before what replaces it is.
    CutNotFlushed,
    /// Index entries are written before the frames they name are flushed.
    WitnessTooEarly,
    /// A log ends before a damaged frame although the index knows what it was.
    DamageCutsLog,
    /// A damaged frame is replaced by whatever another replica has of that length.
    MendUnchecked,
    /// A mended file takes the old one's name before it is on disk.
    MendNotFlushed,
    /// A replica that cannot read all that it has stands for elections.
    FaultyStands,
    /// Readers see up to the end of the log instead of the high watermark.
    ReadUncommitted,
    /// A `semi-sync` produce is answered when the leader has appended.
    AckAtAppend,
    /// A `sync` produce is answered at the commit, whoever is in sync.
    SyncAckAtCommit,
    /// A batch that a producer sends again is appended again.
    NoDeduplication,
    /// What is known of producers is kept when the log is cut.
    ProducersKeptAfterCut,
    /// A batch that is sent again is acknowledged before the first one is committed.
    DuplicateAckedEarly,
    /// A waiting produce is refused as never written when its leader steps down.
    RefusedAfterAppend,
    /// A conditional append is made wherever the log ends.
    ConditionIgnored,
    /// A condition is compared with what is committed, not with the end of the log.
    ConditionOnCommitted,
    /// A condition is compared before it is known whether the batch was sent before.
    ConditionBeforeRepeat,
    /// A conflict is told before the end that it names is committed.
    ConflictBeforeCommitted,
    /// A receipt claims that every voter has the batch.
    ReceiptOverclaims,
    /// A commit goes back to what an older message says.
    CommitGoesBack,
    /// After a jump of the clock a replica gives up a tenth with each look, not each hour.
    TenthEachLook,
    /// A replica gives up records when the decision is appended, not when it is committed.
    TrimAtAppend,
    /// The new start of a log is not flushed before its segments are removed.
    StartNotFlushed,
    /// A log that is opened again starts where its oldest segment does.
    StartGoesBack,
    /// A replica that starts where its leader does takes the index there for the offset.
    StartAtIndex,
    /// A replica that starts where its leader does is not told who votes.
    StartForgetsVoters,
    /// What producers sent before a log's start is forgotten with it.
    StartForgetsProducers,
    /// A replica that lost its log's beginning starts where its leader does and keeps its waiters.
    StartKeepsWaiters,
    /// A broker is taken out of the cluster although it hosts a replica.
    HostRemoved,
    /// A replica that lacks descriptors for a file that it has to read takes that for a failure of the file.
    ShortageFails,
    /// A broker that was taken out registers again with the directory that it had.
    RemovedReturns,
    /// A data directory that another one has replaced registers again.
    ReplacedReturns,
    /// A drained broker gets new replicas.
    DrainedTakesWork,
    /// A drained broker is active again when it restarts.
    DutyForgotten,
    /// A broker is retired although a move brings it a replica.
    RetiredOverMove,
    /// A vote on the metadata is taken although those that stay are no majority.
    LastVotersRemoved,
    /// A leader may lead a move that is over or was turned back.
    MoveBeginsUnasked,
    /// A replica that a move took away is not closed.
    MovedStaysOpen,
    /// An image that begins a log anew forgets the moves under way.
    ImageForgetsMoves,
    /// An image that begins a log anew forgets who is fenced.
    ImageForgetsFenced,
    /// A segment takes appends again although a seal was written for it.
    SealedTakesAppends,
    /// New partitions are placed as if there were no racks.
    PlacementIgnoresRacks,
    /// A shard hears replicas of a group that a recovery has given up.
    OldEpochHeard,
    /// Voters that marks of the group which was given up name vote in the new one.
    OldVotersCount,
    /// A group that begins anew goes on in the terms of the one that was given up.
    RecoveredInOldTerm,
    /// Which group a replica belongs to is not in the journal.
    EpochNotJournaled,
    /// The replica that a group begins anew from is discarded like the others.
    FounderDiscarded,
    /// Giving up what cannot be read takes what can be read, too.
    GivesUpReadable,
    /// The index that says what was given up takes its name before it is on disk.
    GapsNotFlushed,
    /// A replica gives up what another one may have.
    GivesUpForOthers,
    /// Giving up what cannot be read takes what nobody named, too.
    GivesUpUnnamed,
    /// A gap does not say whose batch it stands for.
    GapForgetsProducer,
    /// What evens a cluster out does not look at racks.
    BalanceIgnoresRacks,
    /// New partitions are placed as if nothing was on its way to another broker.
    PlacementIgnoresMoves,
    /// A learner is sent as much as it takes, whatever the throttle says.
    LearnersUnthrottled,
    /// Every copy under way gets the whole rate of the cluster.
    ShareNotDivided,
    /// A broker is replaced as soon as it is fenced.
    ReplacedTooSoon,
    /// A broker that is back is replaced all the same.
    ReturnedStillReplaced,
    /// The controller evens out while others move replicas, and while brokers are away.
    BalanceAmidMoves,
    /// What counts of a partition's load is its last minute, whoever was heard for how long.
    BurstsCount,
    /// A partition that was moved for its load is moved again as soon as that changes.
    LoadMovesUnrested,
    /// A coordinator takes a request of a member that was held up for its newest.
    OldBeatCounts,
    /// A coordinator believes what a member owns although it has not heard of this term.
    OwnedBelievedUnheard,
    /// A partition counts as given up as soon as its owner was told to.
    RevokedAtOnce,
    /// A member gets new partitions before it has given up what it must.
    GivenBeforeTaken,
    /// A partition is given to whom the target says although another member owns it.
    TargetGivenAtOnce,
    /// A commit of a member that was held up counts.
    OldCommitCounts,
    /// A member commits for partitions that it does not own.
    AnyoneCommits,
    /// A coordinator answers members that have heard a newer one.
    OldCoordinatorAnswers,
    /// A new coordinator goes on as if it had heard every member just before.
    SessionsEndEarly,
    /// A member that joins once more by a request that was held up owns nothing from then on.
    JoinedTwice,
    /// A coordinator takes a commit of a member that has not heard of this term.
    OldTermCommits,
    /// A member that is silent stays one.
    SilentStay,
    /// A member that keeps what it must give up stays one.
    KeepersStay,
    /// The time to give something up counts from when the coordinator said so, not from when the member is known to know.
    ToldCountsAsKnown,
    /// A new coordinator does not add the time in which a former one may have answered.
    TakeoverUncounted,
    /// A member gets the place of another one of its name that has not left.
    PlaceTaken,
    /// The place of a member that comes back under its name is not kept.
    PlaceNotKept,
    /// What a group has committed goes with its last member.
    OffsetsGoWithMembers,
    /// Offsets are set from outside while there are members.
    OutsiderCommits,
    /// A group commits for any number of partitions, with notes of any length together.
    OffsetsWithoutBound,
    /// What a member had that is gone is not given out among those who stay.
    LeaverNotMissed,
    /// Partitions that a topic gets later are not given out.
    GrowthUnseen,
    /// Members that come later get nothing.
    NotEvened,
    /// A target is made as if nobody had anything.
    NotSticky,
    /// A log begun anew forgets what members must give up and have not.
    AnewForgetsRevoking,
}

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Makes this thread run as a mutant, or as itself.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    /// Whether this thread runs as that mutant.
    pub fn active(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{active, choose};

/// Whether this thread runs as that mutant: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn active(_mutant: Mutant) -> bool {
    false
}
