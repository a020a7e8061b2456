//! What pages have in common: the frame around them, and how a problem is shown.

use std::convert::Infallible;
use std::fmt;

use askama::Template;
use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::super::audit::AuditDetail;
use super::super::principal::Principal;
use super::super::problem::Problem;
use crate::config::Role;

/// The field and the cookie of the token against forgery.
pub(super) const CSRF_FIELD: &str = "waypost-form";

/// One request of a browser.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    /// None before there is a session.
    pub(super) caller: Option<Principal>,
    /// The token against forgery.
    pub(super) forgery: String,
    /// The address that was asked for; empty where it is none to go to again.
    pub(super) path: String,
    /// Whether tokens are configured.
    pub(super) needs_token: bool,
    /// Whether a page is wanted; a program is told of a problem as the API tells it.
    pub(super) is_person: bool,
    /// The end of this worker.
    pub(super) stop: CancellationToken,
}

/// The door has let in everybody who comes to a handler.
impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        let lost = || PageError(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a page was asked for past its door"));
        parts.extensions.get().cloned().ok_or_else(lost)
    }
}

impl RequestContext {
    /// Whether the caller has at least this role.
    pub(super) fn may(&self, role: Role) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.role >= role)
    }

    /// The name of the caller, for what is recorded.
    pub(super) fn name(&self) -> &str {
        self.caller.as_ref().map_or("", |caller| &*caller.name)
    }

    /// Whether the caller sees the values of headers.
    pub(super) fn secrets(&self) -> crate::delivery::campaign::Secrets {
        self.caller.as_ref().map_or(crate::delivery::campaign::Secrets::Masked, Principal::secrets)
    }
}

/// What is around a page.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) title: String,
    pub(super) path: String,
    pub(super) forgery: String,
    pub(super) who: Option<Principal>,
    pub(super) needs_token: bool,
}

impl Layout {
    pub(super) fn new(visit: &RequestContext, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            path: visit.path.clone(),
            forgery: visit.forgery.clone(),
            who: visit.caller.clone(),
            needs_token: visit.needs_token,
        }
    }

    /// The name of the field against forgery.
    pub(super) fn forgery_field(&self) -> &'static str {
        CSRF_FIELD
    }

    /// Whether the page is in this part of the console.
    pub(super) fn is_at(&self, part: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        path == part || (part != "/" && path.starts_with(part) && path[part.len()..].starts_with('/'))
    }

    pub(super) fn css(&self) -> String {
        super::assets::address("console.css")
    }

    pub(super) fn js(&self) -> String {
        super::assets::address("console.js")
    }

    pub(super) fn icon(&self) -> String {
        super::assets::address("icon.svg")
    }
}

/// A page that went well. One with faults in its form is sent as 200 too: it is the page that was asked for.
pub(super) fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// A response with what the audit says that it was about.
pub(super) fn with_audit(about: &str, mut response: Response) -> Response {
    response.extensions_mut().insert(AuditDetail(about.to_owned()));
    response
}

pub(super) fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a page can't be made: {error}")).into_response()
        }
    }
}

/// A part of a page that is kept up to date (`data-live` in its element): each of `fragments` takes the place of what is in
/// it. It ends with the worker.
pub(super) fn live(visit: &RequestContext, fragments: impl Stream<Item = String> + Send + 'static) -> Response {
    let events = fragments.map(|fragment| Ok::<_, Infallible>(Event::default().data(fragment)));
    Sse::new(events.take_until(visit.stop.clone().cancelled_owned())).keep_alive(KeepAlive::default()).into_response()
}

/// A problem on its way to be shown as a page.
#[derive(Debug, Clone)]
pub(super) struct PageError(pub(super) Problem);

impl<P: Into<Problem>> From<P> for PageError {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct PageBody {
    frame: Layout,
    problem: Problem,
}

/// The response with a page in the place of a [`PageError`].
pub(super) fn with_failures_shown(mut response: Response, visit: &RequestContext) -> Response {
    let Some(PageError(problem)) = response.extensions_mut().remove::<PageError>() else {
        return response;
    };
    if !visit.is_person {
        return problem.into_response();
    }
    let status = problem.status();
    page_with(status, &PageBody { frame: Layout::new(visit, problem.title()), problem })
}

pub(super) async fn no_such_page(OriginalUri(uri): OriginalUri) -> PageError {
    PageError(Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())))
}

pub(super) async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> PageError {
    PageError(Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path())))
}

/// A time, as UTC where there is no script; the script shows it in the viewer's zone.
pub(super) struct Time(pub(super) DateTime<Utc>);

impl Time {
    fn machine(&self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    fn human(&self) -> String {
        self.0.format("%Y-%m-%d %H:%M:%S UTC").to_string()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, human) = (self.machine(), self.human());
        write!(f, r#"<time datetime="{machine}" title="{human}">{human}</time>"#)
    }
}

impl askama::filters::HtmlSafe for Time {}

/// A part of a page: at once, and again with each sample of the counters.
pub(super) fn updates<T: Template>(
    visit: &RequestContext,
    news: tokio::sync::watch::Receiver<()>,
    now: impl Fn() -> T + Send + 'static,
) -> Response {
    // The first is for who comes back after the connection was lost.
    let fragments = stream::unfold((news, now, true), async |(mut news, now, is_first)| {
        if !is_first {
            news.changed().await.ok()?;
        }
        let fragment = now().render().ok()?;
        Some((fragment, (news, now, false)))
    });
    live(visit, fragments)
}
