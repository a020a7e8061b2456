//! Campaigns: the list, one with its sections and menus, and what is changed of it as a whole.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};

use super::super::ApiState;
use super::super::extract::Id;
use super::super::problem::Problem;
use super::super::route::Route;
use super::editor::edit_target::EditTarget;
use super::form::{Form, Query, address};
use super::form_errors::Errors;
use super::layout::{Layout, PageError, RequestContext, Time, page, page_with, with_audit};
use super::links;
use crate::campaigns::hold::LogStatus;
use crate::campaigns::{CampaignError, Precondition};
use crate::config::Role;
use crate::delivery::campaign::{Campaign, MenuEntry, RedirectKind, Section, SectionKind, Webhook, WebhookKind};
use crate::delivery::violation::Violation;
use crate::store::{ChangeAuthor, Store, StoreError, StoredCampaign};
use crate::view_sync::SyncState;

/// So many campaigns are on one page of the list.
const PER_PAGE: usize = 50;

/// The pages of campaigns.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/campaigns", Role::Viewer, list),
        Route::get("/new-campaign", Role::Editor, ask),
        Route::post("/new-campaign", Role::Editor, create),
        Route::get("/campaigns/{id}", Role::Viewer, show),
        Route::post("/campaigns/{id}/rename", Role::Editor, rename),
        Route::post("/campaigns/{id}/remove", Role::Editor, remove),
        Route::post("/campaigns/{id}/delete", Role::Editor, delete),
    ]
}

/// Who made the last change, and when.
pub(super) struct Changed {
    pub(super) by: String,
    pub(super) at: Time,
}

