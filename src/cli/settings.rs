//! The options of the commands that read the settings of a worker.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use crate::config::{Config, DEFAULT_FILE};

#[derive(Args)]
pub(super) struct Settings {
    /// The settings file [default: ./waypost.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting, e.g. `--set http.listen=127.0.0.1:9090`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub(super) overrides: Vec<(String, String)>,
}

impl Settings {
    /// Loads the settings and remembers the file they came from. Later loads fail if that file is missing, so that a
    /// worker does not fall back to defaults because somebody moved the file.
    pub(super) fn load_and_pin_file(&mut self) -> Result<Config, CliError> {
        let config = self.load()?;
        let default = Path::new(DEFAULT_FILE);
        self.config = self.config.take().or_else(|| default.exists().then(|| default.to_owned()));
        Ok(config)
    }

    pub(super) fn load(&self) -> Result<Config, CliError> {
        let overrides: Vec<(&str, String)> =
            self.overrides.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        Config::load(self.config.as_deref(), &overrides).map_err(|error| CliError::Failed(error.to_string()))
    }
}

fn parse_key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
