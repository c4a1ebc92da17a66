//! Chaos over real processes: brokers that are killed, paused, cut off and damaged by a plan that a seed
//! makes, under a load whose every operation is recorded, and the judgement in the end.
//!
//! Read `plan` (what is done when), `files` (what is done to files of a broker that is down), `stage` (who does it), `builds`
//! (brokers that change between two builds), `judge` (what must hold after healing), `replicas` (every replica's log by itself), `run` (one run, from making the
//! cluster to the report).

pub mod builds;
pub mod files;
pub mod judge;
pub mod plan;
pub mod replicas;
pub mod run;
pub mod stage;
