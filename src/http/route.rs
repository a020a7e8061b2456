//! What a route says of itself: declared once, it makes the router, the roles and the OpenAPI document.

use axum::handler::Handler;
use axum::http::{HeaderName, Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::ApiState;
use crate::config::Role;

/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A method and a path under `/v1`, who may ask for it, and what answers.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) audit: Audit,
    pub(super) handler: MethodRouter<ApiState>,
    pub(super) operation: Operation,
}

/// Whether a request leaves a line in the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audit {
    Kept,
    /// It changes nothing, or the log would be full of it.
    LeftOut,
}

impl Audit {
    /// What is usual for a method.
    pub(super) fn of_method(method: &Method) -> Self {
        if method.is_safe() { Self::LeftOut } else { Self::Kept }
    }
}

/// The part of a [`Route`] that is for people and programs who read the document.
#[derive(Default)]
pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// What `{id}` is.
    pub(super) subject: &'static str,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    pub(super) preconditions: Vec<HeaderName>,
    pub(super) problems: Vec<(StatusCode, &'static str)>,
    pub(super) has_etag: bool,
}

/// What a request brings.
pub(super) struct Body {
    pub(super) schema: SchemaOf,
    pub(super) presence: Presence,
}

/// Whether a request must have its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
}

/// What comes back where all went well.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) words: &'static str,
    /// None where there is no body.
    pub(super) schema: Option<SchemaOf>,
}

impl Route {
    pub(super) fn get<H: Handler<T, ApiState>, T: 'static>(path: &'static str, role: Role, handler: H) -> Self {
        Self::new(Method::GET, path, role, on(MethodFilter::GET, handler))
    }

    pub(super) fn put<H: Handler<T, ApiState>, T: 'static>(path: &'static str, role: Role, handler: H) -> Self {
        Self::new(Method::PUT, path, role, on(MethodFilter::PUT, handler))
    }

    pub(super) fn post<H: Handler<T, ApiState>, T: 'static>(path: &'static str, role: Role, handler: H) -> Self {
        Self::new(Method::POST, path, role, on(MethodFilter::POST, handler))
    }

    pub(super) fn delete<H: Handler<T, ApiState>, T: 'static>(path: &'static str, role: Role, handler: H) -> Self {
        Self::new(Method::DELETE, path, role, on(MethodFilter::DELETE, handler))
    }

    fn new(method: Method, path: &'static str, role: Role, handler: MethodRouter<ApiState>) -> Self {
        Self { audit: Audit::of_method(&method), method, path, role, handler, operation: Operation::default() }
    }

    /// It leaves no line in the audit, whatever its method.
    pub(super) fn not_audited(mut self) -> Self {
        self.audit = Audit::LeftOut;
        self
    }

    /// The operation's id, for programs, and what it does, for people.
    pub(super) fn named(mut self, id: &'static str, summary: &'static str) -> Self {
        (self.operation.id, self.operation.summary) = (id, summary);
        self
    }

    /// What the `{id}` of the path is.
    pub(super) fn subject(mut self, words: &'static str) -> Self {
        self.operation.subject = words;
        self
    }

    /// The query: each field of `T` is a parameter. `T` must deny unknown fields.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.operation.query = Some(T::json_schema);
        self
    }

    /// The body a request must have.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        self.body::<T>(Presence::Required)
    }

    /// The body a request may have.
    pub(super) fn may_take<T: JsonSchema>(self) -> Self {
        self.body::<T>(Presence::Optional)
    }

    fn body<T: JsonSchema>(mut self, presence: Presence) -> Self {
        self.operation.body = Some(Body { schema: SchemaGenerator::subschema_for::<T>, presence });
        self
    }

    /// An answer of a request that went well.
    pub(super) fn answers<T: JsonSchema>(mut self, status: StatusCode, words: &'static str) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        self.operation.answers.push(Answer { status, words, schema: Some(schema) });
        self
    }

    /// An answer without a body.
    pub(super) fn answers_nothing(mut self, status: StatusCode, words: &'static str) -> Self {
        self.operation.answers.push(Answer { status, words, schema: None });
        self
    }

    /// The answers carry an `ETag`.
    pub(super) fn has_etag(mut self) -> Self {
        self.operation.has_etag = true;
        self
    }

    /// The headers by which a request may say what it was made on; where that is so no more the answer is 412.
    pub(super) fn preconditions(mut self, headers: &[HeaderName]) -> Self {
        self.operation.preconditions = headers.to_vec();
        self
    }

    /// A problem that is this route's own, or that has other reasons here than elsewhere.
    pub(super) fn problem(mut self, status: StatusCode, words: &'static str) -> Self {
        self.operation.problems.push((status, words));
        self
    }
}
