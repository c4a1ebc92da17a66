//! A coordinator with a log, and members that do as they are told, for the tests.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{
    DirectoryId, Incarnation, NodeId, Offset, PartitionId, Term, Timestamp, TopicId, TopicPartition,
};
use highwater_protocol::native::groups::*;
use uuid::Uuid;

use super::super::record::GroupRecord;
use super::super::{Coordinator, GroupAnswer, GroupRequest, Groups, Moment};
use crate::controller::record::{BrokerRegistration, PlacedReplica};
use crate::controller::{ClusterImage, MetadataRecord};
use crate::raft::Millis;

pub const GROUP: &str = "billing";
pub const SESSION_MS: u32 = 10_000;
pub const SILENCE_MS: u64 = 8_000;

/// A coordinator, the log that its records go to, and members that do as they are told.
pub struct Rig {
    pub coordinator: Coordinator,
    pub log: Vec<GroupRecord>,
    pub cluster: ClusterImage,
    pub now: u64,
    pub term: u32,
}

/// A member that believes all that it is told, and owns what it may.
pub struct Reader {
    pub id: MemberId,
    pub beat: u64,
    pub epoch: MemberEpoch,
    pub heard: Option<Heard>,
    pub owned: Vec<TopicPartition>,
    pub profile: MemberProfile,
}

pub fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

pub fn at(topic_number: u128, partition: u32) -> TopicPartition {
    TopicPartition::new(topic(topic_number), PartitionId(partition))
}

pub fn group() -> GroupId {
    GroupId(GROUP.to_owned())
}

impl Rig {
    /// Topics `t1`, `t2`, ... with so many partitions each.
    pub fn new(partitions: &[u32]) -> Rig {
        let mut cluster = ClusterImage::default();
        for node in 1..=3 {
            let registration = BrokerRegistration {
                node: NodeId(node),
                incarnation: Incarnation(1),
                directory: DirectoryId(Uuid::from_u128(u128::from(node))),
                rack: Some(format!("rack-{node}")),
                client_address: "b:1".into(),
                peer_address: "b:2".into(),
            };
            cluster.apply(&MetadataRecord::RegisterBroker(registration)).expect("fits");
        }
        let groups = Groups::default();
        let coordinator = Coordinator::new(Term(1), groups, Millis(0));
        let mut rig = Rig { coordinator, log: Vec::new(), cluster, now: 0, term: 1 };
        for (number, count) in (1..).zip(partitions) {
            let (id, name) = (topic(number), format!("t{number}"));
            let record = MetadataRecord::CreateTopic { id, name, configs: Vec::new() };
            rig.cluster.apply(&record).expect("fits");
            rig.grow(number, 0, *count);
        }
        rig
    }

    pub fn grow(&mut self, number: u128, first: u32, count: u32) {
        let placed = |at: u32| {
            let node = at % 3 + 1;
            let directory = DirectoryId(Uuid::from_u128(u128::from(node)));
            vec![PlacedReplica { node: NodeId(node), directory }]
        };
        let partitions = (first..first + count).map(placed).collect();
        let (topic, first) = (topic(number), PartitionId(first));
        let record = MetadataRecord::CreatePartitions { topic, first, partitions };
        self.cluster.apply(&record).expect("fits");
    }

