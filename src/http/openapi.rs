//! The OpenAPI 3.1 document, made from the table of routes: what is served is described, and nothing else.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::route::{Answer, Operation, Presence, Route};
use crate::config::Role;

/// Where the document has its schemas.
const SCHEMAS: &str = "#/components/schemas/";

/// Where the schemas of what is sent to us are until they are [joined](join) to the others.
const SENT: &str = "#/sent/";

const DESCRIPTION: &str = "\
    Errors are problem documents (RFC 9457). Once a token is configured every call needs one, and each operation names \
    the least role it must have: `viewer` < `operator` < `editor`. Lists come a page at a time: ask again with `cursor` \
    set to `next`, until that is null.";

/// The route of the document itself.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/openapi.json", Role::Viewer, async || Json(super::openapi()))
            .named("getOpenApi", "Read this document")
            .answers::<Map<String, Value>>(StatusCode::OK, "An OpenAPI 3.1 document"),
    ]
}

/// The document of these routes.
pub(super) fn document(routes: &[Route]) -> Value {
    let generator = |path: &'static str| {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = path.into();
            settings.meta_schema = None;
        })
    };
    let mut schemas = Schemas {
        sent: generator(SENT).for_deserialize().into_generator(),
        answered: generator(SCHEMAS).for_serialize().into_generator(),
    };
    let problem = schemas.answered.subschema_for::<Problem>();
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
    let (sent, answered) = (schemas.sent.take_definitions(true), schemas.answered.take_definitions(true));
    join(&mut document, sent, answered);
    document
}

/// A type that is sent to us and answered has two schemas: what we fill in may be left out of the one only.
struct Schemas {
    sent: SchemaGenerator,
    answered: SchemaGenerator,
}

