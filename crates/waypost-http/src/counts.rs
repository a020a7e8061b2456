//! Sorts counts for display.

use std::collections::HashMap;

/// Sorts by descending count, then by key.
pub(super) fn by_count<K: Ord + Clone>(counts: HashMap<K, u64>) -> Vec<(K, u64)> {
    by_count_with(counts, K::clone)
}

/// Sorts by descending count, then by the name of the key.
pub(super) fn by_count_with<K, N: Ord>(counts: HashMap<K, u64>, name: impl Fn(&K) -> N) -> Vec<(K, u64)> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().collect();
    counts.sort_by_cached_key(|(key, count)| (std::cmp::Reverse(*count), name(key)));
    counts
}
