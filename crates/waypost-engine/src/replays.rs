//! Replays: durable jobs that send dead letters again. This file creates and controls them; [`runner`] runs them.
//!
//! A replay's state is in the dead-letter stream, so every worker has it. A message on the replays queue wakes the one
//! worker that consumes the queue, and that worker sends the letters batch by batch.

mod fair_limiter;
pub mod rate_meter;
pub mod runner;

use std::collections::HashMap;
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use waypost_broker::names::Names;
use waypost_broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};
use waypost_core::campaign::{SecretVisibility, Target};
use waypost_core::dead_letter::selection::Selection;
use waypost_core::dead_letter::{DeadLetter, LetterState};
use waypost_core::dead_letter_record::{DeadLetterRecord, ReplayControl};
use waypost_core::ids::{DeadLetterId, WebhookId};
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::target::target;
use waypost_core::replay::{Replay, ReplayCommand, ReplayConfig, ReplayId, ReplayState};
use waypost_core::request::{self, RequestPreview};
use waypost_core::violation::Violation;
use waypost_core::{Delivery, TraceContext, resolve};
use waypost_store::dead_letters::index_block::{IndexRow, endpoint_of};
use waypost_store::dead_letters::{LetterView, RecordOutcome};
use waypost_store::{Store, StoreError};

use crate::dead_letters::{DeadLetterError, DeadLetters, nothing_matches};

/// Maximum number of requests that a preview shows.
const SAMPLE_SIZE: usize = 5;

/// The lowest rate, in letters per second: one letter in ten minutes. A slower replay would keep a message
/// unacknowledged for longer than the broker allows.
const MIN_RATE: f64 = 1.0 / 600.0;

/// Time to publish a wakeup message.
const WAKEUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The parameters of a new replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySpec {
    pub selection: Selection,
    /// `None` for no limit.
    pub rate_per_second: Option<f64>,
    pub config: ReplayConfig,
    /// Stops the replay if this share of the latest letters has failed. From 0 to 1.
    pub stop_on_failure_ratio: Option<f64>,
}

impl ReplaySpec {
    pub fn violations(&self) -> Vec<Violation> {
        let rate = self.rate_per_second.filter(|rate| !rate.is_finite() || *rate < MIN_RATE);
        let ratio = self.stop_on_failure_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio));
        let rate = rate.map(|_| {
            Violation::new(
                "$.ratePerSecond",
                "a rate is more than 0, and at least one in ten minutes (0.00167); leave it out for no limit",
            )
        });
        let ratio = ratio.map(|_| Violation::new("$.stopOnFailureRatio", "a ratio is a number from 0 to 1"));
        rate.into_iter().chain(ratio).collect()
    }
}

/// The result of a dry run. Nothing was sent.
#[derive(Debug, Clone)]
pub struct ReplayPreview {
    /// The number of letters selected.
    pub total: u64,
    /// The number of letters by endpoint.
    pub endpoints: HashMap<String, u64>,
    /// The number of letters that would fail without a request, by reason.
    pub unsendable: HashMap<DeadLetterReason, u64>,
    /// The request of the oldest letter for each endpoint, then requests of other letters.
    pub sample: Vec<(DeadLetterId, RequestPreview)>,
}

/// A message of the replays queue: a worker must run this replay.
#[derive(Debug, Serialize, Deserialize)]
struct ReplayWakeup {
    replay: ReplayId,
    /// The offset up to which the sender had read the dead-letter stream. The receiver must read as far before it
    /// starts.
    #[serde(rename = "known")]
    read_to: u64,
}

/// Creates and controls replays. Cheap to clone.
#[derive(Clone)]
pub struct Replays {
    store: Store,
    dead_letters: DeadLetters,
    publisher: Publisher,
    names: Names,
}

impl Replays {
    pub fn new(store: Store, dead_letters: DeadLetters, publisher: Publisher, names: Names) -> Self {
        Self { store, dead_letters, publisher, names }
    }

