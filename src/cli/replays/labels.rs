//! Texts about a replay: its progress, its state, its problems, and the commands to run next.

use waypost_api::replays::ReplayResponse;
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::duration::approximate;
use waypost_core::replay::{Replay, ReplayState};
use waypost_engine::replays::rate_meter::{RateMeter, decimal};

use crate::cli::letter_filter::{self, flags};
use crate::cli::sanitize;

/// The id, quoted for a shell.
fn id(replay: &Replay) -> String {
    sanitize::shell_word(replay.id.as_str())
}

pub(in crate::cli) fn created(replay: &Replay) -> String {
    format!("replay {} of {} created", id(replay), sanitize::dead_letters(replay.total))
}

/// The commands that are possible in its state, one on each line.
pub(in crate::cli) fn commands(replay: &Replay) -> String {
    let id = id(replay);
    let commands: &[&str] = match replay.state {
        ReplayState::Running => &["follow", "pause", "cancel"],
        ReplayState::Paused => &["resume", "follow", "cancel"],
        ReplayState::Done | ReplayState::Cancelled | ReplayState::Stopped => &["show"],
    };
    commands.iter().map(|command| format!("  waypost replays {command} {id}")).collect::<Vec<_>>().join("\n")
}

/// `sent 120 of 1,000 · delivered 118 · failed 2 · 20/s · 44s left`. Requeued dead letters are shown only if there are
/// any.
pub(super) fn progress(replay: &Replay, rate_meter: &RateMeter) -> String {
    let mut words = vec![
        format!("sent {} of {}", sanitize::count(replay.sent), sanitize::count(replay.total)),
        format!("delivered {}", sanitize::count(replay.delivered)),
        format!("failed {}", sanitize::count(replay.failed)),
    ];
    if replay.requeued > 0 {
        words.insert(2, format!("requeued {}", sanitize::count(replay.requeued)));
    }
    match replay.state {
        ReplayState::Running => {
            let per_second = rate_meter.per_second();
            words.extend(per_second.map(|rate| format!("{}/s", decimal(rate))));
            words.extend(rate_meter.time_for(unsent(replay)).map(|left| format!("{} left", approximate(left))));
        }
        ReplayState::Paused => words.push(format!("paused, until `waypost replays resume {}`", id(replay))),
        ReplayState::Done | ReplayState::Cancelled | ReplayState::Stopped => {
            words.push(replay.state.as_str().to_owned());
        }
    }
    words.join(" · ")
}

pub(super) fn status_line(replay: &Replay) -> String {
    // Not delivered. If they still can't be read, they become new dead letters.
    let requeued = match replay.requeued {
        0 => String::new(),
        count => format!(", {} back on the events queue", sanitize::count(count)),
    };
    format!(
        "replay {} {}: {} delivered{requeued}, {} failed, of {}",
        id(replay),
        replay.state.as_str(),
        sanitize::count(replay.delivered),
        sanitize::count(replay.failed),
        sanitize::dead_letters(replay.total)
    )
}

pub(super) fn unsent(replay: &Replay) -> u64 {
    replay.total.saturating_sub(replay.sent)
}

/// The effect of `waypost replays cancel`: `cancel replay rp_1: 545 dead letters were not sent, and will be pending again`.
pub(super) fn cancel_effect(replay: &Replay) -> String {
    let unsent = sanitize::dead_letters(unsent(replay));
    format!("cancel replay {}: {unsent} were not sent, and will be {}", id(replay), restored_state(replay))
}

/// What failed or was not sent, and the commands to fix it. `None` if everything was sent and nothing failed.
pub(super) fn problems(replay: &Replay) -> Option<String> {
    let unsent = sanitize::dead_letters(unsent(replay));
    let early_end = match replay.state {
        ReplayState::Stopped => {
            let ratio = replay.stop_on_failure_ratio.map_or_else(String::new, |ratio| format!(" ({ratio})"));
            Some(format!(
                "stopped by the failure ratio{ratio}: {unsent} were not sent and are {}",
                restored_state(replay)
            ))
        }
        ReplayState::Cancelled => Some(format!("cancelled: {unsent} were not sent and are {}", restored_state(replay))),
        ReplayState::Running | ReplayState::Paused | ReplayState::Done => None,
    };
    let failed = (replay.failed > 0).then(|| {
        format!(
            "{} failed again. To list the new dead letters:\n  {}",
            sanitize::dead_letters(replay.failed),
            list_command(replay)
        )
    });
    let resend = replay.filter.as_ref().filter(|_| early_end.is_some()).map(|filter| resend_command(replay, filter));
    let resend = resend.map(|command| format!("to send the others:\n  {command}"));
    let problems: Vec<String> = [early_end, failed, resend].into_iter().flatten().collect();
    (!problems.is_empty()).then(|| problems.join("\n"))
}

