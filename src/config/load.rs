//! Loads the settings from all sources, and checks them.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use super::registry::SettingRegistry;
use super::violation::ConfigError;
use super::{Config, environment, setting, sources, validate};

/// The settings file, in the working directory, if no other file is given.
pub const DEFAULT_FILE: &str = "waypost.toml";

impl Config {
    /// Loads the settings from `file` (or `./waypost.toml` if it exists), from the environment, and from `overrides`,
    /// which are pairs of setting key and value.
    ///
    /// # Errors
    /// All errors at once.
    pub fn load(file: Option<&Path>, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        // Text that is not UTF-8 is detected later by its replacement characters.
        let to_text = |value: OsString| value.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (to_text(name), to_text(value)));
        Self::load_from(Path::new("."), file, environment, overrides)
    }

    /// Like [`load`](Self::load), with `environment`, and with the default file in `folder`.
    ///
    /// # Errors
    /// All errors at once.
    pub fn load_from(
        folder: &Path,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let registry = SettingRegistry::new();
        let mut violations = Vec::new();
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let keyring = environment::keyring(&environment, &mut violations);
        let mut provided = Vec::new();
        let default_file = folder.join(DEFAULT_FILE);
        if let Some(file) = file.or_else(|| exists(&default_file).then_some(default_file.as_path())) {
            provided.extend(sources::read_file(file, &registry, &mut violations));
        }
        provided.extend(environment::read(environment, &registry, &mut violations));
        provided.extend(environment::overrides(overrides, &registry, &mut violations));
        let merged = sources::merge(&registry, provided, &mut violations);
        let settings = setting::settings(&registry, &merged);
        validate::config(&merged, keyring, settings, violations)
    }
}

/// Whether the file exists. An unreadable file counts: it must be reported, not ignored.
fn exists(path: &Path) -> bool {
    !path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
