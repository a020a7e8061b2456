//! The page of one replay: progress with live updates, and the commands pause, resume and cancel.

use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use chrono::{TimeDelta, Utc};
use futures_util::Stream;
use waypost_core::access::Role;
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::duration::approximate;
use waypost_core::replay::{Replay, ReplayCommand, ReplayConfig, ReplayId, ReplayState};
use waypost_engine::dead_letters::DeadLetterError;
use waypost_engine::replays::rate_meter::{RateMeter, decimal};

use crate::api_state::ApiState;
use crate::console::format::Count;
use crate::console::labels::{describe_replayed, letter_count};
use crate::console::layout::{Layout, PageError, RequestContext, Time, live_fragments, page};
use crate::console::letter_view::wait_until_readable;
use crate::console::links;
use crate::dead_letters::query;
use crate::extract::Id;
use crate::route::Route;

/// Updates are sent at most this often.
const MIN_UPDATE_INTERVAL: Duration = Duration::from_millis(500);

/// Without progress, an update is sent after this time, so that the shown rate falls.
const MAX_UPDATE_INTERVAL: Duration = Duration::from_secs(3);

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/replays/{id}", Role::Viewer, show),
        Route::get("/replays/{id}/live", Role::Viewer, stream),
        Route::post("/replays/{id}/pause", Role::Operator, pause),
        Route::post("/replays/{id}/resume", Role::Operator, resume),
        Route::post("/replays/{id}/cancel", Role::Operator, cancel),
    ]
}

#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    layout: Layout,
    id: String,
    href: String,
    selection: String,
    config: &'static str,
    rate: String,
    ratio: String,
    by: String,
    created: Time,
    error: Option<String>,
    progress: ProgressFragment,
    is_open: bool,
}

/// The part of the page that is updated live.
#[derive(Template)]
#[template(path = "replay_progress.html")]
struct ProgressFragment {
    layout: Layout,
    href: String,
    state: &'static str,
    total: u64,
    sent: u64,
    remaining: u64,
    delivered: u64,
    failed: u64,
    requeued: u64,
    per_second: Option<String>,
    expected_end: Option<(Time, String)>,
    ended: Option<Time>,
    outcome: Option<String>,
    /// URL of the list of dead letters that the replay has created.
    failed_href: Option<String>,
    /// Number of letters that were not sent, as text, and the URL of their list.
    unsent: Option<(String, String)>,
    commands: Vec<&'static str>,
}

impl ProgressFragment {
    fn new(replay: &Replay, rate_meter: &RateMeter, context: &RequestContext) -> Self {
        let remaining = replay.total.saturating_sub(replay.sent);
        let is_running = replay.state == ReplayState::Running;
        let expected_end = rate_meter.time_for(remaining).filter(|_| is_running && remaining > 0).and_then(|time| {
            let at = Utc::now().checked_add_signed(TimeDelta::from_std(time).ok()?)?;
            Some((Time(at), approximate(time)))
        });
        let commands = [ReplayCommand::Pause, ReplayCommand::Resume, ReplayCommand::Cancel].into_iter();
        let commands =
            commands.filter(|command| command.apply(replay.state).is_some() && context.has_role(Role::Operator));
        Self {
            layout: Layout::new(context, ""),
            href: links::replay(&replay.id),
            state: replay.state.as_str(),
            total: replay.total,
            sent: replay.sent,
            remaining,
            delivered: replay.delivered,
            failed: replay.failed,
            requeued: replay.requeued,
            per_second: rate_meter.per_second().filter(|_| is_running).map(decimal),
            expected_end,
            ended: replay.ended_at.map(Time),
            outcome: outcome(replay),
            failed_href: (replay.failed > 0).then(|| links::letter_list(&created_letters(replay))),
            unsent: (remaining > 0 && !replay.state.is_open())
                .then(|| (letter_count(remaining), links::letter_list(&unsent(replay)))),
            commands: commands.map(ReplayCommand::as_str).collect(),
        }
    }

    fn count(&self, number: &u64) -> Count {
        Count(*number)
    }
}

/// A sentence about the result. `None` while the replay is open.
fn outcome(replay: &Replay) -> Option<String> {
    let sentence = match replay.state {
        ReplayState::Running | ReplayState::Paused => return None,
        ReplayState::Done if replay.failed == 0 => "All dead letters were sent. None failed.".to_owned(),
        ReplayState::Done => format!("All dead letters were sent. {} failed again.", letter_count(replay.failed)),
        ReplayState::Cancelled => "The replay was cancelled.".to_owned(),
        ReplayState::Stopped => {
            let ratio = replay.stop_on_failure_ratio.map_or_else(String::new, |ratio| format!(" ({ratio})"));
            format!("The replay stopped because of its failure ratio{ratio}. Check what failed before you send more.")
        }
    };
    Some(sentence)
}

