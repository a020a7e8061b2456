//! Layout shared by all pages, the context of a request, error pages, and live updates.

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
use waypost_core::access::Role;

use crate::audit::AuditDetail;
use crate::principal::Principal;
use crate::problem::Problem;

/// Name of the form field and of the cookie with the CSRF token.
pub(super) const CSRF_FIELD: &str = "waypost-form";

/// What a handler knows about the request and its sender. [`auth_middleware`](super::auth_middleware) inserts it.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    /// `None` without a session.
    pub(super) principal: Option<Principal>,
    pub(super) csrf_token: String,
    /// Path and query of the request. Empty for unsafe methods, because such a path can't be opened again.
    pub(super) path: String,
    /// Whether tokens are configured.
    pub(super) needs_token: bool,
    /// Otherwise errors are sent as problem documents, as by the API.
    pub(super) wants_html: bool,
    /// Cancelled when the worker stops.
    pub(super) stop: CancellationToken,
}

/// Extracts the context that `auth_middleware` has inserted.
impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        let missing = || {
            let detail = "The request did not pass the console's middleware. This is a bug in Waypost.";
            PageError(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
        };
        parts.extensions.get().cloned().ok_or_else(missing)
    }
}

impl RequestContext {
    /// Whether the principal has at least this role.
    pub(super) fn has_role(&self, role: Role) -> bool {
        self.principal.as_ref().is_some_and(|principal| principal.role >= role)
    }

    /// The name of the principal for the audit log. Empty without a session.
    pub(super) fn name(&self) -> &str {
        self.principal.as_ref().map_or("", |principal| &*principal.name)
    }

    pub(super) fn secrets(&self) -> waypost_core::campaign::SecretVisibility {
        self.principal.as_ref().map_or(waypost_core::campaign::SecretVisibility::Masked, Principal::secrets)
    }
}

/// Data of `base.html`.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) title: String,
    pub(super) path: String,
    pub(super) csrf_token: String,
    pub(super) principal: Option<Principal>,
    pub(super) needs_token: bool,
}

impl Layout {
    pub(super) fn new(context: &RequestContext, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            path: context.path.clone(),
            csrf_token: context.csrf_token.clone(),
            principal: context.principal.clone(),
            needs_token: context.needs_token,
        }
    }

    pub(super) fn csrf_field(&self) -> &'static str {
        CSRF_FIELD
    }

    /// Whether the path of the page is `part` or below it.
    pub(super) fn is_at(&self, part: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        path == part || (part != "/" && path.starts_with(part) && path[part.len()..].starts_with('/'))
    }

    pub(super) fn css(&self) -> String {
        super::assets::href("console.css")
    }

    pub(super) fn js(&self) -> String {
        super::assets::href("console.js")
    }

    pub(super) fn icon(&self) -> String {
        super::assets::href("icon.svg")
    }
}

/// Renders a page with status 200. A form that is shown again with its errors is sent with 200 too.
pub(super) fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// Adds the subject of the action to the audit log entry of the response.
pub(super) fn with_audit(subject: &str, mut response: Response) -> Response {
    response.extensions_mut().insert(AuditDetail(subject.to_owned()));
    response
}

pub(super) fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The page can't be rendered: {error}"))
            .into_response(),
    }
}

/// Server-sent events for an element with `data-live`. Each fragment replaces the content of the element. The stream
/// ends when the worker stops.
pub(super) fn live_fragments(
    context: &RequestContext,
    fragments: impl Stream<Item = String> + Send + 'static,
) -> Response {
    let events = fragments.map(|fragment| Ok::<_, Infallible>(Event::default().data(fragment)));
    Sse::new(events.take_until(context.stop.clone().cancelled_owned())).keep_alive(KeepAlive::default()).into_response()
}

/// A problem that [`render_error`] turns into a page.
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
struct ErrorPage {
    layout: Layout,
    problem: Problem,
}

/// Replaces a [`PageError`] by an HTML page, or by a problem document if the client does not accept HTML.
pub(super) fn render_error(mut response: Response, context: &RequestContext) -> Response {
    let Some(PageError(problem)) = response.extensions_mut().remove::<PageError>() else {
        return response;
    };
    if !context.wants_html {
        return problem.into_response();
    }
    let status = problem.status();
    page_with(status, &ErrorPage { layout: Layout::new(context, problem.title()), problem })
}

pub(super) async fn no_such_page(OriginalUri(uri): OriginalUri) -> PageError {
    PageError(Problem::new(StatusCode::NOT_FOUND, format!("There is no page {}.", uri.path())))
}

pub(super) async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> PageError {
    PageError(Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not support the method {method}.", uri.path()),
    ))
}

/// A `<time>` element in UTC. The script converts it to the viewer's time zone.
pub(super) struct Time(pub(super) DateTime<Utc>);

impl Time {
    fn rfc3339(&self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    fn utc_text(&self) -> String {
        self.0.format("%Y-%m-%d %H:%M:%S UTC").to_string()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rfc3339, text) = (self.rfc3339(), self.utc_text());
        write!(f, r#"<time datetime="{rfc3339}" title="{text}">{text}</time>"#)
    }
}

impl askama::filters::HtmlSafe for Time {}

/// Renders a fragment immediately, and again after each change.
pub(super) fn live_template<T: Template>(
    context: &RequestContext,
    changes: tokio::sync::watch::Receiver<()>,
    template: impl Fn() -> T + Send + 'static,
) -> Response {
    // The first fragment updates the page after a reconnect.
    let fragments = stream::unfold((changes, template, true), async |(mut changes, template, is_first)| {
        if !is_first {
            changes.changed().await.ok()?;
        }
        let fragment = template().render().ok()?;
        Some((fragment, (changes, template, false)))
    });
    live_fragments(context, fragments)
}
