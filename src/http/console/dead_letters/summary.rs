//! What the letters of a list have in common: counts, each with the address of the list that has only these.

use std::collections::HashMap;

use axum::http::StatusCode;

use super::super::format::{Count, length};
use super::super::labels::list_of;
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::endpoint::Origin;
use crate::delivery::ids::WebhookId;
use crate::http::counts::{by_count, by_count_with};
use crate::store::dead_letters::search::LetterCounts;

/// So many of a group are shown: the list below is to be seen too.
const SHOWN: usize = 5;

/// Letters of one state, as a tab.
pub(super) struct Tab {
    pub(super) name: &'static str,
    pub(super) count: Count,
    pub(super) address: String,
    pub(super) is_open: bool,
}

/// Letters by one thing that they have.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) parts: Vec<Part>,
    /// How many are not shown.
    pub(super) more: usize,
}

/// Those of a group that are alike.
pub(super) struct Part {
    pub(super) name: String,
    /// What the name means.
    pub(super) words: String,
    pub(super) count: Count,
    pub(super) percent: u64,
    /// The list of these; none where no filter asks for them.
    pub(super) address: Option<String>,
}

/// The tabs of the states, with the letters that match whatever their state.
pub(super) fn tabs(filter: &LetterFilter, states: &HashMap<LetterState, u64>) -> Vec<Tab> {
    let tab = |name, state, count| Tab {
        name,
        count: Count(count),
        address: list_of(&LetterFilter { state, ..filter.clone() }),
        is_open: filter.state == state,
    };
    let one = |state: LetterState| tab(state.as_str(), Some(state), states.get(&state).copied().unwrap_or_default());
    LetterState::ALL.into_iter().map(one).chain([tab("all", None, states.values().sum())]).collect()
}

/// The groups, but empty ones. `place` tells where in its campaign a webhook is.
pub(super) fn groups(
    filter: &LetterFilter,
    tally: LetterCounts,
    place: impl Fn(&str, &str) -> Option<String>,
) -> Vec<Group> {
    let total = tally.total;
    let part = |name: String, words: &str, count, narrowed: Option<LetterFilter>| Part {
        name,
        words: words.to_owned(),
        count: Count(count),
        percent: length(count, total),
        address: narrowed.map(|narrowed| list_of(&narrowed)),
    };
    let same = || filter.clone();
    let reasons = by_count_with(tally.reasons, |reason| reason.as_str());
    let reasons = Group::new("Reason", reasons, |reason, count| {
        let narrowed = LetterFilter { reason: Some(reason), ..same() };
        part(reason.as_str().to_owned(), reason.in_words(), count, Some(narrowed))
    });
    let statuses = Group::new("Last status", by_count(tally.statuses), |status, count| match status {
        Some(status) => {
            let narrowed = LetterFilter { status: Some(status), ..same() };
            part(status.to_string(), status_words(status), count, Some(narrowed))
        }
        None => part("no answer".to_owned(), "", count, None),
    });
    let endpoints = Group::new("Endpoint", by_count(tally.endpoints), |name, count| {
        let narrowed = Origin::parse(&name).ok().map(|endpoint| LetterFilter { endpoint: Some(endpoint), ..same() });
        part(name, "", count, narrowed)
    });
    let campaigns = Group::new("Campaign", by_count(tally.campaigns), |campaign, count| {
        let narrowed = LetterFilter { campaign_id: Some(campaign.clone()), ..same() };
        part(campaign, "", count, Some(narrowed))
    });
    let webhooks = tally.webhooks.into_iter().flat_map(|(webhook, campaigns)| {
        campaigns.into_iter().map(move |(campaign, count)| ((webhook.clone(), campaign), count))
    });
    let webhooks = by_count(webhooks.collect::<HashMap<_, _>>());
    let webhooks = Group::new("Webhook", webhooks, |(webhook, campaign), count| {
        // Whoever reads it knows the place, not the id.
        let name = place(&campaign, &webhook).unwrap_or_else(|| webhook.clone());
        let webhook_id = Some(WebhookId::new(webhook));
        let narrowed = LetterFilter { webhook_id, campaign_id: Some(campaign.clone()), ..same() };
        part(name, &campaign, count, Some(narrowed))
    });
    let groups = [reasons, statuses, endpoints, campaigns, webhooks];
    groups.into_iter().filter(|group| !group.parts.is_empty()).collect()
}

impl Group {
    fn new<K>(title: &'static str, counts: Vec<(K, u64)>, part: impl Fn(K, u64) -> Part) -> Self {
        let more = counts.len().saturating_sub(SHOWN);
        Self { title, parts: counts.into_iter().take(SHOWN).map(|(key, count)| part(key, count)).collect(), more }
    }
}

/// What HTTP calls a status.
pub(super) fn status_words(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}
