//! How a replay stands, in words: for the progress, for its end, and what to do next.

use serde_json::Value;

use crate::cli::dead_letters::filter::{self, flags};
use crate::cli::sanitize;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::duration::rough;
use crate::replays::rate_meter::{RateMeter, decimal};

/// What to make of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    Paused,
    Ended,
    /// A word this version does not know.
    Unknown,
}

pub(super) fn stage(replay: &Value) -> Stage {
    match replay["state"].as_str() {
        Some("running") => Stage::Running,
        Some("paused") => Stage::Paused,
        Some("done" | "cancelled" | "stopped") => Stage::Ended,
        _ => Stage::Unknown,
    }
}

pub(super) fn number(replay: &Value, name: &str) -> u64 {
    replay[name].as_u64().unwrap_or_default()
}

/// The id, as a command has it.
pub(super) fn id(replay: &Value) -> String {
    sanitize::shell_word(replay["id"].as_str().unwrap_or_default())
}

pub(in crate::cli) fn created(replay: &Value) -> String {
    format!("replay {} of {} created", id(replay), sanitize::dead_letters(number(replay, "total")))
}

/// What can be done with a replay, by its state.
pub(in crate::cli) fn commands(replay: &Value) -> String {
    let id = id(replay);
    let commands: &[&str] = match stage(replay) {
        Stage::Running | Stage::Unknown => &["follow", "pause", "cancel"],
        Stage::Paused => &["resume", "follow", "cancel"],
        Stage::Ended => &["show"],
    };
    commands.iter().map(|command| format!("  waypost replays {command} {id}")).collect::<Vec<_>>().join("\n")
}

/// `sent 120 of 1,000 · delivered 118 · failed 2 · 20/s · 44s left`; what was put back on its queue only where there is any.
pub(super) fn progress(replay: &Value, pace: &RateMeter) -> String {
    let count = |name: &str| sanitize::count(&replay[name]);
    let mut words = vec![
        format!("sent {} of {}", count("sent"), count("total")),
        format!("delivered {}", count("delivered")),
        format!("failed {}", count("failed")),
    ];
    if number(replay, "requeued") > 0 {
        words.insert(2, format!("requeued {}", count("requeued")));
    }
    match stage(replay) {
        Stage::Running => {
            let per_second = pace.per_second();
            words.extend(per_second.map(|rate| format!("{}/s", decimal(rate))));
            words.extend(pace.time_for(unsent(replay)).map(|left| format!("{} left", rough(left))));
        }
        Stage::Paused => words.push(format!("paused, until `waypost replays resume {}`", id(replay))),
        Stage::Ended | Stage::Unknown => words.push(sanitize::field(&replay["state"], 20)),
    }
    words.join(" · ")
}

