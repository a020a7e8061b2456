//! Reads the campaigns stream into the local view, and detects if the stream is incomplete. Records that have arrived
//! together are applied together.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use chrono::Utc;
use lapin::Connection;
use tokio_util::task::AbortOnDropHandle;
use waypost_broker::queue_stats;
use waypost_broker::stream_reader::{EndDetection, StreamContinuity, StreamReader};
use waypost_core::stream_position::StreamPosition;
use waypost_store::record::{CampaignsRecord, Control, Decision, DecisionKind};
use waypost_store::state::{Contents, Incomplete, ReadFrom, RecordEffect};
use waypost_store::{CampaignsEntry, ChangeOutcome, StoreError};

use super::Campaigns;
use super::catch_up_log::CatchUpLog;
use super::comparison::{Announcement, Comparison, ComparisonResult, Relation};
use super::hold::{Hold, HoldReason, StreamStatus};
use super::read_ahead::{ReadAhead, RecordBatch};
use super::snapshots::SnapshotRequest;
use super::view_history::ViewHistory;
use crate::view_sync::{FollowError, SyncState};

/// Reads the campaigns stream over one connection.
pub struct StreamSession {
    log: ReadAhead,
    mode: ReadMode,
    /// Records that were read and not applied yet.
    entries: Vec<CampaignsEntry>,
    /// Whether the records that the stream had when reading started are all read.
    is_caught_up: bool,
    /// Whether the records that the stream had when reading started are all applied.
    has_reached_end: bool,
    catch_up_log: CatchUpLog,
    /// Messages that wait for a retry, if the view was empty when reading started.
    waiting_messages: u64,
    /// Whether a decision has made the view complete since it was last current.
    is_completed: bool,
    /// Another worker's request, which this worker answers when it is current.
    request: Option<SnapshotRequest>,
    /// The task that appends a snapshot for another worker.
    answer: Option<AbortOnDropHandle<()>>,
}

enum ReadMode {
    /// Records are applied to the view.
    Apply(ReadFrom),
    /// Records are compared with the view, which does not change.
    Compare(Box<Comparison>),
}

/// Whether the records that the stream had when reading started have all been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitialEnd {
    NotReached,
    Reached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextStep {
    ReadOn,
    /// The stream must be opened again.
    Reopen,
}

impl Campaigns {
    /// Opens the stream at the view's position. Removes an outdated view first.
    pub async fn open(&self, connection: &Connection) -> Result<StreamSession, FollowError> {
        self.catch_up();
        let mut state = self.store.view_state()?;
        if let Contents::Outdated(snapshot) = state.contents.clone() {
            // A restore reads the view.
            let _restore_lock = self.restore_mutex.lock().await;
            self.backup_campaigns()?;
            self.store.clear_outdated(state.decision, snapshot)?;
            self.history().is_rebuilding = true;
            state = self.store.view_state()?;
        }
        let position = self.store.position()?;
        let (log, continuity) =
            StreamReader::open(connection, &self.log, EndDetection::ByMarker(&self.publisher), position.as_ref())
                .await?;
        let mut waiting_messages = 0;
        let mode = match (continuity, position) {
            (StreamContinuity::Continued, position) => {
                if state.last_record.is_none()
                    && let Some(position) = position
                {
                    self.store.set_last_record(&position)?;
                }
                ReadMode::Apply(self.history().read_from())
            }
            (StreamContinuity::Restarted, Some(position)) if state.is_complete() && self.store.has_campaigns() => {
                if matches!(*self.stream_status.borrow(), StreamStatus::Following) {
                    self.stream_status.send_replace(StreamStatus::Comparing);
                }
                ReadMode::Compare(Box::new(Comparison::new(position, state.last_record, state.decision)))
            }
            (StreamContinuity::Restarted, position) => {
                // A view without a position was removed because of a decision in this stream.
                let decision = state.decision.filter(|_| position.is_none());
                self.store.clear_outdated(decision, None)?;
                self.history().is_rebuilding = true;
                waiting_messages = queue_stats::total_messages(connection, &self.names, &[]).await?;
                ReadMode::Apply(ReadFrom::First)
            }
        };
        self.update_version_gauge()?;
        Ok(StreamSession {
            is_caught_up: log.is_caught_up(),
            log: ReadAhead::start(log, self.log.clone()),
            mode,
            entries: Vec::new(),
            has_reached_end: false,
            catch_up_log: CatchUpLog::new(),
            waiting_messages,
            is_completed: false,
            request: None,
            answer: None,
        })
    }

