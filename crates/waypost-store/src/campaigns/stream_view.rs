//! Applies records of the campaigns stream to the view. The changes of a record, the record's position and the view's
//! state are written in one transaction.

use std::sync::atomic::Ordering;

use serde::Serialize;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional as _, TransactionalTree};
use waypost_core::campaign::Campaign;
use waypost_core::stream_position::StreamPosition;

use super::change::{Change, ChangeOutcome};
use super::record::{CampaignsRecord, Snapshot};
use super::state::{CampaignsViewState, Contents, Incomplete, ReadFrom, RecordEffect, StreamStart, Write};
use super::stored_campaign::StoredCampaign;
use crate::{Store, StoreError};

/// The key of the campaigns stream's position.
const POSITION: &[u8] = b"campaigns";

/// The key of the [`CampaignsViewState`].
const STATE: &[u8] = b"campaigns.state";

impl Store {
    /// The position of the last campaigns stream record that was applied.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self) -> Result<Option<StreamPosition>, StoreError> {
        Ok(self.positions.get(POSITION)?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// # Errors
    /// [`StoreError`].
    pub fn view_state(&self) -> Result<CampaignsViewState, StoreError> {
        let state = self.positions.get(STATE)?.as_deref().map(serde_json::from_slice).transpose()?;
        Ok(state.unwrap_or_default())
    }

    /// Applies a record of the campaigns stream. `None` is an unreadable record.
    ///
    /// # Errors
    /// [`StoreError`]. Nothing was applied.
    pub fn apply(
        &self,
        position: &StreamPosition,
        record: Option<&CampaignsRecord>,
        from: ReadFrom,
    ) -> Result<RecordEffect, StoreError> {
        let before = self.view_state()?;
        let mut state = before.clone();
        let (write, effect) = match &before.contents {
            Contents::Loading(snapshot) => state.load(snapshot, record),
            Contents::Log | Contents::Outdated(_) => {
                let stream_start = match self.position()? {
                    None => StreamStart::Here,
                    Some(_) => StreamStart::Earlier,
                };
                state.follow(position, record, from, stream_start)
            }
        };
        let position = if let Write::Loaded(first) = write { first } else { position };
        let trees = (&self.campaigns, &self.webhooks, &self.positions);
        let result = trees.transaction(|(campaigns, webhooks, positions)| {
            positions.insert(POSITION, json(position)?)?;
            if state != before {
                positions.insert(STATE, json(&state)?)?;
            }
            let view = Trees { campaigns, webhooks };
            match write {
                Write::Nothing | Write::Loaded(_) => Ok(None),
                Write::Change(change, lost_before) => view.change(change, lost_before, position.offset).map(Some),
                Write::Merge(stored) => view.merge(stored, position.offset).map(Some),
                Write::Load(stored) => view.insert(stored).map(|()| None),
            }
        });
        let outcome = result.map_err(store_error)?;
        if !matches!(write, Write::Nothing) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(match (write, outcome) {
            (Write::Change(..), Some(outcome)) => RecordEffect::Changed(outcome),
            (Write::Merge(stored), Some(outcome)) => RecordEffect::Restored { id: stored.campaign.id.clone(), outcome },
            _ => effect,
        })
    }

    /// Marks the view as incomplete for a reason that is not in the stream, or as complete.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_incomplete(&self, incomplete: Option<Incomplete>) -> Result<(), StoreError> {
        self.set_state(&CampaignsViewState { incomplete, ..self.view_state()? })
    }

    /// Sets the last record that is not a marker.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_last_record(&self, position: &StreamPosition) -> Result<(), StoreError> {
        self.set_state(&CampaignsViewState { last_record: Some(position.clone()), ..self.view_state()? })
    }

    fn set_state(&self, state: &CampaignsViewState) -> Result<(), StoreError> {
        self.positions.insert(STATE, serde_json::to_vec(state)?)?;
        Ok(())
    }

    /// Moves back to an earlier position. The view must have applied only markers after it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rewind(&self, position: &StreamPosition) -> Result<(), StoreError> {
        self.positions.insert(POSITION, serde_json::to_vec(position)?)?;
        Ok(())
    }

    /// Marks the view as outdated by the decision at `decision`. The next reader of the stream clears the view and
    /// starts at `snapshot`, or else at the stream's first record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn mark_outdated(&self, decision: StreamPosition, snapshot: Option<Snapshot>) -> Result<(), StoreError> {
        let contents = Contents::Outdated(snapshot);
        self.set_state(&CampaignsViewState { decision: Some(decision), contents, ..self.view_state()? })
    }

    /// Clears an outdated view, so that the stream can be read again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear_outdated(
        &self,
        decision: Option<StreamPosition>,
        snapshot: Option<Snapshot>,
    ) -> Result<(), StoreError> {
        let state = CampaignsViewState::read_again(decision, snapshot.clone());
        // If the process ends here, the view is outdated or has no position. Both are cleared at the next connection.
        self.campaigns.clear()?;
        self.webhooks.clear()?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        let result = self.positions.transaction(|positions| {
            match &snapshot {
                Some(snapshot) => positions.insert(POSITION, json(&snapshot.at)?)?,
                None => positions.remove(POSITION)?,
            };
            positions.insert(STATE, json(&state)?)?;
            Ok(())
        });
        result.map_err(store_error)
    }

    pub fn has_campaigns(&self) -> bool {
        !self.campaigns.is_empty()
    }

    pub fn count_campaigns(&self) -> u64 {
        self.campaigns.len() as u64
    }

    /// Changes whenever a campaign of the view may have changed.
    pub fn campaigns_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The first campaign after the id `after`. Secrets stay encrypted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stored_campaign_after(&self, after: Option<&str>) -> Result<Option<StoredCampaign>, StoreError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
        let next = self.campaigns.range::<&[u8], _>((from, Bound::Unbounded)).next().transpose()?;
        Ok(next.map(|(_, stored)| serde_json::from_slice(&stored)).transpose()?)
    }
}

