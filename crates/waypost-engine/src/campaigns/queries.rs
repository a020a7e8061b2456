//! Reads campaigns from the view.

use std::sync::Arc;

use waypost_store::StoredCampaign;

use super::Campaigns;
use super::error::CampaignError;
use super::hold::StreamStatus;
use crate::view_sync::SyncState;

impl Campaigns {
    /// # Errors
    /// [`CampaignError::NotFound`], or [`CampaignError::Unavailable`] if the view may still get the campaign.
    pub fn get(&self, id: &str) -> Result<Arc<StoredCampaign>, CampaignError> {
        self.find(id)?.ok_or_else(|| self.not_found())
    }

    /// The campaign, if the view has it. For what works without the campaign too.
    pub fn find(&self, id: &str) -> Result<Option<Arc<StoredCampaign>>, CampaignError> {
        Ok(self.store.campaign(id)?)
    }

    /// Whether the view has the campaign, which is not parsed.
    pub fn exists(&self, id: &str) -> bool {
        self.store.has_campaign(id)
    }

    /// The first `limit` ids of the view, in order.
    pub fn ids(&self, limit: usize) -> Vec<String> {
        self.store.campaign_ids(limit)
    }

    /// Maps the first `limit` campaigns after the id `after`, ordered by id. Only one campaign is in memory at a time.
    ///
    /// # Errors
    /// [`CampaignError::Unavailable`] if campaigns may be missing.
    pub fn list<T>(
        &self,
        after: Option<&str>,
        limit: usize,
        map: impl Fn(StoredCampaign) -> T,
    ) -> Result<Vec<T>, CampaignError> {
        self.check_complete()?;
        Ok(tokio::task::block_in_place(|| self.store.campaigns(after, limit, map))?)
    }

    /// Like [`list`](Self::list), for the campaigns of the view whose id or name contains `text`, ignoring case. The
    /// view may still miss campaigns.
    pub fn search<T>(
        &self,
        text: &str,
        after: Option<&str>,
        limit: usize,
        map: impl Fn(StoredCampaign) -> T,
    ) -> Result<Vec<T>, CampaignError> {
        Ok(tokio::task::block_in_place(|| self.store.search_campaigns(text, after, limit, map))?)
    }

    /// Checks that the view has all configured campaigns.
    fn check_complete(&self) -> Result<(), CampaignError> {
        match &*self.stream_status.borrow() {
            StreamStatus::Incomplete(hold) if !hold.reason.keeps_campaigns() => {
                Err(CampaignError::Unavailable(hold.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The error for a campaign that the view does not have. A view that is not complete yet may still get it.
    pub fn not_found(&self) -> CampaignError {
        if let StreamStatus::Incomplete(hold) = &*self.stream_status.borrow() {
            return CampaignError::Unavailable(hold.to_string());
        }
        match *self.sync_state.borrow() {
            SyncState::Current => CampaignError::NotFound,
            SyncState::CatchingUp => {
                CampaignError::Unavailable("reading the configuration from the broker: try again".to_owned())
            }
        }
    }
}
