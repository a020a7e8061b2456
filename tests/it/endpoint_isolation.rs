//! An endpoint that hangs, fails or has limits does not affect other endpoints.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::json::only_of;
use crate::support::receiver::Request;
use crate::support::{Amqp, Answer, Broker, Receiver, Waypost, unique, wait_until};
use crate::test_app::{FAST_RETRIES, SLOW_TIMEOUT};

/// A worker and two receivers. The labels `bad` and `good` have a webhook at one receiver each.
struct TwoReceivers {
    prefix: String,
    waypost: Waypost,
    amqp: Amqp,
    bad: Receiver,
    good: Receiver,
}

impl TwoReceivers {
    /// `more` extends the webhook of the bad receiver.
    async fn start(more: Value, settings: &[(&str, &str)]) -> Self {
        Self::start_at(Broker::shared().await, more, settings).await
    }

    async fn start_at(broker: &Broker, more: Value, settings: &[(&str, &str)]) -> Self {
        let url = broker.url();
        let prefix = unique("isolation");
        let settings: Vec<(&str, &str)> = FAST_RETRIES.into_iter().chain(settings.iter().copied()).collect();
        let waypost = Waypost::start_with(&url, &prefix, &settings).await;
        let (bad, good) = (Receiver::start(), Receiver::start());
        let mut webhook = json!({ "url": bad.url("/") });
        webhook.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let sections =
            json!([{ "label": "bad", "webhook": webhook }, { "label": "good", "webhook": { "url": good.url("/") } }]);
        waypost.put_campaign(&json!({ "id": "c", "sections": sections })).await;
        let amqp = Amqp::connect(&url).await;
        Self { prefix, waypost, amqp, bad, good }
    }

    /// Publishes events with a label.
    async fn publish(&self, label: &str, count: usize) {
        let name = unique("event");
        let event = |number| {
            json!({ "campaignId": "c", "label": label, "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
                "eventId": format!("{name}-{number}") })
        };
        let events: Vec<Value> = (0..count).map(event).collect();
        self.amqp.publish_events(&self.prefix, &events).await;
    }

    /// The bad endpoint in `GET /v1/endpoints`.
    async fn endpoint_status(&self) -> Value {
        let list = self.waypost.get("/v1/endpoints").await.json();
        let origin = self.bad.url("");
        let items = list["items"].as_array().expect("a list").clone();
        items.into_iter().find(|item| item["endpoint"] == origin.as_str()).unwrap_or_else(|| panic!("not in {list:#}"))
    }

    async fn wait_for_endpoint_status(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, SLOW_TIMEOUT, async || Some(self.endpoint_status().await).filter(|standing| so(standing)))
            .await
    }

    async fn parked(&self) -> f64 {
        self.waypost.metric_sum("waypost_deliveries_parked_total").await
    }
}

/// The number of distinct deliveries in requests.
fn count_deliveries(requests: &[Request]) -> usize {
    requests.iter().map(Request::webhook_id).collect::<std::collections::BTreeSet<_>>().len()
}

#[tokio::test]
async fn a_hanging_endpoint_delays_no_other_and_uses_no_attempts() {
    let two = TwoReceivers::start(json!({ "timeoutMs": 30_000 }), &[]).await;
    let gate = CancellationToken::new();
    two.bad.reply("/", Answer::ok().gated_by(&gate));
    // More than the prefetch: if each event kept its place there, they would block it until their timeout.
    two.publish("bad", 1_500).await;
    two.publish("good", 1_500).await;
    two.good.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 1_500).await;
    let timeouts = two.waypost.metric("waypost_attempts_total{cause=\"timeout\",outcome=\"retry\"}").await;
    assert_eq!(timeouts, 0.0, "the good endpoint waited for a timeout of the bad endpoint");
    let standing =
        two.wait_for_endpoint_status("all of the bad one's parked", |bad| bad["parked"].as_u64() > Some(1_000)).await;
    assert!(standing["inFlight"].as_u64() <= Some(8), "{standing:#}");
    assert!(two.bad.max_concurrent("/") <= 8);
    wait_until("all deliveries parked except those in flight", SLOW_TIMEOUT, async || {
        (two.parked().await >= 1_490.0).then_some(())
    })
    .await;

    // The endpoint recovers and receives its whole backlog, which has lost no attempt.
    gate.cancel();
    two.bad.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 1_500).await;
    let requests = two.bad.requests().len();
    assert!(requests <= 1_500 + 8, "{requests} requests: parked deliveries had been sent before");
    assert_eq!(two.waypost.metric("waypost_dead_letters_total{reason=\"exhausted\"}").await, 0.0);
}

