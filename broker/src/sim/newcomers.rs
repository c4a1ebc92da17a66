//! Who votes: what a newcomer must have had by then, and that nobody who is counted can forget who they are.

use highwater_protocol::ids::{LogIndex, NodeId, TopicPartition};

use crate::raft::Counts;
use crate::replica::View;
use crate::sim::checker::{Checked, Checker, broken};
use crate::sim::model::Frame;

impl Checker {
    /// Up to where a broker ever let others count what it has of a partition, also before a move took it: a
    /// leader that stood still goes by what it heard.
    fn reached_vouched(&self, node: NodeId, partition: TopicPartition) -> LogIndex {
        let taken = self.taken.get(&partition).into_iter().flatten();
        let taken = taken.filter(|(of, _)| *of == node).map(|(_, shadow)| shadow);
        let all = self.shadow(node, partition).into_iter().chain(taken);
        all.map(|shadow| shadow.reached_vouched).max().unwrap_or_default()
    }

    /// M3: whom a leader newly gives a vote has had what that leader knew to be committed.
    pub(super) fn check_new_voters(
        &self,
        node: NodeId,
        partition: TopicPartition,
        view: &View,
        known: usize,
    ) -> Checked {
        let shadow = &self.shadows[&(node, partition)];
        let own = shadow.frames[known..].iter().filter(|frame| frame.term == view.term);
        let named: Vec<Vec<NodeId>> = own.filter_map(Frame::voters).collect();
        if named.is_empty() {
            return Ok(());
        }
        let mut before = {
            let frames = shadow.frames[..known].iter().rev();
            frames.filter_map(|frame| self.voters_named(partition, frame)).next()
        };
        for next in named {
            let last = before.unwrap_or_else(|| self.voters(partition).to_vec());
            for new in next.iter().filter(|new| !last.contains(new)) {
                let reached = self.reached_vouched(*new, partition);
                if reached < shadow.commit {
                    return broken(
                        "M3: nobody gets a vote before it has what is committed",
                        format_args!(
                            "{node} gives {new} a vote in {partition}, which has had {reached} of {}",
                            shadow.commit
                        ),
                    );
                }
            }
            before = Some(next);
        }
        Ok(())
    }

    /// I13: an end that takes what is counted leaves the voters that were in force there.
    pub(super) fn check_voters_kept(
        &self,
        node: NodeId,
        partition: TopicPartition,
        view: &View,
    ) -> Checked {
        if view.counts != Counts::Appended {
            return Ok(());
        }
        let shadow = &self.shadows[&(node, partition)];
        let unflushed = shadow.frames.iter().rev().take_while(|frame| frame.end > shadow.flushed);
        let mut counted = unflushed.filter(|frame| frame.end <= view.vouched);
        match counted.find(|frame| self.voters_named(partition, frame).is_some()) {
            Some(change) => broken(
                "I13: nobody lets others count what lies behind a change of voters that is not on its disk",
                format_args!(
                    "{node} has {partition} on disk up to {}, then come {change:?}, and it is counted up to {}",
                    shadow.flushed, view.vouched
                ),
            ),
            None => Ok(()),
        }
    }
}
