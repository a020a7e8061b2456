//! A worker is killed, stopped and restarted: every event is accounted for.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::json::webhook_mut;
use crate::support::{Answer, Broker, DEFAULT_TIMEOUT, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, events_with_keyword, example_campaign, step_event};

#[tokio::test]
async fn a_killed_worker_accounts_for_ten_thousand_events() {
    let app = TestApp::builder().process().set("retry.maxAttempts", 2).start().await;
    // A tenth is gone, a tenth fails once, and the rest is delivered. The id of a delivery decides, so all attempts
    // behave alike.
    let fate = |id: &str| id.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 10;
    app.receiver.reply_with("/agent", move |request, _| match fate(request.webhook_id()) {
        0 => Answer::status(410),
        1 => Answer::status(500),
        _ => Answer::ok(),
    });
    let events = events_with_keyword(10_000, 3);
    app.amqp.publish_events(&app.prefix, &events).await;
    for so_far in [1_500, 4_000, 7_000] {
        app.receiver.expect_any().at_least(so_far + 1).await;
        app.waypost.kill().await;
        app.waypost.restart().await;
    }
    let seen = |requests: &[crate::support::receiver::Request]| {
        requests.iter().map(|request| request.webhook_id().to_owned()).collect::<BTreeSet<String>>()
    };
    let requests = app
        .receiver
        .wait_until_within(SLOW_TIMEOUT, |requests| requests.len() >= 10_000 && seen(requests).len() == 10_000)
        .await;
    let all = seen(&requests);
    let doomed: BTreeSet<String> = all.iter().filter(|id| fate(id) < 2).cloned().collect();
    // The dead letters are exactly the expected ones, though some may have died twice.
    let stream = format!("{}.dead-letters", app.prefix);
    let dead = |records: &[crate::support::amqp::Record]| {
        let id =
            |record: &crate::support::amqp::Record| record.json()["deliveryId"].as_str().unwrap_or_default().to_owned();
        records.iter().map(id).collect::<BTreeSet<String>>()
    };
    let enough =
        |records: &[crate::support::amqp::Record]| records.len() >= doomed.len() && dead(records).len() >= doomed.len();
    let records = app.amqp.read_stream_within(SLOW_TIMEOUT, &stream, enough).await;
    assert_eq!(dead(&records), doomed);
    wait_until("empty queues", SLOW_TIMEOUT, async || {
        for queue in ["events", "retries", "delay.1"] {
            if app.amqp.depth(&format!("{}.{queue}", app.prefix)).await != Some(0) {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_stop_finishes_deliveries_in_flight() {
    // So few in flight that none is parked. Unsent deliveries are still events.
    let app = TestApp::builder().process().set("broker.prefetch", 64).start().await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(20)));
    let events = events_with_keyword(3_000, 3);
    app.amqp.publish_events(&app.prefix, &events).await;
    app.receiver.expect_any().at_least(701).await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    let warning = app.waypost.log_lines().into_iter().find(|line| line.contains("stopping before all"));
    assert_eq!(warning, None, "the worker stopped before all deliveries were finished");
    let sent = app.receiver.requests().len();
    assert!(sent < 3_000, "the worker consumed after SIGTERM");
    let left = wait_until("the unsent deliveries", DEFAULT_TIMEOUT, async || {
        let depth = app.amqp.depth(&format!("{}.events", app.prefix)).await?;
        (depth as usize == 3_000 - sent).then_some(depth)
    });
    left.await;
    app.waypost.restart().await;
    app.receiver.expect_any().at_least(3_000).within(SLOW_TIMEOUT).await;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", (3_000 - sent) as f64).await;
    assert!(app.receiver.requests_by_webhook_id().values().all(|count| *count == 1), "a delivery was sent twice");
}

#[tokio::test]
async fn unfinished_deliveries_are_requeued_after_the_grace() {
    let app = TestApp::builder().process().set("shutdown.grace", "1s").start().await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 3)["timeoutMs"] = json!(30_000);
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/agent", [Answer::never(), Answer::ok()]);
    app.publish(step_event().keyword(3).id("e-1")).await;
    app.receiver.expect_any().await;
    let asked = Instant::now();
    app.waypost.terminate();
    // Before the timeout of the request.
    assert!(app.waypost.wait_for_exit_within(Duration::from_secs(25)).await.success());
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(900), "the worker did not wait for the grace period: {took:?}");
    app.waypost.restart().await;
    app.receiver.expect("/agent").times(2).same_webhook_id().await;
}

#[tokio::test]
async fn a_hanging_receiver_does_not_stop_the_others() {
    let app = TestApp::builder().process().start().await;
    // RabbitMQ updates the numbers below every five seconds. No request may time out before.
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 5)["timeoutMs"] = json!(30_000);
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/survey", Answer::never());
    // The maximum of concurrent requests to an unknown receiver.
    for number in 0..8 {
        app.publish(step_event().keyword(5).id(&format!("hangs-{number}"))).await;
    }
    app.receiver.expect_any().times(8).await;
    let events = events_with_keyword(500, 3);
    app.amqp.publish_events(&app.prefix, &events).await;
    app.receiver.expect_any().times(508).await;
    // Messages behind the slow ones were acknowledged. Only the slow ones are delivered again.
    let queue = format!("{}.events", app.prefix);
    let broker = Broker::shared().await;
    wait_until("the acknowledgements", SLOW_TIMEOUT, async || {
        (broker.queues(&app.prefix).await[&queue] == 8).then_some(())
    })
    .await;
    app.waypost.kill().await;
    wait_until("the rest", SLOW_TIMEOUT, async || (app.amqp.depth(&queue).await == Some(8)).then_some(())).await;
}
