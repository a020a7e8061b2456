//! The editor of one place of a campaign (a section or a menu entry) and its webhook. The form is checked, previewed,
//! tested or saved.
//!
//! Saving changes the campaign document. If other places were changed since the page was opened, the change is applied
//! to the new version. If the same place was changed, the page shows the conflict and the user decides.

mod conflict;
pub(super) mod edit_target;
mod form;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::Utc;
use serde_json::Map;
use waypost_api::webhooks::WebhookTestResult;
use waypost_core::access::Role;
use waypost_core::campaign::Campaign;
use waypost_core::request::{self, RequestPreview};
use waypost_core::signing::DEFAULT_OVERLAP;
use waypost_engine::campaigns::{CampaignError, Precondition};
use waypost_store::{StoreError, StoredCampaign};

use self::conflict::Conflict;
use self::edit_target::EditTarget;
use self::form::{EntryForm, Header, WriteResult};
use super::super::ApiState;
use super::super::extract::Id;
use super::super::problem::Problem;
use super::super::route::Route;
use super::super::webhooks;
use super::campaigns::{self, display_name, document_bytes, no_such_place};
use super::form::{Form, FormQuery, with_query};
use super::form_errors::Errors;
use super::format;
use super::layout::{Layout, PageError, RequestContext, page, with_audit};
use super::links;

/// How often a save is repeated if another change of the same campaign was stored first.
const MAX_CONFLICT_RETRIES: usize = 5;

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

#[derive(Template)]
#[template(path = "editor.html")]
struct EditorPage {
    layout: Layout,
    campaign: String,
    campaign_href: String,
    title: String,
    target: EditTarget,
    fields: EntryForm,
    errors: Errors,
    /// The fields as JSON when the page was first opened, to detect conflicts.
    base: String,
    version: u64,
    preview: Option<Preview>,
    test_result: Option<WebhookTestResult>,
    conflict: Option<Conflict>,
    notice: Option<String>,
    /// Why the form was not saved.
    rejection: Option<String>,
    /// Suggested targets of the redirect.
    suggestions: Vec<String>,
    /// Whether the stored place has a webhook, whatever the form has.
    is_webhook_stored: bool,
    may_edit: bool,
    may_test: bool,
    focus: Option<Focus>,
}

/// Which element gets the focus after a header row was added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Focus {
    /// The key field of this row.
    Row(usize),
    AddHeader,
}

struct Preview {
    request: RequestPreview,
    body: String,
}

impl Preview {
    fn new(request: RequestPreview) -> Self {
        let indented = serde_json::from_str::<serde_json::Value>(&request.body)
            .and_then(|body| serde_json::to_string_pretty(&body));
        Self { body: indented.unwrap_or_else(|_| request.body.clone()), request }
    }
}

impl EditorPage {
    /// The URL of an action of the editor, such as `/check`.
    fn action(&self, action: &str) -> String {
        let edit = self.target.editor_href(&self.campaign);
        match edit.split_once('?') {
            Some((path, query)) => format!("{path}{action}?{query}"),
            None => edit,
        }
    }

    /// The name of a header, or its row number if it has no name yet.
    fn header_label(&self, header: &Header, number: &usize) -> String {
        if header.name.is_empty() { number.to_string() } else { header.name.clone() }
    }

    fn is_new_row(&self, row: &usize) -> bool {
        self.focus == Some(Focus::Row(*row))
    }

    fn is_row_removed(&self) -> bool {
        self.focus == Some(Focus::AddHeader)
    }

    fn header_errors(&self, header: &Header) -> Vec<&str> {
        self.errors.of_field(&format!("header {}", header.name))
    }

    /// Whether a field of the collapsed section has errors.
    fn has_collapsed_errors(&self) -> bool {
        ["secret", "timeout-ms", "max-concurrency", "rate-limit", "retry"]
            .iter()
            .any(|field| !self.errors.of_field(field).is_empty())
    }

