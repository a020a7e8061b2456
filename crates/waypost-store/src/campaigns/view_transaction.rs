//! Changes of the view by many records, which are written together.
//!
//! A record sees the changes of the records before it. Of several changes of one campaign only the last is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use sled::Batch;
use sled::transaction::{ConflictableTransactionError, Transactional as _};
use waypost_core::campaign::Campaign;
use waypost_core::stream_position::StreamPosition;

use super::change::{Change, ChangeOutcome};
use super::index::{IndexRow, WebhookKey};
use super::row::{self, RowHead};
use super::state::CampaignsViewState;
use super::stored_campaign::{PastChange, StoredCampaign, past_changes};
use super::stream_view::{POSITION, STATE, store_error};
use crate::{Store, StoreError};

pub(super) struct ViewTransaction<'a> {
    store: &'a Store,
    /// The campaigns that were changed. `None` is a deleted one.
    campaigns: BTreeMap<String, Option<StoredCampaign>>,
    /// The owners of the webhooks that were changed.
    owners: HashMap<WebhookKey, Option<Arc<str>>>,
    /// Rows of the index that were read, by campaign id. They are as they were before this transaction.
    index_rows: HashMap<String, IndexRow>,
}

/// What a change must know of the campaign that it replaces.
struct CurrentCampaign {
    version: u64,
    past_changes: Vec<PastChange>,
    webhooks: Vec<WebhookKey>,
}

/// The rows of a campaign before and after.
struct IndexChange {
    id: String,
    old: Option<IndexRow>,
    new: Option<IndexRow>,
}

