//! The broker looked at by who wants to know why something does not work. Nothing that is there is changed.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};

use super::BrokerError;
use super::declare;
use super::mismatch::Mismatch;
use super::names::Names;
use super::topology::{self, Topology};

/// A broker that takes no message for so long is short of memory or disk.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// An object of the broker as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectState {
    /// It is not there: a worker makes it when it starts.
    Missing,
    /// An exchange that is as a worker needs it.
    Exchange,
    /// A queue or a stream that is as a worker needs it.
    Queue {
        /// Messages that nobody has in hand.
        messages: u32,
        /// Who consumes it.
        consumers: u32,
    },
    /// It has other arguments.
    Mismatch(Mismatch),
}

/// Looks at every exchange.
///
/// # Errors
/// [`BrokerError::ChannelFailed`], also where the user may not; [`BrokerError::NoPlugin`].
pub async fn exchanges(
    connection: &Connection,
    topology: &Topology,
) -> Result<Vec<(String, ObjectState)>, BrokerError> {
    let mut found = Vec::new();
    for (name, kind, arguments) in topology.exchanges() {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let asked = channel.exchange_declare(name.as_str().into(), kind.clone(), passive, FieldTable::default());
        let state = match asked.await {
            Err(error) if is_missing(&error) => ObjectState::Missing,
            Err(error) => return Err(BrokerError::lost("looking for an exchange")(error)),
            Ok(()) => match declare::exchange(&channel, &name, kind, arguments).await {
                Ok(()) => ObjectState::Exchange,
                Err(BrokerError::Mismatch(mismatch)) => ObjectState::Mismatch(mismatch),
                Err(error) => return Err(error),
            },
        };
        found.push((name, state));
    }
    Ok(found)
}

/// Looks at every queue and stream.
///
/// # Errors
/// [`BrokerError::ChannelFailed`], also where the user may not.
pub async fn queues(connection: &Connection, topology: &Topology) -> Result<Vec<(String, ObjectState)>, BrokerError> {
    let mut found = Vec::new();
    for (name, arguments) in topology.queues() {
        // The broker closes a channel on which a queue is asked for that is not there.
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let state = match channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await {
            Err(error) if is_missing(&error) => ObjectState::Missing,
            Err(error) => return Err(BrokerError::lost("looking for a queue")(error)),
            // What exists is not changed by being declared: it is equal, or that is refused.
            Ok(queue) => match declare::queue(&channel, &name, arguments).await {
                Ok(()) => ObjectState::Queue { messages: queue.message_count(), consumers: queue.consumer_count() },
                Err(BrokerError::Mismatch(mismatch)) => ObjectState::Mismatch(mismatch),
                Err(error) => return Err(error),
            },
        };
        found.push((name, state));
    }
    Ok(found)
}

/// Makes an exchange of the kind that spreads events over shards, and removes it: a plugin brings it. Without, the connection is
/// of no use any more.
///
/// # Errors
/// [`BrokerError::NoPlugin`], [`BrokerError::ChannelFailed`].
pub async fn plugin(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let name = names.examination(&uuid::Uuid::now_v7().to_string());
    declare::transient_hash_exchange(&channel, &name).await?;
    let deleted = channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await;
    deleted.map_err(BrokerError::lost("removing an exchange"))
}

/// Which kinds of queue a broker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinds {
    /// All that are needed.
    All,
    /// One is lacking.
    Lacking {
        /// In words: `streams`.
        kind: &'static str,
        /// The broker's sentence.
        error: String,
    },
}

/// Declares a queue of each kind that Waypost needs, and removes it.
///
/// # Errors
/// [`BrokerError::ChannelFailed`], also where the user may not.
pub async fn kinds(connection: &Connection, names: &Names) -> Result<Kinds, BrokerError> {
    for (kind, queue_type) in [("quorum queues", "quorum"), ("streams", "stream")] {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let name = names.examination(&uuid::Uuid::now_v7().to_string());
        match declare::queue(&channel, &name, topology::of_type(queue_type)).await {
            Ok(()) => {
                let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
                deleted.map_err(BrokerError::lost("removing a queue"))?;
            }
            Err(BrokerError::ChannelFailed { error, .. })
                if !error.contains("ACCESS_REFUSED") && is_refusal(&error) =>
            {
                return Ok(Kinds::Lacking { kind, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Kinds::All)
}

/// Whether a broker has answered, and not a connection ended.
fn is_refusal(error: &str) -> bool {
    [
        "PRECONDITION_FAILED",
        "PRECONDITION-FAILED",
        "NOT_ALLOWED",
        "NOT-ALLOWED",
        "NOT_IMPLEMENTED",
        "NOT-IMPLEMENTED",
        "INTERNAL_ERROR",
        "INTERNAL-ERROR",
    ]
    .iter()
    .any(|code| error.contains(code))
}

fn is_missing(error: &lapin::Error) -> bool {
    error.to_string().contains("NOT_FOUND")
}

/// Makes a queue for this connection alone, sends a message through it, and removes it: what a worker may do has to be allowed
/// for names under its prefix.
///
/// # Errors
/// [`BrokerError::ChannelFailed`], with what was not allowed or did not happen.
pub async fn rights(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let name = names.examination(&uuid::Uuid::now_v7().to_string());
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await;
    declared.map_err(BrokerError::lost("making a queue (the right to configure)"))?;
    let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
    selected.map_err(BrokerError::lost("asking for confirms"))?;
    let sending = async {
        let properties = BasicProperties::default();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), name.as_str().into(), options, b"examination", properties).await?.await
    };
    match tokio::time::timeout(CONFIRM_TIMEOUT, sending).await {
        Ok(sent) => drop(sent.map_err(BrokerError::lost("sending a message (the right to write)"))?),
        Err(_) => {
            let error = "the broker has not taken it for 5 s: it is short of memory or disk (rabbitmqctl list_alarms)";
            return Err(BrokerError::ChannelFailed { doing: "sending a message", error: error.to_owned() });
        }
    }
    let got = channel.basic_get(name.as_str().into(), BasicGetOptions { no_ack: true }).await;
    got.map_err(BrokerError::lost("taking a message (the right to read)"))?;
    let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
    deleted.map(drop).map_err(BrokerError::lost("removing a queue"))
}