impl From<&ChangeAuthor> for Changed {
    fn from(made: &ChangeAuthor) -> Self {
        Self { by: made.by.clone(), at: Time(made.at) }
    }
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage {
    frame: Layout,
    q: String,
    campaigns: Vec<CampaignRow>,
    next: Option<String>,
    /// Whether there may be more than this worker has read so far.
    is_catching_up: bool,
    /// Why campaigns may be missing.
    incomplete: Option<String>,
    may_edit: bool,
}

struct CampaignRow {
    id: String,
    name: String,
    address: String,
    sections: usize,
    webhooks: usize,
    changed: Option<Changed>,
}

impl CampaignRow {
    fn new(stored: &StoredCampaign) -> Self {
        let campaign = &stored.campaign;
        Self {
            id: campaign.id.clone(),
            name: name_of(campaign).to_owned(),
            address: links::campaign(&campaign.id),
            sections: campaign.sections.len(),
            webhooks: campaign.places().count(),
            changed: stored.made.as_ref().map(Changed::from),
        }
    }
}

async fn list(State(http): State<ApiState>, visit: RequestContext, Query(query): Query) -> Result<Response, PageError> {
    let q = query.get("q").trim().to_owned();
    let after = query.given("after").map(str::to_owned);
    // What nobody has reads every campaign.
    let mut campaigns = tokio::task::block_in_place(|| found(&http.store, &q.to_lowercase(), after))?;
    let next = (campaigns.len() > PER_PAGE).then(|| {
        campaigns.truncate(PER_PAGE);
        let last = campaigns.last().map_or("", |last| last.id.as_str());
        address("/campaigns", &[("q", &q), ("after", last)])
    });
    let incomplete = match &*http.campaigns.log_status().borrow() {
        LogStatus::Incomplete(hold) => Some(hold.to_string()),
        LogStatus::Following | LogStatus::Comparing => None,
    };
    let is_catching_up = *http.campaigns.currency().borrow() == SyncState::CatchingUp;
    let (frame, may_edit) = (Layout::new(&visit, "Campaigns"), visit.may(Role::Editor));
    Ok(page(&CampaignsPage { frame, q, campaigns, next, is_catching_up, incomplete, may_edit }))
}

/// The campaigns after `after` whose id or name has `sought` in it: those of a page, and one more where there are more.
fn found(store: &Store, sought: &str, mut after: Option<String>) -> Result<Vec<CampaignRow>, StoreError> {
    let has_it = |text: &str| text.to_lowercase().contains(sought);
    let mut campaigns: Vec<CampaignRow> = Vec::new();
    while campaigns.len() <= PER_PAGE {
        let read = store.campaigns(after.as_deref(), PER_PAGE + 1, |stored| CampaignRow::new(&stored))?;
        let Some(last) = read.last() else { break };
        after = Some(last.id.clone());
        campaigns.extend(read.into_iter().filter(|row| has_it(&row.id) || has_it(&row.name)));
    }
    Ok(campaigns)
}

#[derive(Template)]
#[template(path = "campaign_new.html")]
struct NewCampaignPage {
    frame: Layout,
    id: String,
    name: String,
    errors: Errors,
}

async fn ask(visit: RequestContext) -> Response {
    let (id, name, errors) = Default::default();
    page(&NewCampaignPage { frame: Layout::new(&visit, "New campaign"), id, name, errors })
}

async fn create(State(http): State<ApiState>, visit: RequestContext, form: Form) -> Result<Response, PageError> {
    let (id, name) = (form.get("id").trim().to_owned(), form.get("name").trim().to_owned());
    let document = json!({
        "id": id,
        "name": Some(&name).filter(|name| !name.is_empty()),
        "sections": [{ "label": "Welcome Message", "kind": "welcomeMessage" }],
    });
    let put = match id.as_str() {
        // No browser goes there.
        "." | ".." => {
            Err(CampaignError::Faults(vec![Violation::new("$.id", "can't be a dot or two: no address has these")]))
        }
        _ => http.campaigns.put(&id, &bytes(&document)?, Precondition::Absent, visit.name()).await,
    };
    let errors = match put {
        Ok(_) => return Ok(with_audit(&id, Redirect::to(&links::campaign(&id)).into_response())),
        Err(CampaignError::Faults(faults)) => Errors::new(faults, "$"),
        Err(CampaignError::Precondition) => Errors::one("id", "there is a campaign with this id already"),
        Err(refused) => return Err(refused.into()),
    };
    let again = page(&NewCampaignPage { frame: Layout::new(&visit, "New campaign"), id, name, errors });
    Ok(with_audit("nothing: the form has faults", again))
}

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage {
    frame: Layout,
    id: String,
    name: String,
    /// The name without the id in its place.
    given_name: String,
    address: String,
    version: u64,
    changed: Option<Changed>,
    saved: Option<String>,
    /// Why something was not done.
    refused: Vec<String>,
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
    webhook: Option<WebhookMark>,
    edit: String,
    add_entry: String,
}

struct EntryRow {
    keyword: String,
    /// For who is asked whether to delete it.
    name: String,
    option: String,
    redirect_type: &'static str,
    redirect_to: String,
    webhook: Option<WebhookMark>,
    edit: String,
}

/// The icon of a webhook, and what it says of it.
struct WebhookMark {
    kind: &'static str,
    words: String,
    enabled: bool,
    edit: String,
}

impl SectionRow {
    fn new(campaign: &str, index: usize, section: &Section) -> Self {
        let spot = EditTarget::new(section, None);
        let edit = spot.address(campaign);
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
                .map(|webhook| WebhookMark::new(webhook, WebhookKind::beside(redirect), &edit)),
            add_entry: EditTarget::NewEntry { label: section.label.clone() }.address(campaign),
            edit,
        }
    }
}

impl EntryRow {
    fn new(campaign: &str, section: &Section, entry: &MenuEntry) -> Self {
        let edit = EditTarget::new(section, Some(entry)).address(campaign);
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
                .map(|webhook| WebhookMark::new(webhook, WebhookKind::beside(redirect), &edit)),
            edit,
        }
    }
}

impl WebhookMark {
    fn new(webhook: &Webhook, kind: WebhookKind, edit: &str) -> Self {
        let (kind, words) = match kind {
            WebhookKind::Redirect => ("redirect", "Webhook as the redirect"),
            WebhookKind::Underlying => ("underlying", "Webhook under the redirect"),
        };
        let off = if webhook.enabled { "" } else { " (disabled)" };
        let words = format!("{words}{off}: POST {}", webhook.url.as_str());
        Self { kind, words, enabled: webhook.enabled, edit: format!("{edit}#webhook") }
    }
}

fn redirect_type(kind: RedirectKind) -> &'static str {
    match kind {
        RedirectKind::Interaction => "Interaction",
        RedirectKind::Campaign => "Campaign",
        RedirectKind::Webhook => "Webhook",
    }
}

/// Whether a campaign has a place that people call so: an address can say anything.
fn is_place_of(campaign: &Campaign, words: &str) -> bool {
    let is_it = |section, entry| EditTarget::new(section, entry).in_words() == words;
    let sections = &mut campaign.sections.iter();
    sections.any(|section| is_it(section, None) || section.menu.iter().any(|entry| is_it(section, Some(entry))))
}

