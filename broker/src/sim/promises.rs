//! What clients were told and shown, checked the moment it leaves a broker.

use std::collections::BTreeSet;

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};
use highwater_protocol::native::produce::{AckMode, Receipt};

use crate::sim::checker::{Checked, Checker, broken};
use crate::sim::model::Frame;
use crate::sim::shadow::Shadow;

/// The circumstances of an acknowledgement.
#[derive(Debug, Clone, Copy)]
pub struct Promise<'a> {
    /// Who gives it.
    pub leader: NodeId,
    /// Under which promise.
    pub acks: AckMode,
    /// The voters that the leader holds for in sync.
    pub in_sync: &'a [NodeId],
    /// Where the partition was to end.
    pub expected_end: Option<Offset>,
}

impl Checker {
    /// I1: a receipt is about to leave a broker.
    pub fn acked(
        &self,
        partition: TopicPartition,
        promise: Promise<'_>,
        receipt: &Receipt,
        values: &[u64],
    ) -> Checked {
        let Promise { leader, acks, expected_end, .. } = promise;
        if expected_end.is_some_and(|expected| expected != receipt.base_offset) {
            return broken(
                "C1: a conditional append begins where the partition was to end",
                format_args!(
                    "{leader} appended to {partition} at {receipt:?}, for {expected_end:?}"
                ),
            );
        }
        let end = receipt.base_offset.advance(values.len() as u64);
        // A broker that stood still may answer and delete the replica in one pass.
        let Some(shadow) = self.shadow(leader, partition) else { return Ok(()) };
        let held = shadow
            .frames
            .iter()
            .rev()
            .find(|frame| (frame.base, frame.base_end) == (receipt.base_offset, end));
        // What is committed may be given up before the reply leaves.
        let given_up = || {
            let committed = self.committed(partition).frames().iter().map(|(frame, _)| frame);
            committed
                .take_while(|frame| frame.end <= shadow.log_start)
                .find(|frame| (frame.base, frame.base_end) == (receipt.base_offset, end))
        };
        let held = held.or_else(given_up);
        // Sent again, and known as a repeat of what a gap stands for.
        if held.is_some_and(Frame::is_gap) && self.were_lost(partition, values) {
            return Ok(());
        }
        let Some(frame) = held.filter(|frame| frame.values() == values) else {
            // A newer leader may have cut it in the pass that took it.
            if acks == AckMode::Async || end <= self.committed(partition).unwatched_before() {
                return Ok(());
            }
            return broken(
                "I1: a record is readable exactly once, at its offset",
                format_args!(
                    "{leader} acknowledges {values:x?} at {receipt:?} but {partition} has {held:?} there"
                ),
            );
        };
        match acks {
            // What is not committed may be cut before the reply leaves.
            AckMode::Async => Ok(()),
            AckMode::SemiSync | AckMode::Sync => {
                self.check_promise(partition, promise, frame)?;
                self.check_receipt(partition, frame, receipt)
            }
        }
    }

    /// C2: a conditional append is about to be refused, since the partition ends at `end`.
    pub fn ends_elsewhere(
        &self,
        partition: TopicPartition,
        leader: NodeId,
        end: Offset,
    ) -> Checked {
        let committed = self.committed(partition).end_offset();
        if end > committed {
            return broken(
                "C2: the end that a conflict names is committed",
                format_args!("{leader} says that {partition} ends at {end}, committed {committed}"),
            );
        }
        Ok(())
    }

    /// What `semi-sync` and `sync` promise.
    fn check_promise(
        &self,
        partition: TopicPartition,
        promise: Promise<'_>,
        frame: &Frame,
    ) -> Checked {
        let Promise { leader, acks, in_sync, .. } = promise;
        let known = self.committed(partition).frame_ending_at(frame.end);
        if known.is_none_or(|known| known.hash != frame.hash) {
            return broken(
                "I1: what is acknowledged is committed",
                format_args!("{leader} acknowledges {frame:?} of {partition} under {acks:?}"),
            );
        }
        let lacking = in_sync.iter().find(|voter| !self.counted(**voter, partition, frame));
        if let (AckMode::Sync, Some(lacking)) = (acks, lacking) {
            return broken(
                "I1: sync is acknowledged when every in-sync voter counts it",
                format_args!(
                    "{leader} acknowledges {frame:?} of {partition}, but {lacking} lacks it"
                ),
            );
        }
        Ok(())
    }

    /// Whether a broker lets others count a frame, or did so until a move took its replica.
    fn counted(&self, node: NodeId, partition: TopicPartition, frame: &Frame) -> bool {
        let mut taken = self.taken.get(&partition).into_iter().flatten();
        self.counts(node, partition, frame)
            || taken.any(|(of, shadow)| *of == node && shadow.counts(frame))
    }

    /// A receipt does not claim more than there is.
    fn check_receipt(
        &self,
        partition: TopicPartition,
        frame: &Frame,
        receipt: &Receipt,
    ) -> Checked {
        // A leader learns only later what a crash or a move has taken.
        let here = self.shadows.iter().filter(|((_, of), _)| *of == partition);
        let here = here.map(|((node, _), shadow)| (*node, shadow));
        let taken = self.taken.get(&partition).into_iter().flatten();
        let all: Vec<_> = here.chain(taken.map(|(node, shadow)| (*node, shadow))).collect();
        let nodes = |has: fn(&Shadow, &Frame) -> bool| {
            let those = all.iter().filter(|(_, shadow)| has(shadow, frame)).map(|(node, _)| *node);
            those.collect::<BTreeSet<NodeId>>().len()
        };
        let (holders, on_disk) = (nodes(Shadow::held), nodes(Shadow::held_on_disk));
        if usize::from(receipt.replicas) > holders || usize::from(receipt.flushed) > on_disk {
            return broken(
                "a receipt is honest",
                format_args!(
                    "{partition}: {receipt:?}, but {holders} hold it and {on_disk} have it on disk"
                ),
            );
        }
        Ok(())
    }

    /// I11: a consumer has read `values` from `base` on.
    pub fn read(
        &self,
        node: NodeId,
        partition: TopicPartition,
        base: Offset,
        values: &[u64],
    ) -> Checked {
        let committed = self.committed(partition);
        for (at, value) in values.iter().enumerate() {
            let offset = base.advance(at as u64);
            match committed.value_at(offset) {
                Some(known) if known == *value => {}
                Some(known) => {
                    return broken(
                        "I1: a record is readable exactly once, at its offset",
                        format_args!(
                            "{node} gave {value:x} at {offset} of {partition}, committed is {known:x}"
                        ),
                    );
                }
                None => {
                    return broken(
                        "I11: consumers never read at or above the high watermark",
                        format_args!(
                            "{node} gave offset {offset} of {partition}, committed end {}",
                            committed.end_offset()
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}
