//! `waypost dead-letters list`: a table of dead letters, newest first.

use chrono::Utc;
use clap::Args;
use comfy_table::{Table, presets};
use waypost_api::client::Answer;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::ids::WebhookId;
use waypost_core::outcome::Cause;

use crate::cli::client::Server;
use crate::cli::error::CliError;
use crate::cli::letter_filter::Filter;
use crate::cli::stdio::out;
use crate::cli::{json_stream, sanitize};

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters list --campaign 13010 --since 2h

`waypost dead-letters export` writes all of them, for programs.")]
pub(in crate::cli) struct List {
    /// Show at most N, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
}

impl List {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let filter = self.filter.to_filter(Utc::now())?;
        let client = self.server.client()?;
        let mut pages = client.dead_letters(&filter);
        let letters = pages.take(self.limit as usize).await?;
        if self.json {
            out!("{}", json_stream::array(&letters)?);
            return Ok(());
        }
        if letters.is_empty() {
            let is_unfiltered = filter == LetterFilter::default();
            out!("{}", if is_unfiltered { "No dead letters." } else { "No dead letter matches." });
            return Ok(());
        }
        let letters = letters.iter().map(Answer::read).collect::<Result<Vec<_>, _>>()?;
        let letters: Vec<DeadLetter> = letters.into_iter().map(|summary| summary.letter).collect();
        out!("{}\n\n{}", table(&letters), footer(letters.len(), pages.may_have_more()));
        Ok(())
    }
}

fn table(letters: &[DeadLetter]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["DEAD", "STATE", "REASON", "LAST RESPONSE", "CAMPAIGN", "LABEL", "WHERE", "ID"]);
    for letter in letters {
        table.add_row([
            sanitize::time(&letter.dead_at),
            letter.state.as_str().to_owned(),
            letter.reason.as_str().to_owned(),
            last_response(letter),
            sanitize::text(letter.campaign_id.as_deref(), 24),
            sanitize::text(letter.label.as_deref(), 24),
            destination(letter),
            sanitize::text(letter.id.as_str(), 64),
        ]);
    }
    table.trim_fmt()
}

/// The HTTP status, or the cause if there was no response.
fn last_response(letter: &DeadLetter) -> String {
    match (letter.status, letter.cause) {
        (Some(status), _) => status.to_string(),
        (None, cause) => cause.map_or(sanitize::EMPTY, Cause::as_str).to_owned(),
    }
}

/// The URL or the webhook, or the first error of a message that could not be read.
fn destination(letter: &DeadLetter) -> String {
    match letter.errors.first() {
        Some(error) => sanitize::line(&error.to_string(), 56),
        None => sanitize::text(letter.url.as_deref().or(letter.webhook_id.as_ref().map(WebhookId::as_str)), 56),
    }
}

fn footer(shown: usize, may_have_more: bool) -> String {
    let count = sanitize::dead_letters(shown as u64);
    let limit = shown.saturating_mul(4);
    let rest = if may_have_more {
        format!("; there may be more: --limit {limit}, or `waypost dead-letters summary` for the counts")
    } else {
        ", all that match".to_owned()
    };
    format!("{count}{rest}. `waypost dead-letters show ID` shows the details of a dead letter.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_dead_letter_is_a_row() {
        let letters = json!([
            { "id": "dl_1", "state": "pending", "reason": "exhausted", "deadAt": "2026-11-22T03:04:05.678Z",
                "campaignId": "13010", "label": "Welcome Message", "webhookId": "wh_1", "url": "https://example.com/hook",
                "status": 503, "cause": "status_5xx" },
            { "id": "dl_2", "state": "replayed", "reason": "exhausted", "deadAt": "2026-11-22T03:04:04.000Z",
                "campaignId": "c\u{1b}[1m", "label": "Offers", "webhookId": "wh_2", "status": null, "cause": "timeout" },
            { "id": "dl_3", "state": "pending", "reason": "malformed", "deadAt": "2026-11-22T03:04:03.000Z",
                "body": "?", "errors": [{ "path": "$.date", "message": "not an RFC 3339 date" }] },
        ]);
        let letters: Vec<DeadLetter> = serde_json::from_value(letters).unwrap();
        let table = table(&letters);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(rows[0], ["DEAD", "STATE", "REASON", "LAST RESPONSE", "CAMPAIGN", "LABEL", "WHERE", "ID"]);
        let first = [
            "2026-11-22T03:04:05Z",
            "pending",
            "exhausted",
            "503",
            "13010",
            "Welcome Message",
            "https://example.com/hook",
            "dl_1",
        ];
        assert_eq!(rows[1], first);
        assert_eq!(rows[2][3..], ["timeout", "c·[1m", "Offers", "wh_2", "dl_2"]);
        assert_eq!(rows[3][3..], ["–", "–", "–", "$.date: not an RFC 3339 date", "dl_3"]);
    }

    #[test]
    fn the_footer_says_how_to_see_more() {
        assert!(footer(50, true).starts_with("50 dead letters; there may be more: --limit 200, or "));
        assert!(footer(1, false).starts_with("1 dead letter, all that match."));
    }
}
