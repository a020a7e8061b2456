//! Reproducible random numbers (SplitMix64).

use std::time::Duration;

/// A sequence of random numbers that depends only on the seed.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The sequence of a seed and a part. Each part has its own sequence, so that parts do not affect each other.
    pub(crate) fn for_part(seed: u64, part: u64) -> Self {
        Self(mix(seed, part))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(SPLITMIX_INCREMENT);
        usize::try_from(scramble(self.0) % bound as u64).expect("a number that fits in usize")
    }

    /// A duration from `least` to `most`, in whole milliseconds.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = usize::try_from((most - least).as_millis()).expect("a span that fits in usize");
        least + Duration::from_millis(self.below(span + 1) as u64)
    }

    /// Shuffles items in place.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

const SPLITMIX_INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that depends on both arguments.
pub(crate) fn mix(one: u64, other: u64) -> u64 {
    scramble(scramble(one.wrapping_add(SPLITMIX_INCREMENT)) ^ other.wrapping_mul(SPLITMIX_INCREMENT))
}

fn scramble(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_row_again_and_another_part_another_row() {
        let row = |seed, part| {
            let mut rng = Rng::for_part(seed, part);
            (0..8).map(|_| rng.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(row(7, 1), row(7, 1));
        assert_ne!(row(7, 1), row(7, 2));
        assert_ne!(row(7, 1), row(8, 1));
    }

    #[test]
    fn times_are_within_their_bounds_and_a_shuffle_loses_nothing() {
        let mut rng = Rng::for_part(1, 1);
        let (least, most) = (Duration::from_millis(10), Duration::from_millis(12));
        let times: Vec<Duration> = (0..100).map(|_| rng.between(least, most)).collect();
        assert!(times.iter().all(|time| (least..=most).contains(time)));
        assert!([least, most].iter().all(|bound| times.contains(bound)));
        let mut items: Vec<u32> = (0..20).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
