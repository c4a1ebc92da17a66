//! The simulator; so far, its disk and its chance.

pub mod disk;
pub mod rng;
