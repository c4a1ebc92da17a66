//! What is done when: a function of the seed, the script and the menu, and of nothing else.

use serde::Serialize;

use super::super::weather::next_random;
use super::files::FileFault;

/// What can be done to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL, and started again later.
    Kill,
    /// SIGKILL that the run knows nothing of, for tests of the run itself: it is not on the menu.
    Unasked,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// SIGTERM, and started again later.
    Stop,
    /// No broker hears it, and it hears none.
    Isolate,
    /// It hears no broker, but they hear it.
    Deaf,
    /// No client reaches it, and nobody is told.
    BlackHole,
    Loss,
    Delay,
    Repeat,
    Reorder,
    Throttle,
    CorruptByte,
    /// Clients take what it sends at a walking pace.
    SlowReader,
    /// Its connections come from another port from one datagram to the next.
    Rebind,
    /// Killed, and started so that it ends at one of its crash points.
    CrashPoint,
    /// It can open hardly any more files or sockets.
    FewDescriptors,
    /// Stopped or killed, and started with the other of two builds.
    OtherBuild,
    /// Killed; while it is down, something is done to its files.
    File(FileFault),
}

/// A story to play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Script {
    /// One fault of the menu after another, on a minority.
    Random,
    /// Nothing happens.
    Quiet,
    /// Whoever leads the first partition is killed every ten seconds.
    LeaderKill,
    /// A minority is paused, the next broker crashes, then they change places.
    PauseKill,
    /// The same with a minority that is cut off.
    PartKill,
    /// A bit flips in the files of one broker, again and again, and others are killed meanwhile.
    FlipKill,
    /// All brokers go from the other build to this one, one after the other.
    Rolling,
    /// The same, but amid it some, or all, go back for a while.
    RollingBack,
}

/// Whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    Node(usize),
    /// Whoever leads the first partition by then.
    Leader,
}

/// A fault, when it begins, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    pub at_ms: u64,
    pub for_ms: u64,
    pub victim: Victim,
    pub fault: Fault,
}

impl Fault {
    /// Everything that can be fired where there is one build; none of it may lose anything.
    pub fn all() -> Vec<Fault> {
        let mut all = vec![
            Fault::Kill,
            Fault::Pause,
            Fault::Stop,
            Fault::Isolate,
            Fault::Deaf,
            Fault::BlackHole,
            Fault::Loss,
            Fault::Delay,
            Fault::Repeat,
            Fault::Reorder,
            Fault::Throttle,
            Fault::CorruptByte,
            Fault::SlowReader,
            Fault::Rebind,
            Fault::CrashPoint,
            Fault::FewDescriptors,
        ];
        all.extend(FileFault::ALL.iter().map(|fault| Fault::File(*fault)));
        all
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Unasked => "unasked",
            Fault::Pause => "pause",
            Fault::Stop => "stop",
            Fault::Isolate => "isolate",
            Fault::Deaf => "deaf",
            Fault::BlackHole => "black-hole",
            Fault::Loss => "loss",
            Fault::Delay => "delay",
            Fault::Repeat => "repeat",
            Fault::Reorder => "reorder",
            Fault::Throttle => "throttle",
            Fault::CorruptByte => "corrupt-byte",
            Fault::SlowReader => "slow-reader",
            Fault::Rebind => "rebind",
            Fault::CrashPoint => "crash-point",
            Fault::FewDescriptors => "few-descriptors",
            Fault::OtherBuild => "other-build",
            Fault::File(file) => file.name(),
        }
    }

    /// Everything that can be fired where there are two builds.
    pub fn with_other_build() -> Vec<Fault> {
        Fault::all().into_iter().chain([Fault::OtherBuild]).collect()
    }

    /// The fault of that name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::with_other_build().into_iter().find(|fault| fault.name() == name)
    }
}

/// The steps of a run; those of different brokers may overlap where the script says so.
pub fn steps(script: Script, seed: u64, nodes: usize, seconds: u64, menu: &[Fault]) -> Vec<Step> {
    let mut dice = Dice(seed);
    match script {
        Script::Quiet => Vec::new(),
        Script::Random => random(&mut dice, nodes, seconds, menu),
        Script::LeaderKill => every(10, seconds, |at_ms| {
            vec![Step { at_ms, for_ms: 3_000, victim: Victim::Leader, fault: Fault::Kill }]
        }),
        Script::PauseKill => swapping(&mut dice, nodes, seconds, Fault::Pause),
        Script::PartKill => swapping(&mut dice, nodes, seconds, Fault::Isolate),
        Script::FlipKill => {
            let damaged = dice.node(nodes);
            every(6, seconds, |at_ms| {
                let other = (damaged + at_ms as usize / 6_000) % nodes + 1;
                let fault = Fault::File(FileFault::FlipBits);
                let flip = Step { at_ms, for_ms: 500, victim: Victim::Node(damaged), fault };
                let victim = Victim::Node(if other == damaged { other % nodes + 1 } else { other });
                vec![flip, Step { at_ms: at_ms + 3_000, for_ms: 1_000, victim, fault: Fault::Kill }]
            })
        }
        Script::Rolling => {
            let order = dice.shuffled(nodes);
            rolling(&mut dice, seconds, &order)
        }
        Script::RollingBack => {
            let mut order = dice.shuffled(nodes);
            let forward = 1 + dice.below(nodes as u64) as usize;
            let back = 1 + dice.below(forward as u64) as usize;
            let rest = order.split_off(forward);
            let going_back: Vec<usize> = order.iter().rev().take(back).copied().collect();
            order.extend(going_back.iter().chain(going_back.iter().rev()).copied().chain(rest));
            rolling(&mut dice, seconds, &order)
        }
    }
}

