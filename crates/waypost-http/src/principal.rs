//! The authenticated sender of a request, and its role.

use std::sync::Arc;

use waypost_core::access::Role;
use waypost_core::campaign::SecretVisibility;

/// The sender of a request. If no token is configured, every sender is an editor, and the settings allow only a
/// loopback listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// The name of the token, or [`LOCAL`].
    pub(super) name: Arc<str>,
    pub(super) role: Role,
}

/// The name of every caller if no token is configured.
pub(super) const LOCAL: &str = "local";

impl Principal {
    /// Only an editor sees the values of headers.
    pub(super) fn secrets(&self) -> SecretVisibility {
        if self.role >= Role::Editor { SecretVisibility::Visible } else { SecretVisibility::Masked }
    }
}
