//! Tests of the endpoint registry: waiting, parking, limits, eviction.

use serde_json::json;
use waypost_core::document;

use super::*;

fn endpoints(concurrency: u32) -> EndpointRegistry {
    EndpointRegistry::new(Limits { concurrency, per_second: None }, 16)
}

fn webhook(more: serde_json::Value) -> Webhook {
    let mut webhook = json!({ "id": "wh_1", "url": "https://example.com/" });
    webhook.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let document = json!({ "id": "c", "sections": [{ "label": "l", "webhook": webhook }] }).to_string();
    let campaign =
        document::read(document.as_bytes(), waypost_core::egress::HttpUrls::Refused, None).expect("a document");
    campaign.sections[0].webhook.as_deref().cloned().expect("a webhook")
}

/// A webhook whose endpoint has this number.
fn webhook_at(number: usize) -> Webhook {
    Webhook { url: format!("https://host-{number}.example/").into(), ..webhook(json!({})) }
}

fn ok() -> SendResult {
    SendResult::Response { status: 200, retry_after: None, body: Vec::new() }
}

async fn admitted(endpoints: &EndpointRegistry, webhook: &Webhook) -> Permit {
    match endpoints.admit(webhook, Source::Event, || Parking::Possible, 0.5).await {
        AdmissionOutcome::Admitted(permit) => permit,
        AdmissionOutcome::Parked { reason, .. } => panic!("parked: {reason:?}"),
        AdmissionOutcome::Refused => panic!("refused"),
    }
}

#[tokio::test]
async fn a_waiting_delivery_is_admitted_when_a_request_ends() {
    let endpoints = endpoints(1);
    let first = admitted(&endpoints, &webhook_at(1)).await;
    let second = tokio::spawn({
        let endpoints = endpoints.clone();
        async move { admitted(&endpoints, &webhook_at(1)).await }
    });
    while endpoints.list()[0].stats.waiting == 0 {
        tokio::task::yield_now().await;
    }
    first.finish(&ok(), Duration::from_millis(1), Utc::now());
    let second = second.await.expect("admitted");
    assert_eq!((endpoints.list()[0].stats.in_flight, endpoints.list()[0].stats.waiting), (1, 0));
    drop(second);
    assert_eq!(endpoints.list()[0].stats.in_flight, 0, "a cancelled request is not in flight");
}

#[tokio::test]
async fn replies_to_replays_are_recorded_if_the_receiver_is_in_the_registry() {
    let endpoints = endpoints(1);
    endpoints.record(&webhook_at(1), &ok(), Utc::now());
    assert!(endpoints.list().is_empty(), "no request was admitted");
    let failed = SendResult::TimedOut { phase: waypost_core::outcome::RequestPhase::AwaitingResponse };
    admitted(&endpoints, &webhook_at(1)).await.finish(&failed, Duration::from_secs(1), Utc::now());
    assert_eq!(endpoints.list()[0].stats.failure_ratio, Some(1.0));
    for _ in 0..9 {
        endpoints.record(&webhook_at(1), &ok(), Utc::now());
    }
    let failing = endpoints.list()[0].stats.failure_ratio.expect("requests");
    assert!((failing - 0.1).abs() < 0.01, "{failing}");
}

#[tokio::test]
async fn a_delivery_that_waits_too_long_is_parked() {
    let endpoints = endpoints(1);
    let first = admitted(&endpoints, &webhook_at(1)).await;
    let webhook = webhook_at(1);
    let mut second = std::pin::pin!(endpoints.admit(&webhook, Source::Event, || Parking::Possible, 0.5));
    assert!(futures_util::poll!(&mut second).is_pending(), "parked without a wait");
    assert_eq!(endpoints.list()[0].stats.waiting, 1);
    let AdmissionOutcome::Parked { .. } = second.await else { panic!("a second request") };
    assert_eq!(endpoints.list()[0].stats.waiting, 0);
    drop(first);
}