/// How a replay stands, or has ended, on one line.
pub(super) fn standing(replay: &Value) -> String {
    let count = |name: &str| sanitize::count(&replay[name]);
    let state = sanitize::field(&replay["state"], 20);
    // Nobody has received these: whether they can be read now, the new dead letters tell.
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

/// How many letters it has not sent.
pub(super) fn unsent(replay: &Value) -> u64 {
    number(replay, "total").saturating_sub(number(replay, "sent"))
}

/// What a cancellation does: `cancel replay rp_1, after which 545 dead letters that it has not sent are pending again`.
pub(super) fn cancellation(replay: &Value) -> String {
    let unsent = sanitize::dead_letters(unsent(replay));
    format!("cancel replay {}, after which {unsent} that it has not sent are {}", id(replay), again(replay))
}

/// What did not go well, and what to do about it. None where nothing failed, and all was sent.
pub(super) fn trouble(replay: &Value) -> Option<String> {
    let failed = number(replay, "failed");
    let unsent = sanitize::dead_letters(unsent(replay));
    let cut_short = match replay["state"].as_str() {
        Some("stopped") => {
            let ratio = replay["stopOnFailureRatio"].as_f64().map_or_else(String::new, |ratio| format!(" ({ratio})"));
            Some(format!("it stopped by its failure ratio{ratio}; {unsent} not sent are {}", again(replay)))
        }
        Some("cancelled") => Some(format!("it was cancelled; {unsent} not sent are {}", again(replay))),
        _ => None,
    };
    let failed = (failed > 0)
        .then(|| format!("{} failed again, and became new ones:\n  {}", sanitize::dead_letters(failed), list(replay)));
    // Not those that have just failed, which the filter alone would take as well.
    let mut filter = replay["filter"].clone();
    if let Some(filter) = filter.as_object_mut() {
        filter.entry("until").or_insert_with(|| replay["createdAt"].clone());
    }
    let filter = flags(&filter, &filter::ALL);
    let limits = [("--rate", "ratePerSecond"), ("--stop-on-failure-ratio", "stopOnFailureRatio")];
    let limits = limits.iter().filter_map(|(flag, name)| Some(format!(" {flag} {}", replay[*name].as_f64()?)));
    let renew = (cut_short.is_some() && !filter.is_empty()).then(|| {
        format!("to send what was not sent:\n  waypost dead-letters replay {filter}{}", limits.collect::<String>())
    });
    let trouble: Vec<String> = [cut_short, failed, renew].into_iter().flatten().collect();
    (!trouble.is_empty()).then(|| trouble.join("\n"))
}

/// Whether its letters were named. A list has not all of the names.
fn is_by_id(replay: &Value) -> bool {
    !replay["ids"].is_null() || !replay["idCount"].is_null()
}

/// In which state the letters are that a replay gives back.
fn again(replay: &Value) -> &'static str {
    let pending = !is_by_id(replay) && matches!(replay["filter"]["state"].as_str(), None | Some("pending"));
    if pending { "pending again" } else { "as they were before" }
}

