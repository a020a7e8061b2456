//! Malformed answers and closed connections of receivers, and their effect on deliveries. `src/sender/tests.rs` tests
//! each case alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_core::replay::ReplayState;

use crate::support::json::only;
use crate::support::raw_receiver::{RawAnswer, RawReceiver, RawRequest};
use crate::support::{Amqp, Broker, Waypost, unique, wait_until};
use crate::test_app::{FAST_RETRIES, SLOW_TIMEOUT};

const EVENT_COUNT: usize = 40;

struct AnswersTestApp {
    waypost: Waypost,
    amqp: Amqp,
    prefix: String,
}

impl AnswersTestApp {
    /// Starts a worker with one webhook for each label of `urls`.
    async fn start(urls: &[(&str, String)], more: &[(&str, &str)]) -> Self {
        let url = Broker::shared().await.url();
        let prefix = unique("answers");
        let settings: Vec<(&str, &str)> = FAST_RETRIES.into_iter().chain(more.iter().copied()).collect();
        let waypost = Waypost::start_in_thread(&url, &prefix, &settings).await;
        let section = |(label, url): &(&str, String)| json!({ "label": label, "webhook": { "url": url } });
        let sections: Vec<Value> = urls.iter().map(section).collect();
        waypost.put_campaign(&json!({ "id": "c", "sections": sections })).await;
        Self { waypost, amqp: Amqp::connect(&url).await, prefix }
    }

    async fn publish(&self, label: &str, count: usize) {
        let event = |number| {
            json!({ "campaignId": "c", "label": label, "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
                "eventId": format!("{label}-{number}") })
        };
        self.amqp.publish_events(&self.prefix, &(0..count).map(event).collect::<Vec<_>>()).await;
    }

    async fn attempts(&self, cause: &str, outcome: &str) -> f64 {
        self.waypost.metric(&format!("waypost_attempts_total{{cause=\"{cause}\",outcome=\"{outcome}\"}}")).await
    }
}

/// The number of requests with each `webhook-id`.
fn requests_by_webhook_id(requests: &[RawRequest]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        *counts.entry(request.header("webhook-id").expect("a webhook-id").to_owned()).or_default() += 1;
    }
    counts
}

/// Keeps connections open, but closes each without an answer at its second request. The first `gone` requests are
/// answered with 410.
fn close_on_second_use(gone: usize) -> impl Fn(&RawRequest) -> RawAnswer + Send + Sync + 'static {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    move |request| {
        if seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < gone {
            RawAnswer::answer("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").then_close()
        } else if request.earlier > 0 {
            RawAnswer::close()
        } else {
            RawAnswer::ok()
        }
    }
}

/// Asserts that a replay delivers every letter with one attempt.
async fn assert_all_replayed(receiver: &RawReceiver, more: &[(&str, &str)]) {
    let worker = AnswersTestApp::start(&[("l", receiver.url("/"))], more).await;
    worker.publish("l", EVENT_COUNT).await;
    worker.waypost.wait_for_letter_count("", EVENT_COUNT).await;
    let before = receiver.requests().len();
    assert_eq!(before, EVENT_COUNT, "{}", receiver.describe_requests());

    let replay = worker.waypost.create_replay(&json!({ "filter": { "campaignId": "c" } })).await;
    let replay = worker.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    let sent = (replay.sent, replay.delivered, replay.failed);
    assert_eq!(sent, (EVENT_COUNT as u64, EVENT_COUNT as u64, 0), "{replay:#?}\n{}", receiver.describe_requests());

    let requests = receiver.requests().split_off(before);
    assert!(requests.iter().any(|request| request.earlier > 0), "no connection was reused");
    // Only a request that was read but not answered is sent again, unchanged and at most once.
    let answered: Vec<RawRequest> = requests.iter().filter(|request| request.earlier == 0).cloned().collect();
    assert!(requests_by_webhook_id(&answered).values().all(|count| *count == 1), "{}", receiver.describe_requests());
    for cut in requests.iter().filter(|request| request.earlier > 0) {
        let again = answered.iter().find(|request| request.header("webhook-id") == cut.header("webhook-id"));
        let again = again.expect("it was sent again");
        assert_eq!((&cut.head, &cut.body), (&again.head, &again.body));
    }
    assert_eq!(worker.attempts("ok", "delivered").await, EVENT_COUNT as f64);
    assert_eq!(worker.attempts("reset", "dead").await, 0.0);
}