impl Schemas {
    fn operation(&mut self, Route { path, role, operation, .. }: &Route) -> Value {
        let tag = path.split('/').nth(1).unwrap_or_default();
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "tags": [tag],
            "security": [{ "token": [role.as_str()] }],
            "parameters": self.parameters(path, operation),
            "responses": self.responses(path, operation),
        });
        if let Some(body) = &operation.body {
            let schema = (body.schema)(&mut self.sent);
            described["requestBody"] = json!({
                "required": body.presence == Presence::Required,
                "content": { "application/json": { "schema": schema } },
            });
        }
        described
    }

    fn parameters(&mut self, path: &str, operation: &Operation) -> Vec<Value> {
        let of_path = names_in(path).map(|name| {
            json!({ "name": name, "in": "path", "required": true, "description": operation.subject, "schema": { "type": "string" } })
        });
        let of_header = operation.preconditions.iter().map(|name| {
            json!({ "name": canonical(name), "in": "header", "description": precondition(name), "schema": { "type": "string" } })
        });
        let mut parameters: Vec<Value> = of_path.chain(of_header).collect();
        let query = operation.query.map(|query| query(&mut self.sent).to_value()).unwrap_or_default();
        for (name, schema) in query["properties"].as_object().into_iter().flatten() {
            let mut schema = schema.clone();
            // A parameter that may be absent is never null.
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
        for Answer { status, words, schema } in &operation.answers {
            let mut response = json!({ "description": words });
            if let Some(schema) = schema {
                let schema = schema(&mut self.answered);
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
            // Beside a `$ref` OpenAPI 3.1 takes a description of its own.
            responses[status.as_str()] = json!({ "$ref": "#/components/responses/Problem", "description": when });
        }
        responses
    }
}

/// The problems of a route: from what it takes, and then its own, which say more.
fn problems(path: &str, operation: &Operation) -> Vec<(StatusCode, &'static str)> {
    let given = [
        (
            true,
            StatusCode::BAD_REQUEST,
            "What was sent can't be read: the address, a parameter or a header, or the body breaks off",
        ),
        (true, StatusCode::UNAUTHORIZED, "No token, or one that is not known"),
        (
            true,
            StatusCode::FORBIDDEN,
            "The token's role is too small; without tokens, a web page of another origin asks",
        ),
        (names_in(path).next().is_some(), StatusCode::NOT_FOUND, "There is nothing with this id"),
        (
            !operation.preconditions.is_empty(),
            StatusCode::PRECONDITION_FAILED,
            "Somebody else has changed it meanwhile",
        ),
        (operation.body.is_some(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is said to be no JSON"),
        (
            operation.body.is_some(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "The body is no JSON, or has faults; `errors` has them all",
        ),
        (true, StatusCode::INTERNAL_SERVER_ERROR, "The local store failed"),
        (
            true,
            StatusCode::SERVICE_UNAVAILABLE,
            "The broker can't be reached, or the configuration is still being read",
        ),
    ];
    let given = given.into_iter().filter(|(applies, ..)| *applies).map(|(_, status, when)| (status, when));
    given.chain(operation.problems.iter().copied()).collect()
}

/// The names in braces: `id` of `/campaigns/{id}`.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// The name as it is written in documents.
fn canonical(name: &HeaderName) -> &str {
    match name {
        name if name == header::IF_MATCH => "If-Match",
        name if name == header::IF_NONE_MATCH => "If-None-Match",
        name => name.as_str(),
    }
}

fn precondition(name: &HeaderName) -> &'static str {
    if name == header::IF_NONE_MATCH {
        "`*`: only where there is none yet"
    } else {
        "The `ETag` it must still have, or several of which it must have one, or `*`"
    }
}

/// Puts all schemas into the document. Where a type's two schemas differ, the one of what is sent gets a name of its own.
fn join(document: &mut Value, sent: Map<String, Value>, answered: Map<String, Value>) {
    let mut differ = BTreeSet::new();
    for (name, schema) in &sent {
        let mut schema = schema.clone();
        refs(&mut schema, &mut |to| *to = to.replace(SENT, SCHEMAS));
        if answered.get(name).is_some_and(|answered| *answered != schema) {
            differ.insert(name.clone());
        }
    }
    // What refers to one that differs differs too.
    loop {
        let mut more = false;
        for (name, schema) in sent.iter().filter(|(name, _)| answered.contains_key(*name)) {
            let mut to_differing = false;
            refs(&mut schema.clone(), &mut |to| {
                to_differing |= to.strip_prefix(SENT).is_some_and(|to| differ.contains(to))
            });
            more |= to_differing && differ.insert(name.clone());
        }
        if !more {
            break;
        }
    }
    let own_name = |name: &str| if differ.contains(name) { format!("{name}Input") } else { name.to_owned() };
    let mut all = answered;
    all.extend(sent.into_iter().map(|(name, schema)| (own_name(&name), schema)));
    all.sort_keys();
    document["components"]["schemas"] = Value::Object(all);
    refs(document, &mut |to| {
        if let Some(name) = to.strip_prefix(SENT) {
            *to = format!("{SCHEMAS}{}", own_name(name));
        }
    });
}

/// Visits every `$ref`.
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
    use crate::http::routes;

    /// The operations of the document, each with its path.
    fn operations(document: &Value) -> Vec<(&str, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let each = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().expect("methods").values().map(move |operation| (path.as_str(), operation))
        });
        each.collect()
    }

    #[test]
    fn every_route_is_described() {
        let (routes, document) = (routes(), document(&routes()));
        assert_eq!(operations(&document).len(), routes.len());
        let mut ids = BTreeSet::new();
        for (path, operation) in operations(&document) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(!id.is_empty() && ids.insert(id), "{path}: its operation needs an id of its own: {id:?}");
            assert!(!operation["summary"].as_str().expect("a summary").is_empty(), "{id} says nothing of itself");
            let parameters = operation["parameters"].as_array().expect("parameters");
            for name in names_in(path) {
                let declared = |parameter: &&Value| parameter["in"] == "path" && parameter["name"] == name;
                let parameter = parameters.iter().find(declared).expect("the parameter");
                assert!(!parameter["description"].as_str().expect("a description").is_empty(), "{id}: what is {name}?");
            }
            let successes = operation["responses"].as_object().expect("responses").keys();
            assert!(successes.filter(|status| status.starts_with('2')).count() > 0, "{id} has no answer");
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
    fn every_reference_leads_somewhere() {
        let mut document = document(&routes());
        let whole = document.clone();
        let mut count = 0;
        refs(&mut document, &mut |to| {
            count += 1;
            let pointer = to.strip_prefix('#').expect("a place in the document");
            assert!(whole.pointer(pointer).is_some(), "{to} leads nowhere");
        });
        assert!(count > 10, "{count}");
    }

    #[test]
    fn what_we_fill_in_may_be_left_out_of_what_is_sent() {
        let document = document(&routes());
        let required = |name: &str| document["components"]["schemas"][name]["required"].clone();
        assert_eq!(required("WebhookInput"), json!(["url"]));
        assert_eq!(required("Webhook"), json!(["id", "url", "enabled", "timeoutMs"]));
        assert_eq!(required("StepEventInput"), json!(["campaignId", "label", "phoneNumber", "date"]));
        // A difference reaches whatever refers to it, and nothing else.
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for (name, differs) in [("Campaign", true), ("MenuEntry", true), ("Redirect", false), ("Keyword", false)] {
            assert!(schemas.contains_key(name), "{name}");
            assert_eq!(schemas.contains_key(&format!("{name}Input")), differs, "{name}");
        }
    }
}
