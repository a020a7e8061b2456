//! The view of the campaigns stream: the current version of every campaign.

mod cache;
mod change;
mod index;
pub mod record;
mod row;
pub mod state;
mod stored_campaign;
mod stream_view;
mod upgrade;
mod view_transaction;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use quick_cache::sync::GuardResult;
use sled::Tree;
use waypost_core::campaign::Campaign;

use super::{DAMAGE_KEY, Store, StoreError, sibling_path};
use cache::memory_bytes;
pub(super) use cache::{CachedCampaign, CampaignWeighter};
pub use change::{Change, ChangeAuthor, ChangeOutcome};
pub(super) use index::CampaignIndex;
use index::{IndexRow, WebhookKey};
pub use stored_campaign::StoredCampaign;
pub use stream_view::CampaignsEntry;
pub(super) use upgrade::{drop_old_trees, upgrade};

impl Store {
    /// The campaign with this id. Parsed campaigns are cached: reading one takes 1 µs, parsing it 15 µs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn campaign(&self, id: &str) -> Result<Option<Arc<StoredCampaign>>, StoreError> {
        // Others that want the same campaign wait until it is parsed.
        let guard = match self.campaign_cache.get_value_or_guard(id, None) {
            GuardResult::Value(cached) => return Ok(Some(cached.campaign)),
            GuardResult::Guard(guard) => guard,
            // There is no time limit.
            GuardResult::Timeout => return self.parse_campaign(id).map(|cached| cached.map(|cached| cached.campaign)),
        };
        let Some(parsed) = self.parse_campaign(id)? else { return Ok(None) };
        let campaign = parsed.campaign.clone();
        // This fails if the campaign was changed after it was read: a change removes the guard.
        let _ = guard.insert(parsed);
        Ok(Some(campaign))
    }

    fn parse_campaign(&self, id: &str) -> Result<Option<CachedCampaign>, StoreError> {
        let Some(row) = self.campaigns.get(id)? else { return Ok(None) };
        let campaign = Arc::new(self.decode(&row)?);
        let document_bytes = row::json_bytes(&row);
        Ok(Some(CachedCampaign { bytes: memory_bytes(&campaign.campaign, document_bytes), campaign }))
    }

    pub fn has_campaign(&self, id: &str) -> bool {
        self.index().contains(id)
    }

    /// The first `limit` campaign ids in ascending order.
    pub fn campaign_ids(&self, limit: usize) -> Vec<String> {
        self.index().search("", None, limit).iter().map(ToString::to_string).collect()
    }

    /// Maps the first `limit` campaigns after the id `after` whose id or name contains `text`, ignoring case. Only these
    /// campaigns are read, one after the other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn search_campaigns<T>(
        &self,
        text: &str,
        after: Option<&str>,
        limit: usize,
        map: impl Fn(StoredCampaign) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let ids = self.index().search(text, after, limit);
        // A campaign may have been deleted since.
        ids.iter()
            .filter_map(|id| self.campaigns.get(id.as_bytes()).transpose())
            .map(|row| Ok(map(self.decode(&row?)?)))
            .collect()
    }

    /// Maps the first `limit` campaigns after the id `after`, ordered by id. Only one campaign is in memory at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn campaigns<T>(
        &self,
        after: Option<&str>,
        limit: usize,
        map: impl Fn(StoredCampaign) -> T,
    ) -> Result<Vec<T>, StoreError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
        let mut campaigns = Vec::new();
        for entry in self.campaigns.range::<&[u8], _>((from, Bound::Unbounded)).take(limit) {
            campaigns.push(map(self.decode(&entry?.1)?));
        }
        Ok(campaigns)
    }

    /// Parses a stored campaign and decrypts its secrets.
    fn decode(&self, row: &[u8]) -> Result<StoredCampaign, StoreError> {
        let stored = self.note_damage(row::decode(row))?;
        Ok(StoredCampaign { campaign: self.decrypted(stored.campaign)?, ..stored })
    }

    /// Not all rows are read when the store is opened. If one that is read later is damaged, the next start replaces
    /// the store.
    fn note_damage<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        read.inspect_err(|error| {
            tracing::error!(%error, "local store is damaged, the next start replaces it");
            // This fails if sled itself has failed. Then the next start notices.
            let _ = self.db.insert(DAMAGE_KEY, error.to_string().as_bytes());
        })
    }

    /// Checks that there is a key for all encrypted secrets. Campaigns are read only if a key is missing.
    ///
    /// # Errors
    /// [`StoreError::Undecryptable`] for the first secret whose key is missing.
    pub fn check_keys(&self) -> Result<(), StoreError> {
        let is_known = |key: &str| self.keyring.ids().any(|known| known == key);
        if self.index().keys().all(is_known) {
            return Ok(());
        }
        for entry in &self.campaign_index {
            let (id, index_row) = entry?;
            let index_row: IndexRow = postcard::from_bytes(&index_row)?;
            if index_row.keys.iter().any(|key| !is_known(key))
                && let Some(row) = self.campaigns.get(id)?
            {
                self.decode(&row)?;
            }
        }
        Ok(())
    }

    /// The campaign with decrypted secrets.
    ///
    /// # Errors
    /// [`StoreError::Undecryptable`].
    pub fn decrypted(&self, campaign: Campaign) -> Result<Campaign, StoreError> {
        let id = campaign.id.clone();
        self.keyring.decrypt(campaign).map_err(|(_, error)| StoreError::Undecryptable { campaign: id, error })
    }

    /// Writes all campaigns to a file beside the view, one document a line. Secrets stay encrypted. Returns the file's
    /// path, `None` if there are no campaigns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn backup_campaigns(&self) -> Result<Option<PathBuf>, StoreError> {
        if !self.has_campaigns() {
            return Ok(None);
        }
        let path = sibling_path(&self.path, "campaigns");
        let unusable = |error: std::io::Error| StoreError::Unusable { path: path.clone(), error: error.to_string() };
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(unusable)?);
        for entry in &self.campaigns {
            let stored = row::decode(&entry?.1)?;
            serde_json::to_writer(&mut file, &stored.campaign)?;
            file.write_all(b"\n").map_err(unusable)?;
        }
        file.into_inner().map_err(|error| unusable(error.into_error()))?.sync_all().map_err(unusable)?;
        Ok(Some(path))
    }

    /// The id of the campaign that has this webhook.
    pub fn owner_of(&self, webhook_id: &str) -> Option<String> {
        self.index().owner(WebhookKey::new(webhook_id)).map(ToString::to_string)
    }

    /// Counts the changes of campaigns since the start.
    pub fn campaigns_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn count_change(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn index_row(&self, id: &str) -> Result<Option<IndexRow>, StoreError> {
        Ok(self.campaign_index.get(id)?.as_deref().map(postcard::from_bytes).transpose()?)
    }

    fn index(&self) -> RwLockReadGuard<'_, CampaignIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, CampaignIndex> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the index from its rows.
pub(super) fn load_index(rows: &Tree) -> Result<CampaignIndex, StoreError> {
    let mut index = CampaignIndex::default();
    for entry in rows {
        let (id, row) = entry?;
        let id = std::str::from_utf8(&id).map_err(|error| StoreError::Damaged(error.to_string()))?;
        index.insert(id, &postcard::from_bytes(&row)?);
    }
    Ok(index)
}
