//! `waypost replays list`: a table of replays, newest first.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use waypost_api::client::Answer;
use waypost_api::replays::ReplayResponse;

use super::labels::selection;
use crate::cli::client::Server;
use crate::cli::error::CliError;
use crate::cli::stdio::out;
use crate::cli::{json_stream, sanitize};

/// The width of a progress bar in characters.
const BAR_WIDTH: u64 = 10;

#[derive(Args)]
#[command(after_help = "Example:
  waypost replays list --limit 5")]
pub(in crate::cli) struct List {
    /// Show at most N, the newest
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl List {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let mut pages = client.replays();
        let replays = pages.take(self.limit as usize).await?;
        if self.json {
            out!("{}", json_stream::array(&replays)?);
        } else if replays.is_empty() {
            out!("No replays yet: `waypost dead-letters replay` creates one.");
        } else {
            let replays = replays.iter().map(Answer::read).collect::<Result<Vec<_>, _>>()?;
            out!("{}", table(&replays));
            if pages.may_have_more() {
                out!("\nThere may be more: --limit {}.", replays.len().saturating_mul(4));
            }
        }
        Ok(())
    }
}

fn table(replays: &[ReplayResponse]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CREATED", "BY", "STATE", "PROGRESS", "SENT", "OF", "FAILED", "WHICH", "ID"]);
    for response in replays {
        let replay = &response.replay;
        table.add_row([
            sanitize::time(&replay.created_at),
            sanitize::text(&*replay.created_by, 20),
            replay.state.as_str().to_owned(),
            bar(replay.sent, replay.total),
            sanitize::count(replay.sent),
            sanitize::count(replay.total),
            sanitize::count(replay.failed),
            sanitize::line(&selection(response), 60),
            sanitize::text(replay.id.as_str(), 64),
        ]);
    }
    for column in 4..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn bar(sent: u64, total: u64) -> String {
    let full = (u128::from(sent) * u128::from(BAR_WIDTH) / u128::from(total.max(1))).min(u128::from(BAR_WIDTH));
    let full = usize::try_from(full).unwrap_or_default();
    // `full` is at most BAR_WIDTH.
    format!("{}{}", "█".repeat(full), "░".repeat(10 - full))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::replays::labels::tests::response;

    #[test]
    fn each_replay_is_a_row() {
        let replays = [
            response(
                json!({ "id": "rp_2", "state": "running", "filter": { "campaignId": "13010" }, "config": "current",
                "total": 1000, "sent": 455, "delivered": 450, "failed": 5, "createdAt": "2026-11-22T03:04:05.678Z",
                "createdBy": "ops", "endedAt": null }),
            ),
            response(
                json!({ "id": "rp_1", "state": "done", "ids": ["dl_1"], "config": "current", "total": 1, "sent": 1,
                "delivered": 1, "failed": 0, "createdAt": "2026-11-21T03:04:05.678Z", "createdBy": "",
                "endedAt": "2026-11-21T03:04:06.000Z" }),
            ),
        ];
        let expected = "
 CREATED               BY   STATE    PROGRESS    SENT     OF  FAILED  WHICH             ID
 2026-11-22T03:04:05Z  ops  running  ████░░░░░░   455  1,000       5  --campaign 13010  rp_2
 2026-11-21T03:04:05Z  –    done     ██████████     1      1       0  dl_1              rp_1";
        assert_eq!(format!("\n{}", table(&replays)), expected);
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!((bar(0, 0), bar(999, 1000)), ("░".repeat(10), format!("{}░", "█".repeat(9))));
        assert_eq!(bar(5, 5), "█".repeat(10));
    }
}
