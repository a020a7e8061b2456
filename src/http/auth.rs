//! Who may do what: bearer tokens, each with a role, and for each route the least role it takes; and no web page of
//! somebody else's.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::audit::AuditEntry;
use super::origin_check;
use super::principal::{LOCAL, Principal};
use super::problem::Problem;
use super::route::{Audit, Route};
use crate::config::{Role, Token};

/// What is asked of whoever comes.
#[derive(Clone)]
pub(super) struct Access {
    tokens: Arc<[Token]>,
    routes: Arc<HashMap<(Method, String), RoutePolicy>>,
}

/// What a route asks for.
#[derive(Clone, Copy)]
pub(super) struct RoutePolicy {
    pub(super) role: Role,
    pub(super) audit: Audit,
}

impl Access {
    /// `routes` are below the path `root`.
    pub(super) fn new(tokens: Arc<[Token]>, root: &str, routes: &[Route]) -> Self {
        let demand = |route: &Route| RoutePolicy { role: route.role, audit: route.audit };
        let routes =
            routes.iter().map(|route| ((route.method.clone(), format!("{root}{}", route.path)), demand(route)));
        Self { tokens, routes: Arc::new(routes.collect()) }
    }

    /// What is asked for. What is no route is answered 404 or 405, which anybody with a token may know.
    pub(super) fn demand(&self, request: &Request) -> RoutePolicy {
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let no_route = RoutePolicy { role: Role::Viewer, audit: Audit::of_method(&method) };
        self.routes.get(&(method, path.to_owned())).copied().unwrap_or(no_route)
    }

    /// Whoever has sent these headers, by their bearer token.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Principal> {
        if !self.needs_token() {
            return Some(Principal { name: LOCAL.into(), role: Role::Editor });
        }
        let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.split_once(' ')?;
        let (caller, _) = self.known(token.trim())?;
        scheme.eq_ignore_ascii_case("bearer").then_some(caller)
    }

    /// Whoever has this token, and its hash.
    pub(super) fn known(&self, token: &str) -> Option<(Principal, [u8; 32])> {
        let sha256: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self
            .tokens
            .iter()
            .filter(|token| bool::from(token.sha256.ct_eq(&sha256)))
            .max_by_key(|token| token.role)?;
        Some((Principal { name: known.name.as_str().into(), role: known.role }, sha256))
    }

    /// Whoever has the token of this name, and its hash.
    pub(super) fn named(&self, name: &str) -> Option<(Principal, [u8; 32])> {
        let token = self.tokens.iter().find(|token| token.name == name)?;
        Some((Principal { name: token.name.as_str().into(), role: token.role }, token.sha256))
    }

    /// Whether tokens are configured.
    pub(super) fn needs_token(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Why a request is refused that a web page of somebody else's may have sent.
    pub(super) fn cross_origin_refusal(&self, headers: &HeaderMap) -> Option<String> {
        if self.needs_token() { None } else { origin_check::refusal(headers) }
    }
}

/// Lets a request pass whose token has the role its route needs, and that no web page of another origin has sent; has it
/// audited.
pub(super) async fn require(
    State(access): State<Access>,
    OriginalUri(address): OriginalUri,
    mut request: Request,
    next: Next,
) -> Response {
    let demand = access.demand(&request);
    let caller = access.caller(request.headers());
    let audited = demand.audit == Audit::Kept;
    let entry = audited.then(|| AuditEntry::new(request.method(), address.path(), caller.as_ref()));
    let foreign = access.cross_origin_refusal(request.headers());
    let response = match (foreign, caller) {
        (Some(foreign), _) => Problem::new(StatusCode::FORBIDDEN, foreign).into_response(),
        (None, None) => {
            let detail = match request.headers().contains_key(header::AUTHORIZATION) {
                true => "this token is not known",
                false => "a token is needed: send `Authorization: Bearer TOKEN`",
            };
            let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
            ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
        }
        (None, Some(caller)) if caller.role < demand.role => {
            let (needed, has) = (demand.role.as_str(), caller.role.as_str());
            let detail = format!("this needs the role {needed}, and the token has {has}");
            Problem::new(StatusCode::FORBIDDEN, detail).into_response()
        }
        (None, Some(caller)) => {
            match origin_check::wrong_type(request.headers()).filter(|_| !request.body().is_end_stream()) {
                Some(wrong) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, wrong).into_response(),
                None => {
                    request.extensions_mut().insert(caller);
                    next.run(request).await
                }
            }
        }
    };
    if let Some(entry) = entry {
        entry.answered(&response);
    }
    response
}
