//! Consumes and unbinds surplus event queues, while workers may run with different values of `broker.shards`.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::topology::{self, MAX_SHARDS, Topology};
use super::{BrokerError, declare};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnbindOutcome {
    Done,
    /// Another worker is removing its own surplus bindings.
    LockedByOther,
}

impl Topology {
    /// The queues of step events to consume: those of the current `broker.shards`, and existing surplus ones of a
    /// larger value. Surplus queues get no more events when no worker declares their bindings.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn event_queues(&self, connection: &Connection) -> Result<Vec<String>, BrokerError> {
        let mut queues = self.names.event_queues(self.shards);
        // The broker closes a channel on which a missing queue is declared passively.
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        let mut surplus = Vec::new();
        for shard in self.shards..MAX_SHARDS {
            let name = self.names.event_queue(shard);
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            if channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await.is_err() {
                break;
            }
            surplus.push(name);
        }
        match self.unbind_surplus(connection).await {
            Ok(UnbindOutcome::Done) => {}
            // The topology keeper of this worker tries again.
            Ok(UnbindOutcome::LockedByOther) => {
                tracing::debug!("surplus bindings not removed: another worker removes its own")
            }
            Err(error) => tracing::warn!(%error, "surplus bindings not removed"),
        }
        if !surplus.is_empty() {
            tracing::info!(queues = ?surplus, "draining queues left by a larger broker.shards");
            queues.extend(surplus);
        }
        Ok(queues)
    }

    /// Removes the surplus bindings.
    ///
    /// Workers with different numbers of shards may run at the same time, and each removes bindings that another needs.
    /// A lock lets one worker at a time declare its bindings and remove the surplus ones. The bindings of the last worker
    /// are therefore complete.
    pub(super) async fn unbind_surplus(&self, connection: &Connection) -> Result<UnbindOutcome, BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        // An exclusive queue is the lock: it belongs to one connection and disappears with the connection.
        let lock = format!("{}.unbinding", self.names.events());
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        if let Err(error) =
            channel.queue_declare(lock.as_str().into(), options, topology::queue_type_arguments("classic")).await
        {
            if error.to_string().contains("RESOURCE_LOCKED") {
                return Ok(UnbindOutcome::LockedByOther);
            }
            return Err(BrokerError::channel_failed("locking the bindings")(error));
        }
        let unbound = self.bind_and_unbind(&channel).await;
        // Use another channel: the broker closes a channel on which it refuses a request.
        let unlock_channel =
            connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        let unlocked = unlock_channel.queue_delete(lock.as_str().into(), QueueDeleteOptions::default()).await;
        let unlocked = unlocked.map_err(BrokerError::channel_failed("unlocking the bindings"));
        for channel in [channel, unlock_channel] {
            // Closing fails if the broker has closed the channel already.
            let _ = channel.close(200, "unbound".into()).await;
        }
        unbound?;
        unlocked?;
        tracing::debug!(shards = self.shards, "surplus bindings removed");
        Ok(UnbindOutcome::Done)
    }

    async fn bind_and_unbind(&self, channel: &Channel) -> Result<(), BrokerError> {
        declare::bindings(channel, self).await?;
        for binding in self.surplus_bindings() {
            declare::unbind(channel, &binding).await?;
        }
        Ok(())
    }
}
