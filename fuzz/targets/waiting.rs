//! Fuzzes messages of the retries queue.
#![no_main]

#[path = "../../tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::waiting_delivery::holds(bytes));