    /// Applies the stream until the connection is lost or the stream must be opened again. Events must not be resolved
    /// by the view until then.
    pub async fn follow(&self, mut session: StreamSession) -> Result<(), FollowError> {
        let mut end = InitialEnd::NotReached;
        loop {
            session.has_reached_end |= session.entries.is_empty() && session.is_caught_up;
            if end == InitialEnd::NotReached && session.has_reached_end {
                end = InitialEnd::Reached;
                if self.handle_initial_end(&mut session).await? == NextStep::Reopen {
                    return Ok(());
                }
            }
            self.answer_request(&mut session)?;
            if session.entries.is_empty() {
                self.read_entries(&mut session).await?;
            }
            let from = match &mut session.mode {
                ReadMode::Apply(from) => *from,
                // Records are compared one by one. The position is seldom found late, so few records are moved.
                ReadMode::Compare(comparison) => {
                    let Some(CampaignsEntry { position, record }) = session.entries.first() else { continue };
                    match comparison.compare(position, record.as_ref()) {
                        Relation::Unknown => {
                            self.confirm_control(position, record.as_ref());
                            session.entries.remove(0);
                            if end == InitialEnd::Reached
                                && let Some(decision) = comparison.new_decision()
                            {
                                self.replace(decision.clone())?;
                                return Ok(());
                            }
                            continue;
                        }
                        relation => {
                            tracing::info!(log = self.log, offset = position.offset, "campaigns stream continues");
                            let from = self.history().read_from();
                            session.mode = ReadMode::Apply(from);
                            end = InitialEnd::NotReached;
                            if relation == Relation::AtPosition {
                                session.entries.remove(0);
                                continue;
                            }
                            from
                        }
                    }
                }
            };
            match self.apply(&mut session, from)? {
                RecordEffect::Completed => {
                    session.is_completed = true;
                    end = InitialEnd::NotReached;
                }
                RecordEffect::ReadAgain => break,
                RecordEffect::Held if *self.sync_state.borrow() == SyncState::Current => break,
                RecordEffect::Held | RecordEffect::None | RecordEffect::Changed(_) | RecordEffect::Restored { .. } => {}
            }
            // Applying does not wait for anything, and the connection is watched by the same task.
            tokio::task::yield_now().await;
        }
        self.reopen();
        Ok(())
    }

    /// Waits for the next batch of records.
    async fn read_entries(&self, session: &mut StreamSession) -> Result<(), FollowError> {
        let RecordBatch { entries, is_caught_up } = session.log.next().await?;
        session.is_caught_up |= is_caught_up;
        for entry in &entries {
            if let Some(CampaignsRecord::Control(control)) = &entry.record {
                self.follow_snapshots(control);
                session.request = SnapshotRequest::after(control, session.request);
            }
        }
        session.entries = entries;
        Ok(())
    }

    /// Answers a worker that asked for a snapshot, if this worker is current. A snapshot that is being appended already
    /// answers the new request too.
    fn answer_request(&self, session: &mut StreamSession) -> Result<(), StoreError> {
        if *self.sync_state.borrow() == SyncState::Current
            && let Some(request) = session.request.take()
            && session.answer.as_ref().is_none_or(AbortOnDropHandle::is_finished)
        {
            session.answer = self.answer(request)?;
        }
        Ok(())
    }

