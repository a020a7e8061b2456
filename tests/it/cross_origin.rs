//! Requests from a browser: only pages of the worker itself may change anything.

use reqwest::Method;
use serde_json::json;

use crate::support::Receiver;
use crate::test_app::{TestApp, bearer_token};

const DISCARD: &str = "/v1/dead-letters/discard";

#[tokio::test]
async fn cross_origin_pages_can_neither_read_nor_write() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 3).await;
    let waypost = &app.waypost;
    let host = waypost.url("").trim_start_matches("http://").to_owned();
    let own = waypost.url("");
    let order = json!({ "filter": { "reason": "gone" } }).to_string();
    let post = async |headers: &[(&str, &str)]| waypost.send_with(Method::POST, DISCARD, headers, order.clone()).await;

    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json"] {
        for origin in ["https://example.com", "http://localhost:3000", "null"] {
            post(&[("content-type", kind), ("origin", origin)]).await.expect_problem(403);
        }
    }
    // A host name that resolves to this machine has another origin.
    let rebound = [("host", "rebound.example:8080"), ("origin", "http://rebound.example:8080")];
    post(&rebound).await.expect_problem(403);
    for headers in [&rebound[..1], &[("origin", "https://example.com")]] {
        for path in ["/v1/dead-letters", "/v1/campaigns", "/v1/openapi.json", "/v1/nothing"] {
            waypost.send_with(Method::GET, path, headers, String::new()).await.expect_problem(403);
        }
    }
    // Only JSON is accepted without an origin.
    for kind in ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x", "application/xml"] {
        post(&[("content-type", kind)]).await.expect_problem(415);
    }
    let form = "application/x-www-form-urlencoded";
    post(&[("content-type", form), ("origin", &own)]).await.expect_problem(415);
    app.waypost.wait_for_state_counts(&[("pending", 3)]).await;

    // A page of the console, programs that send no content type, and `curl -d`.
    let headers = [("origin", own.as_str()), ("host", &host)];
    assert_eq!(waypost.send_with(Method::GET, "/v1/dead-letters", &headers, String::new()).await.status, 200);
    let taken: [&[(&str, &str)]; 4] = [
        &[("content-type", "application/json; charset=utf-8"), ("origin", &own)],
        &[("content-type", form)],
        &[("host", "localhost:1234"), ("content-type", "application/merge-patch+json")],
        &[],
    ];
    for headers in taken {
        let order = json!({ "filter": { "reason": "gone" }, "dryRun": true }).to_string();
        let reply = waypost.send_with(Method::POST, "/v1/replays", headers, order).await;
        assert_eq!(reply.status, 200, "{headers:?}: {reply:?}");
    }
    // A request without a body needs no content type.
    let reply =
        waypost.send_with(Method::POST, "/v1/replays/rp_none/pause", &[("content-type", "text/plain")], String::new());
    reply.await.expect_problem(404);
}

#[tokio::test]
async fn with_tokens_the_origin_does_not_matter() {
    let app = TestApp::builder().tokens().start().await;
    let webhook = json!({ "event": { "response": "hello" } });
    let receiver = Receiver::start();
    let campaign =
        json!({ "id": "c", "sections": [{ "label": "a", "webhook": { "id": "wh_a", "url": receiver.url("/a") } }] });
    app.waypost.put_campaign(&campaign).await;
    let editor = bearer_token("editor");
    let headers = [("authorization", &*editor), ("host", "waypost.example"), ("origin", "https://ops.example.com")];
    let send = async |more: &[(&str, &str)]| {
        let headers: Vec<(&str, &str)> = headers.iter().chain(more).copied().collect();
        app.waypost.send_with(Method::POST, "/v1/webhooks/wh_a/test", &headers, webhook.to_string()).await
    };
    assert_eq!(send(&[("content-type", "application/json")]).await.status, 200);
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        send(&[("content-type", kind)]).await.expect_problem(415);
    }
    assert_eq!(receiver.requests().len(), 1);
}
