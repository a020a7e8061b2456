//! Fuzzes URLs of webhooks.
#![no_main]

#[path = "../../tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|url: &str| properties::url::holds(url));
