//! Declares the topology at every connect, and deletes it.

use std::time::Duration;

use lapin::Connection;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use super::delay_queues::DelayTier;
use super::topology::Topology;
use super::{BrokerError, declare, restore};

/// A broker that leaves a declaration unanswered for this long gets a new connection.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(60);

impl Topology {
    /// Declares everything. Once this process has done so, what is missing is reported as restored.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] where an object exists with other arguments, [`BrokerError::NoPlugin`].
    pub async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let declared = tokio::time::timeout(DECLARE_TIMEOUT, self.declare_all(connection)).await;
        declared.unwrap_or_else(|_| {
            let error = format!("no answer within {} s", DECLARE_TIMEOUT.as_secs());
            Err(BrokerError::ChannelFailed { doing: "declaring queues and exchanges", error })
        })
    }

    async fn declare_all(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        if self.status.is_declared() {
            restore::all(self, connection).await?;
        } else {
            for (name, kind, arguments) in self.exchanges() {
                declare::exchange(&channel, &name, kind, arguments).await?;
            }
            for (name, arguments) in self.queues() {
                declare::queue(&channel, &name, arguments).await?;
            }
        }
        declare::bindings(&channel, self).await?;
        self.status.declared();
        // The declarations are confirmed one by one; closing the channel tells us nothing more.
        let _ = channel.close(200, "declared".into()).await;
        Ok(())
    }

    /// Deletes everything, with all messages.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn delete(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let names = &self.names;
        let mut queues = vec![names.retries(), names.dead_letters(), names.campaigns(), names.replays()];
        queues.extend(names.event_queues(self.shards));
        queues.extend(DelayTier::all().map(|rung| names.delay(rung)));
        for queue in queues {
            let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
            deleted.map_err(BrokerError::lost("deleting a queue"))?;
        }
        for exchange in [names.events(), names.event_shards(), names.dead_letters()] {
            let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
            deleted.map_err(BrokerError::lost("deleting an exchange"))?;
        }
        Ok(())
    }
}
