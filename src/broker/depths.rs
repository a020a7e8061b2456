//! How many messages wait in the queues.

use std::convert::Infallible;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};

use super::BrokerError;
use super::ladder::Rung;
use super::names::Names;

/// How often the queues are asked.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// A queue as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody has in hand.
    pub messages: u32,
    /// Who consumes it: each worker once.
    pub consumers: u32,
}

/// Asks the work queues (`events` are those of the events) and the delay ladder, over and over, and reports each answer; sees that the exchanges are there.
///
/// # Errors
/// [`BrokerError::Lost`] when the connection, a queue or an exchange is gone.
pub async fn watch(
    connection: &Connection,
    names: &Names,
    events: &[String],
    report: impl Fn(&str, Depth),
) -> Result<Infallible, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let queues = queues(names, events);
    loop {
        for (exchange, kind) in [(names.events(), ExchangeKind::Topic), (names.dead_letters(), ExchangeKind::Fanout)] {
            // Nothing shows that an exchange is gone, but that nobody can publish to it.
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let there = channel.exchange_declare(exchange.into(), kind, passive, FieldTable::default()).await;
            there.map_err(BrokerError::lost("looking for an exchange"))?;
        }
        for queue in &queues {
            report(queue, depth(&channel, queue).await?);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// All messages that wait, for a worker or for their time.
///
/// # Errors
/// [`BrokerError::Lost`].
pub async fn total(connection: &Connection, names: &Names, events: &[String]) -> Result<u64, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let mut total = 0;
    for queue in queues(names, events) {
        total += u64::from(depth(&channel, &queue).await?.messages);
    }
    Ok(total)
}

fn queues(names: &Names, events: &[String]) -> Vec<String> {
    events.iter().cloned().chain([names.retries()]).chain(Rung::all().map(|rung| names.delay(rung))).collect()
}

async fn depth(channel: &Channel, queue: &str) -> Result<Depth, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let answer = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    let queue = answer.map_err(BrokerError::lost("asking for a queue's depth"))?;
    Ok(Depth { messages: queue.message_count(), consumers: queue.consumer_count() })
}
