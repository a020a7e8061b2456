//! The API as a whole: the served operations match the OpenAPI document, roles are enforced, and problems have the
//! documented shape.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::json::{only_of, webhook_id, webhook_mut};
use crate::support::reply::{Problem, Reply};
use crate::support::{Broker, DEFAULT_TIMEOUT, Waypost, unique, wait_until};
use crate::test_app::{ROLES, TestApp};
use crate::test_app::{example_campaign, step_event};

/// The OpenAPI document of a worker.
pub(crate) struct Document(Value);

/// An operation of the document.
struct Operation {
    method: Method,
    /// With `{id}`.
    template: String,
    /// The lowest role that may call the operation.
    role: String,
    id: String,
}

impl Operation {
    /// A path of the operation with the id of an object that does not exist.
    fn path(&self) -> String {
        self.template.replace("{id}", "nobody")
    }
}

/// The lowest role that may call an operation.
fn role_of(operation: &Value) -> &str {
    let requirement = only_of(&operation["security"]);
    only_of(&requirement["token"]).as_str().unwrap_or_else(|| panic!("no role: {operation:#}"))
}

impl Document {
    pub(crate) async fn of(app: &TestApp) -> Self {
        let reply = app.get_as("viewer", "/v1/openapi.json").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        Self(reply.json())
    }

    fn operations(&self) -> Vec<Operation> {
        let paths = self.0["paths"].as_object().expect("paths");
        let each = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().expect("methods").iter().map(move |(method, operation)| Operation {
                method: method.to_uppercase().parse().expect("a method"),
                template: path.clone(),
                role: role_of(operation).to_owned(),
                id: operation["operationId"].as_str().expect("an id").to_owned(),
            })
        });
        each.collect()
    }

    /// Asserts that a response is documented for the operation and matches its schema.
    #[track_caller]
    pub(crate) fn check(&self, operation: &str, reply: &Reply) {
        let described = self.operations().into_iter().find(|known| known.id == operation).expect("the operation");
        let method = described.method.as_str().to_lowercase();
        let answers = &self.0["paths"][&described.template][method]["responses"];
        let mut answer = &answers[reply.status.to_string()];
        assert!(answer.is_object(), "{operation}: the status is not documented: {reply:?}");
        if let Some(reference) = answer["$ref"].as_str() {
            answer = self.0.pointer(reference.trim_start_matches('#')).expect("the reference");
        }
        assert_eq!(answer["headers"]["ETag"].is_object(), reply.headers.contains_key("etag"), "{operation}: {reply:?}");
        let Some(content) = answer["content"].as_object() else {
            assert_eq!(reply.body, "", "{operation}");
            return;
        };
        let (kind, content) = content.iter().next().expect("a content type");
        assert_eq!(reply.headers["content-type"], *kind, "{operation}");
        let mut schema = content["schema"].clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).expect("a schema");
        let body = reply.json();
        let faults: Vec<String> =
            validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{operation}: {faults:#?} in {body:#}");
    }
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let document = Document::of(&app).await;
    let operations = document.operations();
    assert!(operations.len() >= 11, "{}", operations.len());
    for operation in &operations {
        let Operation { method, id, .. } = operation;
        let reply = app.send_as("editor", method.clone(), &operation.path(), Some(&json!({}))).await;
        let unknown = reply.status == 404 && reply.body.contains("there is nothing at");
        assert!(!unknown && reply.status != 405 && reply.status < 500, "{id}: {reply:?}");
        document.check(id, &reply);
    }
    // The command prints the same document without a server.
    let printed = app.waypost.cli(&["openapi", "--json"]).await;
    assert_eq!((printed.code, printed.stdout.trim()), (Some(0), document.0.to_string().as_str()));
    // An unknown route and a missing object have different messages.
    let detail = app.get_as("viewer", "/v1/nothing").await.expect_problem(404).detail;
    assert!(detail.contains("/v1/nothing"), "{detail}");
    let detail = app.send_as("viewer", Method::DELETE, "/v1/campaigns", None).await.expect_problem(405).detail;
    assert!(detail.contains("/v1/campaigns") && detail.contains("DELETE"), "{detail}");
}

