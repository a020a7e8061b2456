//! A session: a cookie that no script can read, with the name of a token and an end, under a seal that only who has the
//! settings can make. It has not the token itself, so it is nothing to the API. No worker has to remember it, and it ends
//! with its token.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use subtle::ConstantTimeEq as _;

use super::super::ApiState;
use super::super::auth::Access;
use super::super::origin_check;
use super::super::principal::Principal;
use super::form::{Form, Query};
use super::layout::{self, Layout, RequestContext};

/// The cookie with the token.
const SESSION: &str = "waypost-session";

/// A session ends after this time, or when the browser is closed.
const LONGEST_SECONDS: u32 = 12 * 3600;

/// How long a cookie is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CookieLifetime {
    /// Until the browser is closed.
    Session,
    /// At most as long as a session.
    Limited,
    /// No longer.
    Over,
}

/// The pages that need no session.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/login", get(ask).post(log_in))
        .route("/logout", post(log_out))
        .method_not_allowed_fallback(layout::no_such_method)
        .fallback(layout::no_such_page)
}

#[derive(askama::Template)]
#[template(path = "login.html")]
struct Login {
    frame: Layout,
    next: String,
    refused: bool,
}

async fn ask(visit: RequestContext, Query(query): Query) -> Response {
    let next = local_path_or_root(query.get("next")).to_owned();
    layout::page(&Login { frame: Layout::new(&visit, "Log in"), next, refused: false })
}

async fn log_in(State(http): State<ApiState>, visit: RequestContext, form: Form, headers: HeaderMap) -> Response {
    let access = Access::new(http.tokens.clone(), "", &[]);
    let next = local_path_or_root(form.get("next"));
    let token = form.get("token").trim();
    let Some((caller, key)) = access.known(token) else {
        tracing::info!(target: "waypost::audit", what = "POST /login", status = 401, "audit");
        return layout::page(&Login { frame: Layout::new(&visit, "Log in"), next: next.to_owned(), refused: true });
    };
    let (who, role) = (&*caller.name, caller.role.as_str());
    tracing::info!(target: "waypost::audit", who, role, what = "POST /login", status = 303, "audit");
    let mut response = Redirect::to(next).into_response();
    let end = Utc::now().timestamp() + i64::from(LONGEST_SECONDS);
    set_cookie(&mut response, SESSION, &sealed(&caller.name, end, &key), CookieLifetime::Limited, &headers);
    response
}

async fn log_out(headers: HeaderMap) -> Response {
    let mut response = Redirect::to("/login").into_response();
    set_cookie(&mut response, SESSION, "", CookieLifetime::Over, &headers);
    response
}

/// Whose session it is, where it is one that has not ended.
pub(super) fn caller(access: &Access, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Principal> {
    let kept = cookie(headers, SESSION)?;
    let mut parts = kept.split('.');
    let (name, end) = (URL_SAFE_NO_PAD.decode(parts.next()?).ok()?, parts.next()?.parse().ok()?);
    let (caller, key) = access.named(std::str::from_utf8(&name).ok()?)?;
    let is_ours = bool::from(sealed(&caller.name, end, &key).as_bytes().ct_eq(kept.as_bytes()));
    (is_ours && now.timestamp() < end).then_some(caller)
}

/// `NAME.END.SEAL`: the end in Unix seconds, the seal an HMAC-SHA256 by the hash of the token.
fn sealed(name: &str, end: i64, key: &[u8; 32]) -> String {
    let said = format!("{}.{end}", URL_SAFE_NO_PAD.encode(name));
    let seal = hmac_sha256::HMAC::mac(format!("{SESSION} {said}"), key);
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(seal))
}

/// The value of a cookie.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    pairs.find(|(cookie, value)| *cookie == name && !value.is_empty()).map(|(_, value)| value.to_owned())
}

/// Gives the browser that has sent a request a cookie that no script reads, and that comes with no form of another site.
pub(super) fn set_cookie(
    response: &mut Response,
    name: &str,
    value: &str,
    lasting: CookieLifetime,
    request: &HeaderMap,
) {
    let age = match lasting {
        CookieLifetime::Session => String::new(),
        CookieLifetime::Limited => format!("; Max-Age={LONGEST_SECONDS}"),
        CookieLifetime::Over => "; Max-Age=0".to_owned(),
    };
    let secure = if origin_check::is_over_tls(request) { "; Secure" } else { "" };
    // Lax, not Strict: whoever follows a link to a page here from elsewhere has not to log in once more.
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// An address of this console; the first page where it is another's.
pub(super) fn local_path_or_root(next: &str) -> &str {
    let mut chars = next.chars();
    let is_own =
        chars.next() == Some('/') && !matches!(chars.next(), Some('/' | '\\')) && !next.contains(char::is_control);
    if is_own { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::config::{Role, Token};

    #[test]
    fn only_addresses_of_our_own_are_gone_to() {
        for (next, expected) in [
            ("/campaigns?q=a", "/campaigns?q=a"),
            ("/", "/"),
            ("", "/"),
            ("//example.com", "/"),
            ("/\\example.com", "/"),
            ("https://example.com", "/"),
            ("/a\nb", "/"),
        ] {
            assert_eq!(local_path_or_root(next), expected, "{next}");
        }
    }

    #[test]
    fn cookies() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; d=4; b"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=3"));
        assert_eq!(cookie(&headers, "c").as_deref(), Some("3"));
        assert_eq!(cookie(&headers, "b"), None);
        assert_eq!(cookie(&headers, "d").as_deref(), Some("4"));
    }

    #[test]
    fn a_session_is_sealed_and_ends() {
        let token = |name: &str, role| Token { name: name.to_owned(), role, sha256: Sha256::digest(name).into() };
        let tokens = [token("anna", Role::Editor), token("bert", Role::Viewer)];
        let access = Access::new(tokens.into(), "", &[]);
        let key: [u8; 32] = Sha256::digest("anna").into();
        let now = Utc::now();
        let seen = |cookie: &str| {
            let mut headers = HeaderMap::new();
            let cookie = format!("{SESSION}={cookie}");
            headers.insert(header::COOKIE, HeaderValue::from_str(&cookie).expect("a cookie"));
            caller(&access, &headers, now).map(|caller| (caller.name.to_string(), caller.role))
        };
        let own = sealed("anna", now.timestamp() + 60, &key);
        assert_eq!(seen(&own), Some(("anna".to_owned(), Role::Editor)));
        assert_eq!(seen(&sealed("anna", now.timestamp(), &key)), None, "it is over");
        assert_eq!(seen(&sealed("bert", now.timestamp() + 60, &key)), None, "the seal of another");
        assert_eq!(seen(&sealed("carl", now.timestamp() + 60, &key)), None, "a token that is gone");
        let longer = own.replacen(&(now.timestamp() + 60).to_string(), &(now.timestamp() + 600).to_string(), 1);
        assert_eq!(seen(&longer), None, "an end that was put off");
        for broken in ["", "x", "..", "YW5uYQ.x.y"] {
            assert_eq!(seen(broken), None, "{broken}");
        }
    }
}
