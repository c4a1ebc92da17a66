//! What a broker can answer instead of a result: one table of numbers, meanings, retriability and
//! remedies.
//!
//! Numbers are Kafka's wherever Kafka has the case, so that a Kafka listener needs no second table;
//! our own begin at 1000. Numbers are never reused.

use std::fmt;

use crate::ids::Offset;

macro_rules! error_codes {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident = $number:literal, $retriable:ident, $label:literal, $remedy:literal;
    )*) => {
        /// Why a request was not carried out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number on the wire; 0 is left for success.
            pub fn number(self) -> u16 {
                match self { $(ErrorCode::$name => $number,)* }
            }

            /// The code for a number, or `None` for one that this build does not know.
            pub fn from_number(number: u16) -> Option<ErrorCode> {
                match number { $($number => Some(ErrorCode::$name),)* _ => None }
            }

            /// The name in capitals that Kafka's tools print, for people and for search engines.
            pub fn label(self) -> &'static str {
                match self { $(ErrorCode::$name => $label,)* }
            }

            /// The first line of the code's documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$name => concat!($($doc),*).trim_ascii(),)* }
            }

            /// What a person can do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(ErrorCode::$name => $remedy,)* }
            }

            /// Whether the same request may succeed later without anyone changing it.
            pub fn retriable(self) -> bool {
                match self { $(ErrorCode::$name => retriable!($retriable),)* }
            }
        }
    };
}

macro_rules! retriable {
    (retriable) => {
        true
    };
    (fatal) => {
        false
    };
}

