//! Egress rules: which hosts and addresses webhooks may reach.
//!
//! Customers choose the URLs. The rules are checked when a campaign is stored, and again for each address before a
//! connection. Only the public internet is allowed, and whatever the setting `egress.allow` adds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// Whether webhooks may have plain `http` URLs (setting `egress.allowHttp`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpUrls {
    Allowed,
    Refused,
}

/// An exception for a destination that is not public (setting `egress.allow`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowRule {
    /// A network, or a single address.
    Network(IpNet),
    /// A host name in lower case, as in a URL. All its addresses are allowed.
    Host(String),
}

#[derive(Debug, Clone)]
pub struct EgressRules {
    http_urls: HttpUrls,
    allow: Vec<AllowRule>,
}

/// The egress rules forbid a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    #[error("{0} is not an address of the public internet: to allow it, add it to the setting egress.allow")]
    NotPublic(String),
    /// Possible for a webhook that was stored while the settings allowed plain http.
    #[error("plain http is not allowed: use https, or set egress.allowHttp")]
    PlainHttp,
}

/// IPv4 networks that are not public: special-purpose addresses (RFC 6890 and its successors), reserved addresses, and
/// the metadata services of clouds, which have credentials. The first match names an address.
const NOT_PUBLIC_V4: [(Ipv4Net, &str); 19] = [
    (v4([169, 254, 169, 254], 32), "cloud metadata"),
    (v4([100, 100, 100, 200], 32), "cloud metadata"),
    (v4([192, 0, 0, 192], 32), "cloud metadata"),
    (v4([168, 63, 129, 16], 32), "cloud metadata"),
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "carrier-grade NAT"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "protocol assignments"),
    (v4([192, 0, 2, 0], 24), "documentation"),
    (v4([192, 88, 99, 0], 24), "6to4 relays"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "benchmarking"),
    (v4([198, 51, 100, 0], 24), "documentation"),
    (v4([203, 0, 113, 0], 24), "documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved (class E)"),
];

/// IPv6 networks that are not public. Addresses that embed an IPv4 address are always forbidden, because no receiver
/// needs them.
const NOT_PUBLIC_V6: [(Ipv6Net, &str); 17] = [
    (v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254], 128), "cloud metadata"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4-compatible"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "IPv4-mapped"),
    (v6([0x0064, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "NAT64"),
    (v6([0x0064, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "NAT64"),
    (v6([0x0100, 0, 0, 0, 0, 0, 0, 0], 64), "discarded"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments"),
    (v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private (ULA)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// All IPv6 addresses that have been assigned so far are in this network.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4(octets: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

/// The kind of an address that is not public. `None` if the address is public.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => name_in(&NOT_PUBLIC_V4, |network| network.contains(&address)),
        IpAddr::V6(address) if !GLOBAL_UNICAST.contains(&address) => {
            Some(name_in(&NOT_PUBLIC_V6, |network| network.contains(&address)).unwrap_or("unassigned"))
        }
        IpAddr::V6(address) => name_in(&NOT_PUBLIC_V6, |network| network.contains(&address)),
    }
}

fn name_in<N>(networks: &[(N, &'static str)], contains: impl Fn(&N) -> bool) -> Option<&'static str> {
    networks.iter().find(|(network, _)| contains(network)).map(|(_, name)| *name)
}

impl EgressRules {
    pub fn new(http_urls: HttpUrls, allow: Vec<AllowRule>) -> Self {
        Self { http_urls, allow }
    }

    pub fn http_urls(&self) -> HttpUrls {
        self.http_urls
    }

    /// Checks a URL without resolving its host: the scheme, an address as the host, and the names of this machine.
    ///
    /// # Errors
    /// If the rules forbid the URL.
    pub fn check(&self, url: &Url) -> Result<(), EgressError> {
        if url.scheme() != "https" && self.http_urls == HttpUrls::Refused {
            return Err(EgressError::PlainHttp);
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into()),
            Some(Host::Ipv6(address)) => self.check_address(address.into()),
            Some(Host::Domain(name)) if !self.permits_host(name) => self.check_name(name),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// A name is normally checked when it is resolved. The exceptions are names with a known address.
    fn check_name(&self, name: &str) -> Result<(), EgressError> {
        let host = name.trim_end_matches('.');
        // `127.0.0.1..` is not an address in a URL, but a resolver may remove the dots.
        if let Ok(Host::Ipv4(address)) = Host::parse(host) {
            return self.check_address(address.into());
        }
        if is_local(host) {
            // If loopback is allowed, so are its names.
            return self
                .check_address(Ipv4Addr::LOCALHOST.into())
                .map_err(|_| EgressError::NotPublic(format!("{name} (this machine)")));
        }
        Ok(())
    }

    fn check_address(&self, address: IpAddr) -> Result<(), EgressError> {
        match not_public(address) {
            Some(kind) if !self.permits(address) => Err(EgressError::NotPublic(format!("{address} ({kind})"))),
            _ => Ok(()),
        }
    }

    /// Whether connections to `address` are allowed.
    pub fn permits(&self, address: IpAddr) -> bool {
        not_public(address).is_none()
            || self.allow.iter().any(|rule| match rule {
                AllowRule::Network(network) => network.contains(&address),
                AllowRule::Host(_) => false,
            })
    }

    /// Whether connections to `host` are allowed for any of its addresses.
    pub fn permits_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.allow.iter().any(|rule| match rule {
            AllowRule::Host(name) => name.eq_ignore_ascii_case(host),
            AllowRule::Network(_) => false,
        })
    }
}

/// `localhost` and its subdomains always mean this machine (RFC 6761).
fn is_local(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests;
