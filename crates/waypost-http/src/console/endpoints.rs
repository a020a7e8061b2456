//! The list of endpoints, worst health first: load, limits, breaker state and the next probe of each.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use waypost_core::access::Role;
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::endpoint::{BreakerState, EndpointStats, LastError};
use waypost_engine::worker::endpoint_registry::EndpointSnapshot;

use super::form::{Form, FormQuery, with_query};
use super::format::{self, UNKNOWN};
use super::layout::{Layout, RequestContext, Time, live_template, page};
use super::links;
use crate::api_state::ApiState;
use crate::endpoints::MAX_RECEIVERS;
use crate::route::Route;

const ENDPOINTS_PER_PAGE: usize = 50;

/// From this failure ratio, an endpoint with a closed breaker is marked as failing.
const MIN_FAILING_RATIO: f64 = 0.1;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/endpoints", Role::Viewer, list), Route::get("/endpoints/live", Role::Viewer, stream)]
}

pub(super) struct EndpointRow {
    pub(super) endpoint: String,
    pub(super) health: FormattedHealth,
    pub(super) receivers: Vec<ReceiverRow>,
    /// Number of receivers that are not shown.
    pub(super) hidden_receivers: usize,
    /// The list of the endpoint's pending dead letters.
    pub(super) dead_letters_href: String,
}

/// A receiver is a path of an endpoint.
pub(super) struct ReceiverRow {
    pub(super) path: String,
    pub(super) health: FormattedHealth,
}

/// Health of an endpoint or a receiver, formatted.
pub(super) struct FormattedHealth {
    /// Name of the icon.
    pub(super) icon: &'static str,
    pub(super) breaker: &'static str,
    /// When the next probe is sent and what closes the breaker. `None` if the breaker is closed.
    pub(super) probe_text: Option<String>,
    pub(super) in_flight: String,
    pub(super) waiting: String,
    pub(super) allowed: String,
    pub(super) parked: String,
    pub(super) failing: String,
    pub(super) latency: String,
    pub(super) last_error: Option<(Time, String)>,
}

impl EndpointRow {
    pub(super) fn new(endpoint: EndpointSnapshot) -> Self {
        let hidden_receivers = endpoint.receivers.len().saturating_sub(MAX_RECEIVERS);
        let receivers = endpoint.receivers.into_iter().take(MAX_RECEIVERS);
        Self {
            endpoint: endpoint.endpoint.as_str().to_owned(),
            health: FormattedHealth::from_stats(&endpoint.stats),
            receivers: receivers
                .map(|(path, stats)| ReceiverRow { path, health: FormattedHealth::from_stats(&stats) })
                .collect(),
            hidden_receivers,
            dead_letters_href: links::letter_list(&LetterFilter {
                endpoint: Some(endpoint.endpoint),
                state: Some(LetterState::Pending),
                ..LetterFilter::default()
            }),
        }
    }
}

impl FormattedHealth {
    fn from_stats(stats: &EndpointStats) -> Self {
        let is_failing = stats.failure_ratio.is_some_and(|failing| failing >= MIN_FAILING_RATIO);
        let (icon, breaker) = match stats.breaker {
            BreakerState::Open => ("open", "open"),
            BreakerState::HalfOpen => ("half-open", "half-open"),
            BreakerState::Closed if is_failing => ("failing", "closed"),
            BreakerState::Closed => ("closed", "closed"),
        };
        Self {
            icon,
            breaker,
            probe_text: probe_text(stats),
            in_flight: format::count(stats.in_flight.into()),
            waiting: format::count(stats.waiting.into()),
            allowed: format::count(stats.allowed.into()),
            parked: format::count(stats.parked.into()),
            failing: stats.failure_ratio.map_or_else(|| UNKNOWN.to_owned(), format::percent),
            latency: stats.latency_ms.map_or_else(|| UNKNOWN.to_owned(), |ms| format::seconds(ms / 1000.0)),
            last_error: stats.last_error.as_ref().map(|error| (Time(error.at), error_text(error))),
        }
    }
}

/// The status, or the error if there was no response.
fn error_text(error: &LastError) -> String {
    match (error.status, &error.error) {
        (Some(status), _) => format!("answered with {status}"),
        (None, Some(error)) => error.clone(),
        (None, None) => error.cause.as_str().to_owned(),
    }
}

fn probe_text(stats: &EndpointStats) -> Option<String> {
    let probe = match (stats.breaker, stats.probe_in_ms) {
        (BreakerState::Closed, _) => return None,
        (BreakerState::HalfOpen, None) => "A probe is under way.".to_owned(),
        (_, None | Some(0)) => "The next requeued delivery is sent as a probe.".to_owned(),
        (_, Some(ms)) => {
            let seconds = ms.div_ceil(1000);
            format!("In {seconds} s, the next requeued delivery is sent as a probe.")
        }
    };
    Some(format!(
        "{probe} Any response other than 429 and 5xx closes the breaker. A failure keeps it open for up to one minute."
    ))
}

struct EndpointQuery {
    q: String,
    offset: usize,
}

impl EndpointQuery {
    fn from_form(form: &Form) -> Self {
        Self { q: form.get("q").trim().to_owned(), offset: form.get("after").parse().unwrap_or_default() }
    }

    fn href(&self, path: &str, offset: usize) -> String {
        let offset = if offset == 0 { String::new() } else { offset.to_string() };
        with_query(path, &[("q", &self.q), ("after", &offset)])
    }
}

#[derive(Template)]
#[template(path = "endpoints.html")]
struct EndpointsPage {
    layout: Layout,
    live: String,
    list: EndpointList,
}

/// The part of the page that is updated live.
#[derive(Template)]
#[template(path = "endpoints.html", block = "live")]
struct EndpointsFragment {
    list: EndpointList,
}

struct EndpointList {
    q: String,
    /// Number of matching endpoints by breaker state.
    summary: String,
    rows: Vec<EndpointRow>,
    next: Option<String>,
}

impl EndpointList {
    fn new(state: &ApiState, query: &EndpointQuery) -> Self {
        let needle = query.q.to_lowercase();
        let mut endpoints = state.endpoints.list();
        endpoints.retain(|endpoint| endpoint.endpoint.as_str().contains(&needle));
        let count = |breaker| endpoints.iter().filter(|endpoint| endpoint.stats.breaker == breaker).count();
        let summary = format!(
            "{}: {} open, {} half-open, {} closed",
            format::counted(endpoints.len() as u64, "endpoint", "endpoints"),
            count(BreakerState::Open),
            count(BreakerState::HalfOpen),
            count(BreakerState::Closed)
        );
        let after = query.offset.saturating_add(ENDPOINTS_PER_PAGE);
        let next = (endpoints.len() > after).then(|| query.href("/endpoints", after));
        let rows = endpoints.into_iter().skip(query.offset).take(ENDPOINTS_PER_PAGE).map(EndpointRow::new).collect();
        Self { q: query.q.clone(), summary, rows, next }
    }
}

async fn list(State(state): State<ApiState>, context: RequestContext, FormQuery(query): FormQuery) -> Response {
    let query = EndpointQuery::from_form(&query);
    let (live, list) = (query.href("/endpoints/live", query.offset), EndpointList::new(&state, &query));
    page(&EndpointsPage { layout: Layout::new(&context, "Endpoints"), live, list })
}

async fn stream(State(state): State<ApiState>, context: RequestContext, FormQuery(query): FormQuery) -> Response {
    let query = EndpointQuery::from_form(&query);
    live_template(&context, state.history.subscribe(), move || EndpointsFragment {
        list: EndpointList::new(&state, &query),
    })
}
