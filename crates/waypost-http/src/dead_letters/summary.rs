//! The response of `GET /v1/dead-letters/summary`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use waypost_api::dead_letters::summary::{
    CampaignCount, DeadLetterSummary, ReasonCount, StateCount, StatusCount, WebhookCount,
};
use waypost_core::ids::WebhookId;
use waypost_store::dead_letters::search::LetterCounts;

use crate::counts::{by_count, by_count_with};

/// Maximum number of campaigns, webhooks and endpoints listed.
pub(super) const MAX_LISTED: usize = 100;

pub(super) fn to_response(counts: LetterCounts) -> DeadLetterSummary {
    let status = |class: Option<u16>| class.map_or_else(|| "none".to_owned(), |class| format!("{class}xx"));
    let webhooks = counts.webhooks.into_iter().flat_map(|(webhook, campaigns)| {
        campaigns.into_iter().map(move |(campaign, count)| ((webhook.clone(), campaign), count))
    });
    let mut classes: HashMap<Option<u16>, u64> = HashMap::new();
    for (status, count) in counts.statuses {
        *classes.entry(status.map(|status| status / 100)).or_default() += count;
    }
    let (campaigns, webhooks) = (by_count(counts.campaigns), by_count(webhooks.collect::<HashMap<_, _>>()));
    DeadLetterSummary {
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
        campaigns: first_campaigns(campaigns),
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

/// The first [`MAX_LISTED`] of `counts`, which are in descending order.
pub(super) fn first_campaigns(counts: Vec<(String, u64)>) -> Vec<CampaignCount> {
    counts.into_iter().take(MAX_LISTED).map(|(campaign_id, count)| CampaignCount { campaign_id, count }).collect()
}

/// `None` if the time is out of range.
pub(super) fn time(milliseconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(milliseconds)
}
