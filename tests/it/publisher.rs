//! The publisher alone: a message counts as confirmed only if the broker stored it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use secrecy::SecretString;
use tokio::task::JoinSet;
use waypost_broker::connection::ConnectionConfig;
use waypost_broker::names::Names;
use waypost_broker::publisher::{Destination, OutboundMessage, PublishError, Publisher, PublisherStatus};
use waypost_broker::stream_writer::{ReadBack, StreamWriter};
use waypost_broker::topology::Topology;
use waypost_broker::topology_status::TopologyStatus;

use crate::support::lossy_proxy::{Loss, LossyProxy};
use crate::support::{Amqp, Broker, Cluster, DEFAULT_TIMEOUT, Proxy, unique, wait_until};
use crate::test_app::SLOW_TIMEOUT;

fn start_publisher(url: &str, prefix: &str) -> Publisher {
    let dead_letter_retention = Duration::from_secs(3_600);
    let topology =
        Topology { names: Names::new(prefix), shards: 1, dead_letter_retention, status: TopologyStatus::default() };
    Publisher::start(ConnectionConfig::new(SecretString::from(url.to_owned())), topology).0
}

fn message_to_queue(queue: &str, number: usize) -> OutboundMessage {
    let to = Destination::Queue(queue.to_owned());
    OutboundMessage::new(to, format!("message-{number}"), number.to_string().into_bytes())
}

#[tokio::test]
async fn an_oversized_message_is_refused_alone() {
    let (broker, _) = Broker::private_configured(|_| "max_message_size = 65536\n".to_owned()).await;
    let prefix = unique("publisher");
    let publisher = start_publisher(&broker.url(), &prefix);
    let retries = format!("{prefix}.retries");
    let mut others = JoinSet::new();
    for number in 0..200 {
        let (publisher, outgoing) = (publisher.clone(), message_to_queue(&retries, number));
        others.spawn(async move { publisher.publish_with_retry(outgoing).await });
    }
    let large = OutboundMessage::new(Destination::Queue(retries), "large".to_owned(), vec![b'1'; 65_537]);
    let refused = publisher.publish_with_retry(large).await;
    assert_eq!(refused, Err(PublishError::TooLarge { bytes: 65_537, limit: 65_536 }));
    while let Some(other) = others.join_next().await {
        assert_eq!(other.expect("a publish result"), Ok(()));
    }
}

/// RabbitMQ can confirm a record that is then missing in the stream.
#[tokio::test]
async fn a_record_that_is_not_read_back_is_published_again() {
    let broker = Broker::shared().await;
    let prefix = unique("publisher");
    let log = format!("{prefix}.retries");
    let appender: StreamWriter<()> =
        StreamWriter::new(start_publisher(&broker.url(), &prefix), log.clone(), Duration::from_secs(2));
    let amqp = Amqp::connect(&broker.url()).await;
    // Nothing reads the log.
    assert_eq!(appender.publish_until_applied(message_to_queue(&log, 1)).await, Ok(1));
    amqp.wait_for_depth(&log, 1).await;
    appender.set_read_back(ReadBack::On);
    let depth_above = async |depth: u32| {
        let deeper = async || amqp.depth(&log).await.filter(|seen| *seen > depth);
        wait_until("one more record", SLOW_TIMEOUT, deeper).await
    };
    let read = async {
        // Published again after each timeout, over another connection.
        depth_above(2).await;
        appender.notify_applied("another", ());
        appender.notify_applied("message-2", ());
    };
    let (published, ()) = tokio::join!(appender.publish_until_applied(message_to_queue(&log, 2)), read);
    assert!(matches!(published, Ok(2..)), "{published:?}");
    let depth = amqp.depth(&log).await.expect("the queue");
    let stop = async {
        depth_above(depth).await;
        appender.set_read_back(ReadBack::Off);
    };
    let (published, ()) = tokio::join!(appender.publish_until_applied(message_to_queue(&log, 3)), stop);
    assert!(matches!(published, Ok(1..)), "when reading ends, a confirm is enough: {published:?}");
}

