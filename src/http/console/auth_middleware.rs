//! Who comes in: the session, the role, and nothing that another site's page has made a browser send.
//!
//! A request that could change something brings a token in its form that is the same as the one in its cookie. Another
//! site can make a browser send the cookie, and cannot read it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::super::audit::AuditEntry;
use super::super::auth::Access;
use super::super::body_limit;
use super::super::origin_check;
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::route::Audit;
use super::form::Form;
use super::layout::{self, CSRF_FIELD, PageError, RequestContext};
use super::session;

/// The largest form: a document of the greatest length twice, as it is and as it was, and some of it escaped.
const MAX_FORM_BYTES: usize = 8 * 1024 * 1024;

/// What a browser may do with a page: show it with its own style and script, and send forms and requests back here.
const CSP: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What is asked of whoever comes.
#[derive(Clone)]
pub(super) struct ConsoleGuard {
    pub(super) access: Access,
    /// The end of this worker.
    pub(super) stop: CancellationToken,
}

/// Lets in who has a session with the role that the page needs.
pub(super) async fn pass(State(door): State<ConsoleGuard>, request: Request, next: Next) -> Response {
    let demand = door.access.demand(&request);
    let caller = caller(&door.access, request.headers());
    let path = path_of(&request);
    let entry =
        (demand.audit == Audit::Kept).then(|| AuditEntry::new(request.method(), request.uri().path(), caller.as_ref()));
    let refusal = match &caller {
        None if request.method() == Method::GET && origin_check::wants_page(request.headers()) => {
            let login = format!("/login?next={}", super::form::escaped(&path));
            return with_security_headers(Redirect::to(&login).into_response());
        }
        None => Some(Problem::new(StatusCode::UNAUTHORIZED, "there is no session, or it is over: log in at /login")),
        Some(caller) if caller.role < demand.role => {
            let (needed, has) = (demand.role.as_str(), caller.role.as_str());
            let detail = format!("this needs the role {needed}, and you have {has}");
            Some(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        Some(_) => None,
    };
    let response = admit(&door, caller, refusal, request, next).await;
    if let Some(entry) = entry {
        entry.answered(&response);
    }
    response
}

/// Lets in anybody: for who has no session yet.
pub(super) async fn open(State(door): State<ConsoleGuard>, request: Request, next: Next) -> Response {
    let caller = caller(&door.access, request.headers());
    admit(&door, caller, None, request, next).await
}

async fn admit(
    door: &ConsoleGuard,
    caller: Option<Principal>,
    refusal: Option<Problem>,
    request: Request,
    next: Next,
) -> Response {
    let known = session::cookie(request.headers(), CSRF_FIELD);
    let is_new = known.is_none();
    let forgery = match known.map_or_else(random, Ok) {
        Ok(forgery) => forgery,
        Err(problem) => return with_security_headers(problem.into_response()),
    };
    let path = match request.method().is_safe() {
        true => session::local_path_or_root(&path_of(&request)).to_owned(),
        false => String::new(),
    };
    let (needs_token, is_person) = (door.access.needs_token(), origin_check::wants_page(request.headers()));
    let visit =
        RequestContext { caller, forgery: forgery.clone(), path, needs_token, is_person, stop: door.stop.clone() };
    let headers = request.headers().clone();
    let response = match refusal {
        Some(problem) => PageError(problem).into_response(),
        None => match checked(door, &forgery, request, visit.clone()).await {
            Ok(request) => next.run(request).await,
            Err(problem) => PageError(problem).into_response(),
        },
    };
    let mut response = layout::with_failures_shown(response, &visit);
    if is_new {
        session::set_cookie(&mut response, CSRF_FIELD, &forgery, session::CookieLifetime::Session, &headers);
    }
    with_security_headers(response)
}

/// The request with its form read, where no other site has had a hand in it.
async fn checked(
    door: &ConsoleGuard,
    forgery: &str,
    request: Request,
    visit: RequestContext,
) -> Result<Request, Problem> {
    if let Some(foreign) = door.access.cross_origin_refusal(request.headers()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, foreign));
    }
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(visit);
    if parts.method.is_safe() {
        return Ok(Request::from_parts(parts, body));
    }
    if origin_check::is_of_another_origin(&parts.headers) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "this form was sent by a page of another site"));
    }
    let bytes = body_limit::read(body, MAX_FORM_BYTES).await;
    let bytes = bytes.map_err(|unread| Problem::of_body(unread, "a form", MAX_FORM_BYTES))?;
    let form = Form::read(&bytes);
    if form.get(CSRF_FIELD) != forgery {
        let detail = "this form does not belong to your session: go back, load the page again, and repeat it";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, Body::empty()))
}

fn path_of(request: &Request) -> String {
    request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned()
}

fn caller(access: &Access, headers: &HeaderMap) -> Option<Principal> {
    access.caller(headers).or_else(|| session::caller(access, headers, Utc::now()))
}

/// With the headers that every answer has.
fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Addresses have labels and ids of customers' campaigns.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn random() -> Result<String, Problem> {
    let mut random = [0; 18];
    getrandom::fill(&mut random).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the system gives no random bytes: {error}"))
    })?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}
