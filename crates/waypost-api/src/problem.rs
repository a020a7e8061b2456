//! Errors as RFC 9457 problem documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use waypost_core::violation::Violation;

// A document of another program, such as a proxy, may have only a part of the fields.
/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ProblemDocument {
    /// Always `about:blank`.
    #[serde(rename = "type", default)]
    #[schemars(!default)]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    #[schemars(!default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    #[schemars(!default)]
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    /// All invalid values of the request, each with its path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}
