//! Every number that Raft goes by.

/// How a group times, sends and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How often a leader says that it lives; the host keeps the beat.
    pub heartbeat_ms: u64,
    /// The shortest patience of a follower, and for how long it refuses votes after hearing a leader.
    pub election_ms_min: u64,
    /// The longest patience before it was stretched, and a leader's window for hearing a majority.
    pub election_ms_max: u64,
    /// What a patience stretched by false alarms never exceeds.
    pub election_ms_cap: u64,
    /// A tick that is later than this means that this host was starved, not that the leader is dead.
    pub late_ms: u64,
    /// Without a false alarm for this long, a stretched patience shrinks by half.
    pub calm_ms: u64,
    /// An append that was not answered for this long is taken for lost.
    pub resend_ms: u64,
    /// For so long at most an answer to an append waits for the flush.
    pub answer_ms_max: u64,
    /// The size of one append message.
    pub append_bytes_max: usize,
    /// The size of an append whose joining on is a guess.
    pub probe_bytes_max: usize,
    /// How many bytes may be under way to one peer.
    pub inflight_bytes_max: usize,
    /// How many messages may be under way to one peer.
    pub inflight_messages_max: usize,
    /// A voter that has not caught up for this long is not in sync.
    pub lag_ms_max: u64,
    /// How many bytes a second a learner is sent; `None` for as many as it takes.
    pub learner_bytes_per_s: Option<u64>,
    /// What an entry needs to be counted.
    pub counts: Counts,
    /// How soon followers learn of a commit.
    pub commit_news: CommitNews,
}

/// When an entry counts towards a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Once it is on disk.
    Flushed,
    /// Once it is in the log.
    Appended,
}

/// When a leader tells idle followers of a higher commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitNews {
    /// At once: followers act on what is committed.
    Prompt,
    /// With the next append or heartbeat.
    Lazy,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heartbeat_ms: 100,
            election_ms_min: 300,
            election_ms_max: 500,
            election_ms_cap: 3_000,
            late_ms: 100,
            calm_ms: 10_000,
            resend_ms: 250,
            answer_ms_max: 10,
            append_bytes_max: 1 << 20,
            probe_bytes_max: 64 << 10,
            inflight_bytes_max: 8 << 20,
            inflight_messages_max: 256,
            lag_ms_max: 10_000,
            learner_bytes_per_s: None,
            counts: Counts::Flushed,
            commit_news: CommitNews::Lazy,
        }
    }
}
