//! The offset of each letter id, in memory: ten bytes a letter, built from the rows when the view is opened.
//!
//! Ids are random. In sled, each id would be in another leaf, which is rewritten for it. This was more than half of the
//! bytes written while the view was built.

use std::collections::BTreeMap;

use super::index_block::{Block, fingerprint};

/// Offsets per run. A letter's position in its run is a `u16`.
const OFFSETS_PER_RUN: u64 = 1 << 16;

/// Fingerprint of an id → offset of the letter, for all letters.
#[derive(Debug, Default)]
pub(super) struct IdIndex {
    /// Closed runs by number.
    closed: BTreeMap<u64, Run>,
    /// The number of the open run, to which letters are added.
    open_number: u64,
    /// The letters of the open run: fingerprint → position.
    open: BTreeMap<u64, u16>,
}

/// Letters with neighbouring offsets.
#[derive(Debug, Default)]
struct Run {
    /// In ascending order.
    fingerprints: Box<[u64]>,
    /// For each fingerprint, the letter's position in the run.
    positions: Box<[u16]>,
}

impl IdIndex {
    pub(super) fn insert_all(&mut self, number: u64, block: &Block<'_>) {
        for (offset, row) in block.rows(number) {
            self.insert(fingerprint(&row.id), offset);
        }
    }

    /// Adds a letter. Fast for a letter of the open run.
    pub(super) fn insert(&mut self, fingerprint: u64, offset: u64) {
        let number = offset / OFFSETS_PER_RUN;
        if number != self.open_number {
            self.close();
            self.open_number = number;
        }
        self.open.insert(fingerprint, (offset % OFFSETS_PER_RUN) as u16);
    }

    /// Removes a deleted letter of the open run, because letters may still be added to its block. Letters of closed
    /// runs are removed with their run.
    pub(super) fn remove(&mut self, fingerprint: u64, offset: u64) {
        if self.find_open(fingerprint) == Some(offset) {
            self.open.remove(&fingerprint);
        }
    }

    /// Closes the open run. A closed run with the same number is merged into it.
    fn close(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        if let Some(run) = self.closed.remove(&self.open_number) {
            run.fingerprints.iter().zip(&run.positions).for_each(|(fingerprint, position)| {
                open.entry(*fingerprint).or_insert(*position);
            });
        }
        if !open.is_empty() {
            let (fingerprints, positions): (Vec<u64>, Vec<u16>) = open.into_iter().unzip();
            let run = Run { fingerprints: fingerprints.into(), positions: positions.into() };
            self.closed.insert(self.open_number, run);
        }
    }

    /// The offset of the newest letter with this fingerprint for which `exists` holds. A closed run keeps deleted
    /// letters.
    pub(super) fn find(&self, fingerprint: u64, exists: impl Fn(u64) -> bool) -> Option<u64> {
        let closed = self.closed.iter().rev().filter_map(|(number, run)| {
            let index = run.fingerprints.binary_search(&fingerprint).ok()?;
            Some(number * OFFSETS_PER_RUN + u64::from(*run.positions.get(index)?))
        });
        self.find_open(fingerprint).into_iter().chain(closed).find(|offset| exists(*offset))
    }

    fn find_open(&self, fingerprint: u64) -> Option<u64> {
        self.open.get(&fingerprint).map(|position| self.open_number * OFFSETS_PER_RUN + u64::from(*position))
    }

    /// Drops the runs for whose offsets `any_exists` does not hold.
    pub(super) fn drop_deleted(&mut self, any_exists: impl Fn(std::ops::Range<u64>) -> bool) {
        let offsets = |number: u64| number * OFFSETS_PER_RUN..(number + 1) * OFFSETS_PER_RUN;
        self.closed.retain(|number, _| any_exists(offsets(*number)));
        if !any_exists(offsets(self.open_number)) {
            self.open.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id_index(letters: impl IntoIterator<Item = (u64, u64)>) -> IdIndex {
        let mut ids = IdIndex::default();
        for (fingerprint, offset) in letters {
            ids.insert(fingerprint, offset);
        }
        ids
    }

    proptest! {
        #[test]
        fn a_letter_is_found_by_its_fingerprint_in_any_order_of_offsets(
            letters in proptest::collection::btree_map(any::<u64>(), 0..6 * OFFSETS_PER_RUN, 0..200)
        ) {
            let ids = id_index(letters.clone());
            for (fingerprint, offset) in &letters {
                prop_assert_eq!(ids.find(*fingerprint, |_| true), Some(*offset));
                prop_assert_eq!(ids.find(fingerprint.wrapping_add(1), |_| true), letters.get(&fingerprint.wrapping_add(1)).copied());
            }
        }
    }

    #[test]
    fn the_newest_existing_letter_with_an_id_is_found() {
        let ids = id_index([(7, 1), (7, OFFSETS_PER_RUN + 1), (7, 5 * OFFSETS_PER_RUN), (8, 9 * OFFSETS_PER_RUN)]);
        assert_eq!(ids.find(7, |_| true), Some(5 * OFFSETS_PER_RUN));
        assert_eq!(ids.find(7, |offset| offset < 5 * OFFSETS_PER_RUN), Some(OFFSETS_PER_RUN + 1));
        assert_eq!(ids.find(7, |_| false), None);
    }

    #[test]
    fn only_a_letter_of_the_open_run_is_removed() {
        let mut ids = id_index([(6, 1), (7, OFFSETS_PER_RUN + 1), (8, OFFSETS_PER_RUN + 2)]);
        ids.remove(7, OFFSETS_PER_RUN + 1);
        ids.remove(8, OFFSETS_PER_RUN + 1);
        ids.remove(6, 1);
        assert_eq!([6, 7, 8].map(|id| ids.find(id, |_| true)), [Some(1), None, Some(OFFSETS_PER_RUN + 2)]);
    }

    #[test]
    fn a_run_without_existing_letters_is_dropped() {
        let mut ids = id_index([(1, 1), (2, OFFSETS_PER_RUN), (3, 2 * OFFSETS_PER_RUN), (4, 2 * OFFSETS_PER_RUN + 1)]);
        ids.drop_deleted(|offsets| offsets.contains(&OFFSETS_PER_RUN));
        assert_eq!((ids.closed.len(), ids.open.len()), (1, 0));
        assert_eq!(ids.find(2, |_| true), Some(OFFSETS_PER_RUN));
        ids.insert(5, 2 * OFFSETS_PER_RUN + 2);
        ids.insert(6, OFFSETS_PER_RUN + 3);
        assert_eq!(
            [2, 5, 6].map(|id| ids.find(id, |_| true)),
            [OFFSETS_PER_RUN, 2 * OFFSETS_PER_RUN + 2, OFFSETS_PER_RUN + 3].map(Some)
        );
    }
}
