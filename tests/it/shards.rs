//! Step events spread over several queues by RabbitMQ's consistent hash.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stage::{LONG, QUICK, Stage, chose, many};
use crate::support::amqp::Message;
use crate::support::receiver::Request;
use crate::support::{Broker, Waypost, unique, until};

const PLUGIN: [&str; 1] = ["rabbitmq_consistent_hash_exchange"];

/// The events, each a message with an id of its own.
fn messages(events: &[Value]) -> Vec<Message> {
    events.iter().map(|event| Message::event(event).id(event["eventId"].as_str().expect("an id"))).collect()
}

fn distinct(requests: &[Request]) -> usize {
    requests.iter().map(Request::webhook_id).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn events_are_spread_evenly_and_all_delivered_also_when_the_number_changes() {
    let broker = Broker::private_with(&PLUGIN).await;
    let stage = Stage::set_on(&broker.url(), "shards", &[("WAYPOST_BROKER__SHARDS", "4")]).await;
    let exchange = format!("{}.events", stage.prefix);
    let queues: Vec<String> = ["events", "events.1", "events.2", "events.3"]
        .iter()
        .map(|queue| format!("{}.{queue}", stage.prefix))
        .collect();
    stage.amqp.publish(&exchange, messages(&many(400, 3))).await;
    stage.receiver.until_within(LONG, |requests| distinct(requests) == 400).await;
    assert_eq!(stage.receiver.requests().len(), 400, "an event came by two queues");

    // With nobody to consume them they lie where they were put: in all queues, about as many in each.
    stage.waypost.terminate();
    stage.waypost.wait().await;
    stage.receiver.forget();
    let late: Vec<Value> = (0..400).map(|number| chose(3, &format!("late-{number}"))).collect();
    stage.amqp.publish(&exchange, messages(&late)).await;
    for queue in &queues {
        let depth = stage.amqp.depth(queue).await.expect("a queue");
        assert!((50..200).contains(&depth), "{depth} of 400 in {queue}");
    }

    // A worker that knows of one queue only takes what is left in the others, and no more goes there.
    let one = Waypost::start_with(&broker.url(), &stage.prefix, &QUICK).await;
    stage.receiver.until_within(LONG, |requests| distinct(requests) == 400).await;
    let more: Vec<Value> = (0..100).map(|number| chose(3, &format!("more-{number}"))).collect();
    stage.amqp.publish(&exchange, messages(&more)).await;
    stage.receiver.until_within(LONG, |requests| distinct(requests) == 500).await;
    one.terminate();
    one.wait().await;
    stage.amqp.publish(&exchange, messages(&more)).await;
    assert_eq!(stage.amqp.depth(&queues[0]).await, Some(100));
}

fn distinct_to(requests: &[Request], path: &str) -> usize {
    let requests = requests.iter().filter(|request| request.path() == path);
    requests.map(Request::webhook_id).collect::<BTreeSet<_>>().len()
}

/// How often a worker has removed the bindings of another number of shards.
fn removals(waypost: &Waypost) -> usize {
    waypost.lines().iter().filter(|line| line.contains("surplus bindings removed")).count()
}

/// Whether the exchange of events is bound to that of shards.
async fn spreads(broker: &Broker, prefix: &str) -> bool {
    let listed = broker.ctl(&["list_bindings", "--no-table-headers", "source_name", "destination_name"]).await;
    listed.lines().any(|line| line.trim() == format!("{prefix}.events\t{prefix}.events.shards"))
}

#[tokio::test]
async fn workers_with_different_numbers_lose_no_event_and_none_is_delivered_twice_after_the_last_old_one() {
    let broker = Broker::private_with(&PLUGIN).await;
    let log = ("RUST_LOG", "warn,waypost_broker::shards=debug");
    let old = Stage::set_on(&broker.url(), "shards", &[("WAYPOST_BROKER__SHARDS", "3"), log]).await;
    let settings: Vec<(&str, &str)> = QUICK.into_iter().chain([log]).collect();
    let new = Waypost::start_with(&broker.url(), &old.prefix, &settings).await;
    let exchange = format!("{}.events", old.prefix);

    // Each removes what the other needs, and declares its own again. Publishing panics if an event reaches no queue.
    let mut published = 0;
    let publish = async {
        loop {
            old.amqp.publish(&exchange, messages(&[chose(4, &format!("meanwhile-{published}"))])).await;
            published += 1;
        }
    };
    let before = (removals(&old.waypost), removals(&new));
    let both = until("both to remove bindings", LONG, async || {
        (removals(&old.waypost) > before.0 && removals(&new) > before.1).then_some(())
    });
    tokio::select! {
        () = publish => {}
        () = both => {}
    }
    until("the bindings of the old worker", LONG, async || spreads(&broker, &old.prefix).await.then_some(())).await;
    old.waypost.terminate();
    assert!(old.waypost.wait().await.success());
    let gone = async || (!spreads(&broker, &old.prefix).await).then_some(());
    until("the end of the old worker's bindings", LONG, gone).await;

    let late: Vec<Value> = (0..200).map(|number| chose(3, &format!("late-{number}"))).collect();
    old.amqp.publish(&exchange, messages(&late)).await;
    let all =
        |requests: &[Request]| distinct_to(requests, "/offers") >= published && distinct_to(requests, "/agent") == 200;
    old.receiver.until_within(LONG, all).await;
    for queue in ["events", "events.1", "events.2"] {
        old.amqp.until_depth(&format!("{}.{queue}", old.prefix), 0).await;
    }
    // What is in flight is finished.
    new.terminate();
    assert!(new.wait().await.success());
    let requests = old.receiver.requests();
    let late = requests.iter().filter(|request| request.path() == "/agent").count();
    assert_eq!(late, 200, "an event came by two queues");
}

#[tokio::test]
async fn two_workers_share_the_shards() {
    let broker = Broker::private_with(&PLUGIN).await;
    let shards = [("WAYPOST_BROKER__SHARDS", "3")];
    let stage = Stage::set_on(&broker.url(), "shards", &shards).await;
    let settings: Vec<(&str, &str)> = QUICK.into_iter().chain(shards).collect();
    let second = Waypost::start_with(&broker.url(), &stage.prefix, &settings).await;
    stage.amqp.publish(&format!("{}.events", stage.prefix), messages(&many(3_000, 3))).await;
    stage.receiver.until_within(LONG, |requests| distinct(requests) == 3_000).await;
    let delivered = "waypost_deliveries_total{outcome=\"delivered\"}";
    until("all counted", LONG, async || {
        let counts = [stage.waypost.metric(delivered).await, second.metric(delivered).await];
        (counts.iter().sum::<f64>() >= 3_000.0).then_some(counts)
    })
    .await
    .iter()
    .for_each(|count| assert!(*count > 900.0, "a worker had {count} of 3,000"));
}

#[tokio::test]
async fn without_the_plugin_the_start_says_what_to_do() {
    let broker = Broker::shared().await;
    let waypost = Waypost::launch(&broker.url(), &unique("shards"), &[("WAYPOST_BROKER__SHARDS", "2")]);
    assert_eq!(waypost.wait().await.code(), Some(1));
    let line = waypost.until_line("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange").await;
    assert!(line.contains("broker.shards"), "{line}");
}
