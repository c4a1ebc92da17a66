//! A token bucket for what a learner is sent: bytes a second, whatever else is going on.
//!
//! A frame is sent whole, so the bucket may go into debt, and then waits until that is paid: the rate
//! holds over any second or so, not over a millisecond. Time comes as an argument.

use super::Millis;

/// The bucket of one peer.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Thousandths of bytes, so that a rate divides by milliseconds without a rest.
    tokens: i64,
    filled_at: Option<Millis>,
    waits_until: Option<Millis>,
}

impl Throttle {
    /// How many bytes may be sent now; `None` for none yet.
    pub(super) fn room(&mut self, now: Millis, rate: Option<u64>) -> Option<usize> {
        self.waits_until = None;
        let Some(rate) = rate.map(|rate| rate.clamp(1, RATE_MAX) as i64) else {
            *self = Throttle::default();
            return Some(usize::MAX);
        };
        let passed_ms = now.0.saturating_sub(self.filled_at.unwrap_or(now).0).min(IDLE_MS_MAX);
        self.filled_at = Some(now);
        // What nobody used is not saved up for long.
        self.tokens = (self.tokens + rate * passed_ms as i64).min(rate * SAVED_MS_MAX);
        let portion = (rate * PORTION_MS).max(1_000);
        if self.tokens >= portion {
            return Some(usize::try_from(self.tokens / 1_000).expect("it is not negative"));
        }
        let wait_ms = (portion - self.tokens).div_euclid(rate) + 1;
        self.waits_until = Some(Millis(now.0 + wait_ms.unsigned_abs()));
        None
    }

    /// So many bytes were sent.
    pub(super) fn took(&mut self, bytes: usize) {
        if self.filled_at.is_some() {
            self.tokens -= bytes as i64 * 1_000;
        }
    }

    /// When there will be room, if there was none.
    pub(super) fn waits_until(&self) -> Option<Millis> {
        self.waits_until
    }
}

/// What is sent at once is worth this long: small enough for a steady flow, large enough to be worth a
/// message.
const PORTION_MS: i64 = 20;
/// What nobody used is saved up for this long.
const SAVED_MS_MAX: i64 = 250;
/// A longer pause fills the bucket no further.
const IDLE_MS_MAX: u64 = 1_000_000;
/// A terabyte a second: more is no throttle.
const RATE_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls every `every_ms` for ten seconds, sending frames of `frame` bytes; gives the bytes sent.
    fn sent_in_10_s(rate: u64, every_ms: u64, frame: usize) -> f64 {
        let (mut throttle, mut sent) = (Throttle::default(), 0);
        for now in (0..10_000).step_by(every_ms as usize) {
            while let Some(room) = throttle.room(Millis(now), Some(rate)) {
                let bytes = (room / frame).max(1) * frame;
                throttle.took(bytes);
                sent += bytes;
            }
        }
        sent as f64
    }

    #[test]
    fn the_rate_holds_whatever_the_frames_and_however_often_it_is_asked() {
        for (rate, every_ms, frame) in
            [(1 << 20, 1, 1_000), (50 << 20, 1, 16_000), (1 << 20, 100, 100_000), (100_000, 7, 9)]
        {
            let wanted = rate as f64 * 10.0;
            let sent = sent_in_10_s(rate, every_ms, frame);
            let off = (sent - wanted).abs() / wanted;
            assert!(off < 0.02, "{sent} of {wanted} at {rate} B/s");
        }
    }

    #[test]
    fn a_debt_is_paid_before_more_is_sent_and_without_a_rate_there_is_none() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.room(Millis(0), Some(1_000)), None, "it begins empty");
        assert_eq!(throttle.waits_until(), Some(Millis(21)));
        assert_eq!(throttle.room(Millis(50), Some(1_000)), Some(50));
        throttle.took(1_050);
        assert_eq!(throttle.room(Millis(1_000), Some(1_000)), None);
        assert!(throttle.room(Millis(1_080), Some(1_000)).is_some());
        assert_eq!(throttle.room(Millis(1_081), None), Some(usize::MAX));
        assert_eq!(throttle.waits_until(), None);
    }
}
