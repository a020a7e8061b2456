//! Explaining an event that somebody has pasted: what of its campaign matches, what fires, and why, with links to the
//! places where that is edited.
//!
//! An event tells of a person: their phone number and what they said. So it is sent in a form, and not in an address, which
//! browsers and proxies keep. The address that is offered for sharing has only what decides: a number that belongs to
//! nobody stands in the place of the person's, and the response, which decides nothing, is left out. Who writes such an
//! address themselves may put any event into it.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, json};

use super::super::ApiState;
use super::super::body_limit::BodyError;
use super::super::explain::explain_body;
use super::super::problem::Problem;
use super::super::route::Route;
use super::super::webhooks::sample_of;
use super::editor::edit_target::EditTarget;
use super::form::{Form, Query, address};
use super::layout::{Layout, PageError, RequestContext, page};
use super::links;
use crate::config::Role;
use crate::delivery::campaign::{SectionKind, WebhookKind};
use crate::delivery::event::{Keyword, MAX_EVENT_BYTES, StepEvent};
use crate::delivery::explain::{ExplainedEntry, ExplainedWebhook, Explanation};
use crate::delivery::request::RequestPreview;
use crate::delivery::resolve::MatchedBy;
use crate::delivery::test_event;
use crate::delivery::violation::Violation;

/// A longer address is not offered: not everything that passes addresses on takes it.
const MAX_ADDRESS: usize = 2_000;

/// So many campaigns are looked through for a sample.
const CAMPAIGNS: usize = 20;

/// The page of explanations.
pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/explain", Role::Viewer, ask), Route::post("/explain", Role::Viewer, answer).not_audited()]
}

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    frame: Layout,
    /// What is in the field.
    event: String,
    faults: Vec<Violation>,
    outcome: Option<Outcome>,
    /// Whether the person has just asked: the answer then has the focus.
    is_answer: bool,
}

/// An explanation as it is shown.
struct Outcome {
    why: String,
    /// Which symbol it has.
    mark: &'static str,
    campaign: Option<Campaign>,
    section: Option<Section>,
    matched_by: Option<&'static str>,
    entries: Vec<Entry>,
    webhooks: Vec<Webhook>,
    /// The address of this explanation, without what tells of a person.
    share: Option<String>,
}

struct Campaign {
    id: String,
    version: u64,
    address: String,
}

struct Section {
    label: String,
    kind: &'static str,
    edit: String,
}

struct Entry {
    keyword: String,
    option: Option<String>,
    matches: bool,
    why: String,
    edit: String,
}

struct Webhook {
    id: String,
    place: String,
    kind: &'static str,
    mark: &'static str,
    verdict: &'static str,
    why: String,
    edit: String,
    request: Option<RequestPreview>,
}

/// `GET /explain`: a sample to begin with, or the event of the address, explained.
async fn ask(State(http): State<ApiState>, visit: RequestContext, Query(query): Query) -> Result<Response, PageError> {
    match query.given("event") {
        Some(event) => Ok(page(&ExplainPage { is_answer: false, ..explained(&http, &visit, event.to_owned())? })),
        None => {
            let (frame, event) = (Layout::new(&visit, "Explain"), sample_event(&http)?);
            Ok(page(&ExplainPage { frame, event, faults: Vec::new(), outcome: None, is_answer: false }))
        }
    }
}

/// `POST /explain`: the event of the form, explained.
async fn answer(State(http): State<ApiState>, visit: RequestContext, form: Form) -> Result<Response, PageError> {
    // A form has other ends of lines than were typed.
    Ok(page(&explained(&http, &visit, form.get("event").replace("\r\n", "\n"))?))
}

fn explained(http: &ApiState, visit: &RequestContext, event: String) -> Result<ExplainPage, PageError> {
    let explained = if event.len() > MAX_EVENT_BYTES {
        Err(Problem::of_body(BodyError::TooLarge, "an event", MAX_EVENT_BYTES))
    } else {
        explain_body(http, event.as_bytes(), visit.secrets())
    };
    let (faults, outcome) = match explained {
        Ok(explanation) => (Vec::new(), Some(Outcome::new(explanation))),
        Err(problem) if problem.errors().is_empty() => return Err(problem.into()),
        Err(problem) => (problem.errors().to_vec(), None),
    };
    Ok(ExplainPage { frame: Layout::new(visit, "Explain"), event, faults, outcome, is_answer: true })
}

