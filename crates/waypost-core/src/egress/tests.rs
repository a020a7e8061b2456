//! Tests all networks of the egress rules, and all notations of addresses that a URL parser accepts.

use proptest::prelude::*;

use super::*;

fn rules(allow: &[&str]) -> EgressRules {
    let allow = allow.iter().map(|allowed| match allowed.parse() {
        Ok(network) => AllowRule::Network(network),
        Err(_) => AllowRule::Host((*allowed).to_owned()),
    });
    EgressRules::new(HttpUrls::Allowed, allow.collect())
}

/// The kind of network of this host, or `None` if the host is allowed.
fn forbidden(host: &str) -> Option<String> {
    let url: Url = format!("https://{host}/x").parse().unwrap_or_else(|error| panic!("{host}: {error}"));
    match rules(&[]).check(&url) {
        Ok(()) => None,
        Err(EgressError::NotPublic(what)) => Some(what),
        Err(forbidden) => panic!("{host}: {forbidden}"),
    }
}

#[test]
fn each_special_network_is_forbidden_and_its_neighbours_are_public() {
    // First and last address of a network, its kind, and the adjacent public addresses.
    for (first, last, what, public_neighbours) in [
        ("0.0.0.0", "0.255.255.255", "this network", &["1.0.0.0"][..]),
        ("10.0.0.0", "10.255.255.255", "private", &["9.255.255.255", "11.0.0.0"]),
        ("100.64.0.0", "100.127.255.255", "carrier-grade NAT", &["100.63.255.255", "100.128.0.0"]),
        ("127.0.0.0", "127.255.255.255", "loopback", &["126.255.255.255", "128.0.0.0"]),
        ("169.254.0.0", "169.254.255.255", "link-local", &["169.253.255.255", "169.255.0.0"]),
        ("169.254.169.254", "169.254.169.254", "cloud metadata", &[]),
        ("100.100.100.200", "100.100.100.200", "cloud metadata", &[]),
        ("192.0.0.192", "192.0.0.192", "cloud metadata", &[]),
        ("168.63.129.16", "168.63.129.16", "cloud metadata", &["168.63.129.15", "168.63.129.17"]),
        ("172.16.0.0", "172.31.255.255", "private", &["172.15.255.255", "172.32.0.0"]),
        ("192.0.0.0", "192.0.0.255", "protocol assignments", &["191.255.255.255", "192.0.1.0"]),
        ("192.0.2.0", "192.0.2.255", "documentation", &["192.0.1.255", "192.0.3.0"]),
        ("192.88.99.0", "192.88.99.255", "6to4 relays", &["192.88.98.255", "192.88.100.0"]),
        ("192.168.0.0", "192.168.255.255", "private", &["192.167.255.255", "192.169.0.0"]),
        ("198.18.0.0", "198.19.255.255", "benchmarking", &["198.17.255.255", "198.20.0.0"]),
        ("198.51.100.0", "198.51.100.255", "documentation", &["198.51.99.255", "198.51.101.0"]),
        ("203.0.113.0", "203.0.113.255", "documentation", &["203.0.112.255", "203.0.114.0"]),
        ("224.0.0.0", "239.255.255.255", "multicast", &["223.255.255.255"]),
        ("240.0.0.0", "255.255.255.255", "reserved (class E)", &[]),
        ("::", "::", "IPv4-compatible", &[]),
        ("::1", "::1", "loopback", &[]),
        ("::2", "::ffff:ffff", "IPv4-compatible", &[]),
        ("::ffff:0:0", "::ffff:ffff:ffff", "IPv4-mapped", &[]),
        ("::ffff:93.184.216.34", "::ffff:127.0.0.1", "IPv4-mapped", &[]),
        ("64:ff9b::", "64:ff9b::ffff:ffff", "NAT64", &[]),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "NAT64", &[]),
        ("100::", "100::ffff:ffff:ffff:ffff", "discarded", &[]),
        ("1000::", "1fff::", "unassigned", &["2000::"]),
        ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "Teredo", &["2000:ffff::"]),
        ("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "protocol assignments", &["2001:200::"]),
        ("2001:db8::", "2001:db8:ffff::", "documentation", &["2001:db7:ffff::", "2001:db9::"]),
        ("2002::", "2002:ffff:ffff::", "6to4", &["2001:ffff::", "2003::"]),
        ("3fff::", "3fff:fff:ffff::", "documentation", &["3ffe:ffff::", "3fff:1000::"]),
        ("4000::", "4000::", "unassigned", &[]),
        ("5f00::", "5f00:ffff::", "segment routing", &[]),
        ("fc00::", "fdff:ffff::", "private (ULA)", &[]),
        ("fd00:ec2::254", "fd00:ec2::254", "cloud metadata", &[]),
        ("fe80::", "febf:ffff::", "link-local", &[]),
        ("fec0::", "feff:ffff::", "site-local", &[]),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast", &[]),
    ] {
        for address in [first, last] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(not_public(address), Some(what), "{address}");
            assert!(!rules(&[]).permits(address) && rules(&["0.0.0.0/0", "::/0"]).permits(address), "{address}");
        }
        for address in public_neighbours {
            assert_eq!(not_public(address.parse().expect("an address")), None, "{address}");
        }
    }
    for address in ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1"] {
        assert_eq!(not_public(address.parse().expect("an address")), None, "{address}");
    }
}

