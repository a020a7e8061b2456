//! The page of one dead letter: reason, advice, attempts, last request, event and replays.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde_json::Value;
use waypost_core::Attempt;
use waypost_core::access::Role;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::history::{OperatorAction, ReplayAttempt};
use waypost_core::dead_letter::{DeadLetter, LetterState};
use waypost_core::duration::approximate;
use waypost_core::endpoint::Origin;
use waypost_core::event::StepEvent;
use waypost_core::ids::DeadLetterId;
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::ReplayOutcome;
use waypost_core::request::RequestPreview;
use waypost_engine::dead_letters::DeadLetterError;
use waypost_engine::dead_letters::queries::LetterDetail;

use super::attempt_outcome::outcome;
use crate::api_state::ApiState;
use crate::console::edit_target::EditTarget;
use crate::console::format::{bar_percent, indented};
use crate::console::layout::{Layout, PageError, RequestContext, Time, page};
use crate::console::letter_view::wait_until_readable;
use crate::console::links;
use crate::extract::Id;
use crate::problem::Problem;

/// Only the beginning of a long unreadable body is shown. The API has all of it.
const MAX_BODY_CHARS: usize = 4000;

/// In units of the drawing, as the view box in the template.
const TIMELINE_WIDTH: f64 = 480.0;
const TIMELINE_MARGIN: f64 = 10.0;

#[derive(Template)]
#[template(path = "dead_letter.html")]
struct DetailPage {
    layout: Layout,
    id: DeadLetterId,
    state: &'static str,
    reason: &'static str,
    reason_description: &'static str,
    outcome: String,
    dead_at: Time,
    age: Option<String>,
    advice: &'static str,
    facts: Vec<LetterFact>,
    links: Vec<DetailLink>,
    violations: Vec<String>,
    body: Option<RawBody>,
    event: Option<String>,
    request: Option<RequestView>,
    attempts: Vec<AttemptRow>,
    markers: Vec<AttemptMarker>,
    replays: Vec<LetterReplayRow>,
    discard: Option<ActionSummary>,
    erased: Option<ActionSummary>,
    can_replay: bool,
    can_discard: bool,
}

struct LetterFact {
    name: &'static str,
    value: String,
    href: Option<String>,
}

struct DetailLink {
    text: &'static str,
    href: String,
}

/// The body of a message that could not be read.
struct RawBody {
    title: &'static str,
    text: String,
    /// Number of characters that are not shown.
    hidden_chars: usize,
}

struct RequestView {
    preview: RequestPreview,
    body: String,
}

struct AttemptRow {
    number: usize,
    at: Time,
    /// Time since the first attempt. `None` if it is less than a second.
    since_first: Option<String>,
    duration_ms: u64,
    /// Duration in percent of the longest attempt.
    percent: u64,
    outcome: String,
    cause: &'static str,
    error: Option<String>,
    answer: Option<String>,
}

/// The dot of an attempt on the timeline.
struct AttemptMarker {
    x: String,
    text: String,
    has_response: bool,
}

struct LetterReplayRow {
    id: String,
    href: String,
    at: Time,
    text: &'static str,
    letter: Option<(DeadLetterId, String)>,
}

/// Who discarded or erased the letter, when and why.
struct ActionSummary {
    by: String,
    at: Time,
    because: String,
}

impl From<OperatorAction> for ActionSummary {
    fn from(action: OperatorAction) -> Self {
        Self { by: action.by, at: Time(action.at), because: action.operator_reason.unwrap_or_default() }
    }
}

impl From<ReplayAttempt> for LetterReplayRow {
    fn from(replay: ReplayAttempt) -> Self {
        Self {
            href: links::replay(&replay.replay_id),
            id: replay.replay_id.to_string(),
            at: Time(replay.at),
            text: match replay.outcome {
                ReplayOutcome::Delivered => "delivered",
                ReplayOutcome::Dead => "dead again",
                ReplayOutcome::Requeued => "put back on the events queue",
            },
            letter: replay.dead_letter_id.map(|id| (id.clone(), links::dead_letter(&id))),
        }
    }
}

pub(super) async fn show(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
) -> Result<Response, PageError> {
    if let Err(response) = wait_until_readable(&state, &context).await {
        return Ok(response);
    }
    let detail = match state.dead_letters.get(&DeadLetterId::new(&*id)).await {
        Err(DeadLetterError::NotFound(_)) => {
            let reason = format!("There is no dead letter {id}. It may be older than the retention time.");
            return Err(Problem::new(StatusCode::NOT_FOUND, reason).into());
        }
        detail => detail?,
    };
    let links = links(&state, &detail.letter)?;
    Ok(page(&DetailPage::new(&context, detail, links, Utc::now())))
}

