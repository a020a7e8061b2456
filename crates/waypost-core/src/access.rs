//! API tokens and roles.

use std::fmt;

/// A token of `http.tokens`. Only its hash is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Unique. Shown in the audit log.
    pub name: String,
    pub role: Role,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Each role includes the permissions of the roles before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read everything except secrets.
    Viewer,
    /// Replay and discard dead letters, publish and test.
    Operator,
    /// Change campaigns.
    Editor,
}

impl Role {
    /// All roles, with their names in the settings.
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