/// The command that sends what this replay has not sent. Excludes the new dead letters, which `filter` alone would match
/// as well.
fn resend_command(replay: &Replay, filter: &LetterFilter) -> String {
    let filter = LetterFilter { until: filter.until.or(Some(replay.created_at)), ..filter.clone() };
    let limits = [("--rate", replay.rate_per_second), ("--stop-on-failure-ratio", replay.stop_on_failure_ratio)];
    let limits = limits.iter().filter_map(|(flag, limit)| Some(format!(" {flag} {}", (*limit)?)));
    format!("waypost dead-letters replay {}{}", flags(&filter, &letter_filter::ALL_NAMES), limits.collect::<String>())
}

/// The state of dead letters that the replay did not send.
fn restored_state(replay: &Replay) -> &'static str {
    let state = replay.filter.as_ref().map(|filter| filter.state.unwrap_or(LetterState::Pending));
    if state == Some(LetterState::Pending) { "pending again" } else { "as they were before" }
}

/// The command that lists the new dead letters of this replay.
fn list_command(replay: &Replay) -> String {
    let stable_flags = replay.filter.as_ref().map(|filter| flags(filter, &LetterFilter::STABLE_FIELDS));
    let new =
        LetterFilter { since: Some(replay.created_at), state: Some(LetterState::Pending), ..LetterFilter::default() };
    let parts = [
        "waypost dead-letters list".to_owned(),
        stable_flags.unwrap_or_default(),
        flags(&new, &letter_filter::ALL_NAMES),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The selection as the arguments that created the replay. A list of replays omits many ids, but has their number.
pub(super) fn selection(ReplayResponse { replay, id_count }: &ReplayResponse) -> String {
    match (replay.ids.as_deref(), id_count, &replay.filter) {
        (Some([id]), ..) => sanitize::text(id.as_str(), 64),
        (None, None, filter) => match filter.as_ref().map(|filter| flags(filter, &letter_filter::ALL_NAMES)) {
            Some(flags) if !flags.is_empty() => flags,
            _ => "--all".to_owned(),
        },
        (ids, count, _) => {
            let ids = ids.map_or(0, <[_]>::len);
            format!("{} by id", sanitize::dead_letters(count.unwrap_or_default().max(ids) as u64))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};
    use waypost_core::ids::DeadLetterId;

    use super::*;

    pub(in crate::cli::replays) fn response(json: Value) -> ReplayResponse {
        serde_json::from_value(json).unwrap()
    }

    pub(in crate::cli::replays) fn replay(state: &str, total: u64, delivered: u64, failed: u64) -> ReplayResponse {
        response(
            json!({ "id": "rp_1", "state": state, "filter": { "campaignId": "13010", "label": "Welcome Message", "status": 503 },
            "ratePerSecond": null, "config": "current", "stopOnFailureRatio": 0.5, "total": total, "sent": delivered + failed,
            "delivered": delivered, "failed": failed, "createdAt": "2026-11-22T03:00:00.123Z", "createdBy": "ops", "endedAt": null }),
        )
    }

    fn rate_meter(per_second: u64) -> RateMeter {
        let begin = Instant::now();
        let mut rate_meter = RateMeter::default();
        rate_meter.add(begin, 0);
        rate_meter.add(begin + Duration::from_secs(1), per_second);
        rate_meter
    }

    #[test]
    fn progress_depends_on_the_state() {
        let running = replay("running", 1000, 118, 2).replay;
        assert_eq!(
            progress(&running, &rate_meter(20)),
            "sent 120 of 1,000 · delivered 118 · failed 2 · 20/s · 44s left"
        );
        assert_eq!(progress(&running, &RateMeter::default()), "sent 120 of 1,000 · delivered 118 · failed 2");
        assert_eq!(progress(&running, &rate_meter(0)), "sent 120 of 1,000 · delivered 118 · failed 2 · 0/s");
        assert_eq!(
            progress(&replay("paused", 9, 1, 0).replay, &rate_meter(1)),
            "sent 1 of 9 · delivered 1 · failed 0 · paused, until `waypost replays resume rp_1`"
        );
        let slow = progress(&replay("running", 1_000_000, 0, 0).replay, &rate_meter(3));
        assert!(slow.ends_with(" · 3/s · 3days 20h left"), "{slow}");
    }

    #[test]
    fn a_complete_replay_has_no_problems() {
        let done = replay("done", 3, 3, 0).replay;
        assert_eq!(status_line(&done), "replay rp_1 done: 3 delivered, 0 failed, of 3 dead letters");
        assert_eq!(problems(&done), None);
        // Requeued dead letters are no problem either.
        let done = Replay { sent: 5, requeued: 2, ..replay("done", 5, 3, 0).replay };
        assert_eq!(
            status_line(&done),
            "replay rp_1 done: 3 delivered, 2 back on the events queue, 0 failed, of 5 dead letters"
        );
        assert_eq!(progress(&done, &RateMeter::default()), "sent 5 of 5 · delivered 3 · requeued 2 · failed 0 · done");
        assert_eq!(problems(&done), None);
    }

    #[test]
    fn failures_come_with_a_list_command() {
        assert_eq!(
            problems(&replay("done", 3, 2, 1).replay).unwrap(),
            "1 dead letter failed again. To list the new dead letters:\n  waypost dead-letters list --campaign 13010 \
             --label 'Welcome Message' --since 2026-11-22T03:00:00.123Z --state pending"
        );
    }

    #[test]
    fn unsent_dead_letters_come_with_a_replay_command() {
        let stopped = problems(&replay("stopped", 100, 5, 15).replay).unwrap();
        let (first, rest) = stopped.split_once('\n').unwrap();
        assert_eq!(first, "stopped by the failure ratio (0.5): 80 dead letters were not sent and are pending again");
        assert!(rest.starts_with("15 dead letters failed again"), "{rest}");
        let resend = "to send the others:\n  waypost dead-letters replay --campaign 13010 --label 'Welcome Message' \
                     --status 503 --until 2026-11-22T03:00:00.123Z --stop-on-failure-ratio 0.5";
        assert!(rest.ends_with(resend), "{rest}");
        let with = |filter| Replay { filter: Some(filter), ..replay("stopped", 100, 5, 15).replay };
        let all = with(LetterFilter::default());
        assert!(problems(&all).unwrap().contains("waypost dead-letters replay --until 2026-11-22T03:00:00.123Z"));
        let until = waypost_core::timestamp::parse("2026-11-21T00:00:00.000Z").ok();
        let earlier = with(LetterFilter { until, ..LetterFilter::default() });
        assert!(problems(&earlier).unwrap().contains("waypost dead-letters replay --until 2026-11-21T00:00:00.000Z"));
        let ids = Some(vec![DeadLetterId::new("dl_1")]);
        let cancelled = Replay { filter: None, ids, ..replay("cancelled", 100, 5, 0).replay };
        assert_eq!(
            problems(&cancelled).unwrap(),
            "cancelled: 95 dead letters were not sent and are as they were before"
        );
    }

    #[test]
    fn the_cancel_effect_counts_unsent_dead_letters() {
        let running = replay("running", 1000, 450, 5).replay;
        assert_eq!(
            cancel_effect(&running),
            "cancel replay rp_1: 545 dead letters were not sent, and will be pending again"
        );
    }

    #[test]
    fn commands_depend_on_the_state() {
        assert_eq!(
            commands(&replay("running", 1, 0, 0).replay),
            "  waypost replays follow rp_1\n  waypost replays pause rp_1\n  waypost replays cancel rp_1"
        );
        assert!(commands(&replay("paused", 1, 0, 0).replay).starts_with("  waypost replays resume rp_1\n"));
        assert_eq!(commands(&replay("done", 1, 1, 0).replay), "  waypost replays show rp_1");
    }

    #[test]
    fn the_selection_is_shown_as_arguments() {
        let by_filter = replay("done", 1, 1, 0);
        assert_eq!(selection(&by_filter), "--campaign 13010 --label 'Welcome Message' --status 503");
        let all = Replay { filter: Some(LetterFilter::default()), ..by_filter.replay.clone() };
        assert_eq!(selection(&ReplayResponse::with_all_ids(all)), "--all");
        let by_ids = |ids: &[&str]| {
            let ids = ids.iter().map(|id| DeadLetterId::new(*id)).collect();
            ReplayResponse::with_all_ids(Replay { filter: None, ids: Some(ids), ..by_filter.replay.clone() })
        };
        assert_eq!(selection(&by_ids(&["dl_1"])), "dl_1");
        assert_eq!(selection(&by_ids(&["dl_1", "dl_2"])), "2 dead letters by id");
        let without_ids = Replay { filter: None, ..by_filter.replay.clone() };
        let in_list = ReplayResponse { replay: without_ids, id_count: Some(10_000) };
        assert_eq!(selection(&in_list), "10,000 dead letters by id");
    }
}