#[tokio::test]
async fn replay_survives_connections_closed_on_reuse() {
    let receiver = RawReceiver::start(close_on_second_use(EVENT_COUNT)).await;
    assert_all_replayed(&receiver, &[]).await;
}

#[tokio::test]
async fn replay_over_tls_survives_connections_closed_on_reuse() {
    let receiver = RawReceiver::start_tls(close_on_second_use(EVENT_COUNT)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem").display().to_string();
    std::fs::write(&file, receiver.certificate().expect("a certificate").pem()).expect("written");
    assert_all_replayed(&receiver, &[("WAYPOST_EGRESS__CA_FILE", &file), ("WAYPOST_EGRESS__ALLOW", "127.0.0.0/8,::1")])
        .await;
}

#[tokio::test]
async fn a_closed_new_connection_fails_the_attempt_after_one_request() {
    let receiver = RawReceiver::start(|_| RawAnswer::close()).await;
    let worker = AnswersTestApp::start(&[("l", receiver.url("/"))], &[("WAYPOST_RETRY__MAX_ATTEMPTS", "2")]).await;
    worker.publish("l", 5).await;
    worker.waypost.wait_for_metric("waypost_dead_letters_total{reason=\"exhausted\"}", 5.0).await;
    assert_eq!(worker.attempts("reset", "retry").await, 5.0);
    let counts = requests_by_webhook_id(&receiver.requests());
    assert!(counts.len() == 5 && counts.values().all(|count| *count == 2), "{}", receiver.describe_requests());
}

#[tokio::test]
async fn unusual_headers_do_not_change_the_status() {
    let many: String = (0..1000).map(|number| format!("x-{number}: value\r\n")).collect();
    let odd = [
        ("many", format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n")),
        ("spaced", "HTTP/1.1 200 OK\r\nx-spaced : 1\r\ncontent-length : 0\r\n\r\n".to_owned()),
        ("folded", "HTTP/1.1 200 OK\r\nx-folded: one\r\n two\r\n\tthree\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("invalid", "HTTP/1.1 200 OK\r\nx invalid: 1\r\n: 2\r\nno colon\r\nx: a\u{1}b\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ("twice", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 7\r\n\r\n".to_owned()),
        ("early", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()),
    ];
    let answers: BTreeMap<String, String> =
        odd.iter().map(|(label, answer)| (format!("POST /{label} "), answer.clone())).collect();
    let receiver = RawReceiver::start(move |request| {
        let answer = answers.iter().find(|(line, _)| request.head.starts_with(line.as_str())).map(|(_, answer)| answer);
        RawAnswer::answer(answer.expect("a path").as_str()).then_close()
    })
    .await;
    let urls: Vec<(&str, String)> = odd.iter().map(|(label, _)| (*label, receiver.url(&format!("/{label}")))).collect();
    let worker = AnswersTestApp::start(&urls, &[]).await;
    for (label, _) in &odd {
        worker.publish(label, 1).await;
    }
    worker
        .waypost
        .wait_for_metric("waypost_attempts_total{cause=\"ok\",outcome=\"delivered\"}", odd.len() as f64)
        .await;
    assert_eq!(receiver.requests().len(), odd.len(), "{}", receiver.describe_requests());
}

#[tokio::test]
async fn status_101_is_a_protocol_error() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let receiver = RawReceiver::start(move |_| RawAnswer::answer(switch)).await;
    let worker = AnswersTestApp::start(&[("l", receiver.url("/"))], &[("WAYPOST_RETRY__MAX_ATTEMPTS", "1")]).await;
    worker.publish("l", 1).await;
    worker.waypost.wait_for_metric("waypost_attempts_total{cause=\"protocol\",outcome=\"dead\"}", 1.0).await;
    let letters = wait_until("the letter", SLOW_TIMEOUT, async || {
        let letters = worker.waypost.letters("").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    let letter = only(&letters);
    assert_eq!((&letter["status"], &letter["cause"]), (&json!(101), &json!("protocol")), "{letter:#}");
}
