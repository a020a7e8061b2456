//! The editor of one place of a campaign and its webhook: what is in the form is checked, previewed, tested or saved.
//!
//! What is saved is a change of the campaign. Where it was changed meanwhile elsewhere, the change is made on what it has
//! become; where the same place was changed, nobody's work is lost without their seeing it.

mod conflict;
pub(super) mod edit_target;
mod form;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::Utc;
use serde_json::Map;

use self::conflict::Conflict;
use self::edit_target::EditTarget;
use self::form::{EntryForm, Header, TypedJson};
use super::super::ApiState;
use super::super::extract::Id;
use super::super::problem::Problem;
use super::super::route::Route;
use super::super::webhooks::{self, WebhookTestResult};
use super::campaigns::{self, bytes, name_of, no_such_place};
use super::form::{Form, Query, address};
use super::form_errors::Errors;
use super::format;
use super::layout::{Layout, PageError, RequestContext, page, with_audit};
use super::links;
use crate::campaigns::{CampaignError, Precondition};
use crate::config::Role;
use crate::delivery::campaign::Campaign;
use crate::delivery::request::{self, RequestPreview};
use crate::store::{StoreError, StoredCampaign};

/// A change that loses its race against others of the same campaign is made again, this often.
const MAX_CONFLICT_RETRIES: usize = 5;

/// The most campaigns that are proposed to lead to.
const MOST_PROPOSALS: usize = 200;

/// The pages of the editor.
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
    frame: Layout,
    campaign: String,
    campaign_address: String,
    title: String,
    spot: EditTarget,
    fields: EntryForm,
    errors: Errors,
    /// The fields as they were when the page was first opened, for telling who changed what.
    base: String,
    version: u64,
    preview: Option<Preview>,
    tested: Option<WebhookTestResult>,
    conflict: Option<Conflict>,
    notice: Option<String>,
    /// Why it was not saved.
    refusal: Option<String>,
    /// Where the redirect may lead.
    proposals: Vec<String>,
    /// Whether there is a webhook already, whatever the form has.
    is_webhook_stored: bool,
    may_edit: bool,
    may_test: bool,
    focus: Option<Focus>,
}

/// Where the focus goes after a row of headers was added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Focus {
    /// The key of this row.
    Row(usize),
    AddHeader,
}

/// The request as it would be sent.
struct Preview {
    request: RequestPreview,
    body: String,
}

impl Preview {
    fn new(request: RequestPreview) -> Self {
        let pretty = serde_json::from_str::<serde_json::Value>(&request.body)
            .and_then(|body| serde_json::to_string_pretty(&body));
        Self { body: pretty.unwrap_or_else(|_| request.body.clone()), request }
    }
}

impl EditorPage {
    /// The address of one of the editor's actions.
    fn action(&self, action: &str) -> String {
        let edit = self.spot.address(&self.campaign);
        match edit.split_once('?') {
            Some((path, query)) => format!("{path}{action}?{query}"),
            None => edit,
        }
    }

    /// What a row of headers is called: by its number, as long as it has no key.
    fn name_of(&self, header: &Header, number: &usize) -> String {
        if header.name.is_empty() { number.to_string() } else { header.name.clone() }
    }

    fn is_new_row(&self, row: &usize) -> bool {
        self.focus == Some(Focus::Row(*row))
    }

    fn is_row_removed(&self) -> bool {
        self.focus == Some(Focus::AddHeader)
    }

    /// What is wrong with the header of a row.
    fn header_errors(&self, header: &Header) -> Vec<&str> {
        self.errors.of_field(&format!("header {}", header.name))
    }

    /// Whether something is wrong with what is folded away.
    fn is_folded_faulty(&self) -> bool {
        ["secret", "timeout-ms", "max-concurrency", "rate-limit", "retry"]
            .iter()
            .any(|field| !self.errors.of_field(field).is_empty())
    }

    /// The body of an answer, as text.
    fn answer_of<'a>(&self, tested: &'a WebhookTestResult) -> &'a str {
        tested.response.answer.as_deref().unwrap_or_default()
    }
}

/// One look at a place: the campaign as it is, and what is in the form.
struct EditSession<'a> {
    http: &'a ApiState,
    visit: &'a RequestContext,
    stored: Arc<StoredCampaign>,
    spot: EditTarget,
    fields: EntryForm,
}

impl<'a> EditSession<'a> {
    /// The place as it is.
    fn stored(http: &'a ApiState, visit: &'a RequestContext, id: &str, query: &Form) -> Result<Self, PageError> {
        let (stored, spot) = (http.campaigns.get(id)?, EditTarget::of_query(query));
        let mut fields = EntryForm::from_campaign(&stored.campaign, &spot).ok_or_else(no_such_place)?;
        if !visit.may(Role::Editor) {
            fields.mask();
        }
        Ok(Self { http, visit, stored, spot, fields })
    }

