//! A member's heartbeat: joining, staying and leaving are one question, and the answer says what the
//! member may own from now on.

use super::{Beat, GroupId, MemberEpoch, MemberId, partitions, put_partitions};
use crate::ids::{Term, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A member tells how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHeartbeatRequest {
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: MemberId,
    /// More than in its last request of any kind.
    pub beat: Beat,
    /// The last answer that it took: what it owns is only believed by the coordinator that gave it,
    /// for an older request may have been held up on its way.
    pub heard: Option<Heard>,
    /// What it wants.
    pub step: MemberStep,
}

/// An answer that a member has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The term of the coordinator that gave it.
    pub term: Term,
    /// The request that it answered.
    pub beat: Beat,
}

/// What a member wants with a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStep {
    /// To become a member, or to begin anew after it was told that it is none; it owns nothing.
    Join(MemberProfile),
    /// To stay one.
    Stay {
        /// The epoch that it was told last.
        epoch: MemberEpoch,
        /// All that it owns, sorted.
        owned: Vec<TopicPartition>,
        /// What it is from now on, where that has changed.
        profile: Option<MemberProfile>,
    },
    /// To be one no more; it owns nothing. One with an instance's name keeps its partitions for a session.
    Leave {
        /// The epoch that it was told last.
        epoch: MemberEpoch,
        /// Whether it comes back soon under the same instance's name.
        returns: Returns,
    },
}

/// Whether a member that leaves comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// It does not: others get its partitions at once.
    No,
    /// Within its session, under the same instance's name: nobody else gets its partitions until then.
    Soon,
}

/// What a member is and wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProfile {
    /// What the program calls itself; for people.
    pub client_id: String,
    /// A name that stays the same when the program is started again.
    pub instance: Option<String>,
    /// Its failure domain.
    pub rack: Option<String>,
    /// The names of the topics that it reads.
    pub topics: Vec<String>,
    /// How it wants partitions to be given out; a group goes by what most members want.
    pub assignor: Assignor,
    /// Others have the partitions of a member that was not heard for this long.
    pub session_ms: u32,
    /// How long it may take to give up partitions.
    pub rebalance_ms: u32,
}

impl MemberProfile {
    /// A member that was not heard for this long is none any more; what is left of its session is for others to
    /// take over what it had.
    pub fn silence_ms(&self) -> u64 {
        u64::from(self.session_ms) * 4 / 5
    }
}

/// How partitions are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Assignor {
    /// As evenly as can be; who has a partition keeps it where that stays even.
    #[default]
    Uniform,
    /// The partitions of each topic in runs, so that partitions of the same number come together.
    Range,
}

/// What a member may do from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHeartbeatResponse {
    /// The term in which the coordinator leads; a member ignores answers of an older one.
    pub term: Term,
    /// Its epoch.
    pub epoch: MemberEpoch,
    /// How long to wait with the next heartbeat, where nothing has changed.
    pub heartbeat_ms: u32,
    /// All that it may own, sorted; it gives up everything else before it owns any of these anew.
    pub assigned: Vec<TopicPartition>,
}

impl Assignor {
    /// Its name for people and in settings.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of a name.
    pub fn from_name(name: &str) -> Option<Assignor> {
        [Assignor::Uniform, Assignor::Range].into_iter().find(|known| known.name() == name)
    }

    /// Writes its number.
    pub fn encode(self, writer: &mut Writer) {
        writer.u8(match self {
            Assignor::Uniform => 0,
            Assignor::Range => 1,
        });
    }

    /// Reads its number.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Assignor, DecodeError> {
        match reader.u8()? {
            0 => Ok(Assignor::Uniform),
            1 => Ok(Assignor::Range),
            found => Err(DecodeError::Invalid { what: "an assignor", found: found.into() }),
        }
    }
}

impl MemberProfile {
    /// Writes the fields one after another.
    pub fn encode(&self, writer: &mut Writer) {
        writer.text(&self.client_id);
        writer.optional(self.instance.as_deref(), Writer::text);
        writer.optional(self.rack.as_deref(), Writer::text);
        writer.list(&self.topics, |writer, topic| writer.text(topic));
        self.assignor.encode(writer);
        writer.u32(self.session_ms);
        writer.u32(self.rebalance_ms);
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<MemberProfile, DecodeError> {
        Ok(MemberProfile {
            client_id: reader.text("a client's name")?,
            instance: reader.optional("an instance's name", |it| it.text("an instance's name"))?,
            rack: reader.optional("a rack", |it| it.text("a rack"))?,
            topics: reader.list("topics", 1, |reader| reader.text("a topic's name"))?,
            assignor: Assignor::decode(reader)?,
            session_ms: reader.u32()?,
            rebalance_ms: reader.u32()?,
        })
    }
}

impl GroupHeartbeatRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        self.member.encode(writer);
        writer.uvarint(self.beat.0);
        writer.optional(self.heard, |writer, heard| {
            writer.u32(heard.term.0);
            writer.uvarint(heard.beat.0);
        });
        match &self.step {
            MemberStep::Join(profile) => {
                writer.u8(0);
                profile.encode(writer);
            }
            MemberStep::Stay { epoch, owned, profile } => {
                writer.u8(1);
                writer.u32(epoch.0);
                put_partitions(writer, owned);
                writer.optional(profile.as_ref(), |writer, profile| profile.encode(writer));
            }
            MemberStep::Leave { epoch, returns } => {
                writer.u8(2);
                writer.u32(epoch.0);
                coding::put_flag(writer, *returns == Returns::Soon);
            }
        }
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<GroupHeartbeatRequest, DecodeError> {
        coding::open_request(reader, "a member's heartbeat")?;
        let group = GroupId::decode(reader)?;
        let member = MemberId::decode(reader)?;
        let beat = Beat(reader.uvarint()?);
        let heard = reader.optional("an answer", |reader| {
            Ok(Heard { term: Term(reader.u32()?), beat: Beat(reader.uvarint()?) })
        })?;
        let step = match reader.u8()? {
            0 => MemberStep::Join(MemberProfile::decode(reader)?),
            1 => MemberStep::Stay {
                epoch: MemberEpoch(reader.u32()?),
                owned: partitions(reader)?,
                profile: reader.optional("a profile", MemberProfile::decode)?,
            },
            2 => MemberStep::Leave {
                epoch: MemberEpoch(reader.u32()?),
                returns: match coding::flag(reader, "whether it returns")? {
                    true => Returns::Soon,
                    false => Returns::No,
                },
            },
            found => {
                return Err(DecodeError::Invalid { what: "a member's step", found: found.into() });
            }
        };
        reader.tagged_fields()?;
        Ok(GroupHeartbeatRequest { group, member, beat, heard, step })
    }
}

impl GroupHeartbeatResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.term.0);
        writer.u32(self.epoch.0);
        writer.u32(self.heartbeat_ms);
        put_partitions(writer, &self.assigned);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<GroupHeartbeatResponse, DecodeError> {
        reader.within("an answer to a heartbeat");
        let term = Term(reader.u32()?);
        let epoch = MemberEpoch(reader.u32()?);
        let heartbeat_ms = reader.u32()?;
        let assigned = partitions(reader)?;
        reader.tagged_fields()?;
        Ok(GroupHeartbeatResponse { term, epoch, heartbeat_ms, assigned })
    }
}
