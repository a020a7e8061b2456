//! Compares the campaigns log with a view that does not continue in it: is it the same log, and what is to be done?

use super::hold::HoldReason;
use crate::broker::stream_reader::StreamPosition;
use crate::store::record::{Control, Decision, LogRecord, OpenRestores};

/// What has been read of a log so far, compared with a view.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The view's position, which was not found where it should be.
    position: StreamPosition,
    /// After this record the view has applied markers only.
    last_record: Option<StreamPosition>,
    /// The latest decision that the view contains.
    known: Option<StreamPosition>,
    first: Option<u64>,
    found_last_record: bool,
    /// Whether other workers work with the log.
    in_use: bool,
    decision: Option<Decision>,
    restores: OpenRestores,
    /// Whether a worker has asked all to hold, since the last decision.
    held: bool,
}

/// How a record relates to the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// Not at all, as far as is known.
    Unknown,
    /// It is the record at the view's position. The view continues with the next one.
    AtPosition,
    /// It is the log's first record, and comes right after the view's position. The view continues with it.
    AfterPosition,
}

/// What is to be done when all of the log has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ComparisonResult {
    /// Only markers are lost: the view continues after this record.
    Rewind(StreamPosition),
    /// An operator has decided: the view is replaced.
    Replace(Decision),
    /// An operator must decide.
    Hold(HoldReason, Announcement),
}

/// Whether other workers must be told that the log lacks campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announcement {
    /// The log has no change. A worker with an empty store takes it for a first installation.
    Needed,
    /// Others know, or work with what the log has.
    NotNeeded,
}

impl Comparison {
    pub(super) fn new(
        position: StreamPosition,
        last_record: Option<StreamPosition>,
        known: Option<StreamPosition>,
    ) -> Self {
        let (first, decision, restores) = Default::default();
        let (found_last_record, in_use, held) = (false, false, false);
        Self { position, last_record, known, first, found_last_record, in_use, decision, restores, held }
    }

    /// Takes in the next record; `None` is one that can't be read.
    pub(super) fn read(&mut self, at: &StreamPosition, record: Option<&LogRecord>) -> Relation {
        let is_first = self.first.is_none();
        self.first.get_or_insert(at.offset);
        if *at == self.position {
            return Relation::AtPosition;
        }
        if is_first && self.position.offset.checked_add(1) == Some(at.offset) {
            return Relation::AfterPosition;
        }
        self.found_last_record |= self.last_record.as_ref() == Some(at);
        match record {
            // A change of a campaign that a worker has from another log shows no use.
            Some(LogRecord::Change(change)) => self.in_use |= change.expected.is_none(),
            Some(LogRecord::Control(control)) => {
                self.held |= matches!(**control, Control::Hold { .. });
                match self.restores.follow(at, control) {
                    // No operator has decided about what only this view has.
                    Some(decision) if decision.is_answer() => self.in_use = true,
                    Some(decision) => {
                        self.held = false;
                        self.decision = Some(decision);
                    }
                    None => {}
                }
            }
            Some(LogRecord::Marker) | None => {}
        }
        Relation::Unknown
    }

