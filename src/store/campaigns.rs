//! The view of the campaigns log: every campaign as it is configured now.

mod log_view;
pub mod record;
pub mod state;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, beside};
use crate::delivery::campaign::Campaign;
use crate::delivery::campaign::diff::CampaignNode;

/// A campaign as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredCampaign {
    /// The offset of the change that made it: the same on every node, another at every change.
    pub version: u64,
    /// Who made it so; none where that was before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<ChangeAuthor>,
    /// The changes before, the latest first: as many as are remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<PastChange>,
    /// The campaign.
    pub campaign: Campaign,
}

/// Who made a change, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeAuthor {
    /// The name of the token that allowed it.
    pub by: String,
    /// When the worker that was asked accepted it.
    pub at: DateTime<Utc>,
    /// What was touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<CampaignNode>,
}

/// A change that others came after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastChange {
    /// The version that it made.
    pub version: u64,
    /// Who made it.
    pub made: ChangeAuthor,
}

/// So many changes before the last one are told of a campaign.
const CHANGES_REMEMBERED: usize = 20;

impl StoredCampaign {
    /// Its changes, as its successor remembers them.
    fn changes(self) -> Vec<PastChange> {
        let last = self.made.map(|made| PastChange { version: self.version, made });
        last.into_iter().chain(self.earlier).take(CHANGES_REMEMBERED).collect()
    }

    /// The last change of a place since a version, as far back as is remembered.
    pub fn last_change(&self, place: &CampaignNode, since: u64) -> Option<&ChangeAuthor> {
        let last = self.made.as_ref().map(|made| (self.version, made));
        let changes = last.into_iter().chain(self.earlier.iter().map(|earlier| (earlier.version, &earlier.made)));
        let mut newer = changes.take_while(|(version, _)| *version > since);
        newer.find(|(_, made)| made.places.contains(place)).map(|(_, made)| made)
    }
}

/// A change of configuration, as the log has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The campaign's id.
    pub id: String,
    /// The version the change was made on; none where there was no such campaign. On another one it has no effect.
    pub expected: Option<u64>,
    /// Who made it; none where that was before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<ChangeAuthor>,
    /// The campaign as it is from now on; none where it is deleted.
    pub campaign: Option<Campaign>,
}

/// What a change did: the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The campaign is as the change says.
    Done {
        /// Its version.
        version: u64,
    },
    /// The campaign was changed by somebody else meanwhile; the change had no effect.
    Stale,
    /// A webhook's id belongs to another campaign; the change had no effect.
    WebhookTaken {
        /// The webhook.
        webhook_id: String,
        /// Its campaign.
        owner: String,
    },
}

#[derive(Clone)]
pub(super) struct CachedCampaign {
    generation: u64,
    /// What it takes in memory, about.
    bytes: u64,
    campaign: Option<Arc<StoredCampaign>>,
}

#[derive(Clone)]
pub(super) struct CampaignWeighter;

impl quick_cache::Weighter<String, CachedCampaign> for CampaignWeighter {
    fn weight(&self, key: &String, value: &CachedCampaign) -> u64 {
        256 + key.len() as u64 + value.bytes
    }
}

impl Store {
    /// The campaign with this id. Parsed ones are kept: reading one costs sled a microsecond, and parsing it ten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn campaign(&self, id: &str) -> Result<Option<Arc<StoredCampaign>>, StoreError> {
        // Before the read: a change that comes in between makes the entry old, never new.
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(parsed) = self.parsed.get(id)
            && parsed.generation == generation
        {
            return Ok(parsed.campaign);
        }
        let stored = self.campaigns.get(id)?;
        let campaign = stored.as_deref().map(|stored| self.read(stored)).transpose()?.map(Arc::new);
        let bytes =
            campaign.as_deref().zip(stored).map_or(0, |(campaign, stored)| weight(&campaign.campaign, stored.len()));
        self.parsed.insert(id.to_owned(), CachedCampaign { generation, bytes, campaign: campaign.clone() });
        Ok(campaign)
    }

    /// Whether there is such a campaign.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_campaign(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.campaigns.contains_key(id)?)
    }

    /// The ids of the first campaigns, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn campaign_ids(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        let ids = self.campaigns.iter().keys().take(limit);
        ids.map(|id| Ok(String::from_utf8_lossy(&id?).into_owned())).collect()
    }

    /// What `map` makes of the campaigns by id, from after `after`, at most `limit`. One at a time is in memory.
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
            campaigns.push(map(self.read(&entry?.1)?));
        }
        Ok(campaigns)
    }

    /// A campaign as it is, its secrets opened.
    fn read(&self, stored: &[u8]) -> Result<StoredCampaign, StoreError> {
        let stored: StoredCampaign = serde_json::from_slice(stored)?;
        Ok(StoredCampaign { campaign: self.opened(stored.campaign)?, ..stored })
    }

    /// Whether all secrets of the view open.
    ///
    /// # Errors
    /// [`StoreError::Sealed`].
    pub fn check_keys(&self) -> Result<(), StoreError> {
        self.campaigns.iter().try_for_each(|entry| self.read(&entry?.1).map(drop))
    }

    /// The campaign with its secrets opened.
    ///
    /// # Errors
    /// [`StoreError::Sealed`].
    pub fn opened(&self, campaign: Campaign) -> Result<Campaign, StoreError> {
        let id = campaign.id.clone();
        self.keyring.opened(campaign).map_err(|(_, unopened)| StoreError::Sealed { campaign: id, unopened })
    }

    /// Writes all campaigns to a file beside the view, a document a line, secrets sealed as they are; `None` where there are none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn backup_campaigns(&self) -> Result<Option<PathBuf>, StoreError> {
        if self.campaigns.is_empty() {
            return Ok(None);
        }
        let path = beside(&self.path, "campaigns");
        let unusable = |error: std::io::Error| StoreError::Unusable { path: path.clone(), error: error.to_string() };
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(unusable)?);
        for entry in &self.campaigns {
            let stored: StoredCampaign = serde_json::from_slice(&entry?.1)?;
            serde_json::to_writer(&mut file, &stored.campaign)?;
            file.write_all(b"\n").map_err(unusable)?;
        }
        file.into_inner().map_err(|error| unusable(error.into_error()))?.sync_all().map_err(unusable)?;
        Ok(Some(path))
    }

    /// The campaign a webhook belongs to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owner_of(&self, webhook_id: &str) -> Result<Option<String>, StoreError> {
        Ok(self.webhooks.get(webhook_id)?.map(|owner| String::from_utf8_lossy(&owner).into_owned()))
    }
}

/// What a campaign takes in memory, about: a few times the bytes of its document, but for extra parameters, which stay text.
fn weight(campaign: &Campaign, document: usize) -> u64 {
    let parameters: usize = campaign.places().map(|place| place.webhook.body.len()).sum();
    (4 * document.saturating_sub(parameters) + parameters) as u64
}
