//! Signatures, verified with the public library, and rotation of secrets.

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::support::json::{only_of, webhook_id};
use crate::support::receiver::Request;
use crate::test_app::TestApp;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn headers(request: &Request) -> HeaderMap {
    let header = |(name, value): &(String, String)| {
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    request.headers.iter().map(header).collect()
}

fn verifies(secret: &str, request: &Request) -> bool {
    Webhook::new(secret).expect("a secret").verify(&request.body, &headers(request)).is_ok()
}

/// A worker with one webhook that has this secret, and the webhook's path.
async fn start(secret: Option<&str>) -> (TestApp, String) {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let mut webhook = json!({ "url": app.receiver.url("/signed") });
    if let Some(secret) = secret {
        webhook["secret"] = json!(secret);
    }
    let campaign = json!({ "id": "c", "sections": [{ "label": "l", "webhook": webhook }] });
    let put = app.put_campaign(&campaign).await.json();
    let id = webhook_id(&put, "l", None);
    (app, format!("/v1/webhooks/{id}"))
}

async fn publish_and_receive(app: &TestApp, event: &str) -> Request {
    let event = json!({ "campaignId": "c", "label": "l", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z", "eventId": event });
    let before = app.receiver.requests().len();
    app.publish(&event).await;
    app.receiver.expect_any().at_least(before + 1).await.pop().expect("a request")
}

#[tokio::test]
async fn a_receiver_verifies_what_it_is_sent() {
    let (app, _) = start(Some(SECRET)).await;
    let request = publish_and_receive(&app, "e1").await;
    assert!(verifies(SECRET, &request), "{request:?}");
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    let signed = names.iter().position(|name| *name == "webhook-signature").expect("a signature");
    assert_eq!(names[signed - 1], "webhook-timestamp");

    let mut changed = request.clone();
    changed.body = [request.body.as_ref(), b" "].concat().into();
    assert!(!verifies(SECRET, &changed), "another body");
    assert!(!verifies("whsec_AfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &request), "another secret");
}

#[tokio::test]
async fn without_a_secret_there_is_no_signature() {
    let (app, _) = start(None).await;
    assert_eq!(publish_and_receive(&app, "e1").await.header("webhook-signature"), None);
}

#[tokio::test]
async fn a_secret_is_rotated_without_a_gap() {
    let (app, webhook) = start(Some(SECRET)).await;
    let rotate = format!("{webhook}/rotate-secret");
    for role in ["viewer", "operator"] {
        app.send_as(role, Method::POST, &rotate, None).await.expect_problem(403);
    }
    let reply = app.send_as("editor", Method::POST, &rotate, Some(&json!({ "overlap": "1h" }))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let rotated = reply.json();
    let new = rotated["secret"].as_str().expect("a secret").to_owned();
    assert_ne!(new, SECRET);
    assert_eq!(only_of(&rotated["previousSecrets"])["secret"], SECRET);
    let request = publish_and_receive(&app, "e1").await;
    assert!(verifies(SECRET, &request) && verifies(&new, &request), "{request:?}");

    // Putting back what an editor read changes nothing. A viewer sees neither the current nor the old secret.
    let read = app.get_as("editor", &webhook).await.json();
    assert_eq!(app.send_as("editor", Method::PUT, &webhook, Some(&read)).await.json(), read);
    let masked = app.get_as("viewer", &webhook).await.json();
    assert_eq!(
        (&masked["secret"], &only_of(&masked["previousSecrets"])["secret"]),
        (&json!("********"), &json!("********"))
    );

    // Without an overlap, for a secret that leaked.
    let reply = app.send_as("editor", Method::POST, &rotate, Some(&json!({ "overlap": "0s" }))).await.json();
    let newest = reply["secret"].as_str().expect("a secret").to_owned();
    assert_eq!(reply.get("previousSecrets"), None);
    let request = publish_and_receive(&app, "e2").await;
    assert!(verifies(&newest, &request) && !verifies(&new, &request) && !verifies(SECRET, &request));
}

#[tokio::test]
async fn signatures_are_hidden_from_viewers() {
    let (app, webhook) = start(Some(SECRET)).await;
    let event = json!({ "campaignId": "c", "label": "l", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z" });
    for (role, is_shown) in [("viewer", false), ("operator", false), ("editor", true)] {
        let explained = app.send_as(role, Method::POST, "/v1/explain", Some(&event)).await;
        assert_eq!(explained.status, 200, "{explained:?}");
        let mut shown = vec![explained];
        if role != "viewer" {
            shown.push(app.send_as(role, Method::POST, &format!("{webhook}/test"), None).await);
        }
        for reply in shown {
            assert!(reply.body.contains("webhook-signature"), "{reply:?}");
            assert_eq!(reply.body.contains("v1,"), is_shown, "{role}: {}", reply.body);
        }
    }
}

#[tokio::test]
async fn a_rotation_that_is_not_possible_is_refused() {
    let (app, webhook) = start(None).await;
    let rotate = |body: Value| {
        let (app, address) = (&app, format!("{webhook}/rotate-secret"));
        async move { app.send_as("editor", Method::POST, &address, Some(&body)).await }
    };
    assert_eq!(rotate(json!({ "overlap": "31d" })).await.violation_paths(), ["$.overlap"]);
    assert_eq!(rotate(json!({ "overlap": "soon" })).await.status, 422);
    app.send_as("editor", Method::POST, "/v1/webhooks/wh_none/rotate-secret", None).await.expect_problem(404);
    let first = rotate(json!({})).await.json();
    assert!(first["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{first:#}");
    assert_eq!(first.get("previousSecrets"), None, "the webhook had no earlier secret");
    assert!(verifies(first["secret"].as_str().expect("a secret"), &publish_and_receive(&app, "e1").await));
}
