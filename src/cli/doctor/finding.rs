//! The result of one check.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum CheckResult {
    Good,
    /// A worker runs, but this may cause a problem later.
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DoctorFinding {
    pub(super) check: &'static str,
    #[serde(rename = "verdict")]
    pub(super) result: CheckResult,
    #[serde(rename = "found")]
    pub(super) detail: String,
    /// What to do. `None` if the result is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl DoctorFinding {
    pub(super) fn good(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Good, detail: detail.into(), advice: None }
    }

    pub(super) fn doubtful(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Doubtful, detail: detail.into(), advice: Some(advice.into()) }
    }

    pub(super) fn bad(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Bad, detail: detail.into(), advice: Some(advice.into()) }
    }
}
