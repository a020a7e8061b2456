//! Resolves names to the addresses that the egress rules permit. The connection is made to one of these addresses, so a
//! name that resolves to another address a moment later can't bypass the rules.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use waypost_core::egress::{EgressError, EgressRules};

use super::timing::time_resolve;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} could not be resolved: {error}")]
pub(super) struct Unresolved {
    name: String,
    error: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    #[error(transparent)]
    Forbidden(#[from] EgressError),
}

#[derive(Clone)]
pub(super) struct GuardedResolver {
    rules: Arc<EgressRules>,
    /// The egress rules do not apply to this host.
    proxy_host: Option<String>,
}

impl GuardedResolver {
    pub(super) fn new(rules: Arc<EgressRules>, proxy_host: Option<String>) -> Self {
        Self { rules, proxy_host }
    }

    /// The permitted addresses of a name, with port 0.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let unresolved = |error: String| Unresolved { name: name.to_owned(), error };
        let addresses =
            time_resolve(tokio::net::lookup_host((name, 0))).await.map_err(|error| unresolved(error.to_string()))?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        if addresses.is_empty() {
            return Err(unresolved("it has no address".to_owned()).into());
        }
        if self.proxy_host.as_deref() == Some(name) {
            return Ok(addresses);
        }
        Ok(permitted(&self.rules, name, addresses)?)
    }
}

/// Keeps the addresses that the rules permit. An error if there are none.
fn permitted(rules: &EgressRules, name: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, EgressError> {
    let is_host_permitted = rules.permits_host(name);
    let (permitted, forbidden): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.into_iter().partition(|address| is_host_permitted || rules.permits(address.ip()));
    if permitted.is_empty() {
        let addresses: Vec<String> = forbidden.iter().map(|address| address.ip().to_string()).collect();
        return Err(EgressError::NotPublic(format!("{name} ({})", addresses.join(", "))));
    }
    Ok(permitted)
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            // The inner error is returned because a transparent error does not appear in the chain of errors, where the
            // cause is looked up.
            let addresses = resolver.addresses(name.as_str()).await.map_err(|error| match error {
                ResolveError::Unresolved(error) => Box::<dyn std::error::Error + Send + Sync>::from(error),
                ResolveError::Forbidden(error) => error.into(),
            })?;
            // reqwest replaces port 0 by the port of the URL.
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
    use waypost_core::egress::AllowRule;
    use waypost_core::egress::HttpUrls;

    use super::*;

    #[test]
    fn only_the_permitted_addresses_of_a_name_are_used() {
        let parse = |addresses: &[&str]| addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let rules = |allow| EgressRules::new(HttpUrls::Allowed, allow);
        let mix: Vec<SocketAddr> =
            parse(&["10.0.0.1:0", "93.184.216.34:0", "[::1]:0", "[2606:4700::1]:0", "169.254.169.254:0"]);
        let open: Vec<SocketAddr> = parse(&["93.184.216.34:0", "[2606:4700::1]:0"]);
        assert_eq!(permitted(&rules(Vec::new()), "mixed.example", mix.clone()), Ok(open));
        let allowed = vec![AllowRule::Host("mixed.example".to_owned())];
        assert_eq!(permitted(&rules(allowed), "mixed.example", mix.clone()), Ok(mix));
        let closed = permitted(&rules(Vec::new()), "inside.example", parse(&["10.0.0.1:0", "[fd00::1]:0"]));
        assert_eq!(closed, Err(EgressError::NotPublic("inside.example (10.0.0.1, fd00::1)".to_owned())));
    }

    #[tokio::test]
    async fn a_name_with_only_forbidden_addresses_is_forbidden() {
        let addresses = async |allow| {
            let resolver = GuardedResolver::new(Arc::new(EgressRules::new(HttpUrls::Allowed, allow)), None);
            resolver.addresses("localhost").await
        };
        let forbidden = addresses(Vec::new()).await.expect_err("localhost is not public");
        assert!(matches!(forbidden, ResolveError::Forbidden(_)), "{forbidden}");
        assert!(addresses(vec![AllowRule::Host("localhost".to_owned())]).await.is_ok());
        assert!(addresses(vec![AllowRule::Network("127.0.0.0/8".parse().expect("a network"))]).await.is_ok());
    }
}
