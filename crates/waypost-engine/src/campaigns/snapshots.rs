//! Snapshots that workers request from each other. A ready worker may have changes that the stream has lost.

use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use waypost_store::StoreError;
use waypost_store::record::{Control, RestoreKind};

use super::Campaigns;
use super::error::CampaignError;
use super::random::random;
use super::snapshot_progress::SnapshotProgress;

/// Time in which a ready worker, if there is one, begins its snapshot.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a snapshot that has begun must be finished.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest random delay before an answer. A worker does not answer if another worker has begun to.
const MAX_ANSWER_DELAY: Duration = Duration::from_secs(1);

/// A worker's request for a snapshot. The request is open until a snapshot begins or an operator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotRequest {
    accepted_loss: Option<u64>,
}

impl SnapshotRequest {
    /// The request that is open after a record. `open` is the request that was open before the record.
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

    /// Whether a complete view that lacks `accepted_loss` has more changes than the worker that asked.
    fn is_answered_by(self, accepted_loss: Option<u64>) -> bool {
        self.accepted_loss.is_none() || accepted_loss < self.accepted_loss
    }
}

impl Campaigns {
    pub(super) fn follow_snapshots(&self, control: &Control) {
        self.snapshots.send_if_modified(|progress| progress.record(control));
    }

    /// Asks ready workers for a snapshot, because this view lacks `accepted_loss`. With `None`, this worker holds its
    /// events.
    pub(super) async fn request_snapshot(&self, accepted_loss: Option<u64>) -> Result<(), CampaignError> {
        self.publish_control(&Control::SnapshotWanted { accepted_loss, at: Utc::now() }).await
    }

    /// Asks a ready worker for a snapshot, and waits until this worker has read all of it. Returns `false` if no worker
    /// is ready.
    ///
    /// # Errors
    /// [`CampaignError::Unavailable`] if the snapshot is not finished in time.
    pub(super) async fn load_snapshot_of_ready_worker(&self) -> Result<bool, CampaignError> {
        let mut progress = self.snapshots.subscribe();
        let before = progress.borrow_and_update().clone();
        self.request_snapshot(None).await?;
        let has_begun = |now: &SnapshotProgress| now.records > before.records || now.finished > before.finished;
        if !holds_within(ANSWER_TIMEOUT, &mut progress, has_begun).await {
            return Ok(false);
        }
        if holds_within(SNAPSHOT_TIMEOUT, &mut progress, |now| now.finished > before.finished).await {
            return Ok(true);
        }
        let seconds = SNAPSHOT_TIMEOUT.as_secs();
        Err(CampaignError::Unavailable(format!(
            "a worker that is ready appends its campaigns to the stream, but did not finish within {seconds} s. No decision was recorded. \
             Try again"
        )))
    }

    /// Appends a snapshot for a worker that asked, if this current worker has more changes. The task stops when its
    /// handle is dropped.
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
                tracing::warn!(log = campaigns.log, %error, "snapshot for another worker not appended");
            }
        };
        Ok(Some(AbortOnDropHandle::new(tokio::spawn(answer))))
    }
}

/// Random, from 0 to [`MAX_ANSWER_DELAY`].
fn answer_delay() -> Duration {
    let random = random::<1>().map_or(0, |[random]| random);
    MAX_ANSWER_DELAY * u32::from(random) / u32::from(u8::MAX)
}

/// Waits until `predicate` holds. Returns `false` after a timeout.
async fn holds_within(
    timeout: Duration,
    progress: &mut watch::Receiver<SnapshotProgress>,
    predicate: impl FnMut(&SnapshotProgress) -> bool,
) -> bool {
    tokio::time::timeout(timeout, progress.wait_for(predicate)).await.is_ok_and(|result| result.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaigns::snapshot_progress::tests::{finished, started};

    fn requested(accepted_loss: Option<u64>) -> Control {
        Control::SnapshotWanted { accepted_loss, at: Utc::now() }
    }

    #[test]
    fn a_request_is_open_until_a_snapshot_begins_or_an_operator_decides() {
        let request = SnapshotRequest::after(&requested(Some(7)), None);
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
    fn a_request_is_answered_by_a_worker_with_more_changes() {
        for (requester_loss, own_loss, is_answered) in [
            (None, None, true),
            (None, Some(9), true),
            (Some(7), None, true),
            (Some(7), Some(6), true),
            (Some(7), Some(7), false),
            (Some(7), Some(9), false),
        ] {
            let request = SnapshotRequest { accepted_loss: requester_loss };
            assert_eq!(request.is_answered_by(own_loss), is_answered, "{requester_loss:?}, {own_loss:?}");
        }
    }
}
