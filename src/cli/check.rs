//! `waypost check`: settings and campaign files, without a broker.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};

use super::output::say;
use super::{Failure, Settings};
use crate::config::{Config, Schemes};
use crate::delivery::document::{self, HttpUrls};

#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
    /// Campaign documents (JSON) to check under these settings
    #[arg(value_name = "CAMPAIGN")]
    campaigns: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        let http_urls = match config.egress.schemes {
            Schemes::Https => HttpUrls::Refused,
            Schemes::HttpAndHttps => HttpUrls::Allowed,
        };
        let mut faults = Vec::new();
        for file in &self.campaigns {
            let name = file.display();
            match std::fs::read(file) {
                Err(error) => faults.push(format!("{name}: {error}")),
                Ok(bytes) => {
                    let found = document::read(&bytes, http_urls, None).err().unwrap_or_default();
                    faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
                }
            }
        }
        if self.json {
            print_json(&config)
        } else {
            print_table(&config)
        }
        if !faults.is_empty() {
            return Err(Failure::Failed(faults.join("\n")));
        }
        if !self.json {
            say!("\nSettings are sound, and so are {} campaign files.", self.campaigns.len());
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
    say!("{table}");
}

fn print_json(config: &Config) {
    for setting in &config.settings {
        let (key, value, origin) = (&setting.key, &setting.value, &setting.origin);
        say!("{}", serde_json::json!({ "key": key, "value": value, "default": setting.default, "from": origin }));
    }
}
