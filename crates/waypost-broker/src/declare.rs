//! Declares single exchanges, queues and bindings. Declaring an existing object with the same arguments changes
//! nothing.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::BrokerError;
use super::mismatch;
use super::topology::{Binding, DestinationKind, HASH_EXCHANGE_TYPE, Topology};

pub(super) async fn exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|error| declare_error("declaring an exchange", &error))
}

/// A consistent-hash exchange that is not durable: it disappears when the broker restarts.
pub(super) async fn transient_hash_exchange(channel: &Channel, name: &str) -> Result<(), BrokerError> {
    let (kind, options) = (ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned()), ExchangeDeclareOptions::default());
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
    declared.map_err(|error| declare_error("declaring an exchange", &error))
}

pub(super) async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await;
    declared.map(|_| ()).map_err(|error| declare_error("declaring a queue", &error))
}

/// Declares every binding. Surplus bindings stay.
pub(super) async fn bindings(channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    for binding in topology.bindings() {
        bind(channel, &binding).await?;
    }
    Ok(())
}

pub(super) async fn bind(channel: &Channel, binding: &Binding) -> Result<(), BrokerError> {
    let (to, from) = (binding.destination.as_str().into(), binding.source.as_str().into());
    let (key, arguments) = (binding.routing_key.into(), FieldTable::default());
    match binding.destination_kind {
        DestinationKind::Queue => {
            let bound = channel.queue_bind(to, from, key, QueueBindOptions::default(), arguments).await;
            bound.map_err(BrokerError::channel_failed("binding a queue"))
        }
        DestinationKind::Exchange => {
            let bound = channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), arguments).await;
            bound.map_err(BrokerError::channel_failed("binding an exchange"))
        }
    }
}

/// Does nothing if the binding or one of its ends does not exist.
pub(super) async fn unbind(channel: &Channel, binding: &Binding) -> Result<(), BrokerError> {
    let (to, from) = (binding.destination.as_str().into(), binding.source.as_str().into());
    let (key, arguments) = (binding.routing_key.into(), FieldTable::default());
    match binding.destination_kind {
        DestinationKind::Queue => {
            let unbound = channel.queue_unbind(to, from, key, arguments).await;
            unbound.map_err(BrokerError::channel_failed("unbinding a queue"))
        }
        DestinationKind::Exchange => {
            let unbound = channel.exchange_unbind(to, from, key, ExchangeUnbindOptions::default(), arguments).await;
            unbound.map_err(BrokerError::channel_failed("unbinding an exchange"))
        }
    }
}

fn declare_error(operation: &'static str, error: &lapin::Error) -> BrokerError {
    let message = match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => String::new(),
    };
    // RabbitMQ answers `unknown exchange type 'x-consistent-hash'`.
    if message.contains("exchange type 'x-consistent-hash'") {
        return BrokerError::PluginMissing {
            setting: "broker.shards over 1",
            plugin: "rabbitmq_consistent_hash_exchange",
        };
    }
    match mismatch::parse_mismatch(&message) {
        Some(mismatch) => BrokerError::Mismatch(mismatch),
        None => BrokerError::ChannelFailed { operation, error: error.to_string() },
    }
}
