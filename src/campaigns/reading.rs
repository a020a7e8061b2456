//! Reads the campaigns log into the view, and finds out whether the log is complete.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use lapin::Connection;
use tokio_util::task::AbortOnDropHandle;

use super::Campaigns;
use super::comparison::{Announcement, Comparison, ComparisonResult, Relation};
use super::hold::{Hold, HoldReason, LogStatus};
use super::snapshots::SnapshotRequest;
use crate::broker::queue_stats;
use crate::broker::stream_reader::{EndDetection, StreamContinuity, StreamReader, StreamRecord};
use crate::store::record::{Control, Decision, DecisionKind, LogRecord};
use crate::store::state::{Contents, Effect, Incomplete, ReadFrom};
use crate::store::{ChangeOutcome, StoreError};
use crate::view_sync::{FollowError, SyncState};

/// A worker that was current less than this ago keeps its view through a decision, like a worker that is current: a lost
/// connection is no stop.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The campaigns log, being read.
pub struct LogSession {
    log: StreamReader,
    mode: Mode,
    /// Messages that wait for a retry, if the view was empty when reading started.
    waiting: u64,
    /// Whether a decision has made the view complete, since it was last current.
    is_completed: bool,
    /// What another worker wants from this one when it is current.
    request: Option<SnapshotRequest>,
    /// A snapshot that is being appended for another worker.
    answer: Option<AbortOnDropHandle<()>>,
}

/// What this process has done with the view.
#[derive(Debug, Default)]
pub(super) struct ViewHistory {
    /// When the view was last current, if it is not now.
    last_current: Option<Instant>,
    /// Whether the view is being read from the log's first record, or from a snapshot.
    is_read_again: bool,
}

impl ViewHistory {
    /// How the view comes to the records after its position.
    fn read_from(&self) -> ReadFrom {
        if self.is_read_again {
            return ReadFrom::First;
        }
        match self.last_current {
            Some(current) if current.elapsed() < RECONNECT_TIMEOUT => ReadFrom::Live,
            _ => ReadFrom::Position,
        }
    }
}

enum Mode {
    /// Records are applied to the view.
    Apply(ReadFrom),
    /// The view is kept as it is, and records are compared with it.
    Compare(Box<Comparison>),
}

/// The end of what the log held when reading started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ahead,
    Behind,
}

/// How reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    ReadOn,
    /// The log must be opened again.
    Reopen,
}

impl Campaigns {
    /// Opens the log where the view left off. An outdated view is removed first.
    ///
    /// # Errors
    /// [`FollowError`].
    pub async fn open(&self, connection: &Connection) -> Result<LogSession, FollowError> {
        self.catch_up();
        let mut state = self.store.view_state()?;
        if let Contents::Outdated(snapshot) = state.contents.clone() {
            // A restore reads the view.
            let _restoring = self.restoring.lock().await;
            self.backup_campaigns()?;
            self.store.read_again(state.decision, snapshot)?;
            self.history().is_read_again = true;
            state = self.store.view_state()?;
        }
        let position = self.store.position()?;
        let (log, continuity) =
            StreamReader::open(connection, &self.log, EndDetection::ByMarker(&self.publisher), position.as_ref())
                .await?;
        let mut waiting = 0;
        let mode = match (continuity, position) {
            (StreamContinuity::Continued, position) => {
                if state.last_record.is_none()
                    && let Some(position) = position
                {
                    self.store.set_last_record(&position)?;
                }
                Mode::Apply(self.history().read_from())
            }
            (StreamContinuity::Restarted, Some(position)) if state.is_complete() && self.store.has_campaigns() => {
                if matches!(*self.status.borrow(), LogStatus::Following) {
                    self.status.send_replace(LogStatus::Comparing);
                }
                Mode::Compare(Box::new(Comparison::new(position, state.last_record, state.decision)))
            }
            (StreamContinuity::Restarted, position) => {
                // A view without a position was removed. The decision for that is in this log.
                let decision = state.decision.filter(|_| position.is_none());
                self.store.read_again(decision, None)?;
                self.history().is_read_again = true;
                waiting = queue_stats::total(connection, &self.names, &[]).await?;
                Mode::Apply(ReadFrom::First)
            }
        };
        self.show_version()?;
        Ok(LogSession { log, mode, waiting, is_completed: false, request: None, answer: None })
    }

