//! Tests of the decisions of a replay.

use proptest::prelude::*;

use super::claims::LetterClaim;
use super::*;
use crate::campaign::MASK;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// A replay that has just been created.
pub(super) fn example_replay() -> Replay {
    Replay {
        id: ReplayId::new("rp_1"),
        state: ReplayState::Running,
        filter: Some(LetterFilter::default()),
        ids: None,
        rate_per_second: None,
        config: ReplayConfig::Current,
        stop_on_failure_ratio: None,
        total: 0,
        sent: 0,
        delivered: 0,
        requeued: 0,
        failed: 0,
        created_at: NOW,
        created_by: "ana".to_owned(),
        ended_at: None,
    }
}

fn progress(total: u64, ratio: Option<f64>) -> ReplayProgress {
    let replay = Replay { stop_on_failure_ratio: ratio, ..example_replay() };
    let mut progress = ReplayProgress::new(replay);
    assert_eq!(progress.next_batch_size(), None, "a batch before all letters are claimed");
    progress.add_claimed(total);
    progress.finish_claiming();
    progress
}

fn outcome_of(fails: bool) -> ReplayOutcome {
    if fails { ReplayOutcome::Dead } else { ReplayOutcome::Delivered }
}

/// Sends letters in batches, as a worker does, until the replay ends. Returns how many letters were sent.
fn run(progress: &mut ReplayProgress, fails: impl Fn(u64) -> bool) -> u64 {
    while let Some(batch_size) = progress.next_batch_size() {
        for _ in 0..u64::from(batch_size).min(progress.left) {
            progress.record_result(outcome_of(fails(progress.replay.sent)), LetterClaim::Own);
        }
        progress.evaluate(NOW);
    }
    progress.replay.sent
}

#[test]
fn a_replay_is_done_when_all_letters_are_sent() {
    let mut progress = progress(250, None);
    assert_eq!(run(&mut progress, |sent| sent % 10 == 0), 250);
    assert_eq!(
        (progress.replay.state, progress.replay.delivered, progress.replay.failed),
        (ReplayState::Done, 225, 25)
    );
    assert_eq!(progress.next_batch_size(), None);
}

#[test]
fn a_broken_endpoint_only_gets_the_canary() {
    for (ratio, total, expected) in [(0.5, 40_000, 20), (1.0, 40_000, 20), (0.0, 40_000, 20), (0.5, 7, 7)] {
        let mut progress = progress(total, Some(ratio));
        assert_eq!(run(&mut progress, |_| true), expected, "{ratio} {total}");
        assert_eq!(progress.replay.state, ReplayState::Stopped);
    }
}

#[test]
fn few_failures_do_not_stop_a_replay() {
    let mut progress = progress(40_000, Some(0.1));
    assert_eq!(run(&mut progress, |sent| sent % 20 == 0), 40_000);
    assert_eq!(progress.replay.state, ReplayState::Done);
    // A ratio of 0 only stops the replay after a failure.
    let mut progress = self::progress(100, Some(0.0));
    assert_eq!(run(&mut progress, |_| false), 100);
}

#[test]
fn requeued_letters_count_neither_as_delivered_nor_as_failed() {
    // Every second letter is requeued. All other letters fail.
    let mut progress = progress(1000, Some(0.5));
    while let Some(batch_size) = progress.next_batch_size() {
        for _ in 0..u64::from(batch_size).min(progress.left) {
            let requeued = progress.replay.sent.is_multiple_of(2);
            let outcome = if requeued { ReplayOutcome::Requeued } else { ReplayOutcome::Dead };
            progress.record_result(outcome, LetterClaim::Own);
        }
        progress.evaluate(NOW);
    }
    let Replay { state, sent, delivered, requeued, failed, .. } = progress.replay;
    assert_eq!(
        (state, delivered, failed),
        (ReplayState::Stopped, 0, 20),
        "requeued letters do not count for the canary"
    );
    assert_eq!(sent, delivered + requeued + failed);

    // Requeued letters never stop a replay.
    let mut progress = self::progress(30, Some(0.0));
    while progress.left > 0 {
        progress.record_result(ReplayOutcome::Requeued, LetterClaim::Own);
        progress.evaluate(NOW);
    }
    assert_eq!(
        (progress.replay.state, progress.replay.requeued, progress.replay.delivered),
        (ReplayState::Done, 30, 0)
    );
    // Fewer letters than the canary are evaluated at the end.
    let mut progress = self::progress(30, Some(0.5));
    for number in 0..30 {
        let outcome = if number < 27 { ReplayOutcome::Requeued } else { outcome_of(number > 27) };
        progress.record_result(outcome, LetterClaim::Own);
    }
    progress.evaluate(NOW);
    assert_eq!(progress.replay.state, ReplayState::Stopped);
}

