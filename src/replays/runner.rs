//! Running replays: this node does, while it has the replays queue.
//!
//! ```text
//! a message ▶ a shift: its letters, slice by slice ▶ the next message ▶ acknowledge
//! ```
//!
//! What a slice has done is recorded in the dead-letter log before the next one begins. A node that dies takes at most
//! the slice in flight with it: the broker gives its message to another, which goes on behind the last record. Messages
//! may be doubled or lost; a replay that is at work here is begun no second time, and one that nobody works on is called.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Connection;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Replays, new_delivery};
use crate::broker::BrokerError;
use crate::broker::consumer::{Message, Subscription};
use crate::broker::publisher::{Destination, Outgoing};
use crate::dead_letters::Refused;
use crate::delivery::Delivery;
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::dead_letter::mark::{Mark, ReplayOutcome, Sent, Slice};
use crate::delivery::event::{self, StepEvent};
use crate::delivery::outcome::Outcome;
use crate::delivery::reason::Reason;
use crate::delivery::replay::{Job, ReplayId, ReplayLink, ReplayState};
use crate::store::StoreError;
use crate::worker::progress::Progress;
use crate::worker::{Unsettled, Worker};

/// Messages in hand: of each replay one, and for a moment the next.
const MESSAGES: u16 = 16;

/// Requests of all replays in flight at once.
const REQUESTS: usize = 64;

/// Requests of one replay in flight at once.
const REQUESTS_OF_ONE: usize = 16;

/// A message is worked on this long before the next one takes its place: well below the half hour after which the
/// broker takes a message away.
const SHIFT: Duration = Duration::from_secs(5);

/// How often replays are looked for that nobody works on.
const CALL_INTERVAL: Duration = Duration::from_secs(10);

/// A replay of which nothing was recorded for this long is called. It may just be slow: then the message is dropped.
const QUIET: Duration = Duration::from_secs(20);

/// A record that can't be written is tried again after this time, and a message that failed is given back.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs replays.
pub struct Runner {
    /// What they are, and where they are recorded.
    pub replays: Replays,
    /// What sends.
    pub worker: Arc<Worker>,
    /// How busy deliveries are, which come first.
    pub progress: Progress,
    /// Messages of deliveries in hand above which replays keep to one request at a time.
    pub busy: usize,
    /// How long requests in flight may go on after a stop.
    pub grace: Duration,
    requests: Semaphore,
    /// When each replay with a rate may send next.
    paces: Mutex<HashMap<ReplayId, Instant>>,
}

/// What a message says.
#[derive(Deserialize)]
struct Call {
    replay: ReplayId,
}

