//! Everything that a seed draws before the run: the size of the cluster, its settings, and which
//! faults it knows.
//!
//! Uniform fault mixes hide bugs that need one fault often and the others never, so each seed leaves
//! some kinds out and exaggerates others (swarm testing).

use crate::replica::{FlushPolicy, Retention};
use crate::sim::faults::FaultKind;
use crate::sim::network::Weather;
use crate::sim::rng::Rng;

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// How many brokers.
    pub nodes: usize,
    /// Voters of each partition at the start.
    pub replication: usize,
    /// How many partitions, and when an entry of each counts.
    pub partitions: Vec<FlushPolicy>,
    /// Segments are small, so that rolls and cuts are many.
    pub segment_bytes_max: u64,
    /// What is given up without anybody asking.
    pub retention: Retention,
    /// The fewest in-sync voters for `sync`.
    pub insync_replicas_min: u8,
    /// When a slow voter is out of sync.
    pub lag_ms_max: u64,
    /// How many bytes a second each learner is sent.
    pub learner_bytes_per_s: Option<u64>,
    /// The network to start with.
    pub weather: Weather,
    /// How long a flush takes on average.
    pub flush_us_mean: u64,
    /// How the brokers' clocks run: parts in a million fast.
    pub clock_ppm: Vec<u64>,
    /// How long a broker that died stays down at most.
    pub down_ms_max: u64,
    /// What the clients do.
    pub clients: Clients,
    /// How often each fault strikes.
    pub faults: FaultRates,
    /// How much of each disk is kept from records.
    pub keep_free_bytes: u64,
    /// Whether topics change their `flush`, so that any of them may lose what it had not flushed.
    pub flush_changes: bool,
}

/// What a replica may lose of what others count, with its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loses {
    /// All that counts is on disk.
    Nothing,
    /// What was not flushed.
    Unflushed,
}

/// What the clients of a run do.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    /// Producers that retry with a sequence.
    pub idempotent: u64,
    /// Producers that send once.
    pub plain: u64,
    /// Requests per simulated second of each.
    pub rate: u64,
    /// Most requests of one producer under way to one partition.
    pub inflight_max: usize,
    /// The largest value.
    pub value_bytes_max: u64,
    /// Most records of one batch.
    pub records_max: u64,
    /// How long the broker may take.
    pub timeout_ms: u64,
    /// How many in a thousand batches are conditional.
    pub conditional: u64,
}

/// Mean times between faults, in milliseconds; 0 for a fault that this seed does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRates {
    /// The process dies; what it wrote stays in the page cache.
    pub kill: u64,
    /// The power fails: any subset of the unsynced pages is gone.
    pub power: u64,
    /// The power fails in the middle of a disk operation soon.
    pub fuse: u64,
    /// The process stands still.
    pub pause: u64,
    /// The network falls apart.
    pub partition: u64,
    /// One link holds back.
    pub clog: u64,
    /// Flushes take long on one broker.
    pub slow_disk: u64,
    /// A flush fails once.
    pub bad_flush: u64,
    /// Leadership is moved.
    pub transfer: u64,
    /// Voters are changed.
    pub voters: u64,
    /// Old records are given up.
    pub trim: u64,
    /// The network's mood changes.
    pub weather: u64,
    /// A replica is closed, and opened again before long.
    pub reopen: u64,
    /// A topic's `flush` changes.
    pub flush_change: u64,
    /// A process dies, and a log of its rots while it is down.
    pub rot: u64,
    /// A broker's clock jumps ahead.
    pub clock_jump: u64,
    /// Replicas are moved as the controller does it, or a move is cancelled.
    pub moves: u64,
    /// A partition begins anew from one replica.
    pub recover: u64,
    /// A disk has no room for a while.
    pub full: u64,
    /// Whatever writes to a disk stands still for a while.
    pub stuck: u64,
    /// A process dies, and its journal rots while it is down.
    pub journal_rot: u64,
    /// Frames rot on the only replica that has them, and an operator accepts the loss.
    pub accept_loss: u64,
}

