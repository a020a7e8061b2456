//! Tests of the view with a real sled in a temporary folder. [`model`] compares the view with a naive implementation,
//! [`archive`] checks the files.

mod archive;
mod model;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::json;
use waypost_core::campaign::MASK;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::history::OperatorAction;
use waypost_core::dead_letter::{BODY_BYTES_KEPT, DeadLetter};
use waypost_core::dead_letter_record::{DeadLetterRecord, Discard, Erase, LetterResult, ReplayBatch, ReplayControl};
use waypost_core::event;
use waypost_core::ids::{DeliveryId, EventId, WebhookId};
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::ReplayOutcome;
use waypost_core::replay::{ClaimState, Replay, ReplayCommand, ReplayConfig};

use super::search::LetterPage;
use super::*;
use crate::Store;

/// The time of the record at offset 0, in milliseconds since 1970. There is one record a second.
const START_MILLIS: i64 = 1_700_000_000_000;

/// A view in a temporary folder, and the stream that it is built from.
struct TestStream {
    folder: tempfile::TempDir,
    store: Store,
    retention: Duration,
    /// The offset of the next record.
    next: u64,
}

impl TestStream {
    fn new() -> Self {
        Self::with_retention(Duration::MAX)
    }

    fn with_retention(retention: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        Self::open(folder, store, retention, 0)
    }

    fn open(folder: tempfile::TempDir, mut store: Store, retention: Duration, next: u64) -> Self {
        store.letters = store.letters.with_retention(retention);
        Self { folder, store, retention, next }
    }

    /// Closes the store and opens it again.
    fn reopen(self) -> Self {
        let Self { folder, store, retention, next } = self;
        drop(store);
        // sled unlocks the folder a moment after the drop.
        let deadline = Instant::now() + Duration::from_secs(10);
        let store = loop {
            match Store::open(folder.path()) {
                Err(StoreError::InUse(_)) if Instant::now() < deadline => std::thread::yield_now(),
                result => break result.expect("a store"),
            }
        };
        Self::open(folder, store, retention, next)
    }

    fn view(&self) -> &LetterView {
        &self.store.letters
    }