/// The name for people, or else the id.
pub(super) fn name_of(campaign: &Campaign) -> &str {
    campaign.name.as_deref().filter(|name| !name.trim().is_empty()).unwrap_or(&campaign.id)
}

impl CampaignPage {
    fn new(visit: &RequestContext, stored: &StoredCampaign) -> Self {
        let campaign = &stored.campaign;
        let (id, name) = (campaign.id.clone(), name_of(campaign).to_owned());
        let sections = campaign.sections.iter().enumerate();
        Self {
            frame: Layout::new(visit, name.clone()),
            name,
            given_name: campaign.name.clone().unwrap_or_default(),
            address: links::campaign(&id),
            version: stored.version,
            changed: stored.made.as_ref().map(Changed::from),
            saved: None,
            refused: Vec::new(),
            sections: sections.map(|(index, section)| SectionRow::new(&id, index, section)).collect(),
            add_section: EditTarget::NewSection.address(&id),
            may_edit: visit.may(Role::Editor),
            id,
        }
    }
}

async fn show(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    Query(query): Query,
) -> Result<Response, PageError> {
    let stored = http.campaigns.get(&id)?;
    let saved = query.given("saved").filter(|place| is_place_of(&stored.campaign, place));
    Ok(page(&CampaignPage {
        saved: saved.map(|place| format!("Saved: {place}")),
        ..CampaignPage::new(&visit, &stored)
    }))
}

async fn rename(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    form: Form,
) -> Result<Response, PageError> {
    let name = form.given("name").map(Value::from);
    change(&http, &visit, &id, &form, "the name", |document| {
        document["name"] = name.unwrap_or_default();
        Some(())
    })
    .await
}

async fn remove(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    form: Form,
) -> Result<Response, PageError> {
    let spot = EditTarget::of_query(&form);
    change(&http, &visit, &id, &form, &spot.in_words(), |document| spot.remove_from(document)).await
}

/// Changes the document of a campaign as the form was made on, and shows what it has become.
async fn change(
    http: &ApiState,
    visit: &RequestContext,
    id: &str,
    form: &Form,
    about: &str,
    change: impl FnOnce(&mut Value) -> Option<()>,
) -> Result<Response, PageError> {
    let stored = http.campaigns.get(id)?;
    if stored.version != version(form)? {
        return Err(changed_meanwhile(&stored).into());
    }
    let mut document = serde_json::to_value(&stored.campaign).map_err(StoreError::from)?;
    change(&mut document).ok_or_else(no_such_place)?;
    let precondition = Precondition::Versions(vec![stored.version]);
    match http.campaigns.put(id, &bytes(&document)?, precondition, visit.name()).await {
        Ok(_) => Ok(with_audit(about, Redirect::to(&links::campaign(id)).into_response())),
        Err(CampaignError::Faults(faults)) => {
            let refused = faults.iter().map(ToString::to_string).collect();
            let again = page_with(
                StatusCode::UNPROCESSABLE_ENTITY,
                &CampaignPage { refused, ..CampaignPage::new(visit, &stored) },
            );
            Ok(with_audit("nothing: the campaign would have faults", again))
        }
        Err(refused) => Err(refused.into()),
    }
}

async fn delete(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    form: Form,
) -> Result<Response, PageError> {
    let precondition = Precondition::Versions(vec![version(&form)?]);
    match http.campaigns.delete(&id, precondition, visit.name()).await {
        Ok(()) => Ok(Redirect::to("/campaigns").into_response()),
        Err(CampaignError::Precondition) => Err(changed_meanwhile(&*http.campaigns.get(&id)?).into()),
        Err(refused) => Err(refused.into()),
    }
}

/// A lost race, in the words of who has lost it.
pub(super) fn changed_meanwhile(stored: &StoredCampaign) -> Problem {
    let who = stored
        .made
        .as_ref()
        .map_or("somebody".to_owned(), |made| format!("{} (at {})", made.by, made.at.format("%Y-%m-%d %H:%M:%S UTC")));
    let detail = format!(
        "{who} has changed the campaign since you opened the page, and nothing was done: look at it as it is now, and \
         repeat your change"
    );
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

/// The address names no place of the campaign.
pub(super) fn no_such_place() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "the campaign has no such section or menu entry (any more)")
}

/// The version that a form was made on.
pub(super) fn version(form: &Form) -> Result<u64, Problem> {
    let version = form.get("version").parse();
    version.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "`version` is missing: load the page again"))
}

/// A document as the store of campaigns takes it.
pub(super) fn bytes(document: &Value) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(document)?)
}
