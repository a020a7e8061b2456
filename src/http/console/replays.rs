//! Replays: what one would do, the list of them, and one as it goes on.

mod detail;
mod new;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use tokio::task::block_in_place;

use super::super::ApiState;
use super::super::route::Route;
use super::form::{Query, address};
use super::format::Count;
use super::labels::{dead_letters, which};
use super::layout::{Layout, PageError, RequestContext, Time, page};
use super::letter_view::view;
use super::links;
use crate::config::Role;
use crate::delivery::dead_letter::selection::Selection;
use crate::delivery::replay::{Replay, ReplayId, ReplayProgress};

/// So many replays are on one page of the list.
const PER_PAGE: usize = 50;

/// The pages of replays.
pub(super) fn routes() -> Vec<Route> {
    let list = vec![Route::get("/replays", Role::Viewer, list)];
    list.into_iter().chain(new::routes()).chain(detail::routes()).collect()
}

/// Which letters a replay sends.
fn choice(replay: &Replay) -> String {
    match (&replay.filter, &replay.ids) {
        (Some(filter), _) => which(&Selection::Filter(filter.clone())),
        (None, ids) => format!("{} chosen one by one", dead_letters(ids.as_ref().map_or(0, |ids| ids.len() as u64))),
    }
}

#[derive(Template)]
#[template(path = "replays.html")]
struct ReplaysPage {
    frame: Layout,
    replays: Vec<ReplayRow>,
    older: Option<String>,
    is_first_page: bool,
}

struct ReplayRow {
    id: ReplayId,
    address: String,
    state: &'static str,
    which: String,
    by: String,
    at: Time,
    total: Count,
    sent: Count,
    delivered: Count,
    failed: Count,
    has_failures: bool,
}

impl From<ReplayProgress> for ReplayRow {
    fn from(ReplayProgress { replay, .. }: ReplayProgress) -> Self {
        Self {
            address: links::replay(&replay.id),
            state: replay.state.as_str(),
            which: choice(&replay),
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

async fn list(State(http): State<ApiState>, visit: RequestContext, Query(query): Query) -> Result<Response, PageError> {
    let view = match view(&http, &visit).await {
        Ok(view) => view,
        Err(waiting) => return Ok(waiting),
    };
    let before = query.given("cursor").map(ReplayId::new);
    let mut replays = block_in_place(|| view.jobs(before.as_ref(), PER_PAGE + 1, ReplayRow::from))?;
    let older = (replays.len() > PER_PAGE).then(|| {
        replays.truncate(PER_PAGE);
        let last = replays.last().map_or("", |last| last.id.as_str());
        address("/replays", &[("cursor", last)])
    });
    Ok(page(&ReplaysPage { frame: Layout::new(&visit, "Replays"), replays, older, is_first_page: before.is_none() }))
}
