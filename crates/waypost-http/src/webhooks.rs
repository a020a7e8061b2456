//! The API of single webhooks. The `ETag` is the version of the webhook's campaign.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::Map;
use waypost_api::unique_map::UniqueMap;
use waypost_api::webhooks::{RotationRequest, TestRequest, WebhookResponse, WebhookTestResult};
use waypost_core::access::Role;
use waypost_core::campaign::{SecretVisibility, Webhook, WebhookPlace};
use waypost_core::document::{MAX_DOCUMENT_BYTES, WebhookDocument};
use waypost_core::ids::WebhookId;
use waypost_core::signing;
use waypost_engine::campaigns::error::CampaignError;
use waypost_engine::webhook_test::{WebhookTest, test_delivery};
use waypost_store::StoredCampaign;

use super::api_state::ApiState;
use super::body_limit;
use super::conditional::{precondition, with_etag};
use super::extract::{Id, JsonBody};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/webhooks/{id}", Role::Viewer, get)
            .named("getWebhook", "Read a webhook; values of headers and its secret are masked below `editor`")
            .subject(SUBJECT)
            .responds::<WebhookResponse>(StatusCode::OK, "The webhook and its place in the campaign")
            .has_etag(),
        Route::put("/webhooks/{id}", Role::Editor, put)
            .named("putWebhook", "Replace a webhook in its place; to move it, change its campaign")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .takes::<WebhookResponse>()
            .responds::<WebhookResponse>(StatusCode::OK, "The new webhook")
            .has_etag(),
        Route::delete("/webhooks/{id}", Role::Editor, delete)
            .named(
                "deleteWebhook",
                "Delete a webhook, and its redirect if it is one; its deliveries that wait become dead letters",
            )
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .responds_empty(StatusCode::NO_CONTENT, "The webhook is deleted"),
        Route::post("/webhooks/{id}/rotate-secret", Role::Editor, rotate_secret)
            .named("rotateSecret", "Give a webhook a new signing secret; the old secret signs too for some time")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .may_take::<RotationRequest>()
            .responds::<WebhookResponse>(StatusCode::OK, "The webhook with its new secret")
            .has_etag(),
        Route::post("/webhooks/{id}/test", Role::Operator, test)
            .named("testWebhook", "Send a sample event once, even if the webhook is disabled")
            .subject(SUBJECT)
            .may_take::<TestRequest>()
            .responds::<WebhookTestResult>(StatusCode::OK, "The request and its result"),
    ]
}

const SUBJECT: &str = "The webhook's id";

/// `GET /v1/webhooks/{id}`
async fn get(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let id = WebhookId::new(id);
    let stored = state.campaigns.get_by_webhook(&id).map_err(to_problem)?;
    webhook_response(&stored, &id, principal.secrets())
}

/// `PUT /v1/webhooks/{id}`
async fn put(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (id, precondition) = (WebhookId::new(id), precondition(&headers)?);
    let body = body_limit::read(body, MAX_DOCUMENT_BYTES).await;
    let body = body.map_err(|error| Problem::unreadable_body(error, "a document", MAX_DOCUMENT_BYTES))?;
    let document = WebhookDocument::parse(&body, state.campaigns.url_policy());
    let stored =
        state.campaigns.replace_webhook(&id, &document, precondition, &principal.name).await.map_err(to_problem)?;
    webhook_response(&stored, &id, principal.secrets())
}

/// `POST /v1/webhooks/{id}/rotate-secret`
async fn rotate_secret(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
    rotation: Option<JsonBody<RotationRequest>>,
) -> Result<Response, Problem> {
    let (id, precondition) = (WebhookId::new(id), precondition(&headers)?);
    let overlap = rotation.and_then(|JsonBody(rotation)| rotation.overlap);
    let overlap = overlap.map_or(signing::DEFAULT_OVERLAP, |overlap| overlap.value());
    let stored =
        state.campaigns.rotate_secret(&id, overlap, precondition, &principal.name).await.map_err(to_problem)?;
    webhook_response(&stored, &id, principal.secrets())
}

/// `DELETE /v1/webhooks/{id}`
async fn delete(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let precondition = precondition(&headers)?;
    state.campaigns.delete_webhook(&WebhookId::new(id), precondition, &principal.name).await.map_err(to_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/webhooks/{id}/test`: sends one request. A test is not counted, not retried, and never a dead letter.
async fn test(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    request: Option<JsonBody<TestRequest>>,
) -> Result<Json<WebhookTestResult>, Problem> {
    let id = WebhookId::new(id);
    let stored = state.campaigns.get_by_webhook(&id).map_err(to_problem)?;
    let fields = request.and_then(|JsonBody(request)| request.event).map_or_else(Map::new, |UniqueMap(fields)| fields);
    let delivery = test_delivery(&stored.campaign.id, &place_of(&stored, &id)?, fields).map_err(Problem::invalid)?;
    let WebhookTest { request, response } = state.webhook_tester.send(&delivery, principal.secrets()).await;
    Ok(Json(WebhookTestResult { request, response }))
}

fn webhook_response(stored: &StoredCampaign, id: &WebhookId, secrets: SecretVisibility) -> Result<Response, Problem> {
    let place = place_of(stored, id)?;
    Ok(with_etag(stored.version, Json(to_response(&place, &stored.campaign.id, secrets))))
}

fn to_response(place: &WebhookPlace<'_>, campaign_id: &str, secrets: SecretVisibility) -> WebhookResponse {
    let mut webhook = Webhook::clone(place.webhook);
    if secrets == SecretVisibility::Masked {
        webhook.mask();
    }
    WebhookResponse {
        webhook,
        campaign_id: campaign_id.to_owned(),
        label: place.section.label.clone(),
        keyword: place.entry.map(|entry| entry.keyword.clone()),
    }
}

fn place_of<'a>(stored: &'a StoredCampaign, id: &WebhookId) -> Result<WebhookPlace<'a>, Problem> {
    stored.campaign.place_of(id).ok_or_else(|| to_problem(CampaignError::NotFound))
}

/// `NotFound` means the webhook, not the campaign.
fn to_problem(error: CampaignError) -> Problem {
    match error {
        CampaignError::NotFound => Problem::new(StatusCode::NOT_FOUND, "no such webhook"),
        error => error.into(),
    }
}
