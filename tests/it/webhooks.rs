//! Single webhooks over the API: read, replace, delete and test.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Answer;
use crate::support::json::{entry, section, webhook, webhook_id, webhook_mut};
use crate::support::reply::Reply;
use crate::test_app::TestApp;
use crate::test_app::example_campaign;

/// A worker with the example campaign, and the paths of its webhooks: those of keywords 3, 4 and 5, and that of the
/// section `Offers`.
async fn start() -> (TestApp, [String; 4]) {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let put = app.put_campaign(&example_campaign(&app.receiver)).await.json();
    let ids = [
        webhook_id(&put, "Welcome Message", 3),
        webhook_id(&put, "Welcome Message", 4),
        webhook_id(&put, "Welcome Message", 5),
        webhook_id(&put, "Offers", None),
    ];
    (app, ids.map(|id| format!("/v1/webhooks/{id}")))
}

async fn put(app: &TestApp, path: &str, webhook: &Value) -> Reply {
    app.send_as("editor", Method::PUT, path, Some(webhook)).await
}

async fn get_campaign(app: &TestApp) -> Reply {
    app.get_as("editor", "/v1/campaigns/13010").await
}

#[tokio::test]
async fn a_webhook_is_read_with_its_place() {
    let (app, [_, offers, _, name]) = start().await;
    let reply = app.get_as("editor", &offers).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.headers["etag"], get_campaign(&app).await.headers["etag"]);
    let webhook = reply.json();
    assert_eq!(offers.rsplit('/').next(), webhook["id"].as_str());
    let of = |name: &str| webhook[name].clone();
    assert_eq!((of("campaignId"), of("label"), of("keyword")), (json!("13010"), json!("Welcome Message"), json!(4)));
    assert_eq!((of("url"), of("timeoutMs")), (json!(app.receiver.url("/offers")), json!(15_000)));
    assert_eq!(of("headers"), json!({ "X-Api-Key": "…" }));
    let own = app.get_as("viewer", &name).await.json();
    assert_eq!((&own["label"], own.get("keyword")), (&json!("Offers"), None));
    for role in ["viewer", "operator"] {
        let masked = app.get_as(role, &offers).await.json();
        assert_eq!(masked["headers"], json!({ "X-Api-Key": "********" }), "{role}");
    }
    let detail = app.get_as("viewer", "/v1/webhooks/wh_none").await.expect_problem(404).detail;
    assert_eq!(detail, "no such webhook");
}

