//! The bytes of the journal, as `FORMAT.md` describes them: a header, then records until zeros.
//!
//! Each record carries a sequence number and a checksum over everything behind its own; the first of
//! a file holds all that was live when the file was made. Reading stops at the first record that is
//! not whole, and says whether it stopped at the end or at garbage.

use std::collections::BTreeMap;

use highwater_protocol::batch::crc32c;
use highwater_protocol::ids::{NodeId, PartitionId, RecoveryEpoch, Term, TopicId, TopicPartition};
use uuid::Uuid;

use crate::raft::{Counts, HardState, Suspicion};
use crate::replica::{LastLife, Logged, Recovery, Remembered};

/// What a record says of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This is what is to be remembered of it.
    Set(Remembered),
    /// It was deleted.
    Gone,
}

/// What one copy of the journal holds.
#[derive(Debug)]
pub struct Replayed {
    /// The sequence number of its last whole record; 0 if there is none.
    pub sequence: u64,
    /// Whether the file says that votes were lost before it was made.
    pub memory: Memory,
    /// What stands after that record.
    pub live: BTreeMap<TopicPartition, Remembered>,
    garbage_behind: bool,
}

impl Replayed {
    /// What a copy holds that is missing or unreadable.
    pub fn nothing() -> Replayed {
        Replayed {
            sequence: 0,
            memory: Memory::Whole,
            live: BTreeMap::new(),
            garbage_behind: false,
        }
    }

    /// Whether nothing but zeros follows the last whole record.
    pub fn is_clean(&self) -> bool {
        self.sequence > 0 && !self.garbage_behind
    }
}

/// How far the journal can be believed when it knows nothing of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Every vote ever given is in it.
    Whole,
    /// It was found missing or unreadable once.
    Lost,
}

/// A new file: the header, and one record with all that is live.
pub fn file_of(
    sequence: u64,
    memory: Memory,
    live: &BTreeMap<TopicPartition, Remembered>,
) -> Vec<u8> {
    let changes = live.iter().map(|(partition, known)| (*partition, Change::Set(*known))).collect();
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend(memory_code(memory).to_le_bytes());
    let checksum = crc32c(&file);
    file.extend(checksum.to_le_bytes());
    file.extend(record_of(sequence, &changes));
    file
}

/// How long `file_of` so many replicas is.
pub fn file_bytes(replicas: usize) -> usize {
    HEADER_BYTES + RECORD_HEAD_BYTES + replicas * CHANGE_BYTES
}

/// One record with all changes of a pass.
pub fn record_of(sequence: u64, changes: &BTreeMap<TopicPartition, Change>) -> Vec<u8> {
    let count = u32::try_from(changes.len()).expect("a shard hosts fewer replicas");
    let mut body = sequence.to_le_bytes().to_vec();
    body.extend(count.to_le_bytes());
    for (partition, change) in changes {
        body.extend(partition.topic.0.as_bytes());
        body.extend(partition.partition.0.to_le_bytes());
        let (kind, doubt, term, vote, recovery) = match change {
            Change::Gone => (GONE, 0, Term(0), NodeId(0), None),
            Change::Set(Remembered { hard, suspicion, last_life, vouches, recovery, logged }) => {
                let HardState { term, vote } = hard;
                let kind = if vote.is_some() { VOTED } else { NO_VOTE };
                let doubt = suspicion_code(*suspicion)
                    | last_life_code(*last_life)
                    | vouches_code(*vouches)
                    | logged_code(*logged);
                (kind, doubt, *term, vote.unwrap_or(NodeId(0)), *recovery)
            }
        };
        body.extend([kind, doubt]);
        body.extend(term.0.to_le_bytes());
        body.extend(vote.0.to_le_bytes());
        let words = recovery.map_or([0; 3], |it| [it.epoch.0, it.founder.0, it.since.0]);
        body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    let mut record = crc32c(&body).to_le_bytes().to_vec();
    record.extend(body);
    record
}

/// Reads a copy up to its last whole record.
pub fn replay(bytes: &[u8]) -> Replayed {
    let mut replayed = Replayed::nothing();
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER_BYTES) else { return replayed };
    let version = u32_at(header, 8);
    let change_bytes = match version {
        VERSION | VERSION_BEFORE_LOGGED | VERSION_BEFORE_VOUCHES => CHANGE_BYTES,
        VERSION_BEFORE_RECOVERIES => CHANGE_BYTES - RECOVERY_BYTES,
        _ => return replayed,
    };
    if header[..8] != MAGIC || crc32c(&header[..16]) != u32_at(header, 16) {
        return replayed;
    }
    if u32_at(header, 12) != memory_code(Memory::Whole) {
        replayed.memory = Memory::Lost;
    }
    while let Some((sequence, changes, behind)) = parse_record(rest, change_bytes) {
        if sequence <= replayed.sequence {
            break;
        }
        replayed.sequence = sequence;
        for (partition, change) in changes {
            match change {
                Change::Set(known) if version < VERSION_BEFORE_LOGGED => {
                    let vouches = Counts::Appended;
                    replayed.live.insert(partition, Remembered { vouches, ..known })
                }
                Change::Set(known) => replayed.live.insert(partition, known),
                Change::Gone => replayed.live.remove(&partition),
            };
        }
        rest = behind;
    }
    replayed.garbage_behind = rest.iter().any(|byte| *byte != 0);
    replayed
}

