//! `waypost endpoints`: lists the endpoints used recently, the worst first.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::client::Server;
use super::error::CliError;
use super::paginate::Pages;
use super::sanitize;
use super::stdio::out;

#[derive(Args)]
#[command(after_help = "Example:
  waypost endpoints --limit 10

Each worker knows only its own requests. Choose the worker with --server.")]
pub(super) struct Endpoints {
    /// Show at most N, the worst
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Endpoints {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let mut pages = Pages::new(&api, "endpoints", Vec::new());
        let endpoints = pages.take(self.limit as usize).await?;
        if self.json {
            out!("{}", Value::Array(endpoints));
        } else if endpoints.is_empty() {
            out!("No endpoint was used recently.");
        } else {
            out!("{}", table(&endpoints));
            if pages.may_have_more() {
                out!("\nThere are more: --limit {}.", endpoints.len().saturating_mul(4));
            }
        }
        Ok(())
    }
}

fn table(endpoints: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ENDPOINT",
        "BREAKER",
        "FAILING",
        "IN FLIGHT",
        "ALLOWED",
        "WAITING",
        "PARKED",
        "LATENCY",
        "LAST ERROR",
    ]);
    for endpoint in endpoints {
        table.add_row([
            sanitize::field(&endpoint["endpoint"], 60),
            sanitize::field(&endpoint["breaker"], 12),
            percent(&endpoint["failureRatio"]),
            sanitize::count(&endpoint["inFlight"]),
            sanitize::count(&endpoint["allowed"]),
            sanitize::count(&endpoint["waiting"]),
            sanitize::count(&endpoint["parked"]),
            milliseconds(&endpoint["latencyMs"]),
            last_error(&endpoint["lastError"]),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn percent(ratio: &Value) -> String {
    ratio.as_f64().map_or_else(|| sanitize::EMPTY.to_owned(), |ratio| format!("{:.0} %", ratio * 100.0))
}

fn milliseconds(duration: &Value) -> String {
    duration.as_f64().map_or_else(|| sanitize::EMPTY.to_owned(), |duration| format!("{duration:.0} ms"))
}

/// The time, and the HTTP status, or the error if there was no response.
fn last_error(error: &Value) -> String {
    if error.is_null() {
        return sanitize::EMPTY.to_owned();
    }
    let detail = [&error["status"], &error["error"], &error["cause"]].into_iter().find(|value| !value.is_null());
    format!("{} {}", sanitize::time(&error["at"]), sanitize::field(detail.unwrap_or(&Value::Null), 60))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_endpoint_is_a_row() {
        let endpoints = [
            json!({ "endpoint": "https://hangs.example:443", "breaker": "open", "inFlight": 1, "waiting": 0, "allowed": 1,
                "parked": 12345, "failureRatio": 1.0, "latencyMs": null,
                "lastError": { "at": "2026-11-22T03:04:05.678Z", "cause": "timeout", "status": null, "error": "no response" } }),
            json!({ "endpoint": "https://fails.example:443", "breaker": "closed", "inFlight": 3, "waiting": 7, "allowed": 64,
                "parked": 0, "failureRatio": 0.251, "latencyMs": 12.6,
                "lastError": { "at": "2026-11-22T03:04:05.678Z", "cause": "status_5xx", "status": 503, "error": null } }),
            json!({ "endpoint": "https://well.example:443", "breaker": "closed", "inFlight": 0, "waiting": 0, "allowed": 8,
                "parked": 0, "failureRatio": null, "latencyMs": 80.0, "lastError": null }),
        ];
        let expected = "
 ENDPOINT                   BREAKER  FAILING  IN FLIGHT  ALLOWED  WAITING  PARKED  LATENCY  LAST ERROR
 https://hangs.example:443  open       100 %          1        1        0  12,345        –  2026-11-22T03:04:05Z no response
 https://fails.example:443  closed      25 %          3       64        7       0    13 ms  2026-11-22T03:04:05Z 503
 https://well.example:443   closed         –          0        8        0       0    80 ms  –";
        assert_eq!(format!("\n{}", table(&endpoints)), expected);
    }
}
