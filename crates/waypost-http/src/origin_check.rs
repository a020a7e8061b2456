//! Detects requests that a web page of another origin sends. Any page in a browser on this machine can reach a loopback
//! listener. If no token is needed, such a page must neither read nor change anything.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};

/// Why a request without a token is refused: it comes from a page of another origin, or its `Host` may be a foreign
/// name that resolves to this machine (DNS rebinding).
pub(super) fn refusal(headers: &HeaderMap) -> Option<String> {
    let foreign_host = headers.get_all(header::HOST).iter().find(|host| !is_loopback(host));
    if let Some(host) = foreign_host {
        let host = String::from_utf8_lossy(host.as_bytes());
        return Some(format!(
            "without http.tokens, Waypost accepts only requests to 127.0.0.1 or localhost, not to `{host}`: use one of \
             these, or configure http.tokens"
        ));
    }
    let host = headers.get(header::HOST);
    let foreign_origin =
        headers.get_all(header::ORIGIN).iter().find(|origin| !host.is_some_and(|host| is_own(origin, host)));
    foreign_origin.map(|origin| {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        format!("without http.tokens, Waypost accepts no requests from pages of another origin, and this one comes from `{origin}`: configure http.tokens")
    })
}

/// Whether the browser's headers show that a page of another origin has sent the request.
pub(super) fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST);
    let own = |origin: &HeaderValue| host.is_some_and(|host| is_own(origin, host));
    !headers.get_all(header::ORIGIN).iter().all(own)
        || headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Whether a header of the browser or of a proxy shows that the client uses TLS.
pub(super) fn is_over_tls(headers: &HeaderMap) -> bool {
    let by_origin = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    by_origin || headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https")
}

/// Whether the client is a browser that wants a page, not a program.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok());
    accepted.any(|accepted| accepted.contains("text/html"))
}

/// Why a body with this `Content-Type` is refused. For a page of another origin, a browser sends forms and plain text
/// without a CORS preflight, but not JSON. JSON sent as a form is accepted without `Origin`, which a browser would
/// send.
pub(super) fn media_type_refusal(headers: &HeaderMap) -> Option<String> {
    let is_accepted = |kind: &HeaderValue| match essence(kind) {
        Some(kind) if kind == "application/json" || kind.ends_with("+json") => true,
        // The default of `curl -d`.
        Some(kind) => kind == "application/x-www-form-urlencoded" && !headers.contains_key(header::ORIGIN),
        None => false,
    };
    let refused = headers.get_all(header::CONTENT_TYPE).iter().find(|kind| !is_accepted(kind));
    refused.map(|kind| {
        let kind = String::from_utf8_lossy(kind.as_bytes());
        format!("the body must be JSON, but its `Content-Type` is `{kind}`: send `Content-Type: application/json`")
    })
}

/// The media type without parameters: `text/plain` for `Text/Plain; charset=utf-8`.
fn essence(kind: &HeaderValue) -> Option<String> {
    kind.to_str().ok()?.split(';').next().map(|essence| essence.trim().to_ascii_lowercase())
}

/// Whether a `Host` can only mean this machine, whatever DNS answers.
fn is_loopback(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        match name.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    })
}

/// Whether an `Origin` is this server's. The scheme may differ, because a proxy may terminate TLS.
fn is_own(origin: &HeaderValue, host: &HeaderValue) -> bool {
    let (Ok(origin), Ok(host)) = (origin.to_str(), host.to_str()) else { return false };
    let own = origin.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
    own.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        fields.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn only_requests_from_this_machine_are_answered() {
        for (host, origin, is_refused) in [
            ("127.0.0.1:8080", "", false),
            ("127.8.9.1", "", false),
            ("LocalHost:8080", "", false),
            ("waypost.localhost:8080", "", false),
            ("[::1]:8080", "", false),
            ("[::ffff:127.0.0.1]:8080", "", false),
            // A browser always sends a host.
            ("", "", false),
            ("rebound.example:8080", "", true),
            ("localhost.example", "", true),
            ("127.0.0.1.example", "", true),
            ("192.168.0.2:8080", "", true),
            ("0.0.0.0:8080", "", true),
            ("localhost:8080@example.com", "", true),
            ("127.0.0.1:8080", "http://127.0.0.1:8080", false),
            ("localhost:8080", "https://LOCALHOST:8080", false),
            ("127.0.0.1:8080", "https://example.com", true),
            ("127.0.0.1:8080", "http://127.0.0.1:3000", true),
            ("127.0.0.1:8080", "http://localhost:8080", true),
            ("127.0.0.1:8080", "null", true),
            ("127.0.0.1:8080", "chrome-extension://127.0.0.1:8080", true),
            ("", "http://127.0.0.1:8080", true),
            ("rebound.example:8080", "http://rebound.example:8080", true),
        ] {
            let refusal = refusal(&headers(&[("host", host), ("origin", origin)]));
            assert_eq!(refusal.is_some(), is_refused, "{host} {origin}: {refusal:?}");
        }
    }

    #[test]
    fn only_json_bodies_are_accepted() {
        for (kind, origin, is_refused) in [
            ("", "", false),
            ("application/json", "", false),
            ("Application/JSON; charset=utf-8", "https://example.com", false),
            ("application/cloudevents+json", "", false),
            ("application/x-www-form-urlencoded", "", false),
            ("application/x-www-form-urlencoded", "http://127.0.0.1:8080", true),
            ("application/x-www-form-urlencoded; charset=utf-8", "null", true),
            ("text/plain", "", true),
            ("text/plain;charset=UTF-8", "https://example.com", true),
            ("text/plain; application/json", "", true),
            ("multipart/form-data; boundary=x", "", true),
            ("application/jsonx", "", true),
            ("json", "", true),
        ] {
            let refusal = media_type_refusal(&headers(&[("content-type", kind), ("origin", origin)]));
            assert_eq!(refusal.is_some(), is_refused, "{kind} {origin}: {refusal:?}");
        }
    }
}
