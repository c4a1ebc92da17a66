//! Fuzzes every decoder of the wire, native and between brokers, and batches, records and marks.

#![no_main]

#[path = "../../../protocol/tests/decoders.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the tests of that file are not built here"
)]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoders::decode_everything(bytes.to_vec().into()));