#[tokio::test]
async fn every_operation_requires_its_role() {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let document = Document::of(&app).await;
    for operation in document.operations() {
        let Operation { method, template, role: least, id } = &operation;
        let expected = match (method.as_str(), template.as_str()) {
            ("GET", _) | ("POST", "/v1/explain") => "viewer",
            ("POST", path) if !path.ends_with("/rotate-secret") && !path.contains("/configuration/") => "operator",
            _ => "editor",
        };
        assert_eq!(least, expected, "{id}");
        let ask = async |role: &str| app.send_as(role, method.clone(), &operation.path(), Some(&json!({}))).await;
        let refused = ask("").await;
        refused.expect_problem(401);
        assert_eq!(refused.headers["www-authenticate"], "Bearer", "{id}");
        document.check(id, &refused);
        ask("stranger").await.expect_problem(401);
        let mut may = false;
        for role in ROLES {
            may |= role == least;
            let reply = ask(role).await;
            assert_ne!(reply.status, 401, "{id}: {reply:?}");
            assert_eq!(reply.status == 403, !may, "{id} as {role}: {reply:?}");
            if !may {
                let detail = reply.expect_problem(403).detail;
                assert!(detail.contains(least) && detail.contains(role), "{id}: {detail}");
                document.check(id, &reply);
            }
        }
    }
}

#[tokio::test]
async fn responses_match_the_openapi_document() {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let document = Document::of(&app).await;
    let check = |operation: &str, status: u16, reply: Reply| {
        assert_eq!(reply.status, status, "{operation}: {reply:?}");
        document.check(operation, &reply);
        reply
    };
    let mut whole = example_campaign(&app.receiver);
    webhook_mut(&mut whole, "Welcome Message", 4)["retry"] = json!({ "initialDelay": "90s", "maxAge": "2h", "multiplier": 1.5, "permanentStatuses": [404], "maxAttempts": 3 });
    webhook_mut(&mut whole, "Welcome Message", 4)["rateLimit"] = json!(0.5);
    let path = "/v1/campaigns/13010";
    check("putCampaign", 201, app.put_campaign(&whole).await);
    let put = check("putCampaign", 200, app.put_campaign(&whole).await).json();
    check("getCampaign", 200, app.get_as("viewer", path).await);
    check("listCampaigns", 200, app.get_as("viewer", "/v1/campaigns?limit=1").await);
    check("getConfiguration", 200, app.get_as("viewer", "/v1/configuration").await);
    let restore = app.send_as("editor", Method::POST, "/v1/configuration/restore", None).await;
    assert_eq!(check("restoreConfiguration", 200, restore).json(), json!({ "campaigns": 1 }));
    let accept = app.send_as("editor", Method::POST, "/v1/configuration/accept-empty", None).await;
    check("acceptEmptyConfiguration", 409, accept);
    check("getOpenApi", 200, app.get_as("viewer", "/v1/openapi.json").await);
    let event = step_event().keyword("4").id("e").json();
    check("publishEvent", 202, app.send_as("operator", Method::POST, "/v1/events", Some(&event)).await);
    check("explainEvent", 200, app.send_as("viewer", Method::POST, "/v1/explain", Some(&event)).await);
    for changed in ["campaignId", "label"] {
        let mut event = event.clone();
        event[changed] = "none".into();
        check("explainEvent", 200, app.send_as("viewer", Method::POST, "/v1/explain", Some(&event)).await);
    }
    let id = webhook_id(&put, "Welcome Message", 4);
    let webhook = format!("/v1/webhooks/{id}");
    let got = check("getWebhook", 200, app.get_as("editor", &webhook).await);
    check("putWebhook", 200, app.send_as("editor", Method::PUT, &webhook, Some(&got.json())).await);
    let test = format!("{webhook}/test");
    check("testWebhook", 200, app.send_as("operator", Method::POST, &test, None).await);
    let stale = app.send_as_with("editor", Method::PUT, &webhook, &[("if-match", "\"0\"")], got.body.clone()).await;
    check("putWebhook", 412, stale);
    check("deleteWebhook", 204, app.send_as("editor", Method::DELETE, &webhook, None).await);
    check("getWebhook", 404, app.get_as("viewer", &webhook).await);
    check("putCampaign", 422, app.send_as("editor", Method::PUT, path, Some(&json!({ "id": 7 }))).await);
    check("deleteCampaign", 204, app.send_as("editor", Method::DELETE, path, None).await);
    check("getCampaign", 404, app.get_as("viewer", path).await);
}