    /// Applies the log, until the connection is lost or events must not be resolved by the view any more: the log must be
    /// opened again then.
    ///
    /// # Errors
    /// [`FollowError`].
    pub async fn follow(&self, mut reading: LogSession) -> Result<(), FollowError> {
        let mut end = End::Ahead;
        loop {
            if end == End::Ahead && reading.log.is_current() {
                end = End::Behind;
                if self.all_read(&mut reading).await? == Next::Reopen {
                    return Ok(());
                }
            }
            self.answer_request(&mut reading)?;
            let record = reading.log.next().await?;
            let content = self.content(&record);
            if let Some(LogRecord::Control(control)) = &content {
                self.follow_snapshots(control);
                reading.request = SnapshotRequest::after(control, reading.request);
            }
            let from = match &mut reading.mode {
                Mode::Apply(from) => *from,
                Mode::Compare(comparison) => match comparison.read(&record.position, content.as_ref()) {
                    Relation::Unknown => {
                        self.tell_control(&record, content.as_ref());
                        if end == End::Behind
                            && let Some(decision) = comparison.decision()
                        {
                            self.replace(decision.clone())?;
                            return Ok(());
                        }
                        continue;
                    }
                    relation => {
                        tracing::info!(log = self.log, offset = record.position.offset, "campaigns log continues");
                        let from = self.history().read_from();
                        reading.mode = Mode::Apply(from);
                        end = End::Ahead;
                        if relation == Relation::AtPosition {
                            continue;
                        }
                        from
                    }
                },
            };
            match self.apply(&record, content.as_ref(), from)? {
                Effect::Completed => {
                    reading.is_completed = true;
                    end = End::Ahead;
                }
                Effect::ReadAgain => break,
                Effect::Held if *self.currency.borrow() == SyncState::Current => break,
                Effect::Held | Effect::None | Effect::Changed(_) | Effect::Restored { .. } => {}
            }
        }
        self.reopen();
        Ok(())
    }

    /// Answers a worker that wants a snapshot, if this one is current. It gets what is being appended for another as well.
    fn answer_request(&self, reading: &mut LogSession) -> Result<(), StoreError> {
        if *self.currency.borrow() == SyncState::Current
            && let Some(request) = reading.request.take()
            && reading.answer.as_ref().is_none_or(AbortOnDropHandle::is_finished)
        {
            reading.answer = self.answer(request)?;
        }
        Ok(())
    }

    /// All that the log held when reading started has been read.
    async fn all_read(&self, reading: &mut LogSession) -> Result<Next, FollowError> {
        let comparison = match &mut reading.mode {
            Mode::Compare(comparison) => comparison,
            Mode::Apply(from) => {
                let mut state = self.store.view_state()?;
                let is_new = *from == ReadFrom::First && state.last_record.is_none() && state.decision.is_none();
                if is_new && state.is_complete() && reading.waiting > 0 {
                    state.incomplete = Some(Incomplete::DeliveriesWait { messages: reading.waiting });
                    self.store.set_incomplete(state.incomplete)?;
                }
                match state.incomplete {
                    Some(incomplete) => self.hold(HoldReason::View(incomplete)),
                    None if state.is_complete() => {
                        self.current()?;
                        if std::mem::take(&mut reading.is_completed) && state.accepted_loss.is_some() {
                            self.ask_who_lacks_less(state.accepted_loss).await;
                        }
                    }
                    // A snapshot is being loaded.
                    None => return Ok(Next::ReadOn),
                }
                *from = ReadFrom::Live;
                self.history().is_read_again = false;
                return Ok(Next::ReadOn);
            }
        };
        match comparison.verdict() {
            ComparisonResult::Rewind(position) => {
                tracing::warn!(log = self.log, offset = position.offset, "campaigns log has lost markers");
                self.store.rewind(&position)?;
                Ok(Next::Reopen)
            }
            ComparisonResult::Replace(decision) => {
                self.replace(decision)?;
                Ok(Next::Reopen)
            }
            ComparisonResult::Hold(reason, announcement) => {
                self.hold(reason);
                if announcement == Announcement::Needed {
                    let campaigns = self.store.count_campaigns();
                    if let Err(error) = self.publish_control(&Control::Hold { at: Utc::now(), campaigns }).await {
                        // The next connection tries again.
                        tracing::warn!(log = self.log, %error, "other workers were not told that campaigns are missing");
                    }
                }
                Ok(Next::ReadOn)
            }
        }
    }

    /// Asks for a snapshot of a view that lacks less than this one, which was read from a log without its beginning.
    async fn ask_who_lacks_less(&self, accepted_loss: Option<u64>) {
        if let Err(error) = self.ask_for_snapshot(accepted_loss).await {
            tracing::warn!(log = self.log, %error, "other workers were not asked for campaigns that the log has lost");
        }
    }