    fn append(&mut self, payload: Payload) -> RecordOutcome {
        let position = at(self.next);
        self.next += 1;
        let mut outcomes = self.view().apply(&[StreamEntry { position, payload }]).expect("applied");
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// Appends a letter and returns its offset.
    fn letter(&mut self, id: &str) -> u64 {
        let letter = letter(id, time(self.next));
        assert_eq!(self.append(Payload::Letter(Box::new(letter))), RecordOutcome::Letters(1));
        self.next - 1
    }

    fn record(&mut self, record: DeadLetterRecord) -> RecordOutcome {
        self.append(Payload::Record(record))
    }

    /// Appends a replay. The replay claims its letters.
    fn create(&mut self, replay: Replay) -> ReplayProgress {
        match self.record(DeadLetterRecord::Replay(Box::new(replay))) {
            RecordOutcome::Replay(progress) => *progress,
            other => panic!("not a replay: {other:?}"),
        }
    }

    /// Appends a replay of all pending letters.
    fn replay(&mut self, id: &str) -> ReplayProgress {
        self.create(replay(id, time(self.next)))
    }

    /// Appends a replay of these letters.
    fn replay_of_ids(&mut self, id: &str, letters: &[&str]) -> ReplayProgress {
        self.create(Replay { filter: None, ids: Some(dead_letters(letters)), ..replay(id, time(self.next)) })
    }

    fn send(&mut self, replay: &str, ids: &[&str], outcome: ReplayOutcome) -> RecordOutcome {
        let sent = dead_letters(ids).into_iter().map(|id| LetterResult { id, outcome }).collect();
        self.record(DeadLetterRecord::Batch(ReplayBatch { replay: ReplayId::new(replay), sent, at: time(self.next) }))
    }

    fn control(&mut self, replay: &str, command: ReplayCommand) -> RecordOutcome {
        let (replay, by, at) = (ReplayId::new(replay), "ana".to_owned(), time(self.next));
        self.record(DeadLetterRecord::Control(ReplayControl { replay, command, by, at }))
    }

    fn discard(&mut self, ids: &[&str]) -> RecordOutcome {
        let action = OperatorAction { by: "ana".to_owned(), at: time(self.next), operator_reason: None };
        self.record(DeadLetterRecord::Discard(Discard { ids: dead_letters(ids), action }))
    }

    fn claimed(&self, replay: &str) -> Vec<StoredLetter> {
        self.view().claimed_letters(&ReplayId::new(replay), usize::MAX).expect("letters")
    }

    fn progress(&self, replay: &str) -> ReplayProgress {
        self.view().replay_progress(&ReplayId::new(replay)).expect("a replay").expect("it exists")
    }

    fn state(&self, id: &str) -> Option<LetterState> {
        self.view().state(&DeadLetterId::new(id)).expect("a state")
    }

    fn pages(&self, filter: &LetterFilter, limit: usize, deadline: Instant) -> Vec<LetterPage> {
        let mut pages: Vec<LetterPage> = Vec::new();
        loop {
            let before = pages.last().and_then(|page| page.next);
            let page = self.view().page(filter, before, limit, deadline).expect("a page");
            assert!(
                page.next.is_none_or(|next| before.is_none_or(|before| next < before)),
                "the cursor does not move on"
            );
            let is_last = page.next.is_none();
            pages.push(page);
            if is_last {
                return pages;
            }
        }
    }
}

fn at(offset: u64) -> StreamPosition {
    StreamPosition { offset, message_id: format!("m{offset}") }
}

/// The time of the record at this offset. Large offsets have arbitrary times.
fn time(offset: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(START_MILLIS + 1000 * (offset % 10_000_000) as i64).expect("a time")
}

/// A deadline that no test reaches.
fn far_deadline() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// A letter of an unreadable event, which has the fewest fields.
fn letter(id: &str, dead_at: DateTime<Utc>) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::new(id),
        ..DeadLetter::from_body(b"?", Vec::new(), id, DeadLetterReason::Malformed, dead_at)
    }
}

fn dead_letters(ids: &[&str]) -> Vec<DeadLetterId> {
    ids.iter().map(|id| DeadLetterId::new(*id)).collect()
}

/// A replay of pending letters.
fn replay(id: &str, created_at: DateTime<Utc>) -> Replay {
    Replay {
        id: ReplayId::new(id),
        state: ReplayState::Running,
        filter: Some(LetterFilter::default()),
        ids: None,
        rate_per_second: None,
        config: ReplayConfig::Current,
        stop_on_failure_ratio: None,
        total: 0,
        sent: 0,
        delivered: 0,
        requeued: 0,
        failed: 0,
        created_at,
        created_by: "ana".to_owned(),
        ended_at: None,
    }
}

fn ids(letters: &[StoredLetter]) -> Vec<&str> {
    letters.iter().map(|stored| stored.letter.id.as_str()).collect()
}

#[test]
fn a_page_after_its_deadline_still_makes_progress() {
    let mut log = TestStream::new();
    let mut expected = Vec::new();
    for block in 0..200 {
        log.next = 64 * block;
        let id = format!("dl_{block:03}");
        log.letter(&id);
        expected.insert(0, id);
        // A search for malformed events with this status reads every block and finds nothing.
        let gone = letter(&format!("dl_{block:03}_gone"), time(log.next));
        log.append(Payload::Letter(Box::new(DeadLetter { reason: DeadLetterReason::Gone, status: Some(410), ..gone })));
    }
    let past_deadline = Instant::now();
    let malformed = LetterFilter { reason: Some(DeadLetterReason::Malformed), ..LetterFilter::default() };
    let pages = log.pages(&malformed, 1000, past_deadline);
    let letters: Vec<&str> = pages.iter().flat_map(|page| ids(&page.letters)).collect();
    assert_eq!(letters, expected);
    let lengths = |pages: &[LetterPage]| pages.iter().map(|page| page.letters.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&pages), [64, 64, 64, 8], "MIN_BLOCKS are read after the deadline");
    let no_match = LetterFilter { status: Some(410), ..malformed.clone() };
    assert_eq!(lengths(&log.pages(&no_match, 1000, past_deadline)), [0; 4]);
    assert_eq!(log.pages(&malformed, 1000, far_deadline()).len(), 1);
    let page = log.view().page(&malformed, Some(0), 10, past_deadline).expect("a page");
    assert_eq!((page.letters.len(), page.next), (0, None));
}

