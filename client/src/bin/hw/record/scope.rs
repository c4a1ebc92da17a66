//! What is read of a topic: which partitions, from where up to where.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use highwater_client::{
    Admin, Client, Error, Offset, OffsetAt, PartitionId, Partitions, ReaderConfig, RecordBatch,
    StartAt, Timestamp,
};

use super::position::{Bounds, Position, Range};
use crate::exit::Failure;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub topic: &'a str,
    /// All of them where it is empty.
    pub partitions: &'a [u32],
    pub range: Range,
    /// Whether to stop where the partitions end now.
    pub until_end: bool,
    /// Whose replicas are read where they can be.
    pub rack: Option<&'a str>,
}

pub type Batches = stream::BoxStream<'static, Result<RecordBatch, Error>>;

/// Where to stop in each partition, exclusive, unless the batches end by themselves.
#[derive(Debug, Default)]
pub struct Stops(Option<BTreeMap<u32, u64>>);

impl Stops {
    /// Whether a record is in the scope.
    pub fn want(&self, partition: u32, offset: u64) -> bool {
        let Some(stops) = &self.0 else { return true };
        stops.get(&partition).is_some_and(|stop| offset < *stop)
    }

    /// A batch was read to its end.
    pub fn pass(&mut self, partition: u32, next: u64) {
        if let Some(stops) = &mut self.0 {
            stops.retain(|of, stop| *of != partition || next < *stop);
        }
    }

    /// Whether nothing is wanted any more, whatever batches are to come.
    pub fn all_passed(&self) -> bool {
        self.0.as_ref().is_some_and(BTreeMap::is_empty)
    }
}

impl Scope<'_> {
    /// One reader for all partitions where they start alike; else one for each.
    pub async fn open(self, client: &Client) -> Result<(Batches, Stops), Failure> {
        let alike = match self.range.from {
            Position::Start => Some(StartAt::Start),
            Position::End => Some(StartAt::End),
            Position::Offset(offset) => Some(StartAt::Offset(Offset(offset))),
            Position::Time(ms) => Some(StartAt::Time(Timestamp(ms))),
            Position::AfterStart(_) | Position::BeforeEnd(_) => None,
        };
        let until_end = self.until_end || self.range.until == Some(Position::End);
        let ends_alike = matches!(self.range.until, None | Some(Position::End));
        if let (Some(start), true) = (alike, ends_alike) {
            let mut config = ReaderConfig::new(self.topic, start);
            config.until_end = until_end;
            config.rack = self.rack.map(str::to_owned);
            if !self.partitions.is_empty() {
                let chosen = self.partitions.iter().copied().map(PartitionId).collect();
                config.partitions = Partitions::Only(chosen);
            }
            return Ok((client.reader(config).await?.into_stream().boxed(), Stops::default()));
        }
        self.open_each(client, until_end).await
    }

    async fn open_each(
        self,
        client: &Client,
        until_end: bool,
    ) -> Result<(Batches, Stops), Failure> {
        let admin = client.admin();
        let mut stops = BTreeMap::new();
        let mut streams = Vec::new();
        for partition in self.chosen_partitions(&admin).await? {
            let place = Place { admin: &admin, topic: self.topic, partition };
            let bounds = place.bounds().await?;
            let from = place.resolve(self.range.from, bounds).await?;
            let mut stop = match self.range.until {
                Some(until) => Some(place.resolve(until, bounds).await?),
                None => None,
            };
            if until_end {
                stop = Some(stop.map_or(bounds.end, |stop| stop.min(bounds.end)));
            }
            if stop.is_some_and(|stop| stop <= from) {
                continue;
            }
            if let Some(stop) = stop {
                stops.insert(partition.0, stop);
            }
            let start = StartAt::Offset(Offset(from));
            let mut config = ReaderConfig::new(self.topic, start).partitions([partition.0]);
            // So that it ends, too, where what lies before its stop was given up.
            config.until_end = until_end;
            config.rack = self.rack.map(str::to_owned);
            streams.push(client.reader(config).await?.into_stream());
        }
        let bounded = until_end || self.range.until.is_some();
        Ok((stream::select_all(streams).boxed(), Stops(bounded.then_some(stops))))
    }

    async fn chosen_partitions(self, admin: &Admin) -> Result<Vec<PartitionId>, Failure> {
        if !self.partitions.is_empty() {
            return Ok(self.partitions.iter().copied().map(PartitionId).collect());
        }
        let detail = admin.describe_topic(self.topic).await?;
        Ok(detail.partitions.iter().map(|info| info.partition).collect())
    }
}

/// A partition to look up offsets in.
struct Place<'a> {
    admin: &'a Admin,
    topic: &'a str,
    partition: PartitionId,
}

impl Place<'_> {
    async fn offset(&self, at: OffsetAt) -> Result<u64, Failure> {
        Ok(self.admin.list_offsets(self.topic, self.partition, at).await?.offset.0)
    }

    async fn bounds(&self) -> Result<Bounds, Failure> {
        let start = self.offset(OffsetAt::Start).await?;
        let end = self.offset(OffsetAt::End).await?;
        Ok(Bounds { start, end })
    }

    async fn resolve(&self, position: Position, bounds: Bounds) -> Result<u64, Failure> {
        match position {
            Position::Time(ms) => self.offset(OffsetAt::Time(Timestamp(ms))).await,
            Position::Start
            | Position::End
            | Position::Offset(_)
            | Position::AfterStart(_)
            | Position::BeforeEnd(_) => {
                Ok(position.resolve(bounds).expect("only times need a question"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_wanted_up_to_its_stop_and_done_when_that_was_passed() {
        let mut stops = Stops(Some(BTreeMap::from([(0, 5), (2, 1)])));
        assert!(stops.want(0, 4) && !stops.want(0, 5) && !stops.want(1, 0));
        stops.pass(0, 4);
        stops.pass(2, 1);
        assert!(!stops.all_passed() && !stops.want(2, 0));
        stops.pass(0, 5);
        assert!(stops.all_passed());
    }

    #[test]
    fn without_stops_everything_is_wanted() {
        let mut stops = Stops::default();
        stops.pass(0, 9);
        assert!(stops.want(0, 9) && !stops.all_passed());
    }
}
