//! Campaigns over HTTP. The `ETag` is the campaign's version.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::access::Caller;
use super::problem::Problem;
use super::{Http, body};
use crate::campaigns::Precondition;
use crate::config::Role;
use crate::delivery::campaign::{Campaign, Webhook};
use crate::delivery::document::MAX_DOCUMENT_BYTES;
use crate::store::StoredCampaign;

/// Items of a page, unless asked otherwise.
const PAGE: usize = 100;

/// The most items of a page.
const MAX_PAGE: usize = 1000;

/// The campaign an address names.
pub(super) struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id)).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// Which page.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<String>,
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// A campaign in the list.
#[derive(Serialize)]
struct Summary {
    id: String,
    name: Option<String>,
    sections: usize,
    webhooks: usize,
    version: u64,
}

impl From<StoredCampaign> for Summary {
    fn from(StoredCampaign { version, campaign }: StoredCampaign) -> Self {
        Self {
            webhooks: campaign.places().count(),
            sections: campaign.sections.len(),
            id: campaign.id,
            name: campaign.name,
            version,
        }
    }
}

/// `GET /v1/campaigns`: by id. The cursor is the last id of the page before.
pub(super) async fn list(
    State(http): State<Http>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let limit = match page.limit.as_deref().map(str::parse) {
        None => PAGE,
        Some(Ok(limit)) if (1..=MAX_PAGE).contains(&limit) => limit,
        Some(_) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("limit is a number from 1 to {MAX_PAGE}")));
        }
    };
    let mut items = http.store.campaigns(page.cursor.as_deref(), limit + 1, Summary::from)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(List { items, next }).into_response())
}

/// `GET /v1/campaigns/{id}`: the document, with the ids of its webhooks.
pub(super) async fn get(
    State(http): State<Http>,
    Extension(Caller(role)): Extension<Caller>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let stored = http.campaigns.get(&id)?;
    Ok(document(StatusCode::OK, &stored, role))
}

/// `PUT /v1/campaigns/{id}`: 201 where it is new, else 200; the document as it is from now on.
pub(super) async fn put(
    State(http): State<Http>,
    Extension(Caller(role)): Extension<Caller>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers)?;
    let body = body::read(body, MAX_DOCUMENT_BYTES).await;
    let body = body.map_err(|unread| Problem::of_body(unread, "a document", MAX_DOCUMENT_BYTES))?;
    let put = http.campaigns.put(&id, &body, precondition).await?;
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(document(status, &put.stored, role))
}

/// `DELETE /v1/campaigns/{id}`: 204.
pub(super) async fn delete(State(http): State<Http>, Id(id): Id, headers: HeaderMap) -> Result<StatusCode, Problem> {
    http.campaigns.delete(&id, precondition(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn document(status: StatusCode, stored: &StoredCampaign, role: Role) -> Response {
    let body = if role >= Role::Editor { Json(stored.campaign.clone()) } else { Json(masked(&stored.campaign)) };
    let mut response = (status, body).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", stored.version)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The campaign without the values of headers and without secrets.
fn masked(campaign: &Campaign) -> Campaign {
    let mut campaign = campaign.clone();
    for section in &mut campaign.sections {
        section.webhook.iter_mut().for_each(Webhook::mask);
        section.menu.iter_mut().filter_map(|entry| entry.webhook.as_mut()).for_each(Webhook::mask);
    }
    campaign
}

/// Reads `If-Match` and `If-None-Match`. A tag that can't be one of ours matches nothing.
fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tag), None) => match tag.trim_matches('"').parse() {
            Ok(version) => Ok(Precondition::Version(version)),
            Err(_) => Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("{tag} is no version of a campaign"))),
        },
        (_, Some(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "send either If-Match, or If-None-Match: *")),
    }
}
