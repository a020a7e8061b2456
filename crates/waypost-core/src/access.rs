//! Who may call the API, and what each role may do.

use std::fmt;

/// Somebody who may call the API.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// For people; no two have the same.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What the bearer of a token may do: each role all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Replay and discard dead letters, publish and test.
    Operator,
    /// Change campaigns.
    Editor,
}

impl Role {
    /// All, with their names in the settings.
    pub const NAMES: [(&'static str, Self); 3] =
        [("viewer", Self::Viewer), ("operator", Self::Operator), ("editor", Self::Editor)];

    /// The name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
        }
    }
}
