//! Which queues the events are spread over, while workers may have different numbers of shards.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::topology::{self, MAX_SHARDS, Topology};
use super::{BrokerError, declare};

/// What came of removing surplus bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbinding {
    Done,
    /// Another worker is removing its own surplus bindings.
    Busy,
}

impl Topology {
    /// The queues of step events to consume: those that there are to be, and those that are left of a time when there were
    /// more. The latter are given no more events, once no worker declares their bindings.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn event_queues(&self, connection: &Connection) -> Result<Vec<String>, BrokerError> {
        let mut queues = self.names.event_queues(self.shards);
        // The broker closes a channel on which a queue is asked for that is not there.
        let probe = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let mut surplus = Vec::new();
        for shard in self.shards..MAX_SHARDS {
            let name = self.names.event_queue(shard);
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            if probe.queue_declare(name.as_str().into(), passive, FieldTable::default()).await.is_err() {
                break;
            }
            surplus.push(name);
        }
        match self.unbind_surplus(connection).await {
            Ok(Unbinding::Done) => {}
            // The keeper of this worker repeats it.
            Ok(Unbinding::Busy) => tracing::debug!("another worker removes surplus bindings"),
            Err(error) => tracing::warn!(%error, "surplus bindings not removed"),
        }
        if !surplus.is_empty() {
            tracing::info!(queues = ?surplus, "there were more shards: what is left in their queues is consumed as well");
            queues.extend(surplus);
        }
        Ok(queues)
    }

    /// Removes the surplus bindings.
    ///
    /// Workers with different numbers of shards may run at the same time, and each removes what the other needs. So one of them at
    /// a time declares its own bindings and then removes the surplus ones: those of the last one are always there.
    pub(super) async fn unbind_surplus(&self, connection: &Connection) -> Result<Unbinding, BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        // The lock: an exclusive queue is one connection's, and goes with it.
        let lock = format!("{}.unbinding", self.names.events());
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        if let Err(error) = channel.queue_declare(lock.as_str().into(), options, topology::of_type("classic")).await {
            if error.to_string().contains("RESOURCE_LOCKED") {
                return Ok(Unbinding::Busy);
            }
            return Err(BrokerError::lost("locking the bindings")(error));
        }
        let unbound = self.bind_and_unbind(&channel).await;
        // The broker closes a channel on which it refuses something.
        let unlocking = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let unlocked = unlocking.queue_delete(lock.as_str().into(), QueueDeleteOptions::default()).await;
        let unlocked = unlocked.map_err(BrokerError::lost("unlocking the bindings"));
        for channel in [channel, unlocking] {
            // If this fails the channel is gone already.
            let _ = channel.close(200, "unbound".into()).await;
        }
        unbound?;
        unlocked?;
        tracing::debug!(shards = self.shards, "surplus bindings removed");
        Ok(Unbinding::Done)
    }

    async fn bind_and_unbind(&self, channel: &Channel) -> Result<(), BrokerError> {
        declare::bindings(channel, self).await?;
        for binding in self.surplus_bindings() {
            declare::unbind(channel, &binding).await?;
        }
        Ok(())
    }
}