impl FaultRates {
    /// No fault at all.
    pub const NONE: FaultRates = FaultRates {
        kill: 0,
        power: 0,
        fuse: 0,
        pause: 0,
        partition: 0,
        clog: 0,
        slow_disk: 0,
        bad_flush: 0,
        transfer: 0,
        voters: 0,
        trim: 0,
        weather: 0,
        reopen: 0,
        flush_change: 0,
        rot: 0,
        clock_jump: 0,
        moves: 0,
        recover: 0,
        full: 0,
        stuck: 0,
        journal_rot: 0,
        accept_loss: 0,
    };

    /// How often a kind strikes.
    pub(super) fn of(mut self, kind: FaultKind) -> u64 {
        *self.slot(kind)
    }

    fn slot(&mut self, kind: FaultKind) -> &mut u64 {
        match kind {
            FaultKind::Kill => &mut self.kill,
            FaultKind::Power => &mut self.power,
            FaultKind::Fuse => &mut self.fuse,
            FaultKind::Pause => &mut self.pause,
            FaultKind::Partition => &mut self.partition,
            FaultKind::Clog => &mut self.clog,
            FaultKind::SlowDisk => &mut self.slow_disk,
            FaultKind::BadFlush => &mut self.bad_flush,
            FaultKind::Transfer => &mut self.transfer,
            FaultKind::Voters => &mut self.voters,
            FaultKind::Trim => &mut self.trim,
            FaultKind::Weather => &mut self.weather,
            FaultKind::Reopen => &mut self.reopen,
            FaultKind::Rot => &mut self.rot,
            FaultKind::ClockJump => &mut self.clock_jump,
            FaultKind::Moves => &mut self.moves,
            FaultKind::Recover => &mut self.recover,
            FaultKind::FlushChange => &mut self.flush_change,
            FaultKind::Full => &mut self.full,
            FaultKind::Stuck => &mut self.stuck,
            FaultKind::JournalRot => &mut self.journal_rot,
            FaultKind::AcceptLoss => &mut self.accept_loss,
        }
    }

    /// Where entries count before they are flushed, a fuse lit while one of three may lose its pages must
    /// not burn down when that one is the only voter left.
    fn without_traps(mut self, partitions: &[FlushPolicy]) -> FaultRates {
        let voters_change = self.voters > 0 || self.moves > 0;
        if partitions.iter().any(|policy| *policy != FlushPolicy::Ack) && voters_change {
            self.fuse = 0;
        }
        self
    }

    fn draw(rng: &mut Rng) -> FaultRates {
        let mut rate = |mean_ms: u64| match rng.below(5) {
            0 | 1 => 0,
            2 => mean_ms * 4,
            3 => mean_ms,
            _ => mean_ms / 3,
        };
        FaultRates {
            kill: rate(6_000),
            power: rate(6_000),
            fuse: rate(8_000),
            pause: rate(8_000),
            partition: rate(8_000),
            clog: rate(4_000),
            slow_disk: rate(8_000),
            bad_flush: rate(12_000),
            transfer: rate(4_000),
            voters: rate(8_000),
            trim: rate(15_000),
            weather: rate(6_000),
            reopen: rate(6_000),
            flush_change: 0,
            rot: rate(6_000),
            clock_jump: rate(20_000),
            moves: 0,
            recover: 0,
            full: rate(8_000),
            stuck: rate(8_000),
            journal_rot: rate(8_000),
            accept_loss: 0,
        }
    }
}

impl Clients {
    fn draw(rng: &mut Rng) -> Clients {
        Clients {
            idempotent: rng.between(1..=3),
            plain: rng.between(0..=2),
            rate: *rng.pick(&[2, 5, 10, 30]),
            inflight_max: *rng.pick(&[1, 2, 5]),
            value_bytes_max: *rng.pick(&[16, 200, 2_000, 9_000]),
            records_max: *rng.pick(&[1, 3, 10]),
            timeout_ms: *rng.pick(&[500, 2_000, 5_000]),
            conditional: 0,
        }
    }
}