/// The menu is shuffled and played to its end before anything comes again. Files are damaged on one
/// minority only, the same for the whole run: what is damaged may take a while to be whole again. No broker
/// goes back to the build that it came from.
fn random(dice: &mut Dice, nodes: usize, seconds: u64, menu: &[Fault]) -> Vec<Step> {
    let mut steps = Vec::new();
    let damaged = dice.node(nodes);
    // Other plans are as they were before there was this fault.
    let mut old = match menu.contains(&Fault::OtherBuild) {
        true => dice.shuffled(nodes),
        false => Vec::new(),
    };
    let mut deck: Vec<Fault> = Vec::new();
    let mut at_ms = FIRST_AT_MS;
    while at_ms + LONGEST_MS < seconds * 1_000 {
        if deck.is_empty() {
            deck = menu.to_vec();
            deck.retain(|fault| *fault != Fault::OtherBuild || !old.is_empty());
        }
        if deck.is_empty() {
            break;
        }
        let fault = deck.swap_remove(dice.below(deck.len() as u64) as usize);
        let node = match fault {
            Fault::File(_) => damaged,
            Fault::OtherBuild => old.pop().expect("it is in the deck only as long as there are"),
            _any_other => dice.node(nodes),
        };
        let for_ms = 500 + dice.below(LONGEST_MS - 500);
        steps.push(Step { at_ms, for_ms, victim: Victim::Node(node), fault });
        // A quarter of the time nothing is wrong.
        at_ms += for_ms + 300 + dice.below(1_000);
    }
    steps
}

/// One is away while records are written, then the next one crashes, then they change places: where
/// an acknowledged record was only in the memory of those two, it is gone.
fn swapping(dice: &mut Dice, nodes: usize, seconds: u64, away: Fault) -> Vec<Step> {
    let first = dice.node(nodes);
    let next = |node: usize| node % nodes + 1;
    every(8, seconds, |at_ms| {
        let node = (0..at_ms / 8_000).fold(first, |node, _| next(node));
        let (gone, crashing) = (Victim::Node(node), Victim::Node(next(node)));
        vec![
            Step { at_ms, for_ms: 3_000, victim: gone, fault: away },
            Step { at_ms: at_ms + 2_000, for_ms: 1_500, victim: crashing, fault: Fault::Kill },
            Step { at_ms: at_ms + 4_000, for_ms: 2_000, victim: crashing, fault: away },
        ]
    })
}

/// These brokers are started with the other build in this order, the first ones after some seconds of the old.
fn rolling(dice: &mut Dice, seconds: u64, order: &[usize]) -> Vec<Step> {
    let every_ms = (seconds * 1_000).saturating_sub(WRITTEN_BEFORE_MS) / order.len() as u64;
    let steps = order.iter().zip(0..).map(|(node, number)| Step {
        at_ms: WRITTEN_BEFORE_MS + number * every_ms,
        for_ms: (300 + dice.below(LONGEST_MS / 2)).min(every_ms / 2),
        victim: Victim::Node(*node),
        fault: Fault::OtherBuild,
    });
    steps.collect()
}

fn every(period: u64, seconds: u64, steps: impl Fn(u64) -> Vec<Step>) -> Vec<Step> {
    let rounds = (1..).map(|round| (round - 1) * period * 1_000 + FIRST_AT_MS);
    rounds.take_while(|at| at + period * 1_000 <= seconds * 1_000).flat_map(steps).collect()
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        next_random(&mut self.0) % limit.max(1)
    }

    fn node(&mut self, nodes: usize) -> usize {
        self.below(nodes as u64) as usize + 1
    }

    fn shuffled(&mut self, nodes: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (1..=nodes).collect();
        (0..nodes).map(|_| left.swap_remove(self.below(left.len() as u64) as usize)).collect()
    }
}

const FIRST_AT_MS: u64 = 1_000;
const LONGEST_MS: u64 = 3_000;
const WRITTEN_BEFORE_MS: u64 = 4_000;