/// The command that lists the letters this replay has made.
fn list(replay: &Value) -> String {
    let kept = flags(&replay["filter"], &LetterFilter::LASTING);
    let since = flags(&serde_json::json!({ "since": replay["createdAt"], "state": "pending" }), &filter::ALL);
    ["waypost dead-letters list", &kept, &since]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What it sends again, as the flags it was created with.
pub(super) fn selection(replay: &Value) -> String {
    if is_by_id(replay) {
        let ids = replay["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
        return match ids {
            [id] => sanitize::field(id, 64),
            ids => format!("{} by id", sanitize::dead_letters(number(replay, "idCount").max(ids.len() as u64))),
        };
    }
    let flags = flags(&replay["filter"], &filter::ALL);
    if flags.is_empty() { "--all".to_owned() } else { flags }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn replay(state: &str, total: u64, delivered: u64, failed: u64) -> Value {
        json!({ "id": "rp_1", "state": state, "filter": { "campaignId": "13010", "label": "Welcome Message", "status": 503 },
            "ratePerSecond": null, "config": "current", "stopOnFailureRatio": 0.5, "total": total, "sent": delivered + failed,
            "delivered": delivered, "failed": failed, "createdAt": "2026-11-22T03:00:00.123Z", "createdBy": "ops", "endedAt": null })
    }

    fn pace(per_second: u64) -> RateMeter {
        let begin = Instant::now();
        let mut pace = RateMeter::default();
        pace.add(begin, 0);
        pace.add(begin + Duration::from_secs(1), per_second);
        pace
    }

    #[test]
    fn progress_in_words() {
        let running = replay("running", 1000, 118, 2);
        assert_eq!(progress(&running, &pace(20)), "sent 120 of 1,000 · delivered 118 · failed 2 · 20/s · 44s left");
        assert_eq!(progress(&running, &RateMeter::default()), "sent 120 of 1,000 · delivered 118 · failed 2");
        assert_eq!(progress(&running, &pace(0)), "sent 120 of 1,000 · delivered 118 · failed 2 · 0/s");
        assert_eq!(
            progress(&replay("paused", 9, 1, 0), &pace(1)),
            "sent 1 of 9 · delivered 1 · failed 0 · paused, until `waypost replays resume rp_1`"
        );
        let slow = progress(&replay("running", 1_000_000, 0, 0), &pace(3));
        assert!(slow.ends_with(" · 3/s · 3days 20h left"), "{slow}");
    }

    #[test]
    fn what_was_delivered_is_no_trouble() {
        let done = replay("done", 3, 3, 0);
        assert_eq!(standing(&done), "replay rp_1 done: 3 delivered, 0 failed, of 3 dead letters");
        assert_eq!(trouble(&done), None);
        // Nor is what was no event.
        let mut done = replay("done", 5, 3, 0);
        (done["sent"], done["requeued"]) = (5.into(), 2.into());
        assert_eq!(
            standing(&done),
            "replay rp_1 done: 3 delivered, 2 back on the events queue, 0 failed, of 5 dead letters"
        );
        assert_eq!(progress(&done, &RateMeter::default()), "sent 5 of 5 · delivered 3 · requeued 2 · failed 0 · done");
        assert_eq!(trouble(&done), None);
    }

    #[test]
    fn what_failed_again_is_listed_by_a_command() {
        assert_eq!(
            trouble(&replay("done", 3, 2, 1)).unwrap(),
            "1 dead letter failed again, and became new ones:\n  waypost dead-letters list --campaign 13010 \
             --label 'Welcome Message' --since 2026-11-22T03:00:00.123Z --state pending"
        );
    }

    #[test]
    fn what_was_not_sent_is_sent_by_another() {
        let stopped = trouble(&replay("stopped", 100, 5, 15)).unwrap();
        let (first, rest) = stopped.split_once('\n').unwrap();
        assert_eq!(first, "it stopped by its failure ratio (0.5); 80 dead letters not sent are pending again");
        assert!(rest.starts_with("15 dead letters failed again"), "{rest}");
        let again = "to send what was not sent:\n  waypost dead-letters replay --campaign 13010 --label 'Welcome Message' \
                     --status 503 --until 2026-11-22T03:00:00.123Z --stop-on-failure-ratio 0.5";
        assert!(rest.ends_with(again), "{rest}");
        let mut all = replay("stopped", 100, 5, 15);
        all["filter"] = json!({});
        assert!(trouble(&all).unwrap().contains("waypost dead-letters replay --until 2026-11-22T03:00:00.123Z"));
        all["filter"] = json!({ "until": "2026-11-21T00:00:00.000Z" });
        assert!(trouble(&all).unwrap().contains("waypost dead-letters replay --until 2026-11-21T00:00:00.000Z"));
        let mut cancelled = replay("cancelled", 100, 5, 0);
        cancelled.as_object_mut().unwrap().remove("filter");
        cancelled["ids"] = json!(["dl_1"]);
        assert_eq!(trouble(&cancelled).unwrap(), "it was cancelled; 95 dead letters not sent are as they were before");
    }

    #[test]
    fn a_cancellation_says_how_much_it_concerns() {
        let running = replay("running", 1000, 450, 5);
        assert_eq!(
            cancellation(&running),
            "cancel replay rp_1, after which 545 dead letters that it has not sent are pending again"
        );
    }

    #[test]
    fn what_can_be_done_with_it() {
        assert_eq!(
            commands(&replay("running", 1, 0, 0)),
            "  waypost replays follow rp_1\n  waypost replays pause rp_1\n  waypost replays cancel rp_1"
        );
        assert!(commands(&replay("paused", 1, 0, 0)).starts_with("  waypost replays resume rp_1\n"));
        assert_eq!(commands(&replay("done", 1, 1, 0)), "  waypost replays show rp_1");
    }

    #[test]
    fn what_it_sends() {
        assert_eq!(selection(&replay("done", 1, 1, 0)), "--campaign 13010 --label 'Welcome Message' --status 503");
        assert_eq!(selection(&json!({ "filter": {} })), "--all");
        assert_eq!(selection(&json!({ "ids": ["dl_1"] })), "dl_1");
        assert_eq!(selection(&json!({ "ids": ["dl_1", "dl_2"] })), "2 dead letters by id");
        assert_eq!(selection(&json!({ "idCount": 10_000 })), "10,000 dead letters by id");
    }
}
