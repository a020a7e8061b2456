//! Dead letters: what they have in common, the list of them, and what to do with those that are picked.

mod detail;
mod discard;
mod filter_form;
pub(super) mod selection_form;
mod summary;

use std::time::Instant;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::Utc;
use tokio::task::block_in_place;

pub(super) use self::discard::nothing_ticked;
use self::filter_form::FilterForm;
use self::summary::{Group, Tab, groups, status_words, tabs};
use super::super::ApiState;
use super::super::dead_letters::{SEARCH_TIME, query, tally};
use super::super::route::Route;
use super::form::{Form, Query};
use super::format::Count;
use super::labels::{at, list_of};
use super::layout::{Layout, PageError, RequestContext, Time, page};
use super::letter_view::view;
use super::links;
use crate::config::Role;
use crate::delivery::dead_letter;
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::ids::{DeadLetterId, WebhookId};
use crate::delivery::reason::DeadLetterReason;

/// So many letters are on one page of the list.
const PER_PAGE: usize = 30;

/// So much of what went wrong is in the list; the letter has all of it.
const SAID_CHARS: usize = 120;

/// The pages of dead letters.
pub(super) fn routes() -> Vec<Route> {
    let list = vec![
        Route::get("/dead-letters", Role::Viewer, list),
        Route::get("/dead-letters/{id}", Role::Viewer, detail::show),
    ];
    list.into_iter().chain(discard::routes()).collect()
}

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct LettersPage {
    frame: Layout,
    typed: FilterForm,
    found: FoundLetters,
    /// What was asked of the list and could not be done.
    complaint: Option<String>,
    spans: [(&'static str, String); 3],
    may_change: bool,
}

/// What there is for a filter.
enum FoundLetters {
    /// It can't be read; its errors are beside its fields.
    Unread,
    /// Nothing at all, whatever the filter.
    NothingAtAll,
    /// Nothing that it matches.
    Nothing { tabs: Vec<Tab> },
    /// Some.
    Letters(Box<Letters>),
}

struct Letters {
    total: Count,
    oldest: Option<Time>,
    newest: Option<Time>,
    tabs: Vec<Tab>,
    groups: Vec<Group>,
    rows: Vec<LetterRow>,
    /// What all of them means: the list's filter, or the pending ones of it. None where they can't be changed.
    all: Option<All>,
    /// The fields of the filter.
    fields: Vec<(&'static str, String)>,
    newer: Option<String>,
    older: Option<String>,
}

/// All that match the filter and can be changed.
struct All {
    words: String,
    can_be_discarded: bool,
}

struct LetterRow {
    id: DeadLetterId,
    address: String,
    state: &'static str,
    reason: &'static str,
    reason_words: &'static str,
    /// `503 Service Unavailable`, or `timeout`; empty where there was no attempt.
    outcome: String,
    said: String,
    url: String,
    campaign: String,
    label: String,
    at: Time,
}

impl LettersPage {
    /// The reasons and the states that can be chosen.
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
        let said = last.and_then(|last| last.error.clone().or_else(|| last.answer.clone()));
        let said = said.or_else(|| letter.errors.first().map(ToString::to_string)).unwrap_or_default();
        Self {
            address: links::dead_letter(&letter.id),
            state: letter.state.as_str(),
            reason: letter.reason.as_str(),
            reason_words: letter.reason.in_words(),
            outcome: outcome(letter.status, letter.cause.map(|cause| cause.as_str())),
            said: shortened(&said),
            url: letter.url.unwrap_or_default(),
            campaign: letter.campaign_id.unwrap_or_default(),
            label: letter.label.unwrap_or_default(),
            at: Time(letter.dead_at),
            id: letter.id,
        }
    }
}

/// How an attempt ended.
fn outcome(status: Option<u16>, cause: Option<&str>) -> String {
    match status {
        Some(status) => format!("{status} {}", status_words(status)).trim_end().to_owned(),
        None => cause.unwrap_or_default().to_owned(),
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(SAID_CHARS).collect();
    if text.chars().nth(SAID_CHARS).is_some() {
        short.push('…');
    }
    short
}

async fn list(State(http): State<ApiState>, visit: RequestContext, Query(query): Query) -> Result<Response, PageError> {
    list_with(&http, &visit, &query, None).await
}

/// The list for a query, with a complaint about what was asked of it.
pub(super) async fn list_with(
    http: &ApiState,
    visit: &RequestContext,
    query: &Form,
    complaint: Option<String>,
) -> Result<Response, PageError> {
    let typed = FilterForm::read(query, Utc::now());
    if let Some(plainly) = &typed.plainly
        && complaint.is_none()
    {
        return Ok(Redirect::to(plainly).into_response());
    }
    let view = match view(http, visit).await {
        Ok(view) => view,
        Err(waiting) => return Ok(waiting),
    };
    let found = match typed.errors.is_empty() {
        false => FoundLetters::Unread,
        true if view.counts().iter().sum::<u64>() == 0 => FoundLetters::NothingAtAll,
        true => found(http, &typed.filter, query.given("cursor")).await?,
    };
    let spans = [("last hour", "1h"), ("last 24 hours", "24h"), ("last 7 days", "7days")];
    let spans = spans.map(|(words, since)| (words, typed.since(since)));
    let frame = Layout::new(visit, "Dead letters");
    Ok(page(&LettersPage { frame, typed, found, complaint, spans, may_change: visit.may(Role::Operator) }))
}

async fn found(http: &ApiState, filter: &LetterFilter, cursor: Option<&str>) -> Result<FoundLetters, PageError> {
    let before = cursor.map(|cursor| query::offset_of(cursor, filter)).transpose()?;
    let of_all_states = LetterFilter { state: None, ..filter.clone() };
    let counted = tally(http, filter.clone()).await?;
    let states = match (filter.state, of_all_states == LetterFilter::default()) {
        (None, _) => counted.states.clone(),
        (Some(_), true) => {
            let counts = http.dead_letters.view.counts();
            dead_letter::LetterState::ALL.into_iter().zip(counts).collect()
        }
        (Some(_), false) => tally(http, of_all_states).await?.states,
    };
    let tabs = tabs(filter, &states);
    if counted.total == 0 {
        return Ok(FoundLetters::Nothing { tabs });
    }
    let deadline = Instant::now() + SEARCH_TIME;
    let letters = block_in_place(|| http.dead_letters.view.page(filter, before, PER_PAGE, deadline))?;
    let (total, span) = (counted.total, counted.span);
    let time = |milliseconds| chrono::DateTime::from_timestamp_millis(milliseconds).map(Time);
    let changed = filter.or_pending().state.unwrap_or(dead_letter::LetterState::Pending);
    let count = states.get(&changed).copied().unwrap_or_default();
    let can_be_changed = changed != dead_letter::LetterState::Replaying && count > 0;
    let all = can_be_changed.then(|| All {
        words: format!("all {} {} that match", Count(count), changed.as_str()),
        can_be_discarded: changed == dead_letter::LetterState::Pending,
    });
    // Where nothing is ticked, the same page comes back.
    let mut here = query::fields(filter);
    here.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
    let older = letters.next.map(|before| {
        let mut fields = query::fields(filter);
        fields.push(("cursor", query::cursor(before, filter)));
        at(&fields)
    });
    Ok(FoundLetters::Letters(Box::new(Letters {
        total: Count(total),
        oldest: span.and_then(|(oldest, _)| time(oldest)),
        newest: span.and_then(|(_, newest)| time(newest)),
        tabs,
        groups: groups(filter, counted, |campaign, webhook| place(http, campaign, webhook)),
        rows: letters.letters.into_iter().map(|kept| LetterRow::new(kept.letter)).collect(),
        all,
        fields: here,
        newer: before.map(|_| list_of(filter)),
        older,
    })))
}

/// Where in its campaign a webhook is: `Welcome Message · 4`. One that is gone, or can't be read, is called by its id.
fn place(http: &ApiState, campaign: &str, webhook: &str) -> Option<String> {
    let stored = http.store.campaign(campaign).ok()??;
    let place = stored.campaign.place_of(&WebhookId::new(webhook))?;
    let label = &place.section.label;
    Some(place.entry.map_or_else(|| label.clone(), |entry| format!("{label} · {}", entry.keyword)))
}
