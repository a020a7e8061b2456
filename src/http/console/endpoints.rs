//! Endpoints by their health, the worst first: what each takes, what its breaker does and when it lets something through.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::ApiState;
use super::super::endpoints::RECEIVERS;
use super::super::route::Route;
use super::form::{Form, Query, address};
use super::format::{self, UNKNOWN};
use super::labels::list_of;
use super::layout::{Layout, RequestContext, Time, page, updates};
use crate::config::Role;
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::endpoint::{BreakerState, EndpointStats, LastError};
use crate::worker::endpoint_registry::EndpointSnapshot;

/// So many endpoints are on one page of the list.
const PER_PAGE: usize = 50;

/// A closed breaker with so many failures is worth a look.
const FAILING: f64 = 0.1;

/// The pages of endpoints.
pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/endpoints", Role::Viewer, list), Route::get("/endpoints/live", Role::Viewer, follow)]
}

/// An endpoint as it is shown.
pub(super) struct EndpointRow {
    pub(super) endpoint: String,
    pub(super) health: Health,
    pub(super) receivers: Vec<ReceiverRow>,
    /// Receivers that are not shown.
    pub(super) more: usize,
    /// The list of its pending dead letters.
    pub(super) letters: String,
}

/// A path of an endpoint.
pub(super) struct ReceiverRow {
    pub(super) path: String,
    pub(super) health: Health,
}

/// How an endpoint or a receiver stands, in words.
pub(super) struct Health {
    /// Which symbol it has.
    pub(super) mark: &'static str,
    pub(super) breaker: &'static str,
    /// What lets requests through again, and when.
    pub(super) reopening: Option<String>,
    pub(super) in_flight: String,
    pub(super) waiting: String,
    pub(super) allowed: String,
    pub(super) parked: String,
    pub(super) failing: String,
    pub(super) latency: String,
    pub(super) last_error: Option<(Time, String)>,
}

impl EndpointRow {
    pub(super) fn new(listed: EndpointSnapshot) -> Self {
        let more = listed.receivers.len().saturating_sub(RECEIVERS);
        let receivers = listed.receivers.into_iter().take(RECEIVERS);
        Self {
            endpoint: listed.endpoint.as_str().to_owned(),
            health: Health::from_stats(&listed.standing),
            receivers: receivers
                .map(|(path, standing)| ReceiverRow { path, health: Health::from_stats(&standing) })
                .collect(),
            more,
            letters: list_of(&LetterFilter {
                endpoint: Some(listed.endpoint),
                state: Some(LetterState::Pending),
                ..LetterFilter::default()
            }),
        }
    }
}

impl Health {
    fn from_stats(standing: &EndpointStats) -> Self {
        let is_failing = standing.failure_ratio.is_some_and(|failing| failing >= FAILING);
        let (mark, breaker) = match standing.breaker {
            BreakerState::Open => ("open", "open"),
            BreakerState::HalfOpen => ("half-open", "half-open"),
            BreakerState::Closed if is_failing => ("failing", "closed"),
            BreakerState::Closed => ("closed", "closed"),
        };
        Self {
            mark,
            breaker,
            reopening: reopening(standing),
            in_flight: format::count(standing.in_flight.into()),
            waiting: format::count(standing.waiting.into()),
            allowed: format::count(standing.allowed.into()),
            parked: format::count(standing.parked.into()),
            failing: standing.failure_ratio.map_or_else(|| UNKNOWN.to_owned(), format::percent),
            latency: standing.latency_ms.map_or_else(|| UNKNOWN.to_owned(), |ms| format::seconds(ms / 1000.0)),
            last_error: standing.last_error.as_ref().map(|error| (Time(error.at), words_of(error))),
        }
    }
}

/// The status, or else what went wrong.
fn words_of(error: &LastError) -> String {
    match (error.status, &error.error) {
        (Some(status), _) => format!("answered with {status}"),
        (None, Some(error)) => error.clone(),
        (None, None) => error.cause.as_str().to_owned(),
    }
}

fn reopening(standing: &EndpointStats) -> Option<String> {
    let probe = match (standing.breaker, standing.probe_in_ms) {
        (BreakerState::Closed, _) => return None,
        (BreakerState::HalfOpen, None) => "A probe is under way.".to_owned(),
        (_, None | Some(0)) => "The next delivery that comes back is sent as a probe.".to_owned(),
        (_, Some(ms)) => {
            let seconds = ms.div_ceil(1000);
            format!("In {seconds} s the next delivery that comes back is sent as a probe.")
        }
    };
    Some(format!(
        "{probe} An answer other than 429 and 5xx closes the breaker; a failure keeps it open, for a minute at most."
    ))
}

/// What is asked for.
struct EndpointQuery {
    q: String,
    before: usize,
}

impl EndpointQuery {
    fn from_form(query: &Form) -> Self {
        Self { q: query.get("q").trim().to_owned(), before: query.get("after").parse().unwrap_or_default() }
    }

    fn address(&self, path: &str, before: usize) -> String {
        let before = if before == 0 { String::new() } else { before.to_string() };
        address(path, &[("q", &self.q), ("after", &before)])
    }
}

#[derive(Template)]
#[template(path = "endpoints.html")]
struct EndpointsPage {
    frame: Layout,
    live: String,
    list: List,
}

/// The part of the page that is kept up to date.
#[derive(Template)]
#[template(path = "endpoints.html", block = "now")]
struct Fragment {
    list: List,
}

struct List {
    q: String,
    /// Of all that were found, those whose breaker is not closed.
    summary: String,
    rows: Vec<EndpointRow>,
    next: Option<String>,
}

impl List {
    fn new(http: &ApiState, asked: &EndpointQuery) -> Self {
        let sought = asked.q.to_lowercase();
        let mut found = http.worker.endpoints.list();
        found.retain(|listed| listed.endpoint.as_str().contains(&sought));
        let count = |breaker| found.iter().filter(|listed| listed.standing.breaker == breaker).count();
        let summary = format!(
            "{}: {} open, {} half-open, {} closed",
            format::new(found.len() as u64, "endpoint", "endpoints"),
            count(BreakerState::Open),
            count(BreakerState::HalfOpen),
            count(BreakerState::Closed)
        );
        let after = asked.before.saturating_add(PER_PAGE);
        let next = (found.len() > after).then(|| asked.address("/endpoints", after));
        let rows = found.into_iter().skip(asked.before).take(PER_PAGE).map(EndpointRow::new).collect();
        Self { q: asked.q.clone(), summary, rows, next }
    }
}

async fn list(State(http): State<ApiState>, visit: RequestContext, Query(query): Query) -> Response {
    let asked = EndpointQuery::from_form(&query);
    let (live, list) = (asked.address("/endpoints/live", asked.before), List::new(&http, &asked));
    page(&EndpointsPage { frame: Layout::new(&visit, "Endpoints"), live, list })
}

async fn follow(State(http): State<ApiState>, visit: RequestContext, Query(query): Query) -> Response {
    let asked = EndpointQuery::from_form(&query);
    updates(&visit, http.history.news(), move || Fragment { list: List::new(&http, &asked) })
}
