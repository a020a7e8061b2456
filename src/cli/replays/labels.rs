//! Texts about a replay: its progress, its state, its problems, and the commands to run next.

use serde_json::Value;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::duration::approximate;
use waypost_engine::replays::rate_meter::{RateMeter, decimal};

use crate::cli::letter_filter::{self, flags};
use crate::cli::sanitize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    Running,
    Paused,
    Ended,
    /// A state that this version does not know.
    Unknown,
}

pub(super) fn run_state(replay: &Value) -> RunState {
    match replay["state"].as_str() {
        Some("running") => RunState::Running,
        Some("paused") => RunState::Paused,
        Some("done" | "cancelled" | "stopped") => RunState::Ended,
        _ => RunState::Unknown,
    }
}

pub(super) fn number(replay: &Value, name: &str) -> u64 {
    replay[name].as_u64().unwrap_or_default()
}

/// The id, quoted for a shell.
pub(super) fn id(replay: &Value) -> String {
    sanitize::shell_word(replay["id"].as_str().unwrap_or_default())
}

pub(in crate::cli) fn created(replay: &Value) -> String {
    format!("replay {} of {} created", id(replay), sanitize::dead_letters(number(replay, "total")))
}

/// The commands that are possible in its state, one on each line.
pub(in crate::cli) fn commands(replay: &Value) -> String {
    let id = id(replay);
    let commands: &[&str] = match run_state(replay) {
        RunState::Running | RunState::Unknown => &["follow", "pause", "cancel"],
        RunState::Paused => &["resume", "follow", "cancel"],
        RunState::Ended => &["show"],
    };
    commands.iter().map(|command| format!("  waypost replays {command} {id}")).collect::<Vec<_>>().join("\n")
}

/// `sent 120 of 1,000 · delivered 118 · failed 2 · 20/s · 44s left`. Requeued dead letters are shown only if there are
/// any.
pub(super) fn progress(replay: &Value, rate_meter: &RateMeter) -> String {
    let count = |name: &str| sanitize::count(&replay[name]);
    let mut words = vec![
        format!("sent {} of {}", count("sent"), count("total")),
        format!("delivered {}", count("delivered")),
        format!("failed {}", count("failed")),
    ];
    if number(replay, "requeued") > 0 {
        words.insert(2, format!("requeued {}", count("requeued")));
    }
    match run_state(replay) {
        RunState::Running => {
            let per_second = rate_meter.per_second();
            words.extend(per_second.map(|rate| format!("{}/s", decimal(rate))));
            words.extend(rate_meter.time_for(unsent(replay)).map(|left| format!("{} left", approximate(left))));
        }
        RunState::Paused => words.push(format!("paused, until `waypost replays resume {}`", id(replay))),
        RunState::Ended | RunState::Unknown => words.push(sanitize::field(&replay["state"], 20)),
    }
    words.join(" · ")
}

pub(super) fn status_line(replay: &Value) -> String {
    let count = |name: &str| sanitize::count(&replay[name]);
    let state = sanitize::field(&replay["state"], 20);
    // Not delivered. If they still can't be read, they become new dead letters.
    let requeued = match number(replay, "requeued") {
        0 => String::new(),
        _ => format!(", {} back on the events queue", count("requeued")),
    };
    format!(
        "replay {} {state}: {} delivered{requeued}, {} failed, of {}",
        id(replay),
        count("delivered"),
        count("failed"),
        sanitize::dead_letters(number(replay, "total"))
    )
}

pub(super) fn unsent(replay: &Value) -> u64 {
    number(replay, "total").saturating_sub(number(replay, "sent"))
}

/// The effect of `waypost replays cancel`: `cancel replay rp_1, after which 545 dead letters that it has not sent are
/// pending again`.
pub(super) fn cancel_effect(replay: &Value) -> String {
    let unsent = sanitize::dead_letters(unsent(replay));
    format!("cancel replay {}, after which {unsent} that it has not sent are {}", id(replay), restored_state(replay))
}