impl Swarm {
    /// Draws the parameters of a seed. One in five is all churn: bugs in elections need many of them.
    pub fn draw(seed: u64) -> Swarm {
        let mut swarm = Swarm::draw_any(seed);
        if seed % 5 == 4 {
            swarm.churn(&mut Rng::new(seed, "churn"));
        }
        if seed % 7 == 1 || seed % 7 == 4 {
            swarm.moving(&mut Rng::new(seed, "moves"));
        }
        if seed % 8 == 7 {
            swarm.clients.conditional = *Rng::new(seed, "condition").pick(&[200, 700]);
        }
        if seed % 7 == 2 {
            swarm.recovering(&mut Rng::new(seed, "recoveries"));
        }
        if seed.is_multiple_of(11) {
            swarm.losing(&mut Rng::new(seed, "losses"));
        }
        if seed % 6 == 2 {
            swarm.changing_flush(&mut Rng::new(seed, "flush"));
        }
        swarm
    }

    /// Has this fault strike, besides what the seed drew; what must not come together with it does not.
    pub fn force(&mut self, seed: u64, kind: FaultKind) {
        let mut rng = Rng::new(seed, "force");
        let rates = &mut self.faults;
        match kind {
            FaultKind::Moves => self.moving(&mut rng),
            FaultKind::Recover => self.recovering(&mut rng),
            FaultKind::FlushChange => self.changing_flush(&mut rng),
            FaultKind::AcceptLoss => self.losing(&mut rng),
            FaultKind::Voters => (rates.moves, rates.recover) = (0, 0),
            FaultKind::Fuse => (rates.voters, rates.moves, rates.recover) = (0, 0, 0),
            FaultKind::Kill
            | FaultKind::Power
            | FaultKind::Pause
            | FaultKind::Partition
            | FaultKind::Clog
            | FaultKind::SlowDisk
            | FaultKind::BadFlush
            | FaultKind::Transfer
            | FaultKind::Trim
            | FaultKind::Weather
            | FaultKind::Reopen
            | FaultKind::Rot
            | FaultKind::ClockJump
            | FaultKind::Full
            | FaultKind::Stuck
            | FaultKind::JournalRot => {}
        }
        if self.faults.of(kind) == 0 {
            *self.faults.slot(kind) = FORCED_MS;
        }
        self.faults = self.faults.without_traps(&self.partitions);
    }

    /// What a replica of this partition may lose.
    pub fn loses(&self, partition: usize) -> Loses {
        match self.partitions[partition] {
            FlushPolicy::Ack if !self.flush_changes => Loses::Nothing,
            FlushPolicy::Ack | FlushPolicy::Interval { .. } => Loses::Unflushed,
        }
    }

    /// Topics change how their replicas count.
    fn changing_flush(&mut self, rng: &mut Rng) {
        self.flush_changes = true;
        self.faults.flush_change = *rng.pick(&[300, 1_000, 3_000]);
        if self.faults.power == 0 {
            self.faults.power = 3_000;
        }
        self.partitions[0] = FlushPolicy::Interval { ms: 500 };
        self.faults = self.faults.without_traps(&self.partitions);
    }

    /// Replicas move about, and nobody else changes voters.
    fn moving(&mut self, rng: &mut Rng) {
        if self.nodes < 2 {
            return;
        }
        self.faults.moves = *rng.pick(&[300, 1_000, 3_000]);
        self.faults.voters = 0;
        self.learner_bytes_per_s = *rng.pick(&[None, Some(10_000), Some(200_000)]);
        self.faults = self.faults.without_traps(&self.partitions);
    }

    /// Replicas move about, and at times a majority is given up.
    fn recovering(&mut self, rng: &mut Rng) {
        self.moving(rng);
        self.faults.recover = match self.faults.moves {
            0 => 0,
            _ => *rng.pick(&[1_500, 4_000]),
        };
        // Where committed records are given up, an end that was told is none any more.
        self.clients.conditional = 0;
    }

    /// Partitions have one replica, at first at least, whose frames may rot for good.
    fn losing(&mut self, rng: &mut Rng) {
        self.replication = 1;
        self.faults.accept_loss = *rng.pick(&[1_000, 3_000]);
    }

