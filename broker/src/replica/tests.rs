//! Replicas over real files, joined by hand: what a shard does, without the shard.

mod conditions;
mod disks;
mod following;
mod operations;
mod producing;
mod trio;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, ProducerStamp};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{
    Incarnation, NodeId, Offset, PartitionId, ProducerEpoch, ProducerId, Term, Timestamp, TopicId,
};
use highwater_protocol::native::produce::{AckMode, Receipt};
use tempfile::TempDir;

use super::*;
use super::{AdminReply, Identity, ProduceEvent, ReplicaCommand, RequestId};
use crate::disk::Disk;
use crate::disk::mmap::MmapDisk;
use crate::log;
use crate::raft::Counts;
use crate::sim::disk::SimDisk;
use trio::{FIRST, IDS, Trio, batch, stamp};