error_codes! {
    /// The broker failed in a way that has no number of its own; its log says more.
    Internal = 1000, fatal, "INTERNAL",
        "Read the broker's log around the time of the request; it names what failed.";
    /// The offset lies before the log's start or at or behind its end.
    OffsetOutOfRange = 1, fatal, "OFFSET_OUT_OF_RANGE",
        "Read from a place that exists: `--from start` or `--from end`; `hw partition describe` shows both ends.";
    /// The batch's checksum does not fit its bytes.
    CorruptBatch = 2, fatal, "CORRUPT_MESSAGE",
        "Something between the program and the broker changes bytes, or the program computes the checksum wrongly; records already stored are safe.";
    /// No topic or partition of that name or id exists.
    UnknownTopicOrPartition = 3, retriable, "UNKNOWN_TOPIC_OR_PARTITION",
        "Compare the name with `hw topic list`; a topic that was just made may take a moment to be known everywhere.";
    /// The partition has no leader at the moment.
    LeaderNotAvailable = 5, retriable, "LEADER_NOT_AVAILABLE",
        "Wait: an election takes under a second. If it stays, `hw partition list --problem leaderless` shows which brokers are missing.";
    /// This broker does not lead the partition.
    NotLeader = 6, retriable, "NOT_LEADER_OR_FOLLOWER",
        "Ask the broker that leads, as `hw partition list` shows; clients do so by themselves.";
    /// The deadline passed; a produced batch may or may not have been written.
    RequestTimedOut = 7, retriable, "REQUEST_TIMED_OUT",
        "Look before asking again, for it may have happened; an idempotent producer may simply send again. Allow more time if the cluster is loaded.";
    /// No session with the broker: it is starting, stopping or fenced.
    BrokerNotAvailable = 8, retriable, "BROKER_NOT_AVAILABLE",
        "Ask another broker, or wait until `hw cluster brokers` shows this one as up.";
    /// The batch is larger than the topic's `max.message.bytes`.
    BatchTooLarge = 10, fatal, "MESSAGE_TOO_LARGE",
        "Send smaller batches, or raise `max.message.bytes` of the topic with `hw topic alter`.";
    /// The note beside a committed offset is too long.
    OffsetMetadataTooLarge = 12, fatal, "OFFSET_METADATA_TOO_LARGE",
        "Keep notes beside offsets within 4096 bytes; larger things belong into a topic.";
    /// The topic's name breaks the rules for names.
    InvalidTopic = 17, fatal, "INVALID_TOPIC_EXCEPTION",
        "Take 1 to 249 letters, digits, dots, underscores and hyphens; names that begin with `__` are the cluster's own.";
    /// Fewer in-sync replicas than `min.insync.replicas`; nothing was written.
    NotEnoughReplicas = 19, retriable, "NOT_ENOUGH_REPLICAS",
        "Bring replicas back: `hw partition list --problem under-replicated` shows which lag. Lowering `min.insync.replicas` trades safety for writes.";
    /// Written, but fewer in-sync replicas than `min.insync.replicas` have it.
    NotEnoughReplicasAfterAppend = 20, retriable, "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "The record is written and stays; whether that is enough is for the program to say. Bring replicas back as for NOT_ENOUGH_REPLICAS.";
    /// The group's name breaks the rules for names.
    InvalidGroup = 24, fatal, "INVALID_GROUP_ID",
        "Take 1 to 249 bytes without control characters.";
    /// The group has no such member: it left, or was not heard for its session's time.
    UnknownMember = 25, fatal, "UNKNOWN_MEMBER_ID",
        "Join anew; consumers do so by themselves. If it happens again and again, records take longer than `session_timeout` or `poll_interval_max` allow.";
    /// The principal may not do this.
    Unauthorized = 29, fatal, "TOPIC_AUTHORIZATION_FAILED",
        "Use a certificate whose owner may do this.";
    /// The batch's timestamps lie outside what the topic accepts.
    InvalidTimestamp = 32, fatal, "INVALID_TIMESTAMP",
        "Set the clock of the producing machine, or leave timestamps to the broker.";
    /// The API or its version is not spoken here.
    UnsupportedVersion = 35, fatal, "UNSUPPORTED_VERSION",
        "Client and broker are of different builds: finish the upgrade, or use a client as old as the broker.";
    /// A topic of that name exists already.
    TopicExists = 36, fatal, "TOPIC_ALREADY_EXISTS",
        "Choose another name, or use the topic that is there: `hw topic describe` shows it.";
    /// The number of partitions is zero or too large.
    InvalidPartitions = 37, fatal, "INVALID_PARTITIONS",
        "Ask for 1 to 10000 partitions; they can be added later and never removed.";
    /// The replication factor is zero or larger than the number of brokers.
    InvalidReplicationFactor = 38, fatal, "INVALID_REPLICATION_FACTOR",
        "Ask for no more replicas than brokers are alive (`hw cluster brokers`), and 7 at most.";
    /// A configuration key is unknown or its value not allowed.
    InvalidConfig = 40, fatal, "INVALID_CONFIG",
        "`hw explain KEY` says what a setting takes; the detail of the error names every mistake.";
    /// The controller has moved or has no leader at the moment.
    NotController = 41, retriable, "NOT_CONTROLLER",
        "Wait: the controller elects a leader within a second. If it stays, a majority of the controller's brokers is down.";
    /// The request contradicts itself or breaks a rule of the protocol.
    InvalidRequest = 42, fatal, "INVALID_REQUEST",
        "The detail says which rule was broken; a client of another maker may need a correction.";
    /// The batch does not continue the producer's sequence.
    OutOfOrderSequence = 45, fatal, "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "A producer has skipped a batch: close it and open a new one; records in between were not written.";
    /// A newer epoch of the same producer has written.
    ProducerFenced = 47, fatal, "INVALID_PRODUCER_EPOCH",
        "Another instance of this producer has taken over: stop this one.";
    /// The partition's files failed on this broker; other replicas are not affected.
    StorageFailed = 56, retriable, "KAFKA_STORAGE_ERROR",
        "Try again: another replica has it, and what was lost here is fetched from there. If it stays, `hw cluster health`, \
         `hw partition repair` and the broker's log say what and why.";
    /// The partition does not remember this producer: start a new epoch at sequence 0.
    UnknownProducer = 59, fatal, "UNKNOWN_PRODUCER_ID",
        "Open a new producer; its earlier batches are in the log or were given up by retention.";
    /// The group has members, and this is only possible without.
    GroupNotEmpty = 68, fatal, "NON_EMPTY_GROUP",
        "Stop the group's members first: `hw group describe NAME` shows them.";
    /// No group of that name has members or committed offsets.
    GroupNotFound = 69, fatal, "GROUP_ID_NOT_FOUND",
        "Compare the name with `hw group list`; groups without members are forgotten after seven days, or `offsets.retention.minutes`.";
    /// The client's leader epoch is older than the partition's.
    FencedLeaderEpoch = 74, retriable, "FENCED_LEADER_EPOCH",
        "Fetch metadata again and repeat; clients do so by themselves.";
    /// The client's leader epoch is newer than the partition's.
    UnknownLeaderEpoch = 75, retriable, "UNKNOWN_LEADER_EPOCH",
        "Wait a moment: the broker that was asked has not heard of the newest election yet.";
    /// The batch is packed with a codec that nobody knows, or that the topic does not take.
    UnsupportedCompression = 76, fatal, "UNSUPPORTED_COMPRESSION_TYPE",
        "Have the producer use the codec that the topic wants (`compression.type` in `hw topic alter NAME`), or none.";
    /// The new leader does not know its high watermark yet.
    OffsetNotAvailable = 78, retriable, "OFFSET_NOT_AVAILABLE",
        "Wait: the new leader commits a mark of its own term first, which takes milliseconds.";
    /// The group has as many members as a group may have.
    GroupFull = 81, fatal, "GROUP_MAX_SIZE_REACHED",
        "Run fewer members: more than there are partitions have nothing to read.";
    /// The batch or one of its records breaks the format.
    InvalidRecord = 87, fatal, "INVALID_RECORD",
        "The program builds batches wrongly; the detail says where.";
    /// No broker of that id is part of the cluster.
    UnknownBroker = 102, fatal, "BROKER_ID_NOT_REGISTERED",
        "Compare the id with `hw cluster brokers`, which shows those that are part of it.";
    /// The member's epoch is not the group's: others own its partitions now.
    FencedMemberEpoch = 110, fatal, "FENCED_MEMBER_EPOCH",
        "Give everything up and join anew; consumers do so by themselves.";
    /// Another member has that instance's name and has not left.
    UnreleasedInstance = 111, retriable, "UNRELEASED_INSTANCE_ID",
        "Stop the other program of that name, or wait until its session ends; every running program needs an instance's name of its own.";
    /// The member has been told of a newer epoch meanwhile, or does not own the partition.
    StaleMemberEpoch = 113, fatal, "STALE_MEMBER_EPOCH",
        "Commit only what the member owns, with the epoch of its last heartbeat; consumers do so by themselves.";
    /// The broker's queue for this partition is full; nothing was written.
    Overloaded = 1001, retriable, "OVERLOADED",
        "Slow down or spread the load over more partitions; clients wait and send again by themselves.";
    /// The broker's disk has passed its soft mark; nothing was written.
    DiskFull = 1002, retriable, "DISK_FULL",
        "Free space: `hw topic trim`, a shorter `retention.ms` or `retention.bytes`, or a larger disk; `data.reserve_mib` sets the mark.";
    /// The batch was replaced by a newer leader's before it was committed.
    Superseded = 1003, retriable, "SUPERSEDED",
        "Send it again: the batch was surely not kept.";
    /// The broker was taken out of the cluster and cannot register again with this data directory.
    BrokerRemoved = 1010, fatal, "BROKER_REMOVED",
        "Put the old data away, make the directory anew with `highwater format`, and start the broker again.";
    /// The partition has not lost its majority, so nothing of it need be given up.
    MajorityAlive = 1050, fatal, "MAJORITY_ALIVE",
        "Wait: the replicas that are alive elect a leader by themselves. `hw partition explain TOPIC/P` shows what keeps them from it.";
    /// The topic's `delete.protection` is on; nothing was deleted.
    TopicProtected = 1025, fatal, "TOPIC_PROTECTED",
        "If it is to go all the same: `hw topic alter NAME delete.protection=off`, then delete it.";
    /// The change contradicts what the cluster is like at the moment; nothing was changed.
    Conflict = 1065, fatal, "CONFLICT",
        "The detail says what stands in the way: wait until that is over, or end it, and ask again.";
    /// The partition does not end where a conditional append expects it; nothing was written.
    WrongEnd = 1070, fatal, "WRONG_EXPECTED_END",
        "Read what lies between the end that was expected and the end in the error, decide anew, and expect that end.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An error as it travels: the code for machines, the detail for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct WireError {
    /// What a program decides by.
    pub code: ErrorCode,
    /// Names the thing, the reason and the way out.
    pub detail: String,
    /// With `WrongEnd`, in the answer to a produce: where the partition ends.
    pub end: Option<Offset>,
}

impl WireError {
    /// An error with its explanation.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> WireError {
        WireError { code, detail: detail.into(), end: None }
    }

    /// The refusal of a conditional append, with the end that it was compared with.
    pub fn wrong_end(end: Offset, detail: impl Into<String>) -> WireError {
        WireError { code: ErrorCode::WrongEnd, detail: detail.into(), end: Some(end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_names_one_code_and_leads_back_to_it() {
        let numbers: HashSet<u16> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        assert!(!numbers.contains(&0), "0 means success");
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
        }
    }

    #[test]
    fn the_table_for_readers_is_the_table_of_the_code() {
        let wire = include_str!("../WIRE.md");
        let (_, table) =
            wire.split_once("|---|---|---|---|\n| 1000 |").expect("the table of errors");
        assert_eq!(table.lines().count(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let retriable = if code.retriable() { "yes" } else { "no" };
            let meaning = code.meaning().trim_end_matches('.');
            let row = format!("| {} | {} | {retriable} | {meaning} |", code.number(), code.label());
            assert!(wire.contains(&row), "WIRE.md lacks {row}");
        }
    }
}
