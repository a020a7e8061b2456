//! Dead letters: every worker reads the dead-letter stream into its own view. Each change of a dead letter is a record
//! in that stream.
//!
//! So all workers show the same states, and a lost view can be read again. [`crate::dead_letter_supervisor`]
//! holds the connection.

pub mod erase;
pub mod queries;
mod removed_messages;
mod retention_clock;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use lapin::Connection;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior, interval};
use waypost_broker::binding_probe::is_probe;
use waypost_broker::names::Names;
use waypost_broker::publisher::Publisher;
use waypost_broker::stream_reader::{EndDetection, StreamContinuity, StreamReader, StreamRecord};
use waypost_broker::stream_writer::{AppendError, ReadBack, StreamWriter};
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::history::OperatorAction;
use waypost_core::dead_letter::removed::{Removal, RemovedMessage};
use waypost_core::dead_letter::selection::Selection;
use waypost_core::dead_letter_record::{DeadLetterRecord, Discard, check_discard_reason};
use waypost_core::ids::DeadLetterId;
use waypost_core::reason::DeadLetterReason;
use waypost_core::violation::Violation;
use waypost_store::StoreError;
use waypost_store::dead_letters::search::LetterCounts;
use waypost_store::dead_letters::{LetterView, Payload, RecordOutcome, StreamEntry};

use crate::metrics::Metrics;
use crate::view_sync::{FollowError, SyncState};
use retention_clock::RetentionClock;

/// Maximum number of records applied in one transaction.
const MAX_BATCH_RECORDS: usize = 200;

/// Maximum number of bytes applied in one transaction; the last record may exceed them.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Time for a record to be published, confirmed and applied. After a timeout the record may still be applied.
/// A replay of a million letters needs most of it to claim them. The command line waits 40 s for a response.
const APPEND_TIMEOUT: Duration = Duration::from_secs(25);

/// Maximum number of letters that one record changes.
const LETTERS_PER_RECORD: usize = 1000;

/// How long one request discards or erases before it answers that there are more letters.
const REQUEST_TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long a request waits while the view is being built. At a start that takes about a second.
const VIEW_READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two removals of letters that are older than the retention.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of index blocks removed in one transaction.
const BLOCKS_PER_TRANSACTION: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    #[error("{} errors", .0.len())]
    Invalid(Vec<Violation>),
    /// A dead letter or a replay does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The state of a letter or of a replay does not allow the operation.
    #[error("{0}")]
    Conflict(String),
    /// The stream could not be written or read, or the view is being built.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A query panicked, or the program stops.
    #[error(transparent)]
    Interrupted(#[from] JoinError),
}

impl DeadLetterError {
    fn no_letter(id: &DeadLetterId) -> Self {
        Self::NotFound(format!("there is no dead letter {id}"))
    }
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscardOutcome {
    /// The number of letters discarded.
    pub letters: u64,
    /// Whether the time limit ended the discard before all letters were discarded.
    pub has_more: bool,
}

/// Reads and changes dead letters. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    pub(crate) view: LetterView,
    appender: StreamWriter<RecordOutcome>,
    names: Names,
    retention: Duration,
    metrics: Arc<Metrics>,
    sync_state: Arc<watch::Sender<SyncState>>,
    view_state: Arc<watch::Sender<LetterViewState>>,
    clock: RetentionClock,
    /// Notifies after each batch of records applied.
    changes: Arc<watch::Sender<()>>,
}

/// Whether the view has caught up with the stream at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LetterViewState {
    /// Letters are missing: the view is being read from the start of the stream.
    Building,
    /// Only the latest letters can be missing.
    Ready,
}

impl DeadLetters {
    /// Dead letters kept for `retention`.
    pub fn new(
        view: LetterView,
        publisher: Publisher,
        names: Names,
        retention: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let appender = StreamWriter::new(publisher, names.dead_letters(), APPEND_TIMEOUT);
        let view = view.with_retention(retention);
        let view_state = if view.position()?.is_none() { LetterViewState::Building } else { LetterViewState::Ready };
        let sync_state = Arc::new(watch::Sender::new(SyncState::CatchingUp));
        let view_state = Arc::new(watch::Sender::new(view_state));
        let changes = Arc::new(watch::Sender::new(()));
        let clock = RetentionClock::start();
        let dead_letters = Self { view, appender, names, retention, metrics, sync_state, view_state, clock, changes };
        dead_letters.update_gauges();
        Ok(dead_letters)
    }

