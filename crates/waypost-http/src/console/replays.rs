//! Replays: the list, the preview before a replay, and the progress of one.

mod detail;
mod new;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use waypost_core::access::Role;
use waypost_core::replay::{Replay, ReplayId};

use super::form::{FormQuery, with_query};
use super::format::Count;
use super::labels::describe_replayed;
use super::layout::{Layout, PageError, RequestContext, Time, page};
use super::letter_view::wait_until_readable;
use super::links;
use crate::api_state::ApiState;
use crate::route::Route;

const REPLAYS_PER_PAGE: usize = 50;

pub(super) fn routes() -> Vec<Route> {
    let list = vec![Route::get("/replays", Role::Viewer, list)];
    list.into_iter().chain(new::routes()).chain(detail::routes()).collect()
}

#[derive(Template)]
#[template(path = "replays.html")]
struct ReplaysPage {
    layout: Layout,
    replays: Vec<ReplayRow>,
    older: Option<String>,
    is_first_page: bool,
}

struct ReplayRow {
    id: ReplayId,
    href: String,
    state: &'static str,
    selection: String,
    by: String,
    at: Time,
    total: Count,
    sent: Count,
    delivered: Count,
    failed: Count,
    has_failures: bool,
}

impl From<Replay> for ReplayRow {
    fn from(replay: Replay) -> Self {
        Self {
            href: links::replay(&replay.id),
            state: replay.state.as_str(),
            selection: describe_replayed(&replay),
            at: Time(replay.created_at),
            total: Count(replay.total),
            sent: Count(replay.sent),
            delivered: Count(replay.delivered),
            failed: Count(replay.failed),
            has_failures: replay.failed > 0,
            by: replay.created_by,
            id: replay.id,
        }
    }
}

async fn list(
    State(state): State<ApiState>,
    context: RequestContext,
    FormQuery(query): FormQuery,
) -> Result<Response, PageError> {
    if let Err(response) = wait_until_readable(&state, &context).await {
        return Ok(response);
    }
    let before = query.get_non_blank("cursor").map(ReplayId::new);
    let mut replays = state.replays.list(before.as_ref(), REPLAYS_PER_PAGE + 1, ReplayRow::from).await?;
    let older = (replays.len() > REPLAYS_PER_PAGE).then(|| {
        replays.truncate(REPLAYS_PER_PAGE);
        let last = replays.last().map_or("", |last| last.id.as_str());
        with_query("/replays", &[("cursor", last)])
    });
    Ok(page(&ReplaysPage { layout: Layout::new(&context, "Replays"), replays, older, is_first_page: before.is_none() }))
}
