//! Campaigns: the list, the page of one with its sections and menus, and changes of a whole campaign.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};
use waypost_core::access::Role;
use waypost_core::campaign::{Campaign, MenuEntry, RedirectKind, Section, SectionKind, Webhook, WebhookKind};
use waypost_core::document;
use waypost_core::violation::Violation;
use waypost_engine::campaigns::Precondition;
use waypost_engine::campaigns::error::CampaignError;
use waypost_engine::campaigns::hold::StreamStatus;
use waypost_engine::view_sync::SyncState;
use waypost_store::{StoreError, StoredCampaign};

use super::campaign_version::{self, changed_meanwhile};
use super::edit_target::{EditTarget, no_such_place};
use super::form::{Form, FormQuery, with_query};
use super::form_errors::Errors;
use super::last_change::LastChange;
use super::layout::{Layout, PageError, RequestContext, page, page_with, with_audit};
use super::links;
use crate::api_state::ApiState;
use crate::extract::Id;
use crate::problem::Problem;
use crate::route::Route;

const CAMPAIGNS_PER_PAGE: usize = 50;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/campaigns", Role::Viewer, list),
        Route::get("/new-campaign", Role::Editor, show_new_form),
        Route::post("/new-campaign", Role::Editor, create),
        Route::get("/campaigns/{id}", Role::Viewer, show),
        Route::post("/campaigns/{id}/rename", Role::Editor, rename),
        Route::post("/campaigns/{id}/remove", Role::Editor, remove),
        Route::post("/campaigns/{id}/delete", Role::Editor, delete),
    ]
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage {
    layout: Layout,
    q: String,
    campaigns: Vec<CampaignRow>,
    next: Option<String>,
    /// Whether this worker has not read all campaigns yet.
    is_catching_up: bool,
    /// Why campaigns may be missing from the stream.
    incomplete_reason: Option<String>,
    may_edit: bool,
}

struct CampaignRow {
    id: String,
    name: String,
    href: String,
    sections: usize,
    webhooks: usize,
    last_change: Option<LastChange>,
}

impl CampaignRow {
    fn new(stored: &StoredCampaign) -> Self {
        let campaign = &stored.campaign;
        Self {
            id: campaign.id.clone(),
            name: campaign.display_name().to_owned(),
            href: links::campaign(&campaign.id),
            sections: campaign.sections.len(),
            webhooks: campaign.places().count(),
            last_change: stored.author.as_ref().map(LastChange::from),
        }
    }
}

async fn list(
    State(state): State<ApiState>,
    context: RequestContext,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    let q = query.get("q").trim().to_owned();
    let (after, limit) = (query.get_non_blank("after"), CAMPAIGNS_PER_PAGE + 1);
    let mut campaigns = state.campaigns.search(&q, after, limit, |stored| CampaignRow::new(&stored))?;
    let next = (campaigns.len() > CAMPAIGNS_PER_PAGE).then(|| {
        campaigns.truncate(CAMPAIGNS_PER_PAGE);
        let last = campaigns.last().map_or("", |last| last.id.as_str());
        with_query("/campaigns", &[("q", &q), ("after", last)])
    });
    let incomplete_reason = match &*state.campaigns.stream_status().borrow() {
        StreamStatus::Incomplete(hold) => Some(hold.to_string()),
        StreamStatus::Following | StreamStatus::Comparing => None,
    };
    let is_catching_up = *state.campaigns.sync_state().borrow() == SyncState::CatchingUp;
    let (layout, may_edit) = (Layout::new(&context, "Campaigns"), context.has_role(Role::Editor));
    Ok(page(&CampaignsPage { layout, q, campaigns, next, is_catching_up, incomplete_reason, may_edit }))
}

#[derive(Template)]
#[template(path = "campaign_new.html")]
struct NewCampaignPage {
    layout: Layout,
    id: String,
    name: String,
    errors: Errors,
}

async fn show_new_form(context: RequestContext) -> Response {
    let (id, name, errors) = Default::default();
    page(&NewCampaignPage { layout: Layout::new(&context, "New campaign"), id, name, errors })
}

