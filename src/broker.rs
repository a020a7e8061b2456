//! RabbitMQ: the only module that speaks AMQP.
//!
//! [`connection`] opens connections. [`topology`] says which objects a worker needs, `setup` declares them, and `shards` changes the
//! number of event queues. [`topology_keeper`] checks the objects while a worker runs, `restore` declares a missing object again, and
//! [`topology_status`] keeps the result. [`subscription`] receives messages and [`acks`] acknowledges them. [`publisher`] sends messages
//! and waits for confirms. [`delay_queues`] delays messages. [`stream_reader`] reads streams and [`stream_writer`] writes to them. [`queue_stats`] counts
//! waiting messages, and [`diagnostics`] checks all of this for `doctor`.

pub mod acks;
pub mod connection;
mod declare;
pub mod delay_queues;
pub mod diagnostics;
pub mod frame_filter;
mod frame_repair;
pub mod handshake;
pub mod management;
pub mod mismatch;
pub mod names;
pub mod policies;
pub mod probe;
pub mod publisher;
pub mod queue_stats;
pub mod removal;
mod restore;
pub mod rotating_consumer;
mod setup;
mod shards;
pub mod stream_reader;
pub mod stream_writer;
pub mod subscription;
pub mod topology;
pub mod topology_keeper;
pub mod topology_status;
mod transport;
mod wire_reader;

use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The header in which a quorum queue counts how often it got a message back.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The header of an event that is a dead letter sent again: the letter's id.
const REPLAY_OF: &str = "x-waypost-replay-of";

/// And the id of the replay.
const REPLAY_ID: &str = "x-waypost-replay-id";

/// Something the broker did or did not do. The text is for people; what to do about it is decided by who gets it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// No connection could be made.
    #[error("no connection to {address}: {error}")]
    Connect {
        /// Host and port, without credentials.
        address: String,
        /// Why.
        error: String,
    },
    /// An object exists with other arguments.
    #[error(transparent)]
    Mismatch(#[from] mismatch::Mismatch),
    /// A plugin is missing.
    #[error(
        "{setting} needs RabbitMQ's plugin {plugin}: enable it on every node with `rabbitmq-plugins enable {plugin}`, or take \
         the setting back"
    )]
    NoPlugin {
        /// What needs it.
        setting: &'static str,
        /// Its name.
        plugin: &'static str,
    },
    /// The connection or a channel was lost, or refused a request.
    #[error("{doing}: {error}")]
    ChannelFailed {
        /// What was being done.
        doing: &'static str,
        /// Why.
        error: String,
    },
}

impl BrokerError {
    /// Whether another connection does not mend it: somebody has to.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Mismatch(_) | Self::NoPlugin { .. } => true,
            Self::Connect { .. } | Self::ChannelFailed { .. } => false,
        }
    }

    fn lost(doing: &'static str) -> impl Fn(lapin::Error) -> Self {
        move |error| Self::ChannelFailed { doing, error: error.to_string() }
    }
}

/// The text of a header of a message, where it has one.
fn text_header(headers: Option<&FieldTable>, name: &str) -> Option<String> {
    match headers?.inner().get(&ShortString::from(name))? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// The number of a header of a message, where it has one.
fn number_header(headers: Option<&FieldTable>, name: &str) -> Option<u64> {
    match headers?.inner().get(&ShortString::from(name))? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
