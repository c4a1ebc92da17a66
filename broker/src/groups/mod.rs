//! Consumer groups: who reads which partition, and how far a group has come (KIP-848).
//!
//! The groups of a partition of `__groups` are kept by its leader, as a state machine like the controller: a
//! request is decided, what it changes becomes records in that partition, and the answer goes when they are
//! committed. The next leader reads the log and knows the same; only when members were heard begins anew
//! with each term.
//!
//! Read `record` and `image` (what is known), `ledger` (what is decided on top), `sessions`, `coordinator`
//! (what may be asked), then `membership`, `target`, `assignment`, `offsets`.

mod assignment;
mod coordinator;
mod describe;
pub mod image;
mod ledger;
mod membership;
mod offsets;
pub mod record;
mod sessions;
mod target;

pub(crate) use coordinator::{BATCH_BYTES, BATCH_RECORDS};
pub use coordinator::{Coordinator, GroupAnswer, GroupRequest, Moment};
pub use image::Groups;

#[cfg(test)]
mod tests;