async fn create(State(state): State<ApiState>, context: RequestContext, form: Form) -> Result<Response, PageError> {
    let (id, name) = (form.get("id").trim().to_owned(), form.get("name").trim().to_owned());
    let document = json!({
        "id": id,
        "name": Some(&name).filter(|name| !name.is_empty()),
        "sections": [{ "label": "Welcome Message", "kind": "welcomeMessage" }],
    });
    let result = match id.as_str() {
        // Browsers resolve such a path segment, so its page can't be reached.
        "." | ".." => Err(CampaignError::Invalid(vec![Violation::new(
            "$.id",
            "Must not be `.` or `..`: a URL can't contain it. Choose another id.",
        )])),
        _ => {
            let campaign = document::from_value(&document, state.campaigns.url_policy());
            let create = |_: Option<&StoredCampaign>| campaign.clone().map_err(CampaignError::Invalid);
            state.campaigns.update(&id, Precondition::Absent, context.name(), create).await
        }
    };
    let errors = match result {
        Ok(_) => return Ok(with_audit(&id, Redirect::to(&links::campaign(&id)).into_response())),
        Err(CampaignError::Invalid(violations)) => Errors::new(violations, "$"),
        Err(CampaignError::Precondition) => {
            Errors::single("id", "A campaign with this id already exists. Choose another id.")
        }
        Err(error) => return Err(error.into()),
    };
    let form_page = page(&NewCampaignPage { layout: Layout::new(&context, "New campaign"), id, name, errors });
    Ok(with_audit("nothing: the form has errors", form_page))
}

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage {
    layout: Layout,
    id: String,
    name: String,
    /// The name as stored. Empty if the campaign has none.
    stored_name: String,
    href: String,
    version: u64,
    last_change: Option<LastChange>,
    saved: Option<String>,
    /// Why a change was rejected.
    rejections: Vec<String>,
    sections: Vec<SectionRow>,
    add_section: String,
    may_edit: bool,
}

struct SectionRow {
    anchor: String,
    label: String,
    kind: &'static str,
    message: String,
    redirect: Option<String>,
    menu: Vec<EntryRow>,
    webhook: Option<WebhookIcon>,
    edit: String,
    add_entry: String,
}

struct EntryRow {
    keyword: String,
    /// For the confirmation of a deletion.
    name: String,
    option: String,
    redirect_type: &'static str,
    redirect_to: String,
    webhook: Option<WebhookIcon>,
    edit: String,
}

/// The link icon of a webhook.
struct WebhookIcon {
    kind: &'static str,
    description: String,
    enabled: bool,
    edit: String,
}

impl SectionRow {
    fn new(campaign: &str, index: usize, section: &Section) -> Self {
        let target = EditTarget::new(section, None);
        let edit = target.editor_href(campaign);
        let redirect = section.redirect.as_ref();
        Self {
            anchor: format!("section-{index}"),
            label: section.label.clone(),
            kind: match section.kind {
                SectionKind::WelcomeMessage => "Welcome Message",
                SectionKind::Interaction => "Interaction",
            },
            message: section.message.clone().unwrap_or_default(),
            redirect: redirect.map(|redirect| match &redirect.to {
                Some(to) => format!("{} {to}", redirect_type(redirect.kind)),
                None => redirect_type(redirect.kind).to_owned(),
            }),
            menu: section.menu.iter().map(|entry| EntryRow::new(campaign, section, entry)).collect(),
            webhook: section
                .webhook
                .as_ref()
                .map(|webhook| WebhookIcon::new(webhook, WebhookKind::from_redirect(redirect), &edit)),
            add_entry: EditTarget::NewEntry { label: section.label.clone() }.editor_href(campaign),
            edit,
        }
    }
}

impl EntryRow {
    fn new(campaign: &str, section: &Section, entry: &MenuEntry) -> Self {
        let edit = EditTarget::new(section, Some(entry)).editor_href(campaign);
        let redirect = entry.redirect.as_ref();
        let option = entry.option.clone().unwrap_or_default();
        Self {
            keyword: entry.keyword.to_string(),
            name: format!("entry {}", entry.keyword),
            option,
            redirect_type: redirect.map_or("–", |redirect| redirect_type(redirect.kind)),
            redirect_to: redirect.and_then(|redirect| redirect.to.clone()).unwrap_or_else(|| "–".to_owned()),
            webhook: entry
                .webhook
                .as_ref()
                .map(|webhook| WebhookIcon::new(webhook, WebhookKind::from_redirect(redirect), &edit)),
            edit,
        }
    }
}

impl WebhookIcon {
    fn new(webhook: &Webhook, kind: WebhookKind, edit: &str) -> Self {
        let (kind, description) = match kind {
            WebhookKind::Redirect => ("redirect", "Webhook as the redirect"),
            WebhookKind::Underlying => ("underlying", "Webhook under the redirect"),
        };
        let suffix = if webhook.enabled { "" } else { " (disabled)" };
        let description = format!("{description}{suffix}: POST {}", webhook.url.as_str());
        Self { kind, description, enabled: webhook.enabled, edit: format!("{edit}#webhook") }
    }
}

