//! What `highwater-bench` is made of that others use: the records of a workload, the history of a run with
//! its checker, and the load that is recorded.
//!
//! Read `workload` (what a record says of itself), `history` (what is recorded and what is wrong
//! with it), `recorded` (producers and readers that write a history).

#![deny(missing_docs)]

pub mod history;
pub mod recorded;
pub mod workload;
