//! The letters in files: what is written when, what is deleted, and what becomes of a view that has lost some.

use std::fs;
use std::path::PathBuf;

use super::*;

/// Offsets to a block and to a volume.
const BLOCK: u64 = 64;
const VOLUME: u64 = 256 * BLOCK;

impl Log {
    /// The files of the archive.
    fn volumes(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("view").join("dead-letters");
        let names = fs::read_dir(folder).expect("the archive").map(|entry| entry.expect("an entry").path());
        let mut names: Vec<PathBuf> = names.collect();
        names.sort();
        names
    }

    /// What the files have in bytes.
    fn bytes(&self) -> u64 {
        self.volumes().iter().map(|volume| fs::metadata(volume).expect("a file").len()).sum()
    }

    /// Appends a letter of each offset.
    fn letters_at(&mut self, offsets: impl Iterator<Item = u64>) {
        for offset in offsets {
            self.next = offset;
            self.letter(&format!("dl_{offset}"));
        }
    }

    /// Appends a record that says nothing, at this offset.
    fn nothing_at(&mut self, offset: u64) {
        self.next = offset;
        self.append(Payload::Nothing);
    }

    /// Sees that the letters of these offsets are there, and no others.
    fn has(&self, offsets: impl Iterator<Item = u64>) {
        let pages = self.pages(&LetterFilter::default(), 100, far());
        let mut found: Vec<u64> = pages.iter().flat_map(|page| page.letters.iter().map(|kept| kept.offset)).collect();
        found.sort_unstable();
        assert_eq!(found, offsets.collect::<Vec<_>>());
        for offset in found {
            let kept = self.view().letter(&DeadLetterId::new(format!("dl_{offset}"))).expect("a letter");
            assert_eq!(kept.map(|kept| (kept.offset, kept.letter.dead_at)), Some((offset, time(offset))));
        }
    }

    fn in_sled(&self) -> usize {
        self.view().letters.len()
    }
}

#[test]
fn a_letter_is_packed_when_its_block_is_over() {
    let mut log = Log::new();
    log.letters_at(1..BLOCK - 1);
    let mut log = log.reopen();
    assert_eq!((log.in_sled(), log.bytes()), (62, 0));
    log.has(1..BLOCK - 1);
    // The last offset of the block is of a record that is no letter.
    log.nothing_at(BLOCK - 1);
    assert_eq!(log.in_sled(), 0);
    assert!(log.bytes() > 0);
    log.has(1..BLOCK - 1);
    log.letters_at(BLOCK..BLOCK + 3);
    let log = log.reopen();
    assert_eq!(log.in_sled(), 3);
    log.has((1..BLOCK - 1).chain(BLOCK..BLOCK + 3));
}

#[test]
fn a_batch_of_many_blocks_is_packed_at_once() {
    let log = Log::new();
    let (first, last) = (VOLUME - 2 * BLOCK - 10, VOLUME + 2 * BLOCK + 10);
    let entry = |offset| {
        let letter = letter(&format!("dl_{offset}"), time(offset));
        StreamEntry { position: at(offset), content: Payload::Letter(Box::new(letter)) }
    };
    log.view().apply(&(first..=last).map(entry).collect::<Vec<_>>()).expect("applied");
    assert_eq!((log.in_sled(), log.volumes().len()), (11, 2));
    log.reopen().has(first..=last);
}

#[test]
fn a_large_letter_does_not_wait_in_sled() {
    let mut log = Log::new();
    log.letters_at(0..3);
    let large = DeadLetter { body: Some("x".repeat(100_000)), ..letter("dl_3", time(3)) };
    log.append(Payload::Letter(Box::new(large)));
    log.letters_at(4..6);
    assert_eq!(log.in_sled(), 5);
    log.has(0..6);
    log.nothing_at(BLOCK);
    assert_eq!(log.in_sled(), 0);
    let log = log.reopen();
    log.has(0..6);
    let kept = log.view().letter(&DeadLetterId::new("dl_3")).expect("a letter").expect("it is there");
    assert_eq!(kept.letter.body.map(|body| body.len()), Some(100_000));
}

#[test]
fn a_volume_is_deleted_when_all_of_it_is_forgotten() {
    let mut log = Log::new();
    let offsets = || [0, 1, BLOCK, VOLUME - 1, VOLUME, VOLUME + 1, 3 * VOLUME].into_iter();
    log.letters_at(offsets());
    log.nothing_at(3 * VOLUME + BLOCK);
    assert_eq!(log.volumes().len(), 3);
    let forget = |log: &Log, offset| log.view().forget_before(time(offset).timestamp_millis(), 10).expect("forgotten");
    assert_eq!(forget(&log, VOLUME - 1), 3);
    assert_eq!(log.volumes().len(), 3, "the last of the first volume is there");
    assert_eq!(forget(&log, VOLUME), 1);
    assert_eq!(log.volumes().len(), 2);
    log.has(offsets().skip(4));
    let log = log.reopen();
    assert_eq!(forget(&log, 4 * VOLUME), 3);
    assert_eq!((log.volumes().len(), log.in_sled()), (0, 0));
    log.reopen().has(std::iter::empty());
}

