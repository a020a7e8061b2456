//! Waypost delivers chatbot *step events* from RabbitMQ to customers' webhooks, and loses none of them.
//!
//! [`worker`] processes an event from beginning to end. [`delivery`] has all decisions, as pure functions over plain
//! values. [`flow`], which draws campaigns, is pure too. All other modules do I/O, each with one library: only
//! [`broker`] uses AMQP, only [`sender`] sends to webhooks, only [`store`] uses sled, and only [`http`] listens.
//! [`app`] connects them. `docs/ARCHITECTURE.md` shows a picture.

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