/// What failed or was not sent, and the commands to fix it. `None` if everything was sent and nothing failed.
pub(super) fn problems(replay: &Value) -> Option<String> {
    let failed = number(replay, "failed");
    let unsent = sanitize::dead_letters(unsent(replay));
    let early_end = match replay["state"].as_str() {
        Some("stopped") => {
            let ratio = replay["stopOnFailureRatio"].as_f64().map_or_else(String::new, |ratio| format!(" ({ratio})"));
            Some(format!("stopped by the failure ratio{ratio}: {unsent} not sent are {}", restored_state(replay)))
        }
        Some("cancelled") => Some(format!("cancelled: {unsent} not sent are {}", restored_state(replay))),
        _ => None,
    };
    let failed = (failed > 0).then(|| {
        format!(
            "{} failed again. To list the new dead letters:\n  {}",
            sanitize::dead_letters(failed),
            list_command(replay)
        )
    });
    // Excludes the new dead letters, which the filter alone would match as well.
    let mut filter = replay["filter"].clone();
    if let Some(filter) = filter.as_object_mut() {
        filter.entry("until").or_insert_with(|| replay["createdAt"].clone());
    }
    let filter = flags(&filter, &letter_filter::ALL_NAMES);
    let limits = [("--rate", "ratePerSecond"), ("--stop-on-failure-ratio", "stopOnFailureRatio")];
    let limits = limits.iter().filter_map(|(flag, name)| Some(format!(" {flag} {}", replay[*name].as_f64()?)));
    let resend = (early_end.is_some() && !filter.is_empty())
        .then(|| format!("to send the others:\n  waypost dead-letters replay {filter}{}", limits.collect::<String>()));
    let problems: Vec<String> = [early_end, failed, resend].into_iter().flatten().collect();
    (!problems.is_empty()).then(|| problems.join("\n"))
}

/// True if the replay was created with ids. Lists of replays have `idCount` instead of the ids.
fn is_by_id(replay: &Value) -> bool {
    !replay["ids"].is_null() || !replay["idCount"].is_null()
}

/// The state of dead letters that the replay did not send.
fn restored_state(replay: &Value) -> &'static str {
    let pending = !is_by_id(replay) && matches!(replay["filter"]["state"].as_str(), None | Some("pending"));
    if pending { "pending again" } else { "as they were before" }
}

