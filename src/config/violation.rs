//! Errors of settings: all errors at once, each with its setting and the origin of its value.

use std::fmt;

use super::registry::DEFAULT;

/// Displayed with one error per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub violations: Vec<ConfigViolation>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.violations.iter().map(ConfigViolation::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigViolation {
    /// The setting. The file or the variable if there is no setting.
    pub key: String,
    pub message: String,
    /// The origin of the value: a file, a variable or the command line. `None` for defaults, or if it is the key
    /// itself.
    pub origin: Option<String>,
}

impl ConfigViolation {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), origin: None }
    }

    pub(super) fn from(mut self, origin: &str) -> Self {
        self.origin = (origin != DEFAULT).then(|| origin.to_owned());
        self
    }
}

impl fmt::Display for ConfigViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}
