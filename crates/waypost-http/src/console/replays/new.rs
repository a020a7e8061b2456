//! The form of a new replay, with a preview of what it would send.

use std::time::Duration;

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use waypost_core::access::Role;
use waypost_core::duration::approximate;
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::{CANARY_LETTERS, ReplayConfig};
use waypost_core::violation::Violation;
use waypost_engine::dead_letters::DeadLetterError;
use waypost_engine::replays::{ReplayPreview, ReplaySpec};

use crate::api_state::ApiState;
use crate::audit::AuditDetail;
use crate::console::dead_letters::list::list_with_nothing_ticked;
use crate::console::dead_letters::selection_form::SelectionForm;
use crate::console::form::{Form, FormQuery};
use crate::console::form_errors::Errors;
use crate::console::format::{Count, bar_percent, indented};
use crate::console::labels;
use crate::console::layout::{Layout, PageError, RequestContext, page};
use crate::console::links;
use crate::counts::by_count_with;
use crate::problem::Problem;
use crate::route::Route;

/// Fields of the form that can have errors.
const FIELDS: [&str; 2] = ["ratePerSecond", "stopOnFailureRatio"];

/// Suggested so that a replay to an endpoint that still fails stops early.
const DEFAULT_FAILURE_RATIO: &str = "0.5";

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters/replay", Role::Operator, confirm_from_query),
        Route::post("/dead-letters/replay", Role::Operator, confirm_from_form).not_audited(),
        Route::post("/replays", Role::Operator, create),
    ]
}

#[derive(Template)]
#[template(path = "replay_new.html")]
struct NewReplayPage {
    layout: Layout,
    selection: String,
    fields: Vec<(&'static str, String)>,
    replay_form: ReplayForm,
    errors: Errors,
    preview: Option<PreviewTable>,
    back: String,
}

impl NewReplayPage {
    fn is_original(&self) -> bool {
        self.replay_form.config == ReplayConfig::Original
    }