/// An event that fires something here, or else one that shows how an event is written.
fn sample_event(http: &ApiState) -> Result<String, PageError> {
    let campaigns = http.store.campaigns(None, CAMPAIGNS, |stored| {
        let campaign = &stored.campaign;
        let place = campaign.places().find(|place| place.entry.is_some()).or_else(|| campaign.places().next())?;
        sample_of(&campaign.id, &place, Map::new()).ok().map(|delivery| delivery.event)
    })?;
    let written = match campaigns.into_iter().flatten().next() {
        Some(event) => serde_json::to_string_pretty(&event),
        None => serde_json::to_string_pretty(&json!({
            "campaignId": "13010", "label": "Welcome Message", "phoneNumber": test_event::PHONE_NUMBER,
            "date": "2024-06-18T23:26:14.206Z", "response": "4", "keyword": 4,
        })),
    };
    Ok(written.unwrap_or_default())
}

impl Outcome {
    fn new(explanation: Explanation) -> Self {
        let fires = explanation.webhooks.iter().any(|webhook| webhook.fires);
        let campaign = explanation.event.campaign_id.clone();
        let label = explanation.section.as_ref().map_or("", |section| &section.label).to_owned();
        let entry = |entry| Entry::new(&campaign, &label, entry);
        let webhook = |webhook| Webhook::new(&campaign, webhook);
        Self {
            mark: if fires { "good" } else { "none" },
            matched_by: explanation.matched_by.map(|by| match by {
                MatchedBy::Keyword => "its keyword",
                MatchedBy::Option => "its menu text",
            }),
            campaign: explanation.campaign.map(|found| Campaign {
                address: links::campaign(&found.id),
                id: found.id,
                version: found.version,
            }),
            entries: explanation.entries.into_iter().map(entry).collect(),
            webhooks: explanation.webhooks.into_iter().map(webhook).collect(),
            section: explanation.section.map(|section| Section {
                edit: EditTarget::Section { label: section.label.clone() }.address(&campaign),
                kind: match section.kind {
                    SectionKind::WelcomeMessage => "Welcome Message",
                    SectionKind::Interaction => "Interaction",
                },
                label: section.label,
            }),
            share: share(&explanation.event),
            why: explanation.why,
        }
    }

    /// Whether there are webhooks that the event does not reach.
    fn has_others(&self) -> bool {
        self.webhooks.iter().any(|webhook| webhook.request.is_none())
    }
}

fn spot(label: &str, keyword: Option<&Keyword>) -> EditTarget {
    match keyword {
        None => EditTarget::Section { label: label.to_owned() },
        Some(keyword) => EditTarget::Entry { label: label.to_owned(), keyword: keyword.to_string() },
    }
}

impl Entry {
    fn new(campaign: &str, label: &str, entry: ExplainedEntry) -> Self {
        Self {
            edit: spot(label, Some(&entry.keyword)).address(campaign),
            keyword: entry.keyword.to_string(),
            option: entry.option,
            matches: entry.matches,
            why: entry.why,
        }
    }
}

impl Webhook {
    fn new(campaign: &str, webhook: ExplainedWebhook) -> Self {
        let (mark, verdict) = match (webhook.fires, webhook.request.is_some()) {
            (true, _) => ("good", "fires"),
            (false, true) => ("off", "would fire, were it enabled"),
            (false, false) => ("none", "does not fire"),
        };
        Self {
            edit: format!("{}#webhook", spot(&webhook.label, webhook.keyword.as_ref()).address(campaign)),
            place: match &webhook.keyword {
                None => webhook.label,
                Some(keyword) => format!("{}, entry {keyword}", webhook.label),
            },
            kind: match webhook.kind {
                WebhookKind::Redirect => "as the redirect",
                WebhookKind::Underlying => "under the redirect",
            },
            id: webhook.webhook_id.as_str().to_owned(),
            mark,
            verdict,
            why: webhook.why,
            request: webhook.request,
        }
    }
}

/// The address of an event's explanation, with nothing that tells of a person.
fn share(event: &StepEvent) -> Option<String> {
    let event = StepEvent { phone_number: test_event::PHONE_NUMBER.to_owned(), response: None, ..event.clone() };
    let address = address("/explain", &[("event", &serde_json::to_string(&event).ok()?)]);
    (address.len() <= MAX_ADDRESS).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::event::decode;

    #[test]
    fn what_is_shared_decides_the_same_and_tells_of_nobody() {
        let body = json!({ "campaignId": "c", "label": "a b", "phoneNumber": "+5511999990000", "date": "2024-06-18T23:26:14Z",
            "response": "my name", "option": "Offers", "keyword": 4, "eventId": "e-1" });
        let event = decode(body.to_string().as_bytes(), None).expect("an event");
        let shared = share(&event).expect("an address");
        let query = Form::read(shared.strip_prefix("/explain?").expect("a query").as_bytes());
        let again = decode(query.get("event").as_bytes(), None).expect("an event");
        assert_eq!(
            again,
            StepEvent { phone_number: test_event::PHONE_NUMBER.to_owned(), response: None, ..event.clone() }
        );
        let long = StepEvent { label: "x".repeat(MAX_ADDRESS), ..event };
        assert_eq!(share(&long), None);
    }
}