    fn current(&self) -> Result<(), StoreError> {
        // Not of each record: a campaign that was encrypted with a key that is gone may have been replaced since.
        self.store.check_keys()?;
        let offset = self.store.position()?.map(|position| position.offset);
        tracing::info!(log = self.log, offset, "configuration is current");
        self.metrics.config_log_incomplete.set(0);
        self.status.send_replace(LogStatus::Following);
        self.currency.send_replace(SyncState::Current);
        self.is_following.send_replace(true);
        Ok(())
    }

    fn hold(&self, reason: HoldReason) {
        let hold = Hold { log: self.log.clone(), reason };
        tracing::error!(log = self.log, reason = reason.name(), error = %hold, "campaigns log is incomplete");
        self.metrics.config_log_incomplete.set(1);
        self.status.send_replace(LogStatus::Incomplete(hold));
    }

    /// Nothing more is to be resolved by the view, and no change of it is accepted, until the log is read again.
    fn reopen(&self) {
        self.catch_up();
        self.status.send_replace(LogStatus::Comparing);
    }

    /// The connection is lost: whether the log that is there next is the same one is not known.
    pub fn connection_lost(&self) {
        self.is_following.send_replace(false);
    }

    fn catch_up(&self) {
        self.is_following.send_replace(false);
        if self.currency.send_replace(SyncState::CatchingUp) == SyncState::Current {
            self.history().last_current = Some(Instant::now());
        }
    }

    fn history(&self) -> MutexGuard<'_, ViewHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operator has decided: the view is replaced when the log is opened again.
    fn replace(&self, Decision { at, kind }: Decision) -> Result<(), StoreError> {
        let snapshot = match kind {
            DecisionKind::ReadLog => None,
            DecisionKind::Load(snapshot) => Some(snapshot),
        };
        self.store.outdate(at, snapshot)?;
        self.reopen();
        Ok(())
    }

    fn backup_campaigns(&self) -> Result<(), StoreError> {
        let kept = self.store.backup_campaigns()?;
        tracing::warn!(
            log = self.log,
            kept = kept.map(|path| path.display().to_string()),
            "campaigns are read again from the log. Those that this worker had are kept in a file; `waypost campaigns apply \
             FILE` brings back what is missing"
        );
        Ok(())
    }

    fn content(&self, record: &StreamRecord) -> Option<LogRecord> {
        let content = LogRecord::read(&record.body);
        content
            .inspect_err(|error| {
                // Another version of Waypost has written it.
                tracing::error!(log = self.log, offset = record.position.offset, %error, "a record that can't be read was left out");
            })
            .ok()
    }

    fn apply(&self, record: &StreamRecord, content: Option<&LogRecord>, from: ReadFrom) -> Result<Effect, StoreError> {
        let effect = self.store.apply(&record.position, content, from)?;
        if let (Effect::Changed(ChangeOutcome::Done { .. }), Some(LogRecord::Change(change))) = (&effect, content)
            && let Some(campaign) = change.campaign.clone().filter(|_| *self.currency.borrow() == SyncState::Current)
        {
            // A worker without the key could do nothing with the campaign's events.
            self.store.opened(campaign)?;
        }
        self.show_version()?;
        match (&effect, content) {
            (Effect::Changed(applied), Some(LogRecord::Change(change))) => {
                match applied {
                    ChangeOutcome::Done { version } if change.campaign.is_some() => {
                        tracing::info!(campaign = change.id, version, "campaign configured");
                    }
                    ChangeOutcome::Done { .. } => tracing::info!(campaign = change.id, "campaign deleted"),
                    _ => tracing::info!(campaign = change.id, ?applied, "a change of a campaign came too late"),
                }
                self.appender.applied(&record.position.message_id, applied.clone());
            }
            (Effect::Restored { id, applied: ChangeOutcome::Done { version } }, _) => {
                tracing::debug!(campaign = id, version, "campaign restored");
            }
            (Effect::Restored { id, applied }, _) => {
                tracing::warn!(campaign = id, ?applied, "campaign not restored: the log has it");
            }
            _ => self.tell_control(record, content),
        }
        Ok(effect)
    }

    /// Whoever appended a control record here is told that it was read.
    fn tell_control(&self, record: &StreamRecord, content: Option<&LogRecord>) {
        if let Some(LogRecord::Control(_)) = content {
            self.appender.applied(&record.position.message_id, ChangeOutcome::Done { version: record.position.offset });
        }
    }

    fn show_version(&self) -> Result<(), StoreError> {
        let applied = self.store.position()?.map_or(0, |position| position.offset);
        self.metrics.config_version.set(i64::try_from(applied).unwrap_or(i64::MAX));
        Ok(())
    }
}
