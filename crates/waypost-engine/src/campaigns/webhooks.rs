//! Reads and changes a single webhook. Each change of a webhook is a change of its campaign, made on the version read.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use waypost_core::campaign::{Campaign, WebhookPlace};
use waypost_core::document::{self, UrlPolicy};
use waypost_core::ids::WebhookId;
use waypost_core::signing;
use waypost_core::violation::Violation;
use waypost_store::{StoreError, StoredCampaign};

use super::{CampaignError, Campaigns, MAX_CONFLICT_RETRIES, Precondition};

impl Campaigns {
    /// The campaign that has this webhook.
    pub fn get_by_webhook(&self, id: &WebhookId) -> Result<Arc<StoredCampaign>, CampaignError> {
        let owner = self.store.owner_of(id.as_str())?.ok_or_else(|| self.not_found())?;
        let stored = self.get(&owner)?;
        // A change may have removed the webhook since its owner was read.
        if stored.campaign.place_of(id).is_some() { Ok(stored) } else { Err(self.not_found()) }
    }

    /// Replaces a webhook and returns its campaign. Paths in errors begin at the webhook's document.
    pub async fn put_webhook(
        &self,
        id: &WebhookId,
        document: &[u8],
        precondition: Precondition,
        by: &str,
    ) -> Result<StoredCampaign, CampaignError> {
        self.edit(id, precondition, by, |campaign, place| {
            let webhook = document::read_webhook(document, UrlPolicy::Egress(&self.egress_rules), &campaign.id, place)?;
            Ok(campaign.with_webhook(webhook))
        })
        .await
    }

    /// Gives a webhook a new secret. The old secret signs too, for the time `overlap`.
    pub async fn rotate_secret(
        &self,
        id: &WebhookId,
        overlap: Duration,
        precondition: Precondition,
        by: &str,
    ) -> Result<StoredCampaign, CampaignError> {
        let secret = signing::encode_secret(super::random()?);
        self.edit(id, precondition, by, |campaign, place| {
            Ok(campaign.with_webhook(signing::rotate_secret(place.webhook, secret.clone(), overlap, Utc::now())))
        })
        .await
    }

    /// Deletes a webhook. If the webhook is a redirect, deletes the redirect too.
    pub async fn delete_webhook(
        &self,
        id: &WebhookId,
        precondition: Precondition,
        by: &str,
    ) -> Result<(), CampaignError> {
        self.edit(id, precondition, by, |campaign, _| Ok(campaign.without_webhook(id))).await.map(drop)
    }

    /// Applies `change` to the current campaign. If the campaign changed meanwhile, tries again unless `precondition`
    /// names versions.
    async fn edit(
        &self,
        id: &WebhookId,
        precondition: Precondition,
        by: &str,
        change: impl Fn(&Campaign, &WebhookPlace<'_>) -> Result<Campaign, Vec<Violation>>,
    ) -> Result<StoredCampaign, CampaignError> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let stored = self.get_by_webhook(id)?;
            super::check(&precondition, Some(&stored))?;
            let campaign = &stored.campaign;
            let place = campaign.place_of(id).ok_or_else(|| self.not_found())?;
            let changed = change(campaign, &place).map_err(CampaignError::Invalid)?;
            let document = serde_json::to_vec(&changed).map_err(StoreError::from)?;
            match self.put(&campaign.id, &document, Precondition::Versions(vec![stored.version]), by).await {
                Ok(outcome) => return Ok(outcome.stored),
                Err(CampaignError::Precondition) if !matches!(precondition, Precondition::Versions(_)) => {}
                Err(CampaignError::Invalid(violations)) => {
                    return Err(CampaignError::Invalid(violations.into_iter().map(campaign_violation).collect()));
                }
                Err(error) => return Err(error),
            }
        }
        Err(CampaignError::Precondition)
    }
}

/// A violation outside of the webhook, which is valid. The settings may have changed since the campaign was stored, or
/// the campaign grows too large.
fn campaign_violation(violation: Violation) -> Violation {
    Violation::new("$", format!("its campaign would be refused: {violation}"))
}