    /// Creates a replay, which starts at once.
    pub async fn create(&self, spec: &ReplaySpec, by: &str) -> Result<Replay, DeadLetterError> {
        self.check(spec).await?;
        let (filter, ids) = match &spec.selection {
            Selection::Ids(ids) => (None, Some(ids.clone())),
            Selection::Filter(filter) => (Some(filter.clone()), None),
        };
        let replay = Replay {
            id: ReplayId::new(format!("{}{}", ReplayId::PREFIX, uuid::Uuid::now_v7().simple())),
            state: ReplayState::Running,
            filter,
            ids,
            rate_per_second: spec.rate_per_second,
            config: spec.config,
            stop_on_failure_ratio: spec.stop_on_failure_ratio,
            // Set when the letters are claimed.
            total: 0,
            sent: 0,
            delivered: 0,
            requeued: 0,
            failed: 0,
            created_at: Utc::now(),
            created_by: by.to_owned(),
            ended_at: None,
        };
        let id = replay.id.clone();
        let outcome = self.dead_letters.append(DeadLetterRecord::Replay(Box::new(replay))).await?;
        self.wake_if_needed(&id, outcome).await
    }

    pub async fn preview(
        &self,
        spec: &ReplaySpec,
        secrets: SecretVisibility,
    ) -> Result<ReplayPreview, DeadLetterError> {
        self.check(spec).await?;
        tokio::task::block_in_place(|| self.preview_spec(spec, secrets))
    }

