//! Fuzzes header values, encrypted or not.
#![no_main]

#[path = "../../tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|value: &str| properties::secret_encryption::holds(value));
