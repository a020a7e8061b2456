//! Dead letters: every node tails their log into its own view, and what is done with them is appended to that log.
//!
//! So all nodes show the same states, whoever changes them, and a view that is lost is read anew. [`supervisor`] is the
//! connection on which that happens.

pub mod erase;
mod removed_messages;
mod retention_clock;
pub mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use lapin::Connection;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::broker::names::Names;
use crate::broker::probe::is_probe;
use crate::broker::publisher::Publisher;
use crate::broker::stream_reader::{EndDetection, StreamContinuity, StreamReader, StreamRecord};
use crate::broker::stream_writer::{AppendError, ReadBack, StreamWriter};
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::record::{DeadLetterRecord, Discard, OperatorAction};
use crate::delivery::dead_letter::removed::{Removal, RemovedMessage};
use crate::delivery::dead_letter::selection::Selection;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::violation::Violation;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::store::dead_letters::search::LetterCounts;
use crate::store::dead_letters::{LetterView, Payload, RecordOutcome, StreamEntry};
use crate::view_sync::{FollowError, SyncState};
use retention_clock::RetentionClock;

/// Records applied in one transaction.
const BATCH: usize = 200;

/// And no more bytes than these, and a record.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// A mark is applied within this time, or the caller is told that it may yet be. A replay of a million letters claims them in
/// it; and a client of ours waits for half a minute.
const APPEND_TIMEOUT: Duration = Duration::from_secs(25);

/// Letters in one record about them.
const LETTERS_PER_MARK: usize = 1000;

/// How long one request discards before it says that there is more.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Whoever asks for dead letters waits this long for a view that is being built, as it is for a second at each start.
const BUILDING_TIMEOUT: Duration = Duration::from_secs(5);

/// How often old letters are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Blocks forgotten in one transaction.
const BLOCKS_PER_FORGETTING: usize = 32;

/// Why something was not done with dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// What was asked has faults.
    #[error("{} faults", .0.len())]
    Faults(Vec<Violation>),
    /// Some of the letters named, or the replay, are not there.
    #[error("{0}")]
    Unknown(String),
    /// It is not possible as things stand.
    #[error("{0}")]
    Conflict(String),
    /// The log could not be written or read, or the view is being built.
    #[error("{0}")]
    Unavailable(String),
    /// The local view failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for DeadLetterError {
    fn from(error: AppendError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<serde_json::Error> for DeadLetterError {
    fn from(error: serde_json::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a discard has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discarded {
    /// Letters discarded.
    pub letters: u64,
    /// Whether there are more to discard.
    pub rest: Remainder,
}

/// Whether all was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remainder {
    /// It was.
    None,
    /// The time was over before.
    Some,
}

/// The dead letters. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    /// The view.
    pub view: LetterView,
    appender: StreamWriter<RecordOutcome>,
    names: Names,
    retention: Duration,
    metrics: Arc<Metrics>,
    currency: Arc<watch::Sender<SyncState>>,
    building: Arc<watch::Sender<ViewState>>,
    clock: RetentionClock,
    /// Marked as changed after each batch of records applied.
    changes: Arc<watch::Sender<()>>,
}

/// Whether the view has had, at least once, all that the log had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ViewState {
    /// It is being built from nothing, and shows too little.
    Yes,
    /// It may lag behind the log, and no more.
    No,
}

