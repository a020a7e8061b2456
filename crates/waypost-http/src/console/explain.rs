//! Explains a pasted event: which parts of its campaign match, which webhooks fire, and why, with links to the editor.
//!
//! An event contains personal data. It is posted in a form, because browsers and proxies keep URLs. The URL for sharing
//! contains only the fields that decide the result: the phone number is replaced by a fictitious one, and the response
//! is left out. The page accepts any event in its URL.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use chrono::Utc;
use serde_json::{Map, json};
use waypost_core::access::Role;
use waypost_core::campaign::{SectionKind, WebhookKind};
use waypost_core::event::{self, Keyword, StepEvent};
use waypost_core::explain::{ExplainedEntry, ExplainedWebhook, Explanation};
use waypost_core::request::RequestPreview;
use waypost_core::resolve::MatchedBy;
use waypost_core::test_event;
use waypost_core::violation::Violation;
use waypost_engine::explain::explain;
use waypost_engine::webhook_test::test_delivery;

use super::edit_target::EditTarget;
use super::form::{Form, FormQuery, with_query};
use super::layout::{Layout, PageError, RequestContext, page};
use super::links;
use crate::api_state::ApiState;
use crate::route::Route;

/// A longer URL is not offered, because some programs truncate it.
const MAX_SHARED_URL_BYTES: usize = 2_000;

/// How many campaigns are searched for a sample event.
const MAX_SAMPLE_CAMPAIGNS: usize = 20;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/explain", Role::Viewer, show_form),
        Route::post("/explain", Role::Viewer, explain_form).not_audited(),
    ]
}

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    layout: Layout,
    /// The text of the input field.
    event: String,
    violations: Vec<Violation>,
    explanation: Option<ExplanationView>,
    /// Whether the explanation gets the focus, because the user has just submitted the form.
    has_focus: bool,
}

struct ExplanationView {
    why: String,
    /// Name of the icon.
    icon: &'static str,
    campaign: Option<CampaignMatch>,
    section: Option<SectionMatch>,
    matched_by: Option<&'static str>,
    entries: Vec<EntryMatch>,
    webhooks: Vec<WebhookRow>,
    /// URL of this explanation without personal data. `None` if it is too long.
    share_href: Option<String>,
}

struct CampaignMatch {
    id: String,
    version: u64,
    href: String,
}

struct SectionMatch {
    label: String,
    kind: &'static str,
    edit_href: String,
}

struct EntryMatch {
    keyword: String,
    option: Option<String>,
    matches: bool,
    why: String,
    edit_href: String,
}

struct WebhookRow {
    id: String,
    place_name: String,
    kind: &'static str,
    icon: &'static str,
    result: &'static str,
    why: String,
    edit_href: String,
    request: Option<RequestPreview>,
}

/// `GET /explain`: explains the event in the query, or shows the form with a sample event.
async fn show_form(
    State(state): State<ApiState>,
    context: RequestContext,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    match query.get_non_blank("event") {
        Some(event) => {
            Ok(page(&ExplainPage { has_focus: false, ..explain_event(&state, &context, event.to_owned())? }))
        }
        None => {
            let (layout, event) = (Layout::new(&context, "Explain"), sample_event(&state)?);
            Ok(page(&ExplainPage { layout, event, violations: Vec::new(), explanation: None, has_focus: false }))
        }
    }
}

/// `POST /explain`: explains the event of the form.
async fn explain_form(
    State(state): State<ApiState>,
    context: RequestContext,
    form: Form,
) -> Result<Response, PageError> {
    // Forms are submitted with CRLF line ends.
    Ok(page(&explain_event(&state, &context, form.get("event").replace("\r\n", "\n"))?))
}

fn explain_event(state: &ApiState, context: &RequestContext, event: String) -> Result<ExplainPage, PageError> {
    let (violations, explanation) = match event::decode(event.as_bytes(), None) {
        Ok(event) => {
            let explanation = explain(&state.campaigns, event, context.secrets(), Utc::now())?;
            (Vec::new(), Some(ExplanationView::new(explanation)))
        }
        Err(violations) => (violations, None),
    };
    Ok(ExplainPage { layout: Layout::new(context, "Explain"), event, violations, explanation, has_focus: true })
}

/// An event that fires a webhook of a stored campaign. If there is none, an example event.
fn sample_event(state: &ApiState) -> Result<String, PageError> {
    let campaigns = state.campaigns.search("", None, MAX_SAMPLE_CAMPAIGNS, |stored| {
        let campaign = &stored.campaign;
        let place = campaign.places().find(|place| place.entry.is_some()).or_else(|| campaign.places().next())?;
        test_delivery(&campaign.id, &place, Map::new()).ok().map(|delivery| delivery.event)
    })?;
    let json_text = match campaigns.into_iter().flatten().next() {
        Some(event) => serde_json::to_string_pretty(&event),
        None => serde_json::to_string_pretty(&json!({
            "campaignId": "13010", "label": "Welcome Message", "phoneNumber": test_event::PHONE_NUMBER,
            "date": "2024-06-18T23:26:14.206Z", "response": "4", "keyword": 4,
        })),
    };
    Ok(json_text.unwrap_or_default())
}

