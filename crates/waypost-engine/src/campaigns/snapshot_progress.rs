//! Counts the records of snapshots in the campaigns stream. A task that waits for a snapshot watches the counts.

use waypost_store::record::{Control, RestoreKind};

/// Counts the snapshots that this worker has read from the stream.
#[derive(Debug, Clone, Default)]
pub(super) struct SnapshotProgress {
    /// The id of the latest snapshot that began.
    restore: String,
    /// Records of snapshots.
    pub(super) records: u64,
    /// Snapshots that ended.
    pub(super) finished: u64,
}

impl SnapshotProgress {
    /// Counts a record of the stream. Returns whether the record belongs to a snapshot.
    pub(super) fn record(&mut self, control: &Control) -> bool {
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

#[cfg(test)]
pub(super) mod tests {
    use chrono::Utc;

    use super::*;

    pub(in crate::campaigns) fn started(kind: RestoreKind) -> Control {
        let (restore, by, at) = ("r".to_owned(), "editor".to_owned(), Utc::now());
        Control::RestoreStarted { restore, kind, by, at, accepted_loss: None, is_answer: false }
    }

    pub(in crate::campaigns) fn finished(restore: &str) -> Control {
        Control::RestoreFinished { restore: restore.to_owned(), campaigns: 0, at: Utc::now() }
    }

    #[test]
    fn a_merge_is_not_counted_as_a_snapshot() {
        let mut progress = SnapshotProgress::default();
        assert!(!progress.record(&started(RestoreKind::Merge)) && !progress.record(&finished("r")));
        assert!(progress.record(&started(RestoreKind::Snapshot)) && progress.record(&finished("r")));
        assert!(!progress.record(&finished("other")));
        assert_eq!((progress.records, progress.finished), (1, 1));
    }
}