type Abort = ConflictableTransactionError<serde_json::Error>;

fn store_error(error: TransactionError<serde_json::Error>) -> StoreError {
    match error {
        TransactionError::Abort(error) => error.into(),
        TransactionError::Storage(error) => StoreError::Sled(error),
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Abort> {
    serde_json::to_vec(value).map_err(ConflictableTransactionError::Abort)
}

/// The trees of the view in a transaction.
struct Trees<'a> {
    campaigns: &'a TransactionalTree,
    webhooks: &'a TransactionalTree,
}

impl Trees<'_> {
    fn campaign(&self, id: &str) -> Result<Option<StoredCampaign>, Abort> {
        let stored = self.campaigns.get(id.as_bytes())?;
        stored.as_deref().map(serde_json::from_slice).transpose().map_err(ConflictableTransactionError::Abort)
    }

    /// Writes a change, unless it is stale or takes another campaign's webhook.
    fn change(&self, change: &Change, lost_before: Option<u64>, offset: u64) -> Result<ChangeOutcome, Abort> {
        let current = self.campaign(&change.id)?;
        let current_version = current.as_ref().map(|current| current.version);
        // If the stream has lost the expected version, another worker that still had it has applied the change.
        let is_lost =
            current_version.is_none() && change.expected_version.is_some_and(|expected| Some(expected) < lost_before);
        if current_version != change.expected_version && !is_lost {
            return Ok(ChangeOutcome::Stale);
        }
        if let Some(campaign) = &change.campaign
            && let Some(outcome) = self.find_taken_webhook(campaign)?
        {
            return Ok(outcome);
        }
        for place in current.iter().flat_map(|current| current.campaign.places()) {
            self.webhooks.remove(place.webhook.id.as_str().as_bytes())?;
        }
        match &change.campaign {
            Some(campaign) => {
                let past_changes = current.map(StoredCampaign::into_past_changes).unwrap_or_default();
                let author = change.author.clone();
                self.insert(&StoredCampaign { version: offset, author, past_changes, campaign: campaign.clone() })?;
            }
            None => {
                self.campaigns.remove(change.id.as_bytes())?;
            }
        }
        Ok(ChangeOutcome::Done { version: offset })
    }

    /// Adds a campaign from another stream, unless its id exists or it takes another campaign's webhook.
    fn merge(&self, stored: &StoredCampaign, offset: u64) -> Result<ChangeOutcome, Abort> {
        if self.campaigns.get(stored.campaign.id.as_bytes())?.is_some() {
            return Ok(ChangeOutcome::Stale);
        }
        if let Some(outcome) = self.find_taken_webhook(&stored.campaign)? {
            return Ok(outcome);
        }
        self.insert(&StoredCampaign { version: offset, ..stored.clone() })?;
        Ok(ChangeOutcome::Done { version: offset })
    }

    fn insert(&self, stored: &StoredCampaign) -> Result<(), Abort> {
        let id = stored.campaign.id.as_bytes();
        for place in stored.campaign.places() {
            self.webhooks.insert(place.webhook.id.as_str().as_bytes(), id)?;
        }
        self.campaigns.insert(id, json(stored)?)?;
        Ok(())
    }

    /// [`ChangeOutcome::WebhookTaken`] for the first webhook id that belongs to another campaign.
    fn find_taken_webhook(&self, campaign: &Campaign) -> Result<Option<ChangeOutcome>, Abort> {
        for place in campaign.places() {
            let webhook_id = place.webhook.id.as_str();
            if let Some(owner) = self.webhooks.get(webhook_id.as_bytes())?
                && *owner != *campaign.id.as_bytes()
            {
                let owner = String::from_utf8_lossy(&owner).into_owned();
                return Ok(Some(ChangeOutcome::WebhookTaken { webhook_id: webhook_id.to_owned(), owner }));
            }
        }
        Ok(None)
    }
}