    /// The place as a form has it.
    fn given(
        http: &'a ApiState,
        visit: &'a RequestContext,
        id: &str,
        query: &Form,
        form: &Form,
    ) -> Result<Self, PageError> {
        let (stored, spot) = (http.campaigns.get(id)?, EditTarget::of_query(query));
        Ok(Self { http, visit, stored, spot, fields: EntryForm::of_form(form) })
    }

    /// The campaign that the fields would make, or what is wrong with them.
    fn read(&self) -> Result<Result<Campaign, Errors>, PageError> {
        let campaign = &self.stored.campaign;
        let mut document = serde_json::to_value(campaign).map_err(StoreError::from)?;
        let TypedJson { path, mut faults } = self.fields.write(&mut document, &self.spot);
        match self.http.campaigns.read(&campaign.id, &bytes(&document)?, Some(&self.stored)) {
            Ok(campaign) if faults.is_empty() => return Ok(Ok(campaign)),
            Ok(_) => {}
            Err(CampaignError::Faults(more)) => faults.extend(more),
            Err(refused) => return Err(refused.into()),
        }
        Ok(Err(Errors::new(faults, &path)))
    }

    /// The page, with what is wrong, and the request where nothing is.
    fn page(self) -> Result<EditorPage, PageError> {
        let campaign = &self.stored.campaign;
        // What is masked is nothing that could be saved.
        let read = if self.visit.may(Role::Editor) { self.read()? } else { Ok(campaign.clone()) };
        let (errors, preview) = match &read {
            Ok(campaign) => (Errors::default(), self.preview(campaign)?),
            Err(errors) => (errors.clone(), None),
        };
        let proposals = match self.fields.redirect.as_str() {
            "campaign" => self.http.store.campaign_ids(MOST_PROPOSALS)?,
            _ => campaign.sections.iter().map(|section| section.label.clone()).collect(),
        };
        let place = match &self.spot {
            EditTarget::NewSection => "New section".to_owned(),
            EditTarget::Section { label } => label.clone(),
            EditTarget::NewEntry { label } => format!("New menu entry of {label}"),
            EditTarget::Entry { label, keyword } => format!("{label}: entry {keyword}"),
        };
        Ok(EditorPage {
            frame: Layout::new(self.visit, format!("{place} · {}", name_of(campaign))),
            campaign_address: links::campaign(&campaign.id),
            campaign: campaign.id.clone(),
            title: place,
            base: serde_json::to_string(&self.fields).unwrap_or_default(),
            version: self.stored.version,
            proposals,
            is_webhook_stored: self.spot.place_in(campaign).is_some(),
            may_edit: self.visit.may(Role::Editor),
            may_test: self.visit.may(Role::Operator),
            spot: self.spot,
            fields: self.fields,
            errors,
            preview,
            tested: None,
            conflict: None,
            notice: None,
            refusal: None,
            focus: None,
        })
    }

    /// The request of a sample event, as it would be sent now.
    fn preview(&self, campaign: &Campaign) -> Result<Option<Preview>, PageError> {
        let Some(place) = self.fields.spot_after(&self.spot).place_in(campaign) else { return Ok(None) };
        let delivery = webhooks::sample_of(&campaign.id, &place, Map::new())?;
        Ok(Some(Preview::new(request::render(&delivery, Utc::now()).shown(self.visit.secrets()))))
    }
}

/// `GET …/edit`: the place as it is.
async fn show(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
) -> Result<Response, PageError> {
    let shown = EditSession::stored(&http, &visit, &id, &query)?.page()?;
    // Nothing is wrong with what nobody has filled in yet.
    let errors = if shown.spot.is_new() { Errors::default() } else { shown.errors.clone() };
    let notice = query.given("saved").map(|_| "Saved.".to_owned());
    Ok(page(&EditorPage { errors, notice, ..shown }))
}

/// `POST …/edit/check`: what is wrong with the form, and the request; a row of headers more or less.
async fn check(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
    form: Form,
) -> Result<Response, PageError> {
    let mut draft = EditSession::given(&http, &visit, &id, &query, &form)?;
    let headers = &mut draft.fields.webhook.headers;
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
    Ok(page(&EditorPage { focus, ..opened(draft.page()?, &form)? }))
}

/// `POST …/edit/test`: sends a sample to the webhook as the form has it; as it is stored, for who may not edit it.
async fn test(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
    form: Form,
) -> Result<Response, PageError> {
    if !visit.may(Role::Editor) {
        let draft = EditSession::stored(&http, &visit, &id, &query)?;
        let tested = tested(&draft, &draft.stored.campaign).await?;
        return Ok(page(&EditorPage { tested, ..draft.page()? }));
    }
    let draft = EditSession::given(&http, &visit, &id, &query, &form)?;
    let tested = match draft.read()? {
        Ok(campaign) => tested(&draft, &campaign).await?,
        Err(_) => None,
    };
    Ok(page(&EditorPage { tested, ..opened(draft.page()?, &form)? }))
}