    /// Called when all records that the stream had when reading started have been read.
    async fn handle_initial_end(&self, session: &mut StreamSession) -> Result<NextStep, FollowError> {
        let comparison = match &mut session.mode {
            ReadMode::Compare(comparison) => comparison,
            ReadMode::Apply(from) => {
                let mut state = self.store.view_state()?;
                let is_new = *from == ReadFrom::First && state.last_record.is_none() && state.decision.is_none();
                if is_new && state.is_complete() && session.waiting_messages > 0 {
                    state.incomplete = Some(Incomplete::DeliveriesWait { messages: session.waiting_messages });
                    self.store.set_incomplete(state.incomplete)?;
                }
                match state.incomplete {
                    Some(incomplete) => self.hold(HoldReason::View(incomplete)),
                    None if state.is_complete() => {
                        self.become_current()?;
                        if std::mem::take(&mut session.is_completed) && state.accepted_loss.is_some() {
                            self.request_better_snapshot(state.accepted_loss).await;
                        }
                    }
                    // A snapshot is being loaded.
                    None => return Ok(NextStep::ReadOn),
                }
                *from = ReadFrom::Live;
                self.history().is_rebuilding = false;
                return Ok(NextStep::ReadOn);
            }
        };
        match comparison.result() {
            ComparisonResult::Rewind(position) => {
                tracing::warn!(log = self.log, offset = position.offset, "campaigns stream has lost markers");
                self.store.rewind(&position)?;
                Ok(NextStep::Reopen)
            }
            ComparisonResult::Replace(decision) => {
                self.replace(decision)?;
                Ok(NextStep::Reopen)
            }
            ComparisonResult::Hold(reason, announcement) => {
                self.hold(reason);
                if announcement == Announcement::Needed {
                    let campaigns = self.store.count_campaigns();
                    if let Err(error) = self.publish_control(&Control::Hold { at: Utc::now(), campaigns }).await {
                        // This worker tries again after it has connected again.
                        tracing::warn!(log = self.log, %error, "announcement of missing campaigns not appended");
                    }
                }
                Ok(NextStep::ReadOn)
            }
        }
    }

    /// Asks other workers for a more complete snapshot. This worker's view was read from a stream without its
    /// beginning.
    async fn request_better_snapshot(&self, accepted_loss: Option<u64>) {
        if let Err(error) = self.request_snapshot(accepted_loss).await {
            tracing::warn!(log = self.log, %error, "snapshot request not appended");
        }
    }

    fn become_current(&self) -> Result<(), StoreError> {
        // Keys are not checked for each record: a campaign encrypted with a lost key may have been replaced since.
        self.store.check_keys()?;
        let offset = self.store.position()?.map(|position| position.offset);
        tracing::info!(log = self.log, offset, "configuration is current");
        self.metrics.config_log_incomplete.set(0);
        self.stream_status.send_replace(StreamStatus::Following);
        self.sync_state.send_replace(SyncState::Current);
        self.is_following.send_replace(true);
        Ok(())
    }

    fn hold(&self, reason: HoldReason) {
        let hold = Hold { log: self.log.clone(), reason };
        tracing::error!(log = self.log, reason = reason.name(), error = %hold, "campaigns stream is incomplete");
        self.metrics.config_log_incomplete.set(1);
        self.stream_status.send_replace(StreamStatus::Incomplete(hold));
    }

    /// Resolves no event by the view, and accepts no change, until the stream has been read again.
    fn reopen(&self) {
        self.catch_up();
        self.stream_status.send_replace(StreamStatus::Comparing);
    }

    /// The connection is lost. The next connection may find another stream.
    pub fn connection_lost(&self) {
        self.is_following.send_replace(false);
    }

    fn catch_up(&self) {
        self.is_following.send_replace(false);
        if self.sync_state.send_replace(SyncState::CatchingUp) == SyncState::Current {
            self.history().last_current_at = Some(Instant::now());
        }
    }