impl DetailPage {
    fn new(
        context: &RequestContext,
        LetterDetail { letter, history, last_request }: LetterDetail,
        links: Vec<DetailLink>,
        now: DateTime<Utc>,
    ) -> Self {
        let can_change = context.has_role(Role::Operator) && history.erased.is_none();
        let age = now.signed_duration_since(letter.dead_at).to_std().ok();
        Self {
            layout: Layout::new(context, format!("Dead letter {}", letter.id)),
            state: letter.state.as_str(),
            reason: letter.reason.as_str(),
            reason_description: letter.reason.description(),
            outcome: outcome(letter.status, letter.cause.map(|cause| cause.as_str())),
            dead_at: Time(letter.dead_at),
            age: age.map(approximate),
            advice: advice_for(letter.state, letter.reason, history.erased.is_some()),
            facts: facts(&letter),
            links,
            violations: letter.errors.iter().map(ToString::to_string).collect(),
            body: body(&letter),
            event: letter.event.as_ref().map(event_json),
            request: last_request.map(|preview| RequestView { body: indented(&preview.body), preview }),
            attempts: attempt_rows(&letter.attempts),
            markers: markers(&letter.attempts, letter.dead_at),
            replays: history.replays.into_iter().map(LetterReplayRow::from).collect(),
            discard: history.discard.map(ActionSummary::from),
            erased: history.erased.map(ActionSummary::from),
            can_replay: can_change && letter.state.can_be_claimed(),
            can_discard: can_change && letter.state.can_be_discarded(),
            id: letter.id,
        }
    }
}

fn advice_for(state: LetterState, reason: DeadLetterReason, is_erased: bool) -> &'static str {
    match (state, reason) {
        _ if is_erased => "Its personal data was erased, so it can't be replayed.",
        (LetterState::Replaying, _) => "A replay is sending it now.",
        (LetterState::Replayed, _) => "It was replayed. The result is shown below.",
        (LetterState::Discarded, _) => "It was discarded. It can still be replayed.",
        (LetterState::Pending, DeadLetterReason::Malformed | DeadLetterReason::Poison) => {
            "A replay puts the original message back on the events queue. First fix what could not be read."
        }
        (LetterState::Pending, DeadLetterReason::Expired | DeadLetterReason::Rejected | DeadLetterReason::Maxlen) => {
            "The broker removed the message. Find out why, then replay it."
        }
        (LetterState::Pending, DeadLetterReason::WebhookDeleted) => {
            "The webhook was deleted. Save the campaign again with a webhook of the same id, for example with `waypost \
             campaigns apply`. Then replay the dead letter."
        }
        (LetterState::Pending, DeadLetterReason::WebhookDisabled) => "Enable the webhook, then replay it.",
        (LetterState::Pending, DeadLetterReason::Gone) => {
            "Correct the URL in the campaign's editor, then replay it with the current configuration."
        }
        (LetterState::Pending, DeadLetterReason::ForbiddenAddress) => {
            "Correct the URL or allow the address in the egress settings, then replay it."
        }
        (LetterState::Pending, DeadLetterReason::Exhausted) => "Replay it when the endpoint works again.",
    }
}

