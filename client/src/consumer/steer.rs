//! Pausing partitions of one's own, and going on elsewhere in them.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, TopicPartition};

use super::{Consumer, OwnedPartition, Reading, Stint};
use crate::error::{Error, ErrorKind};
use crate::reader::{StartAt, find};

impl Consumer {
    /// Nothing more of a partition comes until it is resumed; it stays this member's own, and what was done before
    /// may still be marked. Who gets it after a rebalance reads it.
    ///
    /// # Errors
    /// `Refused(StaleMemberEpoch)` where it is not this member's own.
    pub fn pause(&mut self, partition: &OwnedPartition) -> Result<(), Error> {
        let id = self.find_own(partition, "pause")?;
        if self.owned[&id].reading == Reading::On {
            self.stop_reading(id, Reading::Paused);
        }
        Ok(())
    }

    /// A paused partition goes on where it was.
    ///
    /// # Errors
    /// As for [`Consumer::pause`].
    pub fn resume(&mut self, partition: &OwnedPartition) -> Result<(), Error> {
        let id = self.find_own(partition, "resume")?;
        if self.owned[&id].reading == Reading::Paused {
            self.read_on(id);
        }
        Ok(())
    }

    /// A partition goes on elsewhere, forwards or backwards: what is marked from then on is how far the group has
    /// come. What was marked before and not committed is forgotten.
    ///
    /// # Errors
    /// As for [`Consumer::pause`], and if the broker that knows the place cannot be asked.
    ///
    /// # Cancel safety
    /// Nothing has changed if the future is dropped.
    pub async fn seek(&mut self, partition: &OwnedPartition, to: StartAt) -> Result<(), Error> {
        let id = self.find_own(partition, "seek in")?;
        let next = find(&self.core, id, to).await?;
        let reading = self.owned[&id].reading;
        self.stop_reading(id, reading);
        let owned = self.owned.get_mut(&id).expect("nothing else was heard meanwhile");
        (owned.next, owned.marked) = (next, None);
        owned.marks_since = Stint(self.last_stint.0 + 1);
        if reading == Reading::On {
            self.read_on(id);
        }
        Ok(())
    }

    /// A partition is paused, and when it is resumed, it goes on behind what was marked, or at `first` where nothing was.
    pub(super) fn rewind(
        &mut self,
        partition: &OwnedPartition,
        first: Offset,
    ) -> Result<(), Error> {
        let id = self.find_own(partition, "rewind")?;
        self.stop_reading(id, Reading::Paused);
        let owned = self.owned.get_mut(&id).expect("just found");
        owned.next = owned.marked.map_or(first, |marked| marked.max(first));
        Ok(())
    }

    fn find_own(&self, partition: &OwnedPartition, what: &str) -> Result<TopicPartition, Error> {
        let is_it = |(_, owned): &(&TopicPartition, &super::Owned)| {
            owned.name == *partition && owned.reading != Reading::Over
        };
        self.owned.iter().find(is_it).map(|(id, _)| *id).ok_or_else(|| {
            let group = &self.config.group;
            let text = format!("cannot {what} {partition}: it is not this member's of group {group}, or not any more");
            Error::new(ErrorKind::Refused(ErrorCode::StaleMemberEpoch), text)
        })
    }
}