fn redirect_type(kind: RedirectKind) -> &'static str {
    match kind {
        RedirectKind::Interaction => "Interaction",
        RedirectKind::Campaign => "Campaign",
        RedirectKind::Webhook => "Webhook",
    }
}

/// Whether the campaign has a place with this display name. The name comes from the URL, so it can be anything.
fn has_place(campaign: &Campaign, name: &str) -> bool {
    let matches = |section, entry| EditTarget::new(section, entry).display_name() == name;
    let sections = &mut campaign.sections.iter();
    sections.any(|section| matches(section, None) || section.menu.iter().any(|entry| matches(section, Some(entry))))
}

impl CampaignPage {
    fn new(context: &RequestContext, stored: &StoredCampaign) -> Self {
        let campaign = &stored.campaign;
        let (id, name) = (campaign.id.clone(), campaign.display_name().to_owned());
        let sections = campaign.sections.iter().enumerate();
        Self {
            layout: Layout::new(context, name.clone()),
            name,
            stored_name: campaign.name.clone().unwrap_or_default(),
            href: links::campaign(&id),
            version: stored.version,
            last_change: stored.author.as_ref().map(LastChange::from),
            saved: None,
            rejections: Vec::new(),
            sections: sections.map(|(index, section)| SectionRow::new(&id, index, section)).collect(),
            add_section: EditTarget::NewSection.editor_href(&id),
            may_edit: context.has_role(Role::Editor),
            id,
        }
    }
}

async fn show(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    let stored = state.campaigns.get(&id)?;
    let saved = query.get_non_blank("saved").filter(|place| has_place(&stored.campaign, place));
    Ok(page(&CampaignPage {
        saved: saved.map(|place| format!("Saved: {place}")),
        ..CampaignPage::new(&context, &stored)
    }))
}

async fn rename(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    form: Form,
) -> Result<Response, PageError> {
    let name = form.get_non_blank("name").map(Value::from);
    apply_change(&state, &context, &id, &form, "the name", |document| {
        document["name"] = name.clone().unwrap_or_default();
        Some(())
    })
    .await
}

async fn remove(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    form: Form,
) -> Result<Response, PageError> {
    let target = EditTarget::from_query(&form);
    apply_change(&state, &context, &id, &form, &target.display_name(), |document| target.remove_from(document)).await
}

/// Changes the document of a campaign if it still has the version that the form was loaded with.
async fn apply_change(
    state: &ApiState,
    context: &RequestContext,
    id: &str,
    form: &Form,
    subject: &str,
    change: impl Fn(&mut Value) -> Option<()>,
) -> Result<Response, PageError> {
    let apply = |current: Option<&StoredCampaign>| -> Result<Campaign, ChangeError> {
        let stored = current.ok_or_else(|| state.campaigns.not_found())?;
        if stored.version != campaign_version::from_form(form)? {
            return Err(changed_meanwhile(stored).into());
        }
        let mut document = serde_json::to_value(&stored.campaign).map_err(StoreError::from).map_err(Problem::from)?;
        change(&mut document).ok_or_else(no_such_place)?;
        document::from_value(&document, state.campaigns.url_policy()).map_err(ChangeError::Invalid)
    };
    match state.campaigns.update(id, Precondition::None, context.name(), apply).await {
        Ok(_) => Ok(with_audit(subject, Redirect::to(&links::campaign(id)).into_response())),
        Err(ChangeError::Invalid(violations)) => {
            let stored = state.campaigns.get(id)?;
            let rejections = violations.iter().map(ToString::to_string).collect();
            let form_page = page_with(
                StatusCode::UNPROCESSABLE_ENTITY,
                &CampaignPage { rejections, ..CampaignPage::new(context, &stored) },
            );
            Ok(with_audit("nothing: the campaign would be invalid", form_page))
        }
        Err(ChangeError::Problem(problem)) => Err(problem.into()),
    }
}

/// Why a campaign was not changed.
enum ChangeError {
    Invalid(Vec<Violation>),
    Problem(Problem),
}

impl From<CampaignError> for ChangeError {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::Invalid(violations) => Self::Invalid(violations),
            error => Self::Problem(error.into()),
        }
    }
}

impl From<Problem> for ChangeError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

async fn delete(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    form: Form,
) -> Result<Response, PageError> {
    let precondition = Precondition::Versions(vec![campaign_version::from_form(&form)?]);
    match state.campaigns.delete(&id, precondition, context.name()).await {
        Ok(()) => Ok(Redirect::to("/campaigns").into_response()),
        Err(CampaignError::Precondition) => Err(changed_meanwhile(&*state.campaigns.get(&id)?).into()),
        Err(error) => Err(error.into()),
    }
}
