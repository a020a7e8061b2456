//! The course of a replay, decision by decision.

use proptest::prelude::*;

use super::*;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn job(total: u64, ratio: Option<f64>) -> ReplayProgress {
    let replay = Replay {
        id: ReplayId::new("rp_1"),
        state: ReplayState::Running,
        filter: Some(LetterFilter::default()),
        ids: None,
        rate_per_second: None,
        config: ReplayConfig::Current,
        stop_on_failure_ratio: ratio,
        total: 0,
        sent: 0,
        delivered: 0,
        requeued: 0,
        failed: 0,
        created_at: NOW,
        created_by: "ana".to_owned(),
        ended_at: None,
    };
    let mut job = ReplayProgress::new(replay);
    assert_eq!(job.next_slice(), None, "it sends before it has claimed");
    job.claimed(total);
    job.all_claimed();
    job
}

fn outcome(fails: bool) -> ReplayOutcome {
    if fails { ReplayOutcome::Dead } else { ReplayOutcome::Delivered }
}

/// Sends letters slice by slice, as a worker does, and tells how many were sent until it ended.
fn run(job: &mut ReplayProgress, fails: impl Fn(u64) -> bool) -> u64 {
    while let Some(most) = job.next_slice() {
        for _ in 0..u64::from(most).min(job.left) {
            job.sent(outcome(fails(job.replay.sent)));
        }
        job.judge(NOW);
    }
    job.replay.sent
}

#[test]
fn it_ends_when_all_is_sent() {
    let mut job = job(250, None);
    assert_eq!(run(&mut job, |sent| sent % 10 == 0), 250);
    assert_eq!((job.replay.state, job.replay.delivered, job.replay.failed), (ReplayState::Done, 225, 25));
    assert_eq!(job.next_slice(), None);
}

#[test]
fn a_broken_endpoint_gets_the_canary_and_no_more() {
    for (ratio, total, expected) in [(0.5, 40_000, 20), (1.0, 40_000, 20), (0.0, 40_000, 20), (0.5, 7, 7)] {
        let mut job = job(total, Some(ratio));
        assert_eq!(run(&mut job, |_| true), expected, "{ratio} {total}");
        assert_eq!(job.replay.state, ReplayState::Stopped);
    }
}

#[test]
fn few_failures_stop_nothing() {
    let mut job = job(40_000, Some(0.1));
    assert_eq!(run(&mut job, |sent| sent % 20 == 0), 40_000);
    assert_eq!(job.replay.state, ReplayState::Done);
    // A ratio of nothing stops at a failure, not before there is one.
    let mut job = self::job(100, Some(0.0));
    assert_eq!(run(&mut job, |_| false), 100);
}

#[test]
fn what_is_put_back_is_neither_a_success_nor_a_failure() {
    // Every other letter was no event; of the others all fail.
    let mut job = job(1000, Some(0.5));
    while let Some(most) = job.next_slice() {
        for _ in 0..u64::from(most).min(job.left) {
            let requeued = job.replay.sent.is_multiple_of(2);
            job.sent(if requeued { ReplayOutcome::Requeued } else { ReplayOutcome::Dead });
        }
        job.judge(NOW);
    }
    let Replay { state, sent, delivered, requeued, failed, .. } = job.replay;
    assert_eq!((state, delivered, failed), (ReplayState::Stopped, 0, 20), "the canary is of those that can fail");
    assert_eq!(sent, delivered + requeued + failed);

    // Where nothing can fail, nothing stops it.
    let mut job = self::job(30, Some(0.0));
    while job.left > 0 {
        job.sent(ReplayOutcome::Requeued);
        job.judge(NOW);
    }
    assert_eq!((job.replay.state, job.replay.requeued, job.replay.delivered), (ReplayState::Done, 30, 0));
    // The few that can are judged at the end.
    let mut job = self::job(30, Some(0.5));
    for number in 0..30 {
        job.sent(if number < 27 { ReplayOutcome::Requeued } else { outcome(number > 27) });
    }
    job.judge(NOW);
    assert_eq!(job.replay.state, ReplayState::Stopped);
}

