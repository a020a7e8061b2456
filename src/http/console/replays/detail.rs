//! One replay: how far it has come, kept up to date, and what it is told.

use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::{TimeDelta, Utc};
use futures_util::Stream;

use super::super::super::ApiState;
use super::super::super::dead_letters::query;
use super::super::super::extract::Id;
use super::super::super::route::Route;
use super::super::format::Count;
use super::super::labels::{dead_letters, list_of};
use super::super::layout::{Layout, PageError, RequestContext, Time, live, page};
use super::super::letter_view::view;
use super::super::links;
use super::choice;
use crate::config::Role;
use crate::dead_letters::DeadLetterError;
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::duration::rough;
use crate::delivery::replay::{Replay, ReplayCommand, ReplayConfig, ReplayId, ReplayState};
use crate::replays::rate_meter::{RateMeter, decimal};

/// How often news are sent at most. Less often a person's eye takes them for one.
const NEWS: Duration = Duration::from_millis(500);

/// Without news the pace falls all the same.
const NO_NEWS: Duration = Duration::from_secs(3);

/// The pages of one replay.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/replays/{id}", Role::Viewer, show),
        Route::get("/replays/{id}/live", Role::Viewer, follow),
        Route::post("/replays/{id}/pause", Role::Operator, pause),
        Route::post("/replays/{id}/resume", Role::Operator, resume),
        Route::post("/replays/{id}/cancel", Role::Operator, cancel),
    ]
}

#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    frame: Layout,
    id: String,
    address: String,
    which: String,
    config: &'static str,
    rate: String,
    ratio: String,
    by: String,
    created: Time,
    complaint: Option<String>,
    course: ProgressFragment,
    is_open: bool,
}

/// The part that changes.
#[derive(Template)]
#[template(path = "replay_course.html")]
struct ProgressFragment {
    frame: Layout,
    address: String,
    state: &'static str,
    total: u64,
    sent: u64,
    left: u64,
    delivered: u64,
    failed: u64,
    requeued: u64,
    per_second: Option<String>,
    end: Option<(Time, String)>,
    ended: Option<Time>,
    outcome: Option<String>,
    /// The letters that it has made.
    dead_again: Option<String>,
    /// What was not sent, and where it is found.
    unsent: Option<(String, String)>,
    commands: Vec<&'static str>,
}

impl ProgressFragment {
    fn new(replay: &Replay, pace: &RateMeter, visit: &RequestContext) -> Self {
        let left = replay.total.saturating_sub(replay.sent);
        let is_running = replay.state == ReplayState::Running;
        let end = pace.time_for(left).filter(|_| is_running && left > 0).and_then(|time| {
            let at = Utc::now().checked_add_signed(TimeDelta::from_std(time).ok()?)?;
            Some((Time(at), rough(time)))
        });
        let commands = [ReplayCommand::Pause, ReplayCommand::Resume, ReplayCommand::Cancel].into_iter();
        let commands = commands.filter(|command| command.apply(replay.state).is_some() && visit.may(Role::Operator));
        Self {
            frame: Layout::new(visit, ""),
            address: links::replay(&replay.id),
            state: replay.state.as_str(),
            total: replay.total,
            sent: replay.sent,
            left,
            delivered: replay.delivered,
            failed: replay.failed,
            requeued: replay.requeued,
            per_second: pace.per_second().filter(|_| is_running).map(decimal),
            end,
            ended: replay.ended_at.map(Time),
            outcome: outcome(replay),
            dead_again: (replay.failed > 0).then(|| list_of(&made_by(replay))),
            unsent: (left > 0 && !replay.state.is_open()).then(|| (dead_letters(left), list_of(&unsent(replay)))),
            commands: commands.map(ReplayCommand::as_str).collect(),
        }
    }

    fn count(&self, number: &u64) -> Count {
        Count(*number)
    }
}

/// How it has ended, in a sentence.
fn outcome(replay: &Replay) -> Option<String> {
    let sentence = match replay.state {
        ReplayState::Running | ReplayState::Paused => return None,
        ReplayState::Done if replay.failed == 0 => "All of them were sent, and none failed.".to_owned(),
        ReplayState::Done => format!("All of them were sent; {} failed again.", dead_letters(replay.failed)),
        ReplayState::Cancelled => "It was cancelled.".to_owned(),
        ReplayState::Stopped => {
            let ratio = replay.stop_on_failure_ratio.map_or_else(String::new, |ratio| format!(" ({ratio})"));
            format!("It stopped by its failure ratio{ratio}: look at what failed before you send more.")
        }
    };
    Some(sentence)
}

/// The letters that a replay has made of those that failed again.
fn made_by(replay: &Replay) -> LetterFilter {
    let fields = query::fields(&replay.filter.clone().unwrap_or_default()).into_iter();
    let kept = fields.filter(|(name, _)| LetterFilter::LASTING.contains(name));
    // It could be read with more conditions.
    let kept = query::filter(kept.map(|(name, value)| (name.to_owned(), value))).unwrap_or_default();
    LetterFilter { since: Some(replay.created_at), state: Some(LetterState::Pending), ..kept }
}

