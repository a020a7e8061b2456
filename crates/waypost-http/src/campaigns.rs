//! The API of campaigns. The `ETag` is the campaign's version.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Json};
use waypost_api::campaigns::CampaignSummary;
use waypost_api::page::{Page, PageParams};
use waypost_core::access::Role;
use waypost_core::campaign::{Campaign, SecretVisibility};
use waypost_core::document::{self, MAX_DOCUMENT_BYTES};
use waypost_engine::campaigns::error::CampaignError;
use waypost_store::StoredCampaign;

use super::api_state::ApiState;
use super::body_limit;
use super::conditional::{precondition, with_etag};
use super::extract::{Id, Query};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/campaigns", Role::Viewer, list)
            .named("listCampaigns", "List the campaigns, by id")
            .query::<PageParams>()
            .responds::<Page<CampaignSummary>>(StatusCode::OK, "A page of campaigns"),
        Route::get("/campaigns/{id}", Role::Viewer, get)
            .named("getCampaign", "Read a campaign; values of headers and secrets are masked below `editor`")
            .subject(SUBJECT)
            .responds::<Campaign>(StatusCode::OK, "The document, with the ids of its webhooks")
            .has_etag(),
        Route::put("/campaigns/{id}", Role::Editor, put)
            .named("putCampaign", "Create or replace a campaign")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH, header::IF_NONE_MATCH])
            .takes::<Campaign>()
            .responds::<Campaign>(StatusCode::OK, "The new document")
            .responds::<Campaign>(StatusCode::CREATED, "The document of the new campaign")
            .has_etag(),
        Route::delete("/campaigns/{id}", Role::Editor, delete)
            .named("deleteCampaign", "Delete a campaign; its deliveries that wait for a retry become dead letters")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .responds_empty(StatusCode::NO_CONTENT, "The campaign is deleted"),
    ]
}

const SUBJECT: &str = "The campaign's id";

fn to_summary(StoredCampaign { version, author, campaign, .. }: StoredCampaign) -> CampaignSummary {
    let (changed_by, changed_at) = author.map(|author| (author.by, author.at)).unzip();
    CampaignSummary {
        webhooks: campaign.places().count(),
        sections: campaign.sections.len(),
        id: campaign.id,
        name: campaign.name,
        version,
        changed_by,
        changed_at,
    }
}

/// `GET /v1/campaigns`: by id. The cursor is the last id of the previous page.
async fn list(
    State(state): State<ApiState>,
    Query(page): Query<PageParams>,
) -> Result<Json<Page<CampaignSummary>>, Problem> {
    let items = state.campaigns.list(page.cursor.as_deref(), page.limit.get() + 1, to_summary)?;
    Ok(Json(Page::new(items, page.limit, |last| last.id.clone())))
}

/// `GET /v1/campaigns/{id}`
async fn get(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let stored = state.campaigns.get(&id)?;
    Ok(campaign_response(StatusCode::OK, &stored, principal.secrets()))
}

/// `PUT /v1/campaigns/{id}`: 201 for a new campaign, otherwise 200.
async fn put(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers)?;
    let body = body_limit::read(body, MAX_DOCUMENT_BYTES).await;
    let body = body.map_err(|error| Problem::unreadable_body(error, "a document", MAX_DOCUMENT_BYTES))?;
    let campaign = document::parse(&body, state.campaigns.url_policy());
    let replace = |_: Option<&StoredCampaign>| campaign.clone().map_err(CampaignError::Invalid);
    let outcome = state.campaigns.update(&id, precondition, &principal.name, replace).await?;
    let status = if outcome.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(campaign_response(status, &outcome.stored, principal.secrets()))
}

/// `DELETE /v1/campaigns/{id}`: 204.
async fn delete(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    state.campaigns.delete(&id, precondition(&headers)?, &principal.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn campaign_response(status: StatusCode, stored: &StoredCampaign, secrets: SecretVisibility) -> Response {
    let body = match secrets {
        SecretVisibility::Visible => Json(stored.campaign.clone()),
        SecretVisibility::Masked => Json(masked(&stored.campaign)),
    };
    with_etag(stored.version, (status, body))
}

/// The campaign with masked header values and secrets.
fn masked(campaign: &Campaign) -> Campaign {
    let mut campaign = campaign.clone();
    for section in &mut campaign.sections {
        let of_menu = section.menu.iter_mut().filter_map(|entry| entry.webhook.as_mut());
        section.webhook.iter_mut().chain(of_menu).for_each(|webhook| Arc::make_mut(webhook).mask());
    }
    campaign
}
