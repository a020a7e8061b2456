//! Replays: durable jobs that send dead letters again. Here they are ordered and told what to do; [`runner`] runs them.
//!
//! The course of a replay is in the dead-letter log, so every node knows it. A message on the replays queue says that
//! there is something to do; the one node that has the queue does it, a slice at a time.

mod fair_limiter;
pub mod rate_meter;
pub mod runner;

use std::collections::HashMap;
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};

use crate::broker::names::Names;
use crate::broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};
use crate::dead_letters::{DeadLetterError, DeadLetters, nothing_matches};
use crate::delivery::campaign::{Secrets, Target};
use crate::delivery::dead_letter::record::{DeadLetterRecord, ReplayControl};
use crate::delivery::dead_letter::selection::Selection;
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::ids::{DeadLetterId, WebhookId};
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::replay::target::target;
use crate::delivery::replay::{Replay, ReplayCommand, ReplayConfig, ReplayId, ReplayState};
use crate::delivery::request::{self, RequestPreview};
use crate::delivery::violation::Violation;
use crate::delivery::{Delivery, TraceContext, resolve};
use crate::store::dead_letters::index_block::{IndexRow, endpoint_of};
use crate::store::dead_letters::{LetterView, RecordOutcome};
use crate::store::{Store, StoreError};

/// Requests shown of a replay that is only tried.
const SAMPLE: usize = 5;

/// One letter in ten minutes: a message waits no longer for its turn, well below what the broker allows.
const MIN_RATE: f64 = 1.0 / 600.0;

/// A message for the replays queue is not waited for longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// A replay as it is ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySpec {
    /// Which letters.
    pub choice: Selection,
    /// The most letters sent in a second; none for as many as go.
    pub rate_per_second: Option<f64>,
    /// Where they are sent.
    pub config: ReplayConfig,
    /// Stops when so great a share of the latest letters has failed.
    pub stop_on_failure_ratio: Option<f64>,
}

