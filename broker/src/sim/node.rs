//! One simulated broker: a shard over a disk that forgets, with an inbox, a clock of its own, and
//! lives that follow each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use highwater_protocol::ids::{Incarnation, NodeId, TopicPartition};

use crate::disk::Disk;
use crate::log::LogReader;
use crate::raft::Millis;
use crate::replica::LastLife;
use crate::shard::event::{Event, Leadership};
use crate::shard::{Directory, Shard, ShardOptions};
use crate::sim::disk::SimDisk;
use crate::sim::storage::Held;

/// One broker.
pub struct SimNode {
    /// Its id; brokers are numbered from 0 elsewhere in the simulator.
    pub id: NodeId,
    /// Its disk, which outlives its lives.
    pub disk: Arc<SimDisk>,
    /// Its shard, while it is up.
    pub shard: Option<Shard>,
    /// Counts its boots.
    pub life: u64,
    /// How its last life ended.
    pub last_life: LastLife,
    /// What waits for the next pass.
    pub inbox: VecDeque<Event>,
    /// Whether a pass is due.
    pub pass_is_due: bool,
    /// When it wakes by itself.
    pub tick_at_us: u64,
    /// Until when it stands still.
    pub paused_until_us: u64,
    /// Until when its disk is slow.
    pub slow_until_us: u64,
    /// Until when its disk finishes no flush.
    pub frozen_until_us: u64,
    /// Until when its disk holds up whoever writes.
    pub stuck_until_us: u64,
    /// When its last pass was, by its clock. What that wants done may leave long after.
    pub pass_at: Millis,
    /// What a pass wants done that its disk holds up.
    pub(super) held: Option<Held>,
    /// How much of its disk is kept from records.
    pub keep_free_bytes: u64,
    /// Dies after carrying out so many effects of the next pass.
    pub dies_after_effects: Option<usize>,
    /// The readers of its replicas.
    pub readers: BTreeMap<TopicPartition, LogReader>,
    /// What it published of leaderships.
    pub leaderships: BTreeMap<TopicPartition, Leadership>,
    /// Replicas that went out of service in this life.
    pub failed: BTreeSet<TopicPartition>,
    /// Replicas that may lack what they once counted: since a crash, until they are trusted again.
    pub short: BTreeSet<TopicPartition>,
    /// Replicas with something rotten, until all of it was read and found whole.
    pub rotten: BTreeSet<TopicPartition>,
    /// Replicas that it was told to delete, and how often, until they are closed.
    pub dropping: BTreeMap<TopicPartition, u32>,
    /// Replicas that were closed in the last pass.
    pub closed: BTreeSet<TopicPartition>,
    clock_ppm: u64,
    clock_base_us: u64,
    seed: u64,
}

impl SimNode {
    /// A broker that has never run.
    pub fn new(number: usize, seed: u64, clock_ppm: u64) -> SimNode {
        let seed = seed ^ ((number as u64 + 1) << 48);
        SimNode {
            id: node_id(number),
            disk: SimDisk::new(seed),
            shard: None,
            life: 0,
            last_life: LastLife::Clean,
            inbox: VecDeque::new(),
            pass_is_due: false,
            tick_at_us: u64::MAX,
            paused_until_us: 0,
            slow_until_us: 0,
            frozen_until_us: 0,
            stuck_until_us: 0,
            pass_at: Millis(0),
            held: None,
            keep_free_bytes: 0,
            dies_after_effects: None,
            readers: BTreeMap::new(),
            leaderships: BTreeMap::new(),
            failed: BTreeSet::new(),
            short: BTreeSet::new(),
            rotten: BTreeSet::new(),
            dropping: BTreeMap::new(),
            closed: BTreeSet::new(),
            clock_ppm,
            clock_base_us: (seed >> 40) * 1_000,
            seed,
        }
    }

    /// What its clock shows.
    pub fn clock(&self, now_us: u64) -> Millis {
        Millis((self.clock_base_us + now_us * self.clock_ppm / 1_000_000) / 1_000)
    }

    /// Its clock jumps ahead, as it does when the machine was asleep; it never goes back.
    pub fn jump(&mut self, us: u64) {
        self.clock_base_us += us;
    }

    /// When its clock will show this.
    pub fn when_clock_shows(&self, at: Millis) -> u64 {
        let shown_us = at.0.saturating_mul(1_000).saturating_sub(self.clock_base_us);
        shown_us.saturating_mul(1_000_000).div_ceil(self.clock_ppm)
    }

    /// Its present life, if it is up.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.life)
    }

    /// Begins a new life. Replicas are opened by events.
    pub fn boot(&mut self, now_us: u64) -> std::io::Result<()> {
        assert!(self.shard.is_none(), "a broker has one life at a time");
        self.life += 1;
        self.disk.begin_process();
        let options = ShardOptions {
            me: self.id,
            incarnation: self.incarnation(),
            seed: self.seed ^ self.life.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            heartbeat_ms: 100,
            dir: PathBuf::from("/data/shard-0"),
            stray_dir: PathBuf::from("/data/stray"),
            last_life: self.last_life,
            directory: if self.life == 1 { Directory::New } else { Directory::Used },
            keep_free_bytes: self.keep_free_bytes,
        };
        let disk: Arc<dyn Disk> = Arc::clone(&self.disk) as Arc<dyn Disk>;
        self.shard = Some(Shard::open(options, disk, self.clock(now_us))?);
        Ok(())
    }

    /// Ends this life.
    pub fn die(&mut self, last_life: LastLife) {
        self.shard = None;
        let _ = self.disk.give_files();
        self.last_life = last_life;
        self.inbox.clear();
        self.pass_is_due = false;
        self.tick_at_us = u64::MAX;
        self.paused_until_us = 0;
        self.dies_after_effects = None;
        self.held = None;
        self.readers.clear();
        self.leaderships.clear();
        self.failed.clear();
        self.dropping.clear();
    }

    /// Until when its disk finishes no flush.
    pub fn flushes_nothing_before(&self) -> u64 {
        self.frozen_until_us.max(self.stuck_until_us)
    }

    /// Whether it is running.
    pub fn is_up(&self) -> bool {
        self.shard.is_some()
    }
}

/// The id of the broker with this number.
pub fn node_id(number: usize) -> NodeId {
    NodeId(number as u32 + 1)
}

/// The number of the broker with this id.
pub fn node_number(id: NodeId) -> usize {
    id.0 as usize - 1
}
