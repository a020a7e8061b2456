//! `waypost endpoints`: lists the endpoints used recently, the worst first.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use waypost_api::client::Answer;
use waypost_api::endpoints::EndpointResponse;
use waypost_core::endpoint::LastError;

use super::client::Server;
use super::error::CliError;
use super::json_stream;
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
        let client = self.server.client()?;
        let mut pages = client.endpoints();
        let endpoints = pages.take(self.limit as usize).await?;
        if self.json {
            out!("{}", json_stream::array(&endpoints)?);
        } else if endpoints.is_empty() {
            out!("No endpoint was used recently.");
        } else {
            let endpoints = endpoints.iter().map(Answer::read).collect::<Result<Vec<_>, _>>()?;
            out!("{}", table(&endpoints));
            if pages.may_have_more() {
                out!("\nThere are more: --limit {}.", endpoints.len().saturating_mul(4));
            }
        }
        Ok(())
    }
}

fn table(endpoints: &[EndpointResponse]) -> String {
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
    for EndpointResponse { endpoint, stats, .. } in endpoints {
        table.add_row([
            sanitize::line(&endpoint.to_string(), 60),
            stats.breaker.as_str().to_owned(),
            formatted(stats.failure_ratio, |ratio| format!("{:.0} %", ratio * 100.0)),
            sanitize::count(stats.in_flight.into()),
            sanitize::count(stats.allowed.into()),
            sanitize::count(stats.waiting.into()),
            sanitize::count(stats.parked.into()),
            formatted(stats.latency_ms, |latency| format!("{latency:.0} ms")),
            stats.last_error.as_ref().map_or_else(|| sanitize::EMPTY.to_owned(), last_error),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn formatted(number: Option<f64>, format: impl Fn(f64) -> String) -> String {
    number.map_or_else(|| sanitize::EMPTY.to_owned(), format)
}

/// The time, and the HTTP status, or the error if there was no response.
fn last_error(error: &LastError) -> String {
    let detail = match (error.status, &error.error) {
        (Some(status), _) => status.to_string(),
        (None, Some(text)) => sanitize::text(&**text, 60),
        (None, None) => error.cause.as_str().to_owned(),
    };
    format!("{} {detail}", sanitize::time(&error.at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_endpoint_is_a_row() {
        let endpoints = json!([
            { "endpoint": "https://hangs.example:443", "breaker": "open", "inFlight": 1, "waiting": 0, "allowed": 1,
                "parked": 12345, "failureRatio": 1.0, "latencyMs": null,
                "lastError": { "at": "2026-11-22T03:04:05.678Z", "cause": "timeout", "status": null, "error": "no response" }, "receivers": [], "probeInMs": 12 },
            { "endpoint": "https://fails.example:443", "breaker": "closed", "inFlight": 3, "waiting": 7, "allowed": 64,
                "parked": 0, "failureRatio": 0.251, "latencyMs": 12.6,
                "lastError": { "at": "2026-11-22T03:04:05.678Z", "cause": "status_5xx", "status": 503, "error": null }, "receivers": [], "probeInMs": null },
            { "endpoint": "https://well.example:443", "breaker": "closed", "inFlight": 0, "waiting": 0, "allowed": 8,
                "parked": 0, "failureRatio": null, "latencyMs": 80.0, "lastError": null, "receivers": [], "probeInMs": null },
        ]);
        let endpoints: Vec<EndpointResponse> = serde_json::from_value(endpoints).unwrap();
        let expected = "
 ENDPOINT                   BREAKER  FAILING  IN FLIGHT  ALLOWED  WAITING  PARKED  LATENCY  LAST ERROR
 https://hangs.example:443  open       100 %          1        1        0  12,345        –  2026-11-22T03:04:05Z no response
 https://fails.example:443  closed      25 %          3       64        7       0    13 ms  2026-11-22T03:04:05Z 503
 https://well.example:443   closed         –          0        8        0       0    80 ms  –";
        assert_eq!(format!("\n{}", table(&endpoints)), expected);
    }
}
