//! How many messages wait in the queues, and how far a stream goes.

use std::convert::Infallible;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::BrokerError;
use super::delay_queues::DelayTier;
use super::names::Names;
use super::subscription::{StartAt, Subscription};

/// How often the queues are asked.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// A stream that has a record gives one out within this time.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// A queue as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStats {
    /// Messages that nobody has in hand.
    pub messages: u32,
    /// Who consumes it: each worker once.
    pub consumers: u32,
}

/// Asks the work queues (`events` are those of the events) and the delay ladder, over and over, and reports each answer.
///
/// A queue that is missing or does not answer is left out: [`keeper`](super::topology_keeper) restores and reports it.
///
/// # Errors
/// [`BrokerError::ChannelFailed`] when the connection is gone.
pub async fn watch(
    connection: &Connection,
    names: &Names,
    events: &[String],
    report: impl Fn(&str, QueueStats),
) -> Result<Infallible, BrokerError> {
    let open = || async { connection.create_channel().await.map_err(BrokerError::lost("opening a channel")) };
    let mut channel = open().await?;
    let queues = queues(names, events);
    loop {
        for queue in &queues {
            match depth(&channel, queue).await {
                Ok(depth) => report(queue, depth),
                Err(error) => {
                    tracing::debug!(queue, %error, "queue depth not read");
                    // Tells a closed channel from a lost connection.
                    channel = open().await?;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The offset of the first record in the last chunk of a stream: a reader that has come as far is near its end. `None` if
/// no record came in time, as of an empty stream.
///
/// # Errors
/// [`BrokerError::ChannelFailed`].
pub async fn last_chunk(connection: &Connection, stream: &str) -> Result<Option<u64>, BrokerError> {
    let mut subscription = Subscription::open_stream(connection, stream, 1, StartAt::Last).await?;
    let first = tokio::time::timeout(RECORD_TIMEOUT, subscription.next()).await.ok().transpose()?;
    subscription.cancel().await;
    subscription.finish().await;
    Ok(first.and_then(|message| message.offset))
}

/// All messages that wait, for a worker or for their time.
///
/// # Errors
/// [`BrokerError::ChannelFailed`].
pub async fn total(connection: &Connection, names: &Names, events: &[String]) -> Result<u64, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let mut total = 0;
    for queue in queues(names, events) {
        total += u64::from(depth(&channel, &queue).await?.messages);
    }
    Ok(total)
}

fn queues(names: &Names, events: &[String]) -> Vec<String> {
    events.iter().cloned().chain([names.retries()]).chain(DelayTier::all().map(|rung| names.delay(rung))).collect()
}

async fn depth(channel: &Channel, queue: &str) -> Result<QueueStats, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let answer = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    let queue = answer.map_err(BrokerError::lost("asking for a queue's depth"))?;
    Ok(QueueStats { messages: queue.message_count(), consumers: queue.consumer_count() })
}
