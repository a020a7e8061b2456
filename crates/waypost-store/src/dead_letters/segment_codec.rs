//! Encodes letters of one block as compressed packs. Neighbouring letters are similar, so a pack is about an eighth of
//! the JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::location::slot_of;
use crate::StoreError;

/// Maximum size of the JSON in a pack of several letters. To read one letter, its whole pack is read.
const MAX_PACK_BYTES: usize = 192 * 1024;

/// A letter with more JSON than this has a pack of its own.
pub(super) const LARGE_LETTER_BYTES: usize = 64 * 1024;

/// The directory of a pack.
#[derive(Default, Serialize, Deserialize)]
struct Index {
    /// Slot and length of each letter, in the order of their bytes.
    letters: Vec<(u8, usize)>,
}

/// A decoded pack.
pub(super) struct Pack {
    bytes: Vec<u8>,
    index: Index,
    /// The position of the first letter's first byte.
    start: usize,
}

impl Pack {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let bytes = decompress(bytes)?;
        let (index, letters) = postcard::take_from_bytes::<Index>(&bytes)?;
        let start = bytes.len() - letters.len();
        Ok(Self { index, start, bytes })
    }

    /// The JSON of the letter in this slot.
    pub(super) fn letter(&self, slot: u8) -> Option<&[u8]> {
        let mut start = self.start;
        for (letter_slot, length) in &self.index.letters {
            if *letter_slot == slot {
                return self.bytes.get(start..start.checked_add(*length)?);
            }
            start = start.checked_add(*length)?;
        }
        None
    }
}

/// Encodes a pack of letters, given as slot and JSON.
pub(super) fn encode(letters: &[(u8, &[u8])]) -> Result<Vec<u8>, StoreError> {
    let index = Index { letters: letters.iter().map(|(slot, json)| (*slot, json.len())).collect() };
    let mut bytes = postcard::to_stdvec(&index)?;
    for (_, json) in letters {
        bytes.extend_from_slice(json);
    }
    Ok(compress(&bytes))
}

/// Splits the letters of a block into packs, in the order of their offsets.
pub(super) fn split_into_packs(letters: &BTreeMap<u64, Vec<u8>>) -> Vec<Vec<(u8, &[u8])>> {
    let mut packs: Vec<Vec<(u8, &[u8])>> = Vec::new();
    let mut open: Vec<(u8, &[u8])> = Vec::new();
    let mut free_bytes = MAX_PACK_BYTES;
    for (offset, json) in letters {
        let letter = (slot_of(*offset), json.as_slice());
        if json.len() > LARGE_LETTER_BYTES {
            packs.push(vec![letter]);
            continue;
        }
        if json.len() > free_bytes {
            packs.push(std::mem::take(&mut open));
            free_bytes = MAX_PACK_BYTES;
        }
        free_bytes -= json.len();
        open.push(letter);
    }
    packs.push(open);
    packs.retain(|pack| !pack.is_empty());
    packs
}

/// The length of `bytes`, followed by the LZ4 block.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress_prepend_size(bytes)
}

/// The inverse of [`compress`].
pub(super) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    lz4_flex::block::decompress_size_prepended(bytes).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode_and_decode(letters: &[(u8, &[u8])]) -> Pack {
        Pack::decode(&encode(letters).expect("a pack")).expect("the pack")
    }

    fn slots(packs: &[Vec<(u8, &[u8])>]) -> Vec<Vec<u8>> {
        packs.iter().map(|pack| pack.iter().map(|(slot, _)| *slot).collect()).collect()
    }

    proptest! {
        #[test]
        fn a_pack_is_decoded_as_it_was_encoded(
            letters in proptest::collection::btree_map(0..64_u8, proptest::collection::vec(any::<u8>(), 0..300), 0..64)
        ) {
            let slots_and_json: Vec<(u8, &[u8])> = letters.iter().map(|(slot, json)| (*slot, json.as_slice())).collect();
            let pack = encode_and_decode(&slots_and_json);
            for slot in 0..=64 {
                prop_assert_eq!(pack.letter(slot), letters.get(&slot).map(Vec::as_slice));
            }
        }
    }

    #[test]
    fn an_empty_pack_has_no_letter() {
        let pack = encode_and_decode(&[]);
        assert!((0..=u8::MAX).all(|slot| pack.letter(slot).is_none()));
    }

    #[test]
    fn similar_letters_are_compressed() {
        let json = br#"{"id":"dl_1","state":"pending","reason":"exhausted","campaignId":"13010"}"#;
        let letters: Vec<(u8, &[u8])> = (0..64).map(|slot| (slot, json.as_slice())).collect();
        assert!(encode(&letters).expect("a pack").len() < json.len() * 64 / 8);
    }

    #[test]
    fn damaged_packs_are_errors() {
        let pack = encode(&[(1, b"a letter".as_slice())]).expect("a pack");
        for damaged in [&pack[..pack.len() - 1], b"", b"\xff", &[0xff; 40]] {
            assert!(matches!(Pack::decode(damaged), Err(StoreError::Damaged(_))), "{damaged:?}");
        }
        // An index with more bytes than the pack has.
        let index = postcard::to_stdvec(&Index { letters: vec![(0, 1), (1, usize::MAX), (2, 1)] }).expect("an index");
        let pack = Pack::decode(&compress(&[index, vec![7]].concat())).expect("a pack");
        assert_eq!([0, 1, 2].map(|slot| pack.letter(slot)), [Some([7].as_slice()), None, None]);
    }

    #[test]
    fn a_large_letter_has_a_pack_of_its_own() {
        let small = || vec![b'x'; 100];
        let letters = BTreeMap::from([
            (64, small()),
            (65, vec![b'x'; LARGE_LETTER_BYTES]),
            (70, vec![b'x'; LARGE_LETTER_BYTES + 1]),
            (71, small()),
            (127, vec![b'x'; 3 * MAX_PACK_BYTES]),
        ]);
        assert_eq!(slots(&split_into_packs(&letters)), [vec![6], vec![63], vec![0, 1, 7]]);
        assert_eq!(split_into_packs(&BTreeMap::new()).len(), 0);
    }

    #[test]
    fn a_full_pack_is_followed_by_another() {
        let letters: BTreeMap<u64, Vec<u8>> = (0..7).map(|slot| (slot, vec![b'x'; MAX_PACK_BYTES / 3])).collect();
        assert_eq!(slots(&split_into_packs(&letters)), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }
}
