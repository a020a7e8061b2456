//! The integration tests: one binary, one file per theme, all against real parts (see `tests/support`).

#[path = "../support/mod.rs"]
mod support;

mod api;
mod broker_life;
mod callers;
mod cli;
mod configuration;
mod dead_letters_cli;
mod demo;
mod explain;
mod journey;
mod malformed;
mod publisher;
mod retries;
mod stage;
mod support_works;
mod tidy;
mod webhooks;
mod worker_life;
