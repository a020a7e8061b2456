//! Packs: letters of one block written together, and compressed. Alike as neighbours are, they shrink to an eighth.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::location::slot_of;
use crate::store::StoreError;

/// A pack has no more bytes of JSON than these, or one letter: each letter that is read costs the reading of its pack.
const MAX_BYTES: usize = 192 * 1024;

/// A letter of more bytes of JSON than these is a pack of its own.
pub(super) const LARGE_BYTES: usize = 64 * 1024;

/// Where in a pack which letter is.
#[derive(Default, Serialize, Deserialize)]
struct Index {
    /// Of each letter its slot and its length, in the order in which they lie there.
    letters: Vec<(u8, usize)>,
}

/// A pack that was read.
pub(super) struct Pack {
    bytes: Vec<u8>,
    index: Index,
    /// Where the first letter begins.
    start: usize,
}

impl Pack {
    /// Reads the bytes that [`encode`] made.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let bytes = decompress(bytes)?;
        let (index, letters) = postcard::take_from_bytes::<Index>(&bytes)?;
        let start = bytes.len() - letters.len();
        Ok(Self { index, start, bytes })
    }

    /// The letter in this slot, as JSON.
    pub(super) fn letter(&self, slot: u8) -> Option<&[u8]> {
        let mut start = self.start;
        for (at, length) in &self.index.letters {
            if *at == slot {
                return self.bytes.get(start..start.checked_add(*length)?);
            }
            start = start.checked_add(*length)?;
        }
        None
    }
}

/// Packs letters: slots, and the letters as JSON.
pub(super) fn encode(letters: &[(u8, &[u8])]) -> Result<Vec<u8>, StoreError> {
    let index = Index { letters: letters.iter().map(|(slot, json)| (*slot, json.len())).collect() };
    let mut bytes = postcard::to_stdvec(&index)?;
    for (_, json) in letters {
        bytes.extend_from_slice(json);
    }
    Ok(compress(&bytes))
}

/// Shares the letters of a block out to packs, in the order of their offsets.
pub(super) fn share_out(letters: &BTreeMap<u64, Vec<u8>>) -> Vec<Vec<(u8, &[u8])>> {
    let mut packs: Vec<Vec<(u8, &[u8])>> = Vec::new();
    let mut open: Vec<(u8, &[u8])> = Vec::new();
    let mut room = MAX_BYTES;
    for (offset, json) in letters {
        let letter = (slot_of(*offset), json.as_slice());
        if json.len() > LARGE_BYTES {
            packs.push(vec![letter]);
            continue;
        }
        if json.len() > room {
            packs.push(std::mem::take(&mut open));
            room = MAX_BYTES;
        }
        room -= json.len();
        open.push(letter);
    }
    packs.push(open);
    packs.retain(|pack| !pack.is_empty());
    packs
}

/// Compresses bytes: their length, and what LZ4 makes of them.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress_prepend_size(bytes)
}

/// The bytes that [`compress`] was given.
pub(super) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    lz4_flex::block::decompress_size_prepended(bytes).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(letters: &[(u8, &[u8])]) -> Pack {
        Pack::decode(&encode(letters).expect("a pack")).expect("the pack")
    }

    fn slots(packs: &[Vec<(u8, &[u8])>]) -> Vec<Vec<u8>> {
        packs.iter().map(|pack| pack.iter().map(|(slot, _)| *slot).collect()).collect()
    }

    proptest! {
        /// Any slots, with gaps between them or without.
        #[test]
        fn what_was_packed_is_read(
            letters in proptest::collection::btree_map(0..64_u8, proptest::collection::vec(any::<u8>(), 0..300), 0..64)
        ) {
            let given: Vec<(u8, &[u8])> = letters.iter().map(|(slot, json)| (*slot, json.as_slice())).collect();
            let pack = read(&given);
            for slot in 0..=64 {
                prop_assert_eq!(pack.letter(slot), letters.get(&slot).map(Vec::as_slice));
            }
        }
    }

    #[test]
    fn an_empty_pack_has_no_letter() {
        let pack = read(&[]);
        assert!((0..=u8::MAX).all(|slot| pack.letter(slot).is_none()));
    }

    #[test]
    fn neighbours_that_are_alike_shrink() {
        let json = br#"{"id":"dl_1","state":"pending","reason":"exhausted","campaignId":"13010"}"#;
        let letters: Vec<(u8, &[u8])> = (0..64).map(|slot| (slot, json.as_slice())).collect();
        assert!(encode(&letters).expect("a pack").len() < json.len() * 64 / 8);
    }

    #[test]
    fn bytes_that_are_no_pack_are_refused() {
        let pack = encode(&[(1, b"a letter".as_slice())]).expect("a pack");
        for damaged in [&pack[..pack.len() - 1], b"", b"\xff", &[0xff; 40]] {
            assert!(matches!(Pack::decode(damaged), Err(StoreError::Damaged(_))), "{damaged:?}");
        }
        // An index that promises more than there is.
        let index = postcard::to_stdvec(&Index { letters: vec![(0, 1), (1, usize::MAX), (2, 1)] }).expect("an index");
        let pack = Pack::decode(&compress(&[index, vec![7]].concat())).expect("a pack");
        assert_eq!([0, 1, 2].map(|slot| pack.letter(slot)), [Some([7].as_slice()), None, None]);
    }

    #[test]
    fn large_letters_are_left_out_of_the_others_packs() {
        let small = || vec![b'x'; 100];
        let letters = BTreeMap::from([
            (64, small()),
            (65, vec![b'x'; LARGE_BYTES]),
            (70, vec![b'x'; LARGE_BYTES + 1]),
            (71, small()),
            (127, vec![b'x'; 3 * MAX_BYTES]),
        ]);
        assert_eq!(slots(&share_out(&letters)), [vec![6], vec![63], vec![0, 1, 7]]);
        assert_eq!(share_out(&BTreeMap::new()).len(), 0);
    }

    #[test]
    fn a_pack_that_is_full_is_followed_by_another() {
        let letters: BTreeMap<u64, Vec<u8>> = (0..7).map(|slot| (slot, vec![b'x'; MAX_BYTES / 3])).collect();
        assert_eq!(slots(&share_out(&letters)), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }
}
