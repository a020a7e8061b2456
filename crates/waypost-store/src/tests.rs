//! Tests of the store with a real sled in a temporary folder.

use waypost_core::campaign::Campaign;
use waypost_core::document;
use waypost_core::egress::HttpUrls;
use waypost_core::stream_position::StreamPosition;

use super::*;
use crate::record::{CampaignsRecord, Control, RestoreKind};
use crate::state::{Contents, Incomplete, ReadFrom, RecordEffect};

fn campaign(id: &str, webhook: &str) -> Campaign {
    let document = format!(
        r#"{{"id":"{id}","sections":[{{"label":"l","webhook":{{"id":"{webhook}","url":"https://example.com/"}}}}]}}"#
    );
    document::read(document.as_bytes(), HttpUrls::Refused, None).expect("a document")
}

fn put(id: &str, webhook: &str, expected_version: Option<u64>) -> Change {
    Change { id: id.to_owned(), expected_version, author: None, campaign: Some(campaign(id, webhook)) }
}

fn at(offset: u64) -> StreamPosition {
    StreamPosition { offset, message_id: format!("m{offset}") }
}

fn apply(store: &Store, position: &StreamPosition, change: Change) -> ChangeOutcome {
    let record = CampaignsRecord::Change(Box::new(change));
    match store.apply(position, Some(&record), ReadFrom::Position).expect("applied") {
        RecordEffect::Changed(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn versions(store: &Store) -> Vec<(String, u64)> {
    store.campaigns(None, 100, |stored| (stored.campaign.id, stored.version)).expect("campaigns")
}

#[test]
fn a_change_and_its_position_are_stored_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.position().expect("a position"), None);
    let outcome = apply(&store, &at(3), put("a", "wh_a", None));
    assert_eq!(outcome, ChangeOutcome::Done { version: 3 });
    drop(store);
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.position().expect("a position"), Some(at(3)));
    assert_eq!(versions(&store), [("a".to_owned(), 3)]);
}

#[test]
fn a_reader_sees_each_change_immediately() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let version = |store: &Store| store.campaign("a").expect("a campaign").map(|stored| stored.version);
    assert_eq!(version(&store), None);
    apply(&store, &at(1), put("a", "wh_a", None));
    assert_eq!(version(&store), Some(1));
    apply(&store, &at(2), put("a", "wh_b", Some(1)));
    assert_eq!(version(&store), Some(2));
    let delete = Change { id: "a".to_owned(), expected_version: Some(2), author: None, campaign: None };
    apply(&store, &at(3), delete);
    assert_eq!(version(&store), None);
}

#[test]
fn a_change_of_an_old_version_has_no_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(1), put("a", "wh_a", None));
    for expected in [None, Some(7)] {
        assert_eq!(apply(&store, &at(2), put("a", "wh_b", expected)), ChangeOutcome::Stale);
    }
    assert_eq!(versions(&store), [("a".to_owned(), 1)]);
    assert_eq!(store.position().expect("a position"), Some(at(2)));
}

#[test]
fn a_webhook_belongs_to_one_campaign() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(1), put("a", "wh_1", None));
    let taken = ChangeOutcome::WebhookTaken { webhook_id: "wh_1".to_owned(), owner: "a".to_owned() };
    assert_eq!(apply(&store, &at(2), put("b", "wh_1", None)), taken);
    // The id is free once its owner no longer has it.
    apply(&store, &at(3), put("a", "wh_2", Some(1)));
    let outcome = apply(&store, &at(4), put("b", "wh_1", None));
    assert_eq!(outcome, ChangeOutcome::Done { version: 4 });
    assert_eq!(store.owner_of("wh_1").expect("an owner").as_deref(), Some("b"));
}

#[test]
fn a_folder_in_use_is_refused_and_not_moved_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    assert!(matches!(Store::open(folder.path()), Err(StoreError::InUse(_))));
    drop(store);
    assert!(Store::open(folder.path()).is_ok());
}

#[test]
fn a_damaged_folder_is_moved_aside() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("data");
    let store = Store::open(&folder).expect("a store");
    apply(&store, &at(1), put("a", "wh_a", None));
    drop(store);
    for file in ["conf", "db"] {
        std::fs::write(folder.join("view").join(file), b"this is not sled").expect("damage");
    }
    let store = Store::open(&folder).expect("a new store");
    assert_eq!(versions(&store), []);
    assert_eq!(store.position().expect("a position"), None);
    let names = std::fs::read_dir(&folder).expect("names").filter_map(Result::ok);
    assert!(names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("view.damaged-")));
}

