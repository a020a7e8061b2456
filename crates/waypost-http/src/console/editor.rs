//! The editor of one place of a campaign (a section or a menu entry) and its webhook. The form is checked, previewed,
//! tested or saved.
//!
//! Saving changes the campaign document of now. If other places were changed since the page was opened, these changes
//! stay. If the same place was changed, the page shows the conflict and the user decides.

mod conflict;
mod form;
mod page;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::Utc;
use serde_json::Map;
use waypost_core::access::Role;
use waypost_core::campaign::Campaign;
use waypost_core::document;
use waypost_core::request;
use waypost_core::signing::DEFAULT_OVERLAP;
use waypost_engine::campaigns::Precondition;
use waypost_engine::campaigns::error::CampaignError;
use waypost_engine::webhook_test::{WebhookTest, test_delivery};
use waypost_store::{StoreError, StoredCampaign};

use self::conflict::{EditConflict, OpenedPlace};
use self::form::{EntryForm, Header, WriteResult};
use self::page::{EditorPage, Focus, Preview};
use super::campaign_version::{self, changed_meanwhile};
use super::edit_target::{EditTarget, no_such_place};
use super::form::{Form, FormQuery, with_query};
use super::form_errors::Errors;
use super::format;
use super::layout::{Layout, PageError, RequestContext, page, with_audit};
use super::links;
use crate::api_state::ApiState;
use crate::extract::Id;
use crate::problem::Problem;
use crate::route::Route;

/// How many campaigns are suggested as the target of a redirect.
const MAX_SUGGESTIONS: usize = 200;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/campaigns/{id}/edit", Role::Viewer, show),
        Route::post("/campaigns/{id}/edit", Role::Editor, save),
        Route::post("/campaigns/{id}/edit/check", Role::Editor, check).not_audited(),
        Route::post("/campaigns/{id}/edit/test", Role::Operator, test),
        Route::post("/campaigns/{id}/edit/rotate", Role::Editor, rotate),
    ]
}

/// Why a form can't be saved or previewed.
enum FormError {
    Invalid(Errors),
    Campaign(CampaignError),
}

impl From<CampaignError> for FormError {
    fn from(error: CampaignError) -> Self {
        Self::Campaign(error)
    }
}

/// Why a form was not saved.
enum SaveError {
    Conflict(EditConflict),
    Form(FormError),
}

