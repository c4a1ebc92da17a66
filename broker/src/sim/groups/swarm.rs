//! How often what strikes a group, in a thousand steps or letters.

use highwater_protocol::native::groups::Assignor;

use crate::sim::rng::Rng;

/// What strikes in a run, and who is struck.
pub(super) struct Swarm {
    pub lose: u64,
    pub repeat: u64,
    pub delay: u64,
    pub fail_over: u64,
    pub crash: u64,
    pub pause: u64,
    pub leave: u64,
    pub join: u64,
    /// Somebody begins with a name that another one bears.
    pub twin: u64,
    pub grow: u64,
    pub assignor: Assignor,
    pub readers_max: usize,
    pub session_ms: u64,
}

impl Swarm {
    /// Each run lacks some of it, so that what is left strikes undisturbed.
    pub fn drawn(rng: &mut Rng) -> Swarm {
        let some = |rng: &mut Rng, most: u64| if rng.per_mille(600) { rng.below(most) } else { 0 };
        Swarm {
            lose: some(rng, 200),
            repeat: some(rng, 200),
            delay: some(rng, 200),
            fail_over: some(rng, 4),
            crash: some(rng, 4),
            pause: some(rng, 4),
            leave: some(rng, 4),
            join: some(rng, 20),
            twin: some(rng, 3),
            grow: some(rng, 2),
            assignor: if rng.per_mille(800) { Assignor::Uniform } else { Assignor::Range },
            readers_max: rng.between(1..=8) as usize,
            session_ms: rng.between(2_000..=10_000),
        }
    }

    /// Nothing but some letters that come twice.
    pub fn calm(session_ms: u64) -> Swarm {
        Swarm {
            lose: 0,
            repeat: 100,
            delay: 0,
            fail_over: 0,
            crash: 0,
            pause: 0,
            leave: 0,
            join: 0,
            twin: 0,
            grow: 0,
            assignor: Assignor::Uniform,
            readers_max: 0,
            session_ms,
        }
    }
}
