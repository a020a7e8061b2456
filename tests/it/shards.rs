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