    pub fn appender(&self) -> StreamWriter<RecordOutcome> {
        self.appender.clone()
    }

    /// Waits until the view is built, because a view that is being built lacks letters.
    ///
    /// # Errors
    /// [`DeadLetterError::Unavailable`] after a timeout.
    pub(crate) async fn ready_view(&self) -> Result<&LetterView, DeadLetterError> {
        let mut view_state = self.view_state.subscribe();
        let ready = view_state.wait_for(|view_state| *view_state == LetterViewState::Ready);
        if tokio::time::timeout(VIEW_READY_TIMEOUT, ready).await.is_err() {
            let letters: u64 = self.view.counts().iter().sum();
            let detail = format!("reading the dead letters from the broker, {letters} so far: try again");
            return Err(DeadLetterError::Unavailable(detail));
        }
        Ok(&self.view)
    }

    /// Whether the view was current once.
    pub(crate) fn is_ready(&self) -> bool {
        *self.view_state.borrow() == LetterViewState::Ready
    }

    pub(crate) async fn wait_until_current(&self) {
        // Can't fail: `self` has the sender.
        let _ = self.sync_state.subscribe().wait_for(|sync_state| *sync_state == SyncState::Current).await;
    }

    /// Sets whether a dead letter counts as written only when it was read back.
    pub(crate) fn set_read_back(&self, read_back: ReadBack) {
        self.appender.set_read_back(read_back);
    }

    /// Appends a record to the stream, and waits until this worker has applied it.
    pub(crate) async fn append(&self, record: DeadLetterRecord) -> Result<RecordOutcome, DeadLetterError> {
        Ok(self.appender.append(record.encode()?).await?)
    }