impl DeadLetters {
    /// Dead letters kept for `retention`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn new(
        view: LetterView,
        publisher: Publisher,
        names: Names,
        retention: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let appender = StreamWriter::new(publisher, names.dead_letters(), APPEND_TIMEOUT);
        let view = view.with_retention(retention);
        let building = if view.position()?.is_none() { ViewState::Yes } else { ViewState::No };
        let currency = Arc::new(watch::Sender::new(SyncState::CatchingUp));
        let building = Arc::new(watch::Sender::new(building));
        let changes = Arc::new(watch::Sender::new(()));
        let clock = RetentionClock::start();
        let dead_letters = Self { view, appender, names, retention, metrics, currency, building, clock, changes };
        dead_letters.update_gauges();
        Ok(dead_letters)
    }

    /// Where letters are written.
    pub fn appender(&self) -> StreamWriter<RecordOutcome> {
        self.appender.clone()
    }

    /// The view, once it has had what the log has: while it is being built it would show too little. That is waited for,
    /// but not for long.
    ///
    /// # Errors
    /// [`DeadLetterError::Unavailable`].
    pub async fn ready_view(&self) -> Result<&LetterView, DeadLetterError> {
        let mut building = self.building.subscribe();
        let built = building.wait_for(|building| *building == ViewState::No);
        if tokio::time::timeout(BUILDING_TIMEOUT, built).await.is_err() {
            let letters: u64 = self.view.counts().iter().sum();
            let detail = format!("reading the dead letters from the broker, {letters} so far: try again");
            return Err(DeadLetterError::Unavailable(detail));
        }
        Ok(&self.view)
    }

    /// Appends a mark to the log, and waits until this node has applied it.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn append(&self, mark: DeadLetterRecord) -> Result<RecordOutcome, DeadLetterError> {
        Ok(self.appender.append(mark.encode()?).await?)
    }

    /// Waits until the view is so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait_until(&self, so: impl Fn(&LetterView) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let mut changes = self.changes.subscribe();
        loop {
            // The sender lives as long as this does.
            if so(&self.view)? || changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Sees that the letters named are there, and in a state that fits.
    ///
    /// # Errors
    /// [`DeadLetterError::Unknown`], [`DeadLetterError::Conflict`].
    pub async fn check(&self, ids: &[DeadLetterId], fits: impl Fn(LetterState) -> bool) -> Result<(), DeadLetterError> {
        let view = self.ready_view().await?;
        tokio::task::block_in_place(|| {
            for id in ids {
                match view.state(id)? {
                    None => return Err(DeadLetterError::Unknown(format!("there is no dead letter {id}"))),
                    Some(_) if view.is_erased(id)? => {
                        return Err(DeadLetterError::Conflict(format!(
                            "{id} was erased: nothing is left that could be sent"
                        )));
                    }
                    Some(state) if fits(state) => {}
                    Some(LetterState::Replaying) => {
                        return Err(DeadLetterError::Conflict(format!(
                            "{id} is being replayed: wait, or cancel that replay"
                        )));
                    }
                    Some(state) => return Err(DeadLetterError::Conflict(format!("{id} is {}", state.as_str()))),
                }
            }
            Ok(())
        })
    }

    /// Counts the letters that a discard would concern. It changes nothing.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn count_discardable(&self, choice: &Selection) -> Result<LetterCounts, DeadLetterError> {
        let view = self.ready_view().await?;
        match choice {
            Selection::Ids(ids) => {
                self.check(ids, |state| state == LetterState::Pending).await?;
                Ok(tokio::task::block_in_place(|| view.tally_of(ids))?)
            }
            Selection::Filter(filter) => {
                let filter = pending(filter)?;
                Ok(tokio::task::block_in_place(|| view.tally(&filter))?)
            }
        }
    }

    /// Discards pending letters, for a while.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn discard(
        &self,
        choice: Selection,
        by: &str,
        because: Option<String>,
    ) -> Result<Discarded, DeadLetterError> {
        let deadline = Instant::now() + DISCARD_TIME;
        // What dies meanwhile is not meant.
        let end = self.ready_view().await?.position()?.map_or(0, |position| position.offset + 1);
        let mut letters = 0;
        let mut ids = match &choice {
            Selection::Ids(ids) => {
                self.check(ids, |state| state == LetterState::Pending).await?;
                ids.clone()
            }
            Selection::Filter(filter) => self.find(filter, end).await?,
        };
        if ids.is_empty() {
            return Err(nothing_matches(&choice));
        }
        loop {
            for ids in ids.chunks(LETTERS_PER_MARK) {
                let verdict = OperatorAction { by: by.to_owned(), at: Utc::now(), because: because.clone() };
                let discard = DeadLetterRecord::Discard(Discard { ids: ids.to_vec(), verdict });
                if let RecordOutcome::Letters(discarded) = self.append(discard).await? {
                    letters += discarded;
                }
            }
            ids = match &choice {
                Selection::Ids(_) => Vec::new(),
                Selection::Filter(filter) => self.find(filter, end).await?,
            };
            if ids.is_empty() {
                return Ok(Discarded { letters, rest: Remainder::None });
            }
            if Instant::now() > deadline {
                return Ok(Discarded { letters, rest: Remainder::Some });
            }
        }
    }

    /// Pending letters before an offset that a filter matches, from the oldest on.
    async fn find(&self, filter: &LetterFilter, end: u64) -> Result<Vec<DeadLetterId>, DeadLetterError> {
        let filter = pending(filter)?;
        let view = self.ready_view().await?;
        let found = tokio::task::block_in_place(|| view.find(&filter, 0..end, LETTERS_PER_MARK))?;
        Ok(found.letters.into_iter().map(|(_, id)| id).collect())
    }

    /// Opens the log where the view left off; clears the view where the log is another one.
    ///
    /// # Errors
    /// [`FollowError`].
    async fn open(&self, connection: &Connection) -> Result<StreamReader, FollowError> {
        self.currency.send_replace(SyncState::CatchingUp);
        let position = self.view.position()?;
        let (log, continuity) =
            StreamReader::open(connection, &self.names.dead_letters(), EndDetection::ByLastChunk, position.as_ref())
                .await?;
        if continuity == StreamContinuity::Restarted {
            if position.is_some() {
                tracing::error!(
                    log = self.names.dead_letters(),
                    letters = self.view.counts().iter().sum::<u64>(),
                    "the log of dead letters is not the one the local view was built from: it was deleted, or has lost its \
                     end, or this worker was away for longer than it keeps them. Rebuilding the view from it"
                );
            }
            self.building.send_replace(ViewState::Yes);
            self.appender.set_read_back(ReadBack::Off);
            tokio::task::block_in_place(|| self.view.clear())?;
            self.metrics.forget_dead_letters_kept();
        }
        Ok(log)
    }

    /// Applies the log until the connection is lost.
    ///
    /// # Errors
    /// [`FollowError`]: always, for the log has no end.
    async fn follow(&self, mut log: StreamReader) -> Result<std::convert::Infallible, FollowError> {
        loop {
            if log.is_current() && *self.currency.borrow() == SyncState::CatchingUp {
                // The log keeps whole segments, and so more than is to be shown.
                self.forget_old()?;
                let counts = self.view.counts();
                tracing::info!(
                    log = self.names.dead_letters(),
                    letters = counts.iter().sum::<u64>(),
                    pending = counts[0],
                    "dead letters are current"
                );
                self.building.send_replace(ViewState::No);
                self.update_gauges();
                self.currency.send_replace(SyncState::Current);
            }
            let first = log.next().await?;
            let mut bytes = first.body.len();
            let mut batch = vec![self.read(first)];
            while batch.len() < BATCH
                && bytes < BATCH_BYTES
                && let Some(record) = log.next_ready()?
            {
                bytes += record.body.len();
                batch.push(self.read(record));
            }
            let applied = tokio::task::block_in_place(|| self.view.apply(&batch))?;
            self.update_gauges();
            self.changes.send_replace(());
            for (entry, applied) in batch.iter().zip(applied) {
                self.appender.applied(&entry.position.message_id, applied);
            }
        }
    }

    fn read(&self, record: StreamRecord) -> StreamEntry {
        let StreamRecord { position, body, trace, replay, removals } = record;
        let removal = match removals {
            // The keeper's own message, and nobody's event.
            Some(_) if is_probe(&body) => return StreamEntry { position, content: Payload::Nothing },
            Some(removals) => removals.latest(&self.names),
            None => match content(&body) {
                Ok(content) => return StreamEntry { position, content },
                Err(error) if is_of_a_worker(&body) => {
                    tracing::error!(log = self.names.dead_letters(), offset = position.offset, %error, "a record that can't be read was left out");
                    return StreamEntry { position, content: Payload::Nothing };
                }
                // A shovel or a person put an event there.
                Err(_) => Removal { queue: self.names.events(), reason: DeadLetterReason::Rejected, at: None },
            },
        };
        let message_id = Some(position.message_id.clone()).filter(|id| !id.is_empty());
        let removed = RemovedMessage { removal, body, message_id, trace, replay };
        StreamEntry { position, content: Payload::Removed(Box::new(removed)) }
    }

    /// Forgets letters that are older than the retention, over and over.
    ///
    /// # Errors
    /// [`FollowError::Store`].
    async fn forget(&self) -> Result<std::convert::Infallible, FollowError> {
        let mut ticks = interval(FORGET_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.forget_old()?;
            self.update_gauges();
        }
    }

    fn forget_old(&self) -> Result<(), StoreError> {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let before = self.clock.now().timestamp_millis().saturating_sub(retention);
        while tokio::task::block_in_place(|| self.view.forget_before(before, BLOCKS_PER_FORGETTING))? > 0 {}
        Ok(())
    }

    /// Shows how many letters there are; not while the view is being built, when these are too few.
    fn update_gauges(&self) {
        if *self.building.borrow() == ViewState::No {
            self.metrics.dead_letters_kept(self.view.counts());
        }
    }
}