    pub fn moment(&self) -> Moment<'_> {
        Moment {
            now: Millis(self.now),
            wall: Timestamp(1_000_000 + self.now as i64),
            cluster: &self.cluster,
            offsets_kept_ms: 3_600_000,
        }
    }

    pub fn ask(&mut self, request: GroupRequest) -> Result<GroupAnswer, ErrorCode> {
        let mut coordinator = self.coordinator.clone();
        let answer = coordinator.decide(self.moment(), &request);
        self.coordinator = coordinator;
        self.settle();
        answer.map_err(|error| error.code)
    }

    pub fn settle(&mut self) {
        self.log.extend(self.coordinator.decided().iter().cloned());
        self.coordinator.committed().expect("decisions fit");
    }

    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        let mut coordinator = self.coordinator.clone();
        coordinator.look_around(self.moment());
        self.coordinator = coordinator;
        self.settle();
    }

    /// Another broker leads from here on: it knows what the log says.
    pub fn fail_over(&mut self) {
        let mut groups = Groups::default();
        for record in &self.log {
            let bytes = record.encode();
            let record = GroupRecord::decode(&bytes).expect("it comes back");
            groups.apply(&record).expect("the log makes sense");
        }
        assert_eq!(&groups, self.coordinator.groups(), "the log says all");
        self.term += 1;
        self.coordinator = Coordinator::new(Term(self.term), groups, Millis(self.now));
    }

    pub fn beat(&mut self, reader: &mut Reader) -> Result<(), ErrorCode> {
        let step = match reader.epoch {
            MemberEpoch(0) => MemberStep::Join(reader.profile.clone()),
            epoch => MemberStep::Stay { epoch, owned: reader.owned.clone(), profile: None },
        };
        self.send(reader, step)
    }

    pub fn send(&mut self, reader: &mut Reader, step: MemberStep) -> Result<(), ErrorCode> {
        reader.beat += 1;
        let (member, beat, heard) = (reader.id, Beat(reader.beat), reader.heard);
        let request = GroupHeartbeatRequest { group: group(), member, beat, heard, step };
        let GroupAnswer::Heartbeat(answer) = self.ask(GroupRequest::Heartbeat(request))? else {
            panic!("a heartbeat is answered as one");
        };
        reader.epoch = answer.epoch;
        reader.heard = Some(Heard { term: answer.term, beat });
        reader.owned = answer.assigned;
        Ok(())
    }

    /// Everybody beats until nothing changes any more.
    pub fn come_to_rest(&mut self, readers: &mut [Reader]) {
        for _ in 0..10 {
            for reader in readers.iter_mut() {
                self.beat(reader).expect("all is well");
            }
        }
    }

    pub fn commit(
        &mut self,
        reader: &mut Reader,
        partition: TopicPartition,
        offset: u64,
    ) -> Result<(), ErrorCode> {
        reader.beat += 1;
        let (member, epoch, beat) = (reader.id, reader.epoch, Beat(reader.beat));
        let heard = reader.heard.map(|heard| heard.term).unwrap_or_default();
        self.commit_by(Committer::Member { member, epoch, beat, heard }, partition, offset)
    }

    pub fn commit_by(
        &mut self,
        by: Committer,
        partition: TopicPartition,
        offset: u64,
    ) -> Result<(), ErrorCode> {
        let offset = Offset(offset);
        let offsets = vec![OffsetToCommit { partition, offset, term: None, note: String::new() }];
        let request = CommitOffsetsRequest { group: group(), by, offsets };
        match self.ask(GroupRequest::CommitOffsets(request))? {
            GroupAnswer::CommitOffsets(answer) => {
                answer.results[0].clone().map_err(|error| error.code)
            }
            other => panic!("a commit is answered as one, not {other:?}"),
        }
    }

    pub fn committed(&mut self, partition: TopicPartition) -> Option<u64> {
        let (partitions, heard) = (Some(vec![partition]), None);
        let request = FetchOffsetsRequest { group: group(), partitions, heard };
        match self.ask(GroupRequest::FetchOffsets(request)).expect("anybody may ask") {
            GroupAnswer::FetchOffsets(found) => found.offsets.first().map(|it| it.offset.0),
            other => panic!("a question for offsets is answered as one, not {other:?}"),
        }
    }

    /// How much the first member must give up and has not.
    pub fn revoking(&mut self) -> usize {
        self.describe().expect("it is there").members[0].revoking.len()
    }

    pub fn describe(&mut self) -> Result<GroupDescription, ErrorCode> {
        match self.ask(GroupRequest::Describe(DescribeGroupRequest { group: group() }))? {
            GroupAnswer::Describe(description) => Ok(description),
            other => panic!("a question for a group is answered as one, not {other:?}"),
        }
    }
}

impl Reader {
    pub fn new(id: u128, topics: &[&str]) -> Reader {
        Reader {
            id: MemberId(Uuid::from_u128(id)),
            beat: 0,
            epoch: MemberEpoch(0),
            heard: None,
            owned: Vec::new(),
            profile: MemberProfile {
                client_id: format!("reader-{id}"),
                instance: None,
                rack: None,
                topics: topics.iter().map(|&name| name.to_owned()).collect(),
                assignor: Assignor::Uniform,
                session_ms: SESSION_MS,
                rebalance_ms: 20_000,
            },
        }
    }

    pub fn named(mut self, instance: &str) -> Reader {
        self.profile.instance = Some(instance.to_owned());
        self
    }
}
