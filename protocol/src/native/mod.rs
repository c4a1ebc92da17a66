//! What a client may ask a broker over ALPN `highwater/1`: frames, API numbers, and who answers.
//!
//! A frame is a length, an API number and version (requests) or an error number (answers), a
//! correlation id and a body. Many requests are in flight on a stream; answers may overtake each
//! other. Specified byte by byte in `WIRE.md`.

pub mod admin;
pub mod alter;
pub mod brokers;
pub mod balance;
pub(crate) mod coding;
pub mod digest;
pub mod events;
pub mod fetch;
pub mod frame;
pub mod groups;
pub mod inspect;
pub mod metadata;
pub mod moves;
pub mod produce;
pub mod recover;
pub mod repair;
pub mod settings;
pub mod throttle;

/// The ALPN name of the client protocol.
pub const ALPN: &[u8] = b"highwater/1";
