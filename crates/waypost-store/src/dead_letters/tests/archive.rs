//! Tests of the archive: when letters are written to files, when files are deleted, and how lost data is handled.

use std::fs;
use std::path::PathBuf;

use super::*;

const OFFSETS_PER_BLOCK: u64 = 64;
const OFFSETS_PER_SEGMENT: u64 = 256 * OFFSETS_PER_BLOCK;

impl TestStream {
    /// The paths of the archive's files, sorted.
    fn segments(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("view").join("dead-letters");
        let entries = fs::read_dir(folder).expect("the archive");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }

    /// The total size of the files.
    fn segment_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| fs::metadata(segment).expect("a file").len()).sum()
    }

    /// Appends a letter at each offset.
    fn letters_at(&mut self, offsets: impl Iterator<Item = u64>) {
        for offset in offsets {
            self.next = offset;
            self.letter(&format!("dl_{offset}"));
        }
    }

    /// Appends a record without effect at this offset.
    fn ignored_at(&mut self, offset: u64) {
        self.next = offset;
        self.append(Payload::Ignored);
    }

    /// Asserts that the view has letters at exactly these offsets.
    fn assert_letters_at(&self, offsets: impl Iterator<Item = u64>) {
        let pages = self.pages(&LetterFilter::default(), 100, far_deadline());
        let mut actual: Vec<u64> =
            pages.iter().flat_map(|page| page.letters.iter().map(|stored| stored.offset)).collect();
        actual.sort_unstable();
        assert_eq!(actual, offsets.collect::<Vec<_>>());
        for offset in actual {
            let stored = self.view().letter(&DeadLetterId::new(format!("dl_{offset}"))).expect("a letter");
            assert_eq!(stored.map(|stored| (stored.offset, stored.letter.dead_at)), Some((offset, time(offset))));
        }
    }

    fn letters_in_sled(&self) -> usize {
        self.view().letters.len()
    }
}

#[test]
fn letters_are_archived_when_their_block_is_complete() {
    let mut log = TestStream::new();
    log.letters_at(1..OFFSETS_PER_BLOCK - 1);
    let mut log = log.reopen();
    assert_eq!((log.letters_in_sled(), log.segment_bytes()), (62, 0));
    log.assert_letters_at(1..OFFSETS_PER_BLOCK - 1);
    // The record at the last offset of the block is not a letter.
    log.ignored_at(OFFSETS_PER_BLOCK - 1);
    assert_eq!(log.letters_in_sled(), 0);
    assert!(log.segment_bytes() > 0);
    log.assert_letters_at(1..OFFSETS_PER_BLOCK - 1);
    log.letters_at(OFFSETS_PER_BLOCK..OFFSETS_PER_BLOCK + 3);
    let log = log.reopen();
    assert_eq!(log.letters_in_sled(), 3);
    log.assert_letters_at((1..OFFSETS_PER_BLOCK - 1).chain(OFFSETS_PER_BLOCK..OFFSETS_PER_BLOCK + 3));
}

#[test]
fn a_batch_of_several_blocks_is_archived_at_once() {
    let log = TestStream::new();
    let (first, last) =
        (OFFSETS_PER_SEGMENT - 2 * OFFSETS_PER_BLOCK - 10, OFFSETS_PER_SEGMENT + 2 * OFFSETS_PER_BLOCK + 10);
    let entry = |offset| {
        let letter = letter(&format!("dl_{offset}"), time(offset));
        StreamEntry { position: at(offset), payload: Payload::Letter(Box::new(letter)) }
    };
    log.view().apply(&(first..=last).map(entry).collect::<Vec<_>>()).expect("applied");
    assert_eq!((log.letters_in_sled(), log.segments().len()), (11, 2));
    log.reopen().assert_letters_at(first..=last);
}

#[test]
fn a_large_letter_is_archived_immediately() {
    let mut log = TestStream::new();
    log.letters_at(0..3);
    let large = DeadLetter { body: Some("x".repeat(100_000)), ..letter("dl_3", time(3)) };
    log.append(Payload::Letter(Box::new(large)));
    log.letters_at(4..6);
    assert_eq!(log.letters_in_sled(), 5);
    log.assert_letters_at(0..6);
    log.ignored_at(OFFSETS_PER_BLOCK);
    assert_eq!(log.letters_in_sled(), 0);
    let log = log.reopen();
    log.assert_letters_at(0..6);
    let stored = log.view().letter(&DeadLetterId::new("dl_3")).expect("a letter").expect("it exists");
    assert_eq!(stored.letter.body.map(|body| body.len()), Some(100_000));
}

#[test]
fn a_segment_is_deleted_with_its_last_letter() {
    let mut log = TestStream::new();
    let offsets = || {
        [
            0,
            1,
            OFFSETS_PER_BLOCK,
            OFFSETS_PER_SEGMENT - 1,
            OFFSETS_PER_SEGMENT,
            OFFSETS_PER_SEGMENT + 1,
            3 * OFFSETS_PER_SEGMENT,
        ]
        .into_iter()
    };
    log.letters_at(offsets());
    log.ignored_at(3 * OFFSETS_PER_SEGMENT + OFFSETS_PER_BLOCK);
    assert_eq!(log.segments().len(), 3);
    let delete =
        |log: &TestStream, offset| log.view().delete_before(time(offset).timestamp_millis(), 10).expect("deleted");
    assert_eq!(delete(&log, OFFSETS_PER_SEGMENT - 1), 3);
    assert_eq!(log.segments().len(), 3, "the last letter of the first segment exists");
    assert_eq!(delete(&log, OFFSETS_PER_SEGMENT), 1);
    assert_eq!(log.segments().len(), 2);
    log.assert_letters_at(offsets().skip(4));
    let log = log.reopen();
    assert_eq!(delete(&log, 4 * OFFSETS_PER_SEGMENT), 3);
    assert_eq!((log.segments().len(), log.letters_in_sled()), (0, 0));
    log.reopen().assert_letters_at(std::iter::empty());
}

