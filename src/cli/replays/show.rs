//! `waypost replays show`: the details of a replay.

use waypost_api::replays::ReplayResponse;
use waypost_core::timestamp;
use waypost_engine::replays::rate_meter::decimal;

use super::labels;
use crate::cli::sanitize;

pub(super) fn render(response: &ReplayResponse) -> String {
    let replay = &response.replay;
    let rate = replay.rate_per_second;
    let rate = rate.map_or_else(|| "unlimited".to_owned(), |rate| format!("at most {} a second", decimal(rate)));
    let ratio = replay.stop_on_failure_ratio;
    let ratio = ratio.map_or_else(|| "never".to_owned(), |ratio| format!("at a failure ratio of {ratio}"));
    let created_by = sanitize::text(&*replay.created_by, usize::MAX);
    let fields = [
        ("which", labels::selection(response)),
        ("configuration", replay.config.as_str().to_owned()),
        ("rate", rate),
        ("stops", ratio),
        ("created", format!("{} by {created_by}", timestamp::text(&replay.created_at))),
        ("ended", replay.ended_at.as_ref().map_or_else(|| sanitize::EMPTY.to_owned(), timestamp::text)),
    ];
    let fields: String = fields.into_iter().map(|(label, value)| format!("  {label:<16} {value}\n")).collect();
    let next_steps = if replay.state.is_open() { Some(labels::commands(replay)) } else { labels::problems(replay) };
    let next_steps = next_steps.map_or_else(String::new, |next_steps| format!("\n{next_steps}"));
    format!("{}\n\n{fields}{next_steps}", labels::status_line(replay)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::replay::{Replay, ReplayState};

    use super::*;
    use crate::cli::replays::labels::tests::response;

    #[test]
    fn a_replay_is_shown_with_its_next_commands() {
        let replay = response(
            json!({ "id": "rp_1", "state": "running", "filter": { "campaignId": "13010" }, "ratePerSecond": 20.0,
            "config": "current", "stopOnFailureRatio": 0.5, "total": 1000, "sent": 455, "delivered": 450, "failed": 5,
            "createdAt": "2026-11-22T03:04:05.678Z", "createdBy": "ops", "endedAt": null }),
        );
        let expected = "\
replay rp_1 running: 450 delivered, 5 failed, of 1,000 dead letters

  which            --campaign 13010
  configuration    current
  rate             at most 20 a second
  stops            at a failure ratio of 0.5
  created          2026-11-22T03:04:05.678Z by ops
  ended            –

  waypost replays follow rp_1
  waypost replays pause rp_1
  waypost replays cancel rp_1";
        assert_eq!(render(&replay), expected);
        let with_state = |state| ReplayResponse::with_all_ids(Replay { state, ..replay.replay.clone() });
        let cancelled = render(&with_state(ReplayState::Cancelled));
        assert!(cancelled.contains("cancelled: 545 dead letters were not sent and are pending again"), "{cancelled}");
        let done = Replay { failed: 0, ..with_state(ReplayState::Done).replay };
        let done = ReplayResponse::with_all_ids(done);
        assert!(render(&done).ends_with("ended            –"), "{}", render(&done));
    }
}