    /// Waits until `predicate` holds.
    pub(crate) async fn wait_until(
        &self,
        predicate: impl Fn(&LetterView) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut changes = self.changes.subscribe();
        loop {
            // `changed` does not fail: `self` has the sender.
            if predicate(&self.view)? || changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Checks that all letters exist and that `is_allowed` holds for their states.
    ///
    /// # Errors
    /// [`DeadLetterError::NotFound`], [`DeadLetterError::Conflict`].
    pub(crate) async fn check(
        &self,
        ids: &[DeadLetterId],
        is_allowed: impl Fn(LetterState) -> bool,
    ) -> Result<(), DeadLetterError> {
        let view = self.ready_view().await?;
        tokio::task::block_in_place(|| {
            for id in ids {
                match view.state(id)? {
                    None => return Err(DeadLetterError::no_letter(id)),
                    Some(_) if view.is_erased(id)? => {
                        return Err(DeadLetterError::Conflict(format!(
                            "{id} was erased: its event is removed and can't be sent"
                        )));
                    }
                    Some(state) if is_allowed(state) => {}
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

    /// Checks that [`discard`](Self::discard) can discard the selected letters.
    ///
    /// # Errors
    /// [`DeadLetterError::Invalid`] if a filter selects letters in another state than pending, and the errors of
    /// letters that are selected by id.
    pub async fn check_discardable(&self, selection: &Selection) -> Result<(), DeadLetterError> {
        match selection {
            Selection::Ids(ids) => self.check(ids, LetterState::can_be_discarded).await,
            Selection::Filter(filter) => check_selects_pending(filter),
        }
    }

    /// Counts the letters that [`discard`](Self::discard) would discard.
    pub async fn count_discardable(&self, selection: &Selection) -> Result<LetterCounts, DeadLetterError> {
        let view = self.ready_view().await?;
        self.check_discardable(selection).await?;
        let counts = tokio::task::block_in_place(|| match selection {
            Selection::Ids(ids) => view.count_ids(ids),
            Selection::Filter(filter) => view.count(&filter.or_pending()),
        });
        Ok(counts?)
    }

    /// Discards pending letters, up to a time limit.
    ///
    /// # Errors
    /// [`DeadLetterError::Invalid`] if the reason is missing or too long, or if the filter matches no letter, and the
    /// errors of [`check_discardable`](Self::check_discardable).
    pub async fn discard(
        &self,
        selection: &Selection,
        by: &str,
        because: Option<&str>,
    ) -> Result<DiscardOutcome, DeadLetterError> {
        check_discard_reason(because, selection).map_err(|violation| DeadLetterError::Invalid(vec![violation]))?;
        let deadline = Instant::now() + REQUEST_TIME_LIMIT;
        // Letters that are written during the discard are not discarded.
        let end = self.ready_view().await?.position()?.map_or(0, |position| position.offset + 1);
        self.check_discardable(selection).await?;
        let mut letters = 0;
        let mut ids = match selection {
            Selection::Ids(ids) => ids.clone(),
            Selection::Filter(filter) => self.find_pending(filter, end).await?,
        };
        if ids.is_empty() {
            return Err(nothing_matches(selection));
        }
        loop {
            for ids in ids.chunks(LETTERS_PER_RECORD) {
                let action =
                    OperatorAction { by: by.to_owned(), at: Utc::now(), operator_reason: because.map(str::to_owned) };
                let discard = DeadLetterRecord::Discard(Discard { ids: ids.to_vec(), action });
                if let RecordOutcome::Letters(discarded) = self.append(discard).await? {
                    letters += discarded;
                }
            }
            ids = match selection {
                Selection::Ids(_) => Vec::new(),
                Selection::Filter(filter) => self.find_pending(filter, end).await?,
            };
            if ids.is_empty() {
                return Ok(DiscardOutcome { letters, has_more: false });
            }
            if Instant::now() > deadline {
                return Ok(DiscardOutcome { letters, has_more: true });
            }
        }
    }

    /// The oldest pending letters before the offset `end` that match `filter`: at most [`LETTERS_PER_RECORD`].
    async fn find_pending(&self, filter: &LetterFilter, end: u64) -> Result<Vec<DeadLetterId>, DeadLetterError> {
        let view = self.ready_view().await?;
        let page = tokio::task::block_in_place(|| view.find(&filter.or_pending(), 0..end, LETTERS_PER_RECORD))?;
        Ok(page.letters.into_iter().map(|(_, id)| id).collect())
    }

    /// Opens the stream at the view's position. Clears the view if the stream does not continue there.
    pub(crate) async fn open(&self, connection: &Connection) -> Result<StreamReader, FollowError> {
        self.sync_state.send_replace(SyncState::CatchingUp);
        let position = self.view.position()?;
        let (log, continuity) =
            StreamReader::open(connection, &self.names.dead_letters(), EndDetection::ByLastChunk, position.as_ref())
                .await?;
        if continuity == StreamContinuity::Restarted {
            if position.is_some() {
                tracing::error!(
                    log = self.names.dead_letters(),
                    letters = self.view.counts().iter().sum::<u64>(),
                    "dead-letter stream replaced, rebuilding the local view: the stream was deleted or has lost records, or this \
                     worker was stopped for longer than the stream keeps records"
                );
            }
            self.view_state.send_replace(LetterViewState::Building);
            self.appender.set_read_back(ReadBack::Off);
            tokio::task::block_in_place(|| self.view.clear())?;
            self.metrics.clear_dead_letters_stored();
        }
        Ok(log)
    }

    /// Applies the stream until an error ends it, for example a lost connection.
    pub(crate) async fn follow(&self, mut log: StreamReader) -> Result<std::convert::Infallible, FollowError> {
        loop {
            if log.is_caught_up() && *self.sync_state.borrow() == SyncState::CatchingUp {
                // The stream removes whole segments only, so it has letters older than the retention.
                self.remove_expired()?;
                let counts = self.view.counts();
                tracing::info!(
                    log = self.names.dead_letters(),
                    letters = counts.iter().sum::<u64>(),
                    pending = counts[0],
                    "dead-letter view is current"
                );
                self.view_state.send_replace(LetterViewState::Ready);
                self.update_gauges();
                self.sync_state.send_replace(SyncState::Current);
            }
            let first = log.next().await?;
            let mut bytes = first.body.len();
            let mut batch = vec![self.read(first)];
            while batch.len() < MAX_BATCH_RECORDS
                && bytes < MAX_BATCH_BYTES
                && let Some(record) = log.next_ready()?
            {
                bytes += record.body.len();
                batch.push(self.read(record));
            }
            let applied = tokio::task::block_in_place(|| self.view.apply(&batch))?;
            self.update_gauges();
            self.changes.send_replace(());
            for (entry, applied) in batch.iter().zip(applied) {
                self.appender.notify_applied(&entry.position.message_id, applied);
            }
        }
    }

    fn read(&self, record: StreamRecord) -> StreamEntry {
        let StreamRecord { position, body, trace, replay, removals } = record;
        let removal = match removals {
            // The topology keeper's probe is not an event.
            Some(_) if is_probe(&body) => return StreamEntry { position, payload: Payload::Ignored },
            Some(removals) => removals.latest(&self.names),
            None => match parse_record(&body) {
                Ok(payload) => return StreamEntry { position, payload },
                Err(error) if is_worker_record(&body) => {
                    tracing::error!(log = self.names.dead_letters(), offset = position.offset, %error, "unreadable record skipped");
                    return StreamEntry { position, payload: Payload::Ignored };
                }
                // A shovel or a person published an event to the stream.
                Err(_) => Removal { queue: self.names.events(), reason: DeadLetterReason::Rejected, at: None },
            },
        };
        let message_id = Some(position.message_id.clone()).filter(|id| !id.is_empty());
        let removed = RemovedMessage { removal, body, message_id, trace, replay };
        StreamEntry { position, payload: Payload::Removed(Box::new(removed)) }
    }

    /// Removes letters older than the retention from the view, periodically.
    pub(crate) async fn apply_retention(&self) -> Result<std::convert::Infallible, FollowError> {
        let mut ticks = interval(RETENTION_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.remove_expired()?;
            self.update_gauges();
        }
    }

    fn remove_expired(&self) -> Result<(), StoreError> {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let before = self.clock.now().timestamp_millis().saturating_sub(retention);
        while tokio::task::block_in_place(|| self.view.delete_before(before, BLOCKS_PER_TRANSACTION))? > 0 {}
        Ok(())
    }

    /// Sets the gauges of dead letters. A view that is being built has too few, so it does not set them.
    fn update_gauges(&self) {
        if self.is_ready() {
            self.metrics.set_dead_letters_stored(self.view.counts());
        }
    }
}

/// Checks that a filter selects only letters that can be discarded.
fn check_selects_pending(filter: &LetterFilter) -> Result<(), DeadLetterError> {
    if filter.or_pending().state.is_some_and(LetterState::can_be_discarded) {
        return Ok(());
    }
    Err(DeadLetterError::Invalid(vec![Violation::new("$.filter.state", "only pending letters can be discarded")]))
}

pub(crate) fn nothing_matches(selection: &Selection) -> DeadLetterError {
    let message = match selection {
        Selection::Filter(LetterFilter { state: None, .. }) => {
            "matches no pending dead letter. A filter without a state selects pending dead letters only. List the dead \
             letters with the same filter to see those in other states"
        }
        _ => "matches no dead letter. List the dead letters and change the filter",
    };
    DeadLetterError::Invalid(vec![Violation::new("$.filter", message)])
}

/// Whether a worker wrote the record. A worker of a later version may have written it.
fn is_worker_record(body: &[u8]) -> bool {
    // The probe of an empty stream has no body.
    body.is_empty() || [b"{\"mark\":".as_slice(), b"{\"id\":\"dl_"].iter().any(|prefix| body.starts_with(prefix))
}

fn parse_record(body: &[u8]) -> Result<Payload, serde_json::Error> {
    match DeadLetterRecord::decode(body)? {
        Some(record) => Ok(Payload::Record(record)),
        None => serde_json::from_slice(body).map(|letter| Payload::Letter(Box::new(letter))),
    }
}
