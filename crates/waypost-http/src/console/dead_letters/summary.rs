//! Counts of the listed letters by state, reason, status and so on. Each count links to the list that has only these
//! letters.

use std::collections::HashMap;

use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::endpoint::Origin;
use waypost_core::ids::WebhookId;
use waypost_store::dead_letters::search::LetterCounts;

use super::attempt_outcome::reason_phrase;
use crate::console::format::{Count, bar_percent};
use crate::console::links;
use crate::counts::{by_count, by_count_with};

/// More rows would push the list below out of sight.
const MAX_GROUP_ROWS: usize = 5;

/// The tab of a state.
pub(super) struct Tab {
    pub(super) name: &'static str,
    pub(super) count: Count,
    pub(super) href: String,
    pub(super) is_current: bool,
}

/// Counts by one property of the letters.
pub(super) struct CountGroup {
    pub(super) title: &'static str,
    pub(super) rows: Vec<GroupRow>,
    /// Number of rows that are not shown.
    pub(super) more: usize,
}

/// A value of the property, with the number of letters that have it.
pub(super) struct GroupRow {
    pub(super) name: String,
    /// Explains the name. May be empty.
    pub(super) description: String,
    pub(super) count: Count,
    pub(super) percent: u64,
    /// The list of these letters. `None` if no filter can select them.
    pub(super) href: Option<String>,
}

/// One tab for each state and one for all. `states` counts the letters that match the other conditions.
pub(super) fn tabs(filter: &LetterFilter, states: &HashMap<LetterState, u64>) -> Vec<Tab> {
    let tab = |name, state, count| Tab {
        name,
        count: Count(count),
        href: links::letter_list(&LetterFilter { state, ..filter.clone() }),
        is_current: filter.state == state,
    };
    let state_tab =
        |state: LetterState| tab(state.as_str(), Some(state), states.get(&state).copied().unwrap_or_default());
    LetterState::ALL.into_iter().map(state_tab).chain([tab("all", None, states.values().sum())]).collect()
}

/// The groups that are not empty. `place` names the place of a webhook in its campaign.
pub(super) fn groups(
    filter: &LetterFilter,
    counts: LetterCounts,
    place: impl Fn(&str, &str) -> Option<String>,
) -> Vec<CountGroup> {
    let total = counts.total;
    let row = |name: String, description: &str, count, narrowed: Option<LetterFilter>| GroupRow {
        name,
        description: description.to_owned(),
        count: Count(count),
        percent: bar_percent(count, total),
        href: narrowed.map(|narrowed| links::letter_list(&narrowed)),
    };
    let same = || filter.clone();
    let reasons = by_count_with(counts.reasons, |reason| reason.as_str());
    let reasons = CountGroup::new("Reason", reasons, |reason, count| {
        let narrowed = LetterFilter { reason: Some(reason), ..same() };
        row(reason.as_str().to_owned(), reason.description(), count, Some(narrowed))
    });
    let statuses = CountGroup::new("Last status", by_count(counts.statuses), |status, count| match status {
        Some(status) => {
            let narrowed = LetterFilter { status: Some(status), ..same() };
            row(status.to_string(), reason_phrase(status), count, Some(narrowed))
        }
        None => row("no response".to_owned(), "", count, None),
    });
    let endpoints = CountGroup::new("Endpoint", by_count(counts.endpoints), |name, count| {
        let narrowed = Origin::parse(&name).ok().map(|endpoint| LetterFilter { endpoint: Some(endpoint), ..same() });
        row(name, "", count, narrowed)
    });
    let campaigns = CountGroup::new("Campaign", by_count(counts.campaigns), |campaign, count| {
        let narrowed = LetterFilter { campaign_id: Some(campaign.clone()), ..same() };
        row(campaign, "", count, Some(narrowed))
    });
    let webhooks = counts.webhooks.into_iter().flat_map(|(webhook, campaigns)| {
        campaigns.into_iter().map(move |(campaign, count)| ((webhook.clone(), campaign), count))
    });
    let webhooks = by_count(webhooks.collect::<HashMap<_, _>>());
    let webhooks = CountGroup::new("Webhook", webhooks, |(webhook, campaign), count| {
        // Users know the place of a webhook, not its id.
        let name = place(&campaign, &webhook).unwrap_or_else(|| webhook.clone());
        let webhook_id = Some(WebhookId::new(webhook));
        let narrowed = LetterFilter { webhook_id, campaign_id: Some(campaign.clone()), ..same() };
        row(name, &campaign, count, Some(narrowed))
    });
    let groups = [reasons, statuses, endpoints, campaigns, webhooks];
    groups.into_iter().filter(|group| !group.rows.is_empty()).collect()
}

impl CountGroup {
    fn new<K>(title: &'static str, counts: Vec<(K, u64)>, row: impl Fn(K, u64) -> GroupRow) -> Self {
        let more = counts.len().saturating_sub(MAX_GROUP_ROWS);
        Self {
            title,
            rows: counts.into_iter().take(MAX_GROUP_ROWS).map(|(key, count)| row(key, count)).collect(),
            more,
        }
    }
}
