//! On a real sled, in a temporary folder.

use super::*;
use crate::broker::log::Position;
use crate::delivery::campaign::Campaign;
use crate::delivery::document::{self, HttpUrls};

fn campaign(id: &str, webhook: &str) -> Campaign {
    let document = format!(
        r#"{{"id":"{id}","sections":[{{"label":"l","webhook":{{"id":"{webhook}","url":"https://example.com/"}}}}]}}"#
    );
    document::read(document.as_bytes(), HttpUrls::Refused, None).expect("a document")
}

fn put(id: &str, webhook: &str, expected: Option<u64>) -> Change {
    Change { id: id.to_owned(), expected, made: None, campaign: Some(campaign(id, webhook)) }
}

fn at(offset: u64) -> Position {
    Position { offset, message_id: format!("m{offset}") }
}

fn versions(store: &Store) -> Vec<(String, u64)> {
    store.campaigns(None, 100, |stored| (stored.campaign.id, stored.version)).expect("campaigns")
}

#[test]
fn a_change_and_its_position_survive_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.position().expect("a position"), None);
    let applied = store.apply(&at(3), Some(&put("a", "wh_a", None))).expect("applied");
    assert_eq!(applied, Some(Applied::Done { version: 3 }));
    drop(store);
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.position().expect("a position"), Some(at(3)));
    assert_eq!(versions(&store), [("a".to_owned(), 3)]);
}

#[test]
fn a_reader_sees_each_change_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let version = |store: &Store| store.campaign("a").expect("a campaign").map(|stored| stored.version);
    assert_eq!(version(&store), None);
    store.apply(&at(1), Some(&put("a", "wh_a", None))).expect("applied");
    assert_eq!(version(&store), Some(1));
    store.apply(&at(2), Some(&put("a", "wh_b", Some(1)))).expect("applied");
    assert_eq!(version(&store), Some(2));
    let delete = Change { id: "a".to_owned(), expected: Some(2), made: None, campaign: None };
    store.apply(&at(3), Some(&delete)).expect("applied");
    assert_eq!(version(&store), None);
}

#[test]
fn a_change_on_an_old_version_has_no_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    store.apply(&at(1), Some(&put("a", "wh_a", None))).expect("applied");
    for expected in [None, Some(7)] {
        assert_eq!(store.apply(&at(2), Some(&put("a", "wh_b", expected))).expect("applied"), Some(Applied::Stale));
    }
    assert_eq!(versions(&store), [("a".to_owned(), 1)]);
    assert_eq!(store.position().expect("a position"), Some(at(2)));
}

#[test]
fn a_webhook_belongs_to_one_campaign() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    store.apply(&at(1), Some(&put("a", "wh_1", None))).expect("applied");
    let taken = Applied::WebhookTaken { webhook_id: "wh_1".to_owned(), owner: "a".to_owned() };
    assert_eq!(store.apply(&at(2), Some(&put("b", "wh_1", None))).expect("applied"), Some(taken));
    // Given up by its owner it is free.
    store.apply(&at(3), Some(&put("a", "wh_2", Some(1)))).expect("applied");
    let applied = store.apply(&at(4), Some(&put("b", "wh_1", None))).expect("applied");
    assert_eq!(applied, Some(Applied::Done { version: 4 }));
    assert_eq!(store.owner_of("wh_1").expect("an owner").as_deref(), Some("b"));
}

#[test]
fn a_second_process_is_told_so_and_the_folder_is_left_alone() {
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
    store.apply(&at(1), Some(&put("a", "wh_a", None))).expect("applied");
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
fn a_view_of_another_version_is_emptied_and_not_moved_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    store.apply(&at(1), Some(&put("a", "wh_a", None))).expect("applied");
    // As no version writes them.
    store.db.open_tree("letter-rows").expect("a tree").insert(b"x", b"?").expect("written");
    store.db.insert("format", b"0").expect("written");
    drop(store);
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!((store.position().expect("a position"), versions(&store)), (None, vec![]));
    assert_eq!(std::fs::read_dir(folder.path()).expect("names").count(), 1);
}

#[test]
fn campaigns_can_be_kept_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    assert_eq!(store.keep_campaigns().expect("nothing to keep"), None);
    store.apply(&at(1), Some(&put("a", "wh_a", None))).expect("applied");
    store.apply(&at(2), Some(&put("b", "wh_b", None))).expect("applied");
    let file = store.keep_campaigns().expect("kept").expect("a file");
    let kept = std::fs::read_to_string(file).expect("a text");
    let read = |line: &str| document::read(line.as_bytes(), HttpUrls::Refused, None).expect("a document");
    assert_eq!(kept.lines().map(read).collect::<Vec<_>>(), [campaign("a", "wh_a"), campaign("b", "wh_b")]);
}
