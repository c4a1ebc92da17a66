//! Brokers that come and go: what each one is for, draining it, retiring it, taking it out.
//!
//! Any broker takes these; what changes the cluster is passed on to the controller.

use crate::ids::NodeId;
use crate::native::admin::DryRun;
use crate::native::coding;
use crate::native::moves::PlannedMove;
use crate::wire::{DecodeError, Reader, Writer};

/// What a broker is for, as its operator wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokerDuty {
    /// It gets replicas and leads.
    Active,
    /// It keeps its replicas, gets no new ones and leads nothing that another can lead.
    Draining,
    /// The same, and its replicas move to other brokers: it is to be taken out.
    Leaving,
}

/// A broker and what it has; the answering broker's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Which one.
    pub node: NodeId,
    /// What it is for.
    pub duty: BrokerDuty,
    /// Whether it votes on the cluster's metadata.
    pub controller: bool,
    /// Partitions that it has a replica of.
    pub replicas: u32,
    /// Partitions that it leads.
    pub leads: u32,
    /// Its replicas that are moving away, or wait to.
    pub going: u32,
    /// Replicas that are moving to it, or wait to.
    pub coming: u32,
    /// Its replicas that were on a disk which it no longer has, and are not filled again yet.
    pub lost: u32,
}

/// A question for all brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListBrokersRequest;

/// All brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListBrokersResponse {
    /// By id.
    pub brokers: Vec<BrokerStatus>,
}

/// A new duty for a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetDutyRequest {
    /// Which broker.
    pub node: NodeId,
    /// What it is for from here on.
    pub duty: BrokerDuty,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// What the duty was, and what moves because of the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetDutyResponse {
    /// What the broker was for before.
    pub before: BrokerDuty,
    /// The replicas that begin to move away, or would.
    pub moves: Vec<PlannedMove>,
}

/// Whether a broker that nobody retired may be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unretired {
    /// It is refused.
    Refuse,
    /// It is taken out if it is not alive.
    IfDead,
}

/// A wish to take a broker out of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoveBrokerRequest {
    /// Which broker.
    pub node: NodeId,
    /// What if nobody retired it.
    pub unretired: Unretired,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// The broker is no part of the cluster any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoveBrokerResponse;

/// Whether a broker is to vote on the cluster's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// It gets a vote.
    Add,
    /// It loses its vote.
    Remove,
}

/// A wish that a broker votes on the cluster's metadata, or no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeControllerRequest {
    /// Which broker.
    pub node: NodeId,
    /// What becomes of its vote.
    pub vote: Vote,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// The brokers that vote now, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeControllerResponse {
    /// By id.
    pub voters: Vec<NodeId>,
}

impl ChangeControllerRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        coding::put_flag(writer, self.vote == Vote::Add);
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ChangeControllerRequest, DecodeError> {
        coding::open_request(reader, "a request to change the controller's voters")?;
        let request = ChangeControllerRequest {
            node: coding::node(reader)?,
            vote: if coding::flag(reader, "a vote")? { Vote::Add } else { Vote::Remove },
            dry_run: dry_run(reader)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl ChangeControllerResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_nodes(writer, &self.voters);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ChangeControllerResponse, DecodeError> {
        reader.within("the controller's voters");
        let voters = coding::nodes(reader)?;
        reader.tagged_fields()?;
        Ok(ChangeControllerResponse { voters })
    }
}

impl BrokerDuty {
    /// Writes it as a part of something larger.
    pub fn encode(self, writer: &mut Writer) {
        writer.u8(match self {
            BrokerDuty::Active => 0,
            BrokerDuty::Draining => 1,
            BrokerDuty::Leaving => 2,
        });
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<BrokerDuty, DecodeError> {
        Ok(match reader.u8()? {
            0 => BrokerDuty::Active,
            1 => BrokerDuty::Draining,
            2 => BrokerDuty::Leaving,
            found => {
                return Err(DecodeError::Invalid { what: "a broker's duty", found: found.into() });
            }
        })
    }
}

impl BrokerStatus {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        self.duty.encode(writer);
        coding::put_flag(writer, self.controller);
        for count in [self.replicas, self.leads, self.going, self.coming, self.lost] {
            writer.u32(count);
        }
        writer.no_tagged_fields();
    }

    fn decode(reader: &mut Reader<'_>) -> Result<BrokerStatus, DecodeError> {
        let status = BrokerStatus {
            node: coding::node(reader)?,
            duty: BrokerDuty::decode(reader)?,
            controller: coding::flag(reader, "a controller flag")?,
            replicas: reader.u32()?,
            leads: reader.u32()?,
            going: reader.u32()?,
            coming: reader.u32()?,
            lost: reader.u32()?,
        };
        reader.tagged_fields()?;
        Ok(status)
    }
}

impl ListBrokersRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListBrokersRequest, DecodeError> {
        coding::open_request(reader, "a question for brokers")?;
        reader.tagged_fields()?;
        Ok(ListBrokersRequest)
    }
}

