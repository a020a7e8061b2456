//! Runs replays on the worker that consumes the replays queue.
//!
//! ```text
//! wakeup message ▶ time slice: sends letters batch by batch ▶ publishes the next wakeup ▶ acknowledges the message
//! ```
//!
//! The results of a batch are recorded in the dead-letter stream before the next batch begins. If a worker dies, at
//! most the batch in flight is sent again: the broker redelivers the message to another worker, which continues after
//! the last record. Wakeup messages may be duplicated or lost. A replay that runs here is not started twice, and a
//! stalled replay gets a new wakeup.

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
use waypost_broker::BrokerError;
use waypost_broker::acks::Acks;
use waypost_broker::publisher::{Destination, OutboundMessage};
use waypost_broker::subscription::{ACK_FLUSH_TIMEOUT, Message, Subscription};
use waypost_core::Delivery;
use waypost_core::dead_letter::record::{DeadLetterRecord, LetterResult, ReplayBatch};
use waypost_core::dead_letter::{DeadLetter, LetterState};
use waypost_core::event;
use waypost_core::gcra::{Gcra, Rate};
use waypost_core::ids::EventId;
use waypost_core::replay::ReplayOutcome;
use waypost_core::replay::{MAX_REQUESTS_IN_FLIGHT, Replay, ReplayId, ReplayProgress, ReplayRef, ReplayState};
use waypost_store::StoreError;
use waypost_store::dead_letters::LetterView;

use super::fair_limiter::{FairLimiter, RequestGuard};
use super::{ReplayWakeup, Replays, new_delivery};
use crate::dead_letters::DeadLetterError;
use crate::worker::consumer_status::ConsumerStatus;
use crate::worker::{DeliveryError, Worker};

/// Maximum number of unacknowledged messages: more than replays run at once. Each replay has one, and briefly two.
const PREFETCH: u16 = 256;

/// Maximum number of requests in flight of a replay without a rate.
const REQUESTS_PER_REPLAY: usize = 16;

/// How long the runner works on one message before it publishes the next one. The broker takes a message back after
/// half an hour.
const TIME_SLICE: Duration = Duration::from_secs(5);

/// Time between two searches for stalled replays.
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A replay without a new record for this long may be stalled and gets a wakeup. A slow replay ignores it.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a worker that takes over a replay waits to read the records before the wakeup.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time until a record is written again, or a failed message is requeued.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub struct Runner {
    pub replays: Replays,
    pub worker: Arc<Worker>,
    /// Shows how busy deliveries are. Deliveries come before replays.
    pub consumer_status: ConsumerStatus,
    /// If more messages of deliveries than this are in progress, all replays share one request at a time.
    pub busy_threshold: usize,
    /// How long requests in flight may continue after a stop.
    pub grace: Duration,
    requests: FairLimiter,
    /// Allows one request of all replays while deliveries are busy.
    busy_permit: Semaphore,
    /// Of the replays with a rate.
    rate_limits: Mutex<HashMap<ReplayId, Gcra>>,
    /// The origin of the rate limits' times.
    started: Instant,
}

/// Why a time slice failed.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error("this worker has not read the replay's latest records from the dead-letter stream")]
    Behind,
    #[error("the replay has letters to send, but they are not found")]
    MissingLetters,
    #[error("the replay panicked: see the log for the location")]
    Panicked,
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::DeadLetters(error.into())
    }
}

