//! The hash of what this broker's replica of a partition holds, for whoever compares replicas.
//!
//! It reads what nobody else may have in memory, so one is hashed at a time and as much time is rested as was
//! read: a comparison takes its time, and producers and readers don't wait for it.

use std::io;
use std::time::Instant;

use highwater_protocol::error::WireError;
use highwater_protocol::native::digest::{
    Digest, DigestRange, DigestReplicaRequest, DigestReplicaResponse, Unreadable,
};

use super::partitions::not_the_answer;
use super::{Api, errors};
use crate::log::{Digested, ReadError};
use crate::shard::event::{AdminReply, ReplicaCommand};

impl Api {
    /// Where this broker's replica starts and is committed, and the hash of some of it.
    pub async fn digest_replica(
        &self,
        request: DigestReplicaRequest,
    ) -> Result<DigestReplicaResponse, WireError> {
        let DigestReplicaRequest { partition, range } = request;
        let reply = self.ask_replica(partition, ReplicaCommand::Inspect).await?;
        let AdminReply::Inspection(seen) = reply else { return Err(not_the_answer()) };
        let route = self.route(partition)?;
        let reader = route.reader().ok_or_else(errors::stopping)?;
        let committed = seen.indexes.committed;
        let digest = match range {
            None => None,
            Some(DigestRange { from, until, seed, bytes_max }) => {
                let _turn = self.digests.acquire().await.map_err(|_| errors::stopping())?;
                let (reader, began) = (reader.clone(), Instant::now());
                let bytes_max = u64::from(bytes_max).min(BYTES_MAX);
                let read = move || reader.digest(from..until.min(committed), seed, bytes_max);
                let read = tokio::task::spawn_blocking(read).await;
                tokio::time::sleep(began.elapsed()).await;
                Some(read.map_err(|_| errors::stopping())?)
            }
        };
        // Looked at last: whoever asked learns from it whether a trim took some of it meanwhile.
        let start = reader.start_index();
        let digest = match digest.transpose() {
            Ok(digest) => digest.map(told),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(errors::unreadable(&route, seen.log_start, &ReadError::Io(error)));
            }
        };
        let log_start = reader.log_start();
        let high_watermark = seen.high_watermark.max(log_start);
        Ok(DigestReplicaResponse { start, log_start, committed, high_watermark, digest })
    }
}

fn told(digested: Digested) -> Digest {
    let Digested { end, offsets, bytes, hash, faulty } = digested;
    let unreadable = faulty.map(|range| Unreadable {
        offsets: (range.from, range.until),
        file: range.file.display().to_string(),
    });
    Digest { end, offsets: (offsets.start, offsets.end), bytes, hash, unreadable }
}

/// What is read for one answer, at most.
const BYTES_MAX: u64 = 4 << 20;
