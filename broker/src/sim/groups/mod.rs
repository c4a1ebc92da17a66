//! Consumer groups from a seed: members with the real client's `Membership`, coordinators that fail over and that
//! linger, a network that loses, repeats, delays and reorders, and topics that grow meanwhile.
//!
//! What must hold at every moment: no partition has two owners who may both act; a commit that was answered is
//! never taken back, and none goes beyond what was handled; nobody starts behind a record that nobody handled.
//! And once nothing strikes any more: every partition has one owner, evenly.
//!
//! Read `world` (time, network, the rules), `keeper` (coordinators over one log), `reader` (members), `deploy` (fifty
//! members that are restarted one by one).

mod deploy;
mod keeper;
mod reader;
mod swarm;
mod world;

pub use deploy::{DEPLOY_SESSION_MS, Deployed, MEMBERS, PARTITIONS, Restarts, deploy};
pub use world::{Broken, Seen, play};
