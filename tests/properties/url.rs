//! For any URL: if a document with it is accepted and the egress rules permit it, no parser reads a non-public address
//! from it.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use waypost_core::document::{UrlPolicy, parse, read};
use waypost_core::egress::HttpUrls;
use waypost_core::egress::{AllowRule, EgressRules, not_public};

pub(crate) fn holds(text: &str) {
    let document = json!({ "id": "1", "sections": [{ "label": "a", "webhook": { "url": text } }] }).to_string();
    for http_urls in [HttpUrls::Refused, HttpUrls::Allowed] {
        let Ok(campaign) = read(document.as_bytes(), http_urls, None) else { continue };
        let written = &campaign.places().next().expect("a webhook").webhook.url;
        assert_eq!(written.as_str(), text, "the URL was changed");
        let url = written.url().expect("an accepted URL is valid");
        assert!(url.scheme() == "https" || (url.scheme() == "http" && http_urls == HttpUrls::Allowed), "{url}");
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
        let host = url.host_str().expect("an accepted URL has a host");
        assert!(!host.is_empty());
        // The HTTP client uses another parser.
        let uri: http::Uri = url.as_str().parse().expect("an accepted URL can be requested");
        assert_eq!((uri.host(), uri.port_u16()), (Some(host), url.port()), "two parsers disagree about the host");

        let rules = EgressRules::new(http_urls, Vec::new());
        let permitted = rules.check(url).is_ok();
        let within = parse(document.as_bytes(), UrlPolicy::Egress(&rules));
        assert_eq!(within.is_ok(), permitted, "{within:?}");
        if permitted {
            let closed = addresses(host).into_iter().find_map(|address| Some((address, not_public(address)?)));
            assert_eq!(closed, None, "{url} is permitted");
            assert!(!is_this_machine(host), "{url} is permitted");
        }
        let everything = ["0.0.0.0/0", "::/0"].map(|network| AllowRule::Network(network.parse().expect("a network")));
        assert_eq!(
            EgressRules::new(http_urls, everything.into()).check(url),
            Ok(()),
            "allowing all networks permits the address"
        );
        let other = vec![AllowRule::Host("example.org".to_owned())];
        let opened = EgressRules::new(http_urls, other).check(url).is_ok();
        assert_eq!(opened, permitted, "allowing a network must permit no other address");
    }
}

/// All addresses that a parser may read from a host.
fn addresses(host: &str) -> Vec<IpAddr> {
    let bare = host.trim_matches(['[', ']']).trim_end_matches('.');
    bare.parse().ok().into_iter().chain(as_the_c_library_reads(bare).map(IpAddr::from)).collect()
}

/// An IPv4 address of one to four numbers, each decimal, octal or hexadecimal, as in `inet_aton`. Resolvers and proxies
/// accept it.
fn as_the_c_library_reads(host: &str) -> Option<Ipv4Addr> {
    let numbers: Option<Vec<u64>> = host.split('.').map(number).collect();
    let numbers = numbers?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|number| *number > 255) || last >> (8 * (4 - first.len())) != 0 {
        return None;
    }
    let first = first.iter().zip([24, 16, 8]).fold(0, |sum, (number, shift)| sum | (number << shift));
    u32::try_from(first | last).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text.as_str(), 8),
        None => (text.as_str(), 10),
    };
    // Rust also accepts a sign.
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then(|| u64::from_str_radix(digits, radix).ok())?
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}
