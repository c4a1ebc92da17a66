//! Chaos over real processes: brokers that are killed, paused, cut off and damaged by a plan that a seed
//! makes, under a load whose every operation is recorded, and the judgement in the end.
//!
//! Read `plan` (what is done when), `files` (what is done to files of a broker that is down), `run` (one run, from
//! making the cluster to the report), `replicas` (every replica's log by itself).

pub mod files;
pub mod plan;
pub mod replicas;
pub mod run;
