//! Reads and changes a single webhook. Each change of a webhook is a change of its campaign, made on the version read.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use waypost_core::campaign::{Campaign, WebhookPlace};
use waypost_core::document::{self, WebhookDocument};
use waypost_core::ids::WebhookId;
use waypost_core::signing;
use waypost_core::violation::Violation;
use waypost_store::{StoreError, StoredCampaign};

use super::error::CampaignError;
use super::random::random;
use super::{Campaigns, Precondition};

impl Campaigns {
    /// The campaign that has this webhook.
    pub fn get_by_webhook(&self, id: &WebhookId) -> Result<Arc<StoredCampaign>, CampaignError> {
        let owner = self.store.owner_of(id.as_str()).ok_or_else(|| self.not_found())?;
        let stored = self.get(&owner)?;
        // A change may have removed the webhook since its owner was read.
        if stored.campaign.place_of(id).is_some() { Ok(stored) } else { Err(self.not_found()) }
    }

    /// Replaces a webhook and returns its campaign.
    pub async fn replace_webhook(
        &self,
        id: &WebhookId,
        document: &WebhookDocument,
        precondition: Precondition,
        by: &str,
    ) -> Result<StoredCampaign, CampaignError> {
        self.edit(id, precondition, by, |campaign, place| Ok(campaign.with_webhook(document.at(&campaign.id, place)?)))
            .await
    }

    /// Gives a webhook a new secret. The old secret signs too, for the time `overlap`, which has a limit.
    pub async fn rotate_secret(
        &self,
        id: &WebhookId,
        overlap: Duration,
        precondition: Precondition,
        by: &str,
    ) -> Result<StoredCampaign, CampaignError> {
        signing::check_overlap(overlap).map_err(|violation| CampaignError::Invalid(vec![violation]))?;
        let secret = signing::encode_secret(random()?);
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

    /// Applies `change` to the current campaign of the webhook. The rules for a whole campaign are checked too.
    async fn edit(
        &self,
        id: &WebhookId,
        precondition: Precondition,
        by: &str,
        change: impl Fn(&Campaign, &WebhookPlace<'_>) -> Result<Campaign, Vec<Violation>>,
    ) -> Result<StoredCampaign, CampaignError> {
        let owner = self.get_by_webhook(id)?.campaign.id.clone();
        let edit = |current: Option<&StoredCampaign>| -> Result<Campaign, EditError> {
            // A change may have removed the webhook since its owner was read.
            let campaign = current.map(|stored| &stored.campaign);
            let (campaign, place) = campaign
                .and_then(|campaign| Some((campaign, campaign.place_of(id)?)))
                .ok_or_else(|| self.not_found())?;
            let changed = change(campaign, &place).map_err(EditError::Webhook)?;
            let document = serde_json::to_value(&changed).map_err(StoreError::from).map_err(CampaignError::from)?;
            Ok(document::from_value(&document, self.url_policy()).map_err(CampaignError::Invalid)?)
        };
        Ok(self.update::<EditError>(&owner, precondition, by, edit).await?.stored)
    }
}

/// Why a webhook was not changed.
enum EditError {
    /// Paths begin at the webhook's document.
    Webhook(Vec<Violation>),
    Campaign(CampaignError),
}

impl From<CampaignError> for EditError {
    fn from(error: CampaignError) -> Self {
        Self::Campaign(error)
    }
}

impl From<EditError> for CampaignError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Webhook(violations) => Self::Invalid(violations),
            EditError::Campaign(Self::Invalid(violations)) => {
                Self::Invalid(violations.into_iter().map(campaign_violation).collect())
            }
            EditError::Campaign(error) => error,
        }
    }
}

/// A violation outside of the webhook, which is valid. The settings may have changed since the campaign was stored, or
/// the campaign grows too large.
fn campaign_violation(violation: Violation) -> Violation {
    Violation::new("$", format!("its campaign would be refused: {violation}"))
}
