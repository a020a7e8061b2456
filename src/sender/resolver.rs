//! Names are resolved to the addresses that the egress rules permit, and the connection is made to one of those: a name that
//! resolves to something else a moment later gains nothing.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::delivery::egress::{EgressRules, Forbidden};

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} could not be resolved: {error}")]
pub(super) struct Unresolved {
    name: String,
    error: String,
}

/// Resolves names to the addresses that may be dialled.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    rules: Arc<EgressRules>,
    /// Our own, and wherever it is.
    proxy_host: Option<String>,
}

impl GuardedResolver {
    /// A resolver under `rules`, which are not for the host of the egress proxy.
    pub(super) fn new(rules: Arc<EgressRules>, proxy_host: Option<String>) -> Self {
        Self { rules, proxy_host }
    }

    async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let unresolved = |error: String| Unresolved { name: name.clone(), error };
        // The port is the URL's; the one given here is replaced by it.
        let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| unresolved(error.to_string()))?;
        let found: Vec<SocketAddr> = found.collect();
        if found.is_empty() {
            return Err(unresolved("it has no address".to_owned()).into());
        }
        let any = self.rules.permits_host(&name) || self.proxy_host.as_ref() == Some(&name);
        let permitted: Vec<SocketAddr> =
            found.iter().copied().filter(|address| any || self.rules.permits(address.ip())).collect();
        if permitted.is_empty() {
            let addresses: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            return Err(Forbidden::NotPublic(format!("{name} ({})", addresses.join(", "))).into());
        }
        Ok(permitted)
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str().to_owned()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

impl fmt::Debug for GuardedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedResolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::document::HttpUrls;
    use crate::delivery::egress::Allowed;

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let addresses = |allow| {
            let resolver = GuardedResolver::new(Arc::new(EgressRules::new(HttpUrls::Allowed, allow)), None);
            resolver.addresses("localhost".to_owned())
        };
        let forbidden = addresses(Vec::new()).await.expect_err("localhost is not public");
        assert!(forbidden.is::<Forbidden>(), "{forbidden}");
        assert!(addresses(vec![Allowed::Host("localhost".to_owned())]).await.is_ok());
        assert!(addresses(vec![Allowed::Network("127.0.0.0/8".parse().expect("a network"))]).await.is_ok());
    }
}