impl From<EditConflict> for SaveError {
    fn from(conflict: EditConflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<FormError> for SaveError {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl From<CampaignError> for SaveError {
    fn from(error: CampaignError) -> Self {
        Self::Form(error.into())
    }
}

/// A campaign with the fields of the form.
struct EditedCampaign {
    campaign: Campaign,
    /// The JSON path of the edited place.
    path: String,
}

/// A request of the editor: the stored campaign, the edited place, and the fields of the form.
struct EditSession<'a> {
    state: &'a ApiState,
    context: &'a RequestContext,
    stored: Arc<StoredCampaign>,
    target: EditTarget,
    fields: EntryForm,
}

impl<'a> EditSession<'a> {
    /// Takes the fields from the stored campaign. Secrets are masked for everyone but editors.
    fn from_stored(
        state: &'a ApiState,
        context: &'a RequestContext,
        id: &str,
        query: &Form,
    ) -> Result<Self, PageError> {
        let (stored, target) = (state.campaigns.get(id)?, EditTarget::from_query(query));
        let mut fields = EntryForm::from_campaign(&stored.campaign, &target).ok_or_else(no_such_place)?;
        if !context.has_role(Role::Editor) {
            fields.mask();
        }
        Ok(Self { state, context, stored, target, fields })
    }

    /// Takes the fields from a submitted form.
    fn from_form(
        state: &'a ApiState,
        context: &'a RequestContext,
        id: &str,
        query: &Form,
        form: &Form,
    ) -> Result<Self, PageError> {
        let (stored, target) = (state.campaigns.get(id)?, EditTarget::from_query(query));
        Ok(Self { state, context, stored, target, fields: EntryForm::from_form(form) })
    }

    /// The campaign as saving would store it now.
    fn validate(&self) -> Result<Campaign, FormError> {
        let current = &self.stored.campaign;
        // Masked values can't be saved, so there is nothing to validate.
        if !self.context.has_role(Role::Editor) {
            return Ok(current.clone());
        }
        let EditedCampaign { campaign, path } = self.apply(&self.stored)?;
        let completed = self.state.campaigns.complete(&current.id, campaign, Some(current));
        completed.map_err(|error| match error {
            CampaignError::Invalid(violations) => FormError::Invalid(Errors::new(violations, &path)),
            error => FormError::Campaign(error),
        })
    }

    /// Writes the fields into the document of `stored`, and checks the rules of documents.
    fn apply(&self, stored: &StoredCampaign) -> Result<EditedCampaign, FormError> {
        let document = serde_json::to_value(&stored.campaign).map_err(StoreError::from);
        let mut document = document.map_err(CampaignError::from)?;
        let WriteResult { path, mut violations } = self.fields.write(&mut document, &self.target);
        match document::from_value(&document, self.state.campaigns.url_policy()) {
            Ok(campaign) if violations.is_empty() => return Ok(EditedCampaign { campaign, path }),
            Ok(_) => {}
            Err(document_violations) => violations.extend(document_violations),
        }
        Err(FormError::Invalid(Errors::new(violations, &path)))
    }

    /// Reads the campaign again.
    fn reload(self) -> Result<Self, PageError> {
        let stored = self.state.campaigns.get(&self.stored.campaign.id)?;
        Ok(Self { stored, ..self })
    }

    fn validated_page(self) -> Result<EditorPage, PageError> {
        let validated = self.validate();
        self.page(validated)
    }

    /// Builds the page with the errors of the fields, or with a preview of the request if there are none.
    fn page(self, validated: Result<Campaign, FormError>) -> Result<EditorPage, PageError> {
        let (errors, preview) = match validated {
            Ok(validated) => (Errors::default(), self.preview(&validated)?),
            Err(FormError::Invalid(errors)) => (errors, None),
            Err(FormError::Campaign(error)) => return Err(error.into()),
        };
        let campaign = &self.stored.campaign;
        let suggestions = match self.fields.redirect.as_str() {
            "campaign" => self.state.campaigns.ids(MAX_SUGGESTIONS),
            _ => campaign.sections.iter().map(|section| section.label.clone()).collect(),
        };
        let place = match &self.target {
            EditTarget::NewSection => "New section".to_owned(),
            EditTarget::Section { label } => label.clone(),
            EditTarget::NewEntry { label } => format!("New menu entry of {label}"),
            EditTarget::Entry { label, keyword } => format!("{label}: entry {keyword}"),
        };
        Ok(EditorPage {
            layout: Layout::new(self.context, format!("{place} · {}", campaign.display_name())),
            campaign_href: links::campaign(&campaign.id),
            campaign: campaign.id.clone(),
            title: place,
            base: serde_json::to_string(&self.fields).unwrap_or_default(),
            version: self.stored.version,
            suggestions,
            is_webhook_stored: self.target.place_in(campaign).is_some(),
            may_edit: self.context.has_role(Role::Editor),
            may_test: self.context.has_role(Role::Operator),
            target: self.target,
            fields: self.fields,
            errors,
            preview,
            test_result: None,
            conflict: None,
            notice: None,
            rejection: None,
            focus: None,
        })
    }

    /// The request that a test event would cause now.
    fn preview(&self, campaign: &Campaign) -> Result<Option<Preview>, PageError> {
        let Some(place) = self.fields.target_after_save(&self.target).place_in(campaign) else { return Ok(None) };
        let delivery = test_delivery(&campaign.id, &place, Map::new()).map_err(Problem::invalid)?;
        Ok(Some(Preview::new(request::render(&delivery, Utc::now()).preview(self.context.secrets()))))
    }
}

/// `GET …/edit`: shows the stored place.
async fn show(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    let editor_page = EditSession::from_stored(&state, &context, &id, &query)?.validated_page()?;
    // An empty new form shows no errors.
    let errors = if editor_page.target.is_new() { Errors::default() } else { editor_page.errors.clone() };
    let notice = query.get_non_blank("saved").map(|_| "Saved.".to_owned());
    Ok(page(&EditorPage { errors, notice, ..editor_page }))
}

/// `POST …/edit/check`: shows the errors of the form or the preview. Also adds or removes a header row.
async fn check(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
    form: Form,
) -> Result<Response, PageError> {
    let mut session = EditSession::from_form(&state, &context, &id, &query, &form)?;
    let headers = &mut session.fields.webhook.headers;
    let focus = match form.get("do") {
        "add-header" => {
            headers.push(Header::default());
            Some(Focus::Row(headers.len() - 1))
        }
        action => {
            let row = action.strip_prefix("remove-header-").and_then(|row| row.parse::<usize>().ok());
            row.filter(|row| *row < headers.len()).map(|row| {
                headers.remove(row);
                Focus::AddHeader
            })
        }
    };
    Ok(page(&EditorPage { focus, ..with_base(session.validated_page()?, &form)? }))
}

/// `POST …/edit/test`: sends a test event to the webhook in the form. Users who are not editors test the stored
/// webhook.
async fn test(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
    form: Form,
) -> Result<Response, PageError> {
    let is_editor = context.has_role(Role::Editor);
    let session = if is_editor {
        EditSession::from_form(&state, &context, &id, &query, &form)?
    } else {
        EditSession::from_stored(&state, &context, &id, &query)?
    };
    let validated = session.validate();
    let test_result = match &validated {
        Ok(campaign) => run_test(&session, campaign).await?,
        Err(_) => None,
    };
    let editor_page = session.page(validated)?;
    let editor_page = if is_editor { with_base(editor_page, &form)? } else { editor_page };
    Ok(page(&EditorPage { test_result, ..editor_page }))
}

async fn run_test(session: &EditSession<'_>, campaign: &Campaign) -> Result<Option<WebhookTest>, PageError> {
    let Some(place) = session.fields.target_after_save(&session.target).place_in(campaign) else { return Ok(None) };
    let delivery = test_delivery(&campaign.id, &place, Map::new()).map_err(Problem::invalid)?;
    Ok(Some(session.state.webhook_tester.send(&delivery, session.context.secrets()).await))
}

/// `POST …/edit`: saves the form.
async fn save(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
    form: Form,
) -> Result<Response, PageError> {
    let session = EditSession::from_form(&state, &context, &id, &query, &form)?;
    let opened = OpenedPlace::from_form(&form)?;
    let mut path = String::new();
    let apply = |current: Option<&StoredCampaign>| -> Result<Campaign, SaveError> {
        let stored = current.ok_or_else(|| state.campaigns.not_found())?;
        opened.check(stored, &session.target, &session.fields)?;
        let edited = session.apply(stored)?;
        path = edited.path;
        Ok(edited.campaign)
    };
    let result = state.campaigns.update::<SaveError>(&id, Precondition::None, context.name(), apply).await;
    let Err(error) = result else {
        let (place, href) = saved_place(&session);
        return Ok(with_audit(&place, Redirect::to(&href).into_response()));
    };
    let errors = match error {
        SaveError::Conflict(conflict) => return conflict_page(session.reload()?, conflict, &form),
        SaveError::Form(FormError::Invalid(errors)) => errors,
        SaveError::Form(FormError::Campaign(CampaignError::Invalid(violations))) => Errors::new(violations, &path),
        SaveError::Form(FormError::Campaign(error)) => return Err(error.into()),
    };
    let count = format::counted(errors.count() as u64, "error", "errors");
    let rejection = format!("{count}. Fix the highlighted fields first.");
    let editor_page = with_base(session.reload()?.page(Err(FormError::Invalid(errors)))?, &form)?;
    let editor_page = EditorPage { rejection: Some(rejection), ..editor_page };
    Ok(with_audit("nothing: the form has errors", page(&editor_page)))
}

/// The page of a form that was not saved, because another user changed or deleted the place.
fn conflict_page(session: EditSession<'_>, conflict: EditConflict, form: &Form) -> Result<Response, PageError> {
    let editor_page = session.validated_page()?;
    match conflict {
        EditConflict::PlaceDeleted => {
            let rejection =
                "This place was deleted or renamed while you were editing it. Copy your changes from the form."
                    .to_owned();
            let editor_page = EditorPage { rejection: Some(rejection), ..with_base(editor_page, form)? };
            Ok(with_audit("nothing: the place was deleted", page(&editor_page)))
        }
        EditConflict::PlaceChanged(conflict) => {
            let base = serde_json::to_string(&conflict.current.fields).map_err(StoreError::from)?;
            let version = conflict.current.version;
            let editor_page = EditorPage { conflict: Some(*conflict), base, version, ..editor_page };
            Ok(with_audit("nothing: another user changed the place", page(&editor_page)))
        }
    }
}

/// `POST …/edit/rotate`: creates a signing secret. The old one also signs for [`DEFAULT_OVERLAP`].
async fn rotate(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
    form: Form,
) -> Result<Response, PageError> {
    let session = EditSession::from_stored(&state, &context, &id, &query)?;
    let place = session.target.place_in(&session.stored.campaign).ok_or_else(no_such_place)?;
    if !OpenedPlace::from_form(&form)?.is_current(session.stored.version, Some(&session.fields)) {
        return Err(changed_meanwhile(&session.stored).into());
    }
    let precondition = Precondition::Versions(vec![session.stored.version]);
    let overlap = DEFAULT_OVERLAP;
    match state.campaigns.rotate_secret(&place.webhook.id, overlap, precondition, context.name()).await {
        Ok(_) => Ok(Redirect::to(&format!("{}&saved=secret#signing", session.target.editor_href(&id))).into_response()),
        Err(CampaignError::Precondition) => Err(changed_meanwhile(&session.stored).into()),
        Err(error) => Err(error.into()),
    }
}

/// The name of the saved place, and the page of the campaign that confirms it.
fn saved_place(session: &EditSession<'_>) -> (String, String) {
    let place = session.fields.target_after_save(&session.target).display_name();
    let href = with_query(&links::campaign(&session.stored.campaign.id), &[("saved", &place)]);
    (place, href)
}

/// Keeps the base and the version of the form, which are those of when the page was first opened.
fn with_base(page: EditorPage, form: &Form) -> Result<EditorPage, Problem> {
    Ok(EditorPage { base: form.get("base").to_owned(), version: campaign_version::from_form(form)?, ..page })
}