    /// Short lives over a slow network: leaders die in the midst of what they do.
    fn churn(&mut self, rng: &mut Rng) {
        let mut often = |mean_ms: u64| *rng.pick(&[0, mean_ms, mean_ms / 2]);
        self.faults = FaultRates {
            kill: often(800),
            power: often(800),
            partition: often(3_000),
            transfer: often(1_000),
            voters: often(1_500),
            ..FaultRates::NONE
        };
        self.weather = Weather {
            delay_us_min: *rng.pick(&[500, 5_000]),
            delay_us_mean: *rng.pick(&[2_000, 20_000, 60_000]),
            loss: *rng.pick(&[0, 30, 150]),
            ..Weather::FAIR
        };
        self.flush_us_mean = *rng.pick(&[1_000, 30_000]);
        self.down_ms_max = *rng.pick(&[50, 300, 1_000]);
        self.clients.rate = 20;
    }

    fn draw_any(seed: u64) -> Swarm {
        let mut rng = Rng::new(seed, "swarm");
        let nodes = *rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let replication = match nodes {
            1 | 2 => nodes,
            _ => *rng.pick(&[3, 3, 3, nodes.min(5), nodes.min(5) - 1]),
        };
        let partitions: Vec<_> =
            (0..rng.between(1..=3)).map(|_| Swarm::draw_flush(&mut rng)).collect();
        Swarm {
            nodes,
            replication,
            segment_bytes_max: *rng.pick(&[16 << 10, 32 << 10, 128 << 10, 1 << 20]),
            retention: Swarm::draw_retention(seed),
            insync_replicas_min: rng.between(1..=2) as u8,
            lag_ms_max: *rng.pick(&[500, 2_000, 10_000]),
            learner_bytes_per_s: None,
            weather: if rng.per_mille(400) { Weather::FAIR } else { Weather::draw(&mut rng) },
            flush_us_mean: *rng.pick(&[100, 1_000, 5_000, 30_000]),
            clock_ppm: (0..nodes).map(|_| 990_000 + rng.below(20_000)).collect(),
            down_ms_max: 4_000,
            keep_free_bytes: *Rng::new(seed, "room").pick(&[0, 64 << 10, 512 << 10]),
            clients: Clients::draw(&mut rng),
            faults: FaultRates::draw(&mut rng).without_traps(&partitions),
            flush_changes: false,
            partitions,
        }
    }

    /// A quiet cluster, for scripted scenarios to do their worst to.
    pub fn quiet(nodes: usize, partitions: Vec<FlushPolicy>) -> Swarm {
        Swarm {
            nodes,
            replication: nodes,
            partitions,
            segment_bytes_max: 64 << 10,
            retention: Retention::FOREVER,
            insync_replicas_min: 1,
            lag_ms_max: 2_000,
            learner_bytes_per_s: None,
            weather: Weather::FAIR,
            flush_us_mean: 500,
            clock_ppm: vec![1_000_000; nodes],
            down_ms_max: 4_000,
            keep_free_bytes: 0,
            clients: Clients {
                idempotent: 2,
                plain: 1,
                rate: 10,
                inflight_max: 2,
                value_bytes_max: 100,
                records_max: 3,
                timeout_ms: 2_000,
                conditional: 0,
            },
            faults: FaultRates::NONE,
            flush_changes: false,
        }
    }

    /// Half of the runs keep everything, the others next to nothing.
    fn draw_retention(seed: u64) -> Retention {
        let mut rng = Rng::new(seed, "retention");
        if rng.per_mille(500) {
            return Retention::FOREVER;
        }
        Retention {
            ms: *rng.pick(&[None, None, Some(1_000), Some(20_000)]),
            bytes: *rng.pick(&[None, Some(1), Some(20 << 10), Some(100 << 10)]),
            segment_ms: *rng.pick(&[500, 5_000, u64::MAX]),
        }
    }

    fn draw_flush(rng: &mut Rng) -> FlushPolicy {
        if rng.per_mille(650) {
            FlushPolicy::Ack
        } else {
            FlushPolicy::Interval { ms: *rng.pick(&[20, 200, 1_000]) }
        }
    }
}

/// How often a fault strikes that is asked for by name, where the seed does not know it.
const FORCED_MS: u64 = 3_000;
