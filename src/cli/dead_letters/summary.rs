//! `waypost dead-letters summary`: counts dead letters, with a bar chart.

use chrono::Utc;
use clap::Args;
use indicatif::HumanCount;
use waypost_api::dead_letters::summary::DeadLetterSummary;
use waypost_core::dead_letter::filter::LetterFilter;

use crate::cli::client::Server;
use crate::cli::error::CliError;
use crate::cli::letter_filter::Filter;
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
        let filter = self.filter.to_filter(Utc::now())?;
        let answer = self.server.client()?.dead_letter_summary(&filter).await?;
        if self.json {
            out!("{answer}");
            return Ok(());
        }
        let summary = answer.read()?;
        if summary.total > 0 {
            out!("{}", render(&summary));
        } else if filter == LetterFilter::default() {
            out!("No dead letters.");
        } else {
            out!("No dead letter matches.");
        }
        Ok(())
    }
}

/// A title, names with their counts, and how many names are left out.
struct Group {
    title: &'static str,
    counts: Vec<(String, u64)>,
    more: usize,
}

fn render(summary: &DeadLetterSummary) -> String {
    let total = summary.total;
    let groups = groups(summary);
    let names = groups.iter().flat_map(|group| group.counts.iter().map(|(name, _)| name.chars().count()));
    let widest = names.max().unwrap_or_default();
    let groups = groups.iter().filter(|group| !group.counts.is_empty()).map(|Group { title, counts, more }| {
        let bars: String = counts.iter().map(|(name, count)| line(name, widest, *count, total)).collect();
        let more = if *more > 0 { format!("\n  and {} more", HumanCount(*more as u64)) } else { String::new() };
        format!("\n\n{title}{bars}{more}")
    });
    let (oldest, newest) = (sanitize::time(summary.oldest.as_ref()), sanitize::time(summary.newest.as_ref()));
    format!("{}, from {oldest} to {newest}{}", sanitize::dead_letters(total), groups.collect::<String>())
}

fn groups(summary: &DeadLetterSummary) -> [Group; 5] {
    let name = |text: &str| sanitize::text(text, 40);
    let states = summary.states.iter().map(|item| (item.state.as_str().to_owned(), item.count));
    let reasons = summary.reasons.iter().map(|item| (item.reason.as_str().to_owned(), item.count));
    let statuses = summary.statuses.iter().map(|item| (name(&item.status), item.count));
    let campaigns = summary.campaigns.iter().map(|item| (name(&item.campaign_id), item.count));
    let webhooks = summary.webhooks.iter().map(|item| {
        let campaign = sanitize::line(&item.campaign_id, 30);
        (format!("{} ({campaign})", name(item.webhook_id.as_str())), item.count)
    });
    [
        Group { title: "STATE", counts: states.collect(), more: 0 },
        Group { title: "REASON", counts: reasons.collect(), more: 0 },
        Group { title: "LAST STATUS", counts: statuses.collect(), more: 0 },
        Group { title: "CAMPAIGN", counts: campaigns.collect(), more: summary.more_campaigns },
        Group { title: "WEBHOOK (CAMPAIGN)", counts: webhooks.collect(), more: summary.more_webhooks },
    ]
}

fn line(name: &str, widest: usize, count: u64, total: u64) -> String {
    let text = format!("\n  {name:<widest$}  {:>10}  {}", HumanCount(count).to_string(), bar(count, total));
    text.trim_end().to_owned()
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
        let summary = serde_json::from_value(
            json!({ "total": 1200, "oldest": "2026-11-21T03:04:05.678Z", "newest": "2026-11-22T03:04:05.678Z",
            "states": [{ "state": "pending", "count": 1200 }],
            "reasons": [{ "reason": "exhausted", "count": 900 }, { "reason": "malformed", "count": 300 }],
            "statuses": [{ "status": "5xx", "count": 900 }, { "status": "none", "count": 300 }],
            "campaigns": [{ "campaignId": "13010", "count": 900 }], "moreCampaigns": 0,
            "webhooks": [{ "webhookId": "wh_1", "campaignId": "13010", "count": 1 }], "moreWebhooks": 7 }),
        )
        .unwrap();
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