#[test]
fn an_endpoint_that_breaks_late_is_noticed_soon() {
    let mut job = job(40_000, Some(0.5));
    let sent = run(&mut job, |sent| sent >= 30_000);
    assert!((30_000..31_100).contains(&sent), "{sent}");
    assert_eq!(job.replay.state, ReplayState::Stopped);
}

#[test]
fn commands_fit_the_state_or_change_nothing() {
    use ReplayState::{Cancelled, Done, Paused, Running, Stopped};
    for (state, pause, resume, cancel) in [
        (Running, Some(Paused), None, Some(Cancelled)),
        (Paused, None, Some(Running), Some(Cancelled)),
        (Done, None, None, None),
        (Cancelled, None, None, None),
        (Stopped, None, None, None),
    ] {
        let results =
            [ReplayCommand::Pause, ReplayCommand::Resume, ReplayCommand::Cancel].map(|command| command.apply(state));
        assert_eq!(results, [pause, resume, cancel], "{state:?}");
    }
}

#[test]
fn what_comes_next() {
    let mut job = job(5, None);
    assert_eq!(job.next_slice(), Some(SLICE));
    job.control(ReplayCommand::Pause, NOW).expect("it runs");
    assert_eq!(job.next_slice(), None);
    assert!(!job.is_to_release());
    job.control(ReplayCommand::Cancel, NOW).expect("it is open");
    assert_eq!(job.next_slice(), None);
    assert!(job.is_to_release());
    job.released(5);
    assert!(!job.is_to_release());
    assert_eq!(job.control(ReplayCommand::Resume, NOW), Err(ReplayState::Cancelled));
}

#[test]
fn one_that_finds_nothing_is_done() {
    let job = job(0, None);
    assert_eq!((job.replay.state, job.replay.total), (ReplayState::Done, 0));
}

#[test]
fn a_slow_replay_has_small_slices() {
    for (rate, most) in [(0.1, 1), (1.0, 1), (9.5, 10), (100.0, 100), (1e9, 100)] {
        let mut job = job(1000, None);
        job.replay.rate_per_second = Some(rate);
        assert_eq!(job.next_slice(), Some(most), "{rate}");
    }
}

#[test]
fn each_has_its_share_of_the_requests() {
    for (own, all, running, expected) in [
        (0, 0, 1, true),
        (31, 31, 1, true),
        (32, 32, 1, false),
        // One more has come, whose share was left for it.
        (20, 52, 2, true),
        (21, 53, 2, false),
        (15, 64, 3, false),
        // Nobody is kept from going on at all.
        (0, 64, 7, true),
        (0, 300, 200, true),
        (1, 200, 200, false),
    ] {
        assert_eq!(may_begin(own, all, running), expected, "{own} of {all}, {running} running");
    }
}

proptest! {
    /// Whatever happens to a replay: the counts fit, nothing is sent after its end, and it ends once.
    #[test]
    fn the_account_is_always_right(
        total in 1_u64..500,
        ratio in prop::option::of(0.0_f64..=1.0),
        outcomes in prop::collection::vec(prop::sample::select(ReplayOutcome::ALL.to_vec()), 500),
        commands in prop::collection::vec(prop::sample::select(vec![None, Some(ReplayCommand::Pause), Some(ReplayCommand::Resume), Some(ReplayCommand::Cancel)]), 40),
    ) {
        let mut job = job(total, ratio);
        for command in commands {
            let before = job.clone();
            if let Some(command) = command
                && job.control(command, NOW).is_err()
            {
                prop_assert_eq!(&job, &before);
            }
            if let Some(most) = job.next_slice() {
                prop_assert_eq!(job.replay.state, ReplayState::Running);
                for _ in 0..u64::from(most).min(job.left) {
                    job.sent(outcomes[job.replay.sent as usize]);
                }
                job.judge(NOW);
            }
            if job.is_to_release() {
                job.released(job.left);
            }
            let replay = &job.replay;
            prop_assert_eq!(replay.sent, replay.delivered + replay.requeued + replay.failed);
            prop_assert!(replay.sent <= replay.total);
            prop_assert_eq!(replay.ended_at.is_some(), !replay.state.is_open());
            prop_assert!(replay.state != ReplayState::Done || replay.sent == replay.total);
            if !before.replay.state.is_open() {
                prop_assert_eq!(replay.state, before.replay.state);
            }
        }
    }
}