#[tokio::test]
async fn a_channel_with_hanging_messages_is_replaced() {
    let broker = Broker::private().await;
    // The maximum timeout of a webhook, which is almost the whole duration of the test.
    let two = TwoReceivers::start_at(&broker, json!({ "timeoutMs": 30_000, "retry": { "maxAttempts": 1 } }), &[]).await;
    two.bad.reply("/", Answer::never());
    let listed = async |what: &[&str]| broker.ctl(&[&[what[0], "--no-table-headers"], &what[1..]].concat()).await;
    let consuming = async || {
        let consumers = listed(&["list_consumers", "queue_name", "channel_pid"]).await;
        let events = format!("{}.events\t", two.prefix);
        consumers.lines().find_map(|line| line.strip_prefix(&events)).map(str::to_owned)
    };
    let first = consuming().await.expect("a consumer");
    two.publish("bad", 1).await;
    two.bad.expect_any().within(SLOW_TIMEOUT).await;
    // Each event overtakes the one that hangs, until the hanging event has its own channel.
    let mut published = 0;
    wait_until("a consumer on another channel", SLOW_TIMEOUT, async || {
        two.publish("good", 200).await;
        published += 200;
        two.good.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == published).await;
        consuming().await.filter(|consuming| *consuming != first)
    })
    .await;
    // Unacknowledged messages of a channel that is still open.
    let unacknowledged = async |pid: &str| {
        let channels = listed(&["list_channels", "pid", "messages_unacknowledged"]).await;
        channels.lines().find_map(|line| line.strip_prefix(pid)?.trim().parse::<u32>().ok())
    };
    wait_until("only the hanging message on the first channel", SLOW_TIMEOUT, async || {
        (unacknowledged(&first).await == Some(1)).then_some(())
    })
    .await;
    assert_eq!(two.bad.requests().len(), 1, "the message was not redelivered");
    two.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", published as f64).await;

    wait_until("the end of the message and of its channel", SLOW_TIMEOUT, async || {
        unacknowledged(&first).await.is_none().then_some(())
    })
    .await;
    two.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"dead\"}", 1.0).await;
    assert_eq!(two.bad.requests().len(), 1);
}

#[tokio::test]
async fn a_breaker_opens_and_one_probe_closes_it() {
    let two = TwoReceivers::start(json!({ "timeoutMs": 300 }), &[]).await;
    two.bad.reply("/", Answer::never());
    two.publish("bad", 200).await;
    let standing = two.wait_for_endpoint_status("an open breaker", |bad| bad["breaker"] == "open").await;
    assert_eq!((&standing["failureRatio"], &standing["lastError"]["cause"]), (&json!(1.0), &json!("timeout")));
    two.waypost.wait_for_metric("waypost_endpoints{breaker=\"open\"}", 1.0).await;
    two.waypost.wait_for_metric("waypost_deliveries_parked_total{reason=\"breaker\"}", 1.0).await;
    let printed = two.waypost.cli(&["endpoints"]).await;
    let row = printed.stdout.lines().nth(1).expect("a row");
    assert!(row.contains(&two.bad.url("")) && row.contains("100 %"), "{}", printed.stdout);

    two.bad.clear_requests();
    two.bad.reply("/", Answer::ok().after(Duration::from_millis(50)));
    let requests = two.bad.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 200).await;
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(50), "a second request during the probe");
    two.wait_for_endpoint_status("a closed breaker", |bad| bad["breaker"] == "closed").await;
    two.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 200.0).await;
}

#[tokio::test]
async fn parked_deliveries_survive_their_worker() {
    let two = TwoReceivers::start(json!({}), &[]).await;
    two.bad.reply("/", Answer::never());
    two.publish("bad", 300).await;
    two.wait_for_endpoint_status("parked deliveries", |bad| bad["parked"].as_u64() > Some(250)).await;
    two.waypost.kill().await;
    two.bad.reply("/", 200);
    two.waypost.restart().await;
    two.bad.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 300).await;
}

