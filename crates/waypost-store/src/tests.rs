//! Tests of the store with a real sled in a temporary folder.

use std::time::{Duration, Instant};

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

fn entry(offset: u64, record: Option<&CampaignsRecord>) -> CampaignsEntry {
    CampaignsEntry { position: at(offset), record: record.cloned() }
}

/// Applies one record.
fn apply_record(store: &Store, offset: u64, record: Option<&CampaignsRecord>, from: ReadFrom) -> RecordEffect {
    let effects = store.apply(&[entry(offset, record)], from).expect("applied");
    effects.into_iter().next().expect("an effect")
}

fn apply(store: &Store, position: &StreamPosition, change: Change) -> ChangeOutcome {
    let record = CampaignsRecord::Change(Box::new(change));
    match apply_record(store, position.offset, Some(&record), ReadFrom::Position) {
        RecordEffect::Changed(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn versions(store: &Store) -> Vec<(String, u64)> {
    store.campaigns(None, 100, |stored| (stored.campaign.id, stored.version)).expect("campaigns")
}

/// Opens a store that was dropped before. Background work of sled can hold the folder for a moment longer.
fn reopen(folder: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Store::open(folder) {
            Err(StoreError::InUse(_)) if Instant::now() < deadline => std::thread::yield_now(),
            result => return result.expect("a store"),
        }
    }
}

#[test]
fn a_change_and_its_position_are_stored_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.position().expect("a position"), None);
    let outcome = apply(&store, &at(3), put("a", "wh_a", None));
    assert_eq!(outcome, ChangeOutcome::Done { version: 3 });
    drop(store);
    let store = reopen(folder.path());
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
    assert_eq!(store.owner_of("wh_1").as_deref(), Some("b"));
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
    let store = reopen(folder.path());
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
    apply_record(store, offset, Some(&CampaignsRecord::Control(Box::new(control))), from)
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
    let effect = apply_record(&store, 40, Some(&record), ReadFrom::First);
    assert_eq!(effect, RecordEffect::Changed(ChangeOutcome::Done { version: 40 }));
    assert_eq!(apply(&store, &at(41), put("b", "wh_b", Some(40))), ChangeOutcome::Stale);
    assert_eq!(store.view_state().expect("a state").incomplete, Some(Incomplete::BeginsLater { first: 40 }));
    drop(store);
    let store = reopen(folder.path());
    assert!(!is_complete(&store), "a restart forgets that the view is incomplete");
    assert_eq!(apply_control(&store, 42, accept(), ReadFrom::First), RecordEffect::Completed);
    assert!(is_complete(&store));
    assert_eq!(versions(&store), [("a".to_owned(), 40)]);
}

#[test]
fn a_log_that_starts_at_offset_zero_is_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply_record(&store, 0, Some(&CampaignsRecord::Marker), ReadFrom::First);
    apply_record(&store, 1, None, ReadFrom::First);
    assert!(is_complete(&store));
}

#[test]
fn a_decision_makes_a_complete_view_read_the_log_again_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply_record(&store, 0, Some(&CampaignsRecord::Marker), ReadFrom::First);
    apply(&store, &at(10), put("a", "wh_a", None));
    assert_eq!(apply_control(&store, 11, accept(), ReadFrom::Position), RecordEffect::ReadAgain);
    let state = store.view_state().expect("a state");
    assert_eq!(state.contents, Contents::Outdated(None));
    store.clear_outdated(state.decision, None).expect("removed");
    assert_eq!((store.position().expect("a position"), versions(&store)), (None, vec![]));
    // The stream is read again. The connection is lost before the decision.
    apply_record(&store, 10, Some(&CampaignsRecord::Marker), ReadFrom::First);
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
    assert_eq!(store.owner_of("wh_b").as_deref(), Some("b"));
}

#[test]
fn an_incomplete_view_loads_a_snapshot_and_a_complete_view_ignores_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let complete = Store::open(&folder.path().join("complete")).expect("a store");
    let incomplete = Store::open(&folder.path().join("incomplete")).expect("a store");
    apply_record(&complete, 0, Some(&CampaignsRecord::Marker), ReadFrom::First);
    apply(&complete, &at(7), put("a", "wh_a", None));
    apply_record(&incomplete, 40, Some(&CampaignsRecord::Marker), ReadFrom::First);
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
            effect = apply_record(store, *offset, Some(record), from);
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
    assert_eq!(incomplete.owner_of("wh_b").as_deref(), Some("a"));
}

