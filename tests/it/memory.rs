//! Memory use of the worker if webhooks have almost a megabyte of extra parameters, and the effect on small webhooks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use lapin::options::BasicGetOptions;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use waypost_core::replay::ReplayState;

use crate::support::background_server::BackgroundServer;
use crate::support::{Amqp, Broker, Message, Waypost, heavy, unique, wait_until};
use crate::test_app::SLOW_TIMEOUT;

/// Limit of the peak memory of a worker. The Kubernetes manifests allow 512 MiB.
const MAX_MEMORY_BYTES: u64 = 300_000_000;

const LARGE_BODY_BYTES: usize = 900_000;

/// How an endpoint answers.
#[derive(Debug, Clone)]
enum SinkBehavior {
    /// 200 after this time.
    Accepts(Duration),
    /// 200 once the test cancels the token.
    Gated(CancellationToken),
    /// 503 to the first request of each delivery, then 200.
    FailsOnce,
    /// Reads the request and never answers.
    Hangs,
    /// 410.
    Gone,
}

/// An endpoint that discards request bodies. [`Receiver`](crate::support::Receiver) would keep a megabyte for each
/// request.
struct Sink {
    url: String,
    seen: Arc<Mutex<SinkLog>>,
    _server: BackgroundServer,
}

#[derive(Default)]
struct SinkLog {
    /// The `webhook-id` of every request.
    sent: HashSet<String>,
    /// The `webhook-id` of every request answered with 200.
    accepted: HashSet<String>,
    requests: usize,
    longest_body: usize,
}

impl Sink {
    fn start(behavior: SinkBehavior) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a nonblocking socket");
        let url = format!("http://{}/", listener.local_addr().expect("the sink's address"));
        let seen: Arc<Mutex<SinkLog>> = Arc::default();
        let router = Router::new().fallback({
            let seen = seen.clone();
            move |headers: HeaderMap, body: Body| handle_request(behavior.clone(), seen.clone(), headers, body)
        });
        let server = BackgroundServer::start("sink", move || async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the sink's socket");
            axum::serve(listener, router).await.expect("the sink serves");
        });
        Self { url, seen, _server: server }
    }

    fn read_log<T>(&self, read: impl FnOnce(&SinkLog) -> T) -> T {
        read(&self.seen.lock().expect("the lock of the sink's log"))
    }

    async fn wait_for_request(&self) {
        wait_until(&format!("a request to {}", self.url), SLOW_TIMEOUT, async || {
            self.read_log(|seen| (seen.requests > 0).then_some(()))
        })
        .await;
    }

    async fn wait_for_accepted(&self, count: usize) {
        wait_until(&format!("{count} deliveries accepted at {}", self.url), SLOW_TIMEOUT, async || {
            (self.read_log(|seen| seen.accepted.len()) >= count).then_some(())
        })
        .await;
    }
}

async fn handle_request(
    behavior: SinkBehavior,
    seen: Arc<Mutex<SinkLog>>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    let mut body = body.into_data_stream();
    let mut length = 0;
    while let Some(Ok(chunk)) = futures_util::StreamExt::next(&mut body).await {
        length += Bytes::len(&chunk);
    }
    let id = headers["webhook-id"].to_str().expect("webhook-id is text").to_owned();
    let is_first = {
        let mut seen = seen.lock().expect("the lock of the sink's log");
        seen.requests += 1;
        seen.longest_body = seen.longest_body.max(length);
        seen.sent.insert(id.clone())
    };
    match behavior {
        // A timeout of a future that never completes, because tests must not call `sleep`.
        SinkBehavior::Accepts(time) => drop(tokio::time::timeout(time, std::future::pending::<()>()).await),
        SinkBehavior::Gated(gate) => gate.cancelled().await,
        SinkBehavior::FailsOnce if is_first => return StatusCode::SERVICE_UNAVAILABLE,
        SinkBehavior::FailsOnce => {}
        SinkBehavior::Hangs => std::future::pending().await,
        SinkBehavior::Gone => return StatusCode::GONE,
    }
    seen.lock().expect("the lock of the sink's log").accepted.insert(id);
    StatusCode::OK
}

