//! The response of `GET /v1/dead-letters/summary`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use waypost_core::dead_letter;
use waypost_core::ids::WebhookId;
use waypost_core::reason::DeadLetterReason;
use waypost_core::timestamp;
use waypost_store::dead_letters::search::LetterCounts;

use crate::counts::{by_count, by_count_with};

/// Maximum number of campaigns, webhooks and endpoints listed.
pub(super) const MAX_LISTED: usize = 100;

/// Counts of dead letters. The greatest counts come first.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterSummary")]
pub(super) struct DeadLetterSummary {
    /// The number of dead letters that match.
    total: u64,
    /// The oldest `deadAt`.
    oldest: Option<String>,
    /// The newest `deadAt`.
    newest: Option<String>,
    states: Vec<StateCount>,
    reasons: Vec<ReasonCount>,
    /// By the class of the last attempt's status; `none` if there was no response.
    statuses: Vec<StatusCount>,
    /// The campaigns with the most dead letters.
    campaigns: Vec<CampaignCount>,
    /// The number of campaigns not listed.
    more_campaigns: usize,
    /// The webhooks with the most dead letters.
    webhooks: Vec<WebhookCount>,
    /// The number of webhooks not listed.
    more_webhooks: usize,
}

#[derive(Serialize, JsonSchema)]
struct StateCount {
    state: dead_letter::LetterState,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
struct ReasonCount {
    reason: DeadLetterReason,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
struct StatusCount {
    /// `5xx`, or `none`
    status: String,
    count: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignCount {
    campaign_id: String,
    count: u64,
}

impl CampaignCount {
    /// The first [`MAX_LISTED`] of `counts`, which are in descending order.
    pub(super) fn first(counts: Vec<(String, u64)>) -> Vec<Self> {
        counts.into_iter().take(MAX_LISTED).map(|(campaign_id, count)| Self { campaign_id, count }).collect()
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WebhookCount {
    webhook_id: WebhookId,
    campaign_id: String,
    count: u64,
}

impl From<LetterCounts> for DeadLetterSummary {
    fn from(counts: LetterCounts) -> Self {
        let time = |milliseconds| DateTime::<Utc>::from_timestamp_millis(milliseconds).as_ref().map(timestamp::text);
        let status = |class: Option<u16>| class.map_or_else(|| "none".to_owned(), |class| format!("{class}xx"));
        let webhooks = counts.webhooks.into_iter().flat_map(|(webhook, campaigns)| {
            campaigns.into_iter().map(move |(campaign, count)| ((webhook.clone(), campaign), count))
        });
        let mut classes: HashMap<Option<u16>, u64> = HashMap::new();
        for (status, count) in counts.statuses {
            *classes.entry(status.map(|status| status / 100)).or_default() += count;
        }
        let (campaigns, webhooks) = (by_count(counts.campaigns), by_count(webhooks.collect::<HashMap<_, _>>()));
        Self {
            total: counts.total,
            oldest: counts.span.and_then(|(oldest, _)| time(oldest)),
            newest: counts.span.and_then(|(_, newest)| time(newest)),
            states: by_count_with(counts.states, |state| state.as_str().to_owned())
                .into_iter()
                .map(|(state, count)| StateCount { state, count })
                .collect(),
            reasons: by_count_with(counts.reasons, |reason| reason.as_str().to_owned())
                .into_iter()
                .map(|(reason, count)| ReasonCount { reason, count })
                .collect(),
            statuses: by_count_with(classes, |class| status(*class))
                .into_iter()
                .map(|(class, count)| StatusCount { status: status(class), count })
                .collect(),
            more_campaigns: campaigns.len().saturating_sub(MAX_LISTED),
            campaigns: CampaignCount::first(campaigns),
            more_webhooks: webhooks.len().saturating_sub(MAX_LISTED),
            webhooks: webhooks
                .into_iter()
                .take(MAX_LISTED)
                .map(|((webhook, campaign_id), count)| WebhookCount {
                    webhook_id: WebhookId::new(webhook),
                    campaign_id,
                    count,
                })
                .collect(),
        }
    }
}
