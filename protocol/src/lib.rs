//! Every byte that two Highwater processes must agree on: bytes in, values out.
//!
//! No sockets, clocks, threads or files: callers bring bytes and get values, or an error that says
//! what is wrong with them. Decoders accept any input without panicking and never allocate more
//! than the input justifies.
//!
//! Read in this order: `ids` (the words), `error` (what can go wrong on the wire), `wire` (how
//! integers and strings lie in bytes), `batch` (record batches, the only payload), `native` (what
//! clients ask), `peer` (what brokers tell each other); `topic_name` is the one rule that both sides
//! of the wire check, `settings` the tables of
//! settings, `nearest` what a slip of the pen meant.

pub mod batch;
pub mod error;
pub mod ids;
pub mod native;
pub mod nearest;
pub mod peer;
pub mod settings;
pub mod topic_name;
pub mod wire;
