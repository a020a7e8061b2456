//! Fuzzes `Retry-After` headers.
#![no_main]

#[path = "../../tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|header: &str| properties::retry_after::holds(header));
