//! `waypost dead-letters summary`: counts dead letters, with a bar chart.

use chrono::Utc;
use clap::Args;
use indicatif::HumanCount;
use serde_json::Value;

use crate::cli::client::{Api, DEAD_LETTERS, Server};
use crate::cli::error::CliError;
use crate::cli::letter_filter::{Filter, FilterQuery};
use crate::cli::sanitize;
use crate::cli::stdio::out;

/// The width of a full bar in characters.
const BAR_WIDTH: u64 = 30;

/// Bar characters, by the number of filled eighths.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters summary --since 1day --state pending")]
pub(in crate::cli) struct Summary {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
}

impl Summary {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let query = self.filter.to_query(Utc::now())?;
        let summary = fetch(&self.server.api()?, &query).await?;
        if self.json {
            out!("{summary}");
        } else if summary["total"] == 0 {
            out!("{}", if query.is_empty() { "No dead letters." } else { "No dead letter matches." });
        } else {
            out!("{}", render(&summary));
        }
        Ok(())
    }
}

/// Reads the counts of the dead letters that match.
pub(super) async fn fetch(api: &Api, query: &FilterQuery) -> Result<Value, CliError> {
    api.get(&[DEAD_LETTERS, "summary"], &query.params()).await
}

fn render(summary: &Value) -> String {
    let total = number(&summary["total"]);
    let groups = [
        ("STATE", "states", "state", "moreStates"),
        ("REASON", "reasons", "reason", "moreReasons"),
        ("LAST STATUS", "statuses", "status", "moreStatuses"),
        ("CAMPAIGN", "campaigns", "campaignId", "moreCampaigns"),
        ("WEBHOOK (CAMPAIGN)", "webhooks", "webhookId", "moreWebhooks"),
    ];
    let counts = groups.map(|(title, list, name, more)| {
        let items = summary[list].as_array().into_iter().flatten();
        let counts: Vec<_> = items.map(|item| (display_name(item, name), number(&item["count"]))).collect();
        (title, counts, number(&summary[more]))
    });
    let names = counts.iter().flat_map(|(_, counts, _)| counts.iter().map(|(name, _)| name.chars().count()));
    let widest = names.max().unwrap_or_default();
    let groups = counts.iter().filter(|(_, counts, _)| !counts.is_empty()).map(|(title, counts, more)| {
        let bars: String = counts.iter().map(|(name, count)| line(name, widest, *count, total)).collect();
        let more = if *more > 0 { format!("\n  and {} more", HumanCount(*more)) } else { String::new() };
        format!("\n\n{title}{bars}{more}")
    });
    let (oldest, newest) = (sanitize::time(&summary["oldest"]), sanitize::time(&summary["newest"]));
    format!("{}, from {oldest} to {newest}{}", sanitize::dead_letters(total), groups.collect::<String>())
}

fn line(name: &str, widest: usize, count: u64, total: u64) -> String {
    let text = format!("\n  {name:<widest$}  {:>10}  {}", HumanCount(count).to_string(), bar(count, total));
    text.trim_end().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// A webhook is shown with its campaign. A message that could not be read has neither.
fn display_name(item: &Value, name: &str) -> String {
    let value = sanitize::field(&item[name], 40);
    match item["campaignId"].as_str() {
        Some(campaign) if name == "webhookId" => format!("{value} ({})", sanitize::line(campaign, 30)),
        _ => value,
    }
}

/// A bar for `count` of `total`. At least an eighth of a character is shown if `count` is not 0.
fn bar(count: u64, total: u64) -> String {
    let eighths =
        (u128::from(count) * u128::from(BAR_WIDTH) * 8 / u128::from(total.max(1))).min(u128::from(BAR_WIDTH) * 8);
    // At most 240.
    let eighths = usize::try_from(eighths).unwrap_or_default().max(usize::from(count > 0));
    let last = EIGHTHS[eighths % 8];
    format!("{}{last}", "█".repeat(eighths / 8)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bars_are_proportional() {
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(50, 100), "█".repeat(15));
        assert_eq!(bar(2, 100), "▌");
        assert_eq!(bar(100, 100), "█".repeat(30));
        // The total was counted a moment earlier.
        assert_eq!(bar(101, 100), "█".repeat(30));
        assert_eq!(bar(1, 0), "█".repeat(30));
    }

    #[test]
    fn counts_are_shown_in_groups() {
        let summary = json!({ "total": 1200, "oldest": "2026-11-21T03:04:05.678Z", "newest": "2026-11-22T03:04:05.678Z",
            "states": [{ "state": "pending", "count": 1200 }],
            "reasons": [{ "reason": "exhausted", "count": 900 }, { "reason": "malformed", "count": 300 }],
            "statuses": [{ "status": "5xx", "count": 900 }, { "status": "none", "count": 300 }],
            "campaigns": [{ "campaignId": "13010", "count": 900 }], "moreCampaigns": 0,
            "webhooks": [{ "webhookId": "wh_1", "campaignId": "13010", "count": 1 }], "moreWebhooks": 7 });
        let expected = "\
1,200 dead letters, from 2026-11-21T03:04:05Z to 2026-11-22T03:04:05Z

STATE
  pending            1,200  ██████████████████████████████

REASON
  exhausted            900  ██████████████████████▌
  malformed            300  ███████▌

LAST STATUS
  5xx                  900  ██████████████████████▌
  none                 300  ███████▌

CAMPAIGN
  13010                900  ██████████████████████▌

WEBHOOK (CAMPAIGN)
  wh_1 (13010)           1  ▏
  and 7 more";
        assert_eq!(render(&summary), expected);
    }
}