/// The filter with its pending letters, which alone can be discarded.
fn pending(filter: &LetterFilter) -> Result<LetterFilter, DeadLetterError> {
    let filter = filter.or_pending();
    if filter.state == Some(LetterState::Pending) {
        return Ok(filter);
    }
    Err(DeadLetterError::Faults(vec![Violation::new("$.filter.state", "only pending letters can be discarded")]))
}

/// Nothing is there for what was asked.
pub(crate) fn nothing_matches(choice: &Selection) -> DeadLetterError {
    let message = match choice {
        Selection::Filter(LetterFilter { state: None, .. }) => {
            "matches no pending dead letter, and a filter that names no state means these only: look at the list with the \
             same filter, where it means those of every state"
        }
        _ => "matches no dead letter: look with the same filter at the list",
    };
    DeadLetterError::Faults(vec![Violation::new("$.filter", message)])
}

/// Whether a worker wrote a record, perhaps one of a later version.
fn is_of_a_worker(body: &[u8]) -> bool {
    // The probe of an empty log has no body.
    body.is_empty() || [b"{\"mark\":".as_slice(), b"{\"id\":\"dl_"].iter().any(|beginning| body.starts_with(beginning))
}

fn content(body: &[u8]) -> Result<Payload, serde_json::Error> {
    match DeadLetterRecord::decode(body)? {
        Some(mark) => Ok(Payload::Mark(mark)),
        None => serde_json::from_slice(body).map(|letter| Payload::Letter(Box::new(letter))),
    }
}
