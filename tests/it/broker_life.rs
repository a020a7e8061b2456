//! The broker away, killed, blocked, cut off, or not as it should be: nothing is lost, and the probes tell the truth.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::stage::{QUICK, Stage, campaign, chose, many};
use crate::support::letters::{ids, text};
use crate::support::lossy_proxy::{Loss, LossyProxy};
use crate::support::receiver::Request;
use crate::support::{Amqp, Answer, Broker, Message, PATIENCE, Proxy, Receiver, Waypost, unique, until};

/// For what needs a broker to start again, on a busy machine.
const LONG: Duration = Duration::from_secs(90);

/// Waits until every event has been delivered to the receiver, however often.
async fn all_delivered(receiver: &Receiver, count: usize) {
    let distinct = |requests: &[Request]| {
        requests.iter().map(|request| request.webhook_id().to_owned()).collect::<BTreeSet<_>>().len()
    };
    receiver.until_within(LONG, |requests| requests.len() >= count && distinct(requests) == count).await;
}

#[tokio::test]
async fn with_no_broker_at_the_start_it_is_alive_and_says_what_is_missing() {
    let broker = Broker::private().await;
    broker.stop().await;
    let prefix = unique("life");
    let waypost = Waypost::launch(&broker.url(), &prefix, &QUICK);
    let reason = until("an answer of the probe", PATIENCE, async || {
        let client = reqwest::get(waypost.url("/readyz")).await.ok()?;
        let (status, text) = (client.status().as_u16(), client.text().await.ok()?);
        (status == 503 && text.contains("no connection to 127.0.0.1")).then_some(text)
    })
    .await;
    assert!(reason.contains(&broker.port().to_string()), "{reason}");
    assert_eq!(waypost.get("/healthz").await.status, 200);
    assert_eq!(waypost.metric("waypost_broker_connected").await, 0.0);
    broker.start().await;
    waypost.ready().await;
    assert_eq!(waypost.metric("waypost_broker_connected").await, 1.0);
}

