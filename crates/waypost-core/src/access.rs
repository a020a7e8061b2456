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
    /// Reads everything except secrets.
    Viewer,
    /// Replays and discards dead letters, publishes events and tests webhooks.
    Operator,
    /// Changes campaigns.
    Editor,
}

impl Role {
    /// All, with their names in the settings.
    pub const NAMES: [(&'static str, Self); 3] = [
        (Self::Viewer.as_str(), Self::Viewer),
        (Self::Operator.as_str(), Self::Operator),
        (Self::Editor.as_str(), Self::Editor),
    ];

    /// The name in the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
        }
    }
}