/// The letters that a replay has given back. Those that were named one by one are among all that are pending.
fn unsent(replay: &Replay) -> LetterFilter {
    let filter = replay.filter.clone().unwrap_or_default().or_pending();
    LetterFilter { until: filter.until.or(Some(replay.created_at)), ..filter }
}

async fn show(http: State<ApiState>, visit: RequestContext, id: Id) -> Result<Response, PageError> {
    shown(http, visit, id, None).await
}

async fn shown(
    State(http): State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    complaint: Option<String>,
) -> Result<Response, PageError> {
    if let Err(waiting) = view(&http, &visit).await {
        return Ok(waiting);
    }
    let replay = http.replays.get(&ReplayId::new(id)).await?;
    let rate = replay.rate_per_second.map(|rate| format!("at most {} a second", decimal(rate)));
    let ratio = replay.stop_on_failure_ratio.map(|ratio| format!("once {ratio} of the latest have failed"));
    Ok(page(&ReplayPage {
        frame: Layout::new(&visit, format!("Replay {}", replay.id)),
        address: links::replay(&replay.id),
        which: choice(&replay),
        config: match replay.config {
            ReplayConfig::Current => "current: the webhooks as they are now",
            ReplayConfig::Original => "original: the webhooks as they were at the last attempt",
        },
        rate: rate.unwrap_or_else(|| "as fast as it goes".to_owned()),
        ratio: ratio.unwrap_or_else(|| "never".to_owned()),
        created: Time(replay.created_at),
        complaint,
        course: ProgressFragment::new(&replay, &RateMeter::default(), &visit),
        is_open: replay.state.is_open(),
        id: replay.id.to_string(),
        by: replay.created_by,
    }))
}

async fn pause(http: State<ApiState>, visit: RequestContext, id: Id) -> Result<Response, PageError> {
    control(http, visit, id, ReplayCommand::Pause).await
}

async fn resume(http: State<ApiState>, visit: RequestContext, id: Id) -> Result<Response, PageError> {
    control(http, visit, id, ReplayCommand::Resume).await
}

async fn cancel(http: State<ApiState>, visit: RequestContext, id: Id) -> Result<Response, PageError> {
    control(http, visit, id, ReplayCommand::Cancel).await
}

async fn control(
    http: State<ApiState>,
    visit: RequestContext,
    Id(id): Id,
    command: ReplayCommand,
) -> Result<Response, PageError> {
    let replay = ReplayId::new(&*id);
    match http.replays.control(&replay, command, visit.name()).await {
        Ok(replay) => Ok(Redirect::to(&links::replay(&replay.id)).into_response()),
        // It has gone on since the page was loaded: here is how it stands.
        Err(DeadLetterError::Conflict(why)) => shown(http, visit, Id(id), Some(why)).await,
        Err(refused) => Err(refused.into()),
    }
}

async fn follow(State(http): State<ApiState>, visit: RequestContext, Id(id): Id) -> Result<Response, PageError> {
    let replay = http.replays.get(&ReplayId::new(id)).await?;
    Ok(live(
        &visit.clone(),
        courses(ProgressStream { http, visit, pace: RateMeter::default(), replay: Some(replay), told: None }),
    ))
}

/// Someone who looks on.
struct ProgressStream {
    http: ApiState,
    visit: RequestContext,
    pace: RateMeter,
    /// As it was last read; none where it could not be.
    replay: Option<Replay>,
    /// How far it was when that was last told.
    told: Option<(ReplayState, u64)>,
}

/// How the replay stands, again and again. After its end nothing more comes, and the stream stays open: one that ends is
/// asked for again.
fn courses(following: ProgressStream) -> impl Stream<Item = String> {
    futures_util::stream::unfold(following, async |mut following| {
        if following.told.is_some() {
            following.news().await?;
        }
        let replay = following.replay.as_ref()?;
        following.pace.add(Instant::now(), replay.sent);
        following.told = Some((replay.state, replay.sent));
        let course = ProgressFragment::new(replay, &following.pace, &following.visit);
        Some((course.render().ok()?, following))
    })
}

impl ProgressStream {
    /// Waits until there is something new, or it is time to say that there is not.
    async fn news(&mut self) -> Option<()> {
        let id = self.replay.as_ref()?.id.clone();
        let (state, told) = self.told?;
        if !state.is_open() {
            return std::future::pending().await;
        }
        tokio::time::sleep(NEWS).await;
        let is_new = self.http.dead_letters.wait_until(|view| {
            let job = view.job(&id)?;
            Ok(job.is_none_or(|job| (job.replay.state, job.replay.sent) != (state, told)))
        });
        // What can't be read now is told as the end of the stream; the page asks again.
        if let Ok(Err(_)) = tokio::time::timeout(NO_NEWS, is_new).await {
            return None;
        }
        self.replay = self.http.dead_letters.view.job(&id).ok()?.map(|job| job.replay);
        Some(())
    }
}
