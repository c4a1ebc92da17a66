//! Scripts about a replica that a move takes from a broker and another one brings back, while that broker
//! learns of it late: of both in one step, and after a restart of the first alone.
//!
//! What must hold: the broker deletes nothing that counts in the newer placement.

use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{MoveWish, ReassignRequest};

use crate::controller::moves::{MoveCommand, MoveId};
use crate::replica::FlushPolicy;
use crate::sim::checker::{Broken, Checked};
use crate::sim::cluster::Cluster;
use crate::sim::node::node_id;
use crate::sim::swarm::Swarm;
use crate::sim::{self, Outcome};

/// The only replica of a partition goes from broker 1 to broker 2 and back. Broker 1 learns of both in one step,
/// keeps its files, and dies before its image is saved; its next life learns of the first move some time before
/// it learns of the second.
pub fn comes_back_unsaved(seed: u64) -> Outcome {
    play(seed, |cluster| {
        let before = there_and_gone(cluster)?;
        let gone = cluster.records();
        cluster.ask_for_move(1, 0)?;
        let all = cluster.records();
        cluster.learn_up_to(0, all)?;
        cluster.until_ended(2)?;
        cluster.kill(0)?;
        cluster.forget_saved(0, before);
        cluster.start(0)?;
        cluster.run_for_ms(1_000)?;
        cluster.learn_up_to(0, gone)?;
        cluster.run_for_ms(1_000)
    })
}

/// Moves the replica from broker 1 to broker 2, of which broker 1 does not hear the end. Gives what its image had
/// before.
fn there_and_gone(cluster: &mut Cluster) -> Result<usize, Broken> {
    cluster.run_for_ms(2_000)?;
    let before = cluster.records();
    cluster.ask_for_move(0, 1)?;
    let begun = cluster.records();
    cluster.learn_up_to(0, begun)?;
    cluster.deafen(0, true);
    cluster.until_ended(1)?;
    Ok(before)
}

impl Cluster {
    fn records(&self) -> usize {
        self.mover.as_ref().expect("replicas move in this script").records()
    }

    fn deafen(&mut self, node: usize, deaf: bool) {
        self.mover.as_mut().expect("replicas move in this script").view(node).deaf = deaf;
    }

    /// Nothing was saved since the image had so many records.
    fn forget_saved(&mut self, node: usize, records: usize) {
        self.mover.as_mut().expect("replicas move in this script").view(node).forget_saved(records);
    }

    fn ask_for_move(&mut self, id: u64, to: usize) -> Checked {
        let wish = MoveWish::To(vec![node_id(to)]);
        let request =
            ReassignRequest { partitions: vec![self.partitions[0]], wish, dry_run: DryRun::No };
        self.decide(MoveCommand::Reassign(MoveId(1_000 + id), request), None)
    }

    fn until_ended(&mut self, moves: u64) -> Checked {
        for _ in 0..200 {
            if self.moves_seen().1 == moves {
                return Ok(());
            }
            self.run_for_ms(50)?;
        }
        panic!("move {moves} of the script does not end");
    }
}

fn play(seed: u64, script: impl Fn(&mut Cluster) -> Checked) -> Outcome {
    let mut swarm = Swarm::quiet(2, vec![FlushPolicy::Ack]);
    swarm.replication = 1;
    // Moves are possible; no fault strikes but those of the script.
    swarm.faults.moves = 1;
    let mut cluster = Cluster::new(seed, swarm);
    let verdict = sim::judge(&mut cluster, |cluster| {
        script(cluster)?;
        cluster.deafen(0, false);
        cluster.learn_later(0);
        cluster.heal_and_check()
    });
    sim::conclude(seed, cluster, verdict)
}