    fn preview_spec(&self, spec: &ReplaySpec, secrets: SecretVisibility) -> Result<ReplayPreview, DeadLetterError> {
        let view = &self.dead_letters.view;
        let mut preview =
            ReplayPreview { total: 0, endpoints: HashMap::new(), unsendable: HashMap::new(), sample: Vec::new() };
        let mut resolver = DestinationResolver { replays: self, config: spec.config, cache: HashMap::new() };
        let (mut first, mut others) = (Vec::new(), Vec::new());
        let mut first_error = None;
        let mut add = |row: &IndexRow<'_>| {
            preview.total += 1;
            match resolver.destination(row) {
                Ok(Ok(endpoint)) => {
                    let count = preview.endpoints.entry(endpoint).or_default();
                    *count += 1;
                    let sample_ids = if *count == 1 { &mut first } else { &mut others };
                    // A letter that is not a delivery has no request.
                    if !row.webhook.is_empty() && sample_ids.len() < SAMPLE_SIZE {
                        sample_ids.push(row.letter_id());
                    }
                }
                Ok(Err(reason)) => *preview.unsendable.entry(reason).or_default() += 1,
                Err(error) => first_error = Some(error),
            }
        };
        match &spec.selection {
            Selection::Filter(filter) => view.for_each_row(&filter.or_pending(), add)?,
            Selection::Ids(ids) => {
                for id in ids {
                    view.with_row(id, &mut add)?;
                }
            }
        }
        if let Some(error) = first_error {
            return Err(error.into());
        }
        for id in first.into_iter().chain(others).take(SAMPLE_SIZE) {
            if let Some(stored_letter) = view.letter(&id)?
                && let Some(delivery) = self.delivery(spec.config, &stored_letter.letter)?
            {
                let shown = request::render(&delivery, Utc::now()).preview(secrets);
                preview.sample.push((id, shown));
            }
        }
        Ok(preview)
    }

    pub async fn get(&self, id: &ReplayId) -> Result<Replay, DeadLetterError> {
        let progress = self.dead_letters.ready_view().await?.replay_progress(id)?;
        progress.map(|progress| progress.replay).ok_or_else(|| not_found(id))
    }

    /// Maps the newest `limit` replays before the id `before`, newest first. Only one replay is in memory at a time,
    /// because all replays of a page together may have ten million ids.
    pub async fn list<T>(
        &self,
        before: Option<&ReplayId>,
        limit: usize,
        map: impl Fn(Replay) -> T,
    ) -> Result<Vec<T>, DeadLetterError> {
        let view = self.dead_letters.ready_view().await?;
        Ok(tokio::task::block_in_place(|| view.replays(before, limit, |progress| map(progress.replay)))?)
    }

    /// Waits at most `limit` until the state or the progress of a replay differs from `seen`. Returns the replay as it is
    /// then, or `None` if it no longer exists.
    pub async fn wait_for_change(&self, seen: &Replay, limit: Duration) -> Result<Option<Replay>, DeadLetterError> {
        let view = &self.dead_letters.view;
        let change = self.dead_letters.wait_until(|view| {
            let progress = view.replay_progress(&seen.id)?;
            Ok(progress.is_none_or(|progress| (progress.replay.state, progress.replay.sent) != (seen.state, seen.sent)))
        });
        if let Ok(change) = tokio::time::timeout(limit, change).await {
            change?;
        }
        Ok(view.replay_progress(&seen.id)?.map(|progress| progress.replay))
    }

    /// The number of paused replays among the newest 20.
    pub fn count_recently_paused(&self) -> Result<u64, StoreError> {
        self.dead_letters.view.count_recently_paused()
    }

    /// Pauses, resumes or cancels a replay.
    ///
    /// # Errors
    /// [`DeadLetterError::Conflict`] if the replay's state does not allow it.
    pub async fn control(&self, id: &ReplayId, command: ReplayCommand, by: &str) -> Result<Replay, DeadLetterError> {
        let replay = self.get(id).await?;
        if command.apply(replay.state).is_none() {
            return Err(conflict(id, command, replay.state));
        }
        let control = ReplayControl { replay: id.clone(), command, by: by.to_owned(), at: Utc::now() };
        match self.dead_letters.append(DeadLetterRecord::Control(control)).await? {
            RecordOutcome::Refused(state) => Err(conflict(id, command, state)),
            outcome => self.wake_if_needed(id, outcome).await,
        }
    }

    /// Wakes the runner if the replay has letters to send. If that fails, the runner finds the stalled replay later.
    async fn wake_if_needed(&self, id: &ReplayId, outcome: RecordOutcome) -> Result<Replay, DeadLetterError> {
        let RecordOutcome::Replay(progress) = outcome else { return Err(not_found(id)) };
        if progress.next_batch_size().is_some()
            && let Err(error) = self.wake(id).await
        {
            tracing::warn!(replay = %id, %error, "replay wakeup not published, replay starts later");
        }
        Ok(progress.replay)
    }

    /// Publishes a wakeup message on the replays queue.
    async fn wake(&self, id: &ReplayId) -> Result<(), DeadLetterError> {
        let read_to = self.dead_letters.view.position()?.map_or(0, |position| position.offset);
        let body = serde_json::to_vec(&ReplayWakeup { replay: id.clone(), read_to })?;
        let message_id = uuid::Uuid::now_v7().to_string();
        let outgoing = OutboundMessage::new(Destination::Queue(self.names.replays()), message_id, body);
        let published = tokio::time::timeout(WAKEUP_TIMEOUT, self.publisher.publish(outgoing)).await;
        let timed_out = || DeadLetterError::Unavailable("the broker accepts no messages: try again".to_owned());
        published
            .map_err(|_| timed_out())?
            .map_err(|error: PublishError| DeadLetterError::Unavailable(error.to_string()))
    }

    /// Checks the numbers of `spec`, and that it selects letters.
    async fn check(&self, spec: &ReplaySpec) -> Result<(), DeadLetterError> {
        let violations = spec.violations();
        if !violations.is_empty() {
            return Err(DeadLetterError::Invalid(violations));
        }
        let view = self.dead_letters.ready_view().await?;
        match &spec.selection {
            Selection::Ids(ids) => {
                self.dead_letters.check(ids, LetterState::can_be_claimed).await?;
                match spec.config {
                    ReplayConfig::Current => Ok(()),
                    ReplayConfig::Original => tokio::task::block_in_place(|| check_originals(view, ids)),
                }
            }
            Selection::Filter(filter) => {
                let matching = tokio::task::block_in_place(|| view.find(&filter.or_pending(), 0..u64::MAX, 1))?;
                if matching.letters.is_empty() { Err(nothing_matches(&spec.selection)) } else { Ok(()) }
            }
        }
    }

    /// The letter as a delivery to attempt. `None` if the letter is not a delivery or has no target.
    fn delivery(&self, config: ReplayConfig, letter: &DeadLetter) -> Result<Option<Delivery>, StoreError> {
        let Some(event) = letter.event.as_ref().filter(|_| letter.is_delivery()) else { return Ok(None) };
        let target = self.target(config, letter)?;
        Ok(target.ok().map(|target| new_delivery(letter, event.clone(), target, letter.trace.clone())))
    }

    /// The webhook to which the letter would be sent, or the reason why it can't be sent.
    fn target(
        &self,
        config: ReplayConfig,
        letter: &DeadLetter,
    ) -> Result<Result<Target, DeadLetterReason>, StoreError> {
        let campaign = letter.campaign_id.as_deref().unwrap_or_default();
        let stored = self.store.campaign(campaign)?;
        let place = stored.as_ref().zip(letter.webhook_id.as_ref());
        let place = place.and_then(|(stored, webhook)| stored.campaign.place_of(webhook));
        Ok(target(config, letter, place))
    }
}