#[test]
fn a_store_of_another_format_version_is_emptied_and_not_moved_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(1), put("a", "wh_a", None));
    // Contents that no version writes.
    store.db.open_tree("letter-rows").expect("a tree").insert(b"x", b"?").expect("written");
    store.db.insert("format", b"0").expect("written");
    drop(store);
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!((store.position().expect("a position"), versions(&store)), (None, vec![]));
    assert_eq!(std::fs::read_dir(folder.path()).expect("names").count(), 1);
}

#[test]
fn campaigns_can_be_backed_up_to_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.backup_campaigns().expect("nothing to back up"), None);
    apply(&store, &at(1), put("a", "wh_a", None));
    apply(&store, &at(2), put("b", "wh_b", None));
    let file = store.backup_campaigns().expect("a backup").expect("a file");
    let backup = std::fs::read_to_string(file).expect("a text");
    let read = |line: &str| document::read(line.as_bytes(), HttpUrls::Refused, None).expect("a document");
    assert_eq!(backup.lines().map(read).collect::<Vec<_>>(), [campaign("a", "wh_a"), campaign("b", "wh_b")]);
}

fn apply_control(store: &Store, offset: u64, control: Control, from: ReadFrom) -> RecordEffect {
    store.apply(&at(offset), Some(&CampaignsRecord::Control(Box::new(control))), from).expect("applied")
}

fn started(kind: RestoreKind) -> Control {
    let (restore, by, at) = ("r".to_owned(), "editor".to_owned(), chrono::Utc::now());
    Control::RestoreStarted { restore, kind, by, at, accepted_loss: None, is_answer: false }
}

fn restored(id: &str, webhook: &str, version: u64) -> Control {
    let stored = StoredCampaign { version, author: None, past_changes: Vec::new(), campaign: campaign(id, webhook) };
    Control::RestoredCampaign { restore: "r".to_owned(), stored: Box::new(stored) }
}

fn finished() -> Control {
    Control::RestoreFinished { restore: "r".to_owned(), campaigns: 1, at: chrono::Utc::now() }
}

fn accept() -> Control {
    Control::AcceptEmpty { by: "editor".to_owned(), at: chrono::Utc::now() }
}

fn is_complete(store: &Store) -> bool {
    store.view_state().expect("a state").is_complete()
}

#[test]
fn a_log_without_its_beginning_is_incomplete_until_a_decision() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let record = CampaignsRecord::Change(Box::new(put("a", "wh_a", Some(7))));
    // The expected version is lost. A worker that had it has applied the change.
    let effect = store.apply(&at(40), Some(&record), ReadFrom::First).expect("applied");
    assert_eq!(effect, RecordEffect::Changed(ChangeOutcome::Done { version: 40 }));
    assert_eq!(apply(&store, &at(41), put("b", "wh_b", Some(40))), ChangeOutcome::Stale);
    assert_eq!(store.view_state().expect("a state").incomplete, Some(Incomplete::BeginsLater { first: 40 }));
    drop(store);
    let store = Store::open(folder.path()).expect("a store");
    assert!(!is_complete(&store), "a restart forgets that the view is incomplete");
    assert_eq!(apply_control(&store, 42, accept(), ReadFrom::First), RecordEffect::Completed);
    assert!(is_complete(&store));
    assert_eq!(versions(&store), [("a".to_owned(), 40)]);
}

#[test]
fn a_log_that_starts_at_offset_zero_is_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    store.apply(&at(0), Some(&CampaignsRecord::Marker), ReadFrom::First).expect("applied");
    store.apply(&at(1), None, ReadFrom::First).expect("skipped");
    assert!(is_complete(&store));
}

