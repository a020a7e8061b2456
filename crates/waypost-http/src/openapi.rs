//! Generates the OpenAPI 3.1 document from the routes.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use waypost_api::problem::ProblemDocument;
use waypost_core::access::Role;

use super::route::{BodyPresence, Operation, ResponseSpec, Route};

const SCHEMAS_POINTER: &str = "#/components/schemas/";

/// A temporary place of the schemas of requests, until [`merge_schemas`] has moved them.
const REQUEST_SCHEMAS_POINTER: &str = "#/requests/";

const DESCRIPTION: &str = "\
    Errors are problem documents (RFC 9457). If tokens are configured, every call needs one, and each operation names \
    the lowest role that it needs: `viewer` < `operator` < `editor`. Lists have pages: send `next` as `cursor` to get the \
    next page, until `next` is null.";

/// `document` makes the document of all routes.
pub(super) fn routes(document: fn() -> Value) -> Vec<Route> {
    vec![
        Route::get("/openapi.json", Role::Viewer, async move || Json(document()))
            .named("getOpenApi", "Read this document")
            .responds::<Map<String, Value>>(StatusCode::OK, "An OpenAPI 3.1 document"),
    ]
}

pub(super) fn document(routes: &[Route]) -> Value {
    let generator = |path: &'static str| {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = path.into();
            settings.meta_schema = None;
        })
    };
    let mut schemas = Schemas {
        requests: generator(REQUEST_SCHEMAS_POINTER).for_deserialize().into_generator(),
        responses: generator(SCHEMAS_POINTER).for_serialize().into_generator(),
    };
    let problem = schemas.responses.subschema_for::<ProblemDocument>();
    let mut paths = json!({});
    for route in routes {
        paths[format!("/v1{}", route.path)][route.method.as_str().to_lowercase()] = schemas.operation(route);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Waypost", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "Problem": {
                "description": "What went wrong",
                "content": { "application/problem+json": { "schema": problem } },
            } },
        },
    });
    let (requests, responses) = (schemas.requests.take_definitions(true), schemas.responses.take_definitions(true));
    merge_schemas(&mut document, requests, responses);
    document
}

/// A type of both requests and responses has two schemas: fields that Waypost fills in are optional in requests only.
struct Schemas {
    requests: SchemaGenerator,
    responses: SchemaGenerator,
}

impl Schemas {
    fn operation(&mut self, Route { path, role, operation, .. }: &Route) -> Value {
        let tag = path.split('/').nth(1).unwrap_or_default();
        let mut json_operation = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "tags": [tag],
            "security": [{ "token": [role.as_str()] }],
            "parameters": self.parameters(path, operation),
            "responses": self.responses(path, operation),
        });
        if let Some(body) = &operation.body {
            let schema = (body.schema)(&mut self.requests);
            json_operation["requestBody"] = json!({
                "required": body.presence == BodyPresence::Required,
                "content": { "application/json": { "schema": schema } },
            });
        }
        json_operation
    }

    fn parameters(&mut self, path: &str, operation: &Operation) -> Vec<Value> {
        let path_parameters = names_in(path).map(|name| {
            json!({ "name": name, "in": "path", "required": true, "description": operation.subject, "schema": { "type": "string" } })
        });
        let header_parameters = operation.preconditions.iter().map(|name| {
            json!({ "name": canonical_name(name), "in": "header", "description": precondition_description(name), "schema": { "type": "string" } })
        });
        let mut parameters: Vec<Value> = path_parameters.chain(header_parameters).collect();
        let query = operation.query.map(|query| query(&mut self.requests).to_value()).unwrap_or_default();
        for (name, schema) in query["properties"].as_object().into_iter().flatten() {
            let mut schema = schema.clone();
            // An optional parameter may be absent, but is never null.
            if let Some([kind, Value::String(null)]) = schema["type"].as_array().map(Vec::as_slice)
                && null == "null"
            {
                schema["type"] = kind.clone();
            }
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            parameters.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
        }
        parameters
    }

    fn responses(&mut self, path: &str, operation: &Operation) -> Value {
        let mut responses = json!({});
        for ResponseSpec { status, description, schema } in &operation.answers {
            let mut response = json!({ "description": description });
            if let Some(schema) = schema {
                let schema = schema(&mut self.responses);
                response["content"] = json!({ "application/json": { "schema": schema } });
            }
            if operation.has_etag && schema.is_some() {
                response["headers"] = json!({ "ETag": {
                    "description": "The version: send it back as `If-Match`", "schema": { "type": "string" },
                } });
            }
            responses[status.as_str()] = response;
        }
        for (status, when) in problems(path, operation) {
            // OpenAPI 3.1 allows a description next to a `$ref`.
            responses[status.as_str()] = json!({ "$ref": "#/components/responses/Problem", "description": when });
        }
        responses
    }
}

