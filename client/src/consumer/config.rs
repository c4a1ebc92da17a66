//! What a consumer reads, as which member of which group, and when it commits.

use std::time::Duration;

use highwater_protocol::native::groups::{Assignor, GroupId, MemberProfile};

use crate::reader::StartAt;
use crate::record::TopicName;

/// A member of a consumer group to be.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The group's name.
    pub group: String,
    /// The topics to read; one that does not exist yet is read once it does.
    pub topics: Vec<TopicName>,
    /// Where to start in a partition for which the group has committed nothing. Default at its start.
    pub when_no_offset: StartAt,
    /// When offsets are committed. Default [`Commit::AutoMarked`], every 5 s.
    pub commit: Commit,
    /// A name that stays the same when the program is started again: its partitions wait for it for most
    /// of a session.
    pub instance: Option<String>,
    /// The failure domain of the program: partitions with a replica there are preferred, and read from it.
    pub rack: Option<String>,
    /// How partitions are given out; a group goes by what most members want. Default uniform.
    pub assignor: Assignor,
    /// Others have the partitions of a member that is not heard for this long, if it is ten seconds or more: it is taken
    /// for gone after four fifths of it. Default 45 s.
    pub session_timeout: Duration,
    /// How long giving up partitions may take. Default 5 minutes.
    pub rebalance_timeout: Duration,
    /// How long the program may stay away from [`crate::Consumer::next_batch`] before it is taken for stuck and its
    /// partitions go to others. Default 5 minutes.
    ///
    /// Heartbeats go on behind a program's back, and say nothing about whether it still works. So its calls are watched,
    /// too: what Kafka has as `max.poll.interval.ms` since [KIP-62]. Whether records wait does not count, since only
    /// who asks hears which partitions are its own. When the time is up, a warning is logged, the member leaves the
    /// group, and others go on behind what was committed. With its next call the program is told so
    /// ([`crate::Event::Stalled`], then [`crate::Event::Lost`] with what it owned), and it joins again. The same counts
    /// for each worker of [`crate::Consumer::for_each_partition`]: one that is stuck takes the member out of the group
    /// until it is not.
    ///
    /// [KIP-62]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-62%3A+Allow+consumer+to+send+heartbeats+from+a+background+thread
    pub poll_interval_max: Duration,
    /// About how many bytes may lie fetched and unread, or be on their way, of all topics together. Default 32 MiB.
    pub prefetch_bytes_max: usize,
}

/// When offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// What was marked, at the latest after this time, before partitions are given up, and at the close.
    AutoMarked(Duration),
    /// What was marked, when [`crate::Consumer::commit`] is called, and at no other time.
    Manual,
}

impl ConsumerConfig {
    /// A member of `group` that reads `topics`.
    pub fn new(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<TopicName>>,
    ) -> ConsumerConfig {
        ConsumerConfig {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            when_no_offset: StartAt::Start,
            commit: Commit::AutoMarked(Duration::from_secs(5)),
            instance: None,
            rack: None,
            assignor: Assignor::Uniform,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            poll_interval_max: Duration::from_secs(300),
            prefetch_bytes_max: 32 * 1024 * 1024,
        }
    }

    /// Where to start in a partition for which the group has committed nothing.
    pub fn when_no_offset(mut self, start: StartAt) -> ConsumerConfig {
        self.when_no_offset = start;
        self
    }

    /// When offsets are committed.
    pub fn commit(mut self, commit: Commit) -> ConsumerConfig {
        self.commit = commit;
        self
    }

    /// Gives the program a name that stays the same when it is started again.
    pub fn instance(mut self, name: impl Into<String>) -> ConsumerConfig {
        self.instance = Some(name.into());
        self
    }

    /// Says in which failure domain the program runs.
    pub fn rack(mut self, rack: impl Into<String>) -> ConsumerConfig {
        self.rack = Some(rack.into());
        self
    }

    /// Chooses how partitions are given out.
    pub fn assignor(mut self, assignor: Assignor) -> ConsumerConfig {
        self.assignor = assignor;
        self
    }

    /// After how much silence others have the member's partitions.
    pub fn session_timeout(mut self, timeout: Duration) -> ConsumerConfig {
        self.session_timeout = timeout;
        self
    }

    /// How long giving up partitions may take.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> ConsumerConfig {
        self.rebalance_timeout = timeout;
        self
    }

    /// How long the program may stay away.
    pub fn poll_interval_max(mut self, interval: Duration) -> ConsumerConfig {
        self.poll_interval_max = interval;
        self
    }

    pub(super) fn group_id(&self) -> GroupId {
        GroupId(self.group.clone())
    }

    pub(super) fn profile(&self, client_id: &str) -> MemberProfile {
        MemberProfile {
            client_id: client_id.to_owned(),
            instance: self.instance.clone(),
            rack: self.rack.clone(),
            topics: self.topics.iter().map(|name| name.as_str().to_owned()).collect(),
            assignor: self.assignor,
            session_ms: ms(self.session_timeout),
            rebalance_ms: ms(self.rebalance_timeout),
        }
    }
}

fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
