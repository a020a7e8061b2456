//! Webhooks over HTTP, each by itself. The `ETag` is the version of the campaign it is a part of.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Json};
use chrono::Utc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::conditional::{precondition, tagged};
use super::extract::{Id, JsonBody, UniqueMap};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;
use super::{ApiState, body_limit};
use crate::campaigns::CampaignError;
use crate::config::Role;
use crate::delivery::campaign::{Secrets, Webhook, WebhookPlace};
use crate::delivery::document::MAX_DOCUMENT_BYTES;
use crate::delivery::duration::TextDuration;
use crate::delivery::event::Keyword;
use crate::delivery::ids::WebhookId;
use crate::delivery::request::{self, RequestPreview};
use crate::delivery::violation::Violation;
use crate::delivery::{Attempt, Delivery, left_out, signing, test_event};
use crate::store::StoredCampaign;

/// The routes of webhooks.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/webhooks/{id}", Role::Viewer, get)
            .named("getWebhook", "Read a webhook; values of headers and its secret are masked below `editor`")
            .subject(SUBJECT)
            .answers::<WebhookResponse>(StatusCode::OK, "The webhook, and where it is")
            .has_etag(),
        Route::put("/webhooks/{id}", Role::Editor, put)
            .named("putWebhook", "Replace a webhook where it is; it is moved by changing its campaign")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .takes::<WebhookResponse>()
            .answers::<WebhookResponse>(StatusCode::OK, "The webhook as it is from now on")
            .has_etag(),
        Route::delete("/webhooks/{id}", Role::Editor, delete)
            .named(
                "deleteWebhook",
                "Delete a webhook, and the redirect that it is; what waits for it becomes dead letters",
            )
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .answers_nothing(StatusCode::NO_CONTENT, "It is deleted"),
        Route::post("/webhooks/{id}/rotate-secret", Role::Editor, rotate_secret)
            .named("rotateSecret", "Give a webhook a new signing secret; the one it had signs beside it for a while")
            .subject(SUBJECT)
            .preconditions(&[header::IF_MATCH])
            .may_take::<Rotation>()
            .answers::<WebhookResponse>(StatusCode::OK, "The webhook with its new secret")
            .has_etag(),
        Route::post("/webhooks/{id}/test", Role::Operator, test)
            .named("testWebhook", "Send a sample event now, once, also to a webhook that is disabled")
            .subject(SUBJECT)
            .may_take::<Sample>()
            .answers::<WebhookTestResult>(StatusCode::OK, "What was sent, and what came of it"),
    ]
}

const SUBJECT: &str = "The webhook's id";

/// A webhook, and where it is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LocatedWebhook")]
struct WebhookResponse {
    #[serde(flatten)]
    webhook: Webhook,
    /// Its campaign.
    #[schemars(default = "left_out")]
    campaign_id: String,
    /// The label of its section.
    #[schemars(default = "left_out")]
    label: String,
    /// The keyword of its menu entry; absent where it is the section's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<Keyword>,
}

impl WebhookResponse {
    fn at(place: &WebhookPlace<'_>, campaign_id: &str, secrets: Secrets) -> Self {
        let mut webhook = Webhook::clone(place.webhook);
        if secrets == Secrets::Masked {
            webhook.mask();
        }
        Self {
            webhook,
            campaign_id: campaign_id.to_owned(),
            label: place.section.label.clone(),
            keyword: place.entry.map(|entry| entry.keyword.clone()),
        }
    }
}

/// What a test is made with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WebhookTest")]
struct Sample {
    /// A step event or a part of one. What it leaves out is made up.
    #[schemars(with = "Option<Map<String, Value>>")]
    event: Option<UniqueMap>,
}

/// How a secret is replaced.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SecretRotation")]
struct Rotation {
    /// How long the old secret still signs: 24h where it is left out, 30d at most, `0s` where it is known to others.
    overlap: Option<TextDuration>,
}

/// A test that was made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TestedWebhook")]
pub(super) struct WebhookTestResult {
    /// What was sent. Values of headers are masked below `editor`.
    pub(super) request: RequestPreview,
    /// What came of it.
    pub(super) response: Attempt,
}