#[tokio::test]
async fn a_message_that_the_broker_gave_out_and_no_worker_got_is_recovered() {
    let broker = Broker::shared().await;
    let proxy = LossyProxy::losing(broker.port(), Loss::DeliveryOf("the lost one"));
    let prefix = unique("life");
    let receiver = Receiver::start();
    let waypost = Waypost::start_with(&proxy.amqp_url(), &prefix, &QUICK).await;
    waypost.put_campaign(&campaign(&receiver)).await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.publish_events(&prefix, &[chose(3, "before"), chose(3, "the lost one")]).await;
    receiver.until(|requests| requests.len() == 1).await;
    until("the loss", PATIENCE, async || proxy.has_lost().then_some(())).await;
    // No other message shows the broker that the worker lacks one.
    receiver.until_within(LONG, |requests| requests.len() == 2).await;
    assert_eq!(receiver.by_webhook_id().len(), 2, "each once");
    waypost.until_metric("waypost_messages_recovered_total", 1.0).await;
    until("an empty queue", LONG, async || {
        (broker.queues(&prefix).await.get(&format!("{prefix}.events")) == Some(&0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_letter_above_the_brokers_limit_is_kept_without_its_body() {
    let (broker, _) = Broker::private_configured(|_| "max_message_size = 100000\n".to_owned()).await;
    let stage = Stage::set_on(&broker.url(), "life", &[]).await;
    let unreadable = Message::raw(vec![b'x'; 100_000]).id("large");
    stage.amqp.publish(&format!("{}.events", stage.prefix), [unreadable, Message::event(&chose(3, "small"))]).await;
    stage.receiver.until(|requests| requests.len() == 1).await;
    let letters = stage.waypost.until_letters("reason=malformed", 1).await;
    let letter = stage.waypost.letter(&ids(&letters)[0]).await;
    assert_eq!((text(&letter, "messageId"), letter.get("body")), ("large", None), "{letter:#}");
    assert!(letter["errors"].to_string().contains("max_message_size"), "{letter:#}");
}

#[tokio::test]
async fn a_removed_message_whose_letter_is_above_the_brokers_limit_is_kept_without_its_body() {
    let (broker, _) = Broker::private_configured(|_| "max_message_size = 100000\n".to_owned()).await;
    let stage = Stage::set_on(&broker.url(), "life", &[]).await;
    stage.waypost.terminate();
    assert!(stage.waypost.wait().await.success());
    let events = format!("{}.events", stage.prefix);
    // The letter has the event twice: read, and as it came.
    let mut event = chose(3, "expired");
    event["option"] = json!("x".repeat(60_000));
    stage.amqp.publish(&events, [Message::event(&event).expiration(50)]).await;
    stage.amqp.until_depth(&events, 0).await;
    stage.waypost.restart().await;
    let letters = stage.waypost.until_letters("reason=expired", 1).await;
    let letter = stage.waypost.letter(&ids(&letters)[0]).await;
    assert!(letter["errors"].to_string().contains("max_message_size"), "{letter:#}");
}

/// RabbitMQ can fail to tell a reader of a stream that there is a record (osiris 1.8.4 and older).
#[tokio::test]
async fn a_record_that_a_worker_was_not_given_is_read_by_another_connection() {
    let broker = Broker::shared().await;
    let proxy = LossyProxy::losing(broker.port(), Loss::DeliveryOf("the lost record"));
    let prefix = unique("life");
    let receiver = Receiver::start();
    let unaware = Waypost::start_with(&proxy.amqp_url(), &prefix, &QUICK).await;
    let other = Waypost::start_with(&broker.url(), &prefix, &QUICK).await;
    let mut lost = campaign(&receiver);
    lost["name"] = json!("the lost record");
    other.put_campaign(&lost).await;
    until("the loss", PATIENCE, async || proxy.has_lost().then_some(())).await;
    until("the campaign", 2 * LONG, async || {
        let reply = unaware.get("/v1/campaigns/13010").await;
        (reply.status == 200).then_some(())
    })
    .await;
    unaware.ready().await;
}

#[tokio::test]
async fn a_broker_killed_with_events_in_flight_loses_none() {
    let broker = Broker::private().await;
    let stage = Stage::set_on(&broker.url(), "life", &[]).await;
    stage.receiver.answer_with("/agent", |_, earlier| {
        let answer = if earlier % 10 == 0 { Answer::status(500) } else { Answer::ok() };
        answer.after(Duration::from_millis(50))
    });
    let events = many(3_000, 3);
    stage.amqp.publish_events(&stage.prefix, &events).await;
    stage.receiver.until(|requests| requests.len() > 500).await;
    broker.kill().await;
    let unready = until("the probe to notice", Duration::from_secs(30), async || {
        let reply = stage.waypost.get("/readyz").await;
        (reply.status == 503).then_some(reply)
    });
    assert!(unready.await.body.contains("broker"));
    broker.start().await;
    all_delivered(&stage.receiver, events.len()).await;
    stage.waypost.ready().await;
}

#[tokio::test]
async fn connections_cut_again_and_again_lose_nothing() {
    let broker = Broker::shared().await;
    let proxy = Proxy::to(broker.port());
    let stage = Stage::set_on(&proxy.amqp_url(), "life", &[]).await;
    stage.receiver.answer_with("/agent", |_, earlier| {
        let answer = if earlier % 7 == 0 { Answer::status(500) } else { Answer::ok() };
        answer.after(Duration::from_millis(20))
    });
    let events = many(2_000, 3);
    Amqp::connect(&broker.url()).await.publish_events(&stage.prefix, &events).await;
    for so_far in [100, 500, 1_000] {
        stage.receiver.until(|requests| requests.len() > so_far).await;
        proxy.cut();
    }
    all_delivered(&stage.receiver, events.len()).await;
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let broker = Broker::shared().await;
    let proxy = Proxy::to(broker.port());
    let stage = Stage::set_on(&proxy.amqp_url(), "life", &[]).await;
    proxy.stall();
    // Two missed heartbeats of ten seconds.
    until("the probe to notice", LONG, async || (stage.waypost.get("/readyz").await.status == 503).then_some(())).await;
    // Nor is one waited for that does not come about.
    until("the next try to be given up", LONG, async || {
        stage.waypost.get("/readyz").await.body.contains("no response within 10 s").then_some(())
    })
    .await;
    proxy.resume();
    proxy.cut();
    stage.waypost.ready().await;
    Amqp::connect(&broker.url()).await.publish_event(&stage.prefix, &chose(3, "after")).await;
    stage.receiver.until(|requests| requests.len() == 1).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_connection_that_stands_still() {
    let broker = Broker::shared().await;
    let proxy = Proxy::to(broker.port());
    let stage = Stage::set_on(&proxy.amqp_url(), "life", &[("WAYPOST_SHUTDOWN__GRACE", "1s")]).await;
    stage.receiver.answer("/agent", Answer::never());
    Amqp::connect(&broker.url()).await.publish_event(&stage.prefix, &chose(3, "in hand")).await;
    stage.receiver.until(|requests| requests.len() == 1).await;
    proxy.stall();
    stage.waypost.terminate();
    // The grace and six seconds. After 20 s, two missed heartbeats would close the connection.
    assert!(stage.waypost.wait_for_exit_within(Duration::from_secs(19)).await.success());
}

#[tokio::test]
async fn while_the_broker_takes_no_messages_deliveries_go_on_and_failures_wait() {
    let broker = Broker::private().await;
    // So many that none of the quick ones has to be parked.
    let stage = Stage::set_on(&broker.url(), "life", &[("WAYPOST_ENDPOINT__MAX_CONCURRENCY", "1000")]).await;
    // They fail when the alarm has been raised: a connection is blocked at its first message after that. An endpoint of
    // their own, which is not known and so is sent no more than these at once.
    const FAILING: usize = 8;
    let (late, raised) = (Receiver::start(), CancellationToken::new());
    let failed = Answer::status(500).held_by(&raised);
    late.answer_with("/", move |_: &Request, earlier: usize| match earlier {
        0..FAILING => failed.clone(),
        _ => Answer::ok(),
    });
    // The alarm may take long to be raised on a busy machine.
    let section = json!({ "label": "late", "webhook": { "url": late.url("/"), "timeoutMs": 30_000 } });
    stage.waypost.put_campaign(&json!({ "id": "late", "sections": [section] })).await;
    let failing = |number: usize| {
        json!({ "campaignId": "late", "label": "late", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
            "eventId": format!("fails-{number}") })
    };
    let failing: Vec<Value> = (0..FAILING).map(failing).collect();
    stage.amqp.publish_events(&stage.prefix, &failing).await;
    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_millis(20)));
    let events = many(4_000, 3);
    stage.amqp.publish_events(&stage.prefix, &events).await;
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    raised.cancel();
    let blocked = async || {
        let reply = stage.waypost.get("/readyz").await;
        (reply.status == 503 && reply.body.contains("takes no messages")).then_some(())
    };
    until("the probe to notice", LONG, blocked).await;

    stage.receiver.until(|requests| requests.len() == events.len()).await;
    assert_eq!(late.requests().len(), FAILING, "the retries wait for the broker");
    assert!(blocked().await.is_some());
    assert_eq!(stage.waypost.metric("waypost_publisher{link=\"blocked\"}").await, 1.0);

    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    late.until_within(LONG, |requests| requests.len() == 2 * FAILING).await;
    stage.receiver.until_within(LONG, |requests| requests.len() == events.len()).await;
    stage.waypost.ready().await;
    let delivered = (events.len() + FAILING) as f64;
    stage.waypost.until_metric("waypost_deliveries_total{outcome=\"delivered\"}", delivered).await;
    let counts = late.by_webhook_id();
    assert!(counts.values().all(|count| *count <= 2), "a retry was published twice: {counts:?}");
}

#[tokio::test]
async fn an_object_with_other_arguments_is_named_at_the_start() {
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
    assert_eq!(waypost.wait().await.code(), Some(1));
    let line = waypost.until_line("error: queue").await;
    for words in [queue.as_str(), "x-queue-type", "stream", "quorum"] {
        assert!(line.contains(words), "{words} is not in: {line}");
    }
}

#[tokio::test]
async fn a_queue_deleted_under_way_is_declared_again_and_its_message_not_lost() {
    let stage = Stage::set("life", &[]).await;
    stage.receiver.answer_in_turn("/offers", vec![Answer::status(500), Answer::ok()]);
    let rung = format!("{}.delay.1", stage.prefix);
    let channel = stage.amqp.channel().await;
    channel.queue_delete(rung.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
    stage.publish(&chose(4, "e-1")).await;
    stage.receiver.until(|requests| requests.len() == 2).await;
    assert_eq!(stage.amqp.depth(&rung).await, Some(0));
}

#[tokio::test]
async fn a_consumer_cancelled_by_the_broker_is_not_waited_on_for_ever() {
    let stage = Stage::set("life", &[]).await;
    let queue = format!("{}.events", stage.prefix);
    let channel = stage.amqp.channel().await;
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
    until("the queue to be declared again", LONG, async || stage.amqp.depth(&queue).await).await;
    stage.waypost.ready().await;
    stage.publish(&chose(3, "after")).await;
    stage.receiver.until(|requests| requests.len() == 1).await;
}

#[tokio::test]
async fn reconnecting_leaves_one_consumer_to_a_queue() {
    let broker = Broker::shared().await;
    let proxy = Proxy::to(broker.port());
    let stage = Stage::set_on(&proxy.amqp_url(), "life", &[]).await;
    for _ in 0..3 {
        proxy.cut();
        until("the worker to be without a connection", LONG, async || {
            (stage.waypost.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        stage.waypost.ready().await;
    }
    let windows = async |queue: &str| {
        let listing = broker.ctl(&["list_consumers", "--no-table-headers", "queue_name", "prefetch_count"]).await;
        let queue = format!("{}.{queue}\t", stage.prefix);
        let windows = listing.lines().filter_map(|line| line.strip_prefix(&queue)?.trim().parse().ok());
        windows.collect::<Vec<u32>>()
    };
    assert_eq!((windows("events").await, windows("retries").await), (vec![16], vec![16]));
    // Events are small, as it turns out.
    Amqp::connect(&broker.url()).await.publish_events(&stage.prefix, &many(20, 3)).await;
    stage.receiver.until(|requests| requests.len() == 20).await;
    until("the whole window", PATIENCE, async || (windows("events").await == [1000]).then_some(())).await;
}

#[tokio::test]
async fn two_workers_share_the_events() {
    let stage = Stage::set("life", &[]).await;
    let broker = Broker::shared().await;
    let second = Waypost::start_with(&broker.url(), &stage.prefix, &QUICK).await;
    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_millis(20)));
    let events = many(2_000, 3);
    stage.amqp.publish_events(&stage.prefix, &events).await;
    all_delivered(&stage.receiver, events.len()).await;
    for worker in [&stage.waypost, &second] {
        worker.until_metric("waypost_deliveries_total{outcome=\"delivered\"}", 200.0).await;
    }
    assert_eq!(stage.receiver.requests().len(), events.len(), "nothing was sent twice");
    let stored: Value = second.get("/v1/campaigns/13010").await.json();
    assert_eq!(
        stored["sections"][0]["menu"].as_array().map(Vec::len),
        campaign(&stage.receiver)["sections"][0]["menu"].as_array().map(Vec::len)
    );
}
