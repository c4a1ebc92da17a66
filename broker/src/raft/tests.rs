//! Several Rafts over toy logs in one thread: `group` is the harness, `paper` scripts the cases of
//! the Raft paper and of bugs that others had, `storm` draws faults from a seed.

mod forgotten;
mod group;
mod moves;
mod paper;
mod storm;
mod start;
