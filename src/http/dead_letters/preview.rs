//! What a discard would concern: the answer to a dry run.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::summary::{CampaignCount, NAMED};
use crate::delivery::timestamp;
use crate::http::counts::by_count;
use crate::http::replays::EndpointCount;
use crate::store::dead_letters::search::LetterCounts;

/// The dead letters that a discard would concern. The greatest counts come first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiscardPreview {
    /// How many dead letters.
    total: u64,
    /// When the first was given up.
    oldest: Option<String>,
    /// When the last was given up. Send a later `wait_until` to discard none that die after this answer.
    newest: Option<String>,
    /// The campaigns with the most. Events that could not be read have none.
    campaigns: Vec<CampaignCount>,
    /// How many campaigns are not named.
    more_campaigns: usize,
    /// The endpoints with the most. Dead letters that were never sent have none.
    endpoints: Vec<EndpointCount>,
    /// How many endpoints are not named.
    more_endpoints: usize,
}

impl From<LetterCounts> for DiscardPreview {
    fn from(tally: LetterCounts) -> Self {
        let time = |milliseconds| DateTime::<Utc>::from_timestamp_millis(milliseconds).as_ref().map(timestamp::text);
        let (campaigns, endpoints) = (by_count(tally.campaigns), by_count(tally.endpoints));
        Self {
            total: tally.total,
            oldest: tally.span.and_then(|(oldest, _)| time(oldest)),
            newest: tally.span.and_then(|(_, newest)| time(newest)),
            more_campaigns: campaigns.len().saturating_sub(NAMED),
            campaigns: CampaignCount::named(campaigns),
            more_endpoints: endpoints.len().saturating_sub(NAMED),
            endpoints: endpoints
                .into_iter()
                .take(NAMED)
                .map(|(endpoint, count)| EndpointCount { endpoint, count })
                .collect(),
        }
    }
}