    fn history(&self) -> MutexGuard<'_, ViewHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the view as outdated after an operator's decision. The view is replaced when the stream is opened again.
    fn replace(&self, Decision { at, kind }: Decision) -> Result<(), StoreError> {
        let snapshot = match kind {
            DecisionKind::ReadLog => None,
            DecisionKind::Load(snapshot) => Some(snapshot),
        };
        self.store.mark_outdated(at, snapshot)?;
        self.reopen();
        Ok(())
    }

    fn backup_campaigns(&self) -> Result<(), StoreError> {
        let backup = self.store.backup_campaigns()?;
        tracing::warn!(
            log = self.log,
            kept = backup.map(|path| path.display().to_string()),
            "campaigns are read again from the stream. The previous campaigns of this worker are in the file `kept`; `waypost \
             campaigns apply FILE` restores missing ones"
        );
        Ok(())
    }

    /// Applies the records that were read, and returns the effect of the last one. Records after one that changes how
    /// the stream is read are left.
    fn apply(&self, session: &mut StreamSession, from: ReadFrom) -> Result<RecordEffect, StoreError> {
        let is_current = *self.sync_state.borrow() == SyncState::Current;
        let apply = || self.store.apply(&session.entries, from);
        // Many records take long. Other tasks of this thread, which may be the reader's, continue on another thread.
        let effects = if is_current { apply() } else { tokio::task::block_in_place(apply) }?;
        self.update_version_gauge()?;
        let last = effects.last().cloned().unwrap_or(RecordEffect::None);
        let mut offset = 0;
        let mut changes = 0;
        for (entry, effect) in session.entries.drain(..effects.len()).zip(effects) {
            if !is_current && matches!(effect, RecordEffect::Changed(_)) {
                changes += 1;
            } else {
                self.log_effect(&entry, &effect)?;
            }
            offset = entry.position.offset;
            match effect {
                RecordEffect::Changed(outcome) => self.appender.notify_applied(&entry.position.message_id, outcome),
                RecordEffect::Restored { .. } => {}
                _ => self.confirm_control(&entry.position, entry.record.as_ref()),
            }
        }
        if let Some(changes) = session.catch_up_log.count(changes, Instant::now()) {
            tracing::info!(log = self.log, changes, offset, "reading configuration");
        }
        Ok(last)
    }

    /// Logs a change that was applied while the view was current, or a campaign of a restore.
    ///
    /// # Errors
    /// [`StoreError::Undecryptable`]: a worker without the key cannot deliver the campaign's events.
    fn log_effect(&self, entry: &CampaignsEntry, effect: &RecordEffect) -> Result<(), StoreError> {
        match (effect, &entry.record) {
            (RecordEffect::Changed(outcome), Some(CampaignsRecord::Change(change))) => match outcome {
                ChangeOutcome::Done { version } => {
                    if let Some(campaign) = change.campaign.clone() {
                        self.store.decrypted(campaign)?;
                        tracing::info!(campaign = change.id, version, "campaign configured");
                    } else {
                        tracing::info!(campaign = change.id, "campaign deleted");
                    }
                }
                _ => tracing::info!(campaign = change.id, reason = ?outcome, "campaign change rejected"),
            },
            (RecordEffect::Restored { id, outcome: ChangeOutcome::Done { version } }, _) => {
                tracing::debug!(campaign = id, version, "campaign restored");
            }
            (RecordEffect::Restored { id, outcome }, _) => {
                tracing::warn!(campaign = id, reason = ?outcome, "campaign not restored: the stream has it");
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the task that appended a control record that this worker has read it.
    fn confirm_control(&self, position: &StreamPosition, record: Option<&CampaignsRecord>) {
        if let Some(CampaignsRecord::Control(_)) = record {
            self.appender.notify_applied(&position.message_id, ChangeOutcome::Done { version: position.offset });
        }
    }

    fn update_version_gauge(&self) -> Result<(), StoreError> {
        let applied = self.store.position()?.map_or(0, |position| position.offset);
        self.metrics.config_version.set(i64::try_from(applied).unwrap_or(i64::MAX));
        Ok(())
    }
}