type Record<'a> = (u64, Vec<(TopicPartition, Change)>, &'a [u8]);

fn parse_record(bytes: &[u8], change_bytes: usize) -> Option<Record<'_>> {
    let (head, rest) = bytes.split_at_checked(RECORD_HEAD_BYTES)?;
    let crc = u32_at(head, 0);
    let sequence = u64::from_le_bytes(head[4..12].try_into().expect("eight bytes"));
    let count = u32_at(head, 12) as usize;
    let length = count.checked_mul(change_bytes)?;
    let (body, behind) = rest.split_at_checked(length)?;
    if sequence == 0 || crc32c(&bytes[4..RECORD_HEAD_BYTES + length]) != crc {
        return None;
    }
    let changes = body.chunks_exact(change_bytes).map(parse_change).collect::<Option<Vec<_>>>()?;
    Some((sequence, changes, behind))
}

fn parse_change(bytes: &[u8]) -> Option<(TopicPartition, Change)> {
    let topic = TopicId(Uuid::from_bytes(bytes[..16].try_into().expect("sixteen bytes")));
    let partition = TopicPartition::new(topic, PartitionId(u32_at(bytes, 16)));
    let last_life = match bytes[21] & UNCLEAN {
        0 => LastLife::Clean,
        _ => LastLife::Unclean,
    };
    let vouches = match bytes[21] & UNFLUSHED {
        0 => Counts::Flushed,
        _ => Counts::Appended,
    };
    let logged = match bytes[21] & LOGGED {
        0 => Logged::Nothing,
        _ => Logged::Something,
    };
    let suspicion = match bytes[21] & !(UNCLEAN | UNFLUSHED | LOGGED) {
        0 => Suspicion::None,
        1 => Suspicion::LostTail,
        2 => Suspicion::LostIdentity,
        3 => Suspicion::Damage,
        _ => return None,
    };
    let term = Term(u32_at(bytes, 22));
    let vote = match bytes[20] {
        GONE => return Some((partition, Change::Gone)),
        NO_VOTE => None,
        VOTED => Some(NodeId(u32_at(bytes, 26))),
        _ => return None,
    };
    let hard = HardState { term, vote };
    let recovery = match bytes.get(30..).filter(|bytes| !bytes.is_empty()) {
        Some(bytes) if u32_at(bytes, 0) > 0 => Some(Recovery {
            epoch: RecoveryEpoch(u32_at(bytes, 0)),
            founder: NodeId(u32_at(bytes, 4)),
            since: Term(u32_at(bytes, 8)),
        }),
        Some(_) | None => None,
    };
    let known = Remembered { hard, suspicion, last_life, vouches, recovery, logged };
    Some((partition, Change::Set(known)))
}

fn suspicion_code(suspicion: Suspicion) -> u8 {
    match suspicion {
        Suspicion::None => 0,
        Suspicion::LostTail => 1,
        Suspicion::LostIdentity => 2,
        Suspicion::Damage => 3,
    }
}

fn last_life_code(last_life: LastLife) -> u8 {
    match last_life {
        LastLife::Clean => 0,
        LastLife::Unclean => UNCLEAN,
    }
}

fn vouches_code(vouches: Counts) -> u8 {
    match vouches {
        Counts::Flushed => 0,
        Counts::Appended => UNFLUSHED,
    }
}

fn logged_code(logged: Logged) -> u8 {
    match logged {
        Logged::Nothing => 0,
        Logged::Something => LOGGED,
    }
}

fn memory_code(memory: Memory) -> u32 {
    match memory {
        Memory::Whole => 0,
        Memory::Lost => 1,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

const MAGIC: [u8; 8] = *b"HWVOTES\0";
const VERSION: u32 = 4;
/// Did not tell whether a replica ever had anything on disk: then it is taken to have had nothing.
const VERSION_BEFORE_LOGGED: u32 = 3;
/// Did not tell what a replica vouches for: then the worse is taken.
const VERSION_BEFORE_VOUCHES: u32 = 2;
/// The same without the recovery in a change.
const VERSION_BEFORE_RECOVERIES: u32 = 1;
/// Magic, version, memory, checksum.
const HEADER_BYTES: usize = 20;
/// Checksum, sequence number, number of changes.
const RECORD_HEAD_BYTES: usize = 16;
/// Topic, partition, kind, doubt, term, vote, recovery.
const CHANGE_BYTES: usize = 42;
/// Epoch, founder and first term of a recovery.
const RECOVERY_BYTES: usize = 12;
/// Set beside the suspicion: not opened since an unclean end.
const UNCLEAN: u8 = 0x80;
/// Set beside the suspicion: others may count what it has not flushed.
const UNFLUSHED: u8 = 0x40;
/// Set beside the suspicion: it had something on disk.
const LOGGED: u8 = 0x20;
const GONE: u8 = 0;
const NO_VOTE: u8 = 1;
const VOTED: u8 = 2;
