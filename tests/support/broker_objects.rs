//! Deletes the objects that a test declared at the shared node. Even an unused quorum queue costs the node CPU.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use waypost_broker::delay_queues::DelayQueue;
use waypost_broker::names::Names;

/// The broker objects of a prefix without shards. Deletes them when dropped, so it must be dropped after the worker.
pub(crate) struct BrokerObjects {
    url: String,
    names: Names,
}

impl BrokerObjects {
    pub(crate) fn new(url: &str, prefix: &str) -> Self {
        Self { url: url.to_owned(), names: Names::new(prefix) }
    }

    fn queues(&self) -> Vec<String> {
        let names = &self.names;
        let mut queues =
            vec![names.events(), names.retries(), names.replays(), names.campaigns(), names.dead_letters()];
        queues.extend(DelayQueue::all().map(|delay_queue| names.delay(delay_queue)));
        queues
    }

    async fn delete(&self) -> lapin::Result<()> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        for queue in self.queues() {
            let options = QueueDeleteOptions { nowait: true, ..QueueDeleteOptions::default() };
            channel.queue_delete(queue.into(), options).await?;
        }
        for exchange in [self.names.events(), self.names.dead_letters()] {
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
        }
        connection.close(200, "done".into()).await
    }
}

impl Drop for BrokerObjects {
    fn drop(&mut self) {
        let delete = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(self.delete())
        };
        // The test's own runtime can't block here.
        let deleted = std::thread::scope(|scope| scope.spawn(delete).join());
        if !matches!(deleted, Ok(Ok(()))) {
            // Objects that are left disturb no test, because each test has its own prefix.
            eprintln!("could not delete the broker objects of {}: {deleted:?}", self.names.prefix());
        }
    }
}
