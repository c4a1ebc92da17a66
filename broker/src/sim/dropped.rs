//! Scripts about a replica that a move takes from a broker and another one brings back, while that broker
//! learns of it late, or anew after a restart.
//!
//! What must hold: nobody gets a replica back before it has given up the former one, and no broker deletes
//! what counts in the newer placement.

use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{CancelMovesRequest, MoveWish, ReassignRequest};

use crate::controller::moves::{MoveCommand, MoveId};
use crate::replica::FlushPolicy;
use crate::sim::checker::{Broken, Checked};
use crate::sim::cluster::Cluster;
use crate::sim::moves::BrokerView;
use crate::sim::node::node_id;
use crate::sim::swarm::Swarm;
use crate::sim::{self, Outcome};

/// The only replica of a partition goes from broker 1 to broker 2, of which broker 1 does not hear the end, and is
/// to go back. Broker 1 hears of the first move alone, long after the second was asked for.
pub fn comes_back_unheard(seed: u64) -> Outcome {
    play(seed, |cluster| {
        cluster.run_for_ms(2_000)?;
        cluster.ask_for_move(0, 1)?;
        let begun = cluster.records();
        cluster.learn_up_to(0, begun)?;
        cluster.view_of(0).deaf = true;
        cluster.until_ended(1)?;
        let gone = cluster.records();
        cluster.ask_for_move(1, 0)?;
        cluster.run_for_ms(5_000)?;
        cluster.learn_up_to(0, gone)?;
        cluster.run_for_ms(1_000)
    })
}

/// A move to broker 2 is cancelled before broker 2 hears of it; it reads of both in one step, hosts nothing, and
/// does not save that. The replica is to go there again. Broker 2 dies, and reads once more of what was cancelled.
pub fn comes_back_unsaved(seed: u64) -> Outcome {
    play(seed, |cluster| {
        cluster.run_for_ms(2_000)?;
        cluster.view_of(1).saves_late = true;
        cluster.view_of(1).deaf = true;
        cluster.ask_for_move(0, 1)?;
        let begun = cluster.records();
        cluster.run_for_ms(500)?;
        let partitions = vec![cluster.partitions[0]];
        let cancel = MoveCommand::Cancel(MoveId(2_000), CancelMovesRequest { partitions });
        cluster.decide(cancel, None)?;
        cluster.until_ended(1)?;
        let ended = cluster.records();
        cluster.learn_up_to(1, ended)?;
        cluster.run_for_ms(3_000)?;
        cluster.view_of(1).deaf = false;
        cluster.ask_for_move(1, 1)?;
        cluster.run_for_ms(5_000)?;
        cluster.view_of(1).deaf = true;
        cluster.kill(1)?;
        cluster.start(1)?;
        for records in [begun, ended] {
            cluster.learn_up_to(1, records)?;
            cluster.run_for_ms(1_000)?;
        }
        Ok(())
    })
}

/// The replica has gone to broker 2 and is back on broker 1, which dies. Its next life begins with the image that
/// it saved before it deleted the former one.
pub fn is_back_with_an_old_image(seed: u64) -> Outcome {
    play(seed, |cluster| {
        there_and_back(cluster)?;
        cluster.kill(0)?;
        cluster.start(0)?;
        cluster.run_for_ms(3_000)
    })
}

/// The same, and its next life cannot read that image: it begins with nothing, and reads of all again.
pub fn is_back_without_an_image(seed: u64) -> Outcome {
    play(seed, |cluster| {
        let steps = there_and_back(cluster)?;
        cluster.kill(0)?;
        cluster.view_of(0).image_spoilt = true;
        cluster.start(0)?;
        for records in steps {
            cluster.learn_up_to(0, records)?;
            cluster.run_for_ms(1_000)?;
        }
        Ok(())
    })
}

/// The same, and the life without an image is killed before it has caught up: the next one has none either.
pub fn is_back_after_a_life_without_an_image(seed: u64) -> Outcome {
    play(seed, |cluster| {
        let [before, gone] = there_and_back(cluster)?;
        cluster.kill(0)?;
        cluster.view_of(0).image_spoilt = true;
        cluster.start(0)?;
        cluster.view_of(0).saves_late = false;
        cluster.learn_up_to(0, before)?;
        cluster.run_for_ms(5_000)?;
        cluster.kill(0)?;
        cluster.start(0)?;
        cluster.learn_up_to(0, gone)?;
        cluster.run_for_ms(1_000)
    })
}

/// Moves the replica from broker 1 to broker 2 and back; broker 1 hears of both, saves what it must, and hears no
/// more. Gives how many records there were before, and after the first move.
fn there_and_back(cluster: &mut Cluster) -> Result<[usize; 2], Broken> {
    cluster.run_for_ms(2_000)?;
    let before = cluster.records();
    cluster.view_of(0).saves_late = true;
    cluster.ask_for_move(0, 1)?;
    cluster.until_ended(1)?;
    let gone = cluster.records();
    cluster.run_for_ms(3_000)?;
    cluster.ask_for_move(1, 0)?;
    cluster.until_ended(2)?;
    cluster.view_of(0).deaf = true;
    Ok([before, gone])
}

impl Cluster {
    fn records(&self) -> usize {
        self.mover.as_ref().expect("replicas move in this script").records()
    }

    fn view_of(&mut self, node: usize) -> &mut BrokerView {
        self.mover.as_mut().expect("replicas move in this script").view(node)
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
        for node in 0..2 {
            (cluster.view_of(node).deaf, cluster.view_of(node).saves_late) = (false, false);
            cluster.learn_later(node);
        }
        cluster.heal_and_check()
    });
    sim::conclude(seed, cluster, verdict)
}
