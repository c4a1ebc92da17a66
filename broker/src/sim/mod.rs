//! The simulator; so far, its disk.

pub mod disk;
