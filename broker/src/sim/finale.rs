//! The end of a run: everything is mended, and then the cluster has to come to one mind in time.
//!
//! Liveness is demanded only here, where every broker is up and every link works; under faults only
//! safety is.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use highwater_protocol::ids::{LogIndex, NodeId, TopicPartition};
use highwater_protocol::native::produce::AckMode;

use crate::log::LogReader;
use crate::replica::View;
use crate::sim::checker::{Broken, Checked};
use crate::sim::cluster::{Cluster, Happening};
use crate::sim::network::Weather;
use crate::sim::node::{node_id, node_number};
use crate::sim::reading;
use crate::sim::workload::Fate;

impl Cluster {
    /// Mends everything, then demands what a healthy cluster must do.
    pub fn heal_and_check(&mut self) -> Checked {
        self.mend()?;
        self.every_partition_takes_a_write()?;
        self.workload.stop();
        self.all_replicas_converge()?;
        self.hashes_agree()?;
        self.every_promise_was_kept()
    }

    /// I4, by the replicas' own means: what the leader and another one have and know to be committed has one hash,
    /// also if that one is no member any more. What of it has rotted nobody repairs then, nor what was given up.
    pub fn hashes_agree(&self) -> Checked {
        for partition in &self.partitions {
            let open = self.nodes.iter().enumerate().filter_map(|(number, node)| {
                let view = node.shard.as_ref()?.replica(*partition)?.view();
                Some((number, view, node.readers.get(partition)?))
            });
            let mut open: Vec<_> = open.collect();
            open.sort_by_key(|(_, view, _)| Reverse((view.leads, view.term)));
            let Some(((_, ours, reader), others)) = open.split_first() else { continue };
            for (number, view, its) in others {
                let range = ours.log_start.max(view.log_start)..ours.commit.min(view.commit);
                if !range.is_empty() && !self.is_left_behind(*number, *partition, its, &range) {
                    same_hash(*partition, &range, reader, its)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a replica is no member any more, and has something that nobody mends.
    fn is_left_behind(
        &self,
        number: usize,
        partition: TopicPartition,
        reader: &LogReader,
        range: &Range<LogIndex>,
    ) -> bool {
        let rots = || {
            let digested = reader.digest(range.clone(), 0, u64::MAX);
            self.nodes[number].rotten.contains(&partition)
                && digested.map_or(true, |digested| digested.faulty.is_some())
        };
        !self.members(partition).contains(&node_id(number))
            && (self.checker.losses.contains_key(&partition) || rots())
    }

    fn mend(&mut self) -> Checked {
        self.trace.note(self.now_us, format_args!("everything is mended"));
        self.end_faults();
        self.workload.lower_demands();
        self.network.heal();
        self.network.weather = Weather::FAIR;
        self.lift_throttle();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.disarm();
            self.give_room(node);
            self.nodes[node].stuck_until_us = 0;
            self.nodes[node].disk.unhang();
            let life = self.nodes[node].life;
            self.schedule(self.now_us, Happening::Unstuck(node, life));
            self.nodes[node].paused_until_us = 0;
            self.nodes[node].slow_until_us = 0;
            self.nodes[node].frozen_until_us = 0;
            self.nodes[node].dies_after_effects = None;
            if self.nodes[node].is_up() && self.nodes[node].disk.has_failed() {
                self.end_failed_life(node)?;
            }
            self.schedule(self.now_us + 1_000, Happening::Restart(node));
            let life = self.nodes[node].life;
            self.schedule(self.now_us, Happening::Pass(node, life));
        }
        Ok(())
    }

    fn every_partition_takes_a_write(&mut self) -> Checked {
        let before = self.coverage.acked.clone();
        let deadline_ms = self.now_ms() + WRITE_WITHIN_MS;
        let mut next = 0;
        loop {
            self.run_for_ms(100)?;
            let waiting = |number: &usize| self.coverage.acked[*number] <= before[*number];
            let waiting: Vec<usize> = (0..self.partitions.len()).filter(waiting).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if self.now_ms() >= deadline_ms {
                return Err(Broken {
                    invariant: "L1: once all is mended, every partition takes a write within 10 s",
                    detail: self.describe(self.partitions[waiting[0]]),
                });
            }
            // Beside the producers with their own worries, one that just tries.
            if next % 5 == 0 {
                for number in waiting {
                    let producer = self.workload.prober();
                    let request = self.workload.send_with(producer, number, AckMode::SemiSync);
                    self.submit(request);
                }
            }
            next += 1;
        }
    }

    fn all_replicas_converge(&mut self) -> Checked {
        let deadline_ms = self.now_ms() + CONVERGE_WITHIN_MS;
        loop {
            self.run_for_ms(200)?;
            let apart = self
                .partitions
                .iter()
                .find_map(|partition| self.why_apart(*partition).map(|why| (*partition, why)));
            let Some((partition, why)) = apart else {
                if self.workload.is_idle() {
                    return Ok(());
                }
                if self.now_ms() >= deadline_ms {
                    return Err(Broken {
                        invariant: "L1: once all is mended, idempotent producers come home",
                        detail: self.workload.describe(),
                    });
                }
                continue;
            };
            if self.now_ms() >= deadline_ms {
                return Err(Broken {
                    invariant: "L1: once all is mended, all replicas converge within 60 s",
                    detail: format!("{partition}: {why}; {}", self.describe(partition)),
                });
            }
        }
    }

    /// Why the replicas of a partition are not one yet.
    fn why_apart(&self, partition: TopicPartition) -> Option<String> {
        let Some((_, leader)) = self.leader_view(partition) else {
            return Some("no leader".into());
        };
        if let Some(why) = self.why_still_moving(partition, &leader) {
            return Some(why);
        }
        let committed = self.checker.committed(partition);
        for member in self.members(partition) {
            let node = &self.nodes[node_number(member)];
            let replica = node.shard.as_ref().and_then(|shard| shard.replica(partition));
            let Some(replica) = replica else { return Some(format!("{member} is down")) };
            let view = replica.view();
            if view.faulty || node.rotten.contains(&partition) {
                return Some(format!("{member} has something rotten"));
            }
            if view.suspect {
                return Some(format!("{member} is still Suspect"));
            }
            if view.log_start != leader.log_start {
                return Some(format!(
                    "{member} starts at {view:?}, the leader at {}",
                    leader.log_start
                ));
            }
            if (view.log_end, view.commit) != (committed.end(), committed.end()) {
                return Some(format!("{member} is at {view:?}, committed {}", committed.end()));
            }
            let reader = node.readers.get(&partition).expect("it was opened");
            if reader.high_watermark() != committed.end_offset() {
                return Some(format!("{member} shows {}", reader.high_watermark()));
            }
        }
        None
    }

    /// Who votes and who learns, as the leader of the newest term has it.
    fn members(&self, partition: TopicPartition) -> BTreeSet<NodeId> {
        let Some((_, leader)) = self.leader_view(partition) else { return BTreeSet::new() };
        leader.voters.iter().chain(&leader.learners).copied().collect()
    }

    /// The leader of the newest term, if it is up.
    pub fn leader_view(&self, partition: TopicPartition) -> Option<(usize, View)> {
        let views = self.nodes.iter().enumerate().filter_map(|(number, node)| {
            let view = node.shard.as_ref()?.replica(partition)?.view();
            view.leads.then_some((number, view))
        });
        views.max_by_key(|(_, view)| view.term)
    }

    fn every_promise_was_kept(&mut self) -> Checked {
        for (number, partition) in self.partitions.iter().enumerate() {
            let (_, leader) = self.leader_view(*partition).expect("converged under a leader");
            for voter in &leader.voters {
                let node = &self.nodes[node_number(*voter)];
                let reader = node.readers.get(partition).expect("it was opened");
                let read = reading::check_all(&self.checker, *voter, *partition, reader)?;
                let expected = reader.high_watermark().since(reader.log_start());
                if read != expected {
                    return Err(Broken {
                        invariant: "I1: a record is readable exactly once, at its offset",
                        detail: format!("{voter} gave {read} of {expected} records of {partition}"),
                    });
                }
                self.coverage.reads += read;
            }
            let committed = self.checker.committed(*partition);
            for (value, fate) in self.workload.fates(number) {
                if self.checker.is_excused(*partition, *value) {
                    continue;
                }
                check_fate(*partition, *value, *fate, committed.offset_of(*value))?;
            }
            self.checker.check_vouched(*partition)?;
            self.coverage.committed += committed.len() as u64;
        }
        Ok(())
    }

    /// Where every replica of a partition stands, for a failure's report.
    pub fn describe(&self, partition: TopicPartition) -> String {
        let mut said = format!("committed {}", self.checker.committed(partition).end());
        for (number, node) in self.nodes.iter().enumerate() {
            let view = node.shard.as_ref().and_then(|shard| shard.replica(partition));
            let view = view.map(|replica| replica.view());
            said +=
                &format!("; broker {number} ({}) life {}: {view:?}", node_id(number), node.life);
        }
        said
    }
}

fn check_fate(
    partition: TopicPartition,
    value: u64,
    fate: Fate,
    committed: Option<highwater_protocol::ids::Offset>,
) -> Checked {
    let kept = match fate {
        Fate::Open => true,
        // The tail that a leader took with it is not promised.
        Fate::Acked(offset, AckMode::Async) => committed.is_none_or(|at| at == offset),
        Fate::Acked(offset, AckMode::SemiSync | AckMode::Sync) => committed == Some(offset),
        Fate::Refused(_) => committed.is_none(),
    };
    if kept {
        return Ok(());
    }
    let invariant = match fate {
        Fate::Refused(_) => "no failed write shows up",
        Fate::Open | Fate::Acked(..) => "I1: a record is readable exactly once, at its offset",
    };
    Err(Broken {
        invariant,
        detail: format!(
            "{partition}: value {value:x} was {fate:?}, but is committed at {committed:?}"
        ),
    })
}

/// Whether two replicas have the same bytes in a range that both know to be committed.
fn same_hash(
    partition: TopicPartition,
    range: &Range<LogIndex>,
    one: &LogReader,
    other: &LogReader,
) -> Checked {
    let hashed = |reader: &LogReader| {
        reader.digest(range.clone(), 0, u64::MAX).map_err(|error| Broken {
            invariant: "S2: every record returned passes its checks",
            detail: format!("{partition}: hashing {range:?}: {error}"),
        })
    };
    let (one, other) = (hashed(one)?, hashed(other)?);
    if one.hash != other.hash || one.end != range.end || other.end != range.end {
        return Err(Broken {
            invariant: "I4: what is committed has the same hash on all replicas",
            detail: format!("{partition}, {range:?}: {one:?} is not like {other:?}"),
        });
    }
    Ok(())
}

const WRITE_WITHIN_MS: u64 = 10_000;
const CONVERGE_WITHIN_MS: u64 = 60_000;
