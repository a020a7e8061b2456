//! Broker failures: the broker is down, blocked, unreachable or misconfigured. Nothing is lost, and the probes report
//! the state.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::dead_letters::{ids, text_field};
use crate::support::json::section;
use crate::support::lossy_proxy::{Loss, LossyProxy};
use crate::support::receiver::Request;
use crate::support::{Amqp, Answer, Broker, DEFAULT_TIMEOUT, Message, Proxy, Receiver, Waypost, unique, wait_until};
use crate::test_app::{FAST_RETRIES, SLOW_TIMEOUT, TestApp, events_with_keyword, example_campaign, step_event};

/// Waits until every event was delivered at least once.
async fn wait_until_all_delivered(receiver: &Receiver, count: usize) {
    let distinct = |requests: &[Request]| {
        requests.iter().map(|request| request.webhook_id().to_owned()).collect::<BTreeSet<_>>().len()
    };
    receiver.wait_until_within(SLOW_TIMEOUT, |requests| requests.len() >= count && distinct(requests) == count).await;
}

#[tokio::test]
async fn without_a_broker_the_worker_starts_and_reports_the_reason() {
    let broker = Broker::private().await;
    broker.stop().await;
    let prefix = unique("life");
    let waypost = Waypost::launch(&broker.url(), &prefix, &FAST_RETRIES);
    let reason = wait_until("a response of the probe", DEFAULT_TIMEOUT, async || {
        let client = reqwest::get(waypost.url("/readyz")).await.ok()?;
        let (status, text) = (client.status().as_u16(), client.text().await.ok()?);
        (status == 503 && text.contains("no connection to 127.0.0.1")).then_some(text)
    })
    .await;
    assert!(reason.contains(&broker.port().to_string()), "{reason}");
    assert_eq!(waypost.get("/healthz").await.status, 200);
    assert_eq!(waypost.metric("waypost_broker_connected").await, 0.0);
    broker.start().await;
    waypost.wait_until_ready().await;
    assert_eq!(waypost.metric("waypost_broker_connected").await, 1.0);
}

