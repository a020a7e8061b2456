//! Explains an event with the campaign that this worker has.

use chrono::{DateTime, Utc};
use waypost_core::campaign::SecretVisibility;
use waypost_core::event::StepEvent;
use waypost_core::explain::{self, Explanation};

use crate::campaigns::Campaigns;
use crate::campaigns::error::CampaignError;

/// Explains an event. The requests are rendered as if sent at `now`.
///
/// # Errors
/// [`CampaignError`] if the campaign can't be read. An event without a campaign is explained, too.
pub fn explain(
    campaigns: &Campaigns,
    event: StepEvent,
    secrets: SecretVisibility,
    now: DateTime<Utc>,
) -> Result<Explanation, CampaignError> {
    let stored = match campaigns.get(&event.campaign_id) {
        Ok(stored) => Some(stored),
        Err(CampaignError::NotFound) => None,
        Err(error) => return Err(error),
    };
    let campaign = stored.as_ref().map(|stored| (&stored.campaign, stored.version));
    Ok(explain::explain(event, campaign, secrets, now))
}
