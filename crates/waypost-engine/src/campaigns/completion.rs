//! Completes a campaign that is valid by itself with what depends on this worker: the ids of its webhooks, their owners,
//! and the keys of its secrets.

use waypost_core::campaign::Campaign;
use waypost_core::document::{self, UrlPolicy};
use waypost_core::ids::WebhookId;
use waypost_core::violation::Violation;

use super::Campaigns;
use super::error::CampaignError;

impl Campaigns {
    /// The rules for the URLs of webhooks, for parsing a document.
    pub fn url_policy(&self) -> UrlPolicy<'_> {
        UrlPolicy::Egress(&self.egress_rules)
    }

    /// Completes the campaign that would replace `current`, as [`update`](Self::update) does: webhooks get ids, and
    /// encrypted secrets are decrypted.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] if it has another id than `id`, a secret that can't be decrypted, or the id of another
    /// campaign's webhook.
    pub fn complete(
        &self,
        id: &str,
        mut campaign: Campaign,
        current: Option<&Campaign>,
    ) -> Result<Campaign, CampaignError> {
        document::assign_ids(&mut campaign, current, &|webhook: &WebhookId| {
            self.store.owner_of(webhook.as_str()).is_some_and(|owner| owner != id)
        });
        let campaign = self.decrypt(campaign)?;
        if campaign.id != id {
            let message = format!("is `{}`, but the address says `{id}`: make them the same", campaign.id);
            return Err(CampaignError::Invalid(vec![Violation::new("$.id", message)]));
        }
        self.check_owners(&campaign)?;
        Ok(campaign)
    }

    fn check_owners(&self, campaign: &Campaign) -> Result<(), CampaignError> {
        for place in campaign.places() {
            let webhook_id = place.webhook.id.as_str();
            if let Some(owner) = self.store.owner_of(webhook_id)
                && owner != campaign.id
            {
                return Err(CampaignError::webhook_id_taken(&campaign.path_of(webhook_id), webhook_id, &owner));
            }
        }
        Ok(())
    }

    /// Decrypts secrets of a document. A backup file of campaigns has encrypted secrets.
    fn decrypt(&self, campaign: Campaign) -> Result<Campaign, CampaignError> {
        let original = campaign.clone();
        self.keyring.decrypt(campaign).map_err(|(webhook, error)| {
            CampaignError::Invalid(vec![Violation::new(original.path_of(&webhook), error.to_string())])
        })
    }
}
