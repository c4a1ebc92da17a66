//! Reading committed records, and waiting for more.
//!
//! No shard is entered: records come from the partitions' readers, below their high watermarks. A
//! fetch that finds too little registers with every partition's bell *before* it looks, so that a
//! commit between look and wait is never slept through.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use highwater_protocol::batch::frames;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::fetch::{
    FetchFrom, FetchPartition, FetchRequest, FetchResponse, FetchedPartition, FetchedRecords,
};
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};

use super::{Api, Led, errors};
use crate::log::LogReader;
use crate::node::Route;

impl Api {
    /// Reads committed records, waiting until there is enough or the time is up.
    pub async fn fetch(&self, request: FetchRequest) -> FetchResponse {
        let wait = Duration::from_millis(u64::from(request.wait_max_ms.min(WAIT_MS_MAX)));
        let deadline = Instant::now() + wait;
        let routes: Vec<Arc<Route>> = request
            .partitions
            .iter()
            .filter_map(|wanted| self.node.routes().get(wanted.partition))
            .collect();
        // Where there is much to read, nobody needs a bell.
        let (mut response, mut read) = self.read_all(&request);
        while !read.suffices(&request) {
            let bells: Vec<Pin<Box<Notified<'_>>>> =
                routes.iter().map(|route| bell(route)).collect();
            (response, read) = self.read_all(&request);
            let over = bells.is_empty() || self.node.stopping().is_cancelled();
            if over
                || read.suffices(&request)
                || timeout_at(deadline, select_all(bells)).await.is_err()
            {
                break;
            }
        }
        response
    }

    fn read_all(&self, request: &FetchRequest) -> (FetchResponse, Read) {
        let mut left = request.bytes_max.clamp(1, BYTES_MAX);
        let mut read = Read::default();
        let read_one = |wanted: &FetchPartition| {
            let result = self.read_one(wanted, request.from, left, read.bytes);
            match &result {
                Ok(records) => {
                    let bytes: usize = records.records.iter().map(|slice| slice.len()).sum();
                    left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
                    read.bytes += bytes as u64;
                }
                Err(_) => read.errors = true,
            }
            FetchedPartition { partition: wanted.partition, result }
        };
        let partitions = request.partitions.iter().map(read_one).collect();
        (FetchResponse { partitions }, read)
    }

    fn read_one(
        &self,
        wanted: &FetchPartition,
        from: FetchFrom,
        left: u32,
        bytes_before: u64,
    ) -> Result<FetchedRecords, WireError> {
        let Held { route, reader, leads } = self.readable_here(wanted, from)?;
        let bytes_max = wanted.bytes_max.min(left);
        // What is committed may be known to the leader alone so far.
        let later = !leads && wanted.offset > reader.high_watermark();
        if left == 0 || later {
            return Ok(bounds(&reader, Vec::new()));
        }
        let mut records = reader
            .read(wanted.offset, bytes_max)
            .map_err(|error| errors::unreadable(&route, wanted.offset, &error))?;
        let bytes: usize = records.iter().map(|slice| slice.len()).sum();
        // A first batch comes whatever its size, but once for the whole answer: it must fit a frame.
        let too_many = bytes_before > 0 && bytes_before + bytes as u64 > u64::from(BYTES_MAX);
        if too_many {
            records.clear();
        } else {
            count(&route, &records, bytes);
        }
        Ok(bounds(&reader, records))
    }

    /// The log of a partition that this broker leads or, where any replica will do, follows: while it hears no leader
    /// it may have missed much, and sends readers elsewhere.
    fn readable_here(&self, wanted: &FetchPartition, from: FetchFrom) -> Result<Held, WireError> {
        let followed = match from {
            FetchFrom::Leader => None,
            FetchFrom::AnyReplica => self.followed_here(wanted.partition)?,
        };
        match followed {
            Some(held) => Ok(held),
            None => {
                let Led { route, reader, .. } =
                    self.led_here(wanted.partition, wanted.leader_term)?;
                Ok(Held { route, reader, leads: true })
            }
        }
    }

    fn followed_here(&self, partition: TopicPartition) -> Result<Option<Held>, WireError> {
        let route = self.route(partition)?;
        let (view, me) = (route.leader(), self.node.options().me);
        // A replica's own word names nobody in sync; its leader's news, which come each second, do.
        let keeps_up = view.in_sync.is_empty() || view.in_sync.contains(&me);
        let follows = view.leader.is_some_and(|leader| leader != me) && keeps_up;
        let Some(reader) = route.reader().filter(|_| follows && route.failed().is_none()) else {
            return Ok(None);
        };
        Ok(Some(Held { route, reader, leads: false }))
    }
}

/// A partition that can be read here.
struct Held {
    route: Arc<Route>,
    reader: Arc<LogReader>,
    leads: bool,
}

/// The bounds are taken after the records, which therefore never lie outside of them.
fn bounds(reader: &LogReader, records: Vec<Bytes>) -> FetchedRecords {
    let (log_start, high_watermark) = (reader.log_start(), reader.high_watermark());
    FetchedRecords { log_start, high_watermark, records }
}

/// Counts what a client reads, by the headers of the batches.
fn count(route: &Route, records: &[Bytes], bytes: usize) {
    let batches = records.iter().flat_map(|slice| frames(slice)).filter_map(Result::ok);
    route.traffic().records_out.add(batches.map(|(header, _)| u64::from(header.records())).sum());
    route.traffic().bytes_out.add(bytes as u64);
}

/// What a pass over all partitions came to.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    bytes: u64,
    errors: bool,
}

impl Read {
    fn suffices(self, request: &FetchRequest) -> bool {
        self.errors || self.bytes >= u64::from(request.bytes_min)
    }
}

fn bell(route: &Route) -> Pin<Box<Notified<'_>>> {
    let mut bell = Box::pin(route.changed().notified());
    bell.as_mut().enable();
    bell
}

/// Nobody waits longer, whatever the request says: connections must show signs of life.
const WAIT_MS_MAX: u32 = 60_000;
/// Records of one answer, so that it fits a frame.
const BYTES_MAX: u32 = 15 * 1024 * 1024;
