//! The response of a discard's dry run.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use waypost_core::timestamp;
use waypost_store::dead_letters::search::LetterCounts;

use super::summary::{CampaignCount, MAX_LISTED};
use crate::counts::by_count;
use crate::replays::EndpointCount;

/// The dead letters that a discard would concern. The greatest counts come first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiscardPreview {
    /// The number of dead letters.
    total: u64,
    /// The oldest `deadAt`.
    oldest: Option<String>,
    /// The newest `deadAt`. Send a later `until` to discard no dead letter that is written after this response.
    newest: Option<String>,
    /// The campaigns with the most dead letters. Events that could not be read have no campaign.
    campaigns: Vec<CampaignCount>,
    /// The number of campaigns not listed.
    more_campaigns: usize,
    /// The endpoints with the most dead letters. Dead letters that were never sent have no endpoint.
    endpoints: Vec<EndpointCount>,
    /// The number of endpoints not listed.
    more_endpoints: usize,
}

impl From<LetterCounts> for DiscardPreview {
    fn from(counts: LetterCounts) -> Self {
        let time = |milliseconds| DateTime::<Utc>::from_timestamp_millis(milliseconds).as_ref().map(timestamp::text);
        let (campaigns, endpoints) = (by_count(counts.campaigns), by_count(counts.endpoints));
        Self {
            total: counts.total,
            oldest: counts.span.and_then(|(oldest, _)| time(oldest)),
            newest: counts.span.and_then(|(_, newest)| time(newest)),
            more_campaigns: campaigns.len().saturating_sub(MAX_LISTED),
            campaigns: CampaignCount::first(campaigns),
            more_endpoints: endpoints.len().saturating_sub(MAX_LISTED),
            endpoints: endpoints
                .into_iter()
                .take(MAX_LISTED)
                .map(|(endpoint, count)| EndpointCount { endpoint, count })
                .collect(),
        }
    }
}
