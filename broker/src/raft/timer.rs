//! A follower's patience: randomised, and longer where it was proved too short.
//!
//! The randomness is a SplitMix stream per group and node, so that a seed fixes a run and two nodes
//! never draw the same numbers shifted.

use super::Millis;
use super::options::Options;

/// When to stand, and until when a living leader is believed in.
#[derive(Debug)]
pub(super) struct ElectionTimer {
    random: u64,
    deadline: Millis,
    heard_leader_at: Option<Millis>,
    /// The patience is multiplied by two to this power.
    stretch: u32,
    stretched_at: Millis,
    /// How often it asked for votes since it last heard of a leader or voted for another.
    rounds: u32,
    /// How many more elections a fresh group's first voter tries without the usual patience.
    eager: u32,
}

impl ElectionTimer {
    pub(super) fn new(seed: u64, now: Millis, eagerness: Eagerness, options: &Options) -> Self {
        let mut timer = ElectionTimer {
            random: seed,
            deadline: now,
            heard_leader_at: None,
            stretch: 0,
            stretched_at: now,
            rounds: 0,
            eager: 0,
        };
        match eagerness {
            Eagerness::AtOnce => timer.eager = EAGER_ELECTIONS,
            Eagerness::Patient => timer.restart(now, options),
        }
        timer
    }

    pub(super) fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Waits a full patience from `now` on.
    pub(super) fn restart(&mut self, now: Millis, options: &Options) {
        self.rounds = 0;
        self.wait_full(now, options);
    }

    /// How long a candidate waits for votes before it asks again. Patience is over already: what
    /// is left to wait out is a peer that heard the leader a moment later, or a split vote. So the
    /// first rounds are short; but each is twice as long as the one before, since a slow disk must
    /// find time to write a vote down.
    pub(super) fn next_round(&mut self, now: Millis, options: &Options) {
        let wait_ms = options.heartbeat_ms << self.rounds;
        if self.eager > 0 || wait_ms >= options.election_ms_min {
            return self.wait_full(now, options);
        }
        self.rounds += 1;
        self.deadline = Millis(now.0 + wait_ms + self.draw() % wait_ms);
    }

    fn wait_full(&mut self, now: Millis, options: &Options) {
        let (min, max) = match self.eager.checked_sub(1) {
            Some(left) => {
                self.eager = left;
                (options.heartbeat_ms / 2, options.heartbeat_ms)
            }
            None => {
                (options.election_ms_min << self.stretch, options.election_ms_max << self.stretch)
            }
        };
        let (min, max) =
            (min.min(options.election_ms_cap * 2 / 3), max.min(options.election_ms_cap));
        self.deadline = Millis(now.0 + min + self.draw() % (max - min).max(1));
    }

    /// A leader spoke.
    pub(super) fn heard_leader(&mut self, now: Millis, options: &Options) {
        self.heard_leader_at = Some(now);
        self.eager = 0;
        if self.stretch > 0 && now.0.saturating_sub(self.stretched_at.0) > options.calm_ms {
            self.stretch -= 1;
            self.stretched_at = now;
        }
        self.restart(now, options);
    }

    /// Whether a leader was heard so lately that an election would only disturb it.
    pub(super) fn leader_is_alive(&self, now: Millis, options: &Options) -> bool {
        self.heard_leader_at.is_some_and(|at| now.0.saturating_sub(at.0) < options.election_ms_min)
    }

    /// Whether a leader was ever heard by this timer.
    pub(super) fn knew_a_leader(&self) -> bool {
        self.heard_leader_at.is_some()
    }

    /// An election proved needless: be slower to suspect.
    pub(super) fn stretch(&mut self, now: Millis, options: &Options) {
        if options.election_ms_max << self.stretch < options.election_ms_cap {
            self.stretch += 1;
        }
        self.stretched_at = now;
    }

    /// This host was starved for `late_ms`: the leader's word may lie in a queue, so wait for at
    /// least as long again as it takes to be heard.
    pub(super) fn forgive(&mut self, now: Millis, late_ms: u64, options: &Options) {
        let later = self.deadline.0.saturating_add(late_ms.min(options.election_ms_cap));
        self.deadline = Millis(later.max(now.0 + options.heartbeat_ms * 2));
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Whether a group needs to wait for anyone before its first election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eagerness {
    /// A single voter, or the first voter of a group that never had a leader.
    AtOnce,
    /// There may be a leader.
    Patient,
}

/// A fresh group's peers may open a little later than its first voter.
const EAGER_ELECTIONS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_drawn_between_the_bounds_and_differs_between_nodes() {
        let options = Options::default();
        let deadlines = |seed| -> Vec<u64> {
            let mut timer = ElectionTimer::new(seed, Millis(0), Eagerness::Patient, &options);
            let mut draw = || {
                timer.restart(Millis(0), &options);
                timer.deadline().0
            };
            (0..100).map(|_| draw()).collect()
        };
        assert!(deadlines(1).iter().all(|at| (300..500).contains(at)));
        assert_eq!(deadlines(1), deadlines(1));
        assert_ne!(deadlines(1), deadlines(2));
    }

    #[test]
    fn a_candidate_asks_again_soon_then_ever_later() {
        let options = Options::default();
        let mut timer = ElectionTimer::new(1, Millis(0), Eagerness::Patient, &options);
        let mut round = || {
            timer.next_round(Millis(0), &options);
            timer.deadline().0
        };
        assert!((100..200).contains(&round()));
        assert!((200..400).contains(&round()));
        assert!(round() >= options.election_ms_min);
        assert!(round() >= options.election_ms_min);
    }

    #[test]
    fn false_alarms_stretch_the_patience_and_calm_shrinks_it_again() {
        let options = Options::default();
        let mut timer = ElectionTimer::new(1, Millis(0), Eagerness::Patient, &options);
        for _ in 0..9 {
            timer.stretch(Millis(0), &options);
        }
        timer.restart(Millis(0), &options);
        assert!((1_200..=3_000).contains(&timer.deadline().0), "{:?}", timer.deadline());
        for round in 1..9 {
            timer.heard_leader(Millis(round * 10_001), &options);
        }
        assert!((300..500).contains(&(timer.deadline().0 - 80_008)));
    }
}