/// lapin attaches a returned message to whichever confirm comes next. Without matching by message id, unroutable
/// messages count as published and the reverse.
#[tokio::test]
async fn each_caller_gets_the_result_of_its_message() {
    let broker = Broker::shared().await;
    let prefix = unique("publisher");
    let publisher = start_publisher(&broker.url(), &prefix);
    let amqp = Amqp::connect(&broker.url()).await;
    let there = format!("{prefix}.retries");
    let nowhere = format!("{prefix}.no-such-queue");
    let mut callers = JoinSet::new();
    for number in 0..4_000 {
        let routable = number % 50 != 7;
        let outgoing = message_to_queue(if routable { &there } else { &nowhere }, number);
        let publisher = publisher.clone();
        callers.spawn(async move { (number, routable, publisher.publish(outgoing).await) });
    }
    let mut wrong = Vec::new();
    while let Some(verdict) = callers.join_next().await {
        let (number, routable, verdict) = verdict.expect("a publish result");
        let right = if routable { verdict.is_ok() } else { matches!(verdict, Err(PublishError::Unroutable(_))) };
        if !right {
            wrong.push((number, verdict));
        }
    }
    assert_eq!(wrong, [], "of 4000");
    // Each was published at least once, and perhaps again after a reconnect.
    let depth = amqp.depth(&there).await.expect("the queue");
    assert!(depth >= 3_920, "{depth} of 3920 messages exist");
}

/// `wait_for_confirms` would hide this.
#[tokio::test]
async fn a_refused_message_is_an_error() {
    let broker = Broker::shared().await;
    let prefix = unique("publisher");
    let publisher = start_publisher(&broker.url(), &prefix);
    let amqp = Amqp::connect(&broker.url()).await;
    let full = format!("{prefix}.full");
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let channel = amqp.channel().await;
    let declared = channel.queue_declare(full.as_str().into(), QueueDeclareOptions::durable(), arguments).await;
    declared.expect("a queue for one message");
    assert_eq!(publisher.publish(message_to_queue(&full, 0)).await, Ok(()));
    let refused = PublishError::Refused(Destination::Queue(full.clone()));
    assert_eq!(publisher.publish(message_to_queue(&full, 1)).await, Err(refused));
    channel.queue_delete(full.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
}

#[tokio::test]
async fn unconfirmed_messages_are_published_after_reconnect() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let prefix = unique("publisher");
    let publisher = start_publisher(&proxy.amqp_url(), &prefix);
    let queue = format!("{prefix}.retries");
    assert_eq!(publisher.publish(message_to_queue(&queue, 0)).await, Ok(()));
    proxy.stall();
    let mut callers = JoinSet::new();
    for number in 1..=500 {
        let (publisher, outgoing) = (publisher.clone(), message_to_queue(&queue, number));
        callers.spawn(async move { publisher.publish(outgoing).await });
    }
    // No caller gets a result while nothing is confirmed.
    assert!(tokio::time::timeout(Duration::from_millis(300), callers.join_next()).await.is_err());
    proxy.cut();
    proxy.resume();
    while let Some(verdict) = callers.join_next().await {
        assert_eq!(verdict.expect("a publish result"), Ok(()));
    }
    let amqp = Amqp::connect(&broker.url()).await;
    let depth = amqp.depth(&queue).await.expect("the queue");
    assert!(depth >= 501, "{depth} of 501 messages exist");
    assert_eq!(publisher.status(), PublisherStatus::Up);
}