fn facts(letter: &DeadLetter) -> Vec<LetterFact> {
    let text_fact = |name, value: Option<String>| Some(LetterFact { name, value: value?, href: None });
    let link_fact = |name, value: Option<(String, String)>| {
        let (value, href) = value?;
        Some(LetterFact { name, value, href: Some(href) })
    };
    // A phone number gets no link, because browsers and logs keep URLs.
    let endpoint = letter.url.as_deref().and_then(|url| url::Url::parse(url).ok()).map(|url| Origin::from_url(&url));
    let endpoint = endpoint.map(|endpoint| {
        (
            endpoint.to_string(),
            links::letter_list(&LetterFilter { endpoint: Some(endpoint), ..LetterFilter::default() }),
        )
    });
    let event = letter.event_id.as_ref().map(|event| {
        (
            event.to_string(),
            links::letter_list(&LetterFilter { event_id: Some(event.clone()), ..LetterFilter::default() }),
        )
    });
    let delivery = letter.delivery_id.as_ref().map(|delivery| {
        (
            delivery.to_string(),
            links::letter_list(&LetterFilter { delivery_id: Some(delivery.clone()), ..LetterFilter::default() }),
        )
    });
    [
        text_fact("URL", letter.url.clone()),
        link_fact("Endpoint", endpoint),
        link_fact(
            "Campaign",
            letter.campaign_id.as_ref().map(|campaign| (campaign.clone(), links::campaign(campaign))),
        ),
        text_fact("Label", letter.label.clone()),
        text_fact("Webhook", letter.webhook_id.as_ref().map(ToString::to_string)),
        link_fact("Event id", event),
        link_fact("webhook-id header", delivery),
        text_fact("Last cause", letter.cause.map(|cause| cause.as_str().to_owned())),
        link_fact(
            "Previous dead letter",
            letter.replay_of.as_ref().map(|replay_of| (replay_of.to_string(), links::dead_letter(replay_of))),
        ),
        link_fact(
            "Created by replay",
            letter.replay_id.as_ref().map(|replay| (replay.to_string(), links::replay(replay))),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A link to the editor of the webhook, if the webhook still exists.
fn links(state: &ApiState, letter: &DeadLetter) -> Result<Vec<DetailLink>, PageError> {
    let mut links = Vec::new();
    if let (Some(campaign), Some(webhook)) = (&letter.campaign_id, &letter.webhook_id)
        && let Some(stored) = state.campaigns.find(campaign)?
        && let Some(place) = stored.campaign.place_of(webhook)
    {
        let href = format!("{}#webhook", EditTarget::new(place.section, place.entry).editor_href(campaign));
        links.push(DetailLink { text: "Webhook in the editor", href });
    }
    Ok(links)
}

fn body(letter: &DeadLetter) -> Option<RawBody> {
    let (title, text) = match (&letter.body, &letter.body_base64) {
        (Some(text), _) => ("Original message", text),
        (None, Some(base64)) => ("Original message in Base64, because it is not text", base64),
        (None, None) => return None,
    };
    let shown: String = text.chars().take(MAX_BODY_CHARS).collect();
    Some(RawBody { title, hidden_chars: text.chars().count() - shown.chars().count(), text: shown })
}

fn event_json(event: &StepEvent) -> String {
    let value = serde_json::to_value(event).unwrap_or(Value::Null);
    format!("{value:#}")
}

fn attempt_rows(attempts: &[Attempt]) -> Vec<AttemptRow> {
    let longest = attempts.iter().map(|attempt| attempt.duration_ms).max().unwrap_or_default();
    let first = attempts.first().map(|first| first.at);
    let row = |(number, attempt): (usize, &Attempt)| AttemptRow {
        number,
        at: Time(attempt.at),
        since_first: first.and_then(|first| time_between(first, attempt.at)),
        duration_ms: attempt.duration_ms,
        percent: bar_percent(attempt.duration_ms, longest),
        outcome: outcome(attempt.status, None),
        cause: attempt.cause.as_str(),
        error: attempt.error.clone(),
        answer: attempt.answer.clone().filter(|answer| !answer.is_empty()),
    };
    (1..).zip(attempts).map(row).collect()
}

/// For example `5s`. `None` if it is less than a second.
fn time_between(first: DateTime<Utc>, at: DateTime<Utc>) -> Option<String> {
    let later = at.signed_duration_since(first).to_std().ok()?;
    (later.as_secs() > 0).then(|| approximate(later))
}

/// The attempts on a timeline up to the dead letter. Retry delays grow exponentially, so the scale is logarithmic.
fn markers(attempts: &[Attempt], dead_at: DateTime<Utc>) -> Vec<AttemptMarker> {
    let Some(first) = attempts.first() else { return Vec::new() };
    let seconds = |at: DateTime<Utc>| at.signed_duration_since(first.at).as_seconds_f64().max(0.0).ln_1p();
    let total_span = seconds(dead_at).max(f64::EPSILON);
    let marker = |(number, attempt): (usize, &Attempt)| {
        let x =
            TIMELINE_MARGIN + (TIMELINE_WIDTH - 2.0 * TIMELINE_MARGIN) * (seconds(attempt.at) / total_span).min(1.0);
        let outcome = outcome(attempt.status, Some(attempt.cause.as_str()));
        let since_first =
            time_between(first.at, attempt.at).map_or_else(String::new, |since_first| format!(" after {since_first}"));
        let text = format!("Attempt {number}{since_first}: {outcome}");
        AttemptMarker { x: format!("{x:.1}"), text, has_response: attempt.status.is_some() }
    };
    (1..).zip(attempts).map(marker).collect()
}
