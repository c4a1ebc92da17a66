//! A rolling deploy: fifty members over three hundred partitions, all of which end and start again, one after the
//! other, while coordinators fail over; and then some that end without a word.
//!
//! Beside the rules of every run, a partition that does not move never stops being handled: who handles one after
//! a pause is never who handled it before. How many move, and for how long they stop, is counted.

use std::collections::BTreeMap;

use highwater_protocol::ids::TopicPartition;

use super::swarm::Swarm;
use super::world::{Broken, World};
use crate::sim::rng::Rng;

/// Whether members come back under the name that they had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarts {
    /// With a name, by which the group keeps a member's place.
    Named,
    /// As somebody else.
    Nameless,
}

/// What a deploy came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deployed {
    /// How often a partition went from one member to another while members ended well.
    pub moved: u64,
    /// For how long such a partition was handled by nobody, at most.
    pub stopped_ms_max: u64,
    /// How many went from members that ended without a word.
    pub orphaned: u64,
    /// For how long such a partition was handled by nobody, at most.
    pub orphaned_ms_max: u64,
}

/// Plays a deploy.
///
/// # Errors
/// The first rule that does not hold.
pub fn deploy(seed: u64, restarts: Restarts) -> Result<Deployed, Broken> {
    let mut play = Play::new(seed, restarts);
    play.come_to_rest()?;
    play.watch.since_last();
    for number in 1..=MEMBERS {
        play.restart(number)?;
    }
    play.come_to_rest()?;
    let Watch { moved, stopped_ms_max, .. } = play.watch.since_last();
    for _ in 0..CRASHES {
        play.crash()?;
    }
    let Watch { moved: orphaned, stopped_ms_max: orphaned_ms_max, .. } = play.watch.since_last();
    Ok(Deployed { moved, stopped_ms_max, orphaned, orphaned_ms_max })
}

struct Play {
    world: World,
    watch: Watch,
}

impl Play {
    fn new(seed: u64, restarts: Restarts) -> Play {
        let rng = Rng::new(seed, "a deploy");
        let mut world = World::empty(seed, rng, Swarm::calm(DEPLOY_SESSION_MS));
        (1..=TOPICS).for_each(|number| world.create(number, PARTITIONS_EACH));
        for number in 1..=MEMBERS {
            world.join((restarts == Restarts::Named).then(|| format!("worker-{number}")));
        }
        Play { world, watch: Watch::default() }
    }

    fn pass(&mut self, ms: u64) -> Result<(), Broken> {
        for _ in 0..ms / STEP_MS {
            self.world.step(STEP_MS)?;
            self.watch.look(&self.world)?;
        }
        Ok(())
    }

    fn come_to_rest(&mut self) -> Result<(), Broken> {
        for _ in 0..REST_TRIES {
            self.pass(1_000)?;
            if self.world.check_rest().is_ok() {
                return Ok(());
            }
        }
        self.world.check_rest()
    }

    /// A member ends, and starts again a little later.
    fn restart(&mut self, number: usize) -> Result<(), Broken> {
        let (last_words, name) = self.world.end(number);
        self.world.tell_leader(number, last_words);
        self.pass(2_000)?;
        self.world.join(name);
        self.pass(1_000)?;
        if number.is_multiple_of(FAILOVER_EACH) {
            self.world.keepers.fail_over(self.world.now);
        }
        self.pass(2_000)?;
        self.world.keepers.begin_log_anew();
        Ok(())
    }

    /// A member ends without a word, and others have what it had once its session is over.
    fn crash(&mut self) -> Result<(), Broken> {
        let number = *self.world.readers.keys().next().expect("somebody is there");
        self.world.crash(number);
        self.come_to_rest()
    }
}

/// Who handles what, seen from outside.
#[derive(Debug, Clone, Default)]
struct Watch {
    handlers: BTreeMap<TopicPartition, Handler>,
    moved: u64,
    stopped_ms_max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Handler {
    reader: usize,
    /// Since when nobody handles the partition.
    stopped_at: Option<u64>,
}

impl Watch {
    /// What was counted since this was asked last.
    fn since_last(&mut self) -> Watch {
        let anew = Watch { handlers: self.handlers.clone(), ..Watch::default() };
        std::mem::replace(self, anew)
    }

    fn look(&mut self, world: &World) -> Result<(), Broken> {
        let mut handled: BTreeMap<TopicPartition, usize> = BTreeMap::new();
        for (number, reader) in &world.readers {
            handled.extend(reader.handles().map(|partition| (partition, *number)));
        }
        for (partition, known) in &mut self.handlers {
            if known.stopped_at.is_none() && !handled.contains_key(partition) {
                known.stopped_at = Some(world.now);
            }
        }
        for (partition, reader) in handled {
            let now = Handler { reader, stopped_at: None };
            let Some(before) = self.handlers.insert(partition, now) else { continue };
            if before.reader != reader {
                let stopped_ms = before.stopped_at.map_or(0, |at| world.now - at);
                self.moved += 1;
                self.stopped_ms_max = self.stopped_ms_max.max(stopped_ms);
            } else if before.stopped_at.is_some() {
                let what = format!("{partition} stopped although it stays with reader {reader}");
                return Err(world.broken(what));
            }
        }
        Ok(())
    }
}

/// Members of the group that is deployed.
pub const MEMBERS: usize = 50;
/// Partitions that it reads.
pub const PARTITIONS: u32 = TOPICS as u32 * PARTITIONS_EACH;
/// After how much silence a member is taken for gone.
pub const DEPLOY_SESSION_MS: u64 = 10_000;
const TOPICS: u128 = 3;
const PARTITIONS_EACH: u32 = 100;
const CRASHES: usize = 5;
const FAILOVER_EACH: usize = 7;
const STEP_MS: u64 = 50;
const REST_TRIES: usize = 60;
