//! Replays: what one would do, the list of them, and one as it goes on.

mod course;
mod order;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use tokio::task::block_in_place;

use super::super::Http;
use super::super::route::Route;
use super::form::{Query, address};
use super::letter_view::view;
use super::links;
use super::numbers::Count;
use super::page::{Failure, Frame, Time, Visit, page};
use super::words::{dead_letters, which};
use crate::config::Role;
use crate::delivery::dead_letter::choice::Choice;
use crate::delivery::replay::{Job, Replay, ReplayId};

/// So many replays are on one page of the list.
const PER_PAGE: usize = 50;

/// The pages of replays.
pub(super) fn routes() -> Vec<Route> {
    let list = vec![Route::get("/replays", Role::Viewer, list)];
    list.into_iter().chain(order::routes()).chain(course::routes()).collect()
}

/// Which letters a replay sends.
fn choice(replay: &Replay) -> String {
    match (&replay.filter, &replay.ids) {
        (Some(filter), _) => which(&Choice::Filter(filter.clone())),
        (None, ids) => format!("{} chosen one by one", dead_letters(ids.as_ref().map_or(0, |ids| ids.len() as u64))),
    }
}

#[derive(Template)]
#[template(path = "replays.html")]
struct List {
    frame: Frame,
    replays: Vec<Row>,
    older: Option<String>,
    is_first_page: bool,
}

struct Row {
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

impl From<Job> for Row {
    fn from(Job { replay, .. }: Job) -> Self {
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

async fn list(State(http): State<Http>, visit: Visit, Query(query): Query) -> Result<Response, Failure> {
    let view = match view(&http, &visit).await {
        Ok(view) => view,
        Err(waiting) => return Ok(waiting),
    };
    let before = query.given("cursor").map(ReplayId::new);
    let mut replays = block_in_place(|| view.jobs(before.as_ref(), PER_PAGE + 1, Row::from))?;
    let older = (replays.len() > PER_PAGE).then(|| {
        replays.truncate(PER_PAGE);
        let last = replays.last().map_or("", |last| last.id.as_str());
        address("/replays", &[("cursor", last)])
    });
    Ok(page(&List { frame: Frame::new(&visit, "Replays"), replays, older, is_first_page: before.is_none() }))
}
