//! Middleware of the console: checks the session, the role and the CSRF token.
//!
//! The form of an unsafe request must contain the same token as the cookie. Another site can make a browser send the
//! cookie, but cannot read it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use cookie::Cookie;
use tokio_util::sync::CancellationToken;

use super::cookies;
use super::form::Form;
use super::layout::{self, CSRF_FIELD, PageError, RequestContext};
use super::session;
use crate::audit::AuditEntry;
use crate::auth::Access;
use crate::body_limit;
use crate::origin_check;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::route::Audit;

/// Allows the largest document twice (the edited form and its original), with URL encoding.
const MAX_FORM_BYTES: usize = 8 * 1024 * 1024;

/// Pages use only their own styles and script, and send forms and requests only to this server.
const CSP: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[derive(Clone)]
pub(super) struct ConsoleGuard {
    pub(super) access: Access,
    /// Cancelled when the worker stops. Ends streams of live updates.
    pub(super) stop: CancellationToken,
}

/// Requires a session or bearer token with the role of the route.
pub(super) async fn require_session(State(guard): State<ConsoleGuard>, request: Request, next: Next) -> Response {
    let policy = guard.access.policy(&request);
    let principal = authenticate(&guard.access, request.headers());
    let path = path_of(&request);
    let audit_entry = (policy.audit == Audit::Logged)
        .then(|| AuditEntry::new(request.method(), request.uri().path(), principal.as_ref()));
    let refusal = match &principal {
        None if request.method() == Method::GET && origin_check::wants_page(request.headers()) => {
            let login = format!("/login?next={}", super::form::percent_encode(&path));
            return with_security_headers(Redirect::to(&login).into_response());
        }
        None => Some(Problem::new(StatusCode::UNAUTHORIZED, "No session, or it has expired. Log in at /login.")),
        Some(principal) if principal.role < policy.role => {
            let (needed, actual) = (policy.role.as_str(), principal.role.as_str());
            let detail = format!("This page needs the role {needed}. Your role is {actual}.");
            Some(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        Some(_) => None,
    };
    let response = admit(&guard, principal, refusal, request, next).await;
    if let Some(audit_entry) = audit_entry {
        audit_entry.finish(&response);
    }
    response
}

/// For pages that need no session, such as the login page.
pub(super) async fn allow_anonymous(State(guard): State<ConsoleGuard>, request: Request, next: Next) -> Response {
    let principal = authenticate(&guard.access, request.headers());
    admit(&guard, principal, None, request, next).await
}

async fn admit(
    guard: &ConsoleGuard,
    principal: Option<Principal>,
    refusal: Option<Problem>,
    request: Request,
    next: Next,
) -> Response {
    let cookie = cookies::get(request.headers(), CSRF_FIELD);
    let is_new_token = cookie.is_none();
    let csrf_token = match cookie.map_or_else(random_token, Ok) {
        Ok(csrf_token) => csrf_token,
        Err(problem) => return with_security_headers(problem.into_response()),
    };
    let path = match request.method().is_safe() {
        true => session::local_path_or_root(&path_of(&request)).to_owned(),
        false => String::new(),
    };
    let (needs_token, wants_html) = (guard.access.needs_token(), origin_check::wants_page(request.headers()));
    let context = RequestContext {
        principal,
        csrf_token: csrf_token.clone(),
        path,
        needs_token,
        wants_html,
        stop: guard.stop.clone(),
    };
    let headers = request.headers().clone();
    let response = match refusal {
        Some(problem) => PageError(problem).into_response(),
        None => match check_origin_and_form(guard, &csrf_token, request, context.clone()).await {
            Ok(request) => next.run(request).await,
            Err(problem) => PageError(problem).into_response(),
        },
    };
    let mut response = layout::render_error(response, &context);
    if is_new_token {
        // Without an age: until the browser is closed.
        cookies::set(&mut response, Cookie::build((CSRF_FIELD, csrf_token)), &headers);
    }
    with_security_headers(response)
}

/// Refuses cross-origin requests and forms without the CSRF token. Reads the form and stores it in the extensions.
async fn check_origin_and_form(
    guard: &ConsoleGuard,
    csrf_token: &str,
    request: Request,
    context: RequestContext,
) -> Result<Request, Problem> {
    if let Some(reason) = guard.access.cross_origin_refusal(request.headers()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, reason));
    }
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(context);
    if parts.method.is_safe() {
        return Ok(Request::from_parts(parts, body));
    }
    if origin_check::is_of_another_origin(&parts.headers) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "This form was sent by a page of another site."));
    }
    let bytes = body_limit::read(body, MAX_FORM_BYTES).await;
    let bytes = bytes.map_err(|error| Problem::unreadable_body(error, "a form", MAX_FORM_BYTES))?;
    let form = Form::parse(&bytes);
    if form.get(CSRF_FIELD) != csrf_token {
        let detail = "This form does not belong to your session. Go back, reload the page and repeat your change.";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, Body::empty()))
}

fn path_of(request: &Request) -> String {
    request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned()
}

fn authenticate(access: &Access, headers: &HeaderMap) -> Option<Principal> {
    access.authenticate(headers).or_else(|| session::principal(access, headers, Utc::now()))
}

/// Adds the security headers that every response has.
fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // URLs contain labels and ids of customers' campaigns.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn random_token() -> Result<String, Problem> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The system provides no random bytes: {error}"))
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
