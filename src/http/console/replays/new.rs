//! A replay before it is one: what it would do, and how it shall go about it.

use std::time::Duration;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::super::super::ApiState;
use super::super::super::problem::Problem;
use super::super::super::replays::{ReplayPreviewResponse, create_audited};
use super::super::super::route::Route;
use super::super::dead_letters::nothing_ticked;
use super::super::dead_letters::selection_form::SelectionForm;
use super::super::form::{Form, Query};
use super::super::form_errors::Errors;
use super::super::format::indented;
use super::super::format::{Count, length};
use super::super::labels;
use super::super::layout::{Layout, PageError, RequestContext, page};
use super::super::links;
use crate::config::Role;
use crate::dead_letters::DeadLetterError;
use crate::delivery::duration::rough;
use crate::delivery::replay::{CANARY, ReplayConfig};
use crate::delivery::violation::Violation;
use crate::replays::ReplaySpec;

/// The fields of the form that can have errors.
const FIELDS: [&str; 2] = ["ratePerSecond", "stopOnFailureRatio"];

/// What is proposed: whoever repairs at night does not send everything into a wall.
const PROPOSED_RATIO: &str = "0.5";

/// The pages of an order.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters/replay", Role::Operator, ask_of_address),
        Route::post("/dead-letters/replay", Role::Operator, ask_of_form).not_audited(),
        Route::post("/replays", Role::Operator, create),
    ]
}

#[derive(Template)]
#[template(path = "replay_new.html")]
struct NewReplayPage {
    frame: Layout,
    which: String,
    fields: Vec<(&'static str, String)>,
    typed: ReplayForm,
    errors: Errors,
    forecast: Option<PreviewTable>,
    back: String,
}

impl NewReplayPage {
    fn is_original(&self) -> bool {
        self.typed.config == ReplayConfig::Original
    }