/// Matches the dead letters that a replay has created for those that failed again.
fn created_letters(replay: &Replay) -> LetterFilter {
    let fields = replay.filter.clone().unwrap_or_default().fields().into_iter();
    let fields = fields.filter(|(name, _)| LetterFilter::STABLE_FIELDS.contains(name));
    // A valid filter stays valid with fewer conditions.
    let filter = query::filter(fields.map(|(name, value)| (name.to_owned(), value))).unwrap_or_default();
    LetterFilter { since: Some(replay.created_at), state: Some(LetterState::Pending), ..filter }
}

/// Matches the letters that an ended replay has not sent. If it was created with ids, matches all pending letters.
fn unsent(replay: &Replay) -> LetterFilter {
    let filter = replay.filter.clone().unwrap_or_default().or_pending();
    LetterFilter { until: filter.until.or(Some(replay.created_at)), ..filter }
}

async fn show(state: State<ApiState>, context: RequestContext, id: Id) -> Result<Response, PageError> {
    show_with_error(state, context, id, None).await
}

async fn show_with_error(
    State(state): State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    error: Option<String>,
) -> Result<Response, PageError> {
    if let Err(response) = wait_until_readable(&state, &context).await {
        return Ok(response);
    }
    let replay = state.replays.get(&ReplayId::new(id)).await?;
    let rate = replay.rate_per_second.map(|rate| format!("at most {} per second", decimal(rate)));
    let ratio = replay
        .stop_on_failure_ratio
        .map(|ratio| format!("when the failure ratio of the latest letters reaches {ratio}"));
    Ok(page(&ReplayPage {
        layout: Layout::new(&context, format!("Replay {}", replay.id)),
        href: links::replay(&replay.id),
        selection: describe_replayed(&replay),
        config: match replay.config {
            ReplayConfig::Current => "current: the webhooks as they are now",
            ReplayConfig::Original => "original: the webhooks as they were at the last attempt",
        },
        rate: rate.unwrap_or_else(|| "no limit".to_owned()),
        ratio: ratio.unwrap_or_else(|| "never".to_owned()),
        created: Time(replay.created_at),
        error,
        progress: ProgressFragment::new(&replay, &RateMeter::default(), &context),
        is_open: replay.state.is_open(),
        id: replay.id.to_string(),
        by: replay.created_by,
    }))
}

async fn pause(state: State<ApiState>, context: RequestContext, id: Id) -> Result<Response, PageError> {
    control(state, context, id, ReplayCommand::Pause).await
}

async fn resume(state: State<ApiState>, context: RequestContext, id: Id) -> Result<Response, PageError> {
    control(state, context, id, ReplayCommand::Resume).await
}

async fn cancel(state: State<ApiState>, context: RequestContext, id: Id) -> Result<Response, PageError> {
    control(state, context, id, ReplayCommand::Cancel).await
}

async fn control(
    state: State<ApiState>,
    context: RequestContext,
    Id(id): Id,
    command: ReplayCommand,
) -> Result<Response, PageError> {
    let replay = ReplayId::new(&*id);
    match state.replays.control(&replay, command, context.name()).await {
        Ok(replay) => Ok(Redirect::to(&links::replay(&replay.id)).into_response()),
        // The state has changed since the page was loaded. Show the current one.
        Err(DeadLetterError::Conflict(reason)) => show_with_error(state, context, Id(id), Some(reason)).await,
        Err(error) => Err(error.into()),
    }
}

async fn stream(State(state): State<ApiState>, context: RequestContext, Id(id): Id) -> Result<Response, PageError> {
    let replay = state.replays.get(&ReplayId::new(id)).await?;
    Ok(live_fragments(
        &context.clone(),
        progress_stream(ProgressStream { state, context, rate_meter: RateMeter::default(), replay, is_sent: false }),
    ))
}

struct ProgressStream {
    state: ApiState,
    context: RequestContext,
    rate_meter: RateMeter,
    /// As last read.
    replay: Replay,
    /// Whether the replay as last read was sent.
    is_sent: bool,
}

/// Renders the progress after each change. After the end of the replay, the stream stays open without updates, because
/// browsers reconnect to a stream that ends.
fn progress_stream(stream: ProgressStream) -> impl Stream<Item = String> {
    futures_util::stream::unfold(stream, async |mut stream| {
        if stream.is_sent {
            stream.wait_for_change().await?;
        }
        stream.is_sent = true;
        stream.rate_meter.add(Instant::now(), stream.replay.sent);
        let progress = ProgressFragment::new(&stream.replay, &stream.rate_meter, &stream.context);
        Some((progress.render().ok()?, stream))
    })
}

impl ProgressStream {
    /// Waits for progress, at most [`MAX_UPDATE_INTERVAL`]. `None` ends the stream.
    async fn wait_for_change(&mut self) -> Option<()> {
        if !self.replay.state.is_open() {
            return std::future::pending().await;
        }
        tokio::time::sleep(MIN_UPDATE_INTERVAL).await;
        // If the view can't be read, the stream ends and the browser reconnects.
        self.replay = self.state.replays.wait_for_change(&self.replay, MAX_UPDATE_INTERVAL).await.ok()??;
        Some(())
    }
}
