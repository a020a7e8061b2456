//! Reads how many messages and consumers the queues have, and where a stream ends.

use std::convert::Infallible;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::BrokerError;
use super::delay_queues::DelayQueue;
use super::names::Names;
use super::subscription::{StartAt, Subscription};

/// Time between two reads of all queues.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// A stream that has a record delivers one within this time.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStats {
    /// Ready messages: without those that a consumer has not acknowledged.
    pub messages: u32,
    /// Each worker counts once.
    pub consumers: u32,
}

/// Reads the queues of events (`events`), of retries and all delay queues every [`INTERVAL`], and reports each result.
///
/// A queue that is missing or does not answer is skipped: [`topology_keeper`](super::topology_keeper) restores and
/// reports it.
///
/// # Errors
/// [`BrokerError::ChannelFailed`] if the connection is lost.
pub async fn watch(
    connection: &Connection,
    names: &Names,
    events: &[String],
    report: impl Fn(&str, QueueStats),
) -> Result<Infallible, BrokerError> {
    let open = || async { connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel")) };
    let mut channel = open().await?;
    let queues = queue_names(names, events);
    loop {
        for queue in &queues {
            match read_stats(&channel, queue).await {
                Ok(stats) => report(queue, stats),
                Err(error) => {
                    tracing::debug!(queue, %error, "queue stats not read");
                    // This fails if not only the channel but the connection is lost.
                    channel = open().await?;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The offset of the first record in the last chunk of a stream: a reader at this offset is near the end. `None` if no
/// record arrives in time, for example because the stream is empty.
///
/// # Errors
/// [`BrokerError::ChannelFailed`].
pub async fn last_chunk_offset(connection: &Connection, stream: &str) -> Result<Option<u64>, BrokerError> {
    let mut subscription = Subscription::open_stream(connection, stream, 1, StartAt::Last).await?;
    let first = tokio::time::timeout(RECORD_TIMEOUT, subscription.next()).await.ok().transpose()?;
    subscription.cancel().await;
    subscription.finish().await;
    Ok(first.and_then(|message| message.offset))
}

/// The number of ready messages in the queues of events (`events`), of retries and in all delay queues.
///
/// # Errors
/// [`BrokerError::ChannelFailed`].
pub async fn total_messages(connection: &Connection, names: &Names, events: &[String]) -> Result<u64, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
    let mut total = 0;
    for queue in queue_names(names, events) {
        total += u64::from(read_stats(&channel, &queue).await?.messages);
    }
    Ok(total)
}

fn queue_names(names: &Names, events: &[String]) -> Vec<String> {
    events
        .iter()
        .cloned()
        .chain([names.retries()])
        .chain(DelayQueue::all().map(|delay_queue| names.delay(delay_queue)))
        .collect()
}

async fn read_stats(channel: &Channel, queue: &str) -> Result<QueueStats, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    let queue = declared.map_err(BrokerError::channel_failed("reading queue stats"))?;
    Ok(QueueStats { messages: queue.message_count(), consumers: queue.consumer_count() })
}