/// Applies the records in batches of `size`, as far as they are applied.
fn apply_in_batches(store: &Store, records: &[CampaignsEntry], size: usize) -> Vec<RecordEffect> {
    let mut effects = Vec::new();
    while effects.len() < records.len() {
        let rest = &records[effects.len()..];
        let applied = store.apply(&rest[..size.min(rest.len())], ReadFrom::First).expect("applied");
        assert!(!applied.is_empty(), "no progress");
        effects.extend(applied);
    }
    effects
}

#[test]
fn batches_have_the_effects_of_single_records() {
    let change = |change: Change| Some(CampaignsRecord::Change(Box::new(change)));
    let delete =
        |id: &str, expected| Change { id: id.to_owned(), expected_version: expected, author: None, campaign: None };
    let control = |control: Control| Some(CampaignsRecord::Control(Box::new(control)));
    let records: Vec<CampaignsEntry> = [
        Some(CampaignsRecord::Marker),
        change(put("a", "wh_1", None)),
        change(put("a", "wh_1", Some(1))),
        // Stale, and a webhook of another campaign.
        change(put("a", "wh_1", Some(1))),
        change(put("b", "wh_1", None)),
        // The webhook moves from a to b.
        change(put("a", "wh_2", Some(2))),
        change(put("b", "wh_1", None)),
        None,
        change(delete("a", Some(5))),
        change(put("c", "wh_2", None)),
        change(put("a", "wh_3", None)),
        change(delete("c", Some(9))),
        control(Control::Hold { at: chrono::Utc::now(), campaigns: 3 }),
        control(started(RestoreKind::Merge)),
        control(restored("d", "wh_4", 90)),
        control(restored("d", "wh_5", 91)),
        control(restored("e", "wh_1", 92)),
        control(restored("c", "wh_2", 93)),
        control(finished()),
        change(put("b", "wh_6", Some(6))),
    ]
    .into_iter()
    .enumerate()
    .map(|(offset, record)| CampaignsEntry { position: at(offset as u64), record })
    .collect();
    let read = |size: usize| {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        let effects = apply_in_batches(&store, &records, size);
        let view = |store: &Store| {
            let owners: Vec<Option<String>> = (1..8).map(|number| store.owner_of(&format!("wh_{number}"))).collect();
            let state = store.view_state().expect("a state");
            (versions(store), store.campaign_ids(100), owners, store.position().expect("a position"), state)
        };
        let before = view(&store);
        drop(store);
        let store = reopen(folder.path());
        assert_eq!(view(&store), before, "after a restart, batches of {size}");
        (effects, before)
    };
    let expected = read(1);
    assert_eq!(expected.1.0.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    for size in [2, 3, 7, 100] {
        assert_eq!(read(size), expected, "batches of {size}");
    }
}

#[test]
fn a_change_replaces_only_its_own_parsed_campaign() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(1), put("a", "wh_a", None));
    apply(&store, &at(2), put("b", "wh_b", None));
    let parsed = |id: &str| store.campaign(id).expect("a campaign").expect("stored");
    let (a, b) = (parsed("a"), parsed("b"));
    apply(&store, &at(3), put("b", "wh_b", Some(2)));
    assert!(Arc::ptr_eq(&parsed("a"), &a), "a campaign that was not changed is parsed again");
    assert!(!Arc::ptr_eq(&parsed("b"), &b));
    // A decision replaces all.
    store.clear_outdated(None, None).expect("removed");
    assert!(store.campaign("a").expect("no campaign").is_none());
}

#[test]
fn readers_never_keep_a_campaign_that_was_replaced_while_they_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(1), put("a", "wh_a", None));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    store.campaign("a").expect("a campaign");
                }
            });
        }
        for offset in 2..500 {
            apply(&store, &at(offset), put("a", "wh_a", Some(offset - 1)));
            let read = store.campaign("a").expect("a campaign").expect("stored").version;
            assert_eq!(read, offset);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn campaigns_are_found_by_id_and_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    for (offset, id) in ["a", "b", "c"].into_iter().enumerate() {
        let mut change = put(id, &format!("wh_{id}"), None);
        if let Some(campaign) = &mut change.campaign {
            campaign.name = Some(format!("Name {}", offset % 2));
        }
        apply(&store, &at(offset as u64), change);
    }
    let search = |text: &str, after, limit| {
        store.search_campaigns(text, after, limit, |stored| stored.campaign.id).expect("campaigns")
    };
    assert_eq!(search("name 0", None, 10), ["a", "c"]);
    assert_eq!(search("NAME", Some("a"), 1), ["b"]);
    assert_eq!(store.count_campaigns(), 3);
    // A new name.
    apply(&store, &at(9), put("c", "wh_c", Some(2)));
    assert_eq!(search("name", None, 10), ["a", "b"]);
    assert!(store.has_campaign("c") && !store.has_campaign("name 1"));
}

