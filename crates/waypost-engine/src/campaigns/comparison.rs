//! Compares the campaigns stream with a view whose position is not in it. Decides if the stream is the same one, and
//! what to do.

use waypost_core::stream_position::StreamPosition;
use waypost_store::record::{CampaignsRecord, Control, Decision, OpenRestores};

use super::hold::HoldReason;

/// The records read so far from a stream, compared with a view.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The view's position, at which the stream does not have the expected record.
    position: StreamPosition,
    /// The last record of the view that is not a marker.
    last_record: Option<StreamPosition>,
    /// The latest decision that the view contains.
    view_decision: Option<StreamPosition>,
    first_offset: Option<u64>,
    has_last_record: bool,
    /// Whether other workers append changes to the stream.
    is_in_use: bool,
    /// The latest decision in the stream.
    log_decision: Option<Decision>,
    restores: OpenRestores,
    /// Whether a worker has asked all workers to hold since the last decision.
    has_open_hold: bool,
}

/// How a record relates to the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// No relation found yet.
    Unknown,
    /// The record is at the view's position. The view continues with the next record.
    AtPosition,
    /// The record is the stream's first and directly follows the view's position. The view continues with this record.
    AfterPosition,
}

/// What to do after all of the stream has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ComparisonResult {
    /// The stream has lost markers only. The view continues after this record.
    Rewind(StreamPosition),
    /// An operator has decided. The view is replaced.
    Replace(Decision),
    /// An operator must decide.
    Hold(HoldReason, Announcement),
}

/// Whether this worker must tell other workers that the stream lacks campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announcement {
    /// The stream has no change. A worker with an empty store would take the stream for a first installation.
    Needed,
    /// Other workers know, or use the stream as it is.
    NotNeeded,
}

impl Comparison {
    pub(super) fn new(
        position: StreamPosition,
        last_record: Option<StreamPosition>,
        view_decision: Option<StreamPosition>,
    ) -> Self {
        Self {
            position,
            last_record,
            view_decision,
            first_offset: None,
            has_last_record: false,
            is_in_use: false,
            log_decision: None,
            restores: OpenRestores::default(),
            has_open_hold: false,
        }
    }

    /// Compares the next record of the stream. `None` is a record that can't be read.
    pub(super) fn compare(&mut self, at: &StreamPosition, record: Option<&CampaignsRecord>) -> Relation {
        let is_first = self.first_offset.is_none();
        self.first_offset.get_or_insert(at.offset);
        if *at == self.position {
            return Relation::AtPosition;
        }
        if is_first && self.position.offset.checked_add(1) == Some(at.offset) {
            return Relation::AfterPosition;
        }
        self.has_last_record |= self.last_record.as_ref() == Some(at);
        match record {
            // A change with an expected version may come from a worker whose campaigns are from another stream.
            Some(CampaignsRecord::Change(change)) => self.is_in_use |= change.expected_version.is_none(),
            Some(CampaignsRecord::Control(control)) => {
                self.has_open_hold |= matches!(**control, Control::Hold { .. });
                match self.restores.follow(at, control) {
                    // No operator has decided about the campaigns that only this view has.
                    Some(decision) if decision.is_answer() => self.is_in_use = true,
                    Some(decision) => {
                        self.has_open_hold = false;
                        self.log_decision = Some(decision);
                    }
                    None => {}
                }
            }
            Some(CampaignsRecord::Marker) | None => {}
        }
        Relation::Unknown
    }

    /// The stream's latest decision, if the view does not contain it.
    pub(super) fn new_decision(&self) -> Option<&Decision> {
        self.log_decision.as_ref().filter(|decision| {
            let view_decision = self.view_decision.as_ref().map(|position| &position.message_id);
            view_decision != Some(&decision.at.message_id)
        })
    }

    /// What to do, after all of the stream has been read.
    pub(super) fn result(&self) -> ComparisonResult {
        if let Some(last_record) = self.last_record.clone().filter(|_| self.has_last_record) {
            return ComparisonResult::Rewind(last_record);
        }
        if let Some(decision) = self.new_decision() {
            return ComparisonResult::Replace(decision.clone());
        }
        let (first, read_to) = (self.first_offset.unwrap_or(0), self.position.offset);
        if first > read_to {
            return ComparisonResult::Hold(HoldReason::StreamTrimmed { first, read_to }, Announcement::NotNeeded);
        }
        let is_known = self.is_in_use || self.has_open_hold;
        let announcement = if is_known { Announcement::NotNeeded } else { Announcement::Needed };
        ComparisonResult::Hold(HoldReason::StreamReplaced { first }, announcement)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use waypost_store::Change;
    use waypost_store::record::{DecisionKind, RestoreKind};

    use super::*;

    fn at(log: &str, offset: u64) -> StreamPosition {
        StreamPosition { offset, message_id: format!("{log}-{offset}") }
    }

    fn change() -> CampaignsRecord {
        CampaignsRecord::Change(Box::new(Change {
            id: "c".to_owned(),
            expected_version: None,
            author: None,
            campaign: None,
        }))
    }

    fn control(control: Control) -> CampaignsRecord {
        CampaignsRecord::Control(Box::new(control))
    }

    fn accept() -> CampaignsRecord {
        control(Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() })
    }

    fn hold() -> CampaignsRecord {
        control(Control::Hold { at: Utc::now(), campaigns: 3 })
    }

