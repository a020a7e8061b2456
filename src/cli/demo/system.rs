//! The worker and the broker objects of the demo, and the counts that they show.

use waypost_broker::names::Names;
use waypost_broker::queue_stats;

use crate::cli::error::CliError;

pub(super) struct DemoSystem<'a> {
    pub(super) api: String,
    pub(super) names: Names,
    /// The queues of events.
    pub(super) queues: Vec<String>,
    pub(super) connection: &'a lapin::Connection,
}

impl DemoSystem<'_> {
    /// The number of events that fire no webhook, as counted by the worker.
    pub(super) async fn no_webhook_count(&self) -> Result<usize, CliError> {
        let text = reqwest::get(format!("{}/metrics", self.api)).await.map_err(CliError::new)?;
        let text = text.text().await.map_err(CliError::new)?;
        let count = text.lines().find_map(|line| line.strip_prefix("waypost_events_total{result=\"no_webhook\"} "));
        count
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| CliError::new("the worker's metrics have no count of events without a webhook"))
    }

    /// The number of messages in the broker's queues.
    pub(super) async fn waiting_count(&self) -> Result<u64, CliError> {
        queue_stats::total_messages(self.connection, &self.names, &self.queues).await.map_err(CliError::new)
    }
}
