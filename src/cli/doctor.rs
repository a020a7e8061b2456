//! `waypost doctor`: all that a worker needs, looked at one by one, and what to do about what is wrong. It
//! changes nothing; to try the bindings it sends one message, which workers know and drop.

mod host;
mod network;
mod server;
mod settings;
mod topology;
mod worker;

use std::fmt;

use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;
use url::Url;

use super::stdio::say;
use super::{CliError, Settings};

#[derive(Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// A customer's URL to reach as a worker would; it is asked with HEAD, and any answer will do. May be repeated
    #[arg(long = "url", value_name = "URL", value_parser = customers_url)]
    urls: Vec<Url>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum CheckResult {
    Good,
    /// A worker runs, and somebody may be sorry later.
    Doubtful,
    /// A worker can't do its work.
    Bad,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Bad => "BAD",
        })
    }
}

/// What was looked at, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    check: &'static str,
    verdict: CheckResult,
    found: String,
    /// What to do; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: CheckResult::Good, found: found.into(), advice: None }
    }

    fn doubtful(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: CheckResult::Doubtful, found: found.into(), advice: Some(advice.into()) }
    }

    fn bad(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: CheckResult::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}

impl Doctor {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = match self.settings.load() {
            Ok(config) => config,
            Err(CliError::Failed(faults) | CliError::Usage(faults)) => {
                return self.tell(&[Finding::bad(
                    "settings",
                    faults,
                    "correct them: a worker does not start with these",
                )]);
            }
        };
        let mut findings = settings::findings(&config);
        findings.extend(host::findings(&config));
        findings.extend(worker::finding(&config).await);
        findings.extend(network::broker(&config).await);
        findings.extend(network::egress(&config, &self.urls).await);
        self.tell(&findings)
    }

    fn tell(&self, findings: &[Finding]) -> Result<(), CliError> {
        if self.json {
            say!("{}", serde_json::to_string(findings).map_err(CliError::new)?);
        } else {
            say!("{}", table(findings).trim_fmt());
        }
        let bad = findings.iter().filter(|finding| finding.verdict == CheckResult::Bad).count();
        match bad {
            0 => Ok(()),
            1 => Err(CliError::new("one thing is bad: a worker could not do its work")),
            bad => Err(CliError::new(format!("{bad} things are bad: a worker could not do its work"))),
        }
    }
}

fn customers_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("webhooks are https (or http), not {other}")),
    }
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["WHAT", "IS", "BECAUSE"]);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    for Finding { check, verdict, found, advice } in findings {
        let because = advice.as_ref().map_or_else(|| found.clone(), |advice| format!("{found}\n→ {advice}"));
        table.add_row([(*check).to_owned(), verdict.to_string(), because]);
    }
    table
}