    fn canary(&self) -> u64 {
        CANARY
    }
}

/// What is in the form.
#[derive(Debug, Clone, PartialEq)]
struct ReplayForm {
    rate: String,
    ratio: String,
    config: ReplayConfig,
}

/// What it would do.
struct PreviewTable {
    words: String,
    sendable: u64,
    time: Option<String>,
    endpoints: Vec<Endpoint>,
    unsendable: Vec<Unsendable>,
    sample: Vec<Sample>,
}

struct Endpoint {
    name: String,
    count: Count,
    percent: u64,
}

struct Unsendable {
    reason: &'static str,
    words: &'static str,
    count: Count,
}

struct Sample {
    id: String,
    address: String,
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl ReplayForm {
    fn read(form: &Form) -> Self {
        let config = if form.get("config") == "original" { ReplayConfig::Original } else { ReplayConfig::Current };
        let ratio = if form.has("config") { form.get("stopOnFailureRatio") } else { PROPOSED_RATIO };
        Self { rate: form.get("ratePerSecond").trim().to_owned(), ratio: ratio.trim().to_owned(), config }
    }

    /// The order for these letters; with what is wrong with its numbers.
    fn order(&self, picked: &SelectionForm) -> (ReplaySpec, Vec<Violation>) {
        let mut faults = Vec::new();
        let mut number = |text: &str, field: &str| {
            if text.is_empty() {
                return None;
            }
            let number = text.parse().ok();
            if number.is_none() {
                faults.push(Violation::new(
                    field,
                    format!("`{text}` is no number: write one like 20 or 0.5, or nothing"),
                ));
            }
            number
        };
        let rate_per_second = number(&self.rate, FIELDS[0]);
        let stop_on_failure_ratio = number(&self.ratio, FIELDS[1]);
        let order =
            ReplaySpec { choice: picked.0.clone(), rate_per_second, config: self.config, stop_on_failure_ratio };
        faults.extend(order.faults());
        (order, faults)
    }
}

impl PreviewTable {
    fn new(forecast: ReplayPreviewResponse, rate_per_second: Option<f64>) -> Self {
        let ReplayPreviewResponse { total, endpoints, unsendable, sample } = forecast;
        let time = rate_per_second.and_then(|rate| {
            let seconds = Duration::try_from_secs_f64((total as f64 / rate).ceil()).ok()?;
            Some(rough(seconds))
        });
        let endpoint = |endpoint: crate::http::replays::EndpointCount| Endpoint {
            percent: length(endpoint.count, total),
            count: Count(endpoint.count),
            name: endpoint.endpoint,
        };
        let sample = sample.into_iter().map(|sample| Sample {
            address: links::dead_letter(&sample.dead_letter_id),
            id: sample.dead_letter_id.to_string(),
            method: sample.request.method,
            url: sample.request.url,
            headers: sample.request.headers.into_iter().map(|(name, value)| (name, text_of(value))).collect(),
            body: indented(&sample.request.body),
        });
        Self {
            words: labels::dead_letters(total),
            sendable: endpoints.iter().map(|endpoint| endpoint.count).sum(),
            time,
            endpoints: endpoints.into_iter().map(endpoint).collect(),
            unsendable: unsendable
                .into_iter()
                .map(|count| Unsendable {
                    reason: count.reason.as_str(),
                    words: count.reason.in_words(),
                    count: Count(count.count),
                })
                .collect(),
            sample: sample.collect(),
        }
    }
}

fn text_of(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

async fn ask_of_address(
    http: State<ApiState>,
    visit: RequestContext,
    Query(form): Query,
) -> Result<Response, PageError> {
    ask_of_form(http, visit, form).await
}

async fn ask_of_form(State(http): State<ApiState>, visit: RequestContext, form: Form) -> Result<Response, PageError> {
    if SelectionForm::is_empty(&form) {
        return nothing_ticked(&http, &visit, &form).await;
    }
    let picked = SelectionForm::read(&form).map_err(Problem::of_faults)?;
    ask(&http, &visit, picked, ReplayForm::read(&form)).await
}

/// The page with what the order would do, and what is wrong with it.
async fn ask(
    http: &ApiState,
    visit: &RequestContext,
    picked: SelectionForm,
    typed: ReplayForm,
) -> Result<Response, PageError> {
    let (picked, _) = picked.bounded(http).await?;
    let (order, faults) = typed.order(&picked);
    let mut errors = Errors::of_fields(faults, &FIELDS);
    // It depends on neither of the numbers.
    let tried = ReplaySpec { rate_per_second: None, stop_on_failure_ratio: None, ..order.clone() };
    let rate = order.rate_per_second.filter(|_| errors.is_empty());
    let forecast = match http.replays.forecast(&tried, visit.secrets()).await {
        Ok(forecast) => Some(PreviewTable::new(ReplayPreviewResponse::from(forecast), rate)),
        Err(DeadLetterError::Unknown(why) | DeadLetterError::Conflict(why)) => {
            errors = Errors::rest_of(why);
            None
        }
        Err(DeadLetterError::Faults(faults)) => {
            errors = Errors::of_fields(faults, &FIELDS);
            None
        }
        Err(refused) => return Err(refused.into()),
    };
    let (which, fields, back) = (picked.in_words(), picked.fields(), picked.back());
    Ok(page(&NewReplayPage { frame: Layout::new(visit, "Replay"), which, fields, typed, errors, forecast, back }))
}

async fn create(State(http): State<ApiState>, visit: RequestContext, form: Form) -> Result<Response, PageError> {
    let picked = SelectionForm::read(&form).map_err(Problem::of_faults)?;
    let typed = ReplayForm::read(&form);
    let (order, faults) = typed.order(&picked);
    if !faults.is_empty() {
        return ask(&http, &visit, picked, typed).await;
    }
    match create_audited(&http, order, visit.name()).await {
        Ok((replay, about)) => Ok((Extension(about), Redirect::to(&links::replay(&replay.id))).into_response()),
        // What was to be sent is gone, or is sent already: the page says so.
        Err(DeadLetterError::Faults(_) | DeadLetterError::Unknown(_) | DeadLetterError::Conflict(_)) => {
            ask(&http, &visit, picked, typed).await
        }
        Err(refused) => Err(refused.into()),
    }
}
