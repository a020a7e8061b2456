//! An operator's decision about an incomplete campaigns stream: restore the stream from this worker's store, or accept
//! the stream.

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use waypost_broker::publisher::{Destination, OutboundMessage, PublishError};
use waypost_store::StoreError;
use waypost_store::record::{Control, RestoreKind};

use super::error::CampaignError;
use super::hold::{Hold, StreamStatus};
use super::{APPEND_TIMEOUT, Campaigns};
use crate::view_sync::SyncState;

/// Maximum number of campaigns that are in flight to the broker at once.
const MAX_BATCH_RECORDS: usize = 256;

/// Maximum number of bytes that are in flight to the broker at once; the last record may exceed them. Each record is in
/// memory several times.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The `by` of a snapshot that a worker appends for another worker.
const ANSWERED_BY: &str = "another worker that asked";

/// Attempts of a snapshot, if campaigns change meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// The state of the configuration on this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub sync_state: SyncState,
    pub stream_status: StreamStatus,
    /// The number of campaigns in the store.
    pub campaigns: u64,
    /// When the store's latest change was accepted.
    pub last_change_at: Option<DateTime<Utc>>,
}

impl Configuration {
    /// Which restore this worker can do, or why none.
    fn restore_kind(&self) -> Result<RestoreKind, CampaignError> {
        let kind = match (&self.stream_status, self.sync_state) {
            (StreamStatus::Incomplete(Hold { reason, .. }), _) if reason.keeps_campaigns() => RestoreKind::Merge,
            (StreamStatus::Incomplete(_), _) => {
                return Err(CampaignError::Conflict(
                    "this worker does not have all campaigns either. Run the command against a worker that has them; if there is \
                     none, use `waypost campaigns accept-empty`, then `waypost campaigns apply FILE` with a backup"
                        .to_owned(),
                ));
            }
            (StreamStatus::Following, SyncState::Current) => RestoreKind::Snapshot,
            (StreamStatus::Following | StreamStatus::Comparing, _) => {
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

    /// Whether this worker holds its events because the stream has lost its beginning.
    fn lacks_beginning(&self) -> bool {
        matches!(&self.stream_status, StreamStatus::Incomplete(hold) if hold.reason.lacks_beginning())
    }

    /// Whether the campaigns stream can be restored from this worker.
    pub fn can_restore(&self) -> bool {
        self.restore_kind().is_ok()
    }
}

impl Campaigns {
    pub fn configuration(&self) -> Result<Configuration, StoreError> {
        Ok(Configuration {
            sync_state: *self.sync_state.borrow(),
            stream_status: self.stream_status.borrow().clone(),
            campaigns: self.store.count_campaigns(),
            last_change_at: self.store.view_state()?.last_change_at,
        })
    }

    /// Appends all campaigns of this worker's store to the stream, and returns their number.
    ///
    /// If this worker holds its events because the stream has lost its beginning, a ready worker appends its campaigns
    /// first: its store may have more changes. The restore continues if the caller disconnects. An interrupted restore
    /// has no effect and can be repeated.
    pub async fn restore(&self, by: &str) -> Result<u64, CampaignError> {
        let (campaigns, by) = (self.clone(), by.to_owned());
        let result = tokio::spawn(async move { campaigns.append_all(&by).await }).await;
        result.unwrap_or_else(|error| Err(CampaignError::Unavailable(format!("the restore was interrupted: {error}"))))
    }

    async fn append_all(&self, by: &str) -> Result<u64, CampaignError> {
        let _change_lock = self.lock_all_campaigns().await?;
        let _restore_lock = self.restore_mutex.lock().await;
        let configuration = self.configuration()?;
        let kind = configuration.restore_kind()?;
        if configuration.lacks_beginning() {
            self.load_snapshot_of_ready_worker().await?;
        }
        self.append_restore(kind, by, false).await
    }

    /// Appends a snapshot for another worker, and returns its number of campaigns.
    pub(super) async fn append_answer(&self) -> Result<u64, CampaignError> {
        let _change_lock = self.lock_all_campaigns().await?;
        let _restore_lock = self.restore_mutex.lock().await;
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
                // A snapshot is the state at its first record, so this worker must have applied that record.
                RestoreKind::Snapshot => self.append_control(&started).await?,
                // This worker's view is from another stream.
                RestoreKind::Merge => self.publish_control(&started).await?,
            }
            let generation = self.store.campaigns_generation();
            let campaigns = self.append_stored(&restore).await?;
            if kind == RestoreKind::Snapshot && self.store.campaigns_generation() != generation {
                continue;
            }
            self.publish_control(&Control::RestoreFinished { restore, campaigns, at: Utc::now() }).await?;
            tracing::info!(log = self.log, campaigns, is_answer, "campaigns stream restored");
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
            await_confirm(try_join_all(batch.into_iter().map(|record| self.publisher.publish(record)))).await?;
        }
    }

    /// The records of the campaigns after the id `after`: at most [`MAX_BATCH_RECORDS`], and about [`MAX_BATCH_BYTES`].
    /// Empty after the last campaign.
    fn next_batch(&self, restore: &str, after: &mut Option<String>) -> Result<Vec<OutboundMessage>, StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < MAX_BATCH_RECORDS && bytes < MAX_BATCH_BYTES {
            let Some(stored) = self.store.stored_campaign_after(after.as_deref())? else { break };
            *after = Some(stored.campaign.id.clone());
            let control = Control::RestoredCampaign { restore: restore.to_owned(), stored: Box::new(stored) };
            let record = self.control_message(&control)?;
            bytes += record.body.len();
            batch.push(record);
        }
        Ok(batch)
    }