impl Runner {
    pub fn new(
        replays: Replays,
        worker: Arc<Worker>,
        consumer_status: ConsumerStatus,
        busy_threshold: usize,
        grace: Duration,
    ) -> Self {
        Self {
            replays,
            worker,
            consumer_status,
            busy_threshold,
            grace,
            requests: FairLimiter::new(),
            busy_permit: Semaphore::new(1),
            rate_limits: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Runs replays until `stop`, then finishes the batches in flight.
    ///
    /// # Errors
    /// [`BrokerError`] if the connection is lost. The batches in flight are dropped.
    pub async fn run(self: Arc<Self>, connection: &Connection, stop: &CancellationToken) -> Result<(), BrokerError> {
        let mut messages = Subscription::open(connection, &self.replays.names.replays(), PREFETCH).await?;
        let acks = messages.acks();
        // Running replays, each with the message to work on next.
        let mut running: HashMap<ReplayId, Option<PendingWakeup>> = HashMap::new();
        let mut time_slices = JoinSet::new();
        let start = |pending: PendingWakeup| self.clone().settle(pending, acks.clone(), stop.clone());
        // The queue may be new on a new connection, so the first check wakes all replays.
        let mut quiet = Duration::ZERO;
        let mut stall_checks = interval(STALL_CHECK_INTERVAL);
        stall_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message?;
                    match parse_wakeup(&message) {
                        None => acks.acknowledge(message.tag),
                        Some(pending) => match running.get_mut(&pending.wakeup.replay) {
                            Some(next @ None) => *next = Some(pending),
                            // A duplicate wakeup.
                            Some(Some(_)) => acks.acknowledge(message.tag),
                            None => {
                                running.insert(pending.wakeup.replay.clone(), None);
                                time_slices.spawn(start(pending));
                            }
                        },
                    }
                }
                Some(result) = time_slices.join_next() => {
                    if let Ok(replay) = result
                        && let Some(Some(next)) = running.remove(&replay)
                    {
                        running.insert(replay, None);
                        time_slices.spawn(start(next));
                    }
                }
                _ = stall_checks.tick() => {
                    self.wake_stalled(&running, quiet).await;
                    quiet = STALL_TIMEOUT;
                }
                () = stop.cancelled() => break,
            }
        }
        let finish = async {
            messages.cancel().await;
            while time_slices.join_next().await.is_some() {}
        };
        if timeout(self.grace, finish).await.is_err() {
            tracing::warn!("stopping before replay requests in flight have ended; another worker sends them again");
        }
        time_slices.shutdown().await;
        drop(acks);
        let _ = timeout(ACK_FLUSH_TIMEOUT, messages.finish()).await;
        Ok(())
    }

    /// Wakes replays that have letters to send but no new record for the time `quiet`.
    async fn wake_stalled(&self, running: &HashMap<ReplayId, Option<PendingWakeup>>, quiet: Duration) {
        let replays = match tokio::task::block_in_place(|| self.replays.dead_letters.view.sendable_replays()) {
            Ok(replays) => replays,
            Err(error) => return tracing::error!(%error, "stalled replays not searched"),
        };
        self.rate_limits().retain(|replay, _| replays.iter().any(|progress| progress.replay.id == *replay));
        let is_stalled = |progress: &&ReplayProgress| {
            // Negative if another worker's clock is ahead. Then the record counts as new.
            let since = Utc::now().signed_duration_since(progress.updated_at).to_std().unwrap_or_default();
            since >= quiet && !running.contains_key(&progress.replay.id)
        };
        for progress in replays.iter().filter(is_stalled) {
            // The next check tries again.
            if self.replays.wake(&progress.replay.id).await.is_err() {
                return;
            }
        }
    }

    /// Works on a replay, and settles its message. Returns the replay's id.
    async fn settle(
        self: Arc<Self>,
        PendingWakeup { wakeup, tag }: PendingWakeup,
        acks: Acks,
        stop: CancellationToken,
    ) -> ReplayId {
        let replay = wakeup.replay.clone();
        let _running = self.requests.register(&replay);
        let result = AssertUnwindSafe(self.run_time_slice(&wakeup, &stop)).catch_unwind().await;
        match result.unwrap_or(Err(ReplayError::Panicked)) {
            Ok(()) => acks.acknowledge(tag),
            Err(error) => {
                tracing::error!(%replay, %error, "replay interrupted, will resume");
                sleep(RETRY_DELAY).await;
                acks.requeue(tag);
            }
        }
        replay
    }

    /// Sends batches for one time slice. If there are more letters, publishes the next wakeup before this message is
    /// settled.
    async fn run_time_slice(
        &self,
        ReplayWakeup { replay, read_to }: &ReplayWakeup,
        stop: &CancellationToken,
    ) -> Result<(), ReplayError> {
        // Reads the records of the worker that ran the replay before. A new stream never reaches that offset, and does
        // not have the replay.
        let caught_up =
            self.replays.dead_letters.wait_until(|view| Ok(view.position()?.is_some_and(|at| at.offset >= *read_to)));
        match timeout(CATCH_UP_TIMEOUT, caught_up).await {
            Ok(caught_up) => caught_up?,
            Err(_) if self.replays.dead_letters.view.replay_state(replay)?.is_none() => return Ok(()),
            Err(_) => return Err(ReplayError::Behind),
        }
        let end = Instant::now() + TIME_SLICE;
        loop {
            let Some(progress) = self.replays.dead_letters.view.replay_progress(replay)? else {
                tracing::warn!(%replay, "replay dropped: no longer in the dead-letter stream");
                return Ok(());
            };
            let Some(limit) = progress.next_batch_size() else {
                return Ok(());
            };
            if Instant::now() > end || stop.is_cancelled() {
                return Ok(self.replays.wake(replay).await?);
            }
            self.send(&progress, limit, end, stop).await?;
        }
    }

    /// Sends a batch of letters, and records the results. Letters not begun by `end` are left to the next batch, so
    /// that slow requests do not delay the acknowledgement for too long.
    async fn send(
        &self,
        progress: &ReplayProgress,
        limit: u32,
        end: Instant,
        stop: &CancellationToken,
    ) -> Result<(), ReplayError> {
        let view = &self.replays.dead_letters.view;
        let letters = tokio::task::block_in_place(|| view.claimed_letters(&progress.replay.id, limit as usize))?;
        if letters.is_empty() {
            // A cancel or the retention may have released the letters since.
            let left =
                view.replay_progress(&progress.replay.id)?.is_some_and(|progress| progress.next_batch_size().is_some());
            return if left { Err(ReplayError::MissingLetters) } else { Ok(()) };
        }
        // The first letter has no deadline, or a slow replay would make no progress.
        let ends = std::iter::once(None).chain(std::iter::repeat(Some(end)));
        let sending = futures_util::stream::iter(letters.into_iter().zip(ends))
            .map(|(stored, end)| self.send_one(progress, stored.letter, end, stop));
        // A rate is the operator's statement of what the endpoint can take, even if the endpoint is slow.
        let max_in_flight = progress
            .replay
            .rate_per_second
            .map_or(REQUESTS_PER_REPLAY, |rate| (rate.ceil() as usize).clamp(1, MAX_REQUESTS_IN_FLIGHT / 2));
        let results: Vec<Result<Option<LetterResult>, ReplayError>> =
            sending.buffer_unordered(max_in_flight).collect().await;
        let mut recorded = Vec::with_capacity(results.len());
        let mut interrupted = None;
        for result in results {
            match result {
                Ok(result) => recorded.extend(result),
                Err(error) => interrupted = Some(error),
            }
        }
        if !recorded.is_empty() {
            // Results are recorded even if another letter of the batch failed.
            self.record(DeadLetterRecord::Batch(ReplayBatch {
                replay: progress.replay.id.clone(),
                sent: recorded,
                at: Utc::now(),
            }))
            .await?;
            if let Some(progress) = view.replay_progress(&progress.replay.id)? {
                log_end(&progress.replay);
            }
        }
        interrupted.map_or(Ok(()), Err)
    }

    /// Waits for a permit, then sends one letter. Returns `None` if the replay or the time slice ends first.
    async fn send_one(
        &self,
        progress: &ReplayProgress,
        letter: DeadLetter,
        end: Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<Option<LetterResult>, ReplayError> {
        let replay = &progress.replay.id;
        let has_ended = |view: &LetterView| Ok(view.replay_state(replay)? != Some(ReplayState::Running));
        let aborted = async {
            tokio::select! {
                result = self.replays.dead_letters.wait_until(has_ended) => result,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => Ok(()),
                () = stop.cancelled() => Ok(()),
            }
        };
        let _permit = tokio::select! {
            biased;
            aborted = aborted => {
                aborted?;
                return Ok(None);
            }
            permit = self.send_permit(progress) => permit,
        };
        let id = letter.id.clone();
        let outcome = self.send_again(progress, letter).await?;
        self.worker.metrics.record_replayed(outcome);
        Ok(Some(LetterResult { id, outcome }))
    }

    /// Waits until a letter may be sent: by the replay's rate, by the load of deliveries, and by the limit of requests
    /// in flight.
    async fn send_permit(&self, progress: &ReplayProgress) -> SendPermit<'_> {
        if let Some(rate) = progress.replay.rate_per_second {
            sleep(self.reserve_request(&progress.replay.id, Rate::even(rate))).await;
        }
        let permit = tokio::select! {
            biased;
            () = self.consumer_status.wait_until_at_most(self.busy_threshold) => None,
            // The semaphore is never closed.
            permit = self.busy_permit.acquire() => permit.ok(),
        };
        SendPermit { _busy_permit: permit, _request: self.requests.start_request(&progress.replay.id).await }
    }

    /// Returns the time to wait before the next letter of a replay is sent.
    fn reserve_request(&self, replay: &ReplayId, rate: Rate) -> Duration {
        self.rate_limits().entry(replay.clone()).or_default().reserve(rate, self.started.elapsed())
    }

    fn rate_limits(&self) -> std::sync::MutexGuard<'_, HashMap<ReplayId, Gcra>> {
        self.rate_limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_again(&self, progress: &ReplayProgress, letter: DeadLetter) -> Result<ReplayOutcome, ReplayError> {
        let replay_ref = ReplayRef { dead_letter: letter.id.clone(), replay: progress.replay.id.clone() };
        let Some(event) = letter.event.clone().filter(|_| letter.is_delivery()) else {
            return self.requeue(letter, replay_ref).await;
        };
        match self.replays.target(progress.replay.config, &letter)? {
            Ok(target) => self.attempt(new_delivery(&letter, event, target, letter.trace.clone()), replay_ref).await,
            Err(reason) => self.write_dead_letter(letter.unsent(reason), replay_ref).await,
        }
    }

    /// Makes one attempt. A replay does not retry: a failed delivery becomes a dead letter again.
    async fn attempt(&self, mut delivery: Delivery, replay_ref: ReplayRef) -> Result<ReplayOutcome, ReplayError> {
        match self.worker.attempt_for_replay(&mut delivery, &replay_ref.replay).await {
            None => Ok(ReplayOutcome::Delivered),
            Some(reason) => {
                self.write_dead_letter(DeadLetter::from_delivery(delivery, reason, Utc::now()), replay_ref).await
            }
        }
    }

    async fn write_dead_letter(&self, letter: DeadLetter, replay_ref: ReplayRef) -> Result<ReplayOutcome, ReplayError> {
        let letter = DeadLetter { state: LetterState::Pending, dead_at: Utc::now(), ..letter }.with_replay(replay_ref);
        self.worker.publish_dead_letter(&letter).await?;
        Ok(ReplayOutcome::Dead)
    }

    /// Publishes the unchanged body of a message that was no event, or that the broker removed, to its queue again.
    async fn requeue(&self, letter: DeadLetter, replay_ref: ReplayRef) -> Result<ReplayOutcome, ReplayError> {
        let Some(body) = letter.whole_body() else {
            return self.write_dead_letter(letter, replay_ref).await;
        };
        // An unreadable event has no routing key. The binding of the events queue matches every key.
        let event = event::decode(&body, None).ok();
        let routing_key = event.and_then(|event| event.routing_key().map(str::to_owned).ok()).unwrap_or_default();
        let to = match Delivery::decode_waiting(&body) {
            // An earlier version could not read the waiting delivery.
            Ok(_) => Destination::Queue(self.worker.names.retries()),
            Err(_) => Destination::Exchange { name: self.worker.names.events(), routing_key },
        };
        // Without a message id, the event's id is derived from its body.
        let message_id = letter.message_id.unwrap_or_else(|| EventId::from_body(&body).to_string());
        let message = OutboundMessage { to, message_id, body, trace: letter.trace, replay: Some(replay_ref) };
        self.worker.publish(message).await?;
        Ok(ReplayOutcome::Requeued)
    }

    /// Appends a record to the dead-letter stream. The replay waits while the stream can't be written, because letters
    /// without a recorded result would be sent again.
    async fn record(&self, record: DeadLetterRecord) -> Result<(), ReplayError> {
        loop {
            match self.replays.dead_letters.append(record.clone()).await {
                Ok(_) => return Ok(()),
                Err(error @ DeadLetterError::Unavailable(_)) => {
                    tracing::warn!(%error, "replay result not recorded, will retry");
                    sleep(RETRY_DELAY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Logs the end of a replay on the worker that ran it.
fn log_end(replay: &Replay) {
    let Replay { id, state, total, sent, delivered, requeued, failed, .. } = replay;
    match state {
        ReplayState::Stopped => {
            tracing::warn!(replay = %id, total, sent, delivered, requeued, failed, "replay stopped by its failure ratio");
        }
        ReplayState::Done => {
            tracing::info!(replay = %id, total, sent, delivered, requeued, failed, "replay done");
        }
        ReplayState::Running | ReplayState::Paused | ReplayState::Cancelled => {}
    }
}

/// A message that is not acknowledged yet.
struct PendingWakeup {
    wakeup: ReplayWakeup,
    tag: u64,
}

/// Allows one request. Held until the request ends.
struct SendPermit<'a> {
    _busy_permit: Option<SemaphorePermit<'a>>,
    _request: RequestGuard<'a>,
}

fn parse_wakeup(message: &Message) -> Option<PendingWakeup> {
    let wakeup = serde_json::from_slice(&message.body);
    let wakeup = wakeup.inspect_err(|error| tracing::warn!(%error, "unreadable message on the replays queue dropped"));
    wakeup.ok().map(|wakeup| PendingWakeup { wakeup, tag: message.tag })
}
