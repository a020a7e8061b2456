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
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::fair_limiter::{FairLimiter, InFlight};
use super::{ReplayWakeup, Replays, new_delivery};
use crate::broker::BrokerError;
use crate::broker::acks::Acks;
use crate::broker::publisher::{Destination, OutboundMessage};
use crate::broker::subscription::{ACK_FLUSH_TIMEOUT, Message, Subscription};
use crate::dead_letters::DeadLetterError;
use crate::delivery::Delivery;
use crate::delivery::dead_letter::record::{DeadLetterRecord, LetterResult, ReplayBatch};
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::event::{self, StepEvent};
use crate::delivery::ids::EventId;
use crate::delivery::replay::ReplayOutcome;
use crate::delivery::replay::{REQUESTS, Replay, ReplayId, ReplayProgress, ReplayRef, ReplayState};
use crate::store::StoreError;
use crate::store::dead_letters::LetterView;
use crate::worker::consumer_status::ConsumerStatus;
use crate::worker::{DeliveryError, Worker};

/// Messages in hand, of each replay one and for a moment the next: more than anybody runs at once.
const MESSAGES: u16 = 256;

/// Requests of one replay in flight at once, where it has no rate.
const REQUESTS_OF_ONE: usize = 16;

/// A message is worked on this long before the next one takes its place: well below the half hour after which the
/// broker takes a message away.
const TIME_SLICE: Duration = Duration::from_secs(5);

/// How often replays are looked for that nobody works on.
const CALL_INTERVAL: Duration = Duration::from_secs(10);

/// A replay of which nothing was recorded for this long is called. It may just be slow: then the message is dropped.
const QUIET: Duration = Duration::from_secs(20);

/// Whoever takes over a replay reads what was recorded before, and waits no longer for that.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A record that can't be written is tried again after this time, and a message that failed is given back.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs replays.
pub struct Runner {
    /// What they are, and where they are recorded.
    pub replays: Replays,
    /// What sends.
    pub worker: Arc<Worker>,
    /// How busy deliveries are, which come first.
    pub progress: ConsumerStatus,
    /// Messages of deliveries in hand above which replays keep to one request at a time.
    pub busy: usize,
    /// How long requests in flight may go on after a stop.
    pub grace: Duration,
    requests: FairLimiter,
    /// While deliveries are busy one request of all replays goes on.
    alone: Semaphore,
    /// When each replay with a rate may send next.
    paces: Mutex<HashMap<ReplayId, Instant>>,
}

