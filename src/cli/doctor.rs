//! `waypost doctor`: checks everything that a worker needs, and says how to fix what is wrong. It changes nothing. To
//! test the bindings it publishes one message, which workers recognise and drop.

mod finding;
mod host;
mod network;
mod server;
mod settings;
mod topology;
mod worker;

use clap::Args;
use comfy_table::{Table, presets};
use url::Url;

use super::error::CliError;
use super::settings::Settings;
use super::stdio::out;
use finding::{CheckResult, DoctorFinding};

#[derive(Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// A customer's URL to reach as a worker would: sends HEAD, and accepts any response; may be repeated
    #[arg(long = "url", value_name = "URL", value_parser = parse_webhook_url)]
    urls: Vec<Url>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let config = match self.settings.load() {
            Ok(config) => config,
            Err(CliError::Failed(errors) | CliError::Usage(errors)) => {
                let advice = "correct these settings: a worker does not start with them";
                return self.report(&[DoctorFinding::bad("settings", errors, advice)]);
            }
        };
        let mut findings = settings::findings(&config);
        findings.extend(host::findings(&config));
        findings.extend(worker::finding(&config).await);
        findings.extend(network::broker(&config).await);
        findings.extend(network::egress(&config, &self.urls).await);
        self.report(&findings)
    }

    fn report(&self, findings: &[DoctorFinding]) -> Result<(), CliError> {
        if self.json {
            out!("{}", serde_json::to_string(findings).map_err(CliError::new)?);
        } else {
            out!("{}", table(findings).trim_fmt());
        }
        let bad = findings.iter().filter(|finding| finding.result == CheckResult::Bad).count();
        match bad {
            0 => Ok(()),
            1 => Err(CliError::new("one check is bad: a worker could not do its work")),
            bad => Err(CliError::new(format!("{bad} checks are bad: a worker could not do its work"))),
        }
    }
}

fn parse_webhook_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("a webhook's URL is https (or http), not {other}")),
    }
}

fn table(findings: &[DoctorFinding]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["CHECK", "RESULT", "DETAIL"]);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    for DoctorFinding { check, result, detail, advice } in findings {
        let text = advice.as_ref().map_or_else(|| detail.clone(), |advice| format!("{detail}\n→ {advice}"));
        table.add_row([(*check).to_owned(), result.to_string(), text]);
    }
    table
}
