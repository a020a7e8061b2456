//! Applies the campaigns log to the view. What a record changes, the record's position and the state of the view are
//! written in one transaction.

use std::sync::atomic::Ordering;

use serde::Serialize;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional as _, TransactionalTree};

use super::record::{LogRecord, Snapshot};
use super::state::{Begins, Contents, Effect, Incomplete, ReadFrom, ViewState, Write};
use super::{Change, ChangeOutcome, StoredCampaign};
use crate::broker::stream_reader::StreamPosition;
use crate::delivery::campaign::Campaign;
use crate::store::{Store, StoreError};

/// The key of the campaigns log's position.
const POSITION: &[u8] = b"campaigns";

/// The key of the [`ViewState`].
const STATE: &[u8] = b"campaigns.state";

impl Store {
    /// How far the view has come in the campaigns log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self) -> Result<Option<StreamPosition>, StoreError> {
        Ok(self.positions.get(POSITION)?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// What is known about the view.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn view_state(&self) -> Result<ViewState, StoreError> {
        let state = self.positions.get(STATE)?.as_deref().map(serde_json::from_slice).transpose()?;
        Ok(state.unwrap_or_default())
    }

    /// Applies a record of the campaigns log. `None` is a record that can't be read.
    ///
    /// # Errors
    /// [`StoreError`]. Nothing is applied then.
    pub fn apply(
        &self,
        position: &StreamPosition,
        record: Option<&LogRecord>,
        from: ReadFrom,
    ) -> Result<Effect, StoreError> {
        let before = self.view_state()?;
        let mut state = before.clone();
        let (write, effect) = match &before.contents {
            Contents::Loading(snapshot) => state.load(snapshot, record),
            Contents::Log | Contents::Outdated(_) => {
                let begins = match self.position()? {
                    None => Begins::Here,
                    Some(_) => Begins::Before,
                };
                state.follow(position, record, from, begins)
            }
        };
        let position = if let Write::Loaded(first) = write { first } else { position };
        let trees = (&self.campaigns, &self.webhooks, &self.positions);
        let applied = trees.transaction(|(campaigns, webhooks, positions)| {
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
        let applied = applied.map_err(failed)?;
        if !matches!(write, Write::Nothing) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(match (write, applied) {
            (Write::Change(..), Some(applied)) => Effect::Changed(applied),
            (Write::Merge(stored), Some(applied)) => Effect::Restored { id: stored.campaign.id.clone(), applied },
            _ => effect,
        })
    }

    /// Marks the view as incomplete, for a reason that is not in the log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_incomplete(&self, incomplete: Option<Incomplete>) -> Result<(), StoreError> {
        self.set_state(&ViewState { incomplete, ..self.view_state()? })
    }

    /// Notes a record of the log after which the view has applied markers only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_last_record(&self, position: &StreamPosition) -> Result<(), StoreError> {
        self.set_state(&ViewState { last_record: Some(position.clone()), ..self.view_state()? })
    }

    fn set_state(&self, state: &ViewState) -> Result<(), StoreError> {
        self.positions.insert(STATE, serde_json::to_vec(state)?)?;
        Ok(())
    }

    /// Goes back to an earlier position, after which the view has applied markers only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rewind(&self, position: &StreamPosition) -> Result<(), StoreError> {
        self.positions.insert(POSITION, serde_json::to_vec(position)?)?;
        Ok(())
    }

    /// Marks the view as outdated by a decision at `decision`: it is removed when the log is next read, which then begins
    /// at a snapshot if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outdate(&self, decision: StreamPosition, snapshot: Option<Snapshot>) -> Result<(), StoreError> {
        let contents = Contents::Outdated(snapshot);
        self.set_state(&ViewState { decision: Some(decision), contents, ..self.view_state()? })
    }

    /// Removes a view that is outdated, so that the log can be read again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read_again(&self, decision: Option<StreamPosition>, snapshot: Option<Snapshot>) -> Result<(), StoreError> {
        let state = ViewState::read_again(decision, snapshot.clone());
        // If the process ends here, the view is outdated or has no position: it is removed at the next connection.
        self.campaigns.clear()?;
        self.webhooks.clear()?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        let written = self.positions.transaction(|positions| {
            match &snapshot {
                Some(snapshot) => positions.insert(POSITION, json(&snapshot.at)?)?,
                None => positions.remove(POSITION)?,
            };
            positions.insert(STATE, json(&state)?)?;
            Ok(())
        });
        written.map_err(failed)
    }

    /// Whether the view has campaigns.
    pub fn has_campaigns(&self) -> bool {
        !self.campaigns.is_empty()
    }

    /// How many campaigns the view has.
    pub fn count_campaigns(&self) -> u64 {
        self.campaigns.len() as u64
    }

    /// Changes whenever a campaign of the view may have changed.
    pub fn campaigns_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The first campaign after the id `after`, as it is stored. Secrets stay encrypted.
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

fn failed(error: TransactionError<serde_json::Error>) -> StoreError {
    match error {
        TransactionError::Abort(error) => error.into(),
        TransactionError::Storage(error) => StoreError::Sled(error),
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Abort> {
    serde_json::to_vec(value).map_err(ConflictableTransactionError::Abort)
}

/// The view, in a transaction.
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
        let version = current.as_ref().map(|current| current.version);
        // The log has lost the version that the change was made on. A worker that had it has applied the change.
        let is_lost = version.is_none() && change.expected.is_some_and(|expected| Some(expected) < lost_before);
        if version != change.expected && !is_lost {
            return Ok(ChangeOutcome::Stale);
        }
        if let Some(campaign) = &change.campaign
            && let Some(taken) = self.id_taken(campaign)?
        {
            return Ok(taken);
        }
        for place in current.iter().flat_map(|current| current.campaign.places()) {
            self.webhooks.remove(place.webhook.id.as_str().as_bytes())?;
        }
        match &change.campaign {
            Some(campaign) => {
                let earlier = current.map(StoredCampaign::changes).unwrap_or_default();
                let made = change.made.clone();
                self.insert(&StoredCampaign { version: offset, made, earlier, campaign: campaign.clone() })?;
            }
            None => {
                self.campaigns.remove(change.id.as_bytes())?;
            }
        }
        Ok(ChangeOutcome::Done { version: offset })
    }

    /// Adds a campaign from another log, unless there is one of its id or it takes another campaign's webhook.
    fn merge(&self, stored: &StoredCampaign, offset: u64) -> Result<ChangeOutcome, Abort> {
        if self.campaigns.get(stored.campaign.id.as_bytes())?.is_some() {
            return Ok(ChangeOutcome::Stale);
        }
        if let Some(taken) = self.id_taken(&stored.campaign)? {
            return Ok(taken);
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

    /// A webhook of the campaign that another campaign has.
    fn id_taken(&self, campaign: &Campaign) -> Result<Option<ChangeOutcome>, Abort> {
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
