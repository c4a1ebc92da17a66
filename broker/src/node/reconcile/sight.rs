//! What a broker does about the first images that it reads, where it has none of its own to compare them with.

use super::{Changes, Me, diff};
use crate::controller::ClusterImage;
use crate::mutant::{self, Mutant};

/// Whether a broker knows all that was decided before its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: what it reads as taken may have come back.
    Behind,
    /// Its registration in this life is in its image.
    CaughtUp,
}

/// Whether a life has an image to go by: one that an earlier life saved, or its own once it has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It has.
    Clear,
    /// It has none. Earlier lives may have carried out, and outlived, what it reads of now: a replica that they had
    /// long given up would be opened and believed, and one that has come back since deleted.
    Blind,
}

impl Sight {
    /// What of the changes that an image brings is to be done: nothing while blind; once the broker has caught up,
    /// it opens what it has by then.
    pub fn follow(
        &mut self,
        changes: Changes,
        image: &ClusterImage,
        standing: Standing,
        me: Me<'_>,
    ) -> Changes {
        if mutant::active(Mutant::FollowsBlindly) {
            *self = Sight::Clear;
        }
        match (*self, standing) {
            (Sight::Clear, Standing::Behind | Standing::CaughtUp) => changes,
            (Sight::Blind, Standing::Behind) => hold_back(changes),
            (Sight::Blind, Standing::CaughtUp) => {
                *self = Sight::Clear;
                let open = diff(&ClusterImage::default(), image, me).open;
                Changes { open, ..hold_back(changes) }
            }
        }
    }

    /// Whether the image may be saved. What a blind one has read is not: the next life would take it for an image to
    /// go by, and do what this one holds back.
    pub fn may_save(self) -> bool {
        match self {
            Sight::Clear => true,
            Sight::Blind => mutant::active(Mutant::SavesBlindly),
        }
    }
}

/// What the rest of the broker hears of a change of which its shards hear nothing.
fn hold_back(changes: Changes) -> Changes {
    let Changes { gone, appeared, .. } = changes;
    Changes { gone, appeared, ..Changes::default() }
}
