//! Discarding dead letters: the confirmation with the reason, and the result.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use waypost_core::access::Role;
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter_record::MAX_DISCARD_REASON_CHARS;
use waypost_engine::dead_letters::{DeadLetterError, DiscardOutcome};

use super::list::list_with_nothing_ticked;
use super::selection_form::SelectionForm;
use crate::api_state::ApiState;
use crate::audit::AuditDetail;
use crate::console::form::{Form, FormQuery};
use crate::console::form_errors::Errors;
use crate::console::format::Count;
use crate::console::labels::letter_count;
use crate::console::layout::{Layout, PageError, RequestContext, page, with_audit};
use crate::problem::Problem;
use crate::route::Route;

/// Fields of the form that can have errors.
const FIELDS: [&str; 1] = ["because"];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters/discard", Role::Operator, confirm_from_query),
        Route::post("/dead-letters/discard", Role::Operator, confirm_from_form).not_audited(),
        Route::post("/dead-letters/discarded", Role::Operator, discard),
    ]
}

#[derive(Template)]
#[template(path = "dead_letters_discard.html")]
struct DiscardPage {
    layout: Layout,
    step: DiscardStep,
    selection: String,
    fields: Vec<(&'static str, String)>,
    because: String,
    errors: Errors,
    back: String,
}

enum DiscardStep {
    /// Asks for the reason before `count` letters are discarded.
    Confirm {
        count: u64,
    },
    /// Nothing can be discarded. The general errors say why.
    Rejected,
    Done {
        discarded: DiscardOutcome,
        pending: Count,
    },
}

impl DiscardPage {
    fn count_text(&self, count: &u64) -> String {
        letter_count(*count)
    }

    fn has_remaining(&self, discarded: &DiscardOutcome) -> bool {
        discarded.has_more
    }

    fn max_because(&self) -> usize {
        MAX_DISCARD_REASON_CHARS
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
    confirm(&state, &context, selection, String::new(), Errors::default()).await
}

async fn confirm(
    state: &ApiState,
    context: &RequestContext,
    selection: SelectionForm,
    because: String,
    errors: Errors,
) -> Result<Response, PageError> {
    let (selection, count) = state.dead_letters.freeze(selection.0).await?;
    let selection = SelectionForm(selection);
    let rejected = |reason: String| (DiscardStep::Rejected, Errors::general(reason));
    let (step, errors) = match state.dead_letters.check_discardable(&selection.0).await {
        Ok(()) if count == 0 => rejected("No pending dead letter matches.".to_owned()),
        Ok(()) => (DiscardStep::Confirm { count }, errors),
        Err(DeadLetterError::Invalid(_)) => rejected("Only pending dead letters can be discarded.".to_owned()),
        Err(DeadLetterError::NotFound(reason) | DeadLetterError::Conflict(reason)) => rejected(reason),
        Err(error) => return Err(error.into()),
    };
    render(context, &selection, step, because, errors)
}

async fn discard(State(state): State<ApiState>, context: RequestContext, form: Form) -> Result<Response, PageError> {
    let selection = SelectionForm::read(&form).map_err(Problem::invalid)?;
    let Some(because) = form.get_non_blank("because").map(str::to_owned) else {
        let errors = Errors::single(FIELDS[0], "Enter a reason. It is stored with each discarded dead letter.");
        return Ok(with_audit(
            "nothing: no reason is given",
            confirm(&state, &context, selection, String::new(), errors).await?,
        ));
    };
    match state.dead_letters.discard(&selection.0, context.name(), Some(&because)).await {
        Ok(discarded) => {
            let pending = Count(state.dead_letters.state_counts()[LetterState::Pending as usize]);
            let step = DiscardStep::Done { discarded, pending };
            let audit_detail = AuditDetail::discarded(discarded, &selection.0, Some(&because));
            Ok((Extension(audit_detail), render(&context, &selection, step, because, Errors::default())?)
                .into_response())
        }
        // Another request has changed the letters in the meantime.
        Err(DeadLetterError::NotFound(reason) | DeadLetterError::Conflict(reason)) => {
            render(&context, &selection, DiscardStep::Rejected, because, Errors::general(reason))
        }
        Err(DeadLetterError::Invalid(violations)) => {
            let errors = Errors::of_fields(violations, &FIELDS);
            if errors.of_field(FIELDS[0]).is_empty() {
                return render(&context, &selection, DiscardStep::Rejected, because, errors);
            }
            let page = confirm(&state, &context, selection, because, errors).await?;
            Ok(with_audit("nothing: the form has errors", page))
        }
        Err(error) => Err(error.into()),
    }
}

fn render(
    context: &RequestContext,
    selection: &SelectionForm,
    step: DiscardStep,
    because: String,
    errors: Errors,
) -> Result<Response, PageError> {
    let (fields, back) = (selection.fields(), selection.back_href());
    let (layout, selection) = (Layout::new(context, "Discard"), selection.describe());
    Ok(page(&DiscardPage { layout, step, selection, fields, because, errors, back }))
}
