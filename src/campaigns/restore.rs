//! What an operator decides about an incomplete campaigns log: to restore it from this worker's store, or to accept it.

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;

use super::hold::{Hold, LogStatus};
use super::{APPEND_TIMEOUT, Campaigns, Refused};
use crate::broker::publisher::{Destination, Outgoing, Unpublished};
use crate::follow::Currency;
use crate::store::StoreError;
use crate::store::record::{Control, RestoreKind};

/// Campaigns in flight to the broker at once.
const BATCH: usize = 256;

/// A snapshot is repeated this often if campaigns change meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// What this worker knows of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Whether it is current.
    pub currency: Currency,
    /// Whether campaigns may be missing.
    pub status: LogStatus,
    /// How many campaigns the store has.
    pub campaigns: u64,
    /// When the latest change that the store has was accepted.
    pub last_change_at: Option<DateTime<Utc>>,
}

impl Configuration {
    /// Why `restore` is refused.
    ///
    /// # Errors
    /// [`Refused`].
    fn restore_kind(&self) -> Result<RestoreKind, Refused> {
        let kind = match (&self.status, self.currency) {
            (LogStatus::Incomplete(Hold { reason, .. }), _) if reason.keeps_campaigns() => RestoreKind::Merge,
            (LogStatus::Incomplete(_), _) => {
                return Err(Refused::Conflict(
                    "this worker does not have all campaigns either. Run the command against a worker that has them; if there is \
                     none, use `waypost campaigns accept-empty`, then `waypost campaigns apply FILE` with a backup"
                        .to_owned(),
                ));
            }
            (LogStatus::Following, Currency::Current) => RestoreKind::Snapshot,
            (LogStatus::Following | LogStatus::Comparing, _) => {
                return Err(Refused::Unavailable("reading the configuration from the broker: try again".to_owned()));
            }
        };
        if self.campaigns == 0 {
            let message = "this worker has no campaigns: run the command against a worker that has them";
            return Err(Refused::Conflict(message.to_owned()));
        }
        Ok(kind)
    }

    /// Whether the campaigns log can be restored from this worker.
    pub fn can_restore(&self) -> bool {
        self.restore_kind().is_ok()
    }
}

impl Campaigns {
    /// What this worker knows of the configuration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn configuration(&self) -> Result<Configuration, StoreError> {
        Ok(Configuration {
            currency: *self.currency.borrow(),
            status: self.status.borrow().clone(),
            campaigns: self.store.count_campaigns(),
            last_change_at: self.store.view_state()?.last_change_at,
        })
    }

    /// Appends all campaigns of this worker's store to the log, in the name of `by`. Gives back how many.
    ///
    /// It goes on if the caller goes away. Interrupted, it has no effect and can be repeated.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn restore(&self, by: &str) -> Result<u64, Refused> {
        let (campaigns, by) = (self.clone(), by.to_owned());
        let restored = tokio::spawn(async move { campaigns.append_all(&by).await }).await;
        restored.unwrap_or_else(|error| Err(Refused::Unavailable(format!("the restore was interrupted: {error}"))))
    }

    async fn append_all(&self, by: &str) -> Result<u64, Refused> {
        let _turn = self.lock().await?;
        let _restoring = self.restoring.lock().await;
        let kind = self.configuration()?.restore_kind()?;
        for _ in 0..MAX_ATTEMPTS {
            let restore = uuid::Uuid::now_v7().to_string();
            let (by, at) = (by.to_owned(), Utc::now());
            let started = Control::RestoreStarted { restore: restore.clone(), kind, by, at };
            match kind {
                // It is the state at its first record, which this worker has then applied.
                RestoreKind::Snapshot => self.append_control(&started).await?,
                // The view is of another log.
                RestoreKind::Merge => self.publish_control(&started).await?,
            }
            let generation = self.store.campaigns_generation();
            let campaigns = self.append_stored(&restore).await?;
            if kind == RestoreKind::Snapshot && self.store.campaigns_generation() != generation {
                continue;
            }
            self.publish_control(&Control::RestoreFinished { restore, campaigns, at: Utc::now() }).await?;
            tracing::info!(log = self.log, campaigns, "campaigns log restored");
            return Ok(campaigns);
        }
        let message = "campaigns were changed during each attempt to restore: try again when nobody changes them";
        Err(Refused::Unavailable(message.to_owned()))
    }

    async fn append_stored(&self, restore: &str) -> Result<u64, Refused> {
        let (mut after, mut count) = (None::<String>, 0);
        loop {
            let batch = self.store.stored_campaigns(after.as_deref(), BATCH)?;
            let Some(last) = batch.last() else { return Ok(count) };
            after = Some(last.campaign.id.clone());
            count += batch.len() as u64;
            let records = batch.into_iter().map(|stored| {
                let control = Control::RestoredCampaign { restore: restore.to_owned(), stored: Box::new(stored) };
                Ok(self.publisher.publish(self.control_message(&control)?))
            });
            let records = records.collect::<Result<Vec<_>, StoreError>>()?;
            confirmed(try_join_all(records)).await?;
        }
    }

    /// Accepts that what the log has is all there is, in the name of `by`. Gives back how many campaigns this worker's
    /// store had.
    ///
    /// # Errors
    /// [`Refused::Conflict`] if this worker does not hold its events.
    pub async fn accept_empty(&self, by: &str) -> Result<u64, Refused> {
        let _turn = self.lock().await?;
        let Configuration { status, campaigns, .. } = self.configuration()?;
        if !matches!(status, LogStatus::Incomplete(_)) {
            let message = "this worker does not hold its events: there is nothing to accept";
            return Err(Refused::Conflict(message.to_owned()));
        }
        self.append_control(&Control::AcceptEmpty { by: by.to_owned(), at: Utc::now() }).await?;
        tracing::warn!(log = self.log, campaigns, by, "incomplete campaigns log accepted");
        Ok(campaigns)
    }

    /// Appends a control record and waits until this worker has read it.
    async fn append_control(&self, control: &Control) -> Result<(), Refused> {
        let body = serde_json::to_vec(control).map_err(StoreError::from)?;
        self.appender.append(body).await?;
        Ok(())
    }

    /// Appends a control record.
    pub(super) async fn publish_control(&self, control: &Control) -> Result<(), Refused> {
        confirmed(self.publisher.publish(self.control_message(control)?)).await
    }

    fn control_message(&self, control: &Control) -> Result<Outgoing, StoreError> {
        let message_id = uuid::Uuid::now_v7().to_string();
        Ok(Outgoing::new(Destination::Queue(self.log.clone()), message_id, serde_json::to_vec(control)?))
    }
}

/// Waits for the broker's confirm.
async fn confirmed<T>(published: impl Future<Output = Result<T, Unpublished>>) -> Result<(), Refused> {
    match tokio::time::timeout(APPEND_TIMEOUT, published).await {
        Ok(published) => published.map(drop).map_err(|error| Refused::Unavailable(error.to_string())),
        Err(_) => {
            let seconds = APPEND_TIMEOUT.as_secs();
            Err(Refused::Unavailable(format!("no confirmation within {seconds} s. Nothing is restored. Try again")))
        }
    }
}