#[test]
fn addresses_are_recognised_in_any_notation() {
    for (host, address) in [
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.0.0.1..", "127.0.0.1"),
        ("0x7f.1...", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("%31%32%37.0.0.1", "127.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("⑯⑨.254.0.1", "169.254.0.1"),
        ("0", "0.0.0.0"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("[::127.0.0.1]", "::7f00:1"),
        ("[::ffff:7f00:1]", "::ffff:127.0.0.1"),
        ("[0:0:0:0:0:ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[0000::0001]", "::1"),
    ] {
        let what = forbidden(host).unwrap_or_else(|| panic!("{host} is allowed"));
        assert!(what.starts_with(&format!("{address} (")), "{host}: {what}");
    }
    for host in ["localhost", "LOCALHOST", "localhost.", "db.localhost", "a.b.LocalHost."] {
        assert!(forbidden(host).is_some_and(|what| what.ends_with("(this machine)")), "{host}");
    }
    for host in ["example.com", "example.com.", "localhost.example.com", "notlocalhost", "127.0.0.1.example.com"] {
        assert_eq!(forbidden(host), None, "{host}: a name is checked by its address when it is dialled");
    }
    // Not valid hosts, so they are never dialled.
    for host in ["127.0.0.1.1.1", "256.1.1.1", "0x7g.1", "[::1%25lo]", "[127.0.0.1]"] {
        assert!(Url::parse(&format!("https://{host}/")).is_err(), "{host}");
    }
}

#[test]
fn only_allowed_destinations_are_permitted() {
    let permits = |allow: &[&str], host: &str| rules(allow).check(&format!("https://{host}/").parse().expect("a URL"));
    assert_eq!(permits(&["127.0.0.0/8"], "127.0.0.1:8080"), Ok(()));
    assert_eq!(permits(&["127.0.0.0/8"], "localhost"), Ok(()));
    assert_eq!(permits(&["localhost"], "localhost."), Ok(()));
    assert!(permits(&["127.0.0.0/8"], "10.0.0.1").is_err());
    assert!(permits(&["127.0.0.1/32"], "127.0.0.2").is_err());
    assert!(
        permits(&["127.0.0.0/8"], "[::ffff:127.0.0.1]").is_err(),
        "another notation of an allowed address is not allowed"
    );
    assert!(permits(&["localhost"], "127.0.0.1").is_err(), "an allowed name does not allow its address");
}

#[test]
fn plain_http_needs_the_setting() {
    let url = "http://93.184.216.34/".parse().expect("a URL");
    let check = |http_urls| EgressRules::new(http_urls, Vec::new()).check(&url);
    assert_eq!(check(HttpUrls::Refused), Err(EgressError::PlainHttp));
    assert_eq!(check(HttpUrls::Allowed), Ok(()));
}

proptest! {
    /// IPv6 addresses that embed an IPv4 address are forbidden.
    #[test]
    fn embedded_ipv4_addresses_are_forbidden(address: u32) {
        let [a, b] = [(address >> 16) as u16, address as u16];
        for embedding in [
            [0, 0, 0, 0, 0, 0, a, b],
            [0, 0, 0, 0, 0, 0xffff, a, b],
            [0x0064, 0xff9b, 0, 0, 0, 0, a, b],
            [0x2002, a, b, 0, 0, 0, 0, 1],
            [0x2001, 0, a, b, 0, 0, !a, !b],
        ] {
            prop_assert!(!rules(&[]).permits(Ipv6Addr::from(embedding).into()));
        }
    }

    /// No host panics, and addresses are never treated as names.
    #[test]
    fn any_host_can_be_checked(host in "\\PC{0,30}") {
        if let Ok(url) = Url::parse(&format!("https://{host}/")) {
            let open = rules(&[]).check(&url).is_ok();
            if let Ok(address) = url.host_str().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>() {
                prop_assert_eq!(open, not_public(address).is_none());
            }
        }
    }
}
