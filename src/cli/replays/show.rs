//! A replay on a page: `waypost replays show`.

use serde_json::Value;

use super::labels;
use crate::cli::sanitize;
use crate::replays::rate_meter::decimal;

pub(super) fn page(replay: &Value) -> String {
    let field = |name: &str| sanitize::field(&replay[name], usize::MAX);
    let rate = replay["ratePerSecond"]
        .as_f64()
        .map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("at most {} a second", decimal(rate)));
    let ratio = replay["stopOnFailureRatio"].as_f64();
    let ratio = ratio.map_or_else(|| "never".to_owned(), |ratio| format!("once {ratio} of the requests have failed"));
    let facts = [
        ("which", labels::selection(replay)),
        ("configuration", field("config")),
        ("rate", rate),
        ("stops by itself", ratio),
        ("created", format!("{} by {}", field("createdAt"), field("createdBy"))),
        ("ended", field("endedAt")),
    ];
    let facts: String = facts.into_iter().map(|(words, fact)| format!("  {words:<16} {fact}\n")).collect();
    let trouble = match labels::stage(replay) {
        labels::Stage::Ended => labels::trouble(replay),
        _ => Some(labels::commands(replay)),
    };
    let trouble = trouble.map_or_else(String::new, |trouble| format!("\n{trouble}"));
    format!("{}\n\n{facts}{trouble}", labels::standing(replay)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_of_a_replay() {
        let mut replay = json!({ "id": "rp_1", "state": "running", "filter": { "campaignId": "13010" }, "ratePerSecond": 20.0,
            "config": "current", "stopOnFailureRatio": 0.5, "total": 1000, "sent": 455, "delivered": 450, "failed": 5,
            "createdAt": "2026-11-22T03:04:05.678Z", "createdBy": "ops", "endedAt": null });
        let expected = "\
replay rp_1 running: 450 delivered, 5 failed, of 1,000 dead letters

  which            --campaign 13010
  configuration    current
  rate             at most 20 a second
  stops by itself  once 0.5 of the requests have failed
  created          2026-11-22T03:04:05.678Z by ops
  ended            –

  waypost replays follow rp_1
  waypost replays pause rp_1
  waypost replays cancel rp_1";
        assert_eq!(page(&replay), expected);
        replay["state"] = "cancelled".into();
        assert!(page(&replay).contains("it was cancelled; 545 dead letters not sent are pending again"));
        let done = json!({ "id": "rp_1", "state": "done", "ids": ["dl_1"], "total": 1, "sent": 1, "delivered": 1, "failed": 0 });
        assert!(page(&done).ends_with("ended            –"), "{}", page(&done));
    }
}