/// The command that lists the new dead letters of this replay.
fn list_command(replay: &Value) -> String {
    let stable_flags = flags(&replay["filter"], &LetterFilter::STABLE_FIELDS);
    let since =
        flags(&serde_json::json!({ "since": replay["createdAt"], "state": "pending" }), &letter_filter::ALL_NAMES);
    ["waypost dead-letters list", &stable_flags, &since]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The selection as the arguments that created the replay.
pub(super) fn selection(replay: &Value) -> String {
    if is_by_id(replay) {
        let ids = replay["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
        return match ids {
            [id] => sanitize::field(id, 64),
            ids => format!("{} by id", sanitize::dead_letters(number(replay, "idCount").max(ids.len() as u64))),
        };
    }
    let flags = flags(&replay["filter"], &letter_filter::ALL_NAMES);
    if flags.is_empty() { "--all".to_owned() } else { flags }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn replay(state: &str, total: u64, delivered: u64, failed: u64) -> Value {
        json!({ "id": "rp_1", "state": state, "filter": { "campaignId": "13010", "label": "Welcome Message", "status": 503 },
            "ratePerSecond": null, "config": "current", "stopOnFailureRatio": 0.5, "total": total, "sent": delivered + failed,
            "delivered": delivered, "failed": failed, "createdAt": "2026-11-22T03:00:00.123Z", "createdBy": "ops", "endedAt": null })
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
        let running = replay("running", 1000, 118, 2);
        assert_eq!(
            progress(&running, &rate_meter(20)),
            "sent 120 of 1,000 · delivered 118 · failed 2 · 20/s · 44s left"
        );
        assert_eq!(progress(&running, &RateMeter::default()), "sent 120 of 1,000 · delivered 118 · failed 2");
        assert_eq!(progress(&running, &rate_meter(0)), "sent 120 of 1,000 · delivered 118 · failed 2 · 0/s");
        assert_eq!(
            progress(&replay("paused", 9, 1, 0), &rate_meter(1)),
            "sent 1 of 9 · delivered 1 · failed 0 · paused, until `waypost replays resume rp_1`"
        );
        let slow = progress(&replay("running", 1_000_000, 0, 0), &rate_meter(3));
        assert!(slow.ends_with(" · 3/s · 3days 20h left"), "{slow}");
    }

    #[test]
    fn a_complete_replay_has_no_problems() {
        let done = replay("done", 3, 3, 0);
        assert_eq!(status_line(&done), "replay rp_1 done: 3 delivered, 0 failed, of 3 dead letters");
        assert_eq!(problems(&done), None);
        // Requeued dead letters are no problem either.
        let mut done = replay("done", 5, 3, 0);
        (done["sent"], done["requeued"]) = (5.into(), 2.into());
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
            problems(&replay("done", 3, 2, 1)).unwrap(),
            "1 dead letter failed again. To list the new dead letters:\n  waypost dead-letters list --campaign 13010 \
             --label 'Welcome Message' --since 2026-11-22T03:00:00.123Z --state pending"
        );
    }

    #[test]
    fn unsent_dead_letters_come_with_a_replay_command() {
        let stopped = problems(&replay("stopped", 100, 5, 15)).unwrap();
        let (first, rest) = stopped.split_once('\n').unwrap();
        assert_eq!(first, "stopped by the failure ratio (0.5): 80 dead letters not sent are pending again");
        assert!(rest.starts_with("15 dead letters failed again"), "{rest}");
        let resend = "to send the others:\n  waypost dead-letters replay --campaign 13010 --label 'Welcome Message' \
                     --status 503 --until 2026-11-22T03:00:00.123Z --stop-on-failure-ratio 0.5";
        assert!(rest.ends_with(resend), "{rest}");
        let mut all = replay("stopped", 100, 5, 15);
        all["filter"] = json!({});
        assert!(problems(&all).unwrap().contains("waypost dead-letters replay --until 2026-11-22T03:00:00.123Z"));
        all["filter"] = json!({ "until": "2026-11-21T00:00:00.000Z" });
        assert!(problems(&all).unwrap().contains("waypost dead-letters replay --until 2026-11-21T00:00:00.000Z"));
        let mut cancelled = replay("cancelled", 100, 5, 0);
        cancelled.as_object_mut().unwrap().remove("filter");
        cancelled["ids"] = json!(["dl_1"]);
        assert_eq!(problems(&cancelled).unwrap(), "cancelled: 95 dead letters not sent are as they were before");
    }

    #[test]
    fn the_cancel_effect_counts_unsent_dead_letters() {
        let running = replay("running", 1000, 450, 5);
        assert_eq!(
            cancel_effect(&running),
            "cancel replay rp_1, after which 545 dead letters that it has not sent are pending again"
        );
    }

    #[test]
    fn commands_depend_on_the_state() {
        assert_eq!(
            commands(&replay("running", 1, 0, 0)),
            "  waypost replays follow rp_1\n  waypost replays pause rp_1\n  waypost replays cancel rp_1"
        );
        assert!(commands(&replay("paused", 1, 0, 0)).starts_with("  waypost replays resume rp_1\n"));
        assert_eq!(commands(&replay("done", 1, 1, 0)), "  waypost replays show rp_1");
    }

    #[test]
    fn the_selection_is_shown_as_arguments() {
        assert_eq!(selection(&replay("done", 1, 1, 0)), "--campaign 13010 --label 'Welcome Message' --status 503");
        assert_eq!(selection(&json!({ "filter": {} })), "--all");
        assert_eq!(selection(&json!({ "ids": ["dl_1"] })), "dl_1");
        assert_eq!(selection(&json!({ "ids": ["dl_1", "dl_2"] })), "2 dead letters by id");
        assert_eq!(selection(&json!({ "idCount": 10_000 })), "10,000 dead letters by id");
    }
}