#[test]
fn a_store_of_the_previous_version_keeps_its_campaigns() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    for (offset, id) in [(1, "a"), (2, "b"), (3, "c")] {
        apply(&store, &at(offset), put(id, &format!("wh_{id}"), None));
    }
    let before = (versions(&store), store.position().expect("a position"));
    // The layout of the previous version, and rows that an interrupted upgrade has left.
    let old = store.db.open_tree("campaigns").expect("a tree");
    for id in ["a", "b", "c"] {
        let stored = store.stored_campaign_after(None).expect("a campaign");
        let stored = stored.into_iter().chain(store.stored_campaign_after(Some("a")).expect("a campaign"));
        let stored = stored.chain(store.stored_campaign_after(Some("b")).expect("a campaign"));
        for stored in stored.filter(|stored| stored.campaign.id == id) {
            old.insert(id, serde_json::to_vec(&stored).expect("JSON")).expect("written");
        }
    }
    store.db.open_tree("webhooks").expect("a tree").insert("wh_a", "a").expect("written");
    let row = store.campaigns.get("a").expect("read").expect("a row");
    store.campaigns.insert("deleted", row).expect("written");
    store.db.insert("format", PREVIOUS_FORMAT_VERSION).expect("written");
    drop((old, store));
    for _ in 0..2 {
        let store = reopen(folder.path());
        assert_eq!((versions(&store), store.position().expect("a position")), before);
        assert_eq!(store.owner_of("wh_c").as_deref(), Some("c"));
        let trees = store.db.tree_names();
        assert!(!trees.iter().any(|tree| **tree == *b"campaigns" || **tree == *b"webhooks"), "old trees remain");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("names").count(), 1);
}

#[test]
fn a_damaged_row_that_is_read_later_is_replaced_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    apply(&store, &at(1), put("a", "wh_a", None));
    store.campaigns.insert("a", b"????????").expect("written");
    drop(store);
    let store = Store::open(folder.path()).expect("not all rows are read");
    assert!(matches!(store.campaign("a"), Err(StoreError::Damaged(_))));
    drop(store);
    let store = Store::open(folder.path()).expect("a new store");
    assert_eq!((store.count_campaigns(), store.position().expect("a position")), (0, None));
    assert_eq!(std::fs::read_dir(folder.path()).expect("names").count(), 2);
}

#[test]
fn a_missing_key_is_found_without_reading_the_campaigns() {
    use base64::Engine as _;
    let key = |byte: u8| base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    let keyring = |keys: &str| Keyring::parse(keys).expect("keys");
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let document = br#"{"id":"a","sections":[{"label":"l","webhook":{"id":"wh_a","url":"https://example.com/","headers":{"X":"y"}}}]}"#;
    let plain = document::read(document, HttpUrls::Refused, None).expect("a document");
    let encrypted = keyring(&key(1)).encrypt(&plain, [7; waypost_core::secret_encryption::SALT_BYTES]);
    let change = |campaign, expected_version| Change { id: "a".to_owned(), expected_version, author: None, campaign };
    apply(&store, &at(1), change(Some(encrypted), None));
    drop(store);
    let open = |keys: &str| Store::open(folder.path()).expect("a store").with_keyring(keyring(keys));
    assert!(open(&key(1)).is_ok() && open(&format!("{},{}", key(2), key(1))).is_ok());
    for keys in [key(2), String::new()] {
        assert!(matches!(open(&keys), Err(StoreError::Undecryptable { .. })));
    }
    assert!(open(&format!("{},lost", key(2))).is_ok(), "the webhook is disabled instead");
    // The secret was replaced.
    let store = open(&key(1)).expect("a store");
    apply(&store, &at(2), change(Some(plain), Some(1)));
    drop(store);
    assert!(open("").is_ok());
}
