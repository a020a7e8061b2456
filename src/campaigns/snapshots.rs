//! Snapshots that workers ask each other for: a worker that is ready may have changes that the log has lost.

use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{CampaignError, Campaigns};
use crate::store::StoreError;
use crate::store::record::{Control, RestoreKind};

/// A worker that is ready begins to answer within this time, if there is one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A snapshot that has begun is finished within this time, or the caller is told to try again.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);

/// A worker that was asked waits up to this long: if another worker answers meanwhile, it does not.
const MAX_ANSWER_DELAY: Duration = Duration::from_secs(1);

/// A worker has asked for a snapshot, and none was begun and nothing decided since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotRequest {
    accepted_loss: Option<u64>,
}

/// Snapshots as this worker has read them from the log.
#[derive(Debug, Clone, Default)]
pub(super) struct SnapshotProgress {
    /// The id of the latest one that began.
    restore: String,
    /// How many records of snapshots were read.
    records: u64,
    /// How many snapshots were finished.
    finished: u64,
}

impl SnapshotRequest {
    /// The request that is open after a record, if `open` was open before.
    pub(super) fn after(control: &Control, open: Option<Self>) -> Option<Self> {
        match control {
            Control::SnapshotWanted { accepted_loss, .. } => Some(Self { accepted_loss: *accepted_loss }),
            Control::RestoreStarted { kind: RestoreKind::Snapshot, .. }
            | Control::RestoreFinished { .. }
            | Control::AcceptEmpty { .. } => None,
            Control::RestoreStarted { kind: RestoreKind::Merge, .. }
            | Control::RestoredCampaign { .. }
            | Control::Hold { .. } => open,
        }
    }

    /// Whether a complete view that lacks `accepted_loss` knows more than the worker that asked.
    fn is_answered_by(self, accepted_loss: Option<u64>) -> bool {
        self.accepted_loss.is_none() || accepted_loss < self.accepted_loss
    }
}

impl SnapshotProgress {
    /// Takes in a record. Gives back whether it belongs to a snapshot.
    fn read(&mut self, control: &Control) -> bool {
        match control {
            Control::RestoreStarted { restore, kind: RestoreKind::Snapshot, .. } => {
                self.restore.clone_from(restore);
                self.records += 1;
                true
            }
            Control::RestoredCampaign { restore, .. } if *restore == self.restore => {
                self.records += 1;
                true
            }
            Control::RestoreFinished { restore, .. } if *restore == self.restore => {
                self.finished += 1;
                true
            }
            _ => false,
        }
    }
}

impl Campaigns {
    /// Takes in a control record that was read from the log.
    pub(super) fn follow_snapshots(&self, control: &Control) {
        self.snapshots.send_if_modified(|progress| progress.read(control));
    }

    /// Asks workers that are ready for a snapshot, because the view lacks `accepted_loss`, or is held if that is `None`.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub(super) async fn ask_for_snapshot(&self, accepted_loss: Option<u64>) -> Result<(), CampaignError> {
        self.publish_control(&Control::SnapshotWanted { accepted_loss, at: Utc::now() }).await
    }

    /// Has a worker that is ready append a snapshot, and waits until this worker has read its last record. Gives back
    /// whether there is such a worker.
    ///
    /// # Errors
    /// [`CampaignError::Unavailable`].
    pub(super) async fn snapshot_of_another(&self) -> Result<bool, CampaignError> {
        let mut progress = self.snapshots.subscribe();
        let before = progress.borrow_and_update().clone();
        self.ask_for_snapshot(None).await?;
        let begun = |now: &SnapshotProgress| now.records > before.records || now.finished > before.finished;
        if !holds_within(ANSWER_TIMEOUT, &mut progress, begun).await {
            return Ok(false);
        }
        if holds_within(SNAPSHOT_TIMEOUT, &mut progress, |now| now.finished > before.finished).await {
            return Ok(true);
        }
        let seconds = SNAPSHOT_TIMEOUT.as_secs();
        Err(CampaignError::Unavailable(format!(
            "a worker that is ready appends its campaigns to the log, and has not finished within {seconds} s. Nothing was decided. \
             Try again"
        )))
    }

    /// Appends a snapshot for a worker that asked, if this worker, which is current, knows more. Stops when the handle is
    /// dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn answer(&self, request: SnapshotRequest) -> Result<Option<AbortOnDropHandle<()>>, StoreError> {
        if !request.is_answered_by(self.store.view_state()?.accepted_loss) || !self.store.has_campaigns() {
            return Ok(None);
        }
        let campaigns = self.clone();
        let records = self.snapshots.borrow().records;
        let answer = async move {
            tokio::time::sleep(answer_delay()).await;
            if campaigns.snapshots.borrow().records != records {
                return;
            }
            if let Err(error) = campaigns.append_answer().await {
                tracing::warn!(log = campaigns.log, %error, "no snapshot appended for a worker that asked");
            }
        };
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(answer))))
    }
}

