//! Explains an event: what in its campaign matches, what does not match and why, and the requests that would be sent.
//!
//! This module decides nothing. It describes the result of [`resolve::step`].

mod labels;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Delivery;
use super::campaign::{Campaign, MenuEntry, SecretVisibility, Section, SectionKind, WebhookKind, WebhookPlace};
use super::event::{Keyword, StepEvent};
use super::ids::WebhookId;
use super::request::{self, RequestPreview};
use super::resolve::{self, CampaignStep, MatchedBy};
use labels::WebhookCounts;

/// What happens to an event, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The event as decoded.
    pub event: StepEvent,
    /// The event's campaign. Null if there is none.
    pub campaign: Option<ExplainedCampaign>,
    /// The section with the event's label. Null if there is none.
    pub section: Option<ExplainedSection>,
    /// How the menu entry was found. Null if no entry matches.
    pub matched_by: Option<MatchedBy>,
    /// The section's menu.
    pub entries: Vec<ExplainedEntry>,
    /// The webhooks of the section and of its menu.
    pub webhooks: Vec<ExplainedWebhook>,
    /// What happens to the event, in one sentence.
    pub why: String,
}

/// The campaign of an explained event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedCampaign {
    /// The campaign's id.
    pub id: String,
    /// The campaign's version.
    pub version: u64,
}

/// The section of an explained event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedSection {
    /// The section's label.
    pub label: String,
    /// As in the campaign document.
    pub kind: SectionKind,
    /// Always true. Other sections are not listed.
    pub matches: bool,
}

/// A menu entry, and whether the event matches it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedEntry {
    /// What the user types.
    pub keyword: Keyword,
    /// The menu text. Null if there is none.
    pub option: Option<String>,
    /// Whether the event matches this entry.
    pub matches: bool,
    /// Why the event matches, or why not.
    pub why: String,
}

/// A webhook, and whether it fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedWebhook {
    /// The webhook's id.
    pub webhook_id: WebhookId,
    /// The JSON path in the campaign document.
    pub path: String,
    /// Whether the webhook is the redirect.
    pub kind: WebhookKind,
    /// The label of the webhook's section.
    pub label: String,
    /// The keyword of the menu entry. Absent if the webhook is the section's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyword: Option<Keyword>,
    /// Whether the webhook is enabled.
    pub enabled: bool,
    /// Whether the event is sent to the webhook.
    pub fires: bool,
    /// Why the webhook fires, or why not.
    pub why: String,
    /// The request, if the webhook fires or would fire if it were enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestPreview>,
}

/// Explains an event of `campaign`, given with its version. The requests are rendered as if sent at `now`.
pub fn explain(
    event: StepEvent,
    campaign: Option<(&Campaign, u64)>,
    secrets: SecretVisibility,
    now: DateTime<Utc>,
) -> Explanation {
    let Some((campaign, version)) = campaign else {
        let why = labels::no_campaign(&event);
        return unmatched(event, None, why);
    };
    let explained = Some(ExplainedCampaign { id: campaign.id.clone(), version });
    let Some(step) = resolve::step(campaign, &event) else {
        let why = labels::no_section(campaign, &event);
        return unmatched(event, explained, why);
    };
    let Section { label, kind, menu, .. } = step.section;
    let entries = menu.iter().map(|entry| explain_entry(entry, &step, &event)).collect();
    let places = campaign.places().filter(|place| std::ptr::eq(place.section, step.section));
    let explain = |place: WebhookPlace<'_>| explain_webhook(campaign, place, &step, &event, secrets, now);
    let webhooks: Vec<ExplainedWebhook> = places.map(explain).collect();
    Explanation {
        campaign: explained,
        section: Some(ExplainedSection { label: label.clone(), kind: *kind, matches: true }),
        matched_by: step.choice.map(|(_, matched_by)| matched_by),
        entries,
        why: labels::result(&step, &event, count_webhooks(&webhooks)),
        webhooks,
        event,
    }
}

fn count_webhooks(webhooks: &[ExplainedWebhook]) -> WebhookCounts {
    let count = |test: fn(&ExplainedWebhook) -> bool| webhooks.iter().filter(|webhook| test(webhook)).count();
    WebhookCounts {
        firing: count(|webhook| webhook.fires),
        disabled: count(|webhook| !webhook.enabled && webhook.request.is_some()),
    }
}

/// The explanation of an event without a campaign or section.
fn unmatched(event: StepEvent, campaign: Option<ExplainedCampaign>, why: String) -> Explanation {
    let (entries, webhooks) = (Vec::new(), Vec::new());
    Explanation { event, campaign, section: None, matched_by: None, entries, webhooks, why }
}

fn explain_entry(entry: &MenuEntry, step: &CampaignStep<'_>, event: &StepEvent) -> ExplainedEntry {
    ExplainedEntry {
        keyword: entry.keyword.clone(),
        option: entry.option.clone(),
        matches: step.has_chosen(entry),
        why: labels::entry(entry, step, event),
    }
}

fn explain_webhook(
    campaign: &Campaign,
    place: WebhookPlace<'_>,
    step: &CampaignStep<'_>,
    event: &StepEvent,
    secrets: SecretVisibility,
    now: DateTime<Utc>,
) -> ExplainedWebhook {
    let is_reached = place.entry.is_none_or(|entry| step.has_chosen(entry));
    let target = place.target();
    let webhook = place.webhook;
    ExplainedWebhook {
        webhook_id: webhook.id.clone(),
        path: campaign.path_of(webhook.id.as_str()),
        kind: target.kind,
        label: place.section.label.clone(),
        keyword: place.entry.map(|entry| entry.keyword.clone()),
        enabled: webhook.enabled,
        fires: is_reached && webhook.enabled,
        why: labels::webhook(place, step, event),
        request: is_reached.then(|| request::render(&Delivery::new(event.clone(), target, None), now).preview(secrets)),
    }
}

#[cfg(test)]
mod tests;
