//! The Highwater broker, bottom up: a module uses only those above it in this list, and
//! `tests/tidy.rs` holds this very list. `ARCHITECTURE.md` is the map.

pub mod config;
pub mod metrics;
pub mod crash_point;
pub mod mutant;
pub mod disk;
pub mod log;
pub mod raft;
pub mod replica;
pub mod controller;
pub mod groups;
pub mod shard;
pub mod node;
pub mod api;
pub mod net;
pub mod http;
pub mod init;
pub mod server;
pub mod dev;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "sim")]
pub mod sim;
