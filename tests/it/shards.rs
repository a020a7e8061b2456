//! Step events in several queues, by RabbitMQ's consistent hash exchange.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::amqp::Message;
use crate::support::receiver::Request;
use crate::support::{Broker, Waypost, unique, wait_until};
use crate::test_app::{FAST_RETRIES, SLOW_TIMEOUT, TestApp, events_with_keyword, step_event};

const PLUGIN: [&str; 1] = ["rabbitmq_consistent_hash_exchange"];

/// A message for each event, with the event's id as message id.
fn messages(events: &[Value]) -> Vec<Message> {
    events.iter().map(|event| Message::event(event).id(event["eventId"].as_str().expect("an id"))).collect()
}

fn distinct_deliveries(requests: &[Request]) -> usize {
    requests.iter().map(Request::webhook_id).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn events_are_spread_evenly_and_survive_a_change_of_shards() {
    let broker = Broker::private_with(&PLUGIN).await;
    let app = TestApp::builder().process().broker(&broker.url()).set("broker.shards", 4).start().await;
    let exchange = format!("{}.events", app.prefix);
    let queues: Vec<String> =
        ["events", "events.1", "events.2", "events.3"].iter().map(|queue| format!("{}.{queue}", app.prefix)).collect();
    app.amqp.publish(&exchange, messages(&events_with_keyword(400, 3))).await;
    app.receiver.wait_until_within(SLOW_TIMEOUT, |requests| distinct_deliveries(requests) == 400).await;
    assert_eq!(app.receiver.requests().len(), 400, "an event went through two queues");

    // Without a consumer the messages stay in their queues, about the same number in each.
    app.waypost.terminate();
    app.waypost.wait_for_exit().await;
    app.receiver.clear_requests();
    let late: Vec<Value> =
        (0..400).map(|number| step_event().keyword(3).id(&format!("late-{number}")).json()).collect();
    app.amqp.publish(&exchange, messages(&late)).await;
    for queue in &queues {
        let depth = app.amqp.depth(queue).await.expect("a queue");
        assert!((50..200).contains(&depth), "{depth} of 400 in {queue}");
    }

    // A worker with one shard drains the other queues, which receive no more events.
    let one = Waypost::start_with(&broker.url(), &app.prefix, &FAST_RETRIES).await;
    app.receiver.wait_until_within(SLOW_TIMEOUT, |requests| distinct_deliveries(requests) == 400).await;
    let more: Vec<Value> =
        (0..100).map(|number| step_event().keyword(3).id(&format!("more-{number}")).json()).collect();
    app.amqp.publish(&exchange, messages(&more)).await;
    app.receiver.wait_until_within(SLOW_TIMEOUT, |requests| distinct_deliveries(requests) == 500).await;
    one.terminate();
    one.wait_for_exit().await;
    app.amqp.publish(&exchange, messages(&more)).await;
    assert_eq!(app.amqp.depth(&queues[0]).await, Some(100));
}

fn distinct_deliveries_to(requests: &[Request], path: &str) -> usize {
    let requests = requests.iter().filter(|request| request.path() == path);
    requests.map(Request::webhook_id).collect::<BTreeSet<_>>().len()
}

/// How often a worker has removed the bindings of another number of shards.
fn count_removals(waypost: &Waypost) -> usize {
    waypost.log_lines().iter().filter(|line| line.contains("surplus bindings removed")).count()
}

/// Returns whether the events exchange is bound to the shards exchange.
async fn has_hash_bindings(broker: &Broker, prefix: &str) -> bool {
    let listed = broker.ctl(&["list_bindings", "--no-table-headers", "source_name", "destination_name"]).await;
    listed.lines().any(|line| line.trim() == format!("{prefix}.events\t{prefix}.events.shards"))
}

#[tokio::test]
async fn workers_with_different_shard_counts_lose_no_event() {
    let broker = Broker::private_with(&PLUGIN).await;
    let log = ("RUST_LOG", "warn,waypost_broker::shards=debug");
    let old = TestApp::builder().process().broker(&broker.url()).set("broker.shards", 3).variable(log.0, log.1);
    let old = old.start().await;
    let settings: Vec<(&str, &str)> = FAST_RETRIES.into_iter().chain([log]).collect();
    let new = Waypost::start_with(&broker.url(), &old.prefix, &settings).await;
    let exchange = format!("{}.events", old.prefix);

    // Each worker removes the bindings of the other and declares its own. Publishing panics if an event reaches no
    // queue.
    let mut published = 0;
    let publish = async {
        loop {
            old.amqp
                .publish(&exchange, messages(&[step_event().keyword(4).id(&format!("meanwhile-{published}")).json()]))
                .await;
            published += 1;
        }
    };
    let before = (count_removals(&old.waypost), count_removals(&new));
    let both = wait_until("both to remove bindings", SLOW_TIMEOUT, async || {
        (count_removals(&old.waypost) > before.0 && count_removals(&new) > before.1).then_some(())
    });
    tokio::select! {
        () = publish => {}
        () = both => {}
    }
    wait_until("the bindings of the old worker", SLOW_TIMEOUT, async || {
        has_hash_bindings(&broker, &old.prefix).await.then_some(())
    })
    .await;
    old.waypost.terminate();
    assert!(old.waypost.wait_for_exit().await.success());
    let gone = async || (!has_hash_bindings(&broker, &old.prefix).await).then_some(());
    wait_until("the end of the old worker's bindings", SLOW_TIMEOUT, gone).await;

    let late: Vec<Value> =
        (0..200).map(|number| step_event().keyword(3).id(&format!("late-{number}")).json()).collect();
    old.amqp.publish(&exchange, messages(&late)).await;
    let all = |requests: &[Request]| {
        distinct_deliveries_to(requests, "/offers") >= published && distinct_deliveries_to(requests, "/agent") == 200
    };
    old.receiver.wait_until_within(SLOW_TIMEOUT, all).await;
    for queue in ["events", "events.1", "events.2"] {
        old.amqp.wait_for_depth(&format!("{}.{queue}", old.prefix), 0).await;
    }
    // Requests in flight are finished.
    new.terminate();
    assert!(new.wait_for_exit().await.success());
    let requests = old.receiver.requests();
    let late = requests.iter().filter(|request| request.path() == "/agent").count();
    assert_eq!(late, 200, "an event went through two queues");
}

#[tokio::test]
async fn two_workers_share_the_shards() {
    let broker = Broker::private_with(&PLUGIN).await;
    let app = TestApp::builder().broker(&broker.url()).set("broker.shards", 3).start().await;
    let second = app.start_second_worker().await;
    app.amqp.publish(&format!("{}.events", app.prefix), messages(&events_with_keyword(3_000, 3))).await;
    app.receiver.wait_until_within(SLOW_TIMEOUT, |requests| distinct_deliveries(requests) == 3_000).await;
    let delivered = "waypost_deliveries_total{outcome=\"delivered\"}";
    wait_until("all counted", SLOW_TIMEOUT, async || {
        let counts = [app.waypost.metric(delivered).await, second.metric(delivered).await];
        (counts.iter().sum::<f64>() >= 3_000.0).then_some(counts)
    })
    .await
    .iter()
    .for_each(|count| assert!(*count > 900.0, "a worker handled {count} of 3,000 events"));
}

#[tokio::test]
async fn a_missing_plugin_is_reported_at_startup() {
    let broker = Broker::shared().await;
    let waypost = Waypost::launch(&broker.url(), &unique("shards"), &[("WAYPOST_BROKER__SHARDS", "2")]);
    assert_eq!(waypost.wait_for_exit().await.code(), Some(1));
    let line = waypost.wait_for_log_line("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange").await;
    assert!(line.contains("broker.shards"), "{line}");
}
