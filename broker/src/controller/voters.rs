//! Deciding who votes on the cluster's metadata: one broker more, or one fewer.
//!
//! The voters stand in the log of the controller's own partition, and Raft leads them from set to set.
//! What the image says of them is what the controller's leader saw last: for people, for brokers that
//! look for the controller, and for refusals. What must hold: the voters that stay can decide without
//! the one that goes.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::NodeId;
use highwater_protocol::native::brokers::{BrokerDuty, ChangeControllerRequest, Vote};

use crate::controller::brokers::BrokerReply;
use crate::controller::command::CommandReply;
use crate::controller::decide::Decision;
use crate::controller::image::ClusterImage;
use crate::mutant::{self, Mutant};

/// The set that the voters are to be led to; nothing is recorded before they are there.
pub(super) fn change(
    image: &ClusterImage,
    voters: &[NodeId],
    request: ChangeControllerRequest,
) -> Result<Decision, WireError> {
    let ChangeControllerRequest { node, vote, dry_run } = request;
    let mut target = voters.to_vec();
    match vote {
        Vote::Add if !voters.contains(&node) => {
            refuse_unfit(image, voters, node)?;
            target.push(node);
        }
        Vote::Remove if voters.contains(&node) => {
            target.retain(|voter| *voter != node);
            refuse_minority(image, &target, node)?;
        }
        Vote::Add | Vote::Remove => {}
    }
    target.sort_unstable();
    Ok((Vec::new(), CommandReply::Broker(BrokerReply::Voters { target, dry_run })))
}

fn refuse_unfit(image: &ClusterImage, voters: &[NodeId], node: NodeId) -> Result<(), WireError> {
    let refused = |why: String| Err(WireError::new(ErrorCode::Conflict, why));
    let Some(broker) = image.broker(node) else {
        let why = format!(
            "broker {node} is not part of the cluster; `hw cluster brokers` shows those that are"
        );
        return Err(WireError::new(ErrorCode::UnknownBroker, why));
    };
    if voters.len() >= VOTERS_MAX {
        return refused(format!(
            "{VOTERS_MAX} brokers vote on the metadata already, and more would only be slower; remove one first"
        ));
    }
    if broker.duty == BrokerDuty::Leaving {
        return refused(format!(
            "broker {node} is being decommissioned; `hw cluster undrain {node}` first, or choose another"
        ));
    }
    if broker.fenced {
        let why = format!("broker {node} is not alive; start it, or choose another");
        return Err(WireError::new(ErrorCode::BrokerNotAvailable, why));
    }
    Ok(())
}

fn refuse_minority(image: &ClusterImage, target: &[NodeId], node: NodeId) -> Result<(), WireError> {
    if mutant::active(Mutant::LastVotersRemoved) {
        return Ok(());
    }
    if target.is_empty() {
        let why = format!(
            "broker {node} is the only one that votes on the metadata; `hw cluster controller add` another first"
        );
        return Err(WireError::new(ErrorCode::Conflict, why));
    }
    let lives = |voter: &&NodeId| image.broker(**voter).is_some_and(|broker| !broker.fenced);
    let alive = target.iter().filter(lives).count();
    if alive > target.len() / 2 {
        return Ok(());
    }
    let why = format!(
        "without broker {node} only {alive} of {} voters on the metadata would be alive, which is no majority; start \
         the others, or `hw cluster controller add` another first",
        target.len()
    );
    Err(WireError::new(ErrorCode::NotEnoughReplicas, why))
}

/// Each change of the metadata waits for a majority of them.
const VOTERS_MAX: usize = 7;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation};
    use highwater_protocol::native::admin::DryRun;
    use uuid::Uuid;

    use super::*;
    use crate::controller::brokers::BrokerRecord;
    use crate::controller::record::{BrokerRegistration, MetadataRecord};

    fn image(brokers: u32, fenced: &[u32]) -> ClusterImage {
        let mut image = ClusterImage::default();
        for node in (1..=brokers).map(NodeId) {
            let registration = BrokerRegistration {
                node,
                incarnation: Incarnation(1),
                directory: DirectoryId(Uuid::from_u128(u128::from(node.0))),
                rack: None,
                client_address: String::new(),
                peer_address: String::new(),
            };
            image.apply(&MetadataRecord::RegisterBroker(registration)).expect("fits");
        }
        for node in fenced.iter().copied().map(NodeId) {
            let fence = MetadataRecord::FenceBroker { node, fenced: true };
            image.apply(&fence).expect("fits");
        }
        image
    }

    fn asked(
        image: &ClusterImage,
        voters: &[u32],
        node: u32,
        vote: Vote,
    ) -> Result<Vec<u32>, String> {
        let voters: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
        let request = ChangeControllerRequest { node: NodeId(node), vote, dry_run: DryRun::No };
        match change(image, &voters, request).map_err(|error| error.detail)? {
            (records, CommandReply::Broker(BrokerReply::Voters { target, .. })) => {
                assert!(records.is_empty());
                Ok(target.iter().map(|node| node.0).collect())
            }
            other => panic!("not about voters: {other:?}"),
        }
    }

    #[test]
    fn one_voter_comes_or_goes_and_what_is_so_already_stays_so() {
        let image = image(5, &[]);
        assert_eq!(asked(&image, &[1, 2, 3], 4, Vote::Add), Ok(vec![1, 2, 3, 4]));
        assert_eq!(asked(&image, &[1, 2, 3], 3, Vote::Add), Ok(vec![1, 2, 3]));
        assert_eq!(asked(&image, &[2, 3, 4, 1], 1, Vote::Remove), Ok(vec![2, 3, 4]));
        assert_eq!(asked(&image, &[2, 3, 4], 1, Vote::Remove), Ok(vec![2, 3, 4]));
    }

    #[test]
    fn voters_that_could_not_decide_are_refused() {
        let mut image = image(9, &[2, 5]);
        let refused = |image: &ClusterImage, voters: &[u32], node, vote| {
            asked(image, voters, node, vote).expect_err("it must not be")
        };
        assert!(refused(&image, &[1], 1, Vote::Remove).contains("the only one"));
        assert!(refused(&image, &[1, 2, 3], 3, Vote::Remove).contains("only 1 of 2"));
        assert_eq!(asked(&image, &[1, 2, 3], 2, Vote::Remove), Ok(vec![1, 3]), "the dead one");
        assert!(refused(&image, &[1, 3], 5, Vote::Add).contains("not alive"));
        assert!(refused(&image, &[1, 3], 99, Vote::Add).contains("not part of the cluster"));
        assert!(refused(&image, &[1, 2, 3, 4, 5, 6, 7], 8, Vote::Add).contains("remove one first"));
        let leaving = BrokerRecord::SetDuty(NodeId(8), BrokerDuty::Leaving);
        image.apply(&MetadataRecord::Broker(leaving)).expect("fits");
        assert!(refused(&image, &[1, 3], 8, Vote::Add).contains("undrain 8"));
    }
}
