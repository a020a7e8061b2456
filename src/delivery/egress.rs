//! Egress rules: customers choose the URLs, so what those may lead to is a rule, checked when a campaign is stored and again on
//! the very address that is dialled.
//!
//! Only the public internet is open, and what the setting `egress.allow` opens besides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// Whether webhooks may have plain `http` URLs: the setting `egress.allowHttp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpUrls {
    /// `http` and `https`.
    Allowed,
    /// Only `https`.
    Refused,
}

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

/// What is not public of IPv4: the registry of special-purpose addresses (RFC 6890 and its successors), what is reserved, and
/// where clouds keep the credentials of their machines outside of these. The first that fits names an address.
const NOT_PUBLIC_V4: [(Ipv4Net, &str); 19] = [
    (v4([169, 254, 169, 254], 32), "metadata of a cloud"),
    (v4([100, 100, 100, 200], 32), "metadata of a cloud"),
    (v4([192, 0, 0, 192], 32), "metadata of a cloud"),
    (v4([168, 63, 129, 16], 32), "metadata of a cloud"),
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared by carriers (CGNAT)"),
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

/// What is not public of IPv6. What stands for an IPv4 address is closed whatever that one is: no receiver needs it.
const NOT_PUBLIC_V6: [(Ipv6Net, &str); 17] = [
    (v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254], 128), "metadata of a cloud"),
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

/// All that has been given out of IPv6.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4(octets: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

/// What an address is that is not of the public internet; none where it is.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => named(&NOT_PUBLIC_V4, |network| network.contains(&address)),
        IpAddr::V6(address) if !GLOBAL_UNICAST.contains(&address) => {
            Some(named(&NOT_PUBLIC_V6, |network| network.contains(&address)).unwrap_or("not given out"))
        }
        IpAddr::V6(address) => named(&NOT_PUBLIC_V6, |network| network.contains(&address)),
    }
}

fn named<N>(networks: &[(N, &'static str)], contains: impl Fn(&N) -> bool) -> Option<&'static str> {
    networks.iter().find(|(network, _)| contains(network)).map(|(_, name)| *name)
}

impl EgressRules {
    /// Rules that open `allow`.
    pub fn new(http_urls: HttpUrls, allow: Vec<Allowed>) -> Self {
        Self { http_urls, allow }
    }

    /// Whether webhooks may have plain `http` URLs.
    pub fn http_urls(&self) -> HttpUrls {
        self.http_urls
    }

    /// Checks what can be seen of a URL: its scheme, and its host where that is an address, which no resolver is asked for, or
    /// one of the names that are this machine.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, url: &Url) -> Result<(), Forbidden> {
        if url.scheme() != "https" && self.http_urls == HttpUrls::Refused {
            return Err(Forbidden::PlainHttp);
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into()),
            Some(Host::Ipv6(address)) => self.check_address(address.into()),
            Some(Host::Domain(name)) if !self.permits_host(name) => self.check_name(name),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// A name is judged by the address it has when it is dialled, but for those of which everybody knows it.
    fn check_name(&self, name: &str) -> Result<(), Forbidden> {
        let bare = name.trim_end_matches('.');
        // `127.0.0.1..` is no address of a URL. Whoever resolves it may take off the dots, and then it is one.
        if let Ok(Host::Ipv4(address)) = Host::parse(bare) {
            return self.check_address(address.into());
        }
        if is_local(bare) {
            // Where loopback is open, so are its names.
            return self
                .check_address(Ipv4Addr::LOCALHOST.into())
                .map_err(|_| Forbidden::NotPublic(format!("{name} (this machine)")));
        }
        Ok(())
    }

    fn check_address(&self, address: IpAddr) -> Result<(), Forbidden> {
        match not_public(address) {
            Some(what) if !self.permits(address) => Err(Forbidden::NotPublic(format!("{address} ({what})"))),
            _ => Ok(()),
        }
    }

    /// Whether an address may be dialled.
    pub fn permits(&self, address: IpAddr) -> bool {
        not_public(address).is_none()
            || self.allow.iter().any(|allowed| match allowed {
                Allowed::Network(network) => network.contains(&address),
                Allowed::Host(_) => false,
            })
    }

    /// Whether a host may be reached whatever its address is.
    pub fn permits_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.allow.iter().any(|allowed| match allowed {
            Allowed::Host(allowed) => allowed.eq_ignore_ascii_case(host),
            Allowed::Network(_) => false,
        })
    }
}

/// `localhost` and what is below it are this machine whatever a resolver says (RFC 6761).
fn is_local(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests;
