//! Authentication and authorization: bearer tokens with a role, the lowest role that each route allows, and the refusal
//! of web pages of other origins.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use waypost_core::access::{Role, Token};

use super::audit::AuditEntry;
use super::origin_check;
use super::principal::{LOCAL, Principal};
use super::problem::Problem;
use super::route::{Audit, Route};

#[derive(Clone)]
pub(super) struct Access {
    tokens: Arc<[Token]>,
    routes: Arc<HashMap<(Method, String), RoutePolicy>>,
}

#[derive(Clone, Copy)]
pub(super) struct RoutePolicy {
    /// The lowest role allowed.
    pub(super) role: Role,
    pub(super) audit: Audit,
}

impl Access {
    /// `root` is the path above all `routes`.
    pub(super) fn new(tokens: Arc<[Token]>, root: &str, routes: &[Route]) -> Self {
        let policy = |route: &Route| RoutePolicy { role: route.role, audit: route.audit };
        let routes =
            routes.iter().map(|route| ((route.method.clone(), format!("{root}{}", route.path)), policy(route)));
        Self { tokens, routes: Arc::new(routes.collect()) }
    }

    /// The policy of the request's route. Anyone with a token may get the 404 or 405 of an unknown route.
    pub(super) fn policy(&self, request: &Request) -> RoutePolicy {
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let no_route = RoutePolicy { role: Role::Viewer, audit: Audit::of_method(&method) };
        self.routes.get(&(method, path.to_owned())).copied().unwrap_or(no_route)
    }

    /// The sender of a request, by its bearer token.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Option<Principal> {
        if !self.needs_token() {
            return Some(Principal { name: LOCAL.into(), role: Role::Editor });
        }
        let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        let (principal, _) = self.principal_by_token(token.trim())?;
        scheme.eq_ignore_ascii_case("bearer").then_some(principal)
    }

    /// The principal with this token, and the token's SHA-256.
    pub(super) fn principal_by_token(&self, token: &str) -> Option<(Principal, [u8; 32])> {
        let sha256: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let token = self
            .tokens
            .iter()
            .filter(|token| bool::from(token.sha256.ct_eq(&sha256)))
            .max_by_key(|token| token.role)?;
        Some((Principal { name: token.name.as_str().into(), role: token.role }, sha256))
    }

    /// The principal with the token of this name, and the token's SHA-256.
    pub(super) fn principal_by_name(&self, name: &str) -> Option<(Principal, [u8; 32])> {
        let token = self.tokens.iter().find(|token| token.name == name)?;
        Some((Principal { name: token.name.as_str().into(), role: token.role }, token.sha256))
    }

    pub(super) fn needs_token(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Why a request is refused that a web page of another origin may have sent. `None` if tokens are configured.
    pub(super) fn cross_origin_refusal(&self, headers: &HeaderMap) -> Option<String> {
        if self.needs_token() { None } else { origin_check::refusal(headers) }
    }
}

/// Middleware: refuses requests without the role that the route needs, and requests of web pages of other origins.
/// Writes the audit log entry.
pub(super) async fn authorize(
    State(access): State<Access>,
    OriginalUri(uri): OriginalUri,
    mut request: Request,
    next: Next,
) -> Response {
    let policy = access.policy(&request);
    let principal = access.authenticate(request.headers());
    let is_audited = policy.audit == Audit::Logged;
    let entry = is_audited.then(|| AuditEntry::new(request.method(), uri.path(), principal.as_ref()));
    let cross_origin_refusal = access.cross_origin_refusal(request.headers());
    let response = match (cross_origin_refusal, principal) {
        (Some(detail), _) => Problem::new(StatusCode::FORBIDDEN, detail).into_response(),
        (None, None) => {
            let detail = match request.headers().contains_key(header::AUTHORIZATION) {
                true => "unknown token",
                false => "a token is needed: send `Authorization: Bearer TOKEN`",
            };
            let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
            ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        (None, Some(principal)) if principal.role < policy.role => {
            let (needed, has) = (policy.role.as_str(), principal.role.as_str());
            let detail = format!("this needs the role {needed}, and the token has {has}");
            Problem::new(StatusCode::FORBIDDEN, detail).into_response()
        }
        (None, Some(principal)) => {
            match origin_check::media_type_refusal(request.headers()).filter(|_| !request.body().is_end_stream()) {
                Some(detail) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into_response(),
                None => {
                    request.extensions_mut().insert(principal);
                    next.run(request).await
                }
            }
        }
    };
    if let Some(entry) = entry {
        entry.finish(&response);
    }
    response
}
