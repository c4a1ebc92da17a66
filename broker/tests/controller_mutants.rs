//! Bugs planted in the controller, each found by a script: the simulator has no controller.
//!
//! What each breaks is listed in `MUTANTS.md`.

use highwater_broker::controller::brokers::{BrokerCommand, BrokerRecord};
use highwater_broker::controller::moves::{Move, MoveId, MoveRecord};
use highwater_broker::controller::record::{BrokerRegistration, PlacedReplica};
use highwater_broker::controller::{ClusterImage, Command, Controller, MetadataRecord, placement};
use highwater_broker::mutant::{self, Mutant};
use highwater_broker::raft::Millis;
use highwater_protocol::ids::{
    DirectoryId, Incarnation, NodeId, PartitionId, TopicId, TopicPartition,
};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::brokers::{
    BrokerDuty, ChangeControllerRequest, RemoveBrokerRequest, SetDutyRequest, Unretired, Vote,
};
use highwater_protocol::native::moves::MoveStage;
use uuid::Uuid;

const AT: TopicPartition =
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: PartitionId(0) };

#[test]
fn removing_a_broker_that_hosts_a_replica_is_found_by_a_script() {
    check_script(Mutant::HostRemoved, || {
        let mut image = image(5, &[1, 2, 5]);
        apply(&mut image, MetadataRecord::FenceBroker { node: NodeId(5), fenced: true });
        let (unretired, dry_run) = (Unretired::IfDead, DryRun::No);
        let request = RemoveBrokerRequest { node: NodeId(5), unretired, dry_run };
        !carry_out(&mut image, Command::Brokers(BrokerCommand::Remove(request)))
    });
}

#[test]
fn a_removed_broker_that_registers_again_is_found_by_a_script() {
    check_script(Mutant::RemovedReturns, || {
        let mut image = image(5, &[1, 2, 3]);
        let (node, directory) = (NodeId(5), directory(5));
        apply(&mut image, MetadataRecord::Broker(BrokerRecord::Remove { node, directory }));
        !carry_out(&mut image, Command::Register(registration(5, 5, 9)))
    });
}

/// The disk that another one replaced holds an old log and old votes.
#[test]
fn a_replaced_disk_that_is_put_back_is_found_by_a_script() {
    check_script(Mutant::ReplacedReturns, || {
        let mut image = image(3, &[1, 2, 3]);
        apply(&mut image, MetadataRecord::RegisterBroker(registration(3, 33, 8)));
        apply(&mut image, MetadataRecord::FenceBroker { node: NodeId(3), fenced: true });
        !carry_out(&mut image, Command::Register(registration(3, 3, 9)))
    });
}

#[test]
fn a_drained_broker_that_gets_replicas_is_found_by_a_script() {
    check_script(Mutant::DrainedTakesWork, || {
        let mut image = image(4, &[1, 2, 3]);
        set_duty(&mut image, 4, BrokerDuty::Draining);
        placement::candidates(&image).iter().all(|candidate| candidate.node != NodeId(4))
    });
}

#[test]
fn a_duty_forgotten_over_a_restart_is_found_by_a_script() {
    check_script(Mutant::DutyForgotten, || {
        let mut image = image(4, &[1, 2, 3]);
        set_duty(&mut image, 4, BrokerDuty::Draining);
        carry_out(&mut image, Command::Register(registration(4, 4, 9)))
            && !image.broker(NodeId(4)).expect("registered").takes_work()
    });
}

#[test]
fn retiring_a_broker_that_a_move_comes_to_is_found_by_a_script() {
    check_script(Mutant::RetiredOverMove, || {
        let mut image = image(5, &[1, 2, 3]);
        let target = [1, 2, 4].map(place).to_vec();
        let coming = Move { id: MoveId(1), stage: MoveStage::Running, target };
        apply(&mut image, MetadataRecord::Move(MoveRecord::Set(AT, coming)));
        let (node, duty, dry_run) = (NodeId(4), BrokerDuty::Leaving, DryRun::No);
        let request = SetDutyRequest { node, duty, dry_run };
        !carry_out(&mut image, Command::Brokers(BrokerCommand::SetDuty(MoveId(2), request)))
    });
}

