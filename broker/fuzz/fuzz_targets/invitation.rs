//! Fuzzes `targets::invitation`.

#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "each fuzz program uses its own target")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::invitation(bytes));
