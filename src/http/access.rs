//! Who may do what: bearer tokens, each with a role.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::Http;
use super::problem::Problem;
use crate::config::{Role, Token};

/// The role of whoever sent a request. Without any token configured everybody is an editor: the settings then allow a
/// loopback listener only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller(pub(super) Role);

/// Lets a request pass whose token has the role its route needs.
pub(super) async fn require(State(http): State<Http>, mut request: Request, next: Next) -> Response {
    let needed = needed(request.method(), request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str));
    match caller(&http.tokens, &request) {
        None => {
            let detail = match request.headers().contains_key(header::AUTHORIZATION) {
                true => "this token is not known",
                false => "a token is needed: send `Authorization: Bearer TOKEN`",
            };
            let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
            ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        Some(Caller(role)) if role < needed => {
            let detail = format!("this needs the role {}, and the token has {}", needed.as_str(), role.as_str());
            Problem::new(StatusCode::FORBIDDEN, detail).into_response()
        }
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    }
}

fn needed(method: &Method, route: &str) -> Role {
    match (method, route) {
        (&Method::GET | &Method::HEAD, _) => Role::Viewer,
        (_, "/v1/events") => Role::Operator,
        _ => Role::Editor,
    }
}

fn caller(tokens: &[Token], request: &Request) -> Option<Caller> {
    if tokens.is_empty() {
        return Some(Caller(Role::Editor));
    }
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let sha256: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
    let known = tokens.iter().filter(|token| same(&token.sha256, &sha256)).map(|token| Caller(token.role)).max();
    known.filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

/// Compares in a time that does not depend on where the two differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