#[tokio::test]
async fn a_delivery_lost_on_the_connection_is_recovered() {
    let broker = Broker::shared().await;
    let proxy = LossyProxy::start(broker.port(), Loss::DeliveryOf("the lost one"));
    let prefix = unique("life");
    let receiver = Receiver::start();
    let waypost = Waypost::start_with(&proxy.amqp_url(), &prefix, &FAST_RETRIES).await;
    waypost.put_campaign(&example_campaign(&receiver)).await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.publish_events(
        &prefix,
        &[step_event().keyword(3).id("before").json(), step_event().keyword(3).id("the lost one").json()],
    )
    .await;
    receiver.expect_any().await;
    wait_until("the loss", DEFAULT_TIMEOUT, async || proxy.has_lost().then_some(())).await;
    // No other message makes the broker notice that the worker missed one.
    receiver.expect_any().times(2).within(SLOW_TIMEOUT).await;
    assert_eq!(receiver.requests_by_webhook_id().len(), 2, "each once");
    waypost.wait_for_metric("waypost_messages_recovered_total", 1.0).await;
    wait_until("an empty queue", SLOW_TIMEOUT, async || {
        (broker.queues(&prefix).await.get(&format!("{prefix}.events")) == Some(&0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_letter_above_the_brokers_limit_is_kept_without_its_body() {
    let (broker, _) = Broker::private_configured(|_| "max_message_size = 100000\n".to_owned()).await;
    let app = TestApp::builder().broker(&broker.url()).start().await;
    let unreadable = Message::raw(vec![b'x'; 100_000]).id("large");
    app.amqp
        .publish(
            &format!("{}.events", app.prefix),
            [unreadable, Message::event(&step_event().keyword(3).id("small").json())],
        )
        .await;
    app.receiver.expect_any().await;
    let letters = app.waypost.wait_for_letters("reason=malformed", 1).await;
    let letter = app.waypost.letter(&ids(&letters)[0]).await;
    assert_eq!((text_field(&letter, "messageId"), letter.get("body")), ("large", None), "{letter:#}");
    assert!(letter["errors"].to_string().contains("max_message_size"), "{letter:#}");
}

#[tokio::test]
async fn a_removed_message_whose_letter_is_above_the_brokers_limit_is_kept_without_its_body() {
    let (broker, _) = Broker::private_configured(|_| "max_message_size = 100000\n".to_owned()).await;
    let app = TestApp::builder().process().broker(&broker.url()).start().await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    let events = format!("{}.events", app.prefix);
    // The letter contains the event twice: parsed and as received.
    let mut event = step_event().keyword(3).id("expired").json();
    event["option"] = json!("x".repeat(60_000));
    app.amqp.publish(&events, [Message::event(&event).expiration(50)]).await;
    app.amqp.wait_for_depth(&events, 0).await;
    app.waypost.restart().await;
    let letters = app.waypost.wait_for_letters("reason=expired", 1).await;
    let letter = app.waypost.letter(&ids(&letters)[0]).await;
    assert!(letter["errors"].to_string().contains("max_message_size"), "{letter:#}");
}

/// RabbitMQ can fail to notify a consumer of a stream about a record (osiris 1.8.4 and older).
#[tokio::test]
async fn a_stream_record_lost_on_the_connection_is_read_again() {
    let broker = Broker::shared().await;
    let proxy = LossyProxy::start(broker.port(), Loss::DeliveryOf("the lost record"));
    let prefix = unique("life");
    let receiver = Receiver::start();
    let unaware = Waypost::start_with(&proxy.amqp_url(), &prefix, &FAST_RETRIES).await;
    let other = Waypost::start_with(&broker.url(), &prefix, &FAST_RETRIES).await;
    let mut lost = example_campaign(&receiver);
    lost["name"] = json!("the lost record");
    other.put_campaign(&lost).await;
    wait_until("the loss", DEFAULT_TIMEOUT, async || proxy.has_lost().then_some(())).await;
    wait_until("the campaign", 2 * SLOW_TIMEOUT, async || {
        let reply = unaware.get("/v1/campaigns/13010").await;
        (reply.status == 200).then_some(())
    })
    .await;
    unaware.wait_until_ready().await;
}

#[tokio::test]
async fn a_broker_killed_with_events_in_flight_loses_none() {
    let broker = Broker::private().await;
    let app = TestApp::builder().broker(&broker.url()).start().await;
    app.receiver.reply_with("/agent", |_, earlier| {
        let answer = if earlier % 10 == 0 { Answer::status(500) } else { Answer::ok() };
        answer.after(Duration::from_millis(50))
    });
    let events = events_with_keyword(3_000, 3);
    app.amqp.publish_events(&app.prefix, &events).await;
    app.receiver.expect_any().at_least(501).await;
    broker.kill().await;
    let unready = wait_until("the probe to report it", Duration::from_secs(30), async || {
        let reply = app.waypost.get("/readyz").await;
        (reply.status == 503).then_some(reply)
    });
    assert!(unready.await.body.contains("broker"));
    broker.start().await;
    wait_until_all_delivered(&app.receiver, events.len()).await;
    app.waypost.wait_until_ready().await;
}

#[tokio::test]
async fn repeatedly_cut_connections_lose_nothing() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let app = TestApp::builder().broker(&proxy.amqp_url()).start().await;
    app.receiver.reply_with("/agent", |_, earlier| {
        let answer = if earlier % 7 == 0 { Answer::status(500) } else { Answer::ok() };
        answer.after(Duration::from_millis(20))
    });
    let events = events_with_keyword(2_000, 3);
    Amqp::connect(&broker.url()).await.publish_events(&app.prefix, &events).await;
    for so_far in [100, 500, 1_000] {
        app.receiver.expect_any().at_least(so_far + 1).await;
        proxy.cut();
    }
    wait_until_all_delivered(&app.receiver, events.len()).await;
}

/// A change that could be made waits for the broker, and is then refused with 503.
#[tokio::test]
async fn a_change_that_is_refused_anyway_does_not_wait_for_the_broker() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let app = TestApp::builder().broker(&proxy.amqp_url()).start().await;
    proxy.refuse();
    wait_until("the worker to lose its connection", SLOW_TIMEOUT, async || {
        (app.waypost.metric("waypost_broker_connected").await == 0.0).then_some(())
    })
    .await;
    let path = "/v1/campaigns/13010";
    let put = async |headers: &[(&str, &str)], body: String| {
        app.waypost.send_with(Method::PUT, path, headers, body).await.status
    };
    assert_eq!(put(&[("if-match", "\"99\"")], app.waypost.get(path).await.body).await, 412);
    assert_eq!(put(&[], json!({ "id": "13010", "sections": 1 }).to_string()).await, 422);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let app = TestApp::builder().broker(&proxy.amqp_url()).start().await;
    proxy.stall();
    // Two missed heartbeats of ten seconds.
    wait_until("the probe to report it", SLOW_TIMEOUT, async || {
        (app.waypost.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    // A connection attempt that hangs is given up too.
    wait_until("the next attempt to time out", SLOW_TIMEOUT, async || {
        app.waypost.get("/readyz").await.body.contains("no response within 10 s").then_some(())
    })
    .await;
    proxy.resume();
    proxy.cut();
    app.waypost.wait_until_ready().await;
    Amqp::connect(&broker.url()).await.publish_event(&app.prefix, &step_event().keyword(3).id("after").json()).await;
    app.receiver.expect_any().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_stalled_connection() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let app = TestApp::builder().process().broker(&proxy.amqp_url()).set("shutdown.grace", "1s").start().await;
    app.receiver.reply("/agent", Answer::never());
    Amqp::connect(&broker.url()).await.publish_event(&app.prefix, &step_event().keyword(3).id("in hand").json()).await;
    app.receiver.expect_any().await;
    proxy.stall();
    app.waypost.terminate();
    // The grace period and six seconds for closing. After 20 s, two missed heartbeats would close the connection.
    assert!(app.waypost.wait_for_exit_within(Duration::from_secs(19)).await.success());
}

#[tokio::test]
async fn while_publishing_is_blocked_deliveries_continue_and_failures_wait() {
    let broker = Broker::private().await;
    // Enough concurrency that no fast delivery is parked.
    let app = TestApp::builder().broker(&broker.url()).set("endpoint.maxConcurrency", 1000).start().await;
    // These requests fail after the alarm, because a connection is blocked at its first message after it. Their
    // endpoint is unknown, so it receives no more than this number of concurrent requests.
    const FAILING: usize = 8;
    let (late, raised) = (Receiver::start(), CancellationToken::new());
    let failed = Answer::status(500).gated_by(&raised);
    late.reply_with("/", move |_: &Request, earlier: usize| match earlier {
        0..FAILING => failed.clone(),
        _ => Answer::ok(),
    });
    // A busy machine may raise the alarm late.
    let section = json!({ "label": "late", "webhook": { "url": late.url("/"), "timeoutMs": 30_000 } });
    app.waypost.put_campaign(&json!({ "id": "late", "sections": [section] })).await;
    let failing = |number: usize| {
        json!({ "campaignId": "late", "label": "late", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
            "eventId": format!("fails-{number}") })
    };
    let failing: Vec<Value> = (0..FAILING).map(failing).collect();
    app.amqp.publish_events(&app.prefix, &failing).await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(20)));
    let events = events_with_keyword(4_000, 3);
    app.amqp.publish_events(&app.prefix, &events).await;
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    raised.cancel();
    let blocked = async || {
        let reply = app.waypost.get("/readyz").await;
        (reply.status == 503 && reply.body.contains("takes no messages")).then_some(())
    };
    wait_until("the probe to report it", SLOW_TIMEOUT, blocked).await;

    app.receiver.expect_any().times(events.len()).await;
    assert_eq!(late.requests().len(), FAILING, "retries wait for the broker");
    assert!(blocked().await.is_some());
    assert_eq!(app.waypost.metric("waypost_publisher{link=\"blocked\"}").await, 1.0);

    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    late.expect_any().times(2 * FAILING).within(SLOW_TIMEOUT).await;
    app.receiver.expect_any().times(events.len()).within(SLOW_TIMEOUT).await;
    app.waypost.wait_until_ready().await;
    let delivered = (events.len() + FAILING) as f64;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", delivered).await;
    let counts = late.requests_by_webhook_id();
    assert!(counts.values().all(|count| *count <= 2), "a retry was published twice: {counts:?}");
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_reported_at_startup() {
    let broker = Broker::shared().await;
    let prefix = unique("life");
    let amqp = Amqp::connect(&broker.url()).await;
    let queue = format!("{prefix}.campaigns");
    let channel = amqp.channel().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let declared = channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), arguments).await;
    declared.expect("a quorum queue");
    let waypost = Waypost::launch(&broker.url(), &prefix, &[]);
    assert_eq!(waypost.wait_for_exit().await.code(), Some(1));
    let line = waypost.wait_for_log_line("error: queue").await;
    for words in [queue.as_str(), "x-queue-type", "stream", "quorum"] {
        assert!(line.contains(words), "{words} is not in: {line}");
    }
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again_without_losing_its_message() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", [500, 200]);
    let rung = format!("{}.delay.1", app.prefix);
    let channel = app.amqp.channel().await;
    channel.queue_delete(rung.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
    app.publish(step_event().keyword(4).id("e-1")).await;
    app.receiver.expect("/offers").times(2).same_webhook_id().await;
    assert_eq!(app.amqp.depth(&rung).await, Some(0));
}

#[tokio::test]
async fn a_consumer_cancelled_by_the_broker_is_replaced() {
    let app = TestApp::start().await;
    let queue = format!("{}.events", app.prefix);
    let channel = app.amqp.channel().await;
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
    wait_until("the queue to be declared again", SLOW_TIMEOUT, async || app.amqp.depth(&queue).await).await;
    app.waypost.wait_until_ready().await;
    app.publish(step_event().keyword(3).id("after")).await;
    app.receiver.expect_any().await;
}

#[tokio::test]
async fn reconnecting_leaves_one_consumer_to_a_queue() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let app = TestApp::builder().broker(&proxy.amqp_url()).start().await;
    for _ in 0..3 {
        proxy.cut();
        wait_until("the worker to lose its connection", SLOW_TIMEOUT, async || {
            (app.waypost.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        app.waypost.wait_until_ready().await;
    }
    let windows = async |queue: &str| {
        let listing = broker.ctl(&["list_consumers", "--no-table-headers", "queue_name", "prefetch_count"]).await;
        let queue = format!("{}.{queue}\t", app.prefix);
        let windows = listing.lines().filter_map(|line| line.strip_prefix(&queue)?.trim().parse().ok());
        windows.collect::<Vec<u32>>()
    };
    assert_eq!((windows("events").await, windows("retries").await), (vec![16], vec![16]));
    // Events are small.
    Amqp::connect(&broker.url()).await.publish_events(&app.prefix, &events_with_keyword(20, 3)).await;
    app.receiver.expect_any().times(20).await;
    wait_until("the whole window", DEFAULT_TIMEOUT, async || (windows("events").await == [1000]).then_some(())).await;
}

#[tokio::test]
async fn two_workers_share_the_events() {
    let app = TestApp::start().await;
    let broker = Broker::shared().await;
    let second = Waypost::start_with(&broker.url(), &app.prefix, &FAST_RETRIES).await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(20)));
    let events = events_with_keyword(2_000, 3);
    app.amqp.publish_events(&app.prefix, &events).await;
    wait_until_all_delivered(&app.receiver, events.len()).await;
    for worker in [&app.waypost, &second] {
        worker.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 200.0).await;
    }
    assert_eq!(app.receiver.requests().len(), events.len(), "nothing was sent twice");
    let stored: Value = second.get("/v1/campaigns/13010").await.json();
    assert_eq!(
        section(&stored, "Welcome Message")["menu"].as_array().map(Vec::len),
        section(&example_campaign(&app.receiver), "Welcome Message")["menu"].as_array().map(Vec::len)
    );
}