#[test]
fn an_endpoint_that_breaks_later_stops_the_replay_soon() {
    let mut progress = progress(40_000, Some(0.5));
    let sent = run(&mut progress, |sent| sent >= 30_000);
    assert!((30_000..31_100).contains(&sent), "{sent}");
    assert_eq!(progress.replay.state, ReplayState::Stopped);
}

#[test]
fn commands_that_do_not_fit_the_state_change_nothing() {
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
fn the_next_batch_and_the_release_depend_on_the_state() {
    let mut progress = progress(5, None);
    assert_eq!(progress.next_batch_size(), Some(MAX_BATCH_LETTERS));
    progress.control(ReplayCommand::Pause, NOW).expect("the replay is running");
    assert_eq!(progress.next_batch_size(), None);
    assert!(!progress.has_letters_to_release());
    progress.control(ReplayCommand::Cancel, NOW).expect("the replay is open");
    assert_eq!(progress.next_batch_size(), None);
    assert!(progress.has_letters_to_release());
    progress.record_released(5);
    assert!(!progress.has_letters_to_release());
    assert_eq!(progress.control(ReplayCommand::Resume, NOW), Err(ReplayState::Cancelled));
}

#[test]
fn a_replay_without_letters_is_done() {
    let progress = progress(0, None);
    assert_eq!((progress.replay.state, progress.replay.total), (ReplayState::Done, 0));
}

#[test]
fn a_slow_replay_has_small_batches() {
    for (rate, batch_size) in [(0.1, 1), (1.0, 1), (9.5, 10), (100.0, 100), (1e9, 100)] {
        let mut progress = progress(1000, None);
        progress.replay.rate_per_second = Some(rate);
        assert_eq!(progress.next_batch_size(), Some(batch_size), "{rate}");
    }
}

#[test]
fn each_replay_has_a_share_of_the_requests() {
    for (own, all, running, expected) in [
        (0, 0, 1, true),
        (31, 31, 1, true),
        (32, 32, 1, false),
        // The second replay uses the share that was free.
        (20, 52, 2, true),
        (21, 53, 2, false),
        (15, 64, 3, false),
        // Each replay may always have one request.
        (0, 64, 7, true),
        (0, 300, 200, true),
        (1, 200, 200, false),
    ] {
        assert_eq!(may_start_request(own, all, running), expected, "{own} of {all}, {running} running");
    }
}

proptest! {
    /// For any outcomes and commands: the counts add up, nothing is sent after the end, and a replay ends only once.
    #[test]
    fn counts_and_states_are_consistent(
        total in 1_u64..500,
        ratio in prop::option::of(0.0_f64..=1.0),
        outcomes in prop::collection::vec(prop::sample::select(ReplayOutcome::ALL.to_vec()), 500),
        commands in prop::collection::vec(prop::sample::select(vec![None, Some(ReplayCommand::Pause), Some(ReplayCommand::Resume), Some(ReplayCommand::Cancel)]), 40),
    ) {
        let mut progress = progress(total, ratio);
        for command in commands {
            let before = progress.clone();
            if let Some(command) = command
                && progress.control(command, NOW).is_err()
            {
                prop_assert_eq!(&progress, &before);
            }
            if let Some(batch_size) = progress.next_batch_size() {
                prop_assert_eq!(progress.replay.state, ReplayState::Running);
                for _ in 0..u64::from(batch_size).min(progress.left) {
                    progress.record_result(outcomes[progress.replay.sent as usize], LetterClaim::Own);
                }
                progress.evaluate(NOW);
            }
            if progress.has_letters_to_release() {
                progress.record_released(progress.left);
            }
            let replay = &progress.replay;
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

#[test]
fn only_the_phone_number_of_an_erased_person_is_masked() {
    let filter = |phone_number: Option<&str>| LetterFilter {
        phone_number: phone_number.map(str::to_owned),
        label: Some("a".to_owned()),
        ..LetterFilter::default()
    };
    for (before, after) in [
        (Some(filter(Some("+5511999990000"))), Some(filter(Some(MASK)))),
        (Some(filter(Some("+5511999990001"))), Some(filter(Some("+5511999990001")))),
        (Some(filter(None)), Some(filter(None))),
        (None, None),
    ] {
        let mut replay = Replay { filter: before.clone(), ..progress(1, None).replay };
        replay.mask_person(|phone_number| phone_number == "+5511999990000");
        assert_eq!(replay.filter, after, "{before:?}");
    }
}
