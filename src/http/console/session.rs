//! A session: the token in a cookie that no script can read. It is checked at each request as a bearer token is, so it
//! holds on every worker, and ends when the token is taken out of the settings.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::Http;
use super::super::access::Access;
use super::super::browser;
use super::form::{Form, Query};
use super::page::{self, Frame, Visit};

/// The cookie with the token.
const SESSION: &str = "waypost-session";

/// A session ends after this time, or when the browser is closed.
const LONGEST_SECONDS: u32 = 12 * 3600;

/// How long a cookie is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// Until the browser is closed.
    Session,
    /// At most as long as a session.
    Limited,
    /// No longer.
    Over,
}

/// The pages that need no session.
pub(super) fn router() -> Router<Http> {
    Router::new()
        .route("/login", get(ask).post(log_in))
        .route("/logout", post(log_out))
        .method_not_allowed_fallback(page::no_such_method)
        .fallback(page::no_such_page)
}

#[derive(askama::Template)]
#[template(path = "login.html")]
struct Login {
    frame: Frame,
    next: String,
    refused: bool,
}

async fn ask(visit: Visit, Query(query): Query) -> Response {
    let next = own_address(query.get("next")).to_owned();
    page::page(&Login { frame: Frame::new(&visit, "Log in"), next, refused: false })
}

async fn log_in(State(http): State<Http>, visit: Visit, form: Form, headers: HeaderMap) -> Response {
    let access = Access::new(http.tokens.clone(), "", &[]);
    let next = own_address(form.get("next"));
    let token = form.get("token").trim();
    let Some(caller) = access.known(token) else {
        tracing::info!(target: "waypost::audit", what = "POST /login", status = 401, "audit");
        return page::page(&Login { frame: Frame::new(&visit, "Log in"), next: next.to_owned(), refused: true });
    };
    let (who, role) = (&*caller.name, caller.role.as_str());
    tracing::info!(target: "waypost::audit", who, role, what = "POST /login", status = 303, "audit");
    let mut response = Redirect::to(next).into_response();
    let kept = URL_SAFE_NO_PAD.encode(token);
    set_cookie(&mut response, SESSION, &kept, Lasting::Limited, &headers);
    response
}

async fn log_out(headers: HeaderMap) -> Response {
    let mut response = Redirect::to("/login").into_response();
    set_cookie(&mut response, SESSION, "", Lasting::Over, &headers);
    response
}

/// The token of the session.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    let kept = URL_SAFE_NO_PAD.decode(cookie(headers, SESSION)?).ok()?;
    String::from_utf8(kept).ok()
}

/// The value of a cookie.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    pairs.find(|(cookie, value)| *cookie == name && !value.is_empty()).map(|(_, value)| value.to_owned())
}

/// Gives the browser that has sent a request a cookie that no script reads, and that comes with no form of another site.
pub(super) fn set_cookie(response: &mut Response, name: &str, value: &str, lasting: Lasting, request: &HeaderMap) {
    let age = match lasting {
        Lasting::Session => String::new(),
        Lasting::Limited => format!("; Max-Age={LONGEST_SECONDS}"),
        Lasting::Over => "; Max-Age=0".to_owned(),
    };
    let secure = if browser::is_over_tls(request) { "; Secure" } else { "" };
    // Lax, not Strict: whoever follows a link to a page here from elsewhere has not to log in once more.
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// An address of this console; the first page where it is another's.
fn own_address(next: &str) -> &str {
    let mut chars = next.chars();
    let is_own =
        chars.next() == Some('/') && !matches!(chars.next(), Some('/' | '\\')) && !next.contains(char::is_control);
    if is_own { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(own_address(next), expected, "{next}");
        }
    }

    #[test]
    fn cookies() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; waypost-session=dG9rZW4; b"));
        headers.append(header::COOKIE, HeaderValue::from_static("c=3"));
        assert_eq!(cookie(&headers, "c").as_deref(), Some("3"));
        assert_eq!(cookie(&headers, "b"), None);
        assert_eq!(token(&headers).as_deref(), Some("token"));
    }
}
