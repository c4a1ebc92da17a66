//! What the network does to datagrams on their way: loses, repeats, delays, reorders, damages,
//! holds back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// How one direction of a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Nothing passes, and nobody is told.
    pub cut: bool,
    pub lost_permille: u16,
    pub repeated_permille: u16,
    /// One byte of so many datagrams is changed.
    pub corrupted_permille: u16,
    /// So many are overtaken by those behind them.
    pub reordered_permille: u16,
    pub delay_ms: u16,
    /// Up to so much more, at random.
    pub jitter_ms: u16,
    /// Bytes a second; what would wait longer than a router's queue is lost.
    pub bytes_per_second: Option<u32>,
}

impl Weather {
    /// Everything passes as it comes.
    pub const CLEAR: Weather = Weather {
        cut: false,
        lost_permille: 0,
        repeated_permille: 0,
        corrupted_permille: 0,
        reordered_permille: 0,
        delay_ms: 0,
        jitter_ms: 0,
        bytes_per_second: None,
    };
    /// Nothing passes.
    pub const CUT: Weather = Weather { cut: true, ..Weather::CLEAR };
}

/// The datagrams of one direction that are under way.
#[derive(Debug)]
pub struct Way {
    random: u64,
    /// By due time, then by arrival.
    queue: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    arrived: u64,
    /// When a throttled line is free again.
    free_at: Instant,
}

impl Way {
    pub fn new(seed: u64) -> Way {
        Way { random: seed, queue: BinaryHeap::new(), arrived: 0, free_at: Instant::now() }
    }

    /// Takes a datagram; gives it back where it passes at once.
    pub fn take<'a>(&mut self, weather: &Weather, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        if weather.cut || self.one_of(weather.lost_permille) || self.queue.len() >= QUEUE_MAX {
            return None;
        }
        if !datagram.is_empty() && self.one_of(weather.corrupted_permille) {
            let at = self.below(datagram.len() as u64) as usize;
            datagram[at] ^= 1 << self.below(8);
        }
        let now = Instant::now();
        let mut due = now + self.delay(weather);
        if let Some(rate) = weather.bytes_per_second {
            let takes = Duration::from_secs_f64(datagram.len() as f64 / f64::from(rate));
            self.free_at = self.free_at.max(now) + takes;
            due = due.max(self.free_at);
            if self.free_at > now + ROUTER_QUEUE {
                self.free_at -= takes;
                return None;
            }
        }
        if self.one_of(weather.repeated_permille) {
            self.push(due + REPEATED_AFTER, datagram);
        }
        if due > now || !self.queue.is_empty() {
            self.push(due, datagram);
            return None;
        }
        Some(datagram)
    }

    /// The next datagram that is due.
    pub fn due(&mut self) -> Option<Vec<u8>> {
        let is_due = self.queue.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now());
        let Reverse((_, _, datagram)) = is_due.then(|| self.queue.pop()).flatten()?;
        Some(datagram)
    }

    /// How long until one is.
    pub fn wait(&self) -> Option<Duration> {
        let Reverse((due, ..)) = self.queue.peek()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn delay(&mut self, weather: &Weather) -> Duration {
        let jitter = self.below(u64::from(weather.jitter_ms) + 1);
        let mut delay = Duration::from_millis(u64::from(weather.delay_ms) + jitter);
        if self.one_of(weather.reordered_permille) {
            delay += OVERTAKEN_FOR;
        }
        delay
    }

    fn push(&mut self, due: Instant, datagram: &[u8]) {
        self.arrived += 1;
        self.queue.push(Reverse((due, self.arrived, datagram.to_vec())));
    }

    fn one_of(&mut self, permille: u16) -> bool {
        permille > 0 && self.below(1_000) < u64::from(permille)
    }

    fn below(&mut self, limit: u64) -> u64 {
        next_random(&mut self.random) % limit.max(1)
    }
}

/// The next of a SplitMix64 sequence.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const QUEUE_MAX: usize = 50_000;
const ROUTER_QUEUE: Duration = Duration::from_millis(200);
const REPEATED_AFTER: Duration = Duration::from_millis(5);
const OVERTAKEN_FOR: Duration = Duration::from_millis(10);
