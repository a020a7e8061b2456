//! Waypost delivers chatbot *step events* from RabbitMQ to customers' webhooks, and loses none of them.
//!
//! The journey of one event is told by [`worker`]. Everything that *decides* is in [`delivery`]: plain functions over
//! plain values. So is [`flow`], which draws campaigns. Everything else is I/O, one library to a room: [`broker`] is the
//! only one that speaks AMQP, [`sender`] the only one that speaks to webhooks, [`store`] the only one that touches sled,
//! [`http`] the only one that listens. [`app`] puts them together. `docs/ARCHITECTURE.md` draws it.

pub mod app;
pub mod broker;
pub mod campaigns;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod delivery;
pub mod flow;
pub mod http;
pub mod metrics;
pub mod reload;
pub mod replays;
pub mod schemas;
pub mod sender;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod view_sync;
pub mod worker;