#[tokio::test]
async fn a_delivery_that_cannot_be_parked_is_not_counted_as_parked() {
    let endpoints = endpoints(1);
    let first = admitted(&endpoints, &webhook_at(1)).await;
    for _ in 0..3 {
        let outcome = endpoints.admit(&webhook_at(1), Source::Event, || Parking::Blocked, 0.5).await;
        assert!(matches!(outcome, AdmissionOutcome::Refused));
    }
    assert_eq!((endpoints.list()[0].stats.waiting, endpoints.list()[0].stats.parked), (0, 0));
    first.finish(&ok(), Duration::from_millis(1), Utc::now());
    let outcome = endpoints.admit(&webhook_at(1), Source::Event, || Parking::Blocked, 0.5).await;
    assert!(matches!(outcome, AdmissionOutcome::Admitted(_)), "the slot is free");
}

#[tokio::test]
async fn slow_endpoints_use_at_most_half_of_the_window() {
    let endpoints = endpoints(64);
    let mut permits = Vec::new();
    for number in 0..100 {
        // A new receiver counts as slow.
        if let AdmissionOutcome::Admitted(permit) =
            endpoints.admit(&webhook_at(number), Source::Event, || Parking::Possible, 0.5).await
        {
            permits.push(permit);
        }
    }
    assert_eq!(permits.len(), 8);
    drop(permits.pop());
    assert!(matches!(
        endpoints.admit(&webhook_at(7), Source::Event, || Parking::Possible, 0.5).await,
        AdmissionOutcome::Admitted(_)
    ));
}

#[tokio::test]
async fn receivers_of_one_endpoint_share_its_limit_and_are_listed_together() {
    let endpoints = endpoints(3);
    let path = |path: &str| Webhook { url: format!("https://example.com/{path}").into(), ..webhook_at(1) };
    let permits = [admitted(&endpoints, &path("a")).await, admitted(&endpoints, &path("b")).await];
    let third = admitted(&endpoints, &path("a")).await;
    assert!(matches!(
        endpoints.admit(&path("b"), Source::Event, || Parking::Possible, 0.5).await,
        AdmissionOutcome::Parked { reason: ParkReason::Concurrency, .. }
    ));
    let listed = endpoints.list();
    assert_eq!((listed.len(), listed[0].endpoint.as_str()), (1, "https://example.com:443"));
    let in_flight: BTreeMap<&str, u32> =
        listed[0].receivers.iter().map(|(path, stats)| (path.as_str(), stats.in_flight)).collect();
    assert_eq!(in_flight, BTreeMap::from([("/a", 2), ("/b", 1)]));
    assert_eq!((listed[0].stats.in_flight, listed[0].stats.parked), (3, 1));
    third.finish(&ok(), Duration::from_millis(5), Utc::now());
    drop(admitted(&endpoints, &path("b")).await);
    drop(permits);
}

#[tokio::test]
async fn limits_of_webhooks_are_shared_by_the_workers() {
    let endpoints = endpoints(64);
    let webhook = webhook(json!({ "maxConcurrency": 5, "rateLimit": 10 }));
    assert_eq!(endpoints.0.webhook_limits(&webhook), Some(Limits { concurrency: 5, per_second: Some(10.0) }));
    endpoints.set_workers(2);
    assert_eq!(endpoints.0.webhook_limits(&webhook), Some(Limits { concurrency: 3, per_second: Some(5.0) }));
}

#[tokio::test]
async fn the_number_of_receivers_is_bounded() {
    let endpoints = endpoints(64);
    let busy = admitted(&endpoints, &webhook_at(0)).await;
    for number in 1..100_000 {
        admitted(&endpoints, &webhook_at(number)).await.finish(&ok(), Duration::from_millis(5), Utc::now());
    }
    let listed = endpoints.list();
    assert!(listed.len() <= MAX_RECEIVERS, "{}", listed.len());
    assert!(listed.iter().any(|listed| listed.stats.in_flight == 1), "the receiver in use was evicted");
    drop(busy);
    let mut registry = endpoints.0.registry();
    registry.evict_idle(endpoints.0.now() + Duration::from_secs(3_600));
    assert!(registry.receivers.is_empty() && registry.limiters.is_empty());
}
