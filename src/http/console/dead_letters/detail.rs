//! One dead letter: why, what was sent, every attempt, what became of it, and what to do now.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::super::super::ApiState;
use super::super::super::dead_letters::response::sent;
use super::super::super::extract::Id;
use super::super::super::problem::Problem;
use super::super::editor::edit_target::EditTarget;
use super::super::format::indented;
use super::super::labels::list_of;
use super::super::layout::{Layout, PageError, RequestContext, Time, page};
use super::super::letter_view::view;
use super::super::links;
use super::outcome;
use crate::config::Role;
use crate::delivery::Attempt;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::record::{LetterHistory, OperatorAction, ReplayAttempt};
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::duration::rough;
use crate::delivery::endpoint::Origin;
use crate::delivery::event::StepEvent;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::replay::ReplayOutcome;
use crate::delivery::request::RequestPreview;

/// So much of an unreadable body is shown; the API has the whole.
const BODY_CHARS: usize = 4000;

/// The width of the picture of the attempts, and what it leaves free on each side.
const WIDTH: f64 = 480.0;
const MARGIN: f64 = 10.0;

#[derive(Template)]
#[template(path = "dead_letters_one.html")]
struct DetailPage {
    frame: Layout,
    id: DeadLetterId,
    state: &'static str,
    reason: &'static str,
    reason_words: &'static str,
    outcome: String,
    dead_at: Time,
    ago: Option<String>,
    next: &'static str,
    facts: Vec<Fact>,
    links: Vec<Link>,
    faults: Vec<String>,
    body: Option<Body>,
    event: Option<String>,
    request: Option<Request>,
    attempts: Vec<AttemptRow>,
    marks: Vec<Mark>,
    replays: Vec<ReplayRow>,
    discard: Option<ReplayOption>,
    erased: Option<ReplayOption>,
    may_replay: bool,
    may_discard: bool,
}

/// Something that is known of it.
struct Fact {
    name: &'static str,
    value: String,
    address: Option<String>,
}

/// Where to go from here.
struct Link {
    words: &'static str,
    address: String,
}

/// What could not be read.
struct Body {
    title: &'static str,
    text: String,
    /// Characters that are not shown.
    more: usize,
}

struct Request {
    shown: RequestPreview,
    body: String,
}

struct AttemptRow {
    number: usize,
    at: Time,
    /// Since the first.
    after: Option<String>,
    took_ms: u64,
    /// Of the longest, in percent.
    percent: u64,
    outcome: String,
    cause: &'static str,
    error: Option<String>,
    answer: Option<String>,
}

/// An attempt in the picture.
struct Mark {
    x: String,
    words: String,
    is_answered: bool,
}

struct ReplayRow {
    id: String,
    address: String,
    at: Time,
    words: &'static str,
    letter: Option<(DeadLetterId, String)>,
}

/// Who did something to it.
struct ReplayOption {
    by: String,
    at: Time,
    because: String,
}

impl From<OperatorAction> for ReplayOption {
    fn from(verdict: OperatorAction) -> Self {
        Self { by: verdict.by, at: Time(verdict.at), because: verdict.because.unwrap_or_default() }
    }
}

impl From<ReplayAttempt> for ReplayRow {
    fn from(replay: ReplayAttempt) -> Self {
        Self {
            address: links::replay(&replay.replay_id),
            id: replay.replay_id.to_string(),
            at: Time(replay.at),
            words: match replay.outcome {
                ReplayOutcome::Delivered => "delivered",
                ReplayOutcome::Dead => "dead again",
                ReplayOutcome::Requeued => "put back on the queue of events",
            },
            letter: replay.dead_letter_id.map(|id| (id.clone(), links::dead_letter(&id))),
        }
    }
}

pub(super) async fn show(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
) -> Result<Response, PageError> {
    let view = match view(&http, &visit).await {
        Ok(view) => view,
        Err(waiting) => return Ok(waiting),
    };
    let kept = view.letter(&DeadLetterId::new(&*id))?;
    let kept = kept.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))?;
    let fate = view.fate(kept.offset)?;
    let links = links(&http, &kept.letter)?;
    Ok(page(&DetailPage::new(&visit, kept.letter, fate, links, Utc::now())))
}