    /// A decision that the view does not contain.
    pub(super) fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref().filter(|decision| {
            let known = self.known.as_ref().map(|known| &known.message_id);
            known != Some(&decision.at.message_id)
        })
    }

    /// What is to be done now that all of the log has been read.
    pub(super) fn verdict(&self) -> ComparisonResult {
        if let Some(last_record) = self.last_record.clone().filter(|_| self.found_last_record) {
            return ComparisonResult::Rewind(last_record);
        }
        if let Some(decision) = self.decision() {
            return ComparisonResult::Replace(decision.clone());
        }
        let (first, read_to) = (self.first.unwrap_or(0), self.position.offset);
        if first > read_to {
            return ComparisonResult::Hold(HoldReason::LogTrimmed { first, read_to }, Announcement::NotNeeded);
        }
        let announcement = if self.in_use || self.held { Announcement::NotNeeded } else { Announcement::Needed };
        ComparisonResult::Hold(HoldReason::LogReplaced { first }, announcement)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::store::Change;
    use crate::store::record::{DecisionKind, RestoreKind};

    fn at(log: &str, offset: u64) -> StreamPosition {
        StreamPosition { offset, message_id: format!("{log}-{offset}") }
    }

    fn change() -> LogRecord {
        LogRecord::Change(Box::new(Change { id: "c".to_owned(), expected: None, made: None, campaign: None }))
    }

    fn control(control: Control) -> LogRecord {
        LogRecord::Control(Box::new(control))
    }

    fn accept() -> LogRecord {
        control(Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() })
    }

    fn hold() -> LogRecord {
        control(Control::Hold { at: Utc::now(), campaigns: 3 })
    }

    fn started(kind: RestoreKind, is_answer: bool) -> LogRecord {
        let (restore, by, at) = ("r".to_owned(), "editor".to_owned(), Utc::now());
        control(Control::RestoreStarted { restore, kind, by, at, accepted_loss: None, is_answer })
    }

    fn finished() -> LogRecord {
        control(Control::RestoreFinished { restore: "r".to_owned(), campaigns: 0, at: Utc::now() })
    }

    /// A view that has read the log `old` up to offset 9, the last change at offset 7.
    fn view() -> Comparison {
        Comparison::new(at("old", 9), Some(at("old", 7)), None)
    }

    fn after(mut view: Comparison, log: &str, first: u64, records: &[LogRecord]) -> ComparisonResult {
        for (offset, record) in (first..).zip(records) {
            assert_eq!(view.read(&at(log, offset), Some(record)), Relation::Unknown, "{offset}: {record:?}");
        }
        view.verdict()
    }

    #[test]
    fn a_log_that_is_new_is_told_to_others_once() {
        let held = |announcement| ComparisonResult::Hold(HoldReason::LogReplaced { first: 0 }, announcement);
        assert_eq!(after(view(), "new", 0, &[LogRecord::Marker]), held(Announcement::Needed));
        assert_eq!(after(view(), "new", 0, &[]), held(Announcement::Needed));
        assert_eq!(after(view(), "new", 0, &[LogRecord::Marker, hold()]), held(Announcement::NotNeeded));
        // Others have begun to use it.
        assert_eq!(after(view(), "new", 0, &[LogRecord::Marker, change()]), held(Announcement::NotNeeded));
    }

    #[test]
    fn a_log_that_lost_changes_in_between_is_incomplete() {
        let trimmed = HoldReason::LogTrimmed { first: 12, read_to: 9 };
        let expected = ComparisonResult::Hold(trimmed, Announcement::NotNeeded);
        assert_eq!(after(view(), "old", 12, &[change(), LogRecord::Marker]), expected);
    }

    #[test]
    fn a_log_that_begins_right_after_the_position_has_lost_nothing() {
        assert_eq!(view().read(&at("old", 10), Some(&change())), Relation::AfterPosition);
        // Later records are not the first one.
        let mut other = view();
        assert_eq!(other.read(&at("new", 8), Some(&LogRecord::Marker)), Relation::Unknown);
        assert_eq!(other.read(&at("new", 10), Some(&LogRecord::Marker)), Relation::Unknown);
    }

    #[test]
    fn a_position_that_came_late_is_found_all_the_same() {
        let mut view = view();
        assert_eq!(view.read(&at("old", 8), Some(&LogRecord::Marker)), Relation::Unknown);
        assert_eq!(view.read(&at("old", 9), Some(&LogRecord::Marker)), Relation::AtPosition);
    }

    #[test]
    fn a_log_that_lost_markers_only_is_read_on() {
        let records = [change(), LogRecord::Marker];
        assert_eq!(after(view(), "old", 7, &records), ComparisonResult::Rewind(at("old", 7)));
        // It has lost the last change.
        let kept = after(view(), "old", 5, &[change(), change()]);
        assert_eq!(kept, ComparisonResult::Hold(HoldReason::LogReplaced { first: 5 }, Announcement::NotNeeded));
    }

    #[test]
    fn a_decision_replaces_a_view_that_does_not_contain_it() {
        let replaced = |offset, kind| ComparisonResult::Replace(Decision { at: at("new", offset), kind });
        let accepted = [LogRecord::Marker, hold(), accept(), change()];
        assert_eq!(after(view(), "new", 0, &accepted), replaced(2, DecisionKind::ReadLog));
        let (started, finished) = (started(RestoreKind::Merge, false), finished());
        let interrupted = [LogRecord::Marker, hold(), started.clone()];
        let held = ComparisonResult::Hold(HoldReason::LogReplaced { first: 0 }, Announcement::NotNeeded);
        assert_eq!(after(view(), "new", 0, &interrupted), held);
        let restored = [LogRecord::Marker, hold(), started, finished];
        assert_eq!(after(view(), "new", 0, &restored), replaced(3, DecisionKind::ReadLog));
        // A decision that the view has followed already says nothing about what was lost since.
        let known = Comparison::new(at("old", 9), Some(at("old", 7)), Some(at("new", 2)));
        assert_eq!(after(known, "new", 0, &accepted), held);
    }

    #[test]
    fn a_snapshot_that_a_worker_was_asked_for_decides_nothing_about_what_only_this_view_has() {
        let answered = |is_answer| [LogRecord::Marker, started(RestoreKind::Snapshot, is_answer), finished()];
        assert!(matches!(after(view(), "new", 0, &answered(false)), ComparisonResult::Replace(_)));
        let held = ComparisonResult::Hold(HoldReason::LogReplaced { first: 0 }, Announcement::NotNeeded);
        assert_eq!(after(view(), "new", 0, &answered(true)), held);
        // A later decision counts.
        let [marker, started, finished] = answered(true);
        let decided = after(view(), "new", 0, &[marker, started, finished, accept()]);
        assert_eq!(decided, ComparisonResult::Replace(Decision { at: at("new", 3), kind: DecisionKind::ReadLog }));
    }
}