#[test]
fn letters_are_in_the_order_of_the_log_for_any_page_size() {
    let mut log = TestStream::new();
    // Two workers write at the same time, so offsets and times have different orders.
    for (id, second) in [("dl_1", 3), ("dl_2", 1), ("dl_3", 4), ("dl_4", 2), ("dl_5", 0)] {
        log.append(Payload::Letter(Box::new(letter(id, time(second)))));
    }
    for limit in 1..=6 {
        let pages = log.pages(&LetterFilter::default(), limit, far_deadline());
        let letters: Vec<&str> = pages.iter().flat_map(|page| ids(&page.letters)).collect();
        assert_eq!(letters, ["dl_5", "dl_4", "dl_3", "dl_2", "dl_1"], "pages of {limit}");
    }
}

#[test]
fn a_replay_claims_its_letters_except_those_of_another_replay() {
    let mut log = TestStream::new();
    for id in ["dl_1", "dl_2", "dl_3"] {
        log.letter(id);
    }
    log.discard(&["dl_1"]);
    let progress = log.replay_of_ids("rp_1", &["dl_2", "dl_unknown", "dl_2"]);
    assert_eq!((progress.replay.total, progress.left, progress.claims), (1, 1, ClaimState::Complete));
    assert_eq!(log.replay("rp_2").replay.total, 1, "only the pending letter");
    let empty = log.replay("rp_3").replay;
    assert_eq!((empty.total, empty.state), (0, ReplayState::Done));
    assert_eq!(empty.ended_at, Some(empty.created_at));
    log.letter("dl_4");
    log.send("rp_1", &["dl_2"], ReplayOutcome::Delivered);
    let mut log = log.reopen();
    assert_eq!(ids(&log.claimed("rp_2")), ["dl_3"], "a later letter is not claimed");
    let all = ["dl_1", "dl_2", "dl_3", "dl_4"];
    let states = [LetterState::Discarded, LetterState::Replayed, LetterState::Replaying, LetterState::Pending];
    assert_eq!(all.map(|id| log.state(id)), states.map(Some));
    // A replay by ids claims letters in any state.
    assert_eq!(log.replay_of_ids("rp_4", &all).replay.total, 3);
    assert_eq!(ids(&log.claimed("rp_4")), ["dl_1", "dl_2", "dl_4"]);
}

#[test]
fn a_replay_claims_no_letter_older_than_the_retention() {
    let mut log = TestStream::with_retention(Duration::from_secs(10));
    for id in ["dl_old", "dl_just", "dl_young"] {
        log.letter(id);
    }
    log.next = 11;
    assert_eq!(log.replay_of_ids("rp_1", &["dl_old", "dl_just"]).replay.total, 1);
    assert_eq!(log.replay("rp_2").replay.total, 1);
    assert_eq!(ids(&log.claimed("rp_1")), ["dl_just"]);
    assert_eq!(ids(&log.claimed("rp_2")), ["dl_young"]);
    assert_eq!(log.state("dl_old"), Some(LetterState::Pending));
}

#[test]
fn a_released_letter_has_its_state_from_before_the_claim() {
    let mut log = TestStream::new();
    let all = ["dl_pending", "dl_discarded", "dl_replayed", "dl_both"];
    for id in all {
        log.letter(id);
    }
    log.discard(&["dl_discarded", "dl_both"]);
    log.replay_of_ids("rp_1", &["dl_replayed", "dl_both"]);
    log.send("rp_1", &["dl_replayed", "dl_both"], ReplayOutcome::Delivered);
    let before = all.map(|id| log.state(id));
    assert_eq!(
        before,
        [LetterState::Pending, LetterState::Discarded, LetterState::Replayed, LetterState::Replayed].map(Some)
    );
    log.replay_of_ids("rp_2", &all);
    assert_eq!(all.map(|id| log.state(id)), [Some(LetterState::Replaying); 4]);
    log.control("rp_2", ReplayCommand::Cancel);
    assert_eq!(all.map(|id| log.state(id)), before);
}

