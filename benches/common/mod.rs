//! Parts of several benches: endpoints, campaigns and events, a publisher, the broker, and statistics of a process.
#![allow(dead_code, reason = "each bench uses only a part")]

pub(crate) mod certificates;
pub(crate) mod delays;
pub(crate) mod interrupt;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod publisher;
pub(crate) mod receiver;
pub(crate) mod table;
pub(crate) mod target_broker;
