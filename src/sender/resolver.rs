//! Names are resolved to the addresses that the egress rules permit, and the connection is made to one of those: a name that
//! resolves to something else a moment later gains nothing.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::timing::resolving;
use crate::delivery::egress::{EgressRules, Forbidden};

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} could not be resolved: {error}")]
pub(super) struct Unresolved {
    name: String,
    error: String,
}

/// A name leads to no address that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotResolved {
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
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

    /// The addresses of a name that may be dialled. Their port is 0.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, NotResolved> {
        let unresolved = |error: String| Unresolved { name: name.to_owned(), error };
        let found =
            resolving(tokio::net::lookup_host((name, 0))).await.map_err(|error| unresolved(error.to_string()))?;
        let found: Vec<SocketAddr> = found.collect();
        if found.is_empty() {
            return Err(unresolved("it has no address".to_owned()).into());
        }
        if self.proxy_host.as_deref() == Some(name) {
            return Ok(found);
        }
        Ok(permitted(&self.rules, name, found)?)
    }
}

/// Of the addresses of a name those that may be dialled, where there are any.
fn permitted(rules: &EgressRules, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Forbidden> {
    let is_open = rules.permits_host(name);
    let (permitted, forbidden): (Vec<SocketAddr>, Vec<SocketAddr>) =
        found.into_iter().partition(|address| is_open || rules.permits(address.ip()));
    if permitted.is_empty() {
        let addresses: Vec<String> = forbidden.iter().map(|address| address.ip().to_string()).collect();
        return Err(Forbidden::NotPublic(format!("{name} ({})", addresses.join(", "))));
    }
    Ok(permitted)
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            // The cause is looked for in the chain of errors, which a transparent error is no part of.
            let addresses = resolver.addresses(name.as_str()).await.map_err(|error| match error {
                NotResolved::Unresolved(error) => Box::<dyn std::error::Error + Send + Sync>::from(error),
                NotResolved::Forbidden(error) => error.into(),
            })?;
            // reqwest puts the URL's port in the place of 0.
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
    use crate::delivery::egress::Allowed;
    use crate::delivery::egress::HttpUrls;

    #[test]
    fn a_name_with_a_mix_of_addresses_is_dialled_at_those_that_are_open() {
        let found = |addresses: &[&str]| addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let rules = |allow| EgressRules::new(HttpUrls::Allowed, allow);
        let mix: Vec<SocketAddr> =
            found(&["10.0.0.1:0", "93.184.216.34:0", "[::1]:0", "[2606:4700::1]:0", "169.254.169.254:0"]);
        let open: Vec<SocketAddr> = found(&["93.184.216.34:0", "[2606:4700::1]:0"]);
        assert_eq!(permitted(&rules(Vec::new()), "mixed.example", mix.clone()), Ok(open));
        let allowed = vec![Allowed::Host("mixed.example".to_owned())];
        assert_eq!(permitted(&rules(allowed), "mixed.example", mix.clone()), Ok(mix));
        let closed = permitted(&rules(Vec::new()), "inside.example", found(&["10.0.0.1:0", "[fd00::1]:0"]));
        assert_eq!(closed, Err(Forbidden::NotPublic("inside.example (10.0.0.1, fd00::1)".to_owned())));
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let addresses = async |allow| {
            let resolver = GuardedResolver::new(Arc::new(EgressRules::new(HttpUrls::Allowed, allow)), None);
            resolver.addresses("localhost").await
        };
        let forbidden = addresses(Vec::new()).await.expect_err("localhost is not public");
        assert!(matches!(forbidden, NotResolved::Forbidden(_)), "{forbidden}");
        assert!(addresses(vec![Allowed::Host("localhost".to_owned())]).await.is_ok());
        assert!(addresses(vec![Allowed::Network("127.0.0.0/8".parse().expect("a network"))]).await.is_ok());
    }
}
