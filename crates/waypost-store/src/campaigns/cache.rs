//! The entries of the cache of parsed campaigns.

use std::sync::Arc;

use waypost_core::campaign::Campaign;

use super::stored_campaign::StoredCampaign;

#[derive(Clone)]
pub(crate) struct CachedCampaign {
    /// The approximate size in memory.
    pub(super) bytes: u64,
    pub(super) campaign: Arc<StoredCampaign>,
}

#[derive(Clone)]
pub(crate) struct CampaignWeighter;

impl quick_cache::Weighter<String, CachedCampaign> for CampaignWeighter {
    fn weight(&self, key: &String, value: &CachedCampaign) -> u64 {
        256 + key.len() as u64 + value.bytes
    }
}

/// Estimates the memory of a campaign: four times its document, except for extra body parameters, which stay text.
pub(super) fn memory_bytes(campaign: &Campaign, document_bytes: usize) -> u64 {
    let body_bytes: usize = campaign.places().map(|place| place.webhook.body.len()).sum();
    (4 * document_bytes.saturating_sub(body_bytes) + body_bytes) as u64
}
