//! The guide: what people build on an event log, each as a whole program.
//!
//! The page is `GUIDE.md`; here its links lead to the programs below, which are the files in `examples/`.
//!
//! [worker]: #at-least-once-worker
//! [outbox]: #transactional-outbox-consumer
//! [event_sourcing]: #event-sourcing-with-conditional-append
//! [replay]: #replay-from-a-time
//! [fan_out]: #fan-out
//! [by_key]: #ordered-parallel-processing-by-key
//! [graceful_shutdown]: #graceful-shutdown
//! [exactly_one_copy]: #exactly-one-copy-under-retries
//! [dead_letters]: #dead-letters
//! [lag_alert]: #lag-alert
//! [pipeline]: #pipeline-from-topic-to-topic
//! [blocking]: #nightly-job-without-async
//!
#![doc = include_str!("../GUIDE.md")]
//!
//! # At-least-once worker
//!
//! ```no_run
#![doc = include_str!("../examples/worker.rs")]
//! ```
//!
//! # Transactional outbox consumer
//!
//! ```no_run
#![doc = include_str!("../examples/outbox.rs")]
//! ```
//!
//! # Event sourcing with conditional append
//!
//! ```no_run
#![doc = include_str!("../examples/event_sourcing.rs")]
//! ```
//!
//! # Replay from a time
//!
//! ```no_run
#![doc = include_str!("../examples/replay.rs")]
//! ```
//!
//! # Fan-out
//!
//! ```no_run
#![doc = include_str!("../examples/fan_out.rs")]
//! ```
//!
//! # Ordered parallel processing by key
//!
//! ```no_run
#![doc = include_str!("../examples/by_key.rs")]
//! ```
//!
//! # Graceful shutdown
//!
//! ```no_run
#![doc = include_str!("../examples/graceful_shutdown.rs")]
//! ```
//!
//! # Exactly one copy under retries
//!
//! ```no_run
#![doc = include_str!("../examples/exactly_one_copy.rs")]
//! ```
//!
//! # Dead letters
//!
//! ```no_run
#![doc = include_str!("../examples/dead_letters.rs")]
//! ```
//!
//! # Lag alert
//!
//! ```no_run
#![doc = include_str!("../examples/lag_alert.rs")]
//! ```
//!
//! # Pipeline from topic to topic
//!
//! ```no_run
#![doc = include_str!("../examples/pipeline.rs")]
//! ```
//!
//! # Nightly job without async
//!
//! ```no_run
#![doc = include_str!("../examples/blocking.rs")]
//! ```
