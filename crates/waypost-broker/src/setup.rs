//! Declares all broker objects after each connect, and deletes them.

use std::time::Duration;

use lapin::Connection;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use super::delay_queues::DelayQueue;
use super::topology::Topology;
use super::{BrokerError, declare, restore};

/// Limit for all declarations. Without a response the caller reconnects.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(60);

impl Topology {
    /// Declares all objects and bindings. If this process has declared them before, a missing object is reported as
    /// restored.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] if an object exists with other arguments, [`BrokerError::PluginMissing`],
    /// [`BrokerError::ChannelFailed`].
    pub async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let declared = tokio::time::timeout(DECLARE_TIMEOUT, self.declare_all(connection)).await;
        declared.unwrap_or_else(|_| {
            let error = format!("no response within {} s", DECLARE_TIMEOUT.as_secs());
            Err(BrokerError::ChannelFailed { operation: "declaring queues and exchanges", error })
        })
    }

    async fn declare_all(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        if self.status.is_declared() {
            restore::restore_all(self, connection).await?;
        } else {
            for (name, kind, arguments) in self.exchanges() {
                declare::exchange(&channel, &name, kind, arguments).await?;
            }
            for (name, arguments) in self.queues() {
                declare::queue(&channel, &name, arguments).await?;
            }
        }
        declare::bindings(&channel, self).await?;
        self.status.set_declared();
        // Each declaration is confirmed. Closing the channel adds nothing.
        let _ = channel.close(200, "declared".into()).await;
        Ok(())
    }

    /// Deletes all objects with their messages.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn delete(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        let names = &self.names;
        let mut queues = vec![names.retries(), names.dead_letters(), names.campaigns(), names.replays()];
        queues.extend(names.event_queues(self.shards));
        queues.extend(DelayQueue::all().map(|delay_queue| names.delay(delay_queue)));
        for queue in queues {
            let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
            deleted.map_err(BrokerError::channel_failed("deleting a queue"))?;
        }
        for exchange in [names.events(), names.event_shards(), names.dead_letters()] {
            let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
            deleted.map_err(BrokerError::channel_failed("deleting an exchange"))?;
        }
        Ok(())
    }
}