#[tokio::test]
async fn what_cannot_be_parked_is_not_counted_as_parked() {
    const EVENTS: usize = 20;
    let broker = Broker::private().await;
    let two = TwoReceivers::start_at(&broker, json!({}), &[("WAYPOST_ENDPOINT__MAX_CONCURRENCY", "2")]).await;
    two.bad.reply_with("/", |_: &Request, earlier: usize| match earlier {
        0..2 => Answer::ok().after(Duration::from_secs(5)),
        _ => Answer::ok(),
    });
    // The publisher loses its connection and can't open another, so nothing can be parked.
    broker.ctl(&["set_user_limits", "guest", r#"{"max-connections": 1}"#]).await;
    let connections = broker.ctl(&["list_connections", "--no-table-headers", "pid", "client_properties"]).await;
    let publisher = connections.lines().find(|line| line.contains("waypost publisher"));
    let publisher = publisher.and_then(|line| line.split('\t').next()).expect("the publisher's connection");
    broker.ctl(&["close_connection", publisher, "by the test"]).await;
    two.waypost.wait_for_metric("waypost_publisher{link=\"down\"}", 1.0).await;

    two.publish("bad", EVENTS).await;
    two.bad.expect_any().times(2).within(SLOW_TIMEOUT).await;
    // The other events ask repeatedly, until these two are answered and a slot is free.
    let mut parked = 0;
    wait_until("all deliveries", SLOW_TIMEOUT, async || {
        parked = parked.max(two.endpoint_status().await["parked"].as_u64().unwrap_or_default());
        (count_deliveries(&two.bad.requests()) == EVENTS).then_some(())
    })
    .await;
    assert_eq!((parked, two.parked().await), (0, 0.0), "none was parked");
    broker.ctl(&["clear_user_limits", "guest", "max-connections"]).await;
    two.waypost.wait_until_ready().await;
}

#[tokio::test]
async fn a_webhook_respects_its_concurrency_limit() {
    let two = TwoReceivers::start(json!({ "maxConcurrency": 2 }), &[]).await;
    two.bad.reply("/", Answer::ok().after(Duration::from_millis(20)));
    two.publish("bad", 120).await;
    two.publish("good", 120).await;
    two.bad.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 120).await;
    two.good.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 120).await;
    assert_eq!(two.bad.max_concurrent("/"), 2);
    assert_eq!(two.bad.requests().len(), 120);
}

#[tokio::test]
async fn an_endpoint_respects_its_concurrency_limit() {
    let two = TwoReceivers::start(json!({}), &[("WAYPOST_ENDPOINT__MAX_CONCURRENCY", "3")]).await;
    two.bad.reply("/", Answer::ok().after(Duration::from_millis(20)));
    two.publish("bad", 120).await;
    two.bad.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 120).await;
    assert_eq!(two.bad.max_concurrent("/"), 3);
}

#[tokio::test]
async fn a_webhook_respects_its_rate_limit() {
    let two = TwoReceivers::start(json!({ "rateLimit": 25 }), &[]).await;
    two.publish("bad", 100).await;
    let requests = two.bad.wait_until_within(SLOW_TIMEOUT, |requests| count_deliveries(requests) == 100).await;
    for (i, first) in requests.iter().enumerate() {
        let second = requests[i..].iter().take_while(|request| request.at - first.at < Duration::from_secs(1)).count();
        // The burst of a tenth of a second, and requests that were delayed in transit.
        assert!(second <= 25 + 3 + 3, "{second} requests in a second");
    }
    let took = requests[99].at - requests[0].at;
    assert!((Duration::from_secs(3)..SLOW_TIMEOUT).contains(&took), "{took:?}");
    two.waypost.wait_for_metric("waypost_deliveries_parked_total{reason=\"rate_limit\"}", 1.0).await;
    assert_eq!(two.bad.requests().len(), 100);
}

#[tokio::test]
async fn endpoints_are_listed_worst_first_in_pages() {
    let two = TwoReceivers::start(json!({ "retry": { "initialDelay": "1h" } }), &[]).await;
    two.bad.reply("/", 500);
    two.publish("bad", 3).await;
    two.publish("good", 3).await;
    wait_until("both endpoints", SLOW_TIMEOUT, async || {
        let list = two.waypost.get("/v1/endpoints").await.json();
        let items = list["items"].as_array()?;
        (items.len() == 2 && items.first()?["failureRatio"] == 1.0).then_some(())
    })
    .await;
    let first = two.waypost.get("/v1/endpoints?limit=1").await.json();
    let worst = only_of(&first["items"]);
    assert_eq!((&worst["endpoint"], &worst["lastError"]["status"]), (&json!(two.bad.url("")), &json!(500)));
    let next = first["next"].as_str().expect("a next page").to_owned();
    let second = two.waypost.get(&format!("/v1/endpoints?limit=1&cursor={next}")).await.json();
    assert_eq!((&only_of(&second["items"])["endpoint"], &second["next"]), (&json!(two.good.url("")), &Value::Null));
    two.waypost.get("/v1/endpoints?cursor=x").await.expect_problem(400);
    let printed = two.waypost.cli(&["endpoints", "--json"]).await;
    let printed: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!(printed.as_array().map(Vec::len), Some(2));
}
