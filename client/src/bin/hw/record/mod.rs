//! Records in and out: `hw produce` and `hw consume`.
//!
//! The two are inverse: what `hw produce --key-sep S` took, `hw consume --key-sep S` gives back,
//! byte for byte, in order within each partition.
//!
//! Read `lines` (bytes to records), `produce`, `position` (where to start), `scope` (what is read),
//! `format` (records to bytes), `consume`.

pub mod args;
pub mod consume;
pub mod expect;
pub mod format;
pub mod lines;
pub mod position;
pub mod print;
pub mod produce;
pub mod progress;
pub mod receipts;
pub mod scope;
