//! Explaining: for an event, what of its campaign matches, what does not and why, and the requests that would be sent.
//!
//! It decides nothing: [`resolve::step`] does, and what is said here is made from its answer.

mod labels;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::Delivery;
use super::campaign::{Campaign, MenuEntry, Secrets, Section, SectionKind, WebhookKind, WebhookPlace};
use super::event::{Keyword, StepEvent};
use super::ids::WebhookId;
use super::request::{self, RequestPreview};
use super::resolve::{self, MatchedBy, Step};

/// What becomes of an event, and why.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The event, as it was read.
    pub event: StepEvent,
    /// Its campaign; null where there is none.
    pub campaign: Option<ExplainedCampaign>,
    /// The section with its label; null where there is none.
    pub section: Option<ExplainedSection>,
    /// How the menu entry was found; null where none was.
    pub matched_by: Option<MatchedBy>,
    /// The section's menu.
    pub entries: Vec<ExplainedEntry>,
    /// The section's webhooks and those of its menu.
    pub webhooks: Vec<ExplainedWebhook>,
    /// What becomes of the event, in a sentence.
    pub why: String,
}

/// The campaign an event was looked up in.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedCampaign {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u64,
}

/// The section an event is about.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedSection {
    /// Its label.
    pub label: String,
    /// What it is.
    pub kind: SectionKind,
    /// Always true: one that does not match is not shown.
    pub matches: bool,
}

/// A menu entry, and whether it is the one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedEntry {
    /// What the user types.
    pub keyword: Keyword,
    /// The menu text; null where it has none.
    pub option: Option<String>,
    /// Whether it is the user's choice.
    pub matches: bool,
    /// Why, or why not.
    pub why: String,
}

/// A webhook, and whether it fires.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedWebhook {
    /// Its id.
    pub webhook_id: WebhookId,
    /// Where the campaign's document has it.
    pub path: String,
    /// Whether it is the redirect or lies under another.
    pub kind: WebhookKind,
    /// The label of its section.
    pub label: String,
    /// The keyword of its menu entry; absent where it is the section's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyword: Option<Keyword>,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether the event is sent to it.
    pub fires: bool,
    /// Why, or why not.
    pub why: String,
    /// What it would be sent, where it fires or would if it were enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestPreview>,
}

/// Explains an event of `campaign`, which has this version. Requests are as if their attempts began `now`.
pub fn explain(
    event: StepEvent,
    campaign: Option<(&Campaign, u64)>,
    secrets: Secrets,
    now: DateTime<Utc>,
) -> Explanation {
    let Some((campaign, version)) = campaign else {
        let why = labels::no_campaign(&event);
        return nowhere(event, None, why);
    };
    let found = Some(ExplainedCampaign { id: campaign.id.clone(), version });
    let Some(step) = resolve::step(campaign, &event) else {
        let why = labels::no_section(campaign, &event);
        return nowhere(event, found, why);
    };
    let Section { label, kind, menu, .. } = step.section;
    let entries = menu.iter().map(|entry| explained_entry(entry, &step, &event)).collect();
    let places = campaign.places().filter(|place| std::ptr::eq(place.section, step.section));
    let shown = |place: WebhookPlace<'_>| explained_webhook(campaign, place, &step, &event, secrets, now);
    let webhooks: Vec<ExplainedWebhook> = places.map(shown).collect();
    Explanation {
        campaign: found,
        section: Some(ExplainedSection { label: label.clone(), kind: *kind, matches: true }),
        matched_by: step.choice.map(|(_, by)| by),
        entries,
        why: labels::result(&step, &event, &webhooks),
        webhooks,
        event,
    }
}

/// The explanation of an event that is about no section.
fn nowhere(event: StepEvent, campaign: Option<ExplainedCampaign>, why: String) -> Explanation {
    let (entries, webhooks) = (Vec::new(), Vec::new());
    Explanation { event, campaign, section: None, matched_by: None, entries, webhooks, why }
}

fn explained_entry(entry: &MenuEntry, step: &Step<'_>, event: &StepEvent) -> ExplainedEntry {
    ExplainedEntry {
        keyword: entry.keyword.clone(),
        option: entry.option.clone(),
        matches: is_chosen(entry, step),
        why: labels::entry(entry, step, event),
    }
}

fn is_chosen(entry: &MenuEntry, step: &Step<'_>) -> bool {
    step.choice.is_some_and(|(chosen, _)| std::ptr::eq(chosen, entry))
}

fn explained_webhook(
    campaign: &Campaign,
    place: WebhookPlace<'_>,
    step: &Step<'_>,
    event: &StepEvent,
    secrets: Secrets,
    now: DateTime<Utc>,
) -> ExplainedWebhook {
    let reached = place.entry.is_none_or(|entry| is_chosen(entry, step));
    let target = place.target();
    let webhook = place.webhook;
    ExplainedWebhook {
        webhook_id: webhook.id.clone(),
        path: campaign.path_of(webhook.id.as_str()),
        kind: target.kind,
        label: place.section.label.clone(),
        keyword: place.entry.map(|entry| entry.keyword.clone()),
        enabled: webhook.enabled,
        fires: reached && webhook.enabled,
        why: labels::webhook(place, step, event),
        request: reached.then(|| request::render(&Delivery::new(event.clone(), target, None), now).shown(secrets)),
    }
}

#[cfg(test)]
mod tests;
