//! Which letter has an id: ten bytes to a letter, in memory, and made of the rows when the view is opened.
//!
//! Ids are as good as drawn: in sled each letter's would be an entry in another leaf, which is written anew for it. That
//! was more than half of what building the view wrote.

use std::collections::BTreeMap;

use super::index_block::{Block, fingerprint};

/// Offsets to a run: a letter's place in it is a `u16`.
const WIDTH: u64 = 1 << 16;

/// The fingerprints of all letters' ids.
#[derive(Debug, Default)]
pub(super) struct IdIndex {
    /// Those that no letter is added to, by their numbers.
    runs: BTreeMap<u64, Run>,
    /// The number of the run that letters are added to.
    newest: u64,
    /// Its letters: fingerprint → place.
    added: BTreeMap<u64, u16>,
}

/// Letters of neighbouring offsets, by their fingerprints.
#[derive(Debug, Default)]
struct Run {
    fingerprints: Box<[u64]>,
    /// Of each fingerprint its letter's place in the run.
    places: Box<[u16]>,
}

impl IdIndex {
    /// Adds the letters of a block.
    pub(super) fn insert_all(&mut self, number: u64, block: &Block<'_>) {
        for (offset, row) in block.rows(number) {
            self.insert(fingerprint(&row.id), offset);
        }
    }

    /// Adds a letter: fast where it is of the newest run.
    pub(super) fn insert(&mut self, fingerprint: u64, offset: u64) {
        let number = offset / WIDTH;
        if number != self.newest {
            self.close();
            self.newest = number;
        }
        self.added.insert(fingerprint, (offset % WIDTH) as u16);
    }

    /// Removes a letter that is forgotten, where it is of the newest run: to its block others may yet be added.
    pub(super) fn remove(&mut self, fingerprint: u64, offset: u64) {
        if self.added(fingerprint) == Some(offset) {
            self.added.remove(&fingerprint);
        }
    }

    fn close(&mut self) {
        let mut added = std::mem::take(&mut self.added);
        if let Some(run) = self.runs.remove(&self.newest) {
            run.fingerprints.iter().zip(&run.places).for_each(|(fingerprint, place)| {
                added.entry(*fingerprint).or_insert(*place);
            });
        }
        if !added.is_empty() {
            let (fingerprints, places): (Vec<u64>, Vec<u16>) = added.into_iter().unzip();
            let run = Run { fingerprints: fingerprints.into(), places: places.into() };
            self.runs.insert(self.newest, run);
        }
    }

    /// The newest letter with this fingerprint of those whose block is `there`: forgotten ones are kept as long as their run.
    pub(super) fn find(&self, fingerprint: u64, there: impl Fn(u64) -> bool) -> Option<u64> {
        let closed = self.runs.iter().rev().filter_map(|(number, run)| {
            let at = run.fingerprints.binary_search(&fingerprint).ok()?;
            Some(number * WIDTH + u64::from(*run.places.get(at)?))
        });
        self.added(fingerprint).into_iter().chain(closed).find(|offset| there(*offset))
    }

    fn added(&self, fingerprint: u64) -> Option<u64> {
        self.added.get(&fingerprint).map(|place| self.newest * WIDTH + u64::from(*place))
    }

    /// Drops the runs of which `any_there` says that no letter is there in their offsets.
    pub(super) fn drop_forgotten(&mut self, any_there: impl Fn(std::ops::Range<u64>) -> bool) {
        let offsets = |number: u64| number * WIDTH..(number + 1) * WIDTH;
        self.runs.retain(|number, _| any_there(offsets(*number)));
        if !any_there(offsets(self.newest)) {
            self.added.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(letters: impl IntoIterator<Item = (u64, u64)>) -> IdIndex {
        let mut ids = IdIndex::default();
        for (fingerprint, offset) in letters {
            ids.insert(fingerprint, offset);
        }
        ids
    }

    proptest! {
        /// Whatever the offsets, and in whatever order the runs come.
        #[test]
        fn each_letter_is_found_by_its_fingerprint(
            letters in proptest::collection::btree_map(any::<u64>(), 0..6 * WIDTH, 0..200)
        ) {
            let ids = ids(letters.clone());
            for (fingerprint, offset) in &letters {
                prop_assert_eq!(ids.find(*fingerprint, |_| true), Some(*offset));
                prop_assert_eq!(ids.find(fingerprint.wrapping_add(1), |_| true), letters.get(&fingerprint.wrapping_add(1)).copied());
            }
        }
    }

    #[test]
    fn of_letters_with_the_same_id_the_newest_that_is_there_is_found() {
        let ids = ids([(7, 1), (7, WIDTH + 1), (7, 5 * WIDTH), (8, 9 * WIDTH)]);
        assert_eq!(ids.find(7, |_| true), Some(5 * WIDTH));
        assert_eq!(ids.find(7, |offset| offset < 5 * WIDTH), Some(WIDTH + 1));
        assert_eq!(ids.find(7, |_| false), None);
    }

    #[test]
    fn a_letter_of_the_newest_run_can_be_removed() {
        let mut ids = ids([(6, 1), (7, WIDTH + 1), (8, WIDTH + 2)]);
        ids.remove(7, WIDTH + 1);
        ids.remove(8, WIDTH + 1);
        ids.remove(6, 1);
        assert_eq!([6, 7, 8].map(|id| ids.find(id, |_| true)), [Some(1), None, Some(WIDTH + 2)]);
    }

    #[test]
    fn a_run_is_dropped_when_no_letter_of_it_is_there() {
        let mut ids = ids([(1, 1), (2, WIDTH), (3, 2 * WIDTH), (4, 2 * WIDTH + 1)]);
        ids.drop_forgotten(|offsets| offsets.contains(&WIDTH));
        assert_eq!((ids.runs.len(), ids.added.len()), (1, 0));
        assert_eq!(ids.find(2, |_| true), Some(WIDTH));
        ids.insert(5, 2 * WIDTH + 2);
        ids.insert(6, WIDTH + 3);
        assert_eq!([2, 5, 6].map(|id| ids.find(id, |_| true)), [WIDTH, 2 * WIDTH + 2, WIDTH + 3].map(Some));
    }
}
