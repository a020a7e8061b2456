//! The list of dead letters, with its filter, its summary and the actions for all letters that match.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::Utc;
use waypost_core::access::Role;
use waypost_core::dead_letter;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::ids::{DeadLetterId, WebhookId};
use waypost_core::reason::DeadLetterReason;

use super::attempt_outcome::outcome;
use super::filter_form::FilterForm;
use super::summary::{CountGroup, Tab, groups, tabs};
use crate::api_state::ApiState;
use crate::console::form::{Form, FormQuery};
use crate::console::format::Count;
use crate::console::layout::{Layout, PageError, RequestContext, Time, page};
use crate::console::letter_view::wait_until_readable;
use crate::console::links;
use crate::dead_letters::query;

const LETTERS_PER_PAGE: usize = 30;

/// Length of the error text in the list. The page of the letter shows all of it.
const MAX_EXCERPT_CHARS: usize = 120;

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct LettersPage {
    layout: Layout,
    filter_form: FilterForm,
    content: ListContent,
    /// Why the last action was not performed.
    error: Option<String>,
    periods: [(&'static str, String); 3],
    can_change: bool,
}

/// What the list shows for a filter.
enum ListContent {
    /// The filter is invalid. Its errors are shown beside the fields.
    InvalidFilter,
    /// There is no dead letter at all.
    NoLetters,
    /// No dead letter matches.
    NoMatch {
        tabs: Vec<Tab>,
    },
    Letters(Box<Letters>),
}

struct Letters {
    total: Count,
    oldest: Option<Time>,
    newest: Option<Time>,
    tabs: Vec<Tab>,
    groups: Vec<CountGroup>,
    rows: Vec<LetterRow>,
    /// All matches that can be replayed. `None` if there is none.
    bulk: Option<BulkSelection>,
    /// Hidden fields with the filter and the cursor.
    fields: Vec<(&'static str, String)>,
    newer: Option<String>,
    older: Option<String>,
}

/// The buttons that change all letters that match the filter.
struct BulkSelection {
    description: String,
    can_be_discarded: bool,
}

struct LetterRow {
    id: DeadLetterId,
    href: String,
    state: &'static str,
    reason: &'static str,
    reason_description: &'static str,
    /// `503 Service Unavailable`, or `timeout`. Empty if there was no attempt.
    outcome: String,
    excerpt: String,
    url: String,
    campaign: String,
    label: String,
    at: Time,
}

impl LettersPage {
    fn reasons(&self) -> [&'static str; 10] {
        DeadLetterReason::ALL.map(DeadLetterReason::as_str)
    }

    fn states(&self) -> [&'static str; 4] {
        dead_letter::LetterState::ALL.map(dead_letter::LetterState::as_str)
    }
}

impl LetterRow {
    fn new(letter: DeadLetter) -> Self {
        let last = letter.attempts.last();
        let excerpt = last.and_then(|last| last.error.clone().or_else(|| last.answer.clone()));
        let excerpt = excerpt.or_else(|| letter.errors.first().map(ToString::to_string)).unwrap_or_default();
        Self {
            href: links::dead_letter(&letter.id),
            state: letter.state.as_str(),
            reason: letter.reason.as_str(),
            reason_description: letter.reason.description(),
            outcome: outcome(letter.status, letter.cause.map(|cause| cause.as_str())),
            excerpt: truncate(&excerpt),
            url: letter.url.unwrap_or_default(),
            campaign: letter.campaign_id.unwrap_or_default(),
            label: letter.label.unwrap_or_default(),
            at: Time(letter.dead_at),
            id: letter.id,
        }
    }
}

fn truncate(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_EXCERPT_CHARS).collect();
    if text.chars().nth(MAX_EXCERPT_CHARS).is_some() {
        short.push('…');
    }
    short
}

pub(super) async fn list(
    State(state): State<ApiState>,
    context: RequestContext,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    list_with(&state, &context, &query, None).await
}

/// Renders the list. `error` says why the last action was not performed.
async fn list_with(
    state: &ApiState,
    context: &RequestContext,
    query: &Form,
    error: Option<String>,
) -> Result<Response, PageError> {
    let filter_form = FilterForm::read(query, Utc::now());
    if let Some(canonical_href) = &filter_form.canonical_href
        && error.is_none()
    {
        return Ok(Redirect::to(canonical_href).into_response());
    }
    if let Err(response) = wait_until_readable(state, context).await {
        return Ok(response);
    }
    let content = match filter_form.errors.is_empty() {
        false => ListContent::InvalidFilter,
        true if state.dead_letters.state_counts().iter().sum::<u64>() == 0 => ListContent::NoLetters,
        true => load_letters(state, &filter_form.filter, query.get_non_blank("cursor")).await?,
    };
    let periods = [("last hour", "1h"), ("last 24 hours", "24h"), ("last 7 days", "7days")];
    let periods = periods.map(|(description, since)| (description, filter_form.since_href(since)));
    let layout = Layout::new(context, "Dead letters");
    Ok(page(&LettersPage {
        layout,
        filter_form,
        content,
        error,
        periods,
        can_change: context.has_role(Role::Operator),
    }))
}

/// The list with an error, after a bulk button was pressed while no letter was ticked.
pub(in crate::console) async fn list_with_nothing_ticked(
    state: &ApiState,
    context: &RequestContext,
    form: &Form,
) -> Result<Response, PageError> {
    let error = "No dead letter is ticked. Tick some, or use a button for all that match.".to_owned();
    let query = form.only(&[&LetterFilter::FIELDS[..], &["cursor"]].concat());
    list_with(state, context, &query, Some(error)).await
}

async fn load_letters(state: &ApiState, filter: &LetterFilter, cursor: Option<&str>) -> Result<ListContent, PageError> {
    let before_offset = cursor.map(|cursor| query::decode_cursor(cursor, filter)).transpose()?;
    let without_state = LetterFilter { state: None, ..filter.clone() };
    let counts = state.dead_letters.count(filter.clone()).await?;
    let states = match (filter.state, without_state == LetterFilter::default()) {
        (None, _) => counts.states.clone(),
        (Some(_), true) => {
            let counts = state.dead_letters.state_counts();
            dead_letter::LetterState::ALL.into_iter().zip(counts).collect()
        }
        (Some(_), false) => state.dead_letters.count(without_state).await?.states,
    };
    let tabs = tabs(filter, &states);
    if counts.total == 0 {
        return Ok(ListContent::NoMatch { tabs });
    }
    let letters = state.dead_letters.page(filter, before_offset, LETTERS_PER_PAGE).await?;
    let (total, range) = (counts.total, counts.span);
    let time = |milliseconds| chrono::DateTime::from_timestamp_millis(milliseconds).map(Time);
    let target_state = filter.or_pending().state.unwrap_or(dead_letter::LetterState::Pending);
    let count = states.get(&target_state).copied().unwrap_or_default();
    let can_be_replayed = target_state.can_be_claimed() && count > 0;
    let bulk = can_be_replayed.then(|| BulkSelection {
        description: format!("all {} {} that match", Count(count), target_state.as_str()),
        can_be_discarded: target_state.can_be_discarded(),
    });
    // If nothing is ticked, the same page of the list is shown again.
    let mut list_fields = filter.fields();
    list_fields.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
    let older = letters.next.map(|before_offset| {
        let mut fields = filter.fields();
        fields.push(("cursor", query::encode_cursor(before_offset, filter)));
        links::letter_list_with(&fields)
    });
    Ok(ListContent::Letters(Box::new(Letters {
        total: Count(total),
        oldest: range.and_then(|(oldest, _)| time(oldest)),
        newest: range.and_then(|(_, newest)| time(newest)),
        tabs,
        groups: groups(filter, counts, |campaign, webhook| place_name(state, campaign, webhook)),
        rows: letters.letters.into_iter().map(|stored| LetterRow::new(stored.letter)).collect(),
        bulk,
        fields: list_fields,
        newer: before_offset.map(|_| links::letter_list(filter)),
        older,
    })))
}

/// The place of a webhook in its campaign: `Welcome Message · 4`. `None` if it was deleted or can't be read.
fn place_name(state: &ApiState, campaign: &str, webhook: &str) -> Option<String> {
    let stored = state.campaigns.find(campaign).ok()??;
    let place = stored.campaign.place_of(&WebhookId::new(webhook))?;
    let label = &place.section.label;
    Some(place.entry.map_or_else(|| label.clone(), |entry| format!("{label} · {}", entry.keyword)))
}
