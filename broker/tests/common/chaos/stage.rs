//! The brokers and the network between them, and what a plan does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use highwater_broker::crash_point::CrashPoint;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::Cluster;
use super::super::limits::limit_descriptors;
use super::super::links::Links;
use super::super::weather::{Weather, next_random};
use super::files::FileFault;
use super::judge::Topic;
use super::plan::{Fault, Step, Victim};

/// Everything that the plan acts upon, and what came of it so far.
pub struct Stage {
    pub cluster: Cluster,
    pub links: Links,
    /// The build that brokers begin with.
    pub other: Option<PathBuf>,
    pub nodes: usize,
    pub seed: u64,
    began: Instant,
    /// Whom a step has hit, until it ends.
    hit: BTreeMap<usize, usize>,
    down: BTreeSet<usize>,
    /// Who ends by itself because it was told to.
    armed: BTreeSet<usize>,
    pub fired: BTreeMap<&'static str, u64>,
    pub notes: Vec<String>,
    pub deaths: Vec<Death>,
    pub failures: Vec<String>,
}

/// A broker that ended although nobody had asked it to.
#[derive(Debug, Serialize)]
pub struct Death {
    pub broker: usize,
    /// Since the cluster was made.
    pub at_ms: u64,
    pub exit: String,
    /// Of its log.
    pub last_lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cue {
    Ends,
    Begins,
}

impl Stage {
    /// A cluster behind its relays, not yet started; with another build, all of its brokers will run that.
    pub fn new(nodes: usize, seed: u64, other: Option<&Path>) -> Stage {
        let cluster = match other {
            None => Cluster::made(nodes),
            Some(other) => Cluster::made_by(other, nodes),
        };
        let links = Links::between(&cluster).and_clients(&cluster);
        Stage {
            cluster,
            links,
            other: other.map(Path::to_owned),
            nodes,
            seed,
            began: Instant::now(),
            hit: BTreeMap::new(),
            down: BTreeSet::new(),
            armed: BTreeSet::new(),
            fired: BTreeMap::new(),
            notes: Vec::new(),
            deaths: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Does what stands in the plan when its time has come.
    pub async fn play(&mut self, steps: &[Step], topic: &Topic) {
        let began = Instant::now();
        let mut cues: Vec<(u64, Cue, usize)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            cues.push((step.at_ms, Cue::Begins, number));
            cues.push((step.at_ms + step.for_ms, Cue::Ends, number));
        }
        cues.sort_unstable();
        for (at_ms, cue, number) in cues {
            sleep_until(began + Duration::from_millis(at_ms)).await;
            self.look_for_the_dead();
            match cue {
                Cue::Begins => self.begin(number, steps[number], topic).await,
                Cue::Ends => self.end(number, steps[number].fault),
            }
        }
    }

    async fn begin(&mut self, number: usize, step: Step, topic: &Topic) {
        let node = match step.victim {
            Victim::Node(node) => Some(node),
            Victim::Leader => timeout(Duration::from_secs(1), topic.leader()).await.ok().flatten(),
        };
        let Some(node) = node else {
            self.notes.push(format!("nobody leads at {} ms", step.at_ms));
            return;
        };
        if self.down.contains(&node) {
            self.notes.push(format!("broker {node} is down already at {} ms", step.at_ms));
            return;
        }
        self.hit.insert(number, node);
        match step.fault {
            Fault::Kill => self.kill(node),
            Fault::Unasked => self.signal(node, Signal::KILL),
            Fault::Stop => self.stop(node),
            Fault::OtherBuild => self.change_build(node, number),
            Fault::Pause => self.signal(node, Signal::STOP),
            Fault::FewDescriptors => self.limit_descriptors(node, Some(3)),
            Fault::File(file) => {
                if !self.damage(node, number, file) {
                    return;
                }
            }
            Fault::Deaf => {
                for other in (1..=self.nodes).filter(|other| *other != node) {
                    self.links.cut_one_way(other, node);
                }
            }
            Fault::Isolate => self.links.isolate(node),
            Fault::Rebind => self.links.rebind(node),
            Fault::CrashPoint if self.lacks_crash_points(node) => {
                self.notes.push(format!("broker {node} runs a build without crash points"));
                return;
            }
            Fault::CrashPoint => {
                self.cluster.kill(node);
                self.start_to_end(node, self.seed ^ number as u64);
            }
            Fault::BlackHole | Fault::SlowReader => {
                self.links.at_door(node, weather(step.fault));
            }
            Fault::Loss
            | Fault::Delay
            | Fault::Repeat
            | Fault::Reorder
            | Fault::Throttle
            | Fault::CorruptByte => {
                self.links.around(node, weather(step.fault));
                self.links.at_door(node, weather(step.fault));
            }
        }
        *self.fired.entry(step.fault.name()).or_default() += 1;
    }

    fn end(&mut self, number: usize, fault: Fault) {
        let Some(node) = self.hit.remove(&number) else { return };
        match fault {
            Fault::Kill | Fault::Stop | Fault::OtherBuild | Fault::File(_) => self.start(node),
            // One that does not come by its crash point is told otherwise when all is healed.
            Fault::Unasked | Fault::CrashPoint => {}
            Fault::Rebind => self.links.rebind(node),
            Fault::Pause => self.signal(node, Signal::CONT),
            Fault::FewDescriptors => self.limit_descriptors(node, None),
            Fault::Isolate
            | Fault::Deaf
            | Fault::BlackHole
            | Fault::Loss
            | Fault::Delay
            | Fault::Repeat
            | Fault::Reorder
            | Fault::Throttle
            | Fault::CorruptByte
            | Fault::SlowReader => {
                self.links.around(node, Weather::CLEAR);
                self.links.at_door(node, Weather::CLEAR);
            }
        }
    }

    /// Kills a broker and damages its files, if there is anything to damage.
    fn damage(&mut self, node: usize, number: usize, file: FileFault) -> bool {
        self.kill(node);
        let data = self.cluster.dir.path().join(format!("node-{node}/data"));
        let done = file.inflict(&data, self.seed ^ number as u64);
        self.notes.push(match &done {
            None => format!("{}: nothing to do it to", file.name()),
            Some(done) => format!("{} on broker {node}: {done}", file.name()),
        });
        done.is_some()
    }

    pub fn kill(&mut self, node: usize) {
        self.cluster.kill(node);
        self.down.insert(node);
    }

    pub fn stop(&mut self, node: usize) {
        if !self.cluster.stop(node) && !self.ended_as_told(node) {
            self.failures.push(format!("broker {node} does not stop well"));
        }
        self.down.insert(node);
    }

    fn start(&mut self, node: usize) {
        self.down.remove(&node);
        self.armed.remove(&node);
        self.cluster.start(node);
    }

    /// Starts a broker that ends at one of its crash points, once it comes by it for the so many-th time.
    fn start_to_end(&mut self, node: usize, seed: u64) {
        let mut dice = seed;
        let points = CrashPoint::value_variants();
        let point = points[next_random(&mut dice) as usize % points.len()];
        let value = point.to_possible_value().expect("no point is skipped");
        let time = (1 + next_random(&mut dice) % 20).to_string();
        self.notes.push(format!("broker {node} is to end at {}, time {time}", value.get_name()));
        let arguments = ["--crash-at", value.get_name(), "--crash-at-time", &time];
        self.cluster.start_with(node, &arguments);
        self.armed.insert(node);
    }

    /// Whether a broker that has ended did so at its crash point.
    fn ended_as_told(&self, node: usize) -> bool {
        let last = self.cluster.last_lines(node, 3);
        let is_told = last.iter().any(|line| line.contains("ends at the crash point"));
        self.armed.contains(&node) && is_told
    }

    fn signal(&self, node: usize, signal: Signal) {
        if self.down.contains(&node) {
            return;
        }
        let pid = Pid::from_raw(self.cluster.pid(node) as i32).expect("a process has a number");
        // Also one that has ended by itself is there until somebody looks for the dead.
        kill_process(pid, signal).expect("it is ours");
    }

    /// Lets a broker open so many more files and sockets than it has open, or as many as we may.
    fn limit_descriptors(&self, node: usize, more: Option<usize>) {
        if !self.down.contains(&node) {
            limit_descriptors(self.cluster.pid(node), more);
        }
    }

    /// A broker that ends by itself is a finding, whatever was done to it. It is started again, so that
    /// the rest of the run has something to say, unless it does nothing but end.
    pub fn look_for_the_dead(&mut self) {
        for node in 1..=self.nodes {
            let Some(exit) = self.cluster.bury(node) else { continue };
            if self.ended_as_told(node) {
                self.notes.push(format!("broker {node} ended as it was told"));
                self.start(node);
                continue;
            }
            let exit = exit.to_string();
            self.failures.push(format!("broker {node} ended by itself: {exit}"));
            self.deaths.push(Death {
                broker: node,
                at_ms: self.began.elapsed().as_millis() as u64,
                exit,
                last_lines: self.cluster.last_lines(node, DEATH_LINES),
            });
            let deaths = self.deaths.iter().filter(|death| death.broker == node).count();
            if deaths < DEATHS_MAX {
                self.start(node);
            } else {
                self.armed.remove(&node);
                self.down.insert(node);
            }
        }
    }

    /// Ends all that was done to brokers and network.
    pub fn heal(&mut self) {
        self.links.heal();
        self.look_for_the_dead();
        for node in std::mem::take(&mut self.armed) {
            self.kill(node);
        }
        for node in std::mem::take(&mut self.down) {
            self.cluster.start(node);
        }
        for node in 1..=self.nodes {
            self.signal(node, Signal::CONT);
            self.limit_descriptors(node, None);
        }
    }
}

fn weather(fault: Fault) -> Weather {
    match fault {
        Fault::Loss => Weather { lost_permille: 150, ..Weather::CLEAR },
        Fault::Delay => Weather { delay_ms: 60, jitter_ms: 60, ..Weather::CLEAR },
        Fault::Repeat => Weather { repeated_permille: 300, ..Weather::CLEAR },
        Fault::Reorder => Weather { reordered_permille: 200, ..Weather::CLEAR },
        Fault::Throttle => Weather { bytes_per_second: Some(100_000), ..Weather::CLEAR },
        Fault::CorruptByte => Weather { corrupted_permille: 50, ..Weather::CLEAR },
        Fault::SlowReader => Weather { bytes_per_second: Some(20_000), ..Weather::CLEAR },
        Fault::BlackHole | Fault::Isolate | Fault::Deaf => Weather::CUT,
        Fault::Kill
        | Fault::Unasked
        | Fault::Pause
        | Fault::Stop
        | Fault::Rebind
        | Fault::CrashPoint
        | Fault::FewDescriptors
        | Fault::OtherBuild
        | Fault::File(_) => Weather::CLEAR,
    }
}

const DEATH_LINES: usize = 30;
const DEATHS_MAX: usize = 3;
