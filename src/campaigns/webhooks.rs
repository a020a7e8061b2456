//! One webhook of a campaign: a change of it is a change of the campaign, made on the version that was read.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;

use super::{CampaignError, Campaigns, MAX_CONFLICT_RETRIES, Precondition};
use crate::delivery::campaign::{Campaign, WebhookPlace};
use crate::delivery::document::{self, UrlPolicy};
use crate::delivery::ids::WebhookId;
use crate::delivery::signing;
use crate::delivery::violation::Violation;
use crate::store::{StoreError, StoredCampaign};

impl Campaigns {
    /// The campaign that has this webhook.
    ///
    /// # Errors
    /// [`CampaignError::Unknown`] where none has it.
    pub fn of_webhook(&self, id: &WebhookId) -> Result<Arc<StoredCampaign>, CampaignError> {
        let owner = self.store.owner_of(id.as_str())?.ok_or_else(|| self.missing())?;
        let stored = self.get(&owner)?;
        // It may have lost the webhook since it was named.
        if stored.campaign.place_of(id).is_some() { Ok(stored) } else { Err(self.missing()) }
    }

    /// Replaces a webhook; gives back its campaign as it is from now on.
    ///
    /// # Errors
    /// [`CampaignError`]; the faults of the document have paths from its own root.
    pub async fn put_webhook(
        &self,
        id: &WebhookId,
        document: &[u8],
        precondition: Precondition,
        by: &str,
    ) -> Result<StoredCampaign, CampaignError> {
        self.edit(id, precondition, by, |campaign, place| {
            let webhook = document::read_webhook(document, UrlPolicy::Egress(&self.rules), &campaign.id, place)?;
            Ok(campaign.with_webhook(webhook))
        })
        .await
    }

    /// Gives a webhook a new secret; the one it had signs for `overlap` longer.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn rotate_secret(
        &self,
        id: &WebhookId,
        overlap: Duration,
        precondition: Precondition,
        by: &str,
    ) -> Result<StoredCampaign, CampaignError> {
        let secret = signing::secret_of(super::random()?);
        self.edit(id, precondition, by, |campaign, place| {
            Ok(campaign.with_webhook(signing::rotated(place.webhook, secret.clone(), overlap, Utc::now())))
        })
        .await
    }

    /// Deletes a webhook, and with it the redirect that it is.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn delete_webhook(
        &self,
        id: &WebhookId,
        precondition: Precondition,
        by: &str,
    ) -> Result<(), CampaignError> {
        self.edit(id, precondition, by, |campaign, _| Ok(campaign.without_webhook(id))).await.map(drop)
    }

    /// Makes a change on the campaign as it is, again where it was changed meanwhile and that was not excluded.
    async fn edit(
        &self,
        id: &WebhookId,
        precondition: Precondition,
        by: &str,
        change: impl Fn(&Campaign, &WebhookPlace<'_>) -> Result<Campaign, Vec<Violation>>,
    ) -> Result<StoredCampaign, CampaignError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let stored = self.of_webhook(id)?;
            super::check(&precondition, Some(&stored))?;
            let campaign = &stored.campaign;
            let place = campaign.place_of(id).ok_or_else(|| self.missing())?;
            let changed = change(campaign, &place).map_err(CampaignError::Faults)?;
            let document = serde_json::to_vec(&changed).map_err(StoreError::from)?;
            match self.put(&campaign.id, &document, Precondition::Versions(vec![stored.version]), by).await {
                Ok(put) => return Ok(put.stored),
                Err(CampaignError::Precondition) if !matches!(precondition, Precondition::Versions(_)) => {}
                Err(CampaignError::Faults(faults)) => {
                    return Err(CampaignError::Faults(faults.into_iter().map(elsewhere).collect()));
                }
                Err(refused) => return Err(refused),
            }
        }
        Err(CampaignError::Precondition)
    }
}

/// The webhook itself has no faults any more: what is found now is the campaign's, under settings that were changed since
/// it was written, or because it grows too large.
fn elsewhere(fault: Violation) -> Violation {
    Violation::new("$", format!("its campaign would be refused: {fault}"))
}