/// A random part of [`MAX_ANSWER_DELAY`].
fn answer_delay() -> Duration {
    let random = super::random::<1>().map_or(0, |[random]| random);
    MAX_ANSWER_DELAY * u32::from(random) / u32::from(u8::MAX)
}

/// Waits until `predicate` holds. Gives back whether it did in time.
async fn holds_within(
    timeout: Duration,
    progress: &mut watch::Receiver<SnapshotProgress>,
    predicate: impl FnMut(&SnapshotProgress) -> bool,
) -> bool {
    tokio::time::timeout(timeout, progress.wait_for(predicate)).await.is_ok_and(|held| held.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accepted_loss: Option<u64>) -> Control {
        Control::SnapshotWanted { accepted_loss, at: Utc::now() }
    }

    fn started(kind: RestoreKind) -> Control {
        let (restore, by, at) = ("r".to_owned(), "editor".to_owned(), Utc::now());
        Control::RestoreStarted { restore, kind, by, at, accepted_loss: None, is_answer: false }
    }

    fn finished(restore: &str) -> Control {
        Control::RestoreFinished { restore: restore.to_owned(), campaigns: 0, at: Utc::now() }
    }

    #[test]
    fn a_request_is_open_until_a_snapshot_begins_or_something_is_decided() {
        let request = SnapshotRequest::after(&wanted(Some(7)), None);
        assert_eq!(request, Some(SnapshotRequest { accepted_loss: Some(7) }));
        let hold = Control::Hold { at: Utc::now(), campaigns: 1 };
        for control in [hold, started(RestoreKind::Merge)] {
            assert_eq!(SnapshotRequest::after(&control, request), request, "{control:?}");
        }
        let accept = Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() };
        for control in [started(RestoreKind::Snapshot), finished("r"), accept] {
            assert_eq!(SnapshotRequest::after(&control, request), None, "{control:?}");
        }
    }

    #[test]
    fn a_request_is_answered_by_who_knows_more() {
        for (asked, lacks, answered) in [
            (None, None, true),
            (None, Some(9), true),
            (Some(7), None, true),
            (Some(7), Some(6), true),
            (Some(7), Some(7), false),
            (Some(7), Some(9), false),
        ] {
            let request = SnapshotRequest { accepted_loss: asked };
            assert_eq!(request.is_answered_by(lacks), answered, "{asked:?}, {lacks:?}");
        }
    }

    #[test]
    fn a_merge_is_no_snapshot() {
        let mut progress = SnapshotProgress::default();
        assert!(!progress.read(&started(RestoreKind::Merge)) && !progress.read(&finished("r")));
        assert!(progress.read(&started(RestoreKind::Snapshot)) && progress.read(&finished("r")));
        assert!(!progress.read(&finished("other")));
        assert_eq!((progress.records, progress.finished), (1, 1));
    }
}
