//! What a worker does with the decisions of `waypost-core`: it consumes events, sends requests, follows the streams into its view, and
//! changes campaigns, dead letters and replays on request. HTTP, settings and the command line are elsewhere.

pub mod campaigns;
pub mod dead_letter_supervisor;
pub mod dead_letters;
mod delivery_event;
pub mod events;
pub mod explain;
pub mod metrics;
pub mod replays;
pub mod sender;
pub mod spans;
pub mod view_sync;
pub mod webhook_test;
pub mod worker;
