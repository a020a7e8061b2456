//! Giving dead letters up: asked about first, for it is for good; then done, and told how many.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};

use super::super::super::ApiState;
use super::super::super::dead_letters::{discard_audited, fault_of};
use super::super::super::problem::Problem;
use super::super::super::route::Route;
use super::super::form::{Form, Query};
use super::super::form_errors::Errors;
use super::super::format::Count;
use super::super::labels::dead_letters;
use super::super::layout::{Layout, PageError, RequestContext, page, with_audit};
use super::list_with;
use super::selection_form::SelectionForm;
use crate::config::Role;
use crate::dead_letters::{DeadLetterError, Discarded, Remainder};
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::record::MAX_BECAUSE_CHARS;
use crate::delivery::dead_letter::selection::Selection;

/// The fields of the form that can have errors.
const FIELDS: [&str; 1] = ["because"];

/// The pages of a discard.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters/discard", Role::Operator, ask_of_address),
        Route::post("/dead-letters/discard", Role::Operator, ask_of_form).not_audited(),
        Route::post("/dead-letters/discarded", Role::Operator, discard),
    ]
}

#[derive(Template)]
#[template(path = "dead_letters_discard.html")]
struct DiscardPage {
    frame: Layout,
    stage: DiscardStep,
    which: String,
    fields: Vec<(&'static str, String)>,
    because: String,
    errors: Errors,
    back: String,
}

/// How far it has come.
enum DiscardStep {
    /// So many are asked about.
    Asked { count: u64 },
    /// There is nothing to give up, or it can't be.
    Impossible,
    /// So many were given up.
    Done { discarded: Discarded, pending: Count },
}

impl DiscardPage {
    fn words(&self, count: &u64) -> String {
        dead_letters(*count)
    }

    fn has_rest(&self, discarded: &Discarded) -> bool {
        discarded.rest == Remainder::Some
    }

    fn max_because(&self) -> usize {
        MAX_BECAUSE_CHARS
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
    ask(&http, &visit, picked, String::new(), Errors::default()).await
}

/// The list again, where a button was pressed for letters that were to be ticked.
pub(in super::super) async fn nothing_ticked(
    http: &ApiState,
    visit: &RequestContext,
    form: &Form,
) -> Result<Response, PageError> {
    let complaint = "No dead letter is ticked: tick some, or choose all that match.".to_owned();
    let query = form.only(&[&LetterFilter::FIELDS[..], &["cursor"]].concat());
    list_with(http, visit, &query, Some(complaint)).await
}

async fn ask(
    http: &ApiState,
    visit: &RequestContext,
    picked: SelectionForm,
    because: String,
    errors: Errors,
) -> Result<Response, PageError> {
    let (picked, count) = picked.bounded(http).await?;
    let refused = match &picked.0 {
        Selection::Ids(ids) => http.dead_letters.check(ids, |state| state == LetterState::Pending).await.err(),
        Selection::Filter(filter) if filter.or_pending().state != Some(LetterState::Pending) => {
            Some(DeadLetterError::Conflict("Only pending dead letters can be discarded.".to_owned()))
        }
        Selection::Filter(_) if count == 0 => {
            Some(DeadLetterError::Conflict("No pending dead letter matches.".to_owned()))
        }
        Selection::Filter(_) => None,
    };
    let (stage, errors) = match refused {
        Some(DeadLetterError::Unknown(why) | DeadLetterError::Conflict(why)) => {
            (DiscardStep::Impossible, Errors::rest_of(why))
        }
        Some(refused) => return Err(refused.into()),
        None => (DiscardStep::Asked { count }, errors),
    };
    shown(visit, &picked, stage, because, errors)
}

async fn discard(State(http): State<ApiState>, visit: RequestContext, form: Form) -> Result<Response, PageError> {
    let picked = SelectionForm::read(&form).map_err(Problem::of_faults)?;
    let Some(because) = form.given("because").map(str::to_owned) else {
        let errors = Errors::one(FIELDS[0], "say why: it is kept with each of them, for whoever asks later");
        return Ok(with_audit("nothing: no reason is given", ask(&http, &visit, picked, String::new(), errors).await?));
    };
    if let Some(fault) = fault_of(Some(&because), &picked.0) {
        let errors = Errors::one(FIELDS[0], &fault.message);
        return Ok(with_audit("nothing: the form has faults", ask(&http, &visit, picked, because, errors).await?));
    }
    match discard_audited(&http, picked.0.clone(), visit.name(), Some(because.clone())).await {
        Ok((discarded, about)) => {
            let pending = Count(http.dead_letters.view.counts()[LetterState::Pending as usize]);
            let stage = DiscardStep::Done { discarded, pending };
            Ok((Extension(about), shown(&visit, &picked, stage, because, Errors::default())?).into_response())
        }
        // Somebody else was quicker.
        Err(DeadLetterError::Unknown(why) | DeadLetterError::Conflict(why)) => {
            shown(&visit, &picked, DiscardStep::Impossible, because, Errors::rest_of(why))
        }
        Err(DeadLetterError::Faults(faults)) => {
            shown(&visit, &picked, DiscardStep::Impossible, because, Errors::of_fields(faults, &FIELDS))
        }
        Err(refused) => Err(refused.into()),
    }
}

fn shown(
    visit: &RequestContext,
    picked: &SelectionForm,
    stage: DiscardStep,
    because: String,
    errors: Errors,
) -> Result<Response, PageError> {
    let (which, fields, back) = (picked.in_words(), picked.fields(), picked.back());
    let frame = Layout::new(visit, "Discard");
    Ok(page(&DiscardPage { frame, stage, which, fields, because, errors, back }))
}
