//! When what is done to whom: follows from the seed, the length of the drill, and who takes part.

use std::time::Duration;

use super::chance::Chance;
use super::fault::{Fault, Lane};

/// Nothing happens before. Younger than about a second, a queue of RabbitMQ 3.10 that loses its node can come back empty.
const CALM: Duration = Duration::from_secs(3);

/// The pause between two faults of a lane, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

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

/// The injections of each lane, in their order. In every lane each kind of fault comes before one comes again, as far as
/// there is time for it.
pub(crate) fn plan(seed: u64, length: Duration, cast: &Cast) -> Vec<Vec<Injection>> {
    let lanes = [Lane::Workers, Lane::Nodes, Lane::Lines];
    let lanes = lanes.into_iter().chain(std::iter::repeat_n(Lane::Receivers, RECEIVER_LANES));
    lanes.zip(0..).map(|(lane, number)| planned(lane, Chance::of(seed, number), length, cast)).collect()
}

fn planned(lane: Lane, mut chance: Chance, length: Duration, cast: &Cast) -> Vec<Injection> {
    let possible = Fault::ALL.into_iter().filter(|fault| fault.lane() == lane && !cast.left_out.contains(fault));
    let possible: Vec<Fault> = possible.collect();
    let members = match lane {
        Lane::Workers => cast.workers,
        Lane::Nodes => cast.nodes,
        Lane::Lines => cast.lines,
        Lane::Receivers => cast.receivers,
    };
    let mut injections = Vec::new();
    let mut now = CALM;
    let mut bag: Vec<Fault> = Vec::new();
    loop {
        now += chance.between(PAUSE.0, PAUSE.1);
        if bag.is_empty() {
            bag.clone_from(&possible);
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
        injections.push(Injection { fault, whom: chance.below(members), begins: now, lasts });
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
        assert_eq!(plan(7, length, &cast()), plan(7, length, &cast()));
        assert_ne!(plan(7, length, &cast()), plan(8, length, &cast()));
    }

    #[test]
    fn a_long_drill_has_every_fault_and_what_is_left_out_is_not_in_it() {
        let mut cast = cast();
        let kinds = |cast: &Cast| {
            let plan = plan(1, Duration::from_secs(600), cast);
            plan.into_iter().flatten().map(|injection| injection.fault).collect::<BTreeSet<_>>()
        };
        assert_eq!(kinds(&cast).len(), Fault::ALL.len());
        cast.left_out = vec![Fault::DiskFull];
        assert_eq!(kinds(&cast).len(), Fault::ALL.len() - 1);
        assert!(!kinds(&cast).contains(&Fault::DiskFull));
    }

    #[test]
    fn in_a_lane_one_comes_after_the_other_and_all_is_over_in_time() {
        for seed in 0..50 {
            for seconds in [0, 5, 20, 120] {
                let length = Duration::from_secs(seconds);
                for lane in plan(seed, length, &cast()) {
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