/// A campaign with one webhook.
fn campaign(id: &str, url: &str, parameters: &Value) -> Value {
    let webhook = json!({ "url": url, "body": parameters, "headers": { "X-Api-Key": "the-key-of-the-customer" },
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" });
    json!({ "id": id, "sections": [{ "label": "Welcome Message", "webhook": webhook }] })
}

/// [`LARGE_BODY_BYTES`] of extra parameters: half are small values, which need the most memory when parsed, and half is
/// one text.
fn large_parameters() -> Value {
    let mut parameters: serde_json::Map<String, Value> =
        (0..LARGE_BODY_BYTES / 2 / 20).map(|number| (format!("name-{number:06}"), number.into())).collect();
    parameters.insert("text".to_owned(), "x".repeat(LARGE_BODY_BYTES / 2).into());
    parameters.into()
}

fn events(campaign: &str, count: usize) -> Vec<Value> {
    let name = unique("e");
    let event = |number| {
        json!({ "campaignId": campaign, "label": "Welcome Message", "phoneNumber": "+15550001", "date": "2024-06-18T23:26:14Z",
            "eventId": format!("{name}-{number}") })
    };
    (0..count).map(event).collect()
}

/// The peak resident memory of a worker, in bytes.
fn peak_memory(waypost: &Waypost) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", waypost.pid())).expect("the worker's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM in the status");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn assert_memory(waypost: &Waypost) {
    let peak = peak_memory(waypost);
    assert!(peak < MAX_MEMORY_BYTES, "peak memory: {} MB", peak / 1_000_000);
}

const RETRY_SETTINGS: [(&str, &str); 2] = [("WAYPOST_RETRY__INITIAL_DELAY", "1s"), ("WAYPOST_RETRY__MULTIPLIER", "1")];

#[tokio::test]
async fn one_large_webhook_uses_little_memory() {
    let _turn = heavy().await;
    for behavior in [SinkBehavior::FailsOnce, SinkBehavior::Accepts(Duration::from_millis(500))] {
        let broker = Broker::shared().await;
        let prefix = unique("memory");
        let waypost = Waypost::start_with(&broker.url(), &prefix, &RETRY_SETTINGS).await;
        let sink = Sink::start(behavior);
        waypost.put_campaign(&campaign("c", &sink.url, &large_parameters())).await;
        let amqp = Amqp::connect(&broker.url()).await;
        amqp.publish_events(&prefix, &events("c", 300)).await;
        sink.wait_for_accepted(300).await;
        assert!(sink.read_log(|seen| seen.longest_body) > LARGE_BODY_BYTES * 9 / 10, "bodies are sent whole");
        assert_memory(&waypost);
    }
}

#[tokio::test]
async fn large_webhooks_use_little_memory_and_delay_no_small_one() {
    let _turn = heavy().await;
    let broker = Broker::private().await;
    let prefix = unique("memory");
    let waypost = Waypost::start_with(&broker.url(), &prefix, &RETRY_SETTINGS).await;
    let gate = CancellationToken::new();
    let slow = SinkBehavior::Gated(gate.clone());
    let behaviors = [SinkBehavior::Accepts(Duration::ZERO), slow, SinkBehavior::FailsOnce, SinkBehavior::Hangs];
    let mut sinks: Vec<(SinkBehavior, Sink)> =
        std::iter::repeat_n(behaviors, 4).flatten().map(|behavior| (behavior.clone(), Sink::start(behavior))).collect();
    sinks[3] = (SinkBehavior::Gone, Sink::start(SinkBehavior::Gone));
    for (number, (_, sink)) in sinks.iter().enumerate() {
        waypost.put_campaign(&campaign(&number.to_string(), &sink.url, &large_parameters())).await;
    }
    let small = Sink::start(SinkBehavior::Accepts(Duration::ZERO));
    waypost.put_campaign(&campaign("small", &small.url, &json!({ "source": "chatbot" }))).await;

    let amqp = Amqp::connect(&broker.url()).await;
    let of_each = 1000 / sinks.len();
    let mut all: Vec<Vec<Value>> = (0..sinks.len()).map(|number| events(&number.to_string(), of_each)).collect();
    // One event of each campaign in turn.
    let mixed: Vec<Value> =
        (0..of_each).flat_map(|_| all.iter_mut().map(|events| events.remove(0)).collect::<Vec<_>>()).collect();
    amqp.publish_events(&prefix, &mixed).await;
    // The slow endpoints have requests in flight, and answer none of them before all small deliveries are accepted.
    for (behavior, sink) in &sinks {
        if let SinkBehavior::Gated(_) = behavior {
            sink.wait_for_request().await;
        }
    }
    amqp.publish_events(&prefix, &events("small", 500)).await;
    small.wait_for_accepted(500).await;
    gate.cancel();

    let mut gone = 0;
    for (behavior, sink) in &sinks {
        match behavior {
            SinkBehavior::Accepts(_) | SinkBehavior::Gated(_) | SinkBehavior::FailsOnce => {
                sink.wait_for_accepted(of_each).await
            }
            SinkBehavior::Gone => gone += of_each,
            SinkBehavior::Hangs => {}
        }
    }
    waypost.wait_for_letter_count("reason=gone", gone).await;
    assert_memory(&waypost);

    // A replay with the original configuration ends in 410 again.
    let order = json!({ "filter": { "reason": "gone" }, "config": "original" });
    let replay = waypost.create_replay(&order).await;
    waypost.wait_for_replay_within(SLOW_TIMEOUT, &replay, ReplayState::Done).await;
    assert_eq!(waypost.get("/v1/dead-letters?limit=100").await.status, 200);
    assert_memory(&waypost);
    let undelivered = waypost.metric("waypost_dead_letters_total{reason=\"exhausted\"}").await;
    assert_eq!(undelivered, 0.0, "deliveries to an endpoint that hangs stay parked");

    // Without its store, a worker reads all letters again.
    waypost.terminate();
    waypost.wait_for_exit().await;
    std::fs::remove_dir_all(waypost.store_path()).expect("the store is deleted");
    waypost.restart().await;
    waypost.wait_for_letter_count("reason=gone", 2 * gone).await;
    assert_memory(&waypost);
}

#[tokio::test]
async fn oversized_messages_use_little_memory() {
    let _turn = heavy().await;
    let broker = Broker::private().await;
    let prefix = unique("memory");
    let waypost = Waypost::start_with(&broker.url(), &prefix, &RETRY_SETTINGS).await;
    waypost.terminate();
    waypost.wait_for_exit().await;
    let amqp = Amqp::connect(&broker.url()).await;
    for _ in 0..30 {
        let large = (0..10).map(|_| Message::raw(vec![b'x'; 1024 * 1024]));
        amqp.publish(&format!("{prefix}.events"), large).await;
    }
    waypost.restart().await;
    wait_until("300 letters", SLOW_TIMEOUT, async || {
        let reply = waypost.get("/v1/dead-letters/summary?reason=malformed").await;
        (reply.status == 200 && reply.json()["total"] == 300).then_some(())
    })
    .await;
    assert_memory(&waypost);
}

#[tokio::test]
async fn deliveries_that_do_not_fit_into_memory_are_parked_and_delivered_later() {
    let _turn = heavy().await;
    let broker = Broker::shared().await;
    let prefix = unique("memory");
    let waypost = Waypost::start_with(&broker.url(), &prefix, &RETRY_SETTINGS).await;
    // An unknown endpoint gets 8 requests at once. Together the requests exceed the memory budget.
    let sinks: Vec<Sink> = (0..10).map(|_| Sink::start(SinkBehavior::Accepts(Duration::from_secs(3)))).collect();
    let amqp = Amqp::connect(&broker.url()).await;
    let mut all = Vec::new();
    for number in 0..8 {
        for (endpoint, sink) in sinks.iter().enumerate() {
            let id = format!("{endpoint}-{number}");
            waypost.put_campaign(&campaign(&id, &sink.url, &large_parameters())).await;
            all.extend(events(&id, 1));
        }
    }
    amqp.publish_events(&prefix, &all).await;
    for sink in &sinks {
        sink.wait_for_accepted(8).await;
    }
    assert!(waypost.metric("waypost_deliveries_parked_total{reason=\"memory\"}").await > 0.0);
}

#[tokio::test]
async fn waiting_messages_are_small_and_have_no_configuration() {
    let _turn = heavy().await;
    let broker = Broker::shared().await;
    let prefix = unique("memory");
    let settings = [("WAYPOST_RETRY__INITIAL_DELAY", "40s"), ("WAYPOST_RETRY__JITTER", "0")];
    let waypost = Waypost::start_with(&broker.url(), &prefix, &settings).await;
    let sink = Sink::start(SinkBehavior::FailsOnce);
    waypost.put_campaign(&campaign("c", &sink.url, &large_parameters())).await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.publish_events(&prefix, &events("c", 1)).await;
    let queue = format!("{prefix}.delay.32");
    amqp.wait_for_depth(&queue, 1).await;
    let channel = amqp.channel().await;
    let waiting =
        channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.expect("the queue answers");
    let body = String::from_utf8(waiting.expect("a message").delivery.data).expect("UTF-8");
    assert!(body.len() < 2048, "{} bytes: {body:.2000}", body.len());
    for configured in ["name-000001", "X-Api-Key", "whsec_"] {
        assert!(!body.contains(configured), "{body}");
    }
    assert!(body.contains(&sink.url), "the destination is shown to operators: {body}");
}
