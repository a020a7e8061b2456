//! The schedule of faults. It depends on the seed, the length of the drill and the participants.

use std::time::Duration;

use super::fault::{Fault, Lane};
use super::rng::Rng;

/// No fault starts before. In the first second of a queue, RabbitMQ 3.10 can lose its messages when it loses a node.
const INITIAL_QUIET_TIME: Duration = Duration::from_secs(3);

/// The minimum and maximum pause between two faults of a lane.
const FAULT_INTERVAL_RANGE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// The pause in sequential mode.
const SEQUENTIAL_INTERVAL_RANGE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(6));

/// The number of receivers that have a fault at the same time.
const RECEIVER_LANES: usize = 2;

#[derive(Debug, Clone)]
pub(crate) struct Participants {
    pub(crate) workers: usize,
    pub(crate) nodes: usize,
    /// Connections to the broker through a proxy: first those of the workers, then those of the publishers.
    pub(crate) connections: usize,
    pub(crate) receivers: usize,
    /// Faults that are excluded or impossible.
    pub(crate) excluded: Vec<Fault>,
}

/// A scheduled fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Injection {
    pub(crate) fault: Fault,
    /// The index of the worker, node, connection or receiver.
    pub(crate) target: usize,
    /// Time since the start of the drill. The injection starts later if the previous fault takes longer than planned.
    pub(crate) starts_at: Duration,
    pub(crate) duration: Duration,
}

/// How faults follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScheduleMode {
    /// Lanes run concurrently, so several faults are active at once.
    Concurrent,
    /// One fault at a time, each after a pause. So each stall has one cause.
    Sequential,
}

/// The injections of each lane, in order. In each lane every kind of fault occurs before one is repeated, if there is
/// enough time.
pub(crate) fn build_schedule(
    seed: u64,
    length: Duration,
    mode: ScheduleMode,
    cast: &Participants,
) -> Vec<Vec<Injection>> {
    let possible = Fault::ALL.into_iter().filter(|fault| !cast.excluded.contains(fault));
    let of = |lane: Lane| possible.clone().filter(|fault| fault.lane() == lane).collect::<Vec<_>>();
    let lanes = match mode {
        ScheduleMode::Sequential => vec![possible.collect()],
        ScheduleMode::Concurrent => {
            let lanes = [Lane::Workers, Lane::Nodes, Lane::Connections].map(of);
            lanes.into_iter().chain(std::iter::repeat_n(of(Lane::Receivers), RECEIVER_LANES)).collect()
        }
    };
    let lanes = lanes.iter().zip(0..);
    lanes.map(|(possible, number)| build_lane(possible, Rng::for_part(seed, number), length, mode, cast)).collect()
}

fn build_lane(
    possible: &[Fault],
    mut rng: Rng,
    length: Duration,
    mode: ScheduleMode,
    cast: &Participants,
) -> Vec<Injection> {
    let (shortest, longest) = match mode {
        ScheduleMode::Concurrent => FAULT_INTERVAL_RANGE,
        ScheduleMode::Sequential => SEQUENTIAL_INTERVAL_RANGE,
    };
    let members = |lane: Lane| match lane {
        Lane::Workers => cast.workers,
        Lane::Nodes => cast.nodes,
        Lane::Connections => cast.connections,
        Lane::Receivers => cast.receivers,
    };
    let mut injections = Vec::new();
    let mut now = INITIAL_QUIET_TIME;
    let mut bag: Vec<Fault> = Vec::new();
    loop {
        now += rng.between(shortest, longest);
        if bag.is_empty() {
            bag = possible.to_vec();
            rng.shuffle(&mut bag);
        }
        // Skips a fault that would not end in time.
        let fits = |fault: &Fault| now + fault.duration_range().1 <= length;
        let Some(place) = bag.iter().rposition(fits) else {
            if possible.iter().any(fits) && !bag.is_empty() {
                bag.clear();
                continue;
            }
            return injections;
        };
        let fault = bag.remove(place);
        let (least, most) = fault.duration_range();
        let duration = rng.between(least, most);
        injections.push(Injection { fault, target: rng.below(members(fault.lane())), starts_at: now, duration });
        now += duration;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cast() -> Participants {
        Participants { workers: 3, nodes: 3, connections: 5, receivers: 6, excluded: Vec::new() }
    }

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let length = Duration::from_secs(60);
        assert_eq!(
            build_schedule(7, length, ScheduleMode::Concurrent, &cast()),
            build_schedule(7, length, ScheduleMode::Concurrent, &cast())
        );
        assert_ne!(
            build_schedule(7, length, ScheduleMode::Concurrent, &cast()),
            build_schedule(8, length, ScheduleMode::Concurrent, &cast())
        );
    }

    #[test]
    fn a_long_drill_has_every_fault_and_what_is_left_out_is_not_in_it() {
        let mut cast = cast();
        let kinds = |mode, cast: &Participants| {
            let plan = build_schedule(1, Duration::from_secs(600), mode, cast);
            plan.into_iter().flatten().map(|injection| injection.fault).collect::<BTreeSet<_>>()
        };
        for mode in [ScheduleMode::Concurrent, ScheduleMode::Sequential] {
            assert_eq!(kinds(mode, &cast).len(), Fault::ALL.len());
        }
        cast.excluded = vec![Fault::DiskFull];
        assert_eq!(kinds(ScheduleMode::Concurrent, &cast).len(), Fault::ALL.len() - 1);
        assert!(!kinds(ScheduleMode::Concurrent, &cast).contains(&Fault::DiskFull));
    }

    #[test]
    fn in_a_lane_one_comes_after_the_other_and_all_is_over_in_time() {
        for seed in 0..100 {
            for seconds in [0, 5, 20, 120] {
                let length = Duration::from_secs(seconds);
                let mode = if seed % 2 == 0 { ScheduleMode::Concurrent } else { ScheduleMode::Sequential };
                for lane in build_schedule(seed, length, mode, &cast()) {
                    for pair in lane.windows(2) {
                        assert!(pair[0].starts_at + pair[0].duration < pair[1].starts_at, "{pair:?}");
                    }
                    assert!(
                        lane.iter().all(|injection| injection.starts_at >= INITIAL_QUIET_TIME && injection.target < 6)
                    );
                    assert!(lane.iter().all(|injection| injection.starts_at + injection.duration <= length));
                }
            }
        }
    }
}