/// The problems of a route: general ones first, then its own, which replace general ones with the same status.
fn problems(path: &str, operation: &Operation) -> Vec<(StatusCode, &'static str)> {
    let general = [
        (
            true,
            StatusCode::BAD_REQUEST,
            "The request can't be read: an invalid address, parameter or header, or an incomplete body",
        ),
        (true, StatusCode::UNAUTHORIZED, "No token, or an unknown token"),
        (
            true,
            StatusCode::FORBIDDEN,
            "The token's role is too low; without tokens, the request comes from a web page of another origin",
        ),
        (names_in(path).next().is_some(), StatusCode::NOT_FOUND, "There is nothing with this id"),
        (
            !operation.preconditions.is_empty(),
            StatusCode::PRECONDITION_FAILED,
            "The campaign was changed since its `ETag` was read",
        ),
        (operation.body.is_some(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "The `Content-Type` is not JSON"),
        (
            operation.body.is_some(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "The body is not valid JSON, or has invalid values; `errors` lists all of them",
        ),
        (true, StatusCode::INTERNAL_SERVER_ERROR, "The local store failed"),
        (
            true,
            StatusCode::SERVICE_UNAVAILABLE,
            "The broker can't be reached, or the configuration is still being read",
        ),
    ];
    let general = general.into_iter().filter(|(applies, ..)| *applies).map(|(_, status, when)| (status, when));
    general.chain(operation.problems.iter().copied()).collect()
}

/// The names in braces: `id` of `/campaigns/{id}`.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// The header's name in its usual capitalisation.
fn canonical_name(name: &HeaderName) -> &str {
    match name {
        name if name == header::IF_MATCH => "If-Match",
        name if name == header::IF_NONE_MATCH => "If-None-Match",
        name => name.as_str(),
    }
}

fn precondition_description(name: &HeaderName) -> &'static str {
    if name == header::IF_NONE_MATCH {
        "`*`: only if it does not exist yet"
    } else {
        "The `ETag` that it must still have, a list of such, or `*`"
    }
}

/// Adds all schemas to the document. If the two schemas of a type differ, the request's schema gets the suffix `Input`.
fn merge_schemas(document: &mut Value, requests: Map<String, Value>, responses: Map<String, Value>) {
    let mut differing = BTreeSet::new();
    for (name, schema) in &requests {
        let mut schema = schema.clone();
        refs(&mut schema, &mut |to| *to = to.replace(REQUEST_SCHEMAS_POINTER, SCHEMAS_POINTER));
        if responses.get(name).is_some_and(|responses| *responses != schema) {
            differing.insert(name.clone());
        }
    }
    // A schema that refers to a differing schema differs too.
    loop {
        let mut has_changed = false;
        for (name, schema) in requests.iter().filter(|(name, _)| responses.contains_key(*name)) {
            let mut refers_to_differing = false;
            refs(&mut schema.clone(), &mut |to| {
                refers_to_differing |= to.strip_prefix(REQUEST_SCHEMAS_POINTER).is_some_and(|to| differing.contains(to))
            });
            has_changed |= refers_to_differing && differing.insert(name.clone());
        }
        if !has_changed {
            break;
        }
    }
    let request_name = |name: &str| if differing.contains(name) { format!("{name}Input") } else { name.to_owned() };
    let mut all = responses;
    all.extend(requests.into_iter().map(|(name, schema)| (request_name(&name), schema)));
    all.sort_keys();
    document["components"]["schemas"] = Value::Object(all);
    refs(document, &mut |to| {
        if let Some(name) = to.strip_prefix(REQUEST_SCHEMAS_POINTER) {
            *to = format!("{SCHEMAS_POINTER}{}", request_name(name));
        }
    });
}

/// Calls `visit` with every `$ref`.
fn refs(value: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(to) if name == "$ref" => visit(to),
                    value => refs(value, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refs(item, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;

    /// The operations of the document, each with its path.
    fn operations(document: &Value) -> Vec<(&str, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let each = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().expect("methods").values().map(move |operation| (path.as_str(), operation))
        });
        each.collect()
    }

    /// Programs of other people are generated from the document, so each change of it must be seen.
    #[test]
    fn the_recorded_document_is_current() {
        let recorded = include_str!("../../../docs/contract/openapi.json");
        let current = format!("{:#}\n", document(&routes()));
        let line = recorded.lines().zip(current.lines()).position(|(recorded, current)| recorded != current);
        assert!(recorded == current, "docs/contract/openapi.json is old from line {line:?} on: run `make contract`");
    }

    #[test]
    fn every_route_is_described() {
        let (routes, document) = (routes(), document(&routes()));
        assert_eq!(operations(&document).len(), routes.len());
        let mut ids = BTreeSet::new();
        for (path, operation) in operations(&document) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(!id.is_empty() && ids.insert(id), "{path}: its operation needs an id of its own: {id:?}");
            assert!(!operation["summary"].as_str().expect("a summary").is_empty(), "{id} has no summary");
            let parameters = operation["parameters"].as_array().expect("parameters");
            for name in names_in(path) {
                let declared = |parameter: &&Value| parameter["in"] == "path" && parameter["name"] == name;
                let parameter = parameters.iter().find(declared).expect("the parameter");
                assert!(!parameter["description"].as_str().expect("a description").is_empty(), "{id}: what is {name}?");
            }
            let successes = operation["responses"].as_object().expect("responses").keys();
            assert!(successes.filter(|status| status.starts_with('2')).count() > 0, "{id} has no response");
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused() {
        for route in routes() {
            let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
            if let Some(query) = route.operation.query {
                let schema = query(&mut generator);
                assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{}", route.operation.id);
            }
        }
    }

    #[test]
    fn every_reference_has_a_target() {
        let mut document = document(&routes());
        let whole = document.clone();
        let mut count = 0;
        refs(&mut document, &mut |to| {
            count += 1;
            let pointer = to.strip_prefix('#').expect("a place in the document");
            assert!(whole.pointer(pointer).is_some(), "{to} has no target");
        });
        assert!(count > 10, "{count}");
    }

    #[test]
    fn fields_that_waypost_fills_in_are_optional_in_requests() {
        let document = document(&routes());
        let required = |name: &str| document["components"]["schemas"][name]["required"].clone();
        assert_eq!(required("WebhookInput"), json!(["url"]));
        assert_eq!(required("Webhook"), json!(["id", "url", "enabled", "timeoutMs"]));
        assert_eq!(required("StepEventInput"), json!(["campaignId", "label", "phoneNumber", "date"]));
        // Only differing schemas, and schemas that refer to them, have the suffix.
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, differs) in [("Campaign", true), ("MenuEntry", true), ("Redirect", false), ("Keyword", false)] {
            assert!(schemas.contains_key(name), "{name}");
            assert_eq!(schemas.contains_key(&format!("{name}Input")), differs, "{name}");
        }
    }
}
