//! The error of a command.

/// Why a command failed. The text is printed on standard error.
#[derive(Debug)]
pub(super) enum CliError {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2.
    Usage(String),
}

impl CliError {
    pub(super) fn new(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Appends a line.
    pub(super) fn with_line(self, line: &str) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(format!("{text}\n{line}")),
            Self::Usage(text) => Self::Usage(format!("{text}\n{line}")),
        }
    }
}