/// Why a shift ended before its time.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Refused(#[from] DeadLetterError),
    #[error(transparent)]
    Unsettled(#[from] DeliveryError),
    #[error("this worker has not read what others have recorded of it")]
    Behind,
    #[error("it has letters to send that can't be found")]
    Empty,
    #[error("it panicked; the log says where")]
    Panicked,
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl Runner {
    /// A runner that has nothing to do yet.
    pub fn new(replays: Replays, worker: Arc<Worker>, progress: ConsumerStatus, busy: usize, grace: Duration) -> Self {
        let (requests, alone) = (FairLimiter::new(), Semaphore::new(1));
        Self { replays, worker, progress, busy, grace, requests, alone, paces: Mutex::default() }
    }

    /// Runs replays until `stop`, then finishes the slices in flight.
    ///
    /// # Errors
    /// [`BrokerError`] when the connection is lost; the slices in flight are dropped with it.
    pub async fn run(self: Arc<Self>, connection: &Connection, stop: &CancellationToken) -> Result<(), BrokerError> {
        let mut messages = Subscription::open(connection, &self.replays.names.replays(), MESSAGES).await?;
        let acks = messages.acks();
        // Each replay at work, with the message that is to be worked on next: the end of a shift overtakes nothing.
        let mut at_work: HashMap<ReplayId, Option<PendingWakeup>> = HashMap::new();
        let mut shifts = JoinSet::new();
        let begin = |held: PendingWakeup| self.clone().settle(held, acks.clone(), stop.clone());
        // On a new connection all: the queue may be a new one too.
        let mut quiet = Duration::ZERO;
        let mut calls = interval(CALL_INTERVAL);
        calls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message?;
                    match held(&message) {
                        None => acks.acknowledge(message.tag),
                        Some(held) => match at_work.get_mut(&held.call.replay) {
                            Some(next @ None) => *next = Some(held),
                            // One that says what others say already.
                            Some(Some(_)) => acks.acknowledge(message.tag),
                            None => {
                                at_work.insert(held.call.replay.clone(), None);
                                shifts.spawn(begin(held));
                            }
                        },
                    }
                }
                Some(ended) = shifts.join_next() => {
                    if let Ok(replay) = ended
                        && let Some(Some(next)) = at_work.remove(&replay)
                    {
                        at_work.insert(replay, None);
                        shifts.spawn(begin(next));
                    }
                }
                _ = calls.tick() => {
                    self.wake_stalled(&at_work, quiet).await;
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
        let _ = timeout(ACK_FLUSH_TIMEOUT, messages.finish()).await;
        Ok(())
    }

    /// Calls replays that have something to do, and of which nothing was heard for so long.
    async fn wake_stalled(&self, at_work: &HashMap<ReplayId, Option<PendingWakeup>>, quiet: Duration) {
        let jobs = match tokio::task::block_in_place(|| self.replays.dead_letters.view.jobs_to_do()) {
            Ok(jobs) => jobs,
            Err(error) => return tracing::error!(%error, "replays could not be looked for"),
        };
        self.paces().retain(|replay, _| jobs.iter().any(|job| job.replay.id == *replay));
        let forgotten = |job: &&ReplayProgress| {
            // Where another node's clock is ahead it was just now.
            let since = Utc::now().signed_duration_since(job.updated_at).to_std().unwrap_or_default();
            since >= quiet && !at_work.contains_key(&job.replay.id)
        };
        for job in jobs.iter().filter(forgotten) {
            // Where it can't be published now, it is tried again at the next look.
            if self.replays.call(&job.replay.id).await.is_err() {
                return;
            }
        }
    }

    /// Works on a replay, and settles its message. Gives back whose it was.
    async fn settle(
        self: Arc<Self>,
        PendingWakeup { call, tag }: PendingWakeup,
        acks: Acks,
        stop: CancellationToken,
    ) -> ReplayId {
        let replay = call.replay.clone();
        let _working = self.requests.work_on(&replay);
        let shift = AssertUnwindSafe(self.run_time_slice(&call, &stop)).catch_unwind().await;
        match shift.unwrap_or(Err(ReplayError::Panicked)) {
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
    async fn run_time_slice(
        &self,
        ReplayWakeup { replay, known }: &ReplayWakeup,
        stop: &CancellationToken,
    ) -> Result<(), ReplayError> {
        // What whoever worked on it before has recorded. A log that was made anew never comes that far, and knows no such
        // replay.
        let read =
            self.replays.dead_letters.wait_until(|view| Ok(view.position()?.is_some_and(|at| at.offset >= *known)));
        match timeout(READ_TIMEOUT, read).await {
            Ok(read) => read?,
            Err(_) if self.replays.dead_letters.view.replay_state(replay)?.is_none() => return Ok(()),
            Err(_) => return Err(ReplayError::Behind),
        }
        let end = Instant::now() + TIME_SLICE;
        loop {
            let Some(job) = self.replays.dead_letters.view.job(replay)? else {
                tracing::warn!(%replay, "a replay that the log of dead letters does not know any more is left off");
                return Ok(());
            };
            let Some(most) = job.next_slice() else {
                return Ok(());
            };
            if Instant::now() > end || stop.is_cancelled() {
                return Ok(self.replays.call(replay).await?);
            }
            self.send(&job, most, end, stop).await?;
        }
    }

    /// Sends a slice of letters, and records how it went. What is not begun by `end` is left to the next slice: however
    /// long requests take, a slice is over before the broker takes its message away.
    async fn send(
        &self,
        job: &ReplayProgress,
        most: u32,
        end: Instant,
        stop: &CancellationToken,
    ) -> Result<(), ReplayError> {
        let view = &self.replays.dead_letters.view;
        let letters = tokio::task::block_in_place(|| view.claimed(&job.replay.id, most as usize))?;
        if letters.is_empty() {
            // They were given back, or forgotten, just now.
            let left = view.job(&job.replay.id)?.is_some_and(|job| job.next_slice().is_some());
            return if left { Err(ReplayError::Empty) } else { Ok(()) };
        }
        // The first one is sent in any case, or a slow replay would never go on.
        let ends = std::iter::once(None).chain(std::iter::repeat(Some(end)));
        let sending = futures_util::stream::iter(letters.into_iter().zip(ends))
            .map(|(kept, end)| self.send_one(job, kept.letter, end, stop));
        // Whoever asks for a rate knows what the endpoint can bear, also where it is slow.
        let at_once =
            job.replay.rate_per_second.map_or(REQUESTS_OF_ONE, |rate| (rate.ceil() as usize).clamp(1, REQUESTS / 2));
        let results: Vec<Result<Option<LetterResult>, ReplayError>> = sending.buffer_unordered(at_once).collect().await;
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
            self.record(DeadLetterRecord::Slice(ReplayBatch { replay: job.replay.id.clone(), sent, at: Utc::now() }))
                .await?;
            if let Some(job) = view.job(&job.replay.id)? {
                log_end(&job.replay);
            }
        }
        interrupted.map_or(Ok(()), Err)
    }

    /// Sends one letter when it is its turn, unless that is over before.
    async fn send_one(
        &self,
        job: &ReplayProgress,
        letter: DeadLetter,
        end: Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<Option<LetterResult>, ReplayError> {
        let replay = &job.replay.id;
        let runs_no_more = |view: &LetterView| Ok(view.replay_state(replay)? != Some(ReplayState::Running));
        let over = async {
            tokio::select! {
                ended = self.replays.dead_letters.wait_until(runs_no_more) => ended,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => Ok(()),
                () = stop.cancelled() => Ok(()),
            }
        };
        let _turn = tokio::select! {
            biased;
            over = over => {
                over?;
                return Ok(None);
            }
            turn = self.send_permit(job) => turn,
        };
        let id = letter.id.clone();
        let outcome = self.send_again(job, letter).await?;
        self.worker.metrics.replayed(outcome);
        Ok(Some(LetterResult { id, outcome }))
    }

    /// Waits until a letter may be sent: by the replay's rate, after deliveries where they are busy, and with no more
    /// requests at once than there may be.
    async fn send_permit(&self, job: &ReplayProgress) -> SendPermit<'_> {
        if let Some(rate) = job.replay.rate_per_second {
            sleep_until(self.next_send_at(&job.replay.id, rate)).await;
        }
        let alone = tokio::select! {
            biased;
            () = self.progress.until_at_most(self.busy) => None,
            // The semaphore is never closed.
            alone = self.alone.acquire() => alone.ok(),
        };
        SendPermit { _alone: alone, _request: self.requests.begin(&job.replay.id).await }
    }

    /// When the next letter of a replay may be sent.
    fn next_send_at(&self, replay: &ReplayId, rate: f64) -> Instant {
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

    async fn send_again(&self, job: &ReplayProgress, letter: DeadLetter) -> Result<ReplayOutcome, ReplayError> {
        let link = ReplayRef { dead_letter: letter.id.clone(), replay: job.replay.id.clone() };
        let Some(event) = letter.event.clone().filter(|_| letter.is_of_delivery()) else {
            return self.requeue(letter, link).await;
        };
        match self.replays.target(job.replay.config, &letter)? {
            Ok(target) => self.attempt(new_delivery(&letter, event, target, letter.trace.clone()), link).await,
            Err(reason) => self.dead(letter.unsent(reason), link).await,
        }
    }

    /// One attempt. What fails is dead again: a replay retries nothing.
    async fn attempt(&self, mut delivery: Delivery, link: ReplayRef) -> Result<ReplayOutcome, ReplayError> {
        match self.worker.attempt_for_replay(&mut delivery, &link.replay).await {
            None => Ok(ReplayOutcome::Delivered),
            Some(reason) => self.dead(DeadLetter::of_delivery(delivery, reason, Utc::now()), link).await,
        }
    }

    async fn dead(&self, letter: DeadLetter, link: ReplayRef) -> Result<ReplayOutcome, ReplayError> {
        let letter = DeadLetter { state: LetterState::Pending, dead_at: Utc::now(), ..letter }.of_replay(link);
        self.worker.publish_dead_letter(&letter).await?;
        Ok(ReplayOutcome::Dead)
    }

    /// Puts a message that was no event, or that no worker settled, back on its queue, byte for byte.
    async fn requeue(&self, letter: DeadLetter, link: ReplayRef) -> Result<ReplayOutcome, ReplayError> {
        let Some(body) = letter.whole_body() else {
            return self.dead(letter, link).await;
        };
        let campaign = event::decode(&body, None).map(|event: StepEvent| event.campaign_id).unwrap_or_default();
        let routing_key = if campaign.len() <= 255 { campaign } else { String::new() };
        let to = match Delivery::read_waiting(&body) {
            // An earlier version could not read what waited.
            Ok(_) => Destination::Queue(self.worker.names.retries()),
            Err(_) => Destination::Exchange { name: self.worker.names.events(), routing_key },
        };
        // The event's identity, where its body names none: as it would be without a message id.
        let message_id = letter.message_id.unwrap_or_else(|| EventId::of_body(&body).to_string());
        let outgoing = OutboundMessage { to, message_id, body, trace: letter.trace, replay: Some(link) };
        self.worker.publish(outgoing).await?;
        Ok(ReplayOutcome::Requeued)
    }

    /// Records what was done. While the log can't be written the replay stands still: what was sent and is not recorded
    /// would be sent again.
    async fn record(&self, mark: DeadLetterRecord) -> Result<(), ReplayError> {
        loop {
            match self.replays.dead_letters.append(mark.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ DeadLetterError::Unavailable(_)) => {
                    tracing::warn!(%error, "a replay waits for the log");
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A replay that ends is told of where it was worked on.
fn log_end(replay: &Replay) {
    let Replay { id, state, total, sent, delivered, requeued, failed, .. } = replay;
    match state {
        ReplayState::Stopped => {
            tracing::warn!(replay = %id, total, sent, delivered, requeued, failed, "a replay was stopped by its failure ratio");
        }
        ReplayState::Done => {
            tracing::info!(replay = %id, total, sent, delivered, requeued, failed, "a replay is done");
        }
        ReplayState::Running | ReplayState::Paused | ReplayState::Cancelled => {}
    }
}

/// A message in hand.
struct PendingWakeup {
    call: ReplayWakeup,
    tag: u64,
}

/// What a letter needs to be sent, for as long as that takes.
struct SendPermit<'a> {
    _alone: Option<SemaphorePermit<'a>>,
    _request: InFlight<'a>,
}

fn held(message: &Message) -> Option<PendingWakeup> {
    let call = serde_json::from_slice(&message.body);
    let call = call.inspect_err(|error| tracing::warn!(%error, "a message on the replays queue names no replay"));
    call.ok().map(|call| PendingWakeup { call, tag: message.tag })
}