#[test]
fn a_stopped_replay_releases_unsent_letters() {
    let mut log = TestStream::new();
    let names: Vec<String> = (0..25).map(|number| format!("dl_{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        log.letter(name);
    }
    log.create(Replay { stop_on_failure_ratio: Some(0.5), ..replay("rp_1", time(log.next)) });
    log.send("rp_1", &names[..19], ReplayOutcome::Dead);
    assert_eq!(log.view().counts(), [0, 6, 19, 0]);
    assert_eq!(log.send("rp_1", &names[19..20], ReplayOutcome::Dead), RecordOutcome::Letters(1));
    assert_eq!(log.view().counts(), [5, 0, 20, 0]);
    let progress = log.progress("rp_1");
    assert_eq!((progress.replay.state, progress.replay.total, progress.left), (ReplayState::Stopped, 25, 0));
    assert_eq!(log.claimed("rp_1").len(), 0);
}

#[test]
fn a_letter_with_a_future_time_keeps_only_its_own_block() {
    let mut log = TestStream::new();
    log.letter("dl_old");
    log.next = 64;
    let ahead = letter("dl_ahead", time(1_000_000));
    log.append(Payload::Letter(Box::new(ahead)));
    log.next = 128;
    log.letter("dl_old_too");
    log.next = 192;
    log.letter("dl_new");
    // One block per call.
    let deleted = [1, 1, 1].map(|blocks| log.view().delete_before(START_MILLIS + 192_000, blocks).expect("deleted"));
    assert_eq!(deleted, [1, 1, 0]);
    assert_eq!(log.view().counts(), [2, 0, 0, 0]);
    assert_eq!(log.state("dl_ahead"), Some(LetterState::Pending));
}

#[test]
fn a_replay_ends_when_its_unsent_letters_are_deleted() {
    let mut log = TestStream::new();
    for (offset, id) in [(62, "dl_1"), (63, "dl_2"), (64, "dl_3"), (130, "dl_4")] {
        log.next = offset;
        log.letter(id);
    }
    log.replay_of_ids("rp_1", &["dl_1", "dl_2", "dl_3"]);
    log.send("rp_1", &["dl_1"], ReplayOutcome::Dead);
    let delete =
        |log: &TestStream, before| log.view().delete_before(time(before).timestamp_millis(), 10).expect("deleted");
    assert_eq!(delete(&log, 63), 0, "a block is deleted as a whole");
    assert_eq!(delete(&log, 64), 2);
    let progress = log.progress("rp_1");
    assert_eq!((progress.left, progress.replay.state), (1, ReplayState::Running));
    assert_eq!(ids(&log.claimed("rp_1")), ["dl_3"]);
    assert_eq!(delete(&log, 65), 1);
    let progress = log.progress("rp_1");
    assert_eq!((progress.left, progress.replay.state, progress.replay.sent), (0, ReplayState::Done, 1));
    assert!(progress.replay.ended_at.is_some());
    assert_eq!(log.view().counts(), [1, 0, 0, 0]);
    // Later results of the deleted letters have no effect.
    assert_eq!(log.send("rp_1", &["dl_2", "dl_3"], ReplayOutcome::Delivered), RecordOutcome::Letters(0));
    assert_eq!(log.progress("rp_1").replay, progress.replay);
}

#[test]
fn a_deleted_replay_has_no_claims() {
    let mut log = TestStream::new();
    log.letter("dl_old");
    log.next = 64;
    log.letter("dl_young");
    log.replay("rp_1");
    log.control("rp_1", ReplayCommand::Cancel);
    log.next = 100;
    log.letter("dl_younger");
    // After the replay's end, and before the last letter of the second block.
    assert_eq!(log.view().delete_before(time(99).timestamp_millis(), 10).expect("deleted"), 1);
    assert_eq!(log.view().replay_progress(&ReplayId::new("rp_1")).expect("no replay"), None);
    assert_eq!(log.state("dl_young"), Some(LetterState::Pending));
    assert_eq!(log.claimed("rp_1").len(), 0);
    // A letter that the replay sent is still recorded.
    assert_eq!(log.send("rp_1", &["dl_young"], ReplayOutcome::Delivered), RecordOutcome::Letters(1));
    assert_eq!(log.state("dl_young"), Some(LetterState::Replayed));
}

#[test]
fn offsets_may_have_gaps_and_may_be_large() {
    let mut log = TestStream::new();
    let large = 1 << 40;
    let offsets = [0, 62, 63, 64, 127, 128, u64::from(u32::MAX), u64::from(u32::MAX) + 1, large + 63, large + 64];
    let names = offsets.map(|offset| format!("dl_{offset}"));
    let names = names.each_ref().map(String::as_str);
    for (offset, name) in offsets.into_iter().zip(names) {
        log.next = offset;
        assert_eq!(log.letter(name), offset);
    }
    log.replay_of_ids("rp_1", &names);
    log.send("rp_1", &["dl_63", names[9]], ReplayOutcome::Delivered);
    let log = log.reopen();
    assert_eq!(log.view().counts(), [0, 8, 2, 0]);
    for (offset, name) in offsets.into_iter().zip(names) {
        let stored = log.view().letter(&DeadLetterId::new(name)).expect("a letter").expect("it exists");
        assert_eq!((stored.offset, stored.letter.dead_at), (offset, time(offset)));
        let state = if [63, large + 64].contains(&offset) { LetterState::Replayed } else { LetterState::Replaying };
        assert_eq!((stored.letter.state, log.state(name)), (state, Some(state)));
    }
    let unsent: Vec<&str> = names.into_iter().filter(|name| !["dl_63", names[9]].contains(name)).collect();
    assert_eq!(ids(&log.claimed("rp_1")), unsent);
    // All ranges between these offsets.
    for (from, from_index) in offsets.into_iter().zip(0..) {
        for (to, to_index) in offsets.into_iter().zip(0..) {
            let letters = log.view().find(&LetterFilter::default(), from..to, 100).expect("letters").letters;
            let letters: Vec<(u64, &str)> = letters.iter().map(|(offset, id)| (*offset, id.as_str())).collect();
            let all: Vec<(u64, &str)> = offsets.into_iter().zip(names).collect();
            assert_eq!(letters, all.get(from_index..to_index).unwrap_or_default(), "{from}..{to}");
        }
        let page = log.view().page(&LetterFilter::default(), Some(from), 100, far_deadline()).expect("a page");
        assert_eq!(page.letters.len(), from_index, "{from}");
    }
}

#[test]
fn a_search_reads_more_blocks_than_one_lock_selects() {
    let mut log = TestStream::new();
    let names: Vec<String> = (0..1200).map(|number| format!("dl_{number}")).collect();
    let entries = names.iter().zip(0..).map(|(name, number)| {
        let letter = letter(name, time(number));
        StreamEntry { position: at(64 * number), payload: Payload::Letter(Box::new(letter)) }
    });
    log.view().apply(&entries.collect::<Vec<_>>()).expect("applied");
    log.next = 64 * 1200;
    let all = LetterFilter::default();
    assert_eq!(log.view().count(&all).expect("counts").total, 1200);
    let page = log.view().find(&all, 0..u64::MAX, 1199).expect("letters");
    assert!(page.letters.iter().map(|(_, id)| id.as_str()).eq(names[..1199].iter().map(String::as_str)));
    assert_eq!(page.next, Some(64 * 1199));
    let pages = log.pages(&all, 1000, far_deadline());
    assert!(pages.iter().flat_map(|page| ids(&page.letters)).eq(names.iter().rev().map(String::as_str)));
    assert_eq!(pages.len(), 2);
}

#[test]
fn a_cursor_keeps_its_position_while_letters_are_added() {
    let mut log = TestStream::new();
    let names: Vec<String> = (0..150).map(|number| format!("dl_{number:03}")).collect();
    for name in &names {
        log.letter(name);
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = log.view().page(&LetterFilter::default(), before, 7, far_deadline()).expect("a page");
        seen.extend(page.letters.into_iter().map(|stored| stored.letter.id.as_str().to_owned()));
        let Some(next) = page.next else { break };
        before = Some(next);
        let id = format!("dl_new {}", log.next);
        log.letter(&id);
        log.discard(&[&id]);
    }
    seen.reverse();
    assert_eq!(seen, names);
}

#[test]
fn a_page_has_few_large_letters() {
    let mut log = TestStream::new();
    let names: Vec<String> = (0..20).map(|number| format!("dl_{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let body = vec![b'x'; BODY_BYTES_KEPT];
    for name in &names {
        let large = DeadLetter::from_body(&body, Vec::new(), name, DeadLetterReason::Poison, time(log.next));
        log.append(Payload::Letter(Box::new(DeadLetter { id: DeadLetterId::new(*name), ..large })));
    }
    let mut log = log.reopen();
    let mut newest_first = names.clone();
    newest_first.reverse();
    let pages = log.pages(&LetterFilter::default(), 20, far_deadline());
    assert_eq!(pages.iter().map(|page| page.letters.len()).collect::<Vec<_>>(), [8, 8, 4]);
    assert_eq!(pages.iter().flat_map(|page| ids(&page.letters)).collect::<Vec<_>>(), newest_first);
    assert_eq!(pages[0].letters[0].letter.body.as_ref().map(String::len), Some(BODY_BYTES_KEPT));
    log.replay("rp_1");
    assert_eq!(ids(&log.claimed("rp_1")), names[..8]);
    log.send("rp_1", &names[..8], ReplayOutcome::Requeued);
    assert_eq!(ids(&log.claimed("rp_1")), names[8..16]);
}

#[test]
fn a_person_is_found_in_many_blocks_until_erased() {
    let mut log = TestStream::new();
    let phone = |number: u64| format!("+55119{number:08}");
    let entries = (0..1000_u64).map(|number| {
        let event =
            json!({ "campaignId": "c", "label": "a", "phoneNumber": phone(number), "date": "2024-06-18T23:26:14Z" });
        let letter = DeadLetter {
            event: Some(event::decode(event.to_string().as_bytes(), None).expect("an event")),
            event_id: Some(EventId::new(format!("e-{number}"))),
            delivery_id: Some(DeliveryId::new(format!("msg_{number}"))),
            webhook_id: Some(WebhookId::new("wh_1")),
            ..letter(&format!("dl_{number}"), time(number))
        };
        StreamEntry { position: at(number), payload: Payload::Letter(Box::new(letter)) }
    });
    log.view().apply(&entries.collect::<Vec<_>>()).expect("applied");
    log.next = 1000;
    let offsets = |log: &TestStream, filter: &LetterFilter| {
        log.view()
            .find(filter, 0..u64::MAX, 10)
            .expect("letters")
            .letters
            .into_iter()
            .map(|(offset, _)| offset)
            .collect::<Vec<_>>()
    };
    let of_phone = |number: u64| LetterFilter { phone_number: Some(phone(number)), ..LetterFilter::default() };
    let of_event = |id: &str| LetterFilter { event_id: Some(EventId::new(id)), ..LetterFilter::default() };
    let of_delivery = |id: &str| LetterFilter { delivery_id: Some(DeliveryId::new(id)), ..LetterFilter::default() };
    for number in [0, 63, 64, 500, 999] {
        assert_eq!(offsets(&log, &of_phone(number)), [number]);
        assert_eq!(offsets(&log, &of_event(&format!("e-{number}"))), [number]);
        assert_eq!(offsets(&log, &of_delivery(&format!("msg_{number}"))), [number]);
    }
    for filter in [of_phone(1000), of_event("e-1000"), of_delivery("e-1")] {
        assert_eq!(offsets(&log, &filter), [0; 0]);
    }
    log.create(Replay { filter: Some(of_phone(500)), ..replay("rp_1", time(log.next)) });
    log.send("rp_1", &["dl_500"], ReplayOutcome::Delivered);
    let action = OperatorAction { by: "ana".to_owned(), at: time(log.next), operator_reason: None };
    let erase = Erase { ids: dead_letters(&["dl_500", "dl_999"]), action };
    assert_eq!(log.record(DeadLetterRecord::Erase(erase)), RecordOutcome::Letters(2));
    let check = |log: &TestStream| {
        for number in [500, 999] {
            assert_eq!(offsets(log, &of_phone(number)), [0; 0], "an erased letter is found by its phone number");
            assert_eq!(offsets(log, &of_event(&format!("e-{number}"))), [number], "the event id is not personal data");
        }
        assert_eq!(offsets(log, &of_phone(499)), [499]);
        // The replay's filter is masked as well.
        let filter = log.progress("rp_1").replay.filter.expect("a filter");
        assert_eq!(filter.phone_number.as_deref(), Some(MASK));
    };
    check(&log);
    check(&log.reopen());
}

/// A body may contain a phone number anywhere.
#[test]
fn letters_that_may_mention_a_person_have_the_phone_number_or_a_body() {
    let mut log = TestStream::new();
    let phone = "+5511999990000";
    for (number, phone_number) in (0..).zip([phone, "+5511999990001", phone]) {
        let event =
            json!({ "campaignId": "c", "label": "a", "phoneNumber": phone_number, "date": "2024-06-18T23:26:14Z" });
        let letter = DeadLetter {
            event: Some(event::decode(event.to_string().as_bytes(), None).expect("an event")),
            webhook_id: Some(WebhookId::new("wh_1")),
            ..letter(&format!("dl_{number}"), time(number))
        };
        log.append(Payload::Letter(Box::new(letter)));
        log.next += 100;
    }
    log.letter("dl_body");
    let page = log.view().page_mentioning(phone, None, 10, far_deadline()).expect("a page");
    assert_eq!(ids(&page.letters), ["dl_body", "dl_2", "dl_0"]);
}

#[test]
fn apply_returns_the_outcome_of_each_record() {
    let mut log = TestStream::new();
    for id in ["dl_1", "dl_2", "dl_3"] {
        log.letter(id);
    }
    let duplicate = letter("dl_1", time(9));
    assert_eq!(log.append(Payload::Letter(Box::new(duplicate))), RecordOutcome::Letters(0));
    assert_eq!(log.discard(&["dl_3", "dl_unknown", "dl_3"]), RecordOutcome::Letters(1));
    let progress = log.replay("rp_1");
    assert_eq!((progress.replay.state, progress.replay.total, progress.left), (ReplayState::Running, 2, 2));
    assert_eq!(log.replay("rp_1"), progress, "the replay exists already");
    assert_eq!(log.discard(&["dl_1"]), RecordOutcome::Letters(0), "a replay has claimed the letter");
    assert_eq!(log.send("rp_1", &["dl_1", "dl_1", "dl_unknown"], ReplayOutcome::Dead), RecordOutcome::Letters(1));
    assert_eq!(
        log.send("rp_1", &["dl_1"], ReplayOutcome::Delivered),
        RecordOutcome::Letters(0),
        "the letter is recorded already"
    );
    let RecordOutcome::Replay(progress) = log.control("rp_1", ReplayCommand::Cancel) else { panic!("a replay") };
    assert_eq!((progress.replay.state, progress.replay.failed), (ReplayState::Cancelled, 1));
    assert_eq!(log.progress("rp_1").left, 0);
    assert_eq!(log.control("rp_1", ReplayCommand::Resume), RecordOutcome::Refused(ReplayState::Cancelled));
    assert_eq!(log.control("rp_9", ReplayCommand::Pause), RecordOutcome::NoEffect);
    assert_eq!(log.append(Payload::Ignored), RecordOutcome::NoEffect);
    assert_eq!(log.view().position().expect("a position"), Some(at(log.next - 1)));
}

#[test]
fn a_sent_letter_is_recorded_after_its_release_unless_another_replay_claims_it() {
    let mut log = TestStream::new();
    for id in ["dl_1", "dl_2"] {
        log.letter(id);
    }
    log.replay("rp_1");
    log.control("rp_1", ReplayCommand::Cancel);
    log.replay_of_ids("rp_2", &["dl_2"]);
    assert_eq!(log.send("rp_1", &["dl_1", "dl_2"], ReplayOutcome::Delivered), RecordOutcome::Letters(1));
    assert_eq!((log.state("dl_1"), log.state("dl_2")), (Some(LetterState::Replayed), Some(LetterState::Replaying)));
    let cancelled = log.progress("rp_1").replay;
    assert_eq!((cancelled.state, cancelled.sent, cancelled.total), (ReplayState::Cancelled, 1, 2));
    // A letter that the replay has not claimed does not end it.
    log.letter("dl_3");
    assert_eq!(log.send("rp_2", &["dl_3"], ReplayOutcome::Delivered), RecordOutcome::Letters(1));
    let running = log.progress("rp_2");
    assert_eq!((running.replay.state, running.left), (ReplayState::Running, 1));
    assert_eq!(ids(&log.claimed("rp_2")), ["dl_2"]);
}

/// After a crash, records are applied again.
#[test]
fn applying_records_again_changes_nothing() {
    let log = TestStream::new();
    let names = ["dl_1", "dl_2", "dl_3", "dl_4"];
    let (replay_id, by) = (ReplayId::new("rp_1"), "ana".to_owned());
    let discard = Discard {
        ids: dead_letters(&["dl_1"]),
        action: OperatorAction { by: by.clone(), at: time(4), operator_reason: None },
    };
    let sent = vec![LetterResult { id: DeadLetterId::new("dl_2"), outcome: ReplayOutcome::Dead }];
    let slice = ReplayBatch { replay: replay_id.clone(), sent, at: time(6) };
    let cancel = ReplayControl { replay: replay_id, command: ReplayCommand::Cancel, by, at: time(7) };
    let records = [
        DeadLetterRecord::Discard(discard),
        DeadLetterRecord::Replay(Box::new(replay("rp_1", time(5)))),
        DeadLetterRecord::Batch(slice),
        DeadLetterRecord::Control(cancel),
    ];
    let letters = names.into_iter().zip(0..).map(|(id, offset)| Payload::Letter(Box::new(letter(id, time(offset)))));
    let payloads = letters.chain(records.map(Payload::Record));
    let entries: Vec<StreamEntry> =
        payloads.zip(0..).map(|(payload, offset)| StreamEntry { position: at(offset), payload }).collect();

    let apply = || {
        let outcomes = log.view().apply(&entries).expect("applied");
        let letters: Vec<_> = names.into_iter().map(|id| log.view().letter(&DeadLetterId::new(id))).collect();
        let letters =
            letters.into_iter().map(|stored| stored.expect("a letter").map(|stored| (stored.offset, stored.letter)));
        let histories: Vec<LetterHistory> =
            (0..4).map(|offset| log.view().history(offset).expect("a history")).collect();
        let contents = (log.view().counts(), log.progress("rp_1"), letters.collect::<Vec<_>>(), histories);
        (outcomes, contents, log.view().position().expect("a position"))
    };
    let (_, first, position) = apply();
    assert_eq!(first.0, [2, 0, 1, 1]);
    assert_eq!((first.1.replay.state, first.1.replay.total, first.1.left), (ReplayState::Cancelled, 3, 0));
    let (outcomes, second, position_again) = apply();
    assert_eq!(second, first);
    assert_eq!((&position_again, position_again.as_ref()), (&position, Some(&at(7))));
    let mut expected = vec![RecordOutcome::Letters(0); 7];
    expected[5] = RecordOutcome::Replay(Box::new(first.1));
    expected.push(RecordOutcome::Refused(ReplayState::Cancelled));
    assert_eq!(outcomes, expected);
}
