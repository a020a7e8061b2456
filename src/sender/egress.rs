//! Egress rules: customers choose the URLs, so what they may lead to is checked on the very address that is dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::delivery::document::HttpUrls;

/// What may be reached although it is not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A network, or a single address.
    Network(IpNet),
    /// A host name in lower case, as a URL has it; whatever address it has.
    Host(String),
}

/// Which addresses may be dialled: those of the public internet, and what is allowed besides.
#[derive(Debug, Clone)]
pub struct EgressRules {
    http_urls: HttpUrls,
    allow: Vec<Allowed>,
}

/// The rules forbid it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// It is private, or otherwise no address of the internet.
    #[error("{0} is not an address of the public internet; the setting egress.allow can open it")]
    NotPublic(String),
    /// The webhook was stored when the settings still allowed plain http.
    #[error("plain http is not allowed; the setting egress.allowHttp can allow it")]
    PlainHttp,
}

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} could not be resolved: {error}")]
pub struct Unresolved {
    name: String,
    error: String,
}

impl EgressRules {
    /// Rules that open `allow`.
    pub fn new(http_urls: HttpUrls, allow: Vec<Allowed>) -> Self {
        Self { http_urls, allow }
    }

    /// Checks what can be seen of a URL: its scheme, and its host where that is an address, which no resolver is asked for.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, url: &Url) -> Result<(), Forbidden> {
        if url.scheme() != "https" && self.http_urls == HttpUrls::Refused {
            return Err(Forbidden::PlainHttp);
        }
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
            Some(url::Host::Domain(_)) | None => return Ok(()),
        };
        if self.permits(address) { Ok(()) } else { Err(Forbidden::NotPublic(address.to_string())) }
    }

    fn permits(&self, address: IpAddr) -> bool {
        is_public(address)
            || self.allow.iter().any(|allowed| match allowed {
                Allowed::Network(network) => network.contains(&address),
                Allowed::Host(_) => false,
            })
    }

    fn permits_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.allow.iter().any(|allowed| match allowed {
            Allowed::Host(allowed) => allowed.eq_ignore_ascii_case(host),
            Allowed::Network(_) => false,
        })
    }
}

/// Resolves names to the addresses that may be dialled. The connection is made to one of those, so a name that
/// resolves to something else a moment later gains nothing.
#[derive(Clone)]
pub struct GuardedResolver {
    rules: Arc<EgressRules>,
}

impl GuardedResolver {
    /// A resolver under `rules`.
    pub fn new(rules: Arc<EgressRules>) -> Self {
        Self { rules }
    }

    async fn addresses(self, name: String) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let unresolved = |error: String| Unresolved { name: name.clone(), error };
        // The port is the URL's; the one given here is replaced by it.
        let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| unresolved(error.to_string()))?;
        let found: Vec<SocketAddr> = found.collect();
        if found.is_empty() {
            return Err(unresolved("it has no address".to_owned()).into());
        }
        let any = self.rules.permits_host(&name);
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

/// Whether an address belongs to the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By the IANA registry of IPv4 special-purpose addresses (RFC 6890 and its successors).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmarking = a == 198 && (b == 18 || b == 19);
    let protocols = a == 192 && b == 0 && c == 0;
    let relay_anycast = a == 192 && b == 88 && c == 99;
    let reserved = a >= 240;
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || shared
        || benchmarking
        || protocols
        || relay_anycast
        || reserved)
}

/// Only global unicast (`2000::/3`), and of that nothing that stands for another address or for none.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global_unicast = a & 0xe000 == 0x2000;
    // 2001::/23: protocol assignments, Teredo and ORCHID among them.
    let protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global_unicast && !(protocols || documentation || six_to_four)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(url: &str, allow: &[&str]) -> bool {
        let allow = allow.iter().map(|network| Allowed::Network(network.parse().expect("a network"))).collect();
        EgressRules::new(HttpUrls::Allowed, allow).check(&url.parse().expect("a URL")).is_ok()
    }

    #[test]
    fn only_the_public_internet_is_open() {
        for host in ["93.184.216.34", "1.1.1.1", "[2606:4700:4700::1111]", "example.com"] {
            assert!(literal(&format!("https://{host}/x"), &[]), "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "203.0.113.9",
            "192.88.99.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:93.184.216.34]",
            "[64:ff9b::1.1.1.1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
            "[3fff::1]",
        ] {
            assert!(!literal(&format!("https://{host}/x"), &[]), "{host}");
        }
    }

    #[test]
    fn plain_http_is_sent_only_where_it_is_allowed() {
        let url = "http://93.184.216.34/".parse().expect("a URL");
        let check = |http_urls| EgressRules::new(http_urls, Vec::new()).check(&url);
        assert_eq!(check(HttpUrls::Refused), Err(Forbidden::PlainHttp));
        assert_eq!(check(HttpUrls::Allowed), Ok(()));
    }

    #[test]
    fn what_is_allowed_is_open_and_nothing_beside_it() {
        assert!(literal("http://127.0.0.1:8080/", &["127.0.0.0/8"]));
        assert!(!literal("http://10.0.0.1/", &["127.0.0.0/8"]));
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let addresses = |allow| {
            let resolver = GuardedResolver::new(Arc::new(EgressRules::new(HttpUrls::Allowed, allow)));
            resolver.addresses("localhost".to_owned())
        };
        let forbidden = addresses(Vec::new()).await.expect_err("localhost is not public");
        assert!(forbidden.is::<Forbidden>(), "{forbidden}");
        assert!(addresses(vec![Allowed::Host("localhost".to_owned())]).await.is_ok());
        assert!(addresses(vec![Allowed::Network("127.0.0.0/8".parse().expect("a network"))]).await.is_ok());
    }
}
