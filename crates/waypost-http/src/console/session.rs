//! Sessions and the login page.
//!
//! A session is a signed cookie with the name of a token and an expiry time. The key is the hash of the token, so every
//! worker with the same settings accepts the session, and no worker stores it. The session ends when its token is
//! removed. The cookie does not contain the token, so it gives no access to the API.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use cookie::Cookie;
use cookie::time::Duration;
use subtle::ConstantTimeEq as _;

use super::cookies;
use super::form::{Form, FormQuery};
use super::layout::{self, Layout, RequestContext};
use crate::api_state::ApiState;
use crate::auth::Access;
use crate::principal::Principal;

const SESSION_COOKIE: &str = "waypost-session";

const MAX_SESSION_AGE: Duration = Duration::hours(12);

/// Pages that need no session.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/login", get(show_login).post(log_in))
        .route("/logout", post(log_out))
        .method_not_allowed_fallback(layout::no_such_method)
        .fallback(layout::no_such_page)
}

#[derive(askama::Template)]
#[template(path = "login.html")]
struct LoginPage {
    layout: Layout,
    next: String,
    is_token_rejected: bool,
}

async fn show_login(context: RequestContext, FormQuery(query): FormQuery) -> Response {
    let next = local_path_or_root(query.get("next")).to_owned();
    layout::page(&LoginPage { layout: Layout::new(&context, "Log in"), next, is_token_rejected: false })
}

async fn log_in(State(state): State<ApiState>, context: RequestContext, form: Form, headers: HeaderMap) -> Response {
    let access = Access::new(state.tokens.clone(), "", &[]);
    let next = local_path_or_root(form.get("next"));
    let token = form.get("token").trim();
    let Some((principal, key)) = access.principal_by_token(token) else {
        tracing::info!(target: "waypost::audit", what = "POST /login", status = 401, "audit");
        return layout::page(&LoginPage {
            layout: Layout::new(&context, "Log in"),
            next: next.to_owned(),
            is_token_rejected: true,
        });
    };
    let (who, role) = (&*principal.name, principal.role.as_str());
    tracing::info!(target: "waypost::audit", who, role, what = "POST /login", status = 303, "audit");
    let mut response = Redirect::to(next).into_response();
    let expires_at = Utc::now().timestamp() + MAX_SESSION_AGE.whole_seconds();
    let session = sign_session(&principal.name, expires_at, &key);
    cookies::set(&mut response, Cookie::build((SESSION_COOKIE, session)).max_age(MAX_SESSION_AGE), &headers);
    response
}

async fn log_out(headers: HeaderMap) -> Response {
    let mut response = Redirect::to("/login").into_response();
    // Deletes the cookie.
    cookies::set(&mut response, Cookie::build(SESSION_COOKIE).max_age(Duration::ZERO), &headers);
    response
}

/// The principal of a session. `None` if there is no valid session or it has expired.
pub(super) fn principal(access: &Access, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Principal> {
    let session = cookies::get(headers, SESSION_COOKIE)?;
    let mut parts = session.split('.');
    let (name, expires_at): (_, i64) = (URL_SAFE_NO_PAD.decode(parts.next()?).ok()?, parts.next()?.parse().ok()?);
    let (principal, key) = access.principal_by_name(std::str::from_utf8(&name).ok()?)?;
    let signed = sign_session(&principal.name, expires_at, &key);
    let is_valid = bool::from(signed.as_bytes().ct_eq(session.as_bytes()));
    (is_valid && now.timestamp() < expires_at).then_some(principal)
}

/// `NAME.EXPIRY.SIGNATURE`: the name in Base64, the expiry in Unix seconds, and an HMAC-SHA256 with the hash of the
/// token as its key.
fn sign_session(name: &str, expires_at: i64, key: &[u8; 32]) -> String {
    let payload = format!("{}.{expires_at}", URL_SAFE_NO_PAD.encode(name));
    let signature = hmac_sha256::HMAC::mac(format!("{SESSION_COOKIE} {payload}"), key);
    format!("{payload}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Returns `next` if it is a path of this console, and `/` otherwise.
pub(super) fn local_path_or_root(next: &str) -> &str {
    let mut chars = next.chars();
    let is_local =
        chars.next() == Some('/') && !matches!(chars.next(), Some('/' | '\\')) && !next.contains(char::is_control);
    if is_local { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};
    use sha2::{Digest as _, Sha256};
    use waypost_core::access::{Role, Token};

    use super::*;

    #[test]
    fn redirects_stay_on_this_console() {
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
    fn a_session_is_signed_and_expires() {
        let token = |name: &str, role| Token { name: name.to_owned(), role, sha256: Sha256::digest(name).into() };
        let tokens = [token("anna", Role::Editor), token("bert", Role::Viewer)];
        let access = Access::new(tokens.into(), "", &[]);
        let key: [u8; 32] = Sha256::digest("anna").into();
        let now = Utc::now();
        let principal_of = |cookie: &str| {
            let mut headers = HeaderMap::new();
            let cookie = format!("{SESSION_COOKIE}={cookie}");
            headers.insert(header::COOKIE, HeaderValue::from_str(&cookie).expect("a cookie"));
            principal(&access, &headers, now).map(|principal| (principal.name.to_string(), principal.role))
        };
        let own = sign_session("anna", now.timestamp() + 60, &key);
        assert_eq!(principal_of(&own), Some(("anna".to_owned(), Role::Editor)));
        assert_eq!(principal_of(&sign_session("anna", now.timestamp(), &key)), None, "expired");
        assert_eq!(
            principal_of(&sign_session("bert", now.timestamp() + 60, &key)),
            None,
            "signed with the key of another token"
        );
        assert_eq!(principal_of(&sign_session("carl", now.timestamp() + 60, &key)), None, "removed token");
        let extended = own.replacen(&(now.timestamp() + 60).to_string(), &(now.timestamp() + 600).to_string(), 1);
        assert_eq!(principal_of(&extended), None, "extended expiry");
        for malformed in ["", "x", "..", "YW5uYQ.x.y"] {
            assert_eq!(principal_of(malformed), None, "{malformed}");
        }
    }
}