impl ListBrokersResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.brokers, |writer, broker| broker.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListBrokersResponse, DecodeError> {
        reader.within("a list of brokers");
        let brokers = reader.list("brokers", 27, BrokerStatus::decode)?;
        reader.tagged_fields()?;
        Ok(ListBrokersResponse { brokers })
    }
}

impl SetDutyRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        self.duty.encode(writer);
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<SetDutyRequest, DecodeError> {
        coding::open_request(reader, "a request to give a broker another duty")?;
        let request = SetDutyRequest {
            node: coding::node(reader)?,
            duty: BrokerDuty::decode(reader)?,
            dry_run: dry_run(reader)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl SetDutyResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.before.encode(writer);
        writer.list(&self.moves, |writer, planned| planned.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<SetDutyResponse, DecodeError> {
        reader.within("the answer to a new duty");
        let response = SetDutyResponse {
            before: BrokerDuty::decode(reader)?,
            moves: reader.list("moves", PLANNED_BYTES_MIN, PlannedMove::decode)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl RemoveBrokerRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        coding::put_flag(writer, self.unretired == Unretired::IfDead);
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RemoveBrokerRequest, DecodeError> {
        coding::open_request(reader, "a request to take a broker out")?;
        let request = RemoveBrokerRequest {
            node: coding::node(reader)?,
            unretired: match coding::flag(reader, "a flag for the dead")? {
                true => Unretired::IfDead,
                false => Unretired::Refuse,
            },
            dry_run: dry_run(reader)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl RemoveBrokerResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RemoveBrokerResponse, DecodeError> {
        reader.within("the answer to a removal");
        reader.tagged_fields()?;
        Ok(RemoveBrokerResponse)
    }
}

fn dry_run(reader: &mut Reader<'_>) -> Result<DryRun, DecodeError> {
    Ok(if coding::flag(reader, "a dry-run flag")? { DryRun::Yes } else { DryRun::No })
}

/// A partition and two empty lists.
const PLANNED_BYTES_MIN: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PartitionId, TopicId, TopicPartition};

    #[test]
    fn requests_are_read_as_they_were_written() {
        let node = NodeId(4);
        for duty in [BrokerDuty::Active, BrokerDuty::Draining, BrokerDuty::Leaving] {
            let request = SetDutyRequest { node, duty, dry_run: DryRun::Yes };
            let mut writer = Writer::new();
            request.encode(&mut writer);
            assert_eq!(SetDutyRequest::decode(&mut Reader::new(&writer.finish())), Ok(request));
        }
        for vote in [Vote::Add, Vote::Remove] {
            let request = ChangeControllerRequest { node, vote, dry_run: DryRun::No };
            let mut writer = Writer::new();
            request.encode(&mut writer);
            let bytes = writer.finish();
            assert_eq!(ChangeControllerRequest::decode(&mut Reader::new(&bytes)), Ok(request));
        }
        for unretired in [Unretired::Refuse, Unretired::IfDead] {
            let request = RemoveBrokerRequest { node, unretired, dry_run: DryRun::No };
            let mut writer = Writer::new();
            request.encode(&mut writer);
            let bytes = writer.finish();
            assert_eq!(RemoveBrokerRequest::decode(&mut Reader::new(&bytes)), Ok(request));
        }
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let status = BrokerStatus {
            node: NodeId(4),
            duty: BrokerDuty::Leaving,
            controller: true,
            replicas: 7,
            leads: 6,
            going: 5,
            coming: 4,
            lost: 3,
        };
        let response = ListBrokersResponse { brokers: vec![status] };
        let mut writer = Writer::new();
        response.encode(&mut writer);
        assert_eq!(ListBrokersResponse::decode(&mut Reader::new(&writer.finish())), Ok(response));

        let partition = TopicPartition::new(TopicId::CLUSTER, PartitionId(3));
        let planned = PlannedMove { partition, from: vec![NodeId(1)], to: vec![NodeId(2)] };
        let response = SetDutyResponse { before: BrokerDuty::Draining, moves: vec![planned] };
        let mut writer = Writer::new();
        response.encode(&mut writer);
        assert_eq!(SetDutyResponse::decode(&mut Reader::new(&writer.finish())), Ok(response));
    }
}
