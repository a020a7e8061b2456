//! Declares single exchanges, queues and bindings. Declaring what exists with the same arguments changes nothing.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::BrokerError;
use super::mismatch;
use super::topology::{Binding, BoundKind, SPREADING, Topology};

pub(super) async fn exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|error| refused("declaring an exchange", &error))
}

/// An exchange that spreads messages over queues, and is gone with the broker's next start.
pub(super) async fn transient_hash_exchange(channel: &Channel, name: &str) -> Result<(), BrokerError> {
    let (kind, options) = (ExchangeKind::Custom(SPREADING.to_owned()), ExchangeDeclareOptions::default());
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
    declared.map_err(|error| refused("declaring an exchange", &error))
}

pub(super) async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await;
    declared.map(|_| ()).map_err(|error| refused("declaring a queue", &error))
}

/// Declares every binding, and removes none.
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
        BoundKind::Queue => {
            let bound = channel.queue_bind(to, from, key, QueueBindOptions::default(), arguments).await;
            bound.map_err(BrokerError::lost("binding a queue"))
        }
        BoundKind::Exchange => {
            let bound = channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), arguments).await;
            bound.map_err(BrokerError::lost("binding an exchange"))
        }
    }
}

/// What does not exist, or is not bound, stays as it is.
pub(super) async fn unbind(channel: &Channel, binding: &Binding) -> Result<(), BrokerError> {
    let (to, from) = (binding.destination.as_str().into(), binding.source.as_str().into());
    let (key, arguments) = (binding.routing_key.into(), FieldTable::default());
    match binding.destination_kind {
        BoundKind::Queue => {
            let unbound = channel.queue_unbind(to, from, key, arguments).await;
            unbound.map_err(BrokerError::lost("unbinding a queue"))
        }
        BoundKind::Exchange => {
            let unbound = channel.exchange_unbind(to, from, key, ExchangeUnbindOptions::default(), arguments).await;
            unbound.map_err(BrokerError::lost("unbinding an exchange"))
        }
    }
}

fn refused(doing: &'static str, error: &lapin::Error) -> BrokerError {
    let sentence = match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => String::new(),
    };
    // RabbitMQ says `unknown exchange type 'x-consistent-hash'`.
    if sentence.contains("exchange type 'x-consistent-hash'") {
        return BrokerError::NoPlugin { setting: "broker.shards over 1", plugin: "rabbitmq_consistent_hash_exchange" };
    }
    match mismatch::in_sentence(&sentence) {
        Some(mismatch) => BrokerError::Mismatch(mismatch),
        None => BrokerError::ChannelFailed { doing, error: error.to_string() },
    }
}