/// `GET /v1/webhooks/{id}`: the webhook, and where it is.
async fn get(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let id = WebhookId::new(id);
    let stored = http.campaigns.of_webhook(&id).map_err(refused)?;
    located(&stored, &id, caller.secrets())
}

/// `PUT /v1/webhooks/{id}`: the webhook as it is from now on.
async fn put(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (id, precondition) = (WebhookId::new(id), precondition(&headers)?);
    let body = body_limit::read(body, MAX_DOCUMENT_BYTES).await;
    let body = body.map_err(|unread| Problem::of_body(unread, "a document", MAX_DOCUMENT_BYTES))?;
    let stored = http.campaigns.put_webhook(&id, &body, precondition, &caller.name).await.map_err(refused)?;
    located(&stored, &id, caller.secrets())
}

/// `POST /v1/webhooks/{id}/rotate-secret`: the webhook with its new secret.
async fn rotate_secret(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
    rotation: Option<JsonBody<Rotation>>,
) -> Result<Response, Problem> {
    let (id, precondition) = (WebhookId::new(id), precondition(&headers)?);
    let overlap = rotation.and_then(|JsonBody(rotation)| rotation.overlap);
    let overlap = overlap.map_or(signing::DEFAULT_OVERLAP, |overlap| overlap.value());
    if overlap > signing::LONGEST_OVERLAP {
        return Err(Problem::of_faults(vec![Violation::new("$.overlap", "must be a duration of at most 30d")]));
    }
    let stored = http.campaigns.rotate_secret(&id, overlap, precondition, &caller.name).await.map_err(refused)?;
    located(&stored, &id, caller.secrets())
}

/// `DELETE /v1/webhooks/{id}`: 204.
async fn delete(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let precondition = precondition(&headers)?;
    http.campaigns.delete_webhook(&WebhookId::new(id), precondition, &caller.name).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/webhooks/{id}/test`: one request, now. It is no delivery: not counted, not retried, no dead letter.
async fn test(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    sample: Option<JsonBody<Sample>>,
) -> Result<Json<WebhookTestResult>, Problem> {
    let id = WebhookId::new(id);
    let stored = http.campaigns.of_webhook(&id).map_err(refused)?;
    let given = sample.and_then(|JsonBody(sample)| sample.event).map_or_else(Map::new, |UniqueMap(fields)| fields);
    send_test(&http, sample_of(&stored.campaign.id, &place_of(&stored, &id)?, given)?, caller.secrets()).await.map(Json)
}

/// The delivery of a sample event to the webhook of a place.
pub(super) fn sample_of(
    campaign: &str,
    place: &WebhookPlace<'_>,
    given: Map<String, Value>,
) -> Result<Delivery, Problem> {
    let event = test_event::test_event(given, campaign, place, Utc::now(), &uuid::Uuid::now_v7().to_string());
    Ok(Delivery::new(event.map_err(Problem::of_faults)?, place.target(), None))
}

/// Sends a sample once, now.
pub(super) async fn send_test(
    http: &ApiState,
    delivery: Delivery,
    secrets: Secrets,
) -> Result<WebhookTestResult, Problem> {
    let mut tried = delivery.clone();
    http.worker.attempt_once(&mut tried).await;
    let attempt = tried
        .attempts
        .pop()
        .ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "an attempt was made, and not recorded"))?;
    let request = request::render(&delivery, attempt.at).shown(secrets);
    Ok(WebhookTestResult { request, response: attempt })
}

fn located(stored: &StoredCampaign, id: &WebhookId, secrets: Secrets) -> Result<Response, Problem> {
    let place = place_of(stored, id)?;
    Ok(tagged(stored.version, Json(WebhookResponse::at(&place, &stored.campaign.id, secrets))))
}

fn place_of<'a>(stored: &'a StoredCampaign, id: &WebhookId) -> Result<WebhookPlace<'a>, Problem> {
    stored.campaign.place_of(id).ok_or_else(|| refused(CampaignError::Unknown))
}

fn refused(refused: CampaignError) -> Problem {
    match refused {
        CampaignError::Unknown => Problem::new(StatusCode::NOT_FOUND, "no such webhook"),
        refused => refused.into(),
    }
}