    /// The response body of a test. Empty if there is none.
    fn test_response_body<'a>(&self, test_result: &'a WebhookTestResult) -> &'a str {
        test_result.response.answer.as_deref().unwrap_or_default()
    }
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

    /// The campaign with the fields applied, or the errors of the fields.
    fn validate(&self) -> Result<Result<Campaign, Errors>, PageError> {
        let campaign = &self.stored.campaign;
        let mut document = serde_json::to_value(campaign).map_err(StoreError::from)?;
        let WriteResult { path, mut violations } = self.fields.write(&mut document, &self.target);
        match self.state.campaigns.parse(&campaign.id, &document_bytes(&document)?, Some(&self.stored)) {
            Ok(campaign) if violations.is_empty() => return Ok(Ok(campaign)),
            Ok(_) => {}
            Err(CampaignError::Invalid(schema_violations)) => violations.extend(schema_violations),
            Err(error) => return Err(error.into()),
        }
        Ok(Err(Errors::new(violations, &path)))
    }

    /// Builds the page with the errors of the fields, or with a preview of the request if there are none.
    fn page(self) -> Result<EditorPage, PageError> {
        let campaign = &self.stored.campaign;
        // Masked values can't be saved, so there is nothing to validate.
        let validated = if self.context.has_role(Role::Editor) { self.validate()? } else { Ok(campaign.clone()) };
        let (errors, preview) = match &validated {
            Ok(campaign) => (Errors::default(), self.preview(campaign)?),
            Err(errors) => (errors.clone(), None),
        };
        let suggestions = match self.fields.redirect.as_str() {
            "campaign" => self.state.store.campaign_ids(MAX_SUGGESTIONS)?,
            _ => campaign.sections.iter().map(|section| section.label.clone()).collect(),
        };
        let place = match &self.target {
            EditTarget::NewSection => "New section".to_owned(),
            EditTarget::Section { label } => label.clone(),
            EditTarget::NewEntry { label } => format!("New menu entry of {label}"),
            EditTarget::Entry { label, keyword } => format!("{label}: entry {keyword}"),
        };
        Ok(EditorPage {
            layout: Layout::new(self.context, format!("{place} · {}", display_name(campaign))),
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
        let delivery = webhooks::test_delivery(&campaign.id, &place, Map::new())?;
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
    let editor_page = EditSession::from_stored(&state, &context, &id, &query)?.page()?;
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
    Ok(page(&EditorPage { focus, ..with_base(session.page()?, &form)? }))
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
    if !context.has_role(Role::Editor) {
        let session = EditSession::from_stored(&state, &context, &id, &query)?;
        let test_result = run_test(&session, &session.stored.campaign).await?;
        return Ok(page(&EditorPage { test_result, ..session.page()? }));
    }
    let session = EditSession::from_form(&state, &context, &id, &query, &form)?;
    let test_result = match session.validate()? {
        Ok(campaign) => run_test(&session, &campaign).await?,
        Err(_) => None,
    };
    Ok(page(&EditorPage { test_result, ..with_base(session.page()?, &form)? }))
}

async fn run_test(session: &EditSession<'_>, campaign: &Campaign) -> Result<Option<WebhookTestResult>, PageError> {
    let Some(place) = session.fields.target_after_save(&session.target).place_in(campaign) else { return Ok(None) };
    let delivery = webhooks::test_delivery(&campaign.id, &place, Map::new())?;
    Ok(Some(webhooks::send_test(session.state, delivery, session.context.secrets()).await?))
}

/// `POST …/edit`: saves the form.
async fn save(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
    form: Form,
) -> Result<Response, PageError> {
    let base: EntryForm = serde_json::from_str(form.get("base")).unwrap_or_default();
    for _ in 0..MAX_CONFLICT_RETRIES {
        let target = EditTarget::from_query(&query);
        let stored = state.campaigns.get(&id)?;
        let current = EntryForm::from_campaign(&stored.campaign, &target);
        if stored.version != campaigns::version(&form)? && current.as_ref() != Some(&base) {
            let Some(current) = current else {
                let session = EditSession::from_form(&state, &context, &id, &query, &form)?;
                let rejection =
                    "This place was deleted or renamed while you were editing it. Copy your changes from the form."
                        .to_owned();
                let editor_page = EditorPage { rejection: Some(rejection), ..with_base(session.page()?, &form)? };
                return Ok(with_audit("nothing: the place was deleted", page(&editor_page)));
            };
            let last_change = stored.last_change(&target.campaign_node(), campaigns::version(&form)?);
            let conflict = Conflict::new(last_change, &base, &current, &EntryForm::from_form(&form));
            let editor_page = EditSession::from_form(&state, &context, &id, &query, &form)?.page()?;
            let base = serde_json::to_string(&current).map_err(StoreError::from)?;
            let editor_page = EditorPage { conflict: Some(conflict), base, version: stored.version, ..editor_page };
            return Ok(with_audit("nothing: another user changed the place", page(&editor_page)));
        }
        let session =
            EditSession { state: &state, context: &context, stored, target, fields: EntryForm::from_form(&form) };
        let campaign = match session.validate()? {
            Ok(campaign) => campaign,
            Err(errors) => {
                let count = format::counted(errors.count() as u64, "error", "errors");
                let rejection = format!("{count}. Fix the highlighted fields first.");
                let editor_page = EditorPage { rejection: Some(rejection), ..with_base(session.page()?, &form)? };
                return Ok(with_audit("nothing: the form has errors", page(&editor_page)));
            }
        };
        let document = serde_json::to_vec(&campaign).map_err(StoreError::from)?;
        let precondition = Precondition::Versions(vec![session.stored.version]);
        match state.campaigns.put(&id, &document, precondition, context.name()).await {
            Ok(_) => {
                let (place, href) = saved_place(&session);
                return Ok(with_audit(&place, Redirect::to(&href).into_response()));
            }
            Err(CampaignError::Precondition) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CampaignError::Precondition.into())
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
    let base: EntryForm = serde_json::from_str(form.get("base")).unwrap_or_default();
    if session.stored.version != campaigns::version(&form)? && session.fields != base {
        return Err(campaigns::changed_meanwhile(&session.stored).into());
    }
    let precondition = Precondition::Versions(vec![session.stored.version]);
    let overlap = DEFAULT_OVERLAP;
    match state.campaigns.rotate_secret(&place.webhook.id, overlap, precondition, context.name()).await {
        Ok(_) => Ok(Redirect::to(&format!("{}&saved=secret#signing", session.target.editor_href(&id))).into_response()),
        Err(CampaignError::Precondition) => Err(campaigns::changed_meanwhile(&session.stored).into()),
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
    Ok(EditorPage { base: form.get("base").to_owned(), version: campaigns::version(form)?, ..page })
}