/// A delivery of the letter's event, with the same id as before. Receivers discard duplicates by it.
fn new_delivery(
    letter: &DeadLetter,
    event: waypost_core::event::StepEvent,
    target: Target,
    trace: Option<TraceContext>,
) -> Delivery {
    let mut delivery = Delivery::new(event, target, trace);
    if let Some(id) = &letter.delivery_id {
        delivery.id = id.clone();
    }
    delivery
}

/// Finds the endpoints of letters by their index rows.
struct DestinationResolver<'a> {
    replays: &'a Replays,
    config: ReplayConfig,
    /// Current endpoints by campaign and webhook.
    cache: HashMap<(String, String), Result<String, DeadLetterReason>>,
}

impl DestinationResolver<'_> {
    fn destination(&mut self, row: &IndexRow<'_>) -> Result<Result<String, DeadLetterReason>, StoreError> {
        if row.webhook.is_empty() {
            return Ok(Ok(format!("the queue {}", self.replays.names.events())));
        }
        let key = (row.campaign.clone().into_owned(), row.webhook.clone().into_owned());
        let now = match self.cache.get(&key) {
            Some(current) => current.clone(),
            None => {
                let stored = self.replays.store.campaign(&key.0)?;
                let place = stored.as_ref().and_then(|stored| stored.campaign.place_of(&WebhookId::new(&*key.1)));
                let now = resolve::current_target(place).map(|target| endpoint_of(target.webhook.url.as_str()));
                self.cache.insert(key, now.clone());
                now
            }
        };
        match (self.config, now) {
            (ReplayConfig::Current, now) => Ok(now),
            // A masked URL can't be restored, and a delivery that became a dead letter while it waited has no original
            // configuration.
            (ReplayConfig::Original, now)
                if now == Err(DeadLetterReason::WebhookDeleted) || row.reason.ends_waiting() =>
            {
                let stored_letter = self.replays.dead_letters.view.letter(&row.letter_id())?;
                let Some(stored_letter) = stored_letter else { return Ok(Err(DeadLetterReason::WebhookDeleted)) };
                let target = self.replays.target(self.config, &stored_letter.letter)?;
                Ok(target.map(|target| endpoint_of(target.webhook.url.as_str())))
            }
            (ReplayConfig::Original, _) => Ok(Ok(row.endpoint.clone().into_owned())),
        }
    }
}

/// Checks that each letter has the configuration of its latest attempt.
fn check_originals(view: &LetterView, ids: &[DeadLetterId]) -> Result<(), DeadLetterError> {
    for id in ids {
        let Some(stored_letter) = view.letter(id)? else { continue };
        if stored_letter.letter.event.is_some() && stored_letter.letter.target.is_none() {
            return Err(DeadLetterError::Conflict(format!(
                "{id} has no original configuration: the delivery became a dead letter while it waited, or the letter comes from an export. \
                 Replay it with the current configuration."
            )));
        }
    }
    Ok(())
}

fn not_found(id: &ReplayId) -> DeadLetterError {
    DeadLetterError::NotFound(format!("there is no replay {id}"))
}

fn conflict(id: &ReplayId, command: ReplayCommand, state: ReplayState) -> DeadLetterError {
    DeadLetterError::Conflict(format!("{id} is {}: there is nothing to {}", state.as_str(), command.as_str()))
}