#[test]
fn a_block_that_is_forgotten_before_it_is_over_may_go_on() {
    let mut log = Log::new();
    log.letters_at(0..10);
    assert_eq!(log.view().forget_before(time(10).timestamp_millis(), 1).expect("forgotten"), 10);
    assert_eq!((log.in_sled(), log.state("dl_3")), (0, None));
    log.letters_at(20..30);
    assert_eq!(log.state("dl_3"), None);
    // The same letter once more.
    log.append(Payload::Letter(Box::new(letter("dl_3", time(30)))));
    log.nothing_at(BLOCK);
    let log = log.reopen();
    assert_eq!(log.view().counts(), [11, 0, 0, 0]);
    let kept = log.view().letter(&DeadLetterId::new("dl_3")).expect("a letter").expect("it is there");
    assert_eq!((kept.offset, kept.letter.dead_at), (30, time(30)));
}

#[test]
fn a_view_that_is_cleared_has_no_files() {
    let mut log = Log::new();
    log.letters_at(0..BLOCK + 1);
    log.view().clear().expect("cleared");
    assert_eq!((log.volumes().len(), log.in_sled()), (0, 0));
    log.letters_at(0..BLOCK + 1);
    log.reopen().has(0..BLOCK + 1);
}

/// Its rows are in the archive; what changes of them is not.
#[test]
fn letters_of_a_block_that_is_over_change_their_states() {
    let mut log = Log::new();
    log.letters_at(0..BLOCK);
    let before = log.bytes();
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
    assert_eq!(log.bytes(), before);
}

/// The process may end between the writing of a pack and that of its place.
#[test]
fn what_has_no_place_is_not_read() {
    let mut log = Log::new();
    log.letters_at(0..BLOCK + 3);
    let folder = log.folder.path().join("view").join("dead-letters");
    let volume = log.volumes().remove(0);
    let mut bytes = fs::read(&volume).expect("a volume");
    bytes.extend_from_slice(b"a part of a pack");
    fs::write(&volume, bytes).expect("written");
    fs::write(folder.join("00000000000000ff"), b"a volume that was just begun").expect("written");
    let mut log = log.reopen();
    assert_eq!(log.volumes().len(), 1);
    log.letters_at(BLOCK + 3..2 * BLOCK);
    log.reopen().has(0..2 * BLOCK);
}

/// The machine may stop before the system has written what sled has a place of.
#[test]
fn a_view_whose_last_volume_has_lost_something_is_begun_anew() {
    let lose_its_end = |volume: &PathBuf| {
        let bytes = fs::read(volume).expect("a volume");
        fs::write(volume, &bytes[..bytes.len() - 1]).expect("written");
    };
    let change_a_byte = |volume: &PathBuf| {
        let mut bytes = fs::read(volume).expect("a volume");
        bytes[10] ^= 1;
        fs::write(volume, bytes).expect("written");
    };
    let delete_it = |volume: &PathBuf| fs::remove_file(volume).expect("deleted");
    for lose in [&lose_its_end as &dyn Fn(&PathBuf), &change_a_byte, &delete_it] {
        let mut log = Log::new();
        log.letters_at(0..BLOCK);
        lose(&log.volumes().remove(0));
        let log = log.reopen();
        assert_eq!(log.view().position().expect("a position"), None);
        log.has(std::iter::empty());
        assert_eq!(log.volumes().len(), 0);
    }
}

#[test]
fn a_letter_that_can_not_be_read_is_an_error_and_no_other_letter() {
    let mut log = Log::new();
    log.letters_at(0..2 * BLOCK);
    let volume = log.volumes().remove(0);
    let mut bytes = fs::read(&volume).expect("a volume");
    bytes[10] ^= 1;
    fs::write(&volume, bytes).expect("written");
    let read = |offset: u64| log.view().letter(&DeadLetterId::new(format!("dl_{offset}")));
    let error = read(1).expect_err("its pack is damaged").to_string();
    assert!(error.contains(&volume.display().to_string()), "{error}");
    assert_eq!(read(BLOCK).expect("another pack").map(|kept| kept.offset), Some(BLOCK));
}