impl ExplanationView {
    fn new(explanation: Explanation) -> Self {
        let fires = explanation.webhooks.iter().any(|webhook| webhook.fires);
        let campaign = explanation.event.campaign_id.clone();
        let label = explanation.section.as_ref().map_or("", |section| &section.label).to_owned();
        let entry = |entry| EntryMatch::new(&campaign, &label, entry);
        let webhook = |webhook| WebhookRow::new(&campaign, webhook);
        Self {
            icon: if fires { "good" } else { "none" },
            matched_by: explanation.matched_by.map(|by| match by {
                MatchedBy::Keyword => "its keyword",
                MatchedBy::Option => "its menu text",
            }),
            campaign: explanation.campaign.map(|campaign| CampaignMatch {
                href: links::campaign(&campaign.id),
                id: campaign.id,
                version: campaign.version,
            }),
            entries: explanation.entries.into_iter().map(entry).collect(),
            webhooks: explanation.webhooks.into_iter().map(webhook).collect(),
            section: explanation.section.map(|section| SectionMatch {
                edit_href: EditTarget::Section { label: section.label.clone() }.editor_href(&campaign),
                kind: match section.kind {
                    SectionKind::WelcomeMessage => "Welcome Message",
                    SectionKind::Interaction => "Interaction",
                },
                label: section.label,
            }),
            share_href: share_href(&explanation.event),
            why: explanation.why,
        }
    }

    /// Whether some webhooks do not fire.
    fn has_silent_webhooks(&self) -> bool {
        self.webhooks.iter().any(|webhook| webhook.request.is_none())
    }
}

fn edit_target(label: &str, keyword: Option<&Keyword>) -> EditTarget {
    match keyword {
        None => EditTarget::Section { label: label.to_owned() },
        Some(keyword) => EditTarget::Entry { label: label.to_owned(), keyword: keyword.to_string() },
    }
}

impl EntryMatch {
    fn new(campaign: &str, label: &str, entry: ExplainedEntry) -> Self {
        Self {
            edit_href: edit_target(label, Some(&entry.keyword)).editor_href(campaign),
            keyword: entry.keyword.to_string(),
            option: entry.option,
            matches: entry.matches,
            why: entry.why,
        }
    }
}

impl WebhookRow {
    fn new(campaign: &str, webhook: ExplainedWebhook) -> Self {
        let (icon, result) = match (webhook.fires, webhook.request.is_some()) {
            (true, _) => ("good", "fires"),
            (false, true) => ("off", "would fire if it was enabled"),
            (false, false) => ("none", "does not fire"),
        };
        Self {
            edit_href: format!(
                "{}#webhook",
                edit_target(&webhook.label, webhook.keyword.as_ref()).editor_href(campaign)
            ),
            place_name: match &webhook.keyword {
                None => webhook.label,
                Some(keyword) => format!("{}, entry {keyword}", webhook.label),
            },
            kind: match webhook.kind {
                WebhookKind::Redirect => "as the redirect",
                WebhookKind::Underlying => "under the redirect",
            },
            id: webhook.webhook_id.as_str().to_owned(),
            icon,
            result,
            why: webhook.why,
            request: webhook.request,
        }
    }
}

/// The URL of an explanation without personal data. `None` if it is too long.
fn share_href(event: &StepEvent) -> Option<String> {
    let event = StepEvent { phone_number: test_event::PHONE_NUMBER.to_owned(), response: None, ..event.clone() };
    let href = with_query("/explain", &[("event", &serde_json::to_string(&event).ok()?)]);
    (href.len() <= MAX_SHARED_URL_BYTES).then_some(href)
}

#[cfg(test)]
mod tests {
    use waypost_core::event::decode;

    use super::*;

    #[test]
    fn the_shared_url_keeps_the_decision_but_no_personal_data() {
        let body = json!({ "campaignId": "c", "label": "a b", "phoneNumber": "+5511999990000", "date": "2024-06-18T23:26:14Z",
            "response": "my name", "option": "Offers", "keyword": 4, "eventId": "e-1" });
        let event = decode(body.to_string().as_bytes(), None).expect("an event");
        let shared = share_href(&event).expect("an address");
        let query = Form::parse(shared.strip_prefix("/explain?").expect("a query").as_bytes());
        let again = decode(query.get("event").as_bytes(), None).expect("an event");
        assert_eq!(
            again,
            StepEvent { phone_number: test_event::PHONE_NUMBER.to_owned(), response: None, ..event.clone() }
        );
        let long = StepEvent { label: "x".repeat(MAX_SHARED_URL_BYTES), ..event };
        assert_eq!(share_href(&long), None);
    }
}
