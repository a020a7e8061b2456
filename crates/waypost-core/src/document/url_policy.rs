//! Which URLs webhooks may have.

use url::Url;

use crate::egress::{EgressRules, HttpUrls};

/// The rules for the URLs of webhooks.
#[derive(Debug, Clone, Copy)]
pub enum UrlPolicy<'a> {
    /// Only the scheme is checked.
    Scheme(HttpUrls),
    /// The egress rules are checked, as far as they apply to a URL without resolving its host.
    Egress(&'a EgressRules),
}

impl UrlPolicy<'_> {
    pub(super) fn http_urls(self) -> HttpUrls {
        match self {
            Self::Scheme(http_urls) => http_urls,
            Self::Egress(rules) => rules.http_urls(),
        }
    }

    /// The reason to refuse a valid URL, if any.
    pub(super) fn refuse(self, url: &Url) -> Option<String> {
        match self {
            Self::Scheme(_) => None,
            Self::Egress(rules) => rules.check(url).err().map(|forbidden| forbidden.to_string()),
        }
    }
}