impl ReplaySpec {
    /// What is wrong with its numbers.
    pub fn faults(&self) -> Vec<Violation> {
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

/// What a replay would do.
#[derive(Debug, Clone)]
pub struct ReplayPreview {
    /// Letters it would take.
    pub total: u64,
    /// To which endpoints, and how many letters to each.
    pub endpoints: HashMap<String, u64>,
    /// Why letters would be dead again without a request, and how many.
    pub unsendable: HashMap<DeadLetterReason, u64>,
    /// The request of the oldest letter for each endpoint, and then those of others that can be sent.
    pub sample: Vec<(DeadLetterId, RequestPreview)>,
}

/// A message of the replays queue: there is something to do for this replay.
#[derive(Debug, Serialize, Deserialize)]
struct ReplayWakeup {
    replay: ReplayId,
    /// How far whoever wrote it had read the log: who works on it reads as far before.
    known: u64,
}

/// Orders and commands. Cheap to clone.
#[derive(Clone)]
pub struct Replays {
    store: Store,
    dead_letters: DeadLetters,
    publisher: Publisher,
    names: Names,
}

impl Replays {
    /// Replays of these dead letters.
    pub fn new(store: Store, dead_letters: DeadLetters, publisher: Publisher, names: Names) -> Self {
        Self { store, dead_letters, publisher, names }
    }

    /// Creates a replay; it runs from now on.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn create(&self, order: ReplaySpec, by: &str) -> Result<Replay, DeadLetterError> {
        self.check(&order).await?;
        let (filter, ids) = match order.choice {
            Selection::Ids(ids) => (None, Some(ids)),
            Selection::Filter(filter) => (Some(filter), None),
        };
        let replay = Replay {
            id: ReplayId::new(format!("{}{}", ReplayId::PREFIX, uuid::Uuid::now_v7().simple())),
            state: ReplayState::Running,
            filter,
            ids,
            rate_per_second: order.rate_per_second,
            config: order.config,
            stop_on_failure_ratio: order.stop_on_failure_ratio,
            // Told when they are claimed.
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
        let applied = self.dead_letters.append(DeadLetterRecord::Replay(Box::new(replay))).await?;
        self.call_if_needed(&id, applied).await
    }

    /// What a replay would do.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn forecast(&self, order: &ReplaySpec, secrets: Secrets) -> Result<ReplayPreview, DeadLetterError> {
        self.check(order).await?;
        tokio::task::block_in_place(|| self.forecast_of(order, secrets))
    }

    fn forecast_of(&self, order: &ReplaySpec, secrets: Secrets) -> Result<ReplayPreview, DeadLetterError> {
        let view = &self.dead_letters.view;
        let mut forecast =
            ReplayPreview { total: 0, endpoints: HashMap::new(), unsendable: HashMap::new(), sample: Vec::new() };
        let mut judge = DestinationResolver { replays: self, config: order.config, known: HashMap::new() };
        let (mut first, mut others) = (Vec::new(), Vec::new());
        let mut failed = None;
        let mut add = |row: &IndexRow<'_>| {
            forecast.total += 1;
            match judge.destination(row) {
                Ok(Ok(endpoint)) => {
                    let count = forecast.endpoints.entry(endpoint).or_default();
                    *count += 1;
                    let shown = if *count == 1 { &mut first } else { &mut others };
                    // What was no event is no request.
                    if !row.webhook.is_empty() && shown.len() < SAMPLE {
                        shown.push(row.letter_id());
                    }
                }
                Ok(Err(reason)) => *forecast.unsendable.entry(reason).or_default() += 1,
                Err(error) => failed = Some(error),
            }
        };
        match &order.choice {
            Selection::Filter(filter) => view.each(&filter.or_pending(), add)?,
            Selection::Ids(ids) => {
                for id in ids {
                    view.row(id, &mut add)?;
                }
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        for id in first.into_iter().chain(others).take(SAMPLE) {
            if let Some(kept) = view.letter(&id)?
                && let Some(delivery) = self.delivery(order.config, &kept.letter)?
            {
                let shown = request::render(&delivery, Utc::now()).shown(secrets);
                forecast.sample.push((id, shown));
            }
        }
        Ok(forecast)
    }

    /// The replay with this id.
    ///
    /// # Errors
    /// [`DeadLetterError::Unknown`].
    pub async fn get(&self, id: &ReplayId) -> Result<Replay, DeadLetterError> {
        let job = self.dead_letters.ready_view().await?.job(id)?;
        job.map(|job| job.replay).ok_or_else(|| unknown(id))
    }

    /// Pauses, resumes or cancels a replay.
    ///
    /// # Errors
    /// [`DeadLetterError::Conflict`] where its state does not allow it.
    pub async fn control(&self, id: &ReplayId, command: ReplayCommand, by: &str) -> Result<Replay, DeadLetterError> {
        let replay = self.get(id).await?;
        if command.apply(replay.state).is_none() {
            return Err(conflict(id, command, replay.state));
        }
        let control = ReplayControl { replay: id.clone(), command, by: by.to_owned(), at: Utc::now() };
        match self.dead_letters.append(DeadLetterRecord::Control(control)).await? {
            RecordOutcome::Refused(state) => Err(conflict(id, command, state)),
            applied => self.call_if_needed(id, applied).await,
        }
    }

    /// Has a replay worked on that may have something to do. Where that fails it is noticed later that nobody does.
    async fn call_if_needed(&self, id: &ReplayId, applied: RecordOutcome) -> Result<Replay, DeadLetterError> {
        let RecordOutcome::Replay(job) = applied else { return Err(unknown(id)) };
        if job.next_slice().is_some()
            && let Err(error) = self.call(id).await
        {
            tracing::warn!(replay = %id, %error, "a replay waits until it is noticed");
        }
        Ok(job.replay)
    }

    /// Puts a message on the replays queue: there is something to do for this replay.
    async fn call(&self, id: &ReplayId) -> Result<(), DeadLetterError> {
        let known = self.dead_letters.view.position()?.map_or(0, |position| position.offset);
        let body = serde_json::to_vec(&ReplayWakeup { replay: id.clone(), known })?;
        let message_id = uuid::Uuid::now_v7().to_string();
        let outgoing = OutboundMessage::new(Destination::Queue(self.names.replays()), message_id, body);
        let published = tokio::time::timeout(CALL_TIMEOUT, self.publisher.publish(outgoing)).await;
        let late = || DeadLetterError::Unavailable("the broker does not take messages".to_owned());
        published.map_err(|_| late())?.map_err(|error: PublishError| DeadLetterError::Unavailable(error.to_string()))
    }

    /// Sees that an order makes sense, and that there is something for it.
    async fn check(&self, order: &ReplaySpec) -> Result<(), DeadLetterError> {
        let faults = order.faults();
        if !faults.is_empty() {
            return Err(DeadLetterError::Faults(faults));
        }
        let view = self.dead_letters.ready_view().await?;
        match &order.choice {
            Selection::Ids(ids) => {
                self.dead_letters.check(ids, |state| state != LetterState::Replaying).await?;
                match order.config {
                    ReplayConfig::Current => Ok(()),
                    ReplayConfig::Original => tokio::task::block_in_place(|| check_originals(view, ids)),
                }
            }
            Selection::Filter(filter) => {
                let found = tokio::task::block_in_place(|| view.find(&filter.or_pending(), 0..u64::MAX, 1))?;
                if found.letters.is_empty() { Err(nothing_matches(&order.choice)) } else { Ok(()) }
            }
        }
    }

    /// A letter as a delivery that is to be attempted; `None` where it is none, or can't be.
    fn delivery(&self, config: ReplayConfig, letter: &DeadLetter) -> Result<Option<Delivery>, StoreError> {
        let Some(event) = letter.event.as_ref().filter(|_| letter.is_of_delivery()) else { return Ok(None) };
        let target = self.target(config, letter)?;
        Ok(target.ok().map(|target| new_delivery(letter, event.clone(), target, letter.trace.clone())))
    }

    /// Where a letter would be sent, or why nowhere.
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

/// A delivery of the letter's event, with the identity that its receiver knows.
fn new_delivery(
    letter: &DeadLetter,
    event: crate::delivery::event::StepEvent,
    target: Target,
    trace: Option<TraceContext>,
) -> Delivery {
    let mut delivery = Delivery::new(event, target, trace);
    if let Some(id) = &letter.delivery_id {
        delivery.id = id.clone();
    }
    delivery
}

/// Tells where letters would go, by what the view's rows say of them.
struct DestinationResolver<'a> {
    replays: &'a Replays,
    config: ReplayConfig,
    /// By campaign and webhook.
    known: HashMap<(String, String), Result<String, DeadLetterReason>>,
}

impl DestinationResolver<'_> {
    fn destination(&mut self, row: &IndexRow<'_>) -> Result<Result<String, DeadLetterReason>, StoreError> {
        if row.webhook.is_empty() {
            return Ok(Ok(format!("the queue {}", self.replays.names.events())));
        }
        let key = (row.campaign.clone().into_owned(), row.webhook.clone().into_owned());
        let now = match self.known.get(&key) {
            Some(known) => known.clone(),
            None => {
                let stored = self.replays.store.campaign(&key.0)?;
                let place = stored.as_ref().and_then(|stored| stored.campaign.place_of(&WebhookId::new(&*key.1)));
                let now = resolve::current(place).map(|target| endpoint_of(target.webhook.url.as_str()));
                self.known.insert(key, now.clone());
                now
            }
        };
        match (self.config, now) {
            (ReplayConfig::Current, now) => Ok(now),
            // What was masked can't be put back, and what died while it waited has no original.
            (ReplayConfig::Original, now)
                if now == Err(DeadLetterReason::WebhookDeleted) || row.reason.ends_waiting() =>
            {
                let kept = self.replays.dead_letters.view.letter(&row.letter_id())?;
                let Some(kept) = kept else { return Ok(Err(DeadLetterReason::WebhookDeleted)) };
                let target = self.replays.target(self.config, &kept.letter)?;
                Ok(target.map(|target| endpoint_of(target.webhook.url.as_str())))
            }
            (ReplayConfig::Original, _) => Ok(Ok(row.endpoint.clone().into_owned())),
        }
    }
}

/// Checks that the letters have the configuration of their latest attempt.
fn check_originals(view: &LetterView, ids: &[DeadLetterId]) -> Result<(), DeadLetterError> {
    for id in ids {
        let Some(kept) = view.letter(id)? else { continue };
        if kept.letter.event.is_some() && kept.letter.target.is_none() {
            return Err(DeadLetterError::Conflict(format!(
                "{id} has no original configuration: only an attempt leaves one, and the delivery died while it waited, or the \
                 letter comes from an export. Replay it with the current configuration."
            )));
        }
    }
    Ok(())
}

fn unknown(id: &ReplayId) -> DeadLetterError {
    DeadLetterError::Unknown(format!("there is no replay {id}"))
}

fn conflict(id: &ReplayId, command: ReplayCommand, state: ReplayState) -> DeadLetterError {
    DeadLetterError::Conflict(format!("{id} is {}: there is nothing to {}", state.as_str(), command.as_str()))
}
