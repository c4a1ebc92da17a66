//! Who gets the controller's log, and who votes on it.
//!
//! The log itself says who votes. The leader makes every other registered broker a learner, leads the
//! voters where a command wants them, and has the set that it sees recorded for everyone else.
//! Whoever retires or removes a broker is answered by the set in force then, recorded or not.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::NodeId;
use highwater_protocol::native::admin::{
    DescribePartitionResponse, DryRun, ReplicaRole, ReplicaStatus,
};

use super::Leading;
use crate::controller::brokers::{BrokerCommand, BrokerRecord, BrokerReply};
use crate::controller::{ClusterImage, Command, CommandReply, MetadataRecord};
use crate::shard::event::ReplicaCommand;

impl Leading {
    /// Makes every registered broker that has no vote a learner of the controller's log. One that was
    /// removed is fed for as long as it is heard: from that log it learns that it has to end.
    pub(super) async fn feed_learners(&self, seen: &DescribePartitionResponse) {
        let (voters, mut learners) = roles(seen);
        learners.sort_unstable();
        let heard = |status: &&ReplicaStatus| {
            status.role == ReplicaRole::Learner
                && status.heard_ms.is_some_and(|ms| ms < SILENT_AFTER_MS)
        };
        let mut wanted = self.registered_without(&voters);
        wanted.extend(seen.replicas.iter().filter(heard).map(|status| status.node));
        wanted.sort_unstable();
        wanted.dedup();
        if wanted == learners || voters.is_empty() {
            return;
        }
        tracing::info!(before = ?learners, now = ?wanted, "other brokers get the controller's log");
        let command = ReplicaCommand::ChangeVoters { voters, learners: wanted };
        if let Err(error) = self.log.command(command).await {
            tracing::warn!(%error, "the brokers that get the controller's log stay the same for now");
        }
    }

    /// Has the voters recorded, if they are others than the image says.
    pub(super) async fn note_voters(&self, seen: &DescribePartitionResponse) {
        let (mut voters, _) = roles(seen);
        voters.sort_unstable();
        if voters.is_empty() || self.node.image.load().voters() == voters {
            return;
        }
        let record = MetadataRecord::Broker(BrokerRecord::Voters(voters));
        // The next look finds the same.
        if let Err(error) = self.commit(vec![record.encode()]).await {
            tracing::debug!(%error, "the controller's voters were not recorded");
        }
    }

    /// Carries out what a reply promises beyond records: other voters.
    pub(super) async fn lead_voters(
        &self,
        reply: Result<CommandReply, WireError>,
    ) -> Result<CommandReply, WireError> {
        let Ok(CommandReply::Broker(BrokerReply::Voters { target, dry_run: DryRun::No })) = &reply
        else {
            return reply;
        };
        let (voters, learners) = (target.clone(), self.registered_without(target));
        if let Err(error) =
            self.log.command(ReplicaCommand::ChangeVoters { voters, learners }).await
        {
            self.aim_no_further().await;
            return Err(error);
        }
        tracing::info!(voters = ?target, "other brokers vote on the metadata");
        let record = MetadataRecord::Broker(BrokerRecord::Voters(target.clone()));
        // Whoever leads next records it otherwise: this broker may have no vote any more.
        if let Err(error) = self.commit(vec![record.encode()]).await {
            tracing::debug!(%error, "the controller's voters were not recorded");
        }
        reply
    }

    /// Has the voters recorded before anything is decided about them: the leader before this one may
    /// have changed them last, and a set that is aimed at must not undo that.
    pub(super) async fn know_voters(&self) {
        if !self.waiting.iter().any(|ask| goes_by_voters(&ask.command)) {
            return;
        }
        if let Some(seen) = self.describe().await {
            self.note_voters(&seen).await;
        }
    }

    /// A change of voters that was not carried out in time must not be so later, behind the back of
    /// who retires or removes a broker: what is appended by now stays, and nothing follows.
    async fn aim_no_further(&self) {
        let Some(seen) = self.describe().await else { return };
        let (voters, learners) = roles(&seen);
        if let Err(error) =
            self.log.command(ReplicaCommand::ChangeVoters { voters, learners }).await
        {
            tracing::debug!(%error, "the controller's voters are not settled yet");
        }
    }

    fn registered_without(&self, voters: &[NodeId]) -> Vec<NodeId> {
        let image = self.node.image.load();
        let registered = image.brokers().map(|broker| broker.registration.node);
        registered.filter(|node| !voters.contains(node)).collect()
    }
}

/// Has an image expect the voters that a decision aims at, for the next decision of the same batch.
pub(super) fn expect(reply: &CommandReply, image: &mut ClusterImage) {
    if let CommandReply::Broker(BrokerReply::Voters { target, dry_run: DryRun::No }) = reply {
        let record = MetadataRecord::Broker(BrokerRecord::Voters(target.clone()));
        image.apply(&record).expect("voters fit every image");
    }
}

/// Whether a command is decided by who votes on the metadata.
fn goes_by_voters(command: &Command) -> bool {
    match command {
        Command::Brokers(
            BrokerCommand::ChangeController(_)
            | BrokerCommand::Remove(_)
            | BrokerCommand::SetDuty(..),
        ) => true,
        Command::Brokers(BrokerCommand::Refilled { .. })
        | Command::Register(_)
        | Command::CreateTopic { .. }
        | Command::CreateGroupsTopic { .. }
        | Command::DeleteTopic { .. }
        | Command::AlterTopic { .. }
        | Command::CreatePartitions { .. }
        | Command::Moves(_)
        | Command::AlterSettings(_)
        | Command::Loads(_) => false,
    }
}

fn roles(seen: &DescribePartitionResponse) -> (Vec<NodeId>, Vec<NodeId>) {
    let (mut voters, mut learners) = (Vec::new(), Vec::new());
    for replica in &seen.replicas {
        match replica.role {
            ReplicaRole::Leader | ReplicaRole::Follower => voters.push(replica.node),
            ReplicaRole::Learner => learners.push(replica.node),
        }
    }
    (voters, learners)
}

/// A removed broker that is not heard for so long has ended.
const SILENT_AFTER_MS: u64 = 3_000;

#[cfg(test)]
mod tests {
    use highwater_protocol::native::admin::DryRun;
    use highwater_protocol::native::brokers::{
        BrokerDuty, RemoveBrokerRequest, SetDutyRequest, Unretired,
    };

    use super::*;
    use crate::controller::moves::MoveId;

    /// Otherwise a voter that nobody has recorded yet could be taken out.
    #[test]
    fn who_is_retired_or_removed_is_judged_by_the_voters_of_that_moment() {
        let (node, dry_run) = (NodeId(3), DryRun::No);
        let remove = RemoveBrokerRequest { node, unretired: Unretired::Refuse, dry_run };
        let retire = SetDutyRequest { node, duty: BrokerDuty::Leaving, dry_run };
        for command in [BrokerCommand::Remove(remove), BrokerCommand::SetDuty(MoveId(1), retire)] {
            assert!(goes_by_voters(&Command::Brokers(command)));
        }
    }
}
