//! What is wrong with settings: everything at once, each fault with the setting and the place its value came from.

use std::fmt;

use super::registry::DEFAULT;

/// Settings that cannot be used. Displayed one fault a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that is wrong.
    pub faults: Vec<ConfigFault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.faults.iter().map(ConfigFault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The setting; of what names no setting, the file or the variable.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Where the value came from, if that is not [`key`](Self::key) itself or the defaults.
    pub origin: Option<String>,
}

impl ConfigFault {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), origin: None }
    }

    pub(super) fn from(mut self, origin: &str) -> Self {
        self.origin = (origin != DEFAULT).then(|| origin.to_owned());
        self
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        match &self.origin {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}