#[test]
fn voters_that_could_not_decide_are_found_by_a_script() {
    check_script(Mutant::LastVotersRemoved, || {
        let mut image = image(3, &[1, 2, 3]);
        let voters = vec![NodeId(1), NodeId(2)];
        apply(&mut image, MetadataRecord::Broker(BrokerRecord::Voters(voters)));
        apply(&mut image, MetadataRecord::FenceBroker { node: NodeId(2), fenced: true });
        let (vote, dry_run) = (Vote::Remove, DryRun::No);
        let request = ChangeControllerRequest { node: NodeId(1), vote, dry_run };
        !carry_out(&mut image, Command::Brokers(BrokerCommand::ChangeController(request)))
    });
}

/// The simulator finds it, too, once in some thousand seeds.
#[test]
fn a_cancelled_move_that_goes_on_is_found_by_a_script() {
    check_script(Mutant::CancelGoesOn, || {
        let mut image = image(4, &[1, 2, 3]);
        let target = [2, 3, 4].map(place).to_vec();
        let back = Move { id: MoveId(1), stage: MoveStage::GoingBack, target };
        apply(&mut image, MetadataRecord::Move(MoveRecord::Set(AT, back)));
        let topic = image.topic(AT.topic).expect("made above");
        topic.aim(AT.partition) == Some(&[1, 2, 3].map(place)[..])
    });
}

/// A script holds for the sound code and does not for the mutant.
fn check_script(mutant: Mutant, holds: impl Fn() -> bool) {
    assert!(holds());
    mutant::choose(Some(mutant));
    let survived = holds();
    mutant::choose(None);
    assert!(!survived, "{mutant:?} is not found");
}

/// Decides and applies; whether it was not refused.
fn carry_out(image: &mut ClusterImage, command: Command) -> bool {
    let mut controller = Controller::new(NodeId(1), &[NodeId(1)], 3_000, Millis(0));
    let decided = controller.decide(image, command, Millis(1_000));
    let accepted = decided.is_ok();
    decided.into_iter().flat_map(|(records, _)| records).for_each(|record| apply(image, record));
    accepted
}

fn apply(image: &mut ClusterImage, record: MetadataRecord) {
    image.apply(&record).expect("it fits");
}

fn set_duty(image: &mut ClusterImage, node: u32, duty: BrokerDuty) {
    apply(image, MetadataRecord::Broker(BrokerRecord::SetDuty(NodeId(node), duty)));
}

/// Brokers 1 to `brokers`, and a topic of one partition.
fn image(brokers: u32, set: &[u32]) -> ClusterImage {
    let mut image = ClusterImage::default();
    for node in 1..=brokers {
        apply(&mut image, MetadataRecord::RegisterBroker(registration(node, node, 1)));
    }
    let (id, name) = (AT.topic, "orders".to_string());
    apply(&mut image, MetadataRecord::CreateTopic { id, name, configs: Vec::new() });
    let (topic, first) = (AT.topic, AT.partition);
    let partitions = vec![set.iter().copied().map(place).collect()];
    apply(&mut image, MetadataRecord::CreatePartitions { topic, first, partitions });
    image
}

fn place(node: u32) -> PlacedReplica {
    PlacedReplica { node: NodeId(node), directory: directory(node) }
}

fn directory(number: u32) -> DirectoryId {
    DirectoryId(Uuid::from_u128(u128::from(number)))
}

fn registration(node: u32, disk: u32, life: u64) -> BrokerRegistration {
    BrokerRegistration {
        node: NodeId(node),
        incarnation: Incarnation(life),
        directory: directory(disk),
        rack: None,
        client_address: String::new(),
        peer_address: String::new(),
    }
}
