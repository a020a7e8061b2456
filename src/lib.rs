//! The program: its settings, its command line, and the composition of a worker from the crates.
//!
//! `waypost-core` decides, `waypost-broker` speaks AMQP, `waypost-store` keeps the local view, `waypost-engine` does the
//! work, `waypost-api` has the types of the API and its client, and `waypost-http` serves the API and the console. See
//! the diagram in `docs/ARCHITECTURE.md`.

pub mod app;
pub mod cli;
pub mod config;
pub mod reload;
pub mod schemas;
pub mod telemetry;