/// RabbitMQ 4.3.6 can stop confirming on a channel that publishes to a stream after the stream's leader was lost. Other
/// channels are confirmed.
#[tokio::test]
async fn unconfirmed_messages_are_published_again_after_a_timeout() {
    let broker = Broker::shared().await;
    let proxy = LossyProxy::start(broker.port(), Loss::Confirm);
    let prefix = unique("publisher");
    let publisher = start_publisher(&proxy.amqp_url(), &prefix);
    let confirmed =
        tokio::time::timeout(SLOW_TIMEOUT, publisher.publish(message_to_queue(&format!("{prefix}.retries"), 0)));
    assert_eq!(confirmed.await.expect("a confirm"), Ok(()));
    assert!(proxy.has_lost());
}

#[tokio::test]
async fn cancelled_messages_are_not_published_again() {
    let broker = Broker::shared().await;
    let proxy = Proxy::start(broker.port());
    let prefix = unique("publisher");
    let publisher = start_publisher(&proxy.amqp_url(), &prefix);
    let queue = format!("{prefix}.retries");
    assert_eq!(publisher.publish(message_to_queue(&queue, 0)).await, Ok(()));
    proxy.refuse();
    // Before that, a message may still be sent.
    wait_until("the connection to be lost", SLOW_TIMEOUT, async || {
        (publisher.status() != PublisherStatus::Up).then_some(())
    })
    .await;
    let gave_up =
        tokio::time::timeout(Duration::from_millis(200), publisher.publish(message_to_queue(&queue, 1))).await;
    assert!(gave_up.is_err());
    proxy.resume();
    assert_eq!(publisher.publish(message_to_queue(&queue, 2)).await, Ok(()));
    let amqp = Amqp::connect(&broker.url()).await;
    wait_until("the two messages", DEFAULT_TIMEOUT, async || (amqp.depth(&queue).await == Some(2)).then_some(())).await;
}

/// After the leader of a stream was lost with unconfirmed records, RabbitMQ 3.10 confirms records that it drops, on a
/// channel that publishes to the stream and elsewhere. See `broker/publisher/channels.rs`.
#[tokio::test]
async fn confirmed_stream_records_survive_the_loss_of_the_leader() {
    let cluster = Cluster::start(3).await;
    let [first, second, _] = cluster.nodes() else { panic!("fewer than three nodes") };
    let prefix = unique("publisher");
    let (stream, queue) = (format!("{prefix}.dead-letters"), format!("{prefix}.retries"));
    // The leaders are on the node that declares.
    start_publisher(&first.url(), &prefix).publish(message_to_queue(&stream, 0)).await.expect("a confirm");
    let publisher = start_publisher(&second.url(), &prefix);
    for number in 0..500 {
        publisher.publish(message_to_queue(&queue, number)).await.expect("a confirm");
    }
    let confirmed = Mutex::new(BTreeSet::new());
    let letters = |lane: usize| {
        let (publisher, confirmed, stream) = (&publisher, &confirmed, &stream);
        async move {
            for number in (lane..).step_by(8) {
                publisher.publish_with_retry(message_to_queue(stream, number)).await.expect("a confirm");
                confirmed.lock().expect("the lock").insert(number.to_string());
            }
        }
    };
    let count = || confirmed.lock().expect("the lock").len();
    let kill = async {
        wait_until("letters before", SLOW_TIMEOUT, async || (count() > 100).then_some(())).await;
        first.kill().await;
        let before = count();
        wait_until("letters after", SLOW_TIMEOUT, async || (count() > before + 200).then_some(())).await;
    };
    tokio::select! {
        _ = futures_util::future::join_all((1..=8).map(letters)) => unreachable!("publishing has no end"),
        () = kill => (),
    }
    let there = Amqp::connect(&second.url()).await.read_stream_until_quiet(&stream, Duration::from_secs(3)).await;
    let there: BTreeSet<String> =
        there.expect("records").iter().map(|record| String::from_utf8_lossy(&record.body).into_owned()).collect();
    let confirmed = confirmed.into_inner().expect("the lock");
    let lost: Vec<&String> = confirmed.difference(&there).collect();
    assert!(lost.is_empty(), "of {} confirmed letters {} are missing: {lost:?}", confirmed.len(), lost.len());
}