#[tokio::test]
async fn a_webhook_is_replaced_in_its_place() {
    let (app, [agent, offers, ..]) = start().await;
    let before = get_campaign(&app).await;
    let url = app.receiver.url("/new");
    let document = format!(r#"{{"url":"{url}","body":{{"z":1.50,"a":2}}}}"#);
    let reply = app.send_as_with("editor", Method::PUT, &offers, &[], document).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.contains(r#""body":{"z":1.50,"a":2}"#), "{}", reply.body);
    let after = get_campaign(&app).await;
    assert_eq!(reply.headers["etag"], after.headers["etag"]);
    let mut expected = before.json();
    let place = webhook_mut(&mut expected, "Welcome Message", 4);
    // All digits are kept.
    let body: Value = serde_json::from_str(r#"{"z":1.50,"a":2}"#).expect("JSON");
    *place = json!({ "id": place["id"], "url": url, "enabled": true, "body": body, "timeoutMs": 15_000 });
    assert_eq!(after.json(), expected);

    // A webhook that was read, which includes its location, can be put unchanged.
    let mut webhook = app.get_as("editor", &agent).await.json();
    webhook["enabled"] = false.into();
    assert_eq!(put(&app, &agent, &webhook).await.json(), webhook);

    // The change requires the version that it was made on.
    let old = &before.headers["etag"];
    for method in [Method::PUT, Method::DELETE] {
        let body = webhook.to_string();
        app.send_as_with("editor", method, &agent, &[("if-match", old)], body).await.expect_problem(412);
    }
    let etag = app.get_as("viewer", &agent).await.headers["etag"].clone();
    let body = webhook.to_string();
    let reply = app.send_as_with("editor", Method::PUT, &agent, &[("if-match", &etag)], body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let absent = [("if-none-match", "*")];
    app.send_as_with("editor", Method::PUT, &agent, &absent, webhook.to_string()).await.expect_problem(412);
}

#[tokio::test]
async fn a_refused_webhook_reports_paths_relative_to_itself() {
    let (app, [_, offers, ..]) = start().await;
    let before = get_campaign(&app).await.body;
    let masked = app.get_as("viewer", &offers).await.json();
    let url = app.receiver.url("/offers");
    for (webhook, paths) in [
        (json!({}), &["$.url"][..]),
        (json!(null), &["$"]),
        (
            json!({ "url": url, "campaignId": "other", "label": "Offers", "keyword": 3 }),
            &["$.campaignId", "$.label", "$.keyword"],
        ),
        (json!({ "url": url, "id": "wh_other" }), &["$.id"]),
        (json!({ "url": "ftp://x", "body": { "label": 1 }, "timeout": 5 }), &["$.timeout", "$.url", "$.body.label"]),
        (masked, &[r#"$.headers["X-Api-Key"]"#]),
    ] {
        let found = put(&app, &offers, &webhook).await.expect_problem(422).paths;
        assert_eq!(found, paths, "{webhook}");
    }
    put(&app, "/v1/webhooks/wh_none", &json!({ "url": url })).await.expect_problem(404);
    for (role, method) in [("operator", Method::PUT), ("operator", Method::DELETE), ("viewer", Method::POST)] {
        let path = if method == Method::POST { format!("{offers}/test") } else { offers.clone() };
        app.send_as(role, method, &path, Some(&json!({ "url": url }))).await.expect_problem(403);
    }
    assert_eq!(get_campaign(&app).await.body, before);
}

#[tokio::test]
async fn deleting_a_webhook_removes_its_redirect() {
    let (app, [agent, offers, _, name]) = start().await;
    for path in [&agent, &offers, &name] {
        let reply = app.send_as("editor", Method::DELETE, path, None).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{path}");
        app.send_as("editor", Method::DELETE, path, None).await.expect_problem(404);
    }
    let after = get_campaign(&app).await.json();
    assert_eq!(*entry(&after, "Welcome Message", 3), json!({ "keyword": 3 }));
    let offers = entry(&after, "Welcome Message", 4);
    assert_eq!(offers["redirect"], json!({ "type": "interaction", "to": "Offers" }));
    assert_eq!((offers.get("webhook"), section(&after, "Offers").get("redirect")), (None, None));
    assert!(webhook(&after, "Welcome Message", 5).is_object(), "{after:#}");
}

#[tokio::test]
async fn concurrent_changes_are_all_kept() {
    let (app, paths) = start().await;
    let url = |number: usize| app.receiver.url(&format!("/changed-{number}"));
    let changes = paths.iter().enumerate().map(async |(number, path)| {
        for _ in 0..5 {
            let reply = put(&app, path, &json!({ "url": url(number) })).await;
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    });
    join_all(changes).await;
    for (number, path) in paths.iter().enumerate() {
        assert_eq!(app.get_as("editor", path).await.json()["url"], url(number));
    }
}

#[tokio::test]
async fn a_webhook_test_sends_one_request() {
    let (app, [agent, offers, _, name]) = start().await;
    let test = async |path: &str, body: Option<&Value>| {
        let reply = app.send_as("operator", Method::POST, &format!("{path}/test"), body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    app.receiver.reply("/offers", Answer::status(503).body("no room for a-secret"));
    let mut webhook = app.get_as("editor", &offers).await.json();
    webhook["headers"] = json!({ "X-Api-Key": "a-secret" });
    assert_eq!(put(&app, &offers, &webhook).await.status, 200);
    let tested = test(&offers, None).await;
    let attempt = &tested["response"];
    assert_eq!(
        (&attempt["status"], &attempt["cause"], &attempt["answer"]),
        (&json!(503), &json!("status_5xx"), &json!("no room for ********"))
    );
    assert!(attempt["at"].is_string() && attempt["durationMs"].is_u64() && attempt["error"].is_null(), "{attempt}");
    let request = &tested["request"];
    assert_eq!(request["headers"]["x-api-key"], "********", "{request:#}");
    let sent = app.receiver.requests();
    assert_eq!(request["body"].as_str().expect("a body").as_bytes(), &sent[0].body[..]);
    assert_eq!(request["headers"]["webhook-id"], sent[0].webhook_id());
    assert_eq!(request["headers"]["webhook-timestamp"], sent[0].header("webhook-timestamp").expect("a timestamp"));
    let body: Value = serde_json::from_slice(&sent[0].body).expect("JSON");
    assert_eq!((&body["option"], &body["keyword"], &body["source"]), (&json!("Offers"), &json!(4), &json!("chatbot")));

    // Given values replace generated ones, also for a disabled webhook.
    let mut webhook = app.get_as("editor", &name).await.json();
    webhook["enabled"] = false.into();
    assert_eq!(put(&app, &name, &webhook).await.status, 200);
    let event = json!({ "event": { "response": "Ada", "phoneNumber": "+15550001", "keyword": 7, "eventId": "mine" } });
    let tested = test(&name, Some(&event)).await;
    assert_eq!(tested["response"]["status"], 200, "{tested:#}");
    let body: Value = serde_json::from_str(tested["request"]["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!((&body["label"], &body["response"], body.get("keyword")), (&json!("Offers"), &json!("Ada"), None));

    app.receiver.reply("/agent", Answer::reset());
    let tested = test(&agent, None).await;
    assert_eq!(
        (&tested["response"]["status"], &tested["response"]["cause"]),
        (&Value::Null, &json!("reset")),
        "{tested:#}"
    );
    assert!(tested["response"]["error"].is_string(), "{tested:#}");

    // A test is not a delivery, so it is not counted and not retried.
    let metrics = app.waypost.metrics().await;
    let counted = |(name, value): (&String, &f64)| {
        let counts =
            ["attempts_total", "deliveries_total", "retries_scheduled", "dead_letters_total", "attempt_duration"];
        counts.iter().any(|count| name.contains(count)) && *value > 0.0
    };
    assert_eq!(metrics.iter().find(|metric| counted(*metric)), None);
    // After the reset of a reused connection, one request is sent again.
    assert_eq!(app.receiver.requests_by_webhook_id().len(), 3);
    assert!(app.receiver.requests().len() <= 4);
    app.send_as("operator", Method::POST, "/v1/webhooks/wh_none/test", None).await.expect_problem(404);
}
