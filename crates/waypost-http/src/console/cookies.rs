//! Reads and sets the cookies of the console.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use cookie::{Cookie, CookieBuilder, SameSite};

use crate::origin_check;

/// The value of a cookie. `None` if it is missing or empty.
pub(super) fn get(request: &HeaderMap, name: &str) -> Option<String> {
    let headers = request.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    // Another program at this host may have set a malformed cookie.
    let mut cookies = headers.flat_map(Cookie::split_parse).filter_map(Result::ok);
    let found = cookies.find(|cookie| cookie.name() == name && !cookie.value().is_empty());
    found.map(|cookie| cookie.value().to_owned())
}

/// Sets a cookie that scripts can't read and that browsers do not send with forms of other sites.
pub(super) fn set(response: &mut Response, cookie: CookieBuilder<'static>, request: &HeaderMap) {
    let cookie = cookie
        .path("/")
        .http_only(true)
        // Lax, not Strict: a link from another site to the console keeps the session.
        .same_site(SameSite::Lax)
        .secure(origin_check::is_over_tls(request));
    if let Ok(cookie) = HeaderValue::from_str(&cookie.build().to_string()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::response::IntoResponse as _;
    use cookie::time::Duration;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_name() {
        let mut headers = HeaderMap::new();
        for cookies in ["a=1; d=4; b", "c=3", "=odd; e=; f=\"x\"; e=5; g=%; h=a=b"] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookies));
        }
        for (name, value) in [
            ("a", Some("1")),
            ("b", None),
            ("c", Some("3")),
            ("d", Some("4")),
            ("e", Some("5")),
            ("f", Some("\"x\"")),
            ("g", Some("%")),
            ("h", Some("a=b")),
            ("i", None),
            ("", None),
        ] {
            assert_eq!(get(&headers, name).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn a_cookie_is_protected_and_lasts_as_long_as_it_should() {
        const PROTECTED: [&str; 4] = ["a=1", "HttpOnly", "SameSite=Lax", "Path=/"];
        for (max_age, scheme, more) in [
            (None, "http", &[] as &[&str]),
            (None, "https", &["Secure"]),
            (Some(Duration::hours(12)), "http", &["Max-Age=43200"]),
            (Some(Duration::ZERO), "https", &["Max-Age=0", "Secure"]),
        ] {
            let mut request = HeaderMap::new();
            request.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
            let mut response = ().into_response();
            let mut cookie = Cookie::new("a", "1");
            cookie.set_max_age(max_age);
            set(&mut response, cookie.into(), &request);
            let header = response.headers()[header::SET_COOKIE].to_str().expect("text").to_owned();
            let attributes: BTreeSet<&str> = header.split("; ").collect();
            assert_eq!(attributes, PROTECTED.iter().chain(more).copied().collect::<BTreeSet<_>>(), "{header}");
        }
    }
}
