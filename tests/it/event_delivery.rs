//! The path of an event from the exchange to the receiver: headers and body.

use serde_json::json;

use crate::support::amqp::Message;
use crate::test_app::{TestApp, step_event};

#[tokio::test]
async fn a_section_webhook_gets_the_documented_request() {
    let app = TestApp::start().await;
    let event = json!({ "keyword": 4, "option": "Offers", "campaignId": "13010", "label": "Welcome Message",
        "phoneNumber": "+15550001", "date": "2024-06-18T20:26:14.206-03:00", "response": "4", "eventId": "e-1", "more": [] });
    let message =
        Message::event(&event).header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    app.amqp.publish(&format!("{}.events", app.prefix), [message]).await;

    let requests = app.receiver.expect_any().await;
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.path()), ("POST", "/offers"));
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "{\"campaignId\":\"13010\",\"label\":\"Welcome Message\",\"phoneNumber\":\"+15550001\",\
         \"date\":\"2024-06-18T23:26:14.206Z\",\"response\":\"4\",\"option\":\"Offers\",\"keyword\":4,\"source\":\"chatbot\"}"
    );
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["content-type", "user-agent", "webhook-id", "webhook-timestamp", "traceparent", "x-api-key"];
    assert_eq!(names[..6], expected, "{names:?}");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some(concat!("waypost/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.header("traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    assert_eq!(request.header("x-api-key"), Some("…"));
    let timestamp: i64 = request.header("webhook-timestamp").and_then(|text| text.parse().ok()).expect("a timestamp");
    assert!((chrono::Utc::now().timestamp() - timestamp).abs() < 60, "{timestamp} is not now");
}

#[tokio::test]
async fn a_redirect_webhook_gets_no_option_and_no_keyword() {
    let app = TestApp::start().await;
    let mut event = step_event().keyword(" 3 ").id("e-1").json();
    event["option"] = "Agent".into();
    app.publish(&event).await;
    let requests = app.receiver.expect_any().await;
    assert_eq!(requests[0].path(), "/agent");
    assert_eq!(
        String::from_utf8_lossy(&requests[0].body),
        "{\"campaignId\":\"13010\",\"label\":\"Welcome Message\",\"phoneNumber\":\"+15550001\",\
         \"date\":\"2024-06-18T23:26:14.206Z\",\"response\":\"hello\"}"
    );
}

#[tokio::test]
async fn an_event_is_sent_to_entry_and_section_webhooks() {
    let app = TestApp::start().await;
    let webhook = |path: &str| json!({ "url": app.receiver.url(path) });
    let campaign = json!({ "id": "two", "sections": [ { "label": "Ask", "webhook": webhook("/section"),
        "menu": [ { "keyword": "yes", "option": "Yes!", "webhook": webhook("/entry") },
                  { "keyword": "no", "option": "No", "webhook": { "url": app.receiver.url("/off"), "enabled": false } } ] } ] });
    app.waypost.put_campaign(&campaign).await;
    let event = |id: &str, more: serde_json::Value| {
        let mut event = json!({ "campaignId": "two", "label": "Ask", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z", "eventId": id });
        event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        event
    };
    let paths_of = async |event: &serde_json::Value, count: usize| {
        app.receiver.clear_requests();
        app.publish(event).await;
        let requests = app.receiver.expect_any().at_least(count).await;
        let mut paths: Vec<String> = requests.iter().map(|request| request.path().to_owned()).collect();
        paths.sort();
        let ids: std::collections::BTreeSet<&str> = requests.iter().map(|request| request.webhook_id()).collect();
        assert_eq!(ids.len(), count, "deliveries have different ids");
        paths
    };
    assert_eq!(paths_of(&event("1", json!({ "keyword": "YES" })), 2).await, ["/entry", "/section"]);
    assert_eq!(paths_of(&event("2", json!({ "keyword": "?", "option": " yes! " })), 2).await, ["/entry", "/section"]);
    assert_eq!(paths_of(&event("3", json!({ "keyword": "no" })), 1).await, ["/section"]);
    assert_eq!(paths_of(&event("4", json!({})), 1).await, ["/section"]);
    app.waypost.wait_for_metric("waypost_events_total{result=\"resolved\"}", 4.0).await;
}

#[tokio::test]
async fn the_event_id_comes_from_event_message_or_body() {
    let app = TestApp::start().await;
    let exchange = format!("{}.events", app.prefix);
    let named = step_event().keyword(3).id("e-1").json();
    let mut nameless = named.clone();
    nameless.as_object_mut().expect("an object").remove("eventId");
    let messages = [
        Message::event(&named).id("m-1"),
        Message::event(&named).id("m-2"),
        Message::event(&nameless).id("e-1"),
        Message::event(&nameless).id("m-3"),
        Message::event(&nameless),
        Message::event(&nameless),
    ];
    app.amqp.publish(&exchange, messages).await;
    app.receiver.expect_any().times(6).await;
    let mut counts: Vec<usize> = app.receiver.requests_by_webhook_id().into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3], "the same event has the same webhook-id");
}

#[tokio::test]
async fn events_without_a_webhook_are_counted() {
    let app = TestApp::start().await;
    let mut elsewhere = step_event().keyword(3).id("e-2").json();
    elsewhere["campaignId"] = "no-such-campaign".into();
    let mut nowhere = step_event().keyword(3).id("e-3").json();
    nowhere["label"] = "welcome message".into();
    for event in [step_event().keyword(1).id("e-1").json(), elsewhere, nowhere] {
        app.publish(&event).await;
    }
    app.waypost.wait_for_metric("waypost_events_total{result=\"no_webhook\"}", 3.0).await;
    assert_eq!(app.receiver.requests().len(), 0);
}

#[tokio::test]
async fn an_event_can_be_published_over_http() {
    let app = TestApp::start().await;
    let mut event = step_event().keyword(3).id("ignored").json();
    event.as_object_mut().expect("an object").remove("eventId");
    let reply = app.waypost.send(reqwest::Method::POST, "/v1/events", Some(&event)).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let event_id = reply.json()["eventId"].as_str().expect("an event id").to_owned();
    app.receiver.expect_any().await;
    // The reported event id is the one that counts.
    app.publish(step_event().keyword(3).id(&event_id)).await;
    app.receiver.expect("/agent").times(2).same_webhook_id().await;

    event["date"] = "yesterday".into();
    let reply = app.waypost.send(reqwest::Method::POST, "/v1/events", Some(&event)).await;
    assert_eq!(reply.violation_paths(), ["$.date"]);
}

#[tokio::test]
async fn only_failures_are_logged() {
    let app = TestApp::builder().process().start().await;
    app.receiver.reply("/offers", 410);
    app.publish(step_event().keyword(3).id("e-1")).await;
    app.publish(step_event().keyword(4).id("e-2")).await;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 1.0).await;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"dead\"}", 1.0).await;
    let lines = app.waypost.log_lines();
    let attempts: Vec<&String> = lines.iter().filter(|line| line.contains("attempt")).collect();
    assert_eq!(attempts.len(), 1, "{lines:#?}");
    let line: serde_json::Value = serde_json::from_str(attempts[0]).expect("a line of JSON");
    assert_eq!((line["cause"].as_str(), line["status"].as_i64()), (Some("status_4xx"), Some(410)));
    assert!(!lines.iter().any(|line| line.contains("+15550001")), "a phone number in the log: {lines:#?}");
}