impl<'a> ViewTransaction<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, campaigns: BTreeMap::new(), owners: HashMap::new(), index_rows: HashMap::new() }
    }

    /// Applies a change, unless it is stale or takes another campaign's webhook.
    pub(super) fn change(
        &mut self,
        change: &Change,
        lost_before: Option<u64>,
        offset: u64,
    ) -> Result<ChangeOutcome, StoreError> {
        let current = self.current(&change.id)?;
        let current_version = current.as_ref().map(|current| current.version);
        // If the stream has lost the expected version, another worker that still had it has applied the change.
        let is_lost =
            current_version.is_none() && change.expected_version.is_some_and(|expected| Some(expected) < lost_before);
        if current_version != change.expected_version && !is_lost {
            return Ok(ChangeOutcome::Stale);
        }
        if let Some(campaign) = &change.campaign
            && let Some(outcome) = self.find_taken_webhook(campaign)
        {
            return Ok(outcome);
        }
        let (webhooks, past_changes) =
            current.map(|current| (current.webhooks, current.past_changes)).unwrap_or_default();
        for webhook in webhooks {
            self.owners.insert(webhook, None);
        }
        match &change.campaign {
            Some(campaign) => {
                let author = change.author.clone();
                self.insert(StoredCampaign { version: offset, author, past_changes, campaign: campaign.clone() });
            }
            None => {
                self.campaigns.insert(change.id.clone(), None);
            }
        }
        Ok(ChangeOutcome::Done { version: offset })
    }

    /// Adds a campaign from another stream, unless its id exists or it takes another campaign's webhook.
    pub(super) fn merge(&mut self, stored: &StoredCampaign, offset: u64) -> ChangeOutcome {
        let id = &stored.campaign.id;
        let exists = self.campaigns.get(id).map_or_else(|| self.store.index().contains(id), Option::is_some);
        if exists {
            return ChangeOutcome::Stale;
        }
        if let Some(outcome) = self.find_taken_webhook(&stored.campaign) {
            return outcome;
        }
        self.insert(StoredCampaign { version: offset, ..stored.clone() });
        ChangeOutcome::Done { version: offset }
    }

    pub(super) fn insert(&mut self, stored: StoredCampaign) {
        let id: Arc<str> = stored.campaign.id.as_str().into();
        for place in stored.campaign.places() {
            self.owners.insert(WebhookKey::new(place.webhook.id.as_str()), Some(id.clone()));
        }
        self.campaigns.insert(stored.campaign.id.clone(), Some(stored));
    }

    /// Writes all changes in one transaction, with the position of the last record and the state after it.
    pub(super) fn commit(
        self,
        position: &StreamPosition,
        state: Option<&CampaignsViewState>,
    ) -> Result<(), StoreError> {
        let Self { store, campaigns, mut index_rows, .. } = self;
        let (mut rows, mut new_index_rows, mut positions) = (Batch::default(), Batch::default(), Batch::default());
        let mut changes = Vec::with_capacity(campaigns.len());
        for (id, stored) in campaigns {
            let old = match index_rows.remove(&id) {
                // A new campaign has no row, and looking for it would read the disk.
                None if !store.index().contains(&id) => None,
                None => store.index_row(&id)?,
                row => row,
            };
            let new = stored.as_ref().map(|stored| IndexRow::from(&stored.campaign));
            match &stored {
                Some(stored) => rows.insert(id.as_bytes(), row::encode(stored)?),
                None => rows.remove(id.as_bytes()),
            }
            match &new {
                // Most changes change neither the name nor the ids of webhooks.
                Some(new) if old.as_ref() == Some(new) => {}
                Some(new) => new_index_rows.insert(id.as_bytes(), postcard::to_stdvec(new)?),
                None => new_index_rows.remove(id.as_bytes()),
            }
            changes.push(IndexChange { id, old, new });
        }
        positions.insert(POSITION, json(position)?);
        if let Some(state) = state {
            positions.insert(STATE, json(state)?);
        }
        let trees = (&store.campaigns, &store.campaign_index, &store.positions);
        let result = trees.transaction(|(campaigns, index, tree_of_positions)| {
            campaigns.apply_batch(&rows)?;
            index.apply_batch(&new_index_rows)?;
            tree_of_positions.apply_batch(&positions)?;
            Ok::<(), ConflictableTransactionError<serde_json::Error>>(())
        });
        result.map_err(store_error)?;
        store.publish(&changes);
        Ok(())
    }

    fn current(&mut self, id: &str) -> Result<Option<CurrentCampaign>, StoreError> {
        if let Some(changed) = self.campaigns.get(id) {
            return Ok(changed.as_ref().map(|stored| CurrentCampaign {
                version: stored.version,
                past_changes: past_changes(stored.version, stored.author.clone(), stored.past_changes.clone()),
                webhooks: stored.campaign.places().map(|place| WebhookKey::new(place.webhook.id.as_str())).collect(),
            }));
        }
        if !self.store.index().contains(id) {
            return Ok(None);
        }
        let (Some(row), Some(index_row)) = (self.store.campaigns.get(id)?, self.store.index_row(id)?) else {
            return Ok(None);
        };
        let RowHead { version, author, past_changes: earlier } = self.store.note_damage(row::decode_head(&row))?;
        let webhooks = index_row.webhooks.iter().map(|webhook| WebhookKey::new(webhook)).collect();
        self.index_rows.insert(id.to_owned(), index_row);
        Ok(Some(CurrentCampaign { version, past_changes: past_changes(version, author, earlier), webhooks }))
    }

    /// [`ChangeOutcome::WebhookTaken`] for the first webhook id that belongs to another campaign.
    fn find_taken_webhook(&self, campaign: &Campaign) -> Option<ChangeOutcome> {
        let index = self.store.index();
        campaign.places().find_map(|place| {
            let webhook_id = place.webhook.id.as_str();
            let key = WebhookKey::new(webhook_id);
            let owner = self.owners.get(&key).map_or_else(|| index.owner(key), Option::as_ref)?;
            (**owner != *campaign.id)
                .then(|| ChangeOutcome::WebhookTaken { webhook_id: webhook_id.to_owned(), owner: owner.to_string() })
        })
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(value)?)
}

impl Store {
    /// Shows changes that were written to the readers.
    fn publish(&self, changes: &[IndexChange]) {
        if changes.is_empty() {
            return;
        }
        let mut index = self.index_mut();
        // A webhook may have moved from one of the campaigns to another.
        for IndexChange { id, old, new } in changes {
            if let Some(old) = old.as_ref().filter(|old| Some(*old) != new.as_ref()) {
                index.remove(id, old);
            }
        }
        for IndexChange { id, old, new } in changes {
            if let Some(new) = new.as_ref().filter(|new| Some(*new) != old.as_ref()) {
                index.insert(id, new);
            }
        }
        drop(index);
        for IndexChange { id, .. } in changes {
            self.campaign_cache.remove(id.as_str());
        }
        self.count_change();
    }
}
