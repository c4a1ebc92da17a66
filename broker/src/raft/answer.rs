//! When a follower answers its leader: once in a pass; and once for what it appended and flushed, where the
//! flush takes but a moment.
//!
//! Where only what is on disk counts, the word that something was appended tells a leader little, and costs both
//! sides a message for every append. So it waits for the flush, but not so long that the leader would take the
//! append for lost, or run out of what it may have under way.

use super::Millis;

/// Whether the leader is owed an answer, and when it is to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Answer {
    /// It is not.
    #[default]
    None,
    /// With the next flush, or then at the latest.
    Flushed { by: Millis },
    /// With the end of this pass.
    Now,
}

impl Answer {
    /// It is owed one with the end of this pass, if `due`.
    pub(super) fn now_if(&mut self, due: bool) {
        if due {
            *self = Answer::Now;
        }
    }

    /// It is owed one by then; the next flush may bring it earlier.
    pub(super) fn once_flushed(&mut self, by: Millis) {
        if *self == Answer::None {
            *self = Answer::Flushed { by };
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Millis) {
        let overdue = self.deadline().is_some_and(|by| by <= now);
        self.now_if(overdue);
    }

    /// When `tick` has something to do.
    pub(super) fn deadline(&self) -> Option<Millis> {
        match self {
            Answer::Flushed { by } => Some(*by),
            Answer::None | Answer::Now => None,
        }
    }

    /// Whether it is to leave now; then it is owed no more.
    pub(super) fn take(&mut self) -> bool {
        match self {
            Answer::None | Answer::Flushed { .. } => false,
            Answer::Now => {
                *self = Answer::None;
                true
            }
        }
    }
}
