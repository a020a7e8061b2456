//! Egress rules, which are checked when a webhook is configured and when it is sent, and proxies for outgoing requests.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::json::{only, webhook_id, webhook_mut};
use crate::support::reply::Reply;
use crate::support::{Amqp, Broker, Receiver, Waypost, unique, wait_until};
use crate::test_app::{FAST_RETRIES, SLOW_TIMEOUT};

async fn start(settings: &[(&str, &str)]) -> (Waypost, String) {
    let prefix = unique("egress");
    let settings: Vec<(&str, &str)> = FAST_RETRIES.into_iter().chain(settings.iter().copied()).collect();
    (Waypost::start_with(&Broker::shared().await.url(), &prefix, &settings).await, prefix)
}

fn campaign(url: &str) -> Value {
    json!({ "id": "c", "sections": [
        { "label": "fine", "webhook": { "url": "https://example.com/" } }, { "label": "l", "webhook": { "url": url } }] })
}

async fn put(waypost: &Waypost, url: &str) -> Reply {
    waypost.send(Method::PUT, "/v1/campaigns/c", Some(&campaign(url))).await
}

async fn publish(prefix: &str, events: usize) {
    let event = |number| {
        json!({ "campaignId": "c", "label": "l", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
            "eventId": format!("e{number}") })
    };
    let amqp = Amqp::connect(&Broker::shared().await.url()).await;
    amqp.publish_events(prefix, &(0..events).map(event).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_forbidden_url_is_refused_at_configuration() {
    let (waypost, _) = start(&[]).await;
    for host in [
        "10.0.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "[::ffff:127.0.0.1]",
        "[fd00:ec2::254]",
        "192.168.1",
    ] {
        let reply = put(&waypost, &format!("https://{host}/hooks")).await;
        assert_eq!(reply.violation_paths(), ["$.sections[1].webhook.url"], "{host}");
        assert!(reply.body.contains("egress.allow"), "{}", reply.body);
    }
    // Reported together with other violations.
    let mut both = campaign("https://10.0.0.1/");
    webhook_mut(&mut both, "fine", None)["url"] = json!("ftp://example.com/");
    both["name"] = json!(1);
    let reply = waypost.send(Method::PUT, "/v1/campaigns/c", Some(&both)).await;
    assert_eq!(reply.violation_paths(), ["$.name", "$.sections[0].webhook.url", "$.sections[1].webhook.url"]);
    waypost.get("/v1/campaigns/c").await.expect_problem(404);
    // The same applies to a single webhook.
    let stored = put(&waypost, "https://example.com/hooks").await.json();
    let id = webhook_id(&stored, "l", None);
    let path = format!("/v1/webhooks/{id}");
    let reply = waypost.send(Method::PUT, &path, Some(&json!({ "url": "https://10.0.0.1/" }))).await;
    assert_eq!(reply.violation_paths(), ["$.url"]);
    assert_eq!(waypost.get(&path).await.json()["url"], "https://example.com/hooks");
}

#[tokio::test]
async fn a_host_name_is_checked_by_its_address_at_connect() {
    // The name of this machine was allowed when the campaign was put, but is not any more.
    let (waypost, prefix) = start(&[]).await;
    assert_eq!(put(&waypost, "http://localhost:9/").await.status, 201);
    waypost.terminate();
    waypost.wait_for_exit().await;
    let store = waypost.store_path().display().to_string();
    let strict = [("WAYPOST_STORE__PATH", store.as_str()), ("WAYPOST_EGRESS__ALLOW", "")];
    let strict = Waypost::start_with(&Broker::shared().await.url(), &prefix, &strict).await;
    publish(&prefix, 1).await;
    strict.wait_for_metric("waypost_dead_letters_total{reason=\"forbidden_address\"}", 1.0).await;
    let letters = strict.letters("").await;
    let letter = only(&letters);
    assert_eq!((&letter["reason"], &letter["cause"]), (&json!("forbidden_address"), &json!("forbidden_address")));
}

#[tokio::test]
async fn all_requests_go_through_the_proxy() {
    let proxy = Receiver::start();
    let (waypost, prefix) = start(&[("WAYPOST_EGRESS__PROXY", &proxy.url(""))]).await;
    // A name that only the proxy can resolve.
    assert_eq!(put(&waypost, "http://hooks.invalid/through").await.status, 201);
    publish(&prefix, 1).await;
    let requests = proxy.expect_any().await;
    assert_eq!((requests[0].path(), requests[0].header("host")), ("/through", Some("hooks.invalid")));
    waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 1.0).await;
    // The rules for the URL itself apply with a proxy too.
    assert_eq!(put(&waypost, "http://10.0.0.1/").await.violation_paths(), ["$.sections[1].webhook.url"]);
}

#[tokio::test]
async fn a_failing_proxy_does_not_count_against_the_endpoint() {
    let (waypost, prefix) = start(&[("WAYPOST_EGRESS__PROXY", "http://127.0.0.1:9")]).await;
    assert_eq!(put(&waypost, "https://hooks.invalid/").await.status, 201);
    publish(&prefix, 30).await;
    waypost.wait_for_metric("waypost_attempts_total{cause=\"connect\",outcome=\"retry\"}", 30.0).await;
    let endpoint = wait_until("the endpoint", SLOW_TIMEOUT, async || {
        waypost.get("/v1/endpoints").await.json()["items"].as_array().and_then(|items| items.first().cloned())
    })
    .await;
    assert_eq!(endpoint["breaker"], "closed", "{endpoint:#}");
    let error = endpoint["lastError"]["error"].as_str().expect("an error");
    assert!(error.starts_with("the egress proxy (egress.proxy): "), "{error}");
}