impl DetailPage {
    fn new(
        visit: &RequestContext,
        letter: DeadLetter,
        fate: LetterHistory,
        links: Vec<Link>,
        now: DateTime<Utc>,
    ) -> Self {
        let may_change = visit.may(Role::Operator) && fate.erased.is_none();
        let ago = now.signed_duration_since(letter.dead_at).to_std().ok();
        let request = sent(&letter).filter(|_| fate.erased.is_none());
        Self {
            frame: Layout::new(visit, format!("Dead letter {}", letter.id)),
            state: letter.state.as_str(),
            reason: letter.reason.as_str(),
            reason_words: letter.reason.in_words(),
            outcome: outcome(letter.status, letter.cause.map(|cause| cause.as_str())),
            dead_at: Time(letter.dead_at),
            ago: ago.map(rough),
            next: next(letter.state, letter.reason, fate.erased.is_some()),
            facts: facts(&letter),
            links,
            faults: letter.errors.iter().map(ToString::to_string).collect(),
            body: body(&letter),
            event: letter.event.as_ref().map(pretty),
            request: request.map(|shown| Request { body: indented(&shown.body), shown }),
            attempts: rows(&letter.attempts),
            marks: marks(&letter.attempts, letter.dead_at),
            replays: fate.replays.into_iter().map(ReplayRow::from).collect(),
            discard: fate.discard.map(ReplayOption::from),
            erased: fate.erased.map(ReplayOption::from),
            may_replay: may_change && letter.state != LetterState::Replaying,
            may_discard: may_change && letter.state == LetterState::Pending,
            id: letter.id,
        }
    }
}

/// What to do now.
fn next(state: LetterState, reason: DeadLetterReason, is_erased: bool) -> &'static str {
    match (state, reason) {
        _ if is_erased => "What it told of a person was erased: it can't be sent again.",
        (LetterState::Replaying, _) => "It is being sent again now.",
        (LetterState::Replayed, _) => "It has been sent again; below is how that went.",
        (LetterState::Discarded, _) => "It was given up. It can be sent again all the same.",
        (LetterState::Pending, DeadLetterReason::Malformed | DeadLetterReason::Poison) => {
            "A replay puts the message back on the queue of events, as it came: repair first what could not be read."
        }
        (LetterState::Pending, DeadLetterReason::Expired | DeadLetterReason::Rejected | DeadLetterReason::Maxlen) => {
            "The broker removed the message. Find out why, then replay it."
        }
        (LetterState::Pending, DeadLetterReason::WebhookDeleted) => {
            "The webhook was deleted. Restore it from the campaign's history, then replay it."
        }
        (LetterState::Pending, DeadLetterReason::WebhookDisabled) => "Enable the webhook, then replay it.",
        (LetterState::Pending, DeadLetterReason::Gone) => {
            "Correct the address in the campaign's editor, and replay it with the current configuration."
        }
        (LetterState::Pending, DeadLetterReason::ForbiddenAddress) => {
            "Correct the address, or have it allowed by the egress settings, and replay it."
        }
        (LetterState::Pending, DeadLetterReason::Exhausted) => "Once the endpoint answers again, replay it.",
    }
}

