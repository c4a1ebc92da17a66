//! What a run reached: a simulation in which nothing happened proves nothing.

use std::ops::AddAssign;

/// Counters of a run, or of a campaign.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Requests acknowledged, by partition.
    pub acked: Vec<u64>,
    /// Requests acknowledged, by mode: `async`, `semi-sync`, `sync`.
    pub acked_by_mode: [u64; 3],
    /// Conditional requests acknowledged.
    pub conditions_met: u64,
    /// Conditional requests refused because the partition ended elsewhere.
    pub conditions_unmet: u64,
    /// Values committed.
    pub committed: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Logs cut.
    pub truncations: u64,
    /// Records read by probes.
    pub reads: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Processes killed.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Brokers paused.
    pub pauses: u64,
    /// Partitions and clogs.
    pub cuts: u64,
    /// Replicas out of service after a failed flush.
    pub failed_replicas: u64,
    /// Those of them that were made anew from the others while their broker went on.
    pub rebuilt_replicas: u64,
    /// Replicas of the same brokers that went on meanwhile.
    pub spared_replicas: u64,
    /// Replicas closed and opened again in one life of their broker.
    pub reopened: u64,
    /// Changes of `flush` while in use.
    pub flush_changes: u64,
    /// Logs that rotted while their brokers were down.
    pub rotted: u64,
    /// Those of them where records are trimmed.
    pub rotted_amid_trims: u64,
    /// Damaged batches that were mended.
    pub repaired: u64,
    /// Logs that had a page lost or overwritten.
    pub pages_spoilt: u64,
    /// How often all files of a replica were lost.
    pub replicas_emptied: u64,
    /// Messages that arrived after their senders had restarted.
    pub from_the_past: u64,
    /// Power cuts amid a boot.
    pub died_booting: u64,
    /// Clocks that jumped.
    pub clock_jumps: u64,
    /// Disks that finished no flush for seconds.
    pub frozen_disks: u64,
    /// Replicas that came back Suspect.
    pub suspects: u64,
    /// Logs that started later.
    pub trims: u64,
    /// Logs given up to start where their leader's does.
    pub starts_anew: u64,
    /// Leader transfers, voter changes and trims carried out.
    pub commands: u64,
    /// Moves of replicas begun or turned back.
    pub moves_begun: u64,
    /// Moves that came to their end.
    pub moves_ended: u64,
    /// Replicas that a move took away, and their files with them.
    pub replicas_dropped: u64,
    /// Disks that had no room for a while.
    pub full_disks: u64,
    /// Brokers that could open nothing for a while.
    pub files_taken: u64,
    /// Times that something was not opened or made then.
    pub files_refused: u64,
    /// Times that the broker of a full disk could not boot.
    pub full_boots: u64,
    /// Passes that a disk held up after they had written.
    pub stuck_passes: u64,
    /// Journals of which one copy was spoilt.
    pub journals_rotted: u64,
    /// Frames that rotted on the only replica that had them.
    pub lost_for_good: u64,
    /// Records in whose place there are gaps.
    pub gaps: u64,
    /// Requests to give something up that were refused.
    pub losses_refused: u64,
    /// Journals of which both copies were.
    pub journals_lost: u64,
    /// Saved images that a booting broker could not read.
    pub images_spoilt: u64,
    /// Partitions begun anew from one replica.
    pub recoveries: u64,
    /// Messages between replicas.
    pub messages: u64,
    /// Messages lost and repeated.
    pub lost_or_repeated: u64,
    /// Flushes.
    pub flushes: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
}

impl AddAssign<&Coverage> for Coverage {
    fn add_assign(&mut self, other: &Coverage) {
        self.acked.resize(self.acked.len().max(other.acked.len()), 0);
        for (sum, acked) in self.acked.iter_mut().zip(&other.acked) {
            *sum += acked;
        }
        for (sum, acked) in self.acked_by_mode.iter_mut().zip(&other.acked_by_mode) {
            *sum += acked;
        }
        self.conditions_met += other.conditions_met;
        self.conditions_unmet += other.conditions_unmet;
        self.committed += other.committed;
        self.elections += other.elections;
        self.truncations += other.truncations;
        self.reads += other.reads;
        self.retries += other.retries;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.pauses += other.pauses;
        self.cuts += other.cuts;
        self.failed_replicas += other.failed_replicas;
        self.rebuilt_replicas += other.rebuilt_replicas;
        self.spared_replicas += other.spared_replicas;
        self.reopened += other.reopened;
        self.flush_changes += other.flush_changes;
        self.rotted += other.rotted;
        self.rotted_amid_trims += other.rotted_amid_trims;
        self.repaired += other.repaired;
        self.pages_spoilt += other.pages_spoilt;
        self.replicas_emptied += other.replicas_emptied;
        self.from_the_past += other.from_the_past;
        self.died_booting += other.died_booting;
        self.clock_jumps += other.clock_jumps;
        self.frozen_disks += other.frozen_disks;
        self.suspects += other.suspects;
        self.trims += other.trims;
        self.starts_anew += other.starts_anew;
        self.commands += other.commands;
        self.moves_begun += other.moves_begun;
        self.moves_ended += other.moves_ended;
        self.replicas_dropped += other.replicas_dropped;
        self.full_disks += other.full_disks;
        self.files_taken += other.files_taken;
        self.files_refused += other.files_refused;
        self.full_boots += other.full_boots;
        self.stuck_passes += other.stuck_passes;
        self.journals_rotted += other.journals_rotted;
        self.lost_for_good += other.lost_for_good;
        self.gaps += other.gaps;
        self.losses_refused += other.losses_refused;
        self.journals_lost += other.journals_lost;
        self.images_spoilt += other.images_spoilt;
        self.recoveries += other.recoveries;
        self.messages += other.messages;
        self.lost_or_repeated += other.lost_or_repeated;
        self.flushes += other.flushes;
        self.simulated_ms += other.simulated_ms;
    }
}
