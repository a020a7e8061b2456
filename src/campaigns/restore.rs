//! What an operator decides about an incomplete campaigns log: to restore it from this worker's store, or to accept it.

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;

use super::hold::{Hold, LogStatus};
use super::{APPEND_TIMEOUT, CampaignError, Campaigns};
use crate::broker::publisher::{Destination, OutboundMessage, PublishError};
use crate::store::StoreError;
use crate::store::record::{Control, RestoreKind};
use crate::view_sync::SyncState;

/// Campaigns in flight to the broker at once, at most.
const BATCH: usize = 256;

/// Bytes in flight to the broker at once; the last record may exceed them. Each record is in memory several times.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Who decided about a snapshot that a worker appends because it was asked to.
const ANSWERED_BY: &str = "another worker that asked";

/// A snapshot is repeated this often if campaigns change meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// What this worker knows of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Whether it is current.
    pub currency: SyncState,
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
    /// [`CampaignError`].
    fn restore_kind(&self) -> Result<RestoreKind, CampaignError> {
        let kind = match (&self.status, self.currency) {
            (LogStatus::Incomplete(Hold { reason, .. }), _) if reason.keeps_campaigns() => RestoreKind::Merge,
            (LogStatus::Incomplete(_), _) => {
                return Err(CampaignError::Conflict(
                    "this worker does not have all campaigns either. Run the command against a worker that has them; if there is \
                     none, use `waypost campaigns accept-empty`, then `waypost campaigns apply FILE` with a backup"
                        .to_owned(),
                ));
            }
            (LogStatus::Following, SyncState::Current) => RestoreKind::Snapshot,
            (LogStatus::Following | LogStatus::Comparing, _) => {
                return Err(CampaignError::Unavailable(
                    "reading the configuration from the broker: try again".to_owned(),
                ));
            }
        };
        if self.campaigns == 0 {
            let message = "this worker has no campaigns: run the command against a worker that has them";
            return Err(CampaignError::Conflict(message.to_owned()));
        }
        Ok(kind)
    }

    /// Whether this worker holds its events, and the log has lost its beginning.
    fn lacks_beginning(&self) -> bool {
        matches!(&self.status, LogStatus::Incomplete(hold) if hold.reason.lacks_beginning())
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
    /// If this worker holds its events and the log has lost its beginning, workers that are ready append theirs before: they
    /// may know more. It goes on if the caller goes away. Interrupted, it has no effect and can be repeated.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn restore(&self, by: &str) -> Result<u64, CampaignError> {
        let (campaigns, by) = (self.clone(), by.to_owned());
        let restored = tokio::spawn(async move { campaigns.append_all(&by).await }).await;
        restored
            .unwrap_or_else(|error| Err(CampaignError::Unavailable(format!("the restore was interrupted: {error}"))))
    }

    async fn append_all(&self, by: &str) -> Result<u64, CampaignError> {
        let _turn = self.lock().await?;
        let _restoring = self.restoring.lock().await;
        let configuration = self.configuration()?;
        let kind = configuration.restore_kind()?;
        if configuration.lacks_beginning() {
            self.snapshot_of_another().await?;
        }
        self.append_restore(kind, by, false).await
    }

    /// Appends a snapshot because another worker asked for it. Gives back how many campaigns it has.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub(super) async fn append_answer(&self) -> Result<u64, CampaignError> {
        let _turn = self.lock().await?;
        let _restoring = self.restoring.lock().await;
        match self.configuration()?.restore_kind()? {
            kind @ RestoreKind::Snapshot => self.append_restore(kind, ANSWERED_BY, true).await,
            RestoreKind::Merge => Err(CampaignError::Conflict("this worker holds its events".to_owned())),
        }
    }

    async fn append_restore(&self, kind: RestoreKind, by: &str, is_answer: bool) -> Result<u64, CampaignError> {
        for _ in 0..MAX_ATTEMPTS {
            let restore = uuid::Uuid::now_v7().to_string();
            let accepted_loss = self.store.view_state()?.accepted_loss;
            let (by, at) = (by.to_owned(), Utc::now());
            let started = Control::RestoreStarted { restore: restore.clone(), kind, by, at, accepted_loss, is_answer };
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
            tracing::info!(log = self.log, campaigns, is_answer, "campaigns log restored");
            return Ok(campaigns);
        }
        let message = "campaigns were changed during each attempt to restore: try again when nobody changes them";
        Err(CampaignError::Unavailable(message.to_owned()))
    }

    async fn append_stored(&self, restore: &str) -> Result<u64, CampaignError> {
        let (mut after, mut count) = (None, 0);
        loop {
            let batch = self.next_batch(restore, &mut after)?;
            if batch.is_empty() {
                return Ok(count);
            }
            count += batch.len() as u64;
            confirmed(try_join_all(batch.into_iter().map(|record| self.publisher.publish(record)))).await?;
        }
    }

    /// The records of the campaigns after the id `after`: at most [`BATCH`] and about [`BATCH_BYTES`]. Empty after the last
    /// campaign.
    fn next_batch(&self, restore: &str, after: &mut Option<String>) -> Result<Vec<OutboundMessage>, StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(stored) = self.store.stored_campaign_after(after.as_deref())? else { break };
            *after = Some(stored.campaign.id.clone());
            let control = Control::RestoredCampaign { restore: restore.to_owned(), stored: Box::new(stored) };
            let record = self.control_message(&control)?;
            bytes += record.body.len();
            batch.push(record);
        }
        Ok(batch)
    }

    /// Accepts that what the log has is all there is, in the name of `by`. Gives back how many campaigns this worker's
    /// store had. Workers that are ready keep their campaigns.
    ///
    /// # Errors
    /// [`CampaignError::Conflict`] if this worker does not hold its events, or if all it lacks comes from a worker that is ready.
    pub async fn accept_empty(&self, by: &str) -> Result<u64, CampaignError> {
        let _turn = self.lock().await?;
        let configuration = self.configuration()?;
        let LogStatus::Incomplete(hold) = &configuration.status else {
            let message = "this worker does not hold its events: there is nothing to accept";
            return Err(CampaignError::Conflict(message.to_owned()));
        };
        // What only this worker's store has is dropped by the operator's decision alone.
        if configuration.lacks_beginning() && self.snapshot_of_another().await? && !hold.reason.keeps_campaigns() {
            let message = "nothing was accepted: a worker that is ready has appended all its campaigns to the log, and this worker \
                           loads them now. `waypost ready` says when it goes on";
            return Err(CampaignError::Conflict(message.to_owned()));
        }
        self.append_control(&Control::AcceptEmpty { by: by.to_owned(), at: Utc::now() }).await?;
        let campaigns = configuration.campaigns;
        tracing::warn!(log = self.log, campaigns, by, "incomplete campaigns log accepted");
        Ok(campaigns)
    }

    /// Appends a control record and waits until this worker has read it.
    async fn append_control(&self, control: &Control) -> Result<(), CampaignError> {
        let body = serde_json::to_vec(control).map_err(StoreError::from)?;
        self.appender.append(body).await?;
        Ok(())
    }

    /// Appends a control record.
    pub(super) async fn publish_control(&self, control: &Control) -> Result<(), CampaignError> {
        confirmed(self.publisher.publish(self.control_message(control)?)).await
    }

    fn control_message(&self, control: &Control) -> Result<OutboundMessage, StoreError> {
        let message_id = uuid::Uuid::now_v7().to_string();
        Ok(OutboundMessage::new(Destination::Queue(self.log.clone()), message_id, serde_json::to_vec(control)?))
    }
}

/// Waits for the broker's confirm.
async fn confirmed<T>(published: impl Future<Output = Result<T, PublishError>>) -> Result<(), CampaignError> {
    match tokio::time::timeout(APPEND_TIMEOUT, published).await {
        Ok(published) => published.map(drop).map_err(|error| CampaignError::Unavailable(error.to_string())),
        Err(_) => {
            let seconds = APPEND_TIMEOUT.as_secs();
            Err(CampaignError::Unavailable(format!(
                "no confirmation within {seconds} s. Nothing is restored. Try again"
            )))
        }
    }
}
