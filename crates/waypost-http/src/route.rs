//! The declaration of a route, from which the router, the roles and the OpenAPI document are built.

use axum::handler::Handler;
use axum::http::{HeaderName, Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use waypost_core::access::Role;

use super::api_state::ApiState;

pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) audit: Audit,
    pub(super) handler: MethodRouter<ApiState>,
    pub(super) operation: Operation,
}

/// Whether a request is logged in the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audit {
    Logged,
    /// The request changes nothing, or there are too many of its kind.
    Skipped,
}

impl Audit {
    /// The default for a method.
    pub(super) fn of_method(method: &Method) -> Self {
        if method.is_safe() { Self::Skipped } else { Self::Logged }
    }
}

/// The description of a route in the OpenAPI document.
#[derive(Default)]
pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// The description of the path parameter `{id}`.
    pub(super) subject: &'static str,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<BodySpec>,
    pub(super) answers: Vec<ResponseSpec>,
    pub(super) preconditions: Vec<HeaderName>,
    pub(super) problems: Vec<(StatusCode, &'static str)>,
    pub(super) has_etag: bool,
}

pub(super) struct BodySpec {
    pub(super) schema: SchemaOf,
    pub(super) presence: BodyPresence,
}

/// Whether a request must have its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyPresence {
    Required,
    Optional,
}

/// A successful response.
pub(super) struct ResponseSpec {
    pub(super) status: StatusCode,
    pub(super) description: &'static str,
    /// `None` if the response has no body.
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

    /// Keeps the route out of the audit, whatever its method.
    pub(super) fn not_audited(mut self) -> Self {
        self.audit = Audit::Skipped;
        self
    }

    /// Sets the operation's id and its summary.
    pub(super) fn named(mut self, id: &'static str, summary: &'static str) -> Self {
        (self.operation.id, self.operation.summary) = (id, summary);
        self
    }

    /// Describes the path parameter `{id}`.
    pub(super) fn subject(mut self, description: &'static str) -> Self {
        self.operation.subject = description;
        self
    }

    /// Declares the query: each field of `T` is a parameter. `T` must deny unknown fields.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.operation.query = Some(T::json_schema);
        self
    }

    /// Declares a required body.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        self.body::<T>(BodyPresence::Required)
    }

    /// Declares an optional body.
    pub(super) fn may_take<T: JsonSchema>(self) -> Self {
        self.body::<T>(BodyPresence::Optional)
    }

    fn body<T: JsonSchema>(mut self, presence: BodyPresence) -> Self {
        self.operation.body = Some(BodySpec { schema: SchemaGenerator::subschema_for::<T>, presence });
        self
    }

    /// Declares a successful response.
    pub(super) fn responds<T: JsonSchema>(mut self, status: StatusCode, description: &'static str) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        self.operation.answers.push(ResponseSpec { status, description, schema: Some(schema) });
        self
    }

    /// Declares a successful response without a body.
    pub(super) fn responds_empty(mut self, status: StatusCode, description: &'static str) -> Self {
        self.operation.answers.push(ResponseSpec { status, description, schema: None });
        self
    }

    /// Declares that responses have an `ETag`.
    pub(super) fn has_etag(mut self) -> Self {
        self.operation.has_etag = true;
        self
    }

    /// Declares the headers of conditional requests. If the condition is not met, the response is a 412.
    pub(super) fn preconditions(mut self, headers: &[HeaderName]) -> Self {
        self.operation.preconditions = headers.to_vec();
        self
    }

    /// Declares a problem of this route, or the specific meaning of a general problem.
    pub(super) fn problem(mut self, status: StatusCode, description: &'static str) -> Self {
        self.operation.problems.push((status, description));
        self
    }
}