#[test]
fn a_decision_makes_a_complete_view_read_the_log_again_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    store.apply(&at(0), Some(&CampaignsRecord::Marker), ReadFrom::First).expect("applied");
    apply(&store, &at(10), put("a", "wh_a", None));
    assert_eq!(apply_control(&store, 11, accept(), ReadFrom::Position), RecordEffect::ReadAgain);
    let state = store.view_state().expect("a state");
    assert_eq!(state.contents, Contents::Outdated(None));
    store.clear_outdated(state.decision, None).expect("removed");
    assert_eq!((store.position().expect("a position"), versions(&store)), (None, vec![]));
    // The stream is read again. The connection is lost before the decision.
    store.apply(&at(10), Some(&CampaignsRecord::Marker), ReadFrom::First).expect("applied");
    assert!(!is_complete(&store));
    assert_eq!(apply_control(&store, 11, accept(), ReadFrom::Position), RecordEffect::Completed);
    assert!(is_complete(&store));
}

#[test]
fn a_merge_adds_campaigns_that_the_log_does_not_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(0), put("a", "wh_a", None));
    let hold = Control::Hold { at: chrono::Utc::now(), campaigns: 3 };
    assert_eq!(apply_control(&store, 1, hold, ReadFrom::First), RecordEffect::Held);
    // A restore whose first record is not in the stream.
    assert_eq!(apply_control(&store, 2, restored("z", "wh_z", 90), ReadFrom::First), RecordEffect::None);
    apply_control(&store, 3, started(RestoreKind::Merge), ReadFrom::First);
    for (offset, restored, version) in [
        (4, restored("b", "wh_b", 91), Some(4)),
        (5, restored("a", "wh_other", 92), None),
        (6, restored("c", "wh_a", 93), None),
    ] {
        let RecordEffect::Restored { outcome, .. } = apply_control(&store, offset, restored, ReadFrom::First) else {
            panic!("offset {offset}")
        };
        assert_eq!(matches!(outcome, ChangeOutcome::Done { .. }), version.is_some(), "{outcome:?}");
    }
    assert!(!is_complete(&store));
    assert_eq!(apply_control(&store, 7, finished(), ReadFrom::First), RecordEffect::Completed);
    assert_eq!(versions(&store), [("a".to_owned(), 0), ("b".to_owned(), 4)]);
    assert_eq!(store.owner_of("wh_b").expect("an owner").as_deref(), Some("b"));
}

#[test]
fn an_incomplete_view_loads_a_snapshot_and_a_complete_view_ignores_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let complete = Store::open(&folder.path().join("complete")).expect("a store");
    let incomplete = Store::open(&folder.path().join("incomplete")).expect("a store");
    complete.apply(&at(0), Some(&CampaignsRecord::Marker), ReadFrom::First).expect("applied");
    apply(&complete, &at(7), put("a", "wh_a", None));
    incomplete.apply(&at(40), Some(&CampaignsRecord::Marker), ReadFrom::First).expect("applied");
    let in_between = put("a", "wh_b", Some(7));
    let log: [(u64, CampaignsRecord); 4] = [
        (41, CampaignsRecord::Control(Box::new(started(RestoreKind::Snapshot)))),
        (42, CampaignsRecord::Control(Box::new(restored("a", "wh_a", 7)))),
        (43, CampaignsRecord::Change(Box::new(in_between))),
        (44, CampaignsRecord::Control(Box::new(finished()))),
    ];
    let read = |store: &Store, from: ReadFrom| -> RecordEffect {
        let position = store.position().expect("a position").map_or(0, |position| position.offset);
        let mut effect = RecordEffect::None;
        for (offset, record) in log.iter().filter(|(offset, _)| *offset > position) {
            effect = store.apply(&at(*offset), Some(record), from).expect("applied");
        }
        effect
    };
    assert_eq!(read(&complete, ReadFrom::Position), RecordEffect::None);
    assert_eq!(read(&incomplete, ReadFrom::First), RecordEffect::ReadAgain);
    let state = incomplete.view_state().expect("a state");
    let Contents::Outdated(snapshot) = state.contents else { panic!("{state:?}") };
    incomplete.clear_outdated(state.decision, snapshot).expect("removed");
    assert_eq!(read(&incomplete, ReadFrom::Position), RecordEffect::ReadAgain, "the end of the snapshot");
    assert_eq!(incomplete.position().expect("a position"), Some(at(41)));
    read(&incomplete, ReadFrom::Position);
    assert!(is_complete(&complete) && is_complete(&incomplete));
    assert_eq!(versions(&complete), [("a".to_owned(), 43)]);
    assert_eq!(versions(&incomplete), versions(&complete));
    assert_eq!(incomplete.owner_of("wh_b").expect("an owner").as_deref(), Some("a"));
}