    /// Accepts the stream as complete, and returns how many campaigns this worker's store had. Ready workers keep their
    /// campaigns.
    ///
    /// # Errors
    /// [`CampaignError::Conflict`] if this worker does not hold its events, or if a ready worker has just restored the
    /// stream.
    pub async fn accept_empty(&self, by: &str) -> Result<u64, CampaignError> {
        let _change_lock = self.lock_all_campaigns().await?;
        let configuration = self.configuration()?;
        let StreamStatus::Incomplete(hold) = &configuration.stream_status else {
            let message = "this worker does not hold its events: there is nothing to accept";
            return Err(CampaignError::Conflict(message.to_owned()));
        };
        // Only an operator's decision drops campaigns that only this worker's store has.
        if configuration.lacks_beginning()
            && self.load_snapshot_of_ready_worker().await?
            && !hold.reason.keeps_campaigns()
        {
            let message = "nothing was accepted: a worker that is ready has appended all its campaigns to the stream, and this worker \
                           loads them now. `waypost ready` shows when this worker delivers again";
            return Err(CampaignError::Conflict(message.to_owned()));
        }
        self.append_control(&Control::AcceptEmpty { by: by.to_owned(), at: Utc::now() }).await?;
        let campaigns = configuration.campaigns;
        tracing::warn!(log = self.log, campaigns, by, "incomplete campaigns stream accepted");
        Ok(campaigns)
    }

    /// Appends a control record and waits until this worker has read it.
    async fn append_control(&self, control: &Control) -> Result<(), CampaignError> {
        let body = serde_json::to_vec(control).map_err(StoreError::from)?;
        self.appender.append(body).await?;
        Ok(())
    }

    /// Appends a control record, and waits for the broker's confirm only.
    pub(super) async fn publish_control(&self, control: &Control) -> Result<(), CampaignError> {
        await_confirm(self.publisher.publish(self.control_message(control)?)).await
    }

    fn control_message(&self, control: &Control) -> Result<OutboundMessage, StoreError> {
        let message_id = uuid::Uuid::now_v7().to_string();
        Ok(OutboundMessage::new(Destination::Queue(self.log.clone()), message_id, serde_json::to_vec(control)?))
    }
}

async fn await_confirm<T>(publish: impl Future<Output = Result<T, PublishError>>) -> Result<(), CampaignError> {
    match tokio::time::timeout(APPEND_TIMEOUT, publish).await {
        Ok(result) => result.map(drop).map_err(|error| CampaignError::Unavailable(error.to_string())),
        Err(_) => {
            let seconds = APPEND_TIMEOUT.as_secs();
            Err(CampaignError::Unavailable(format!(
                "no confirmation within {seconds} s. Nothing is restored. Try again"
            )))
        }
    }
}