    fn started(kind: RestoreKind, is_answer: bool) -> CampaignsRecord {
        let (restore, by, at) = ("r".to_owned(), "editor".to_owned(), Utc::now());
        control(Control::RestoreStarted { restore, kind, by, at, accepted_loss: None, is_answer })
    }

    fn finished() -> CampaignsRecord {
        control(Control::RestoreFinished { restore: "r".to_owned(), campaigns: 0, at: Utc::now() })
    }

    /// A view that has read the stream `old` up to offset 9, with the last change at offset 7.
    fn comparison() -> Comparison {
        Comparison::new(at("old", 9), Some(at("old", 7)), None)
    }

    fn compare_all(mut comparison: Comparison, log: &str, first: u64, records: &[CampaignsRecord]) -> ComparisonResult {
        for (offset, record) in (first..).zip(records) {
            assert_eq!(comparison.compare(&at(log, offset), Some(record)), Relation::Unknown, "{offset}: {record:?}");
        }
        comparison.result()
    }

    #[test]
    fn a_new_log_is_announced_to_other_workers_once() {
        let held = |announcement| ComparisonResult::Hold(HoldReason::StreamReplaced { first: 0 }, announcement);
        assert_eq!(compare_all(comparison(), "new", 0, &[CampaignsRecord::Marker]), held(Announcement::Needed));
        assert_eq!(compare_all(comparison(), "new", 0, &[]), held(Announcement::Needed));
        assert_eq!(
            compare_all(comparison(), "new", 0, &[CampaignsRecord::Marker, hold()]),
            held(Announcement::NotNeeded)
        );
        // Another worker has begun to use the stream.
        assert_eq!(
            compare_all(comparison(), "new", 0, &[CampaignsRecord::Marker, change()]),
            held(Announcement::NotNeeded)
        );
    }

    #[test]
    fn a_log_that_lost_changes_in_between_is_incomplete() {
        let trimmed = HoldReason::StreamTrimmed { first: 12, read_to: 9 };
        let expected = ComparisonResult::Hold(trimmed, Announcement::NotNeeded);
        assert_eq!(compare_all(comparison(), "old", 12, &[change(), CampaignsRecord::Marker]), expected);
    }

    #[test]
    fn a_log_that_begins_right_after_the_position_has_lost_nothing() {
        assert_eq!(comparison().compare(&at("old", 10), Some(&change())), Relation::AfterPosition);
        // A later record is not the first one.
        let mut other = comparison();
        assert_eq!(other.compare(&at("new", 8), Some(&CampaignsRecord::Marker)), Relation::Unknown);
        assert_eq!(other.compare(&at("new", 10), Some(&CampaignsRecord::Marker)), Relation::Unknown);
    }

    #[test]
    fn a_position_that_is_read_late_is_recognised() {
        let mut comparison = comparison();
        assert_eq!(comparison.compare(&at("old", 8), Some(&CampaignsRecord::Marker)), Relation::Unknown);
        assert_eq!(comparison.compare(&at("old", 9), Some(&CampaignsRecord::Marker)), Relation::AtPosition);
    }

    #[test]
    fn a_log_that_lost_only_markers_continues() {
        let records = [change(), CampaignsRecord::Marker];
        assert_eq!(compare_all(comparison(), "old", 7, &records), ComparisonResult::Rewind(at("old", 7)));
        // The stream has lost the last change.
        let result = compare_all(comparison(), "old", 5, &[change(), change()]);
        assert_eq!(result, ComparisonResult::Hold(HoldReason::StreamReplaced { first: 5 }, Announcement::NotNeeded));
    }

    #[test]
    fn a_decision_replaces_a_view_that_does_not_contain_it() {
        let replaced = |offset, kind| ComparisonResult::Replace(Decision { at: at("new", offset), kind });
        let accepted = [CampaignsRecord::Marker, hold(), accept(), change()];
        assert_eq!(compare_all(comparison(), "new", 0, &accepted), replaced(2, DecisionKind::ReadLog));
        let (started, finished) = (started(RestoreKind::Merge, false), finished());
        let interrupted = [CampaignsRecord::Marker, hold(), started.clone()];
        let held = ComparisonResult::Hold(HoldReason::StreamReplaced { first: 0 }, Announcement::NotNeeded);
        assert_eq!(compare_all(comparison(), "new", 0, &interrupted), held);
        let restored = [CampaignsRecord::Marker, hold(), started, finished];
        assert_eq!(compare_all(comparison(), "new", 0, &restored), replaced(3, DecisionKind::ReadLog));
        // The view contains this decision. The records lost after it need a new one.
        let decided = Comparison::new(at("old", 9), Some(at("old", 7)), Some(at("new", 2)));
        assert_eq!(compare_all(decided, "new", 0, &accepted), held);
    }

    #[test]
    fn a_requested_snapshot_is_no_decision_about_campaigns_that_only_this_view_has() {
        let answered = |is_answer| [CampaignsRecord::Marker, started(RestoreKind::Snapshot, is_answer), finished()];
        assert!(matches!(compare_all(comparison(), "new", 0, &answered(false)), ComparisonResult::Replace(_)));
        let held = ComparisonResult::Hold(HoldReason::StreamReplaced { first: 0 }, Announcement::NotNeeded);
        assert_eq!(compare_all(comparison(), "new", 0, &answered(true)), held);
        // A later decision counts.
        let [marker, started, finished] = answered(true);
        let decided = compare_all(comparison(), "new", 0, &[marker, started, finished, accept()]);
        assert_eq!(decided, ComparisonResult::Replace(Decision { at: at("new", 3), kind: DecisionKind::ReadLog }));
    }
}
