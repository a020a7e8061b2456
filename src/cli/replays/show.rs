//! `waypost replays show`: the details of a replay.

use serde_json::Value;
use waypost_engine::replays::rate_meter::decimal;

use super::labels;
use crate::cli::sanitize;

pub(super) fn render(replay: &Value) -> String {
    let field = |name: &str| sanitize::field(&replay[name], usize::MAX);
    let rate = replay["ratePerSecond"]
        .as_f64()
        .map_or_else(|| "unlimited".to_owned(), |rate| format!("at most {} a second", decimal(rate)));
    let ratio = replay["stopOnFailureRatio"].as_f64();
    let ratio = ratio.map_or_else(|| "never".to_owned(), |ratio| format!("at a failure ratio of {ratio}"));
    let fields = [
        ("which", labels::selection(replay)),
        ("configuration", field("config")),
        ("rate", rate),
        ("stops", ratio),
        ("created", format!("{} by {}", field("createdAt"), field("createdBy"))),
        ("ended", field("endedAt")),
    ];
    let fields: String = fields.into_iter().map(|(label, value)| format!("  {label:<16} {value}\n")).collect();
    let next_steps = match labels::run_state(replay) {
        labels::RunState::Ended => labels::problems(replay),
        _ => Some(labels::commands(replay)),
    };
    let next_steps = next_steps.map_or_else(String::new, |next_steps| format!("\n{next_steps}"));
    format!("{}\n\n{fields}{next_steps}", labels::status_line(replay)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replay_is_shown_with_its_next_commands() {
        let mut replay = json!({ "id": "rp_1", "state": "running", "filter": { "campaignId": "13010" }, "ratePerSecond": 20.0,
            "config": "current", "stopOnFailureRatio": 0.5, "total": 1000, "sent": 455, "delivered": 450, "failed": 5,
            "createdAt": "2026-11-22T03:04:05.678Z", "createdBy": "ops", "endedAt": null });
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
        replay["state"] = "cancelled".into();
        assert!(render(&replay).contains("cancelled: 545 dead letters not sent are pending again"));
        let done = json!({ "id": "rp_1", "state": "done", "ids": ["dl_1"], "total": 1, "sent": 1, "delivered": 1, "failed": 0 });
        assert!(render(&done).ends_with("ended            –"), "{}", render(&done));
    }
}
