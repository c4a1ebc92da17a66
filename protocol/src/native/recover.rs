//! Beginning a partition anew from one replica, after a majority of its replicas was lost for good.
//!
//! Whoever asks says whose word is given up, so that a list made on an old picture is refused.

use crate::ids::{NodeId, Term, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A wish to go on with what one replica has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverPartitionRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// On which broker the replica is.
    pub survivor: NodeId,
    /// Brokers whose replicas are given up although the controller hears them.
    pub given_up: Vec<NodeId>,
    /// The newest term that any replica is known to have had.
    pub term: Term,
}

/// The partition goes on with one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverPartitionResponse {
    /// The replicas that it had.
    pub replicas_before: Vec<NodeId>,
}

impl RecoverPartitionRequest {
    /// Writes the fields one after another.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.u32(self.survivor.0);
        coding::put_nodes(writer, &self.given_up);
        writer.u32(self.term.0);
        writer.no_tagged_fields();
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RecoverPartitionRequest, DecodeError> {
        let partition = coding::partition(reader)?;
        let survivor = NodeId(reader.u32()?);
        let given_up = coding::nodes(reader)?;
        let term = Term(reader.u32()?);
        reader.tagged_fields()?;
        Ok(RecoverPartitionRequest { partition, survivor, given_up, term })
    }
}

impl RecoverPartitionResponse {
    /// Writes the fields one after another.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_nodes(writer, &self.replicas_before);
        writer.no_tagged_fields();
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RecoverPartitionResponse, DecodeError> {
        let replicas_before = coding::nodes(reader)?;
        reader.tagged_fields()?;
        Ok(RecoverPartitionResponse { replicas_before })
    }
}
