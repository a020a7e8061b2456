//! `waypost check`: checks settings and campaign files. Needs no broker.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::json;
use waypost_core::document::{self, UrlPolicy};

use super::error::CliError;
use super::settings::Settings;
use super::stdio::out;
use crate::config::Config;

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: Settings,
    /// Campaign documents (JSON) to check under these settings
    #[arg(value_name = "CAMPAIGN")]
    campaigns: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.settings.load()?;
        let rules = config.egress.rules();
        let mut errors = Vec::new();
        for file in &self.campaigns {
            let name = file.display();
            match std::fs::read(file) {
                Err(error) => errors.push(format!("{name}: {error}")),
                Ok(bytes) => {
                    let result = document::parse(&bytes, UrlPolicy::Egress(&rules));
                    errors.extend(result.err().into_iter().flatten().map(|error| format!("{name}: {error}")));
                }
            }
        }
        if self.json {
            print_json(&config, &errors);
        } else {
            print_table(&config);
        }
        if !errors.is_empty() {
            return Err(CliError::Failed(errors.join("\n")));
        }
        if !self.json {
            out!("\nSettings are valid, and so are {} campaign files.", self.campaigns.len());
        }
        Ok(())
    }
}

fn print_table(config: &Config) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["SETTING", "VALUE", "FROM"]);
    for setting in &config.settings {
        table.add_row([&setting.key, &setting.value, &setting.origin]);
    }
    out!("{table}");
}

fn print_json(config: &Config, errors: &[String]) {
    let settings = config.settings.iter().map(|setting| {
        let (key, value, origin) = (&setting.key, &setting.value, &setting.origin);
        json!({ "key": key, "value": value, "default": setting.default, "from": origin })
    });
    out!("{}", json!({ "settings": settings.collect::<Vec<_>>(), "faults": errors }));
}
