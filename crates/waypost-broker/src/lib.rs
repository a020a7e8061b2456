//! RabbitMQ: the only crate that uses AMQP.
//!
//! - [`connection`] opens connections. [`reconnect`] opens the next one when a connection is lost.
//! - [`topology`] lists the broker objects that a worker needs. `setup` declares them, and `shards` changes the number
//!   of event queues.
//! - [`topology_keeper`] checks the objects while a worker runs. `restore` declares a missing object again, and
//!   [`topology_status`] keeps the result.
//! - [`subscription`] receives messages, [`rotating_consumer`] replaces channels, and [`acks`] acknowledges messages.
//! - [`publisher`] sends messages and waits for confirms. [`delay_queues`] delays messages.
//! - [`stream_reader`] reads streams and [`stream_writer`] appends to them.
//! - [`queue_stats`] counts waiting messages, and [`diagnostics`] checks the broker for `waypost doctor`.

pub mod acks;
pub mod binding_probe;
pub mod connection;
mod declare;
pub mod delay_queues;
pub mod diagnostics;
pub mod frame_filter;
mod frame_repair;
pub mod handshake;
pub mod held_messages;
pub mod management;
pub mod mismatch;
pub mod names;
pub mod policies;
pub mod publisher;
pub mod queue_stats;
pub mod reconnect;
pub mod removal;
mod restore;
pub mod rotating_consumer;
mod setup;
mod shards;
pub mod stream_reader;
pub mod stream_writer;
pub mod subscription;
pub mod tls;
pub mod topology;
pub mod topology_keeper;
pub mod topology_status;
mod transport;
mod wire_reader;

use lapin::types::{AMQPValue, FieldTable, ShortString};

/// Set by a quorum queue: how often a message was requeued.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// Set on a replayed dead letter: the id of the letter.
const REPLAY_OF: &str = "x-waypost-replay-of";

/// Set on a replayed dead letter: the id of the replay.
const REPLAY_ID: &str = "x-waypost-replay-id";

/// The caller decides whether to reconnect: see [`Self::is_permanent`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    #[error("no connection to {address}: {error}")]
    Connect {
        /// Host and port, without credentials.
        address: String,
        error: String,
    },
    #[error(transparent)]
    Mismatch(#[from] mismatch::Mismatch),
    #[error(
        "{setting} needs the RabbitMQ plugin {plugin}, which is not enabled. Run `rabbitmq-plugins enable {plugin}` on \
         every node, or change the setting"
    )]
    PluginMissing { setting: &'static str, plugin: &'static str },
    /// The connection or a channel was lost, or the broker refused a request.
    #[error("{operation}: {error}")]
    ChannelFailed {
        /// Begins the error text: `opening a channel`.
        operation: &'static str,
        error: String,
    },
}

impl BrokerError {
    /// Whether reconnecting cannot help, because an operator has to change something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Mismatch(_) | Self::PluginMissing { .. } => true,
            Self::Connect { .. } | Self::ChannelFailed { .. } => false,
        }
    }

    fn channel_failed(operation: &'static str) -> impl Fn(lapin::Error) -> Self {
        move |error| Self::ChannelFailed { operation, error: error.to_string() }
    }
}

fn text_header(headers: Option<&FieldTable>, name: &str) -> Option<String> {
    match headers?.inner().get(&ShortString::from(name))? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// `None` also for a negative number.
fn number_header(headers: Option<&FieldTable>, name: &str) -> Option<u64> {
    match headers?.inner().get(&ShortString::from(name))? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
