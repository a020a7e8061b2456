//! The requests and responses of the HTTP API, and a typed client for them.
//!
//! The server (`waypost-http`) and its clients share these types, so that neither can change alone. A response that is
//! a type of `waypost-core`, such as a campaign, is not repeated here.

pub mod campaigns;
#[cfg(feature = "client")]
pub mod client;
pub mod configuration;
pub mod dead_letters;
pub mod endpoints;
pub mod events;
pub mod field_error;
mod flattened;
pub mod page;
pub mod problem;
pub mod replays;
pub mod unique_map;
pub mod webhooks;

#[cfg(test)]
mod round_trips;
