//! Campaigns over HTTP. The `ETag` is the campaign's version.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::conditional::{precondition, tagged};
use super::extract::{Id, Query};
use super::pagination::{Page, PageParams};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;
use super::{ApiState, body_limit};
use crate::config::Role;
use crate::delivery::campaign::{Campaign, Secrets};
use crate::delivery::document::MAX_DOCUMENT_BYTES;
use crate::store::StoredCampaign;

/// The routes of campaigns.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/campaigns", Role::Viewer, list)
            .named("listCampaigns", "List the campaigns, by id")
            .query::<PageParams>()
            .answers::<Page<Summary>>(StatusCode::OK, "A page of campaigns"),
        Route::get("/campaigns/{id}", Role::Viewer, get)
            .named("getCampaign", "Read a campaign; values of headers and secrets are masked below `editor`")
            .subject(SUBJECT)
            .answers::<Campaign>(StatusCode::OK, "The document, with the ids of its webhooks")
            .has_etag(),
        Route::put("/campaigns/{id}", Role::Editor, put)
            .named("putCampaign", "Create or replace a campaign")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH, header::IF_NONE_MATCH])
            .takes::<Campaign>()
            .answers::<Campaign>(StatusCode::OK, "The document as it is from now on")
            .answers::<Campaign>(StatusCode::CREATED, "The document of a campaign that is new")
            .has_etag(),
        Route::delete("/campaigns/{id}", Role::Editor, delete)
            .named("deleteCampaign", "Delete a campaign; its deliveries that wait for a retry become dead letters")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .answers_nothing(StatusCode::NO_CONTENT, "It is deleted"),
    ]
}

const SUBJECT: &str = "The campaign's id";

/// A campaign in the list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "CampaignSummary")]
struct Summary {
    /// Its id.
    id: String,
    /// For people.
    name: Option<String>,
    /// How many sections it has.
    sections: usize,
    /// How many webhooks it has.
    webhooks: usize,
    /// Another one at every change; the same as the `ETag`.
    version: u64,
    /// Who changed it last: the name of a token.
    changed_by: Option<String>,
    /// When that was.
    changed_at: Option<DateTime<Utc>>,
}

impl From<StoredCampaign> for Summary {
    fn from(StoredCampaign { version, made, campaign, .. }: StoredCampaign) -> Self {
        let (changed_by, changed_at) = made.map(|made| (made.by, made.at)).unzip();
        Self {
            webhooks: campaign.places().count(),
            sections: campaign.sections.len(),
            id: campaign.id,
            name: campaign.name,
            version,
            changed_by,
            changed_at,
        }
    }
}

/// `GET /v1/campaigns`: by id. The cursor is the last id of the page before.
async fn list(State(http): State<ApiState>, Query(page): Query<PageParams>) -> Result<Page<Summary>, Problem> {
    http.campaigns.check_listable()?;
    let items = http.store.campaigns(page.cursor.as_deref(), page.limit.get() + 1, Summary::from)?;
    Ok(Page::new(items, page.limit, |last| last.id.clone()))
}

/// `GET /v1/campaigns/{id}`: the document, with the ids of its webhooks.
async fn get(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let stored = http.campaigns.get(&id)?;
    Ok(document(StatusCode::OK, &stored, caller.secrets()))
}

/// `PUT /v1/campaigns/{id}`: 201 where it is new, else 200; the document as it is from now on.
async fn put(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers)?;
    let body = body_limit::read(body, MAX_DOCUMENT_BYTES).await;
    let body = body.map_err(|unread| Problem::of_body(unread, "a document", MAX_DOCUMENT_BYTES))?;
    let put = http.campaigns.put(&id, &body, precondition, &caller.name).await?;
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(document(status, &put.stored, caller.secrets()))
}

/// `DELETE /v1/campaigns/{id}`: 204.
async fn delete(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    http.campaigns.delete(&id, precondition(&headers)?, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn document(status: StatusCode, stored: &StoredCampaign, secrets: Secrets) -> Response {
    let body = match secrets {
        Secrets::Shown => Json(stored.campaign.clone()),
        Secrets::Masked => Json(masked(&stored.campaign)),
    };
    tagged(stored.version, (status, body))
}

/// The campaign without the values of headers and without secrets.
fn masked(campaign: &Campaign) -> Campaign {
    let mut campaign = campaign.clone();
    for section in &mut campaign.sections {
        let of_menu = section.menu.iter_mut().filter_map(|entry| entry.webhook.as_mut());
        section.webhook.iter_mut().chain(of_menu).for_each(|webhook| Arc::make_mut(webhook).mask());
    }
    campaign
}