fn facts(letter: &DeadLetter) -> Vec<Fact> {
    let text = |name, value: Option<String>| Some(Fact { name, value: value?, address: None });
    let linked = |name, value: Option<(String, String)>| {
        let (value, address) = value?;
        Some(Fact { name, value, address: Some(address) })
    };
    // A phone number has no such link: an address is kept in histories and logs.
    let endpoint = letter.url.as_deref().and_then(|url| url::Url::parse(url).ok()).map(|url| Origin::of_url(&url));
    let endpoint = endpoint.map(|endpoint| {
        (endpoint.to_string(), list_of(&LetterFilter { endpoint: Some(endpoint), ..LetterFilter::default() }))
    });
    let event = letter.event_id.as_ref().map(|event| {
        (event.to_string(), list_of(&LetterFilter { event_id: Some(event.clone()), ..LetterFilter::default() }))
    });
    let delivery = letter.delivery_id.as_ref().map(|delivery| {
        (
            delivery.to_string(),
            list_of(&LetterFilter { delivery_id: Some(delivery.clone()), ..LetterFilter::default() }),
        )
    });
    [
        text("URL", letter.url.clone()),
        linked("Endpoint", endpoint),
        linked("Campaign", letter.campaign_id.as_ref().map(|campaign| (campaign.clone(), links::campaign(campaign)))),
        text("Label", letter.label.clone()),
        text("Webhook", letter.webhook_id.as_ref().map(ToString::to_string)),
        linked("Event id", event),
        linked("webhook-id header", delivery),
        text("Last cause", letter.cause.map(|cause| cause.as_str().to_owned())),
        linked("Was before", letter.replay_of.as_ref().map(|before| (before.to_string(), links::dead_letter(before)))),
        linked("Failed again in", letter.replay_id.as_ref().map(|replay| (replay.to_string(), links::replay(replay)))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The webhook in its campaign's editor, if it is still there.
fn links(http: &ApiState, letter: &DeadLetter) -> Result<Vec<Link>, PageError> {
    let mut links = Vec::new();
    if let (Some(campaign), Some(webhook)) = (&letter.campaign_id, &letter.webhook_id)
        && let Some(stored) = http.store.campaign(campaign)?
        && let Some(place) = stored.campaign.place_of(webhook)
    {
        let address = format!("{}#webhook", EditTarget::new(place.section, place.entry).address(campaign));
        links.push(Link { words: "Webhook in the editor", address });
    }
    Ok(links)
}

fn body(letter: &DeadLetter) -> Option<Body> {
    let (title, text) = match (&letter.body, &letter.body_base64) {
        (Some(text), _) => ("Message, as it came", text),
        (None, Some(base64)) => ("Message, as it came, in Base64: it is no text", base64),
        (None, None) => return None,
    };
    let shown: String = text.chars().take(BODY_CHARS).collect();
    Some(Body { title, more: text.chars().count() - shown.chars().count(), text: shown })
}

fn pretty(event: &StepEvent) -> String {
    let value = serde_json::to_value(event).unwrap_or(Value::Null);
    format!("{value:#}")
}

fn rows(attempts: &[Attempt]) -> Vec<AttemptRow> {
    let longest = attempts.iter().map(|attempt| attempt.duration_ms).max().unwrap_or_default();
    let first = attempts.first().map(|first| first.at);
    let row = |(number, attempt): (usize, &Attempt)| AttemptRow {
        number,
        at: Time(attempt.at),
        after: first.and_then(|first| since(first, attempt.at)),
        took_ms: attempt.duration_ms,
        percent: super::super::format::length(attempt.duration_ms, longest),
        outcome: outcome(attempt.status, None),
        cause: attempt.cause.as_str(),
        error: attempt.error.clone(),
        answer: attempt.answer.clone().filter(|answer| !answer.is_empty()),
    };
    (1..).zip(attempts).map(row).collect()
}

/// `5s` later; none for the first.
fn since(first: DateTime<Utc>, at: DateTime<Utc>) -> Option<String> {
    let later = at.signed_duration_since(first).to_std().ok()?;
    (later.as_secs() > 0).then(|| rough(later))
}

/// The attempts on a line from the first one to the end. Delays grow by a factor, so the line is logarithmic.
fn marks(attempts: &[Attempt], dead_at: DateTime<Utc>) -> Vec<Mark> {
    let Some(first) = attempts.first() else { return Vec::new() };
    let seconds = |at: DateTime<Utc>| at.signed_duration_since(first.at).as_seconds_f64().max(0.0).ln_1p();
    let whole = seconds(dead_at).max(f64::EPSILON);
    let mark = |(number, attempt): (usize, &Attempt)| {
        let x = MARGIN + (WIDTH - 2.0 * MARGIN) * (seconds(attempt.at) / whole).min(1.0);
        let outcome = outcome(attempt.status, Some(attempt.cause.as_str()));
        let after = since(first.at, attempt.at).map_or_else(String::new, |after| format!(" after {after}"));
        let words = format!("Attempt {number}{after}: {outcome}");
        Mark { x: format!("{x:.1}"), words, is_answered: attempt.status.is_some() }
    };
    (1..).zip(attempts).map(mark).collect()
}