#[tokio::test]
async fn invalid_input_is_refused_with_its_path() {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let put = app.put_campaign(&example_campaign(&app.receiver)).await.json();
    let id = webhook_id(&put, "Offers", None).to_owned();
    for (query, words) in [
        ("limt=1", &["unknown parameter `limt`", "`limit`"][..]),
        ("limit=0", &["limit", "from 1 to 1000"]),
        ("limit=1001", &["limit", "from 1 to 1000"]),
        ("limit=many", &["limit", "from 1 to 1000"]),
        ("limit=", &["limit"]),
        ("limit=1&limit=2", &["limit"]),
        ("cursor=%ff%fe&limit=-1", &["limit"]),
    ] {
        let detail = app.get_as("viewer", &format!("/v1/campaigns?{query}")).await.expect_problem(400).detail;
        assert!(words.iter().all(|word| detail.contains(word)), "{query}: {detail}");
    }
    for path in ["/v1/campaigns/%ff", "/v1/webhooks/%ff%fe"] {
        app.get_as("viewer", path).await.expect_problem(400);
    }

    let test = format!("/v1/webhooks/{id}/test");
    let send = async |body: &str| app.send_as_with("operator", Method::POST, &test, &[], body).await;
    // Invalid JSON is refused in the same way everywhere.
    assert_eq!(send("{\"event\": {\"label\": \"\u{1}\"}}").await.expect_problem(422).paths, ["$"]);
    for body in ["{", "nonsense", "{} {}"] {
        for path in [&*test, "/v1/replays", "/v1/dead-letters/discard", "/v1/events", "/v1/explain"] {
            let reply = app.send_as_with("operator", Method::POST, path, &[], body).await;
            let Problem { detail, paths } = reply.expect_problem(422);
            assert!(paths == ["$"] && detail.contains("not valid JSON"), "{path} {body}: {detail}");
        }
        for path in ["/v1/campaigns/c", &format!("/v1/webhooks/{id}")] {
            let paths = app.send_as_with("editor", Method::PUT, path, &[], body).await.expect_problem(422).paths;
            assert_eq!(paths, ["$"], "{path} {body}");
        }
    }
    for (body, path) in [
        ("[]", "$"),
        ("7", "$"),
        (r#"{"event": []}"#, "$.event"),
        (r#"{"evnt": {}}"#, "$.evnt"),
        (r#"{"event": {"date": "today"}}"#, "$.event.date"),
    ] {
        assert_eq!(send(body).await.expect_problem(422).paths, [path], "{body}");
    }
    let large = format!(r#"{{"event": {{"response": "{}"}}}}"#, "x".repeat(1024 * 1024));
    let Problem { detail, paths } = send(&large).await.expect_problem(422);
    assert!(paths == ["$"] && detail.contains("1048576"), "{detail}");
    let large = format!(r#"{{"event": {{"response": "{}"}}}}"#, "x".repeat(300 * 1024));
    assert_eq!(send(&large).await.expect_problem(422).paths, ["$.event"]);
    for (method, path) in [(Method::POST, "/v1/events"), (Method::POST, "/v1/explain")] {
        let reply = app.send_as_with("operator", method.clone(), path, &[], "x".repeat(300 * 1024)).await;
        assert_eq!(reply.expect_problem(422).paths, ["$"], "{method} {path}");
    }
    assert_eq!(app.receiver.requests().len(), 0, "a refused test was sent");
}

/// The audit lines so far: name, role, action and status.
fn audited(app: &TestApp) -> Vec<Value> {
    let lines = app.waypost.log_lines().into_iter().filter(|line| line.contains("waypost::audit"));
    let line = |line: String| {
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!((&line["target"], &line["message"]), (&json!("waypost::audit"), &json!("audit")), "{line}");
        assert!(line["timestamp"].is_string(), "{line}");
        json!([line["who"], line["role"], line["what"], line["status"]])
    };
    lines.map(line).collect()
}

#[tokio::test]
async fn every_write_request_is_audited() {
    let app = TestApp::builder().process().tokens().without_campaign().start().await;
    let put = app.put_campaign(&example_campaign(&app.receiver)).await.json();
    let id = webhook_id(&put, "Offers", None).to_owned();
    let campaign_path = "/v1/campaigns/13010";
    let webhook = format!("/v1/webhooks/{id}");
    let ask = async |role: &str, method: Method, path: &str| app.send_as(role, method, path, Some(&json!({}))).await;
    // Reads are not audited.
    ask("viewer", Method::GET, campaign_path).await;
    ask("viewer", Method::HEAD, campaign_path).await;
    ask("", Method::GET, campaign_path).await;
    ask("viewer", Method::POST, "/v1/explain").await;
    app.send_as("operator", Method::POST, "/v1/events", Some(&step_event().keyword(1).id("e").json())).await;
    ask("viewer", Method::POST, "/v1/events").await;
    // Refused changes are audited.
    ask("viewer", Method::PUT, campaign_path).await;
    ask("editor", Method::PUT, campaign_path).await;
    ask("", Method::DELETE, campaign_path).await;
    app.send_as_with("editor", Method::DELETE, campaign_path, &[("if-match", "\"0\"")], "").await;
    ask("operator", Method::POST, &format!("{webhook}/test?a=secret")).await;
    ask("editor", Method::DELETE, &webhook).await;
    ask("editor", Method::DELETE, &webhook).await;
    let expected = [
        json!(["editor", "editor", "PUT /v1/campaigns/13010", 201]),
        json!(["viewer", "viewer", "PUT /v1/campaigns/13010", 403]),
        json!(["editor", "editor", "PUT /v1/campaigns/13010", 422]),
        json!([null, null, "DELETE /v1/campaigns/13010", 401]),
        json!(["editor", "editor", "DELETE /v1/campaigns/13010", 412]),
        json!(["operator", "operator", format!("POST {webhook}/test"), 200]),
        json!(["editor", "editor", format!("DELETE {webhook}"), 204]),
        json!(["editor", "editor", format!("DELETE {webhook}"), 404]),
    ];
    wait_until("the last line", DEFAULT_TIMEOUT, async || (audited(&app).len() >= expected.len()).then_some(())).await;
    assert_eq!(audited(&app), expected);
}

#[tokio::test]
async fn audit_lines_ignore_the_log_level() {
    for quiet in [("RUST_LOG", "warn"), ("RUST_LOG", "off"), ("WAYPOST_LOG__LEVEL", "error")] {
        let waypost = Waypost::start_with(&Broker::shared().await.url(), &unique("api"), &[quiet]).await;
        waypost.send(Method::DELETE, "/v1/campaigns/none", None).await;
        let line = waypost.wait_for_log_line("waypost::audit").await;
        assert!(line.contains("DELETE /v1/campaigns/none"), "{quiet:?}: {line}");
    }
}
