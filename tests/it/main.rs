//! The integration tests: one binary, one file per theme, all against real parts (see `tests/support`).

#[path = "../support/mod.rs"]
mod support;

mod support_works;
