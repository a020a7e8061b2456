//! When what is done to whom: follows from the seed, the length of the drill, and who takes part.

use std::time::Duration;

use super::chance::Chance;
use super::fault::{Fault, Lane};

/// Nothing happens before. Younger than about a second, a queue of RabbitMQ 3.10 that loses its node can come back empty.
const CALM: Duration = Duration::from_secs(3);

/// The pause between two faults of a lane, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// And where nothing else is to be wrong meanwhile.
const REST: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(6));

/// Lanes of receivers: so many of them are in a bad way at once.
const RECEIVER_LANES: usize = 2;

/// Who takes part.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    pub(crate) workers: usize,
    pub(crate) nodes: usize,
    /// Connections to the broker that pass a proxy: those of the workers, and then those of the publishers.
    pub(crate) lines: usize,
    pub(crate) receivers: usize,
    /// What can't be done here.
    pub(crate) left_out: Vec<Fault>,
}

/// A fault, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injection {
    pub(crate) fault: Fault,
    /// Which of the workers, nodes, lines or receivers.
    pub(crate) whom: usize,
    /// From the beginning of the drill. Where the fault before took longer than it was to, it begins when that is over.
    pub(crate) begins: Duration,
    pub(crate) lasts: Duration,
}

/// How faults follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Lanes go side by side: several things are wrong at once.
    Together,
    /// One fault after the other, each after a rest: what a stall is due to can be told.
    Apart,
}

/// The injections of each lane, in their order. In every lane each kind of fault comes before one comes again, as far as
/// there is time for it.
pub(crate) fn plan(seed: u64, length: Duration, manner: Manner, cast: &Cast) -> Vec<Vec<Injection>> {
    let possible = Fault::ALL.into_iter().filter(|fault| !cast.left_out.contains(fault));
    let of = |lane: Lane| possible.clone().filter(|fault| fault.lane() == lane).collect::<Vec<_>>();
    let lanes = match manner {
        Manner::Apart => vec![possible.collect()],
        Manner::Together => {
            let lanes = [Lane::Workers, Lane::Nodes, Lane::Lines].map(of);
            lanes.into_iter().chain(std::iter::repeat_n(of(Lane::Receivers), RECEIVER_LANES)).collect()
        }
    };
    let lanes = lanes.iter().zip(0..);
    lanes.map(|(possible, number)| planned(possible, Chance::of(seed, number), length, manner, cast)).collect()
}

fn planned(possible: &[Fault], mut chance: Chance, length: Duration, manner: Manner, cast: &Cast) -> Vec<Injection> {
    let (shortest, longest) = match manner {
        Manner::Together => PAUSE,
        Manner::Apart => REST,
    };
    let members = |lane: Lane| match lane {
        Lane::Workers => cast.workers,
        Lane::Nodes => cast.nodes,
        Lane::Lines => cast.lines,
        Lane::Receivers => cast.receivers,
    };
    let mut injections = Vec::new();
    let mut now = CALM;
    let mut bag: Vec<Fault> = Vec::new();
    loop {
        now += chance.between(shortest, longest);
        if bag.is_empty() {
            bag = possible.to_vec();
            chance.shuffle(&mut bag);
        }
        // What would not be over in time makes place for what would.
        let fits = |fault: &Fault| now + fault.lasts().1 <= length;
        let Some(place) = bag.iter().rposition(fits) else {
            if possible.iter().any(fits) && !bag.is_empty() {
                bag.clear();
                continue;
            }
            return injections;
        };
        let fault = bag.remove(place);
        let (least, most) = fault.lasts();
        let lasts = chance.between(least, most);
        injections.push(Injection { fault, whom: chance.below(members(fault.lane())), begins: now, lasts });
        now += lasts;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cast() -> Cast {
        Cast { workers: 3, nodes: 3, lines: 5, receivers: 6, left_out: Vec::new() }
    }

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let length = Duration::from_secs(60);
        assert_eq!(plan(7, length, Manner::Together, &cast()), plan(7, length, Manner::Together, &cast()));
        assert_ne!(plan(7, length, Manner::Together, &cast()), plan(8, length, Manner::Together, &cast()));
    }

    #[test]
    fn a_long_drill_has_every_fault_and_what_is_left_out_is_not_in_it() {
        let mut cast = cast();
        let kinds = |manner, cast: &Cast| {
            let plan = plan(1, Duration::from_secs(600), manner, cast);
            plan.into_iter().flatten().map(|injection| injection.fault).collect::<BTreeSet<_>>()
        };
        for manner in [Manner::Together, Manner::Apart] {
            assert_eq!(kinds(manner, &cast).len(), Fault::ALL.len());
        }
        cast.left_out = vec![Fault::DiskFull];
        assert_eq!(kinds(Manner::Together, &cast).len(), Fault::ALL.len() - 1);
        assert!(!kinds(Manner::Together, &cast).contains(&Fault::DiskFull));
    }

    #[test]
    fn in_a_lane_one_comes_after_the_other_and_all_is_over_in_time() {
        for seed in 0..100 {
            for seconds in [0, 5, 20, 120] {
                let length = Duration::from_secs(seconds);
                let manner = if seed % 2 == 0 { Manner::Together } else { Manner::Apart };
                for lane in plan(seed, length, manner, &cast()) {
                    for pair in lane.windows(2) {
                        assert!(pair[0].begins + pair[0].lasts < pair[1].begins, "{pair:?}");
                    }
                    assert!(lane.iter().all(|injection| injection.begins >= CALM && injection.whom < 6));
                    assert!(lane.iter().all(|injection| injection.begins + injection.lasts <= length));
                }
            }
        }
    }
}
