//! The controller: what the cluster consists of, and who may change it how.
//!
//! A state machine without state of its own to lose: `Controller::decide` turns a command into
//! records, the records are committed like any others in the controller's partition, and every
//! broker applies them to its `ClusterImage`. Only sessions (when was a broker last heard of) live
//! in memory; a new leader gathers them anew and grants everyone a full session first.
//!
//! What must hold: a command is decided on an image that contains everything committed before; a
//! decision that is not committed leaves no trace. Read `record`, `settings`, `image`, `decide`, then
//! `moves` and `reassign`, `recover`, `brokers`, `duty` and `voters`; `balance` plans what evens a cluster out,
//! `auto` says when that is done unasked, `loads` what brokers said of what clients do, `events` tells records in words.

pub mod auto;
pub mod balance;
pub mod brokers;
pub mod command;
pub mod config;
mod decide;
mod duty;
pub mod events;
pub mod image;
pub mod liveness;
pub mod loads;
pub mod moves;
pub mod placement;
mod reassign;
pub mod record;
pub mod recover;
pub mod settings;
pub mod throttle;
mod voters;

pub use command::{Command, CommandReply};
pub use config::TopicConfig;
pub use decide::Controller;
pub use image::ClusterImage;
pub use reassign::MOVES_AT_ONCE_MAX;
pub use record::MetadataRecord;
