//! Checks of the broker for `waypost doctor`: objects, queue types, the plugin and the user's permissions. No existing
//! object is changed; temporary ones are named by [`Names::temporary`].

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

/// A broker that does not confirm a message within this time is short of memory or disk.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectState {
    /// A worker declares it at its start.
    Missing,
    /// An exchange with the required arguments.
    Exchange,
    /// A queue or a stream with the required arguments.
    Queue {
        /// Ready messages: without those that a consumer has not acknowledged.
        messages: u32,
        consumers: u32,
    },
    Mismatch(Mismatch),
}

/// # Errors
/// [`BrokerError::ChannelFailed`], also if the user lacks a permission; [`BrokerError::PluginMissing`].
pub async fn check_exchanges(
    connection: &Connection,
    topology: &Topology,
) -> Result<Vec<(String, ObjectState)>, BrokerError> {
    let mut objects = Vec::new();
    for (name, kind, arguments) in topology.exchanges() {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let exists = channel.exchange_declare(name.as_str().into(), kind.clone(), passive, FieldTable::default());
        let state = match exists.await {
            Err(error) if is_missing(&error) => ObjectState::Missing,
            Err(error) => return Err(BrokerError::channel_failed("looking for an exchange")(error)),
            Ok(()) => match declare::exchange(&channel, &name, kind, arguments).await {
                Ok(()) => ObjectState::Exchange,
                Err(BrokerError::Mismatch(mismatch)) => ObjectState::Mismatch(mismatch),
                Err(error) => return Err(error),
            },
        };
        objects.push((name, state));
    }
    Ok(objects)
}

/// Checks every queue and stream.
///
/// # Errors
/// [`BrokerError::ChannelFailed`], also if the user lacks a permission.
pub async fn check_queues(
    connection: &Connection,
    topology: &Topology,
) -> Result<Vec<(String, ObjectState)>, BrokerError> {
    let mut objects = Vec::new();
    for (name, arguments) in topology.queues() {
        // The broker closes a channel on which a missing queue is declared passively.
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let state = match channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await {
            Err(error) if is_missing(&error) => ObjectState::Missing,
            Err(error) => return Err(BrokerError::channel_failed("looking for a queue")(error)),
            // Declaring an existing queue does not change it: the broker refuses other arguments.
            Ok(queue) => match declare::queue(&channel, &name, arguments).await {
                Ok(()) => ObjectState::Queue { messages: queue.message_count(), consumers: queue.consumer_count() },
                Err(BrokerError::Mismatch(mismatch)) => ObjectState::Mismatch(mismatch),
                Err(error) => return Err(error),
            },
        };
        objects.push((name, state));
    }
    Ok(objects)
}

/// Declares and removes a consistent-hash exchange, which spreads events over shards and needs a plugin. Without the
/// plugin, the broker closes the connection.
///
/// # Errors
/// [`BrokerError::PluginMissing`], [`BrokerError::ChannelFailed`].
pub async fn check_hash_exchange_plugin(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
    let name = names.temporary(&uuid::Uuid::now_v7().to_string());
    declare::transient_hash_exchange(&channel, &name).await?;
    let deleted = channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await;
    deleted.map_err(BrokerError::channel_failed("removing an exchange"))
}

/// Whether a broker has quorum queues and streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueTypeSupport {
    Complete,
    Missing {
        /// `quorum queues` or `streams`.
        kind: &'static str,
        /// The broker's error text.
        error: String,
    },
}

/// Declares and removes a queue of each type that Waypost needs.
///
/// # Errors
/// [`BrokerError::ChannelFailed`], also if the user lacks a permission.
pub async fn check_queue_types(connection: &Connection, names: &Names) -> Result<QueueTypeSupport, BrokerError> {
    for (kind, queue_type) in [("quorum queues", "quorum"), ("streams", "stream")] {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        let name = names.temporary(&uuid::Uuid::now_v7().to_string());
        match declare::queue(&channel, &name, topology::queue_type_arguments(queue_type)).await {
            Ok(()) => {
                let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
                deleted.map_err(BrokerError::channel_failed("removing a queue"))?;
            }
            Err(BrokerError::ChannelFailed { error, .. })
                if !error.contains("ACCESS_REFUSED") && is_refusal(&error) =>
            {
                return Ok(QueueTypeSupport::Missing { kind, error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(QueueTypeSupport::Complete)
}

/// Whether the broker refused the request. Any other error is a lost connection.
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

/// Checks that the user may configure, write and read objects under the prefix: declares an exclusive queue, sends a
/// message through it, and removes it.
///
/// # Errors
/// [`BrokerError::ChannelFailed`] names the missing permission or the operation that failed.
pub async fn check_permissions(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
    let name = names.temporary(&uuid::Uuid::now_v7().to_string());
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await;
    declared.map_err(BrokerError::channel_failed("declaring a queue (needs the configure permission)"))?;
    let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
    selected.map_err(BrokerError::channel_failed("selecting confirms"))?;
    let publish = async {
        let properties = BasicProperties::default();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), name.as_str().into(), options, b"permission check", properties).await?.await
    };
    match tokio::time::timeout(CONFIRM_TIMEOUT, publish).await {
        Ok(confirm) => {
            drop(confirm.map_err(BrokerError::channel_failed("sending a message (needs the write permission)"))?)
        }
        Err(_) => {
            let error =
                "the broker did not confirm it within 5 s: it is short of memory or disk (rabbitmq-diagnostics alarms)";
            return Err(BrokerError::ChannelFailed { operation: "sending a message", error: error.to_owned() });
        }
    }
    let received = channel.basic_get(name.as_str().into(), BasicGetOptions { no_ack: true }).await;
    received.map_err(BrokerError::channel_failed("receiving a message (needs the read permission)"))?;
    let deleted = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
    deleted.map(drop).map_err(BrokerError::channel_failed("removing a queue"))
}