    fn canary(&self) -> u64 {
        CANARY_LETTERS
    }
}

/// The settings as text.
#[derive(Debug, Clone, PartialEq)]
struct ReplayForm {
    rate: String,
    ratio: String,
    config: ReplayConfig,
}

/// The preview: what the replay would send, and where.
struct PreviewTable {
    letters: String,
    replayable_count: u64,
    time: Option<String>,
    endpoints: Vec<Endpoint>,
    unsendable: Vec<Unsendable>,
    sample: Vec<SampleView>,
}

struct Endpoint {
    name: String,
    count: Count,
    percent: u64,
}

struct Unsendable {
    reason: &'static str,
    description: &'static str,
    count: Count,
}

struct SampleView {
    id: String,
    href: String,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl ReplayForm {
    fn read(form: &Form) -> Self {
        let config = if form.get("config") == "original" { ReplayConfig::Original } else { ReplayConfig::Current };
        let ratio = if form.has("config") { form.get("stopOnFailureRatio") } else { DEFAULT_FAILURE_RATIO };
        Self { rate: form.get("ratePerSecond").trim().to_owned(), ratio: ratio.trim().to_owned(), config }
    }

    /// The replay of the selected letters, and violations of the settings.
    fn to_spec(&self, selection: &SelectionForm) -> (ReplaySpec, Vec<Violation>) {
        let mut violations = Vec::new();
        let mut number = |text: &str, field: &str| {
            if text.is_empty() {
                return None;
            }
            let number = text.parse().ok();
            if number.is_none() {
                violations.push(Violation::new(
                    field,
                    format!("`{text}` is not a number. Enter one like 20 or 0.5, or leave the field empty."),
                ));
            }
            number
        };
        let rate_per_second = number(&self.rate, FIELDS[0]);
        let stop_on_failure_ratio = number(&self.ratio, FIELDS[1]);
        let spec =
            ReplaySpec { selection: selection.0.clone(), rate_per_second, config: self.config, stop_on_failure_ratio };
        violations.extend(spec.violations());
        (spec, violations)
    }
}

impl PreviewTable {
    fn new(preview: ReplayPreview, rate_per_second: Option<f64>) -> Self {
        let ReplayPreview { total, endpoints, unsendable, sample } = preview;
        let time = rate_per_second.and_then(|rate| {
            let seconds = Duration::try_from_secs_f64((total as f64 / rate).ceil()).ok()?;
            Some(approximate(seconds))
        });
        let endpoint =
            |(name, count): (String, u64)| Endpoint { name, count: Count(count), percent: bar_percent(count, total) };
        let unsendable_row = |(reason, count): (DeadLetterReason, u64)| Unsendable {
            reason: reason.as_str(),
            description: reason.description(),
            count: Count(count),
        };
        let sample = sample.into_iter().map(|(letter, request)| SampleView {
            href: links::dead_letter(&letter),
            id: letter.to_string(),
            method: request.method,
            url: request.url,
            headers: request.headers.into_iter().map(|(name, value)| (name, header_text(value))).collect(),
            body: indented(&request.body),
        });
        Self {
            letters: labels::letter_count(total),
            replayable_count: endpoints.values().sum(),
            time,
            endpoints: by_count_with(endpoints, String::clone).into_iter().map(endpoint).collect(),
            unsendable: by_count_with(unsendable, |reason| reason.as_str()).into_iter().map(unsendable_row).collect(),
            sample: sample.collect(),
        }
    }
}

fn header_text(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

async fn confirm_from_query(
    state: State<ApiState>,
    context: RequestContext,
    FormQuery(form): FormQuery,
) -> Result<Response, PageError> {
    confirm_from_form(state, context, form).await
}

async fn confirm_from_form(
    State(state): State<ApiState>,
    context: RequestContext,
    form: Form,
) -> Result<Response, PageError> {
    if SelectionForm::is_empty(&form) {
        return list_with_nothing_ticked(&state, &context, &form).await;
    }
    let selection = SelectionForm::read(&form).map_err(Problem::invalid)?;
    show_preview(&state, &context, selection, ReplayForm::read(&form)).await
}

/// The form with the preview and the errors of its fields.
async fn show_preview(
    state: &ApiState,
    context: &RequestContext,
    selection: SelectionForm,
    replay_form: ReplayForm,
) -> Result<Response, PageError> {
    let (selection, _) = state.dead_letters.freeze(selection.0).await?;
    let selection = SelectionForm(selection);
    let (spec, violations) = replay_form.to_spec(&selection);
    let mut errors = Errors::of_fields(violations, &FIELDS);
    // The preview does not depend on the two numbers, so it works even if they are invalid.
    let preview_spec = ReplaySpec { rate_per_second: None, stop_on_failure_ratio: None, ..spec.clone() };
    let rate = spec.rate_per_second.filter(|_| errors.is_empty());
    let preview = match state.replays.preview(&preview_spec, context.secrets()).await {
        Ok(preview) => Some(PreviewTable::new(preview, rate)),
        Err(DeadLetterError::NotFound(reason) | DeadLetterError::Conflict(reason)) => {
            errors = Errors::general(reason);
            None
        }
        Err(DeadLetterError::Invalid(violations)) => {
            errors = Errors::of_fields(violations, &FIELDS);
            None
        }
        Err(error) => return Err(error.into()),
    };
    let (fields, back) = (selection.fields(), selection.back_href());
    let selection = selection.describe();
    Ok(page(&NewReplayPage {
        layout: Layout::new(context, "Replay"),
        selection,
        fields,
        replay_form,
        errors,
        preview,
        back,
    }))
}

async fn create(State(state): State<ApiState>, context: RequestContext, form: Form) -> Result<Response, PageError> {
    let selection = SelectionForm::read(&form).map_err(Problem::invalid)?;
    let replay_form = ReplayForm::read(&form);
    let (spec, violations) = replay_form.to_spec(&selection);
    if !violations.is_empty() {
        return show_preview(&state, &context, selection, replay_form).await;
    }
    match state.replays.create(&spec, context.name()).await {
        Ok(replay) => {
            let audit_detail = AuditDetail::created_replay(&replay, &spec.selection);
            Ok((Extension(audit_detail), Redirect::to(&links::replay(&replay.id))).into_response())
        }
        // The letters were deleted or are being replayed. The preview shows it.
        Err(DeadLetterError::Invalid(_) | DeadLetterError::NotFound(_) | DeadLetterError::Conflict(_)) => {
            show_preview(&state, &context, selection, replay_form).await
        }
        Err(error) => Err(error.into()),
    }
}
