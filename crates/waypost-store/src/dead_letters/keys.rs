//! The keys of the view in sled, and the bits of claims.

use waypost_core::ids::ReplayId;

use super::location::first_offset_of;

/// The key of the view's position in the dead-letter stream.
pub(super) const POSITION_KEY: &[u8] = b"dead-letters";

/// A key in big-endian order, so that keys sort like numbers.
pub(super) fn to_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

pub(super) fn from_key(key: &[u8]) -> u64 {
    key.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The prefix of the keys of a replay's claims.
pub(super) fn claims_prefix(replay: &ReplayId) -> Vec<u8> {
    [replay.as_str().as_bytes(), b"\0"].concat()
}

pub(super) fn claim_key(replay: &ReplayId, block: u64) -> Vec<u8> {
    [claims_prefix(replay), to_key(block).to_vec()].concat()
}

/// The bit of an offset in the claims of its block.
pub(super) fn bit(offset: u64) -> u64 {
    1 << (offset % u64::from(u64::BITS))
}

pub(super) fn block_of_claim_key(key: &[u8]) -> u64 {
    from_key(&key[key.len() - 8..])
}

/// The offsets of the claimed letters of a block. `claims` has one bit per slot.
pub(super) fn claimed_offsets(block: u64, claims: u64) -> impl Iterator<Item = u64> {
    (0..u64::from(u64::BITS)).filter(move |bit| claims >> bit & 1 == 1).map(move |bit| first_offset_of(block) + bit)
}