#[test]
fn letters_can_be_added_to_a_block_that_was_deleted_before_it_was_complete() {
    let mut log = TestStream::new();
    log.letters_at(0..10);
    assert_eq!(log.view().delete_before(time(10).timestamp_millis(), 1).expect("deleted"), 10);
    assert_eq!((log.letters_in_sled(), log.state("dl_3")), (0, None));
    log.letters_at(20..30);
    assert_eq!(log.state("dl_3"), None);
    // The same id again.
    log.append(Payload::Letter(Box::new(letter("dl_3", time(30)))));
    log.ignored_at(OFFSETS_PER_BLOCK);
    let log = log.reopen();
    assert_eq!(log.view().counts(), [11, 0, 0, 0]);
    let stored = log.view().letter(&DeadLetterId::new("dl_3")).expect("a letter").expect("it exists");
    assert_eq!((stored.offset, stored.letter.dead_at), (30, time(30)));
}

#[test]
fn a_cleared_view_has_no_files() {
    let mut log = TestStream::new();
    log.letters_at(0..OFFSETS_PER_BLOCK + 1);
    log.view().clear().expect("cleared");
    assert_eq!((log.segments().len(), log.letters_in_sled()), (0, 0));
    log.letters_at(0..OFFSETS_PER_BLOCK + 1);
    log.reopen().assert_letters_at(0..OFFSETS_PER_BLOCK + 1);
}

/// The archive is not written for changes of archived rows.
#[test]
fn letters_of_an_archived_block_change_their_states() {
    let mut log = TestStream::new();
    log.letters_at(0..OFFSETS_PER_BLOCK);
    let before = log.segment_bytes();
    log.discard(&["dl_1"]);
    log.replay_of_ids("rp_1", &["dl_2", "dl_3"]);
    log.send("rp_1", &["dl_2"], ReplayOutcome::Delivered);
    let mut log = log.reopen();
    let states = ["dl_0", "dl_1", "dl_2", "dl_3"].map(|id| log.state(id));
    assert_eq!(
        states,
        [LetterState::Pending, LetterState::Discarded, LetterState::Replayed, LetterState::Replaying].map(Some)
    );
    log.control("rp_1", ReplayCommand::Cancel);
    let log = log.reopen();
    assert_eq!((log.state("dl_3"), log.view().counts()), (Some(LetterState::Pending), [62, 0, 1, 1]));
    assert_eq!(log.segment_bytes(), before);
}

/// The process may end after it has written a pack and before it has written the pack's location.
#[test]
fn data_without_a_location_is_not_read() {
    let mut log = TestStream::new();
    log.letters_at(0..OFFSETS_PER_BLOCK + 3);
    let folder = log.folder.path().join("view").join("dead-letters");
    let segment = log.segments().remove(0);
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes.extend_from_slice(b"a part of a pack");
    fs::write(&segment, bytes).expect("written");
    fs::write(folder.join("00000000000000ff"), b"a new segment").expect("written");
    let mut log = log.reopen();
    assert_eq!(log.segments().len(), 1);
    log.letters_at(OFFSETS_PER_BLOCK + 3..2 * OFFSETS_PER_BLOCK);
    log.reopen().assert_letters_at(0..2 * OFFSETS_PER_BLOCK);
}

/// The machine may stop before it has written data whose location is in sled.
#[test]
fn a_view_that_has_lost_data_of_the_last_segment_is_emptied() {
    let truncate = |segment: &PathBuf| {
        let bytes = fs::read(segment).expect("a segment");
        fs::write(segment, &bytes[..bytes.len() - 1]).expect("written");
    };
    let flip_a_bit = |segment: &PathBuf| {
        let mut bytes = fs::read(segment).expect("a segment");
        bytes[10] ^= 1;
        fs::write(segment, bytes).expect("written");
    };
    let delete = |segment: &PathBuf| fs::remove_file(segment).expect("deleted");
    for damage in [&truncate as &dyn Fn(&PathBuf), &flip_a_bit, &delete] {
        let mut log = TestStream::new();
        log.letters_at(0..OFFSETS_PER_BLOCK);
        damage(&log.segments().remove(0));
        let log = log.reopen();
        assert_eq!(log.view().position().expect("a position"), None);
        log.assert_letters_at(std::iter::empty());
        assert_eq!(log.segments().len(), 0);
    }
}

#[test]
fn a_damaged_pack_is_an_error_only_for_its_own_letters() {
    let mut log = TestStream::new();
    log.letters_at(0..2 * OFFSETS_PER_BLOCK);
    let segment = log.segments().remove(0);
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[10] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let read = |offset: u64| log.view().letter(&DeadLetterId::new(format!("dl_{offset}")));
    let error = read(1).expect_err("its pack is damaged").to_string();
    assert!(error.contains(&segment.display().to_string()), "{error}");
    assert_eq!(read(OFFSETS_PER_BLOCK).expect("another pack").map(|stored| stored.offset), Some(OFFSETS_PER_BLOCK));
}