/// Why a shift ended before its time.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Unsettled(#[from] Unsettled),
    #[error("it panicked; the log says where")]
    Panicked,
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl Runner {
    /// A runner that has nothing to do yet.
    pub fn new(replays: Replays, worker: Arc<Worker>, progress: Progress, busy: usize, grace: Duration) -> Self {
        let (requests, paces) = (Semaphore::new(REQUESTS), Mutex::default());
        Self { replays, worker, progress, busy, grace, requests, paces }
    }

    /// Runs replays until `stop`, then finishes the slices in flight.
    ///
    /// # Errors
    /// [`BrokerError`] when the connection is lost; the slices in flight are dropped with it.
    pub async fn run(self: Arc<Self>, connection: &Connection, stop: &CancellationToken) -> Result<(), BrokerError> {
        let mut messages = Subscription::open(connection, &self.replays.names.replays(), MESSAGES).await?;
        let acks = messages.acks();
        // Each replay at work, with the message that is to be worked on next: the end of a shift overtakes nothing.
        let mut at_work: HashMap<ReplayId, Option<u64>> = HashMap::new();
        let mut shifts = JoinSet::new();
        let begin = |replay: ReplayId, tag| self.clone().settle(replay, tag, acks.clone(), stop.clone());
        // On a new connection all: the queue may be a new one too.
        let mut quiet = Duration::ZERO;
        let mut calls = interval(CALL_INTERVAL);
        calls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message?;
                    let replay = replay_of(&message);
                    match replay.as_ref().and_then(|replay| at_work.get_mut(replay)) {
                        Some(next @ None) => *next = Some(message.tag),
                        // One that says what others say already.
                        Some(Some(_)) => acks.acknowledge(message.tag),
                        None => match replay {
                            Some(replay) => {
                                at_work.insert(replay.clone(), None);
                                shifts.spawn(begin(replay, message.tag));
                            }
                            None => acks.acknowledge(message.tag),
                        },
                    }
                }
                Some(ended) = shifts.join_next() => {
                    if let Ok(replay) = ended
                        && let Some(Some(next)) = at_work.remove(&replay)
                    {
                        at_work.insert(replay.clone(), None);
                        shifts.spawn(begin(replay, next));
                    }
                }
                _ = calls.tick() => {
                    self.call_the_forgotten(&at_work, quiet).await;
                    quiet = QUIET;
                }
                () = stop.cancelled() => break,
            }
        }
        let finish = async {
            messages.cancel().await;
            while shifts.join_next().await.is_some() {}
        };
        if timeout(self.grace, finish).await.is_err() {
            tracing::warn!("stopping: what a replay has in flight is sent again by whoever goes on with it");
        }
        shifts.shutdown().await;
        drop(acks);
        messages.flush().await;
        Ok(())
    }

    /// Calls replays that have something to do, and of which nothing was heard for so long.
    async fn call_the_forgotten(&self, at_work: &HashMap<ReplayId, Option<u64>>, quiet: Duration) {
        let jobs = match self.replays.dead_letters.view.jobs_to_do() {
            Ok(jobs) => jobs,
            Err(error) => return tracing::error!(%error, "replays could not be looked for"),
        };
        self.paces().retain(|replay, _| jobs.iter().any(|job| job.replay.id == *replay));
        let forgotten = |job: &&Job| {
            // Where another node's clock is ahead it was just now.
            let since = Utc::now().signed_duration_since(job.updated_at).to_std().unwrap_or_default();
            since >= quiet && !at_work.contains_key(&job.replay.id)
        };
        for job in jobs.iter().filter(forgotten) {
            // Where it can't be published now, it is tried again at the next look.
            let _ = timeout(PAUSE, self.replays.call(&job.replay.id)).await;
        }
    }

    /// Works on a replay, and settles its message. Gives back whose it was.
    async fn settle(
        self: Arc<Self>,
        replay: ReplayId,
        tag: u64,
        acks: crate::broker::acks::Acks,
        stop: CancellationToken,
    ) -> ReplayId {
        let shift = AssertUnwindSafe(self.shift(&replay, &stop)).catch_unwind().await;
        match shift.unwrap_or(Err(Interrupted::Panicked)) {
            Ok(()) => acks.acknowledge(tag),
            Err(error) => {
                tracing::error!(%replay, %error, "a replay was interrupted; it is gone on with");
                sleep(PAUSE).await;
                acks.requeue(tag);
            }
        }
        replay
    }

    /// Slices, as long as a shift takes. Where there is more to do the next message says so before this one is settled.
    async fn shift(&self, replay: &ReplayId, stop: &CancellationToken) -> Result<(), Interrupted> {
        let end = Instant::now() + SHIFT;
        loop {
            let Some(job) = self.replays.dead_letters.view.job(replay)? else {
                tracing::warn!(%replay, "a replay that the log of dead letters does not know any more is left off");
                return Ok(());
            };
            let Some(most) = job.next_slice() else {
                return Ok(());
            };
            if Instant::now() > end || stop.is_cancelled() {
                self.replays.call(replay).await.map_err(Unsettled::from)?;
                return Ok(());
            }
            self.send(&job, most, stop).await?;
        }
    }

    /// Sends a slice of letters, and records how it went.
    async fn send(&self, job: &Job, most: u32, stop: &CancellationToken) -> Result<(), Interrupted> {
        let letters = self.replays.dead_letters.view.claimed(&job.replay.id, most as usize)?;
        let sending = futures_util::stream::iter(letters).map(|kept| self.send_one(job, kept.letter, stop));
        let results: Vec<Result<Option<Sent>, Interrupted>> = sending.buffer_unordered(REQUESTS_OF_ONE).collect().await;
        let mut sent = Vec::with_capacity(results.len());
        let mut interrupted = None;
        for result in results {
            match result {
                Ok(one) => sent.extend(one),
                Err(error) => interrupted = Some(error),
            }
        }
        if !sent.is_empty() {
            // What was sent is recorded also where something else went wrong.
            self.record(Mark::Slice(Slice { replay: job.replay.id.clone(), sent, at: Utc::now() })).await?;
        }
        interrupted.map_or(Ok(()), Err)
    }

    /// Sends one letter, unless the replay was paused or has ended meanwhile.
    async fn send_one(
        &self,
        job: &Job,
        letter: DeadLetter,
        stop: &CancellationToken,
    ) -> Result<Option<Sent>, Interrupted> {
        let replay = &job.replay;
        let runs = |job: Option<&Job>| job.is_some_and(|job| job.replay.state == ReplayState::Running);
        if let Some(rate) = replay.rate_per_second {
            tokio::select! {
                () = sleep_until(self.slot(&replay.id, rate)) => {}
                ended = self.replays.dead_letters.until(&replay.id, |job| !runs(job)) => {
                    ended?;
                    return Ok(None);
                }
                () = stop.cancelled() => return Ok(None),
            }
        }
        // The semaphore is never closed.
        let _request = self.requests.acquire().await;
        if self.requests.available_permits() + 1 < REQUESTS {
            self.progress.until_at_most(self.busy).await;
        }
        if !runs(self.replays.dead_letters.view.job(&replay.id)?.as_ref()) || stop.is_cancelled() {
            return Ok(None);
        }
        let id = letter.id.clone();
        let outcome = self.replay(job, letter).await?;
        self.worker.metrics.replayed(outcome);
        Ok(Some(Sent { id, outcome }))
    }

    /// When the next letter of a replay may be sent.
    fn slot(&self, replay: &ReplayId, rate: f64) -> Instant {
        let mut paces = self.paces();
        let now = Instant::now();
        let next = paces.entry(replay.clone()).or_insert(now);
        let slot = (*next).max(now);
        *next = slot + Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX / 4);
        slot
    }

    fn paces(&self) -> std::sync::MutexGuard<'_, HashMap<ReplayId, Instant>> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn replay(&self, job: &Job, letter: DeadLetter) -> Result<ReplayOutcome, Interrupted> {
        let link = ReplayLink { dead_letter: letter.id.clone(), replay: job.replay.id.clone() };
        let Some(event) = letter.event.clone() else {
            return self.requeue(&letter, link).await;
        };
        let target = self.replays.target(job.replay.config, &letter)?;
        let was = letter.target.clone();
        match target {
            Ok(target) => self.attempt(new_delivery(&letter, event, target, letter.trace.clone()), link).await,
            Err(reason) => match was {
                Some(was) => self.dead(new_delivery(&letter, event, was, letter.trace.clone()), reason, link).await,
                None => Ok(ReplayOutcome::Dead),
            },
        }
    }

    /// One attempt. What fails is dead again: a replay retries nothing.
    async fn attempt(&self, mut delivery: Delivery, link: ReplayLink) -> Result<ReplayOutcome, Interrupted> {
        match self.worker.attempt_alone(&mut delivery).await {
            Outcome::Delivered => Ok(ReplayOutcome::Delivered),
            Outcome::Permanent(reason) => self.dead(delivery, reason, link).await,
            Outcome::Transient { .. } => self.dead(delivery, Reason::Exhausted, link).await,
        }
    }

    async fn dead(&self, delivery: Delivery, reason: Reason, link: ReplayLink) -> Result<ReplayOutcome, Interrupted> {
        let letter = DeadLetter::of_delivery(delivery, reason, Utc::now()).of_replay(link);
        self.worker.keep(&letter).await?;
        Ok(ReplayOutcome::Dead)
    }

    /// Puts an event that could not be read back on its queue, byte for byte.
    async fn requeue(&self, letter: &DeadLetter, link: ReplayLink) -> Result<ReplayOutcome, Interrupted> {
        let Some(body) = letter.whole_body() else {
            return Ok(ReplayOutcome::Dead);
        };
        let campaign = event::decode(&body, None).map(|event: StepEvent| event.campaign_id).unwrap_or_default();
        let routing_key = if campaign.len() <= 255 { campaign } else { String::new() };
        let to = Destination::Exchange { name: self.worker.names.events(), routing_key };
        let message_id = letter.message_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let outgoing = Outgoing { to, message_id, body, trace: letter.trace.clone(), replay: Some(link) };
        self.worker.publish(outgoing).await?;
        Ok(ReplayOutcome::Requeued)
    }

    /// Records what was done. While the log can't be written the replay stands still: what was sent and is not recorded
    /// would be sent again.
    async fn record(&self, mark: Mark) -> Result<(), Interrupted> {
        loop {
            match self.replays.dead_letters.append(mark.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ Refused::Unavailable(_)) => {
                    tracing::warn!(%error, "a replay waits for the log");
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn replay_of(message: &Message) -> Option<ReplayId> {
    let call = serde_json::from_slice::<Call>(&message.body);
    call.inspect_err(|error| tracing::warn!(%error, "a message on the replays queue names no replay"))
        .ok()
        .map(|call| call.replay)
}