async fn tested(draft: &EditSession<'_>, campaign: &Campaign) -> Result<Option<WebhookTestResult>, PageError> {
    let Some(place) = draft.fields.spot_after(&draft.spot).place_in(campaign) else { return Ok(None) };
    let delivery = webhooks::sample_of(&campaign.id, &place, Map::new())?;
    Ok(Some(webhooks::send_test(draft.http, delivery, draft.visit.secrets()).await?))
}

/// `POST …/edit`: saves.
async fn save(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
    form: Form,
) -> Result<Response, PageError> {
    let base: EntryForm = serde_json::from_str(form.get("base")).unwrap_or_default();
    for _ in 0..MAX_CONFLICT_RETRIES {
        let spot = EditTarget::of_query(&query);
        let stored = http.campaigns.get(&id)?;
        let now = EntryForm::from_campaign(&stored.campaign, &spot);
        if stored.version != campaigns::version(&form)? && now.as_ref() != Some(&base) {
            let Some(now) = now else {
                let draft = EditSession::given(&http, &visit, &id, &query, &form)?;
                let refusal = "this place was deleted meanwhile. The form has yours still, to be copied.".to_owned();
                let shown = EditorPage { refusal: Some(refusal), ..opened(draft.page()?, &form)? };
                return Ok(with_audit("nothing: the place is gone", page(&shown)));
            };
            let changed = stored.last_change(&spot.edited(), campaigns::version(&form)?);
            let conflict = Conflict::new(changed, &base, &now, &EntryForm::of_form(&form));
            let shown = EditSession::given(&http, &visit, &id, &query, &form)?.page()?;
            let base = serde_json::to_string(&now).map_err(StoreError::from)?;
            let shown = EditorPage { conflict: Some(conflict), base, version: stored.version, ..shown };
            return Ok(with_audit("nothing: changed meanwhile", page(&shown)));
        }
        let draft = EditSession { http: &http, visit: &visit, stored, spot, fields: EntryForm::of_form(&form) };
        let campaign = match draft.read()? {
            Ok(campaign) => campaign,
            Err(errors) => {
                let refusal = format!("{}, told below.", format::new(errors.count() as u64, "fault", "faults"));
                let shown = EditorPage { refusal: Some(refusal), ..opened(draft.page()?, &form)? };
                return Ok(with_audit("nothing: the form has faults", page(&shown)));
            }
        };
        let document = serde_json::to_vec(&campaign).map_err(StoreError::from)?;
        let precondition = Precondition::Versions(vec![draft.stored.version]);
        match http.campaigns.put(&id, &document, precondition, visit.name()).await {
            Ok(_) => {
                let (place, address) = after(&draft);
                return Ok(with_audit(&place, Redirect::to(&address).into_response()));
            }
            Err(CampaignError::Precondition) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(CampaignError::Precondition.into())
}

/// `POST …/edit/rotate`: a new signing secret; the one it has signs beside it for a while.
async fn rotate(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
    form: Form,
) -> Result<Response, PageError> {
    let draft = EditSession::stored(&http, &visit, &id, &query)?;
    let place = draft.spot.place_in(&draft.stored.campaign).ok_or_else(no_such_place)?;
    let base: EntryForm = serde_json::from_str(form.get("base")).unwrap_or_default();
    if draft.stored.version != campaigns::version(&form)? && draft.fields != base {
        return Err(campaigns::changed_meanwhile(&draft.stored).into());
    }
    let precondition = Precondition::Versions(vec![draft.stored.version]);
    let overlap = crate::delivery::signing::DEFAULT_OVERLAP;
    match http.campaigns.rotate_secret(&place.webhook.id, overlap, precondition, visit.name()).await {
        Ok(_) => Ok(Redirect::to(&format!("{}&saved=secret#signing", draft.spot.address(&id))).into_response()),
        Err(CampaignError::Precondition) => Err(campaigns::changed_meanwhile(&draft.stored).into()),
        Err(refused) => Err(refused.into()),
    }
}

/// What was saved, and where that leads: to the campaign, which shows it.
fn after(draft: &EditSession<'_>) -> (String, String) {
    let place = draft.fields.spot_after(&draft.spot).in_words();
    let address = address(&links::campaign(&draft.stored.campaign.id), &[("saved", &place)]);
    (place, address)
}

/// The page with what it was opened on, which the form carries along.
fn opened(page: EditorPage, form: &Form) -> Result<EditorPage, Problem> {
    Ok(EditorPage { base: form.get("base").to_owned(), version: campaigns::version(form)?, ..page })
}
