//! An AMQP client for tests: publishes as the platform does, inspects queues and reads streams.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, PublisherConfirm};
use serde_json::Value;

use super::broker::Broker;
use super::wait::{DEFAULT_TIMEOUT, poll_until, wait_until};

/// Publishing pauses at this number of unconfirmed messages.
const MAX_UNCONFIRMED: usize = 1024;

/// RabbitMQ delivers a stream only to consumers with a prefetch.
const STREAM_PREFETCH: u16 = 500;

/// A message to publish: persistent, and routed by `key`.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    key: String,
    body: Vec<u8>,
    properties: BasicProperties,
    headers: FieldTable,
}

impl Message {
    pub(crate) fn raw(body: impl Into<Vec<u8>>) -> Self {
        let properties = BasicProperties::default().with_delivery_mode(2);
        Self { key: String::new(), body: body.into(), properties, headers: FieldTable::default() }
    }

    /// A step event whose routing key is the campaign's id.
    pub(crate) fn event(event: &Value) -> Self {
        Self::raw(event.to_string()).key(event["campaignId"].as_str().unwrap_or_default())
    }

    pub(crate) fn key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    pub(crate) fn id(mut self, id: &str) -> Self {
        self.properties = self.properties.with_message_id(id.into());
        self
    }

    pub(crate) fn expiration(mut self, milliseconds: u32) -> Self {
        self.properties = self.properties.with_expiration(milliseconds.to_string().into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.into(), AMQPValue::LongString(value.into()));
        self
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Record {
    /// Panics if the body is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The value of a header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }
}

/// A node needs this long at most to start, or to resume after a partition.
const NODE_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection of the test. Every method panics if the broker refuses, unless it returns a result.
pub(crate) struct Amqp {
    connection: Connection,
}

impl Amqp {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default().with_connection_name("test".into()));
        Self { connection: connection.await.expect("a connection to the broker") }
    }

    /// Retries, because the node may be starting or may have paused itself.
    pub(crate) async fn connect_with_retry(url: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name("test".into());
        let connect = async || Connection::connect(url, properties.clone()).await.ok();
        Self { connection: wait_until("a connection to the broker", NODE_TIMEOUT, connect).await }
    }

    /// A new channel, for operations that have no method here.
    pub(crate) async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Publishes a step event to the exchange of `prefix`, and waits for the confirm.
    pub(crate) async fn publish_event(&self, prefix: &str, event: &Value) {
        self.publish(&format!("{prefix}.events"), [Message::event(event)]).await;
    }

    /// Publishes step events to the exchange of `prefix`, and waits for all confirms.
    pub(crate) async fn publish_events<'a>(&self, prefix: &str, events: impl IntoIterator<Item = &'a Value>) {
        self.publish(&format!("{prefix}.events"), events.into_iter().map(Message::event)).await;
    }

    /// Publishes messages to an exchange concurrently, and waits until all are routed and confirmed.
    pub(crate) async fn publish(&self, exchange: &str, messages: impl IntoIterator<Item = Message>) {
        // A separate channel, because another publisher on it would receive some of these confirms.
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut unconfirmed = VecDeque::new();
        for message in messages {
            let Message { key, body, properties, headers } = message;
            let properties = properties.with_headers(headers);
            let published = channel.basic_publish(exchange.into(), key.into(), options, &body, properties).await;
            unconfirmed.push_back(published.expect("the message is sent"));
            if unconfirmed.len() >= MAX_UNCONFIRMED {
                expect_confirm(unconfirmed.pop_front(), exchange).await;
            }
        }
        while let Some(confirm) = unconfirmed.pop_front() {
            expect_confirm(Some(confirm), exchange).await;
        }
        channel.close(200, "done".into()).await.expect("the channel closes");
    }

    /// The number of ready messages, without unacknowledged ones. `None` if the queue does not exist.
    pub(crate) async fn depth(&self, queue: &str) -> Option<u32> {
        // A missing queue closes the channel.
        let channel = self.connection.create_channel().await.ok()?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        channel.close(200, "done".into()).await.ok()?;
        Some(queue.message_count())
    }

    /// Waits until a queue has `depth` ready messages. Panics with the last depth seen.
    #[track_caller]
    pub(crate) fn wait_for_depth(&self, queue: &str, depth: u32) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let mut seen = None;
            let reached = async || {
                seen = self.depth(queue).await;
                (seen == Some(depth)).then_some(())
            };
            let reached = poll_until(DEFAULT_TIMEOUT, reached).await;
            assert!(reached.is_some(), "{queue} has {seen:?} messages and not {depth} ({caller})");
        }
    }

    /// Reads a stream from its first record until `enough` holds for the records. Panics with the number of records
    /// seen.
    #[track_caller]
    pub(crate) fn read_stream(
        &self,
        stream: &str,
        enough: impl Fn(&[Record]) -> bool,
    ) -> impl Future<Output = Vec<Record>> {
        self.read_stream_within(DEFAULT_TIMEOUT, stream, enough)
    }

    /// Like [`read_stream`](Self::read_stream), with a deadline.
    #[track_caller]
    pub(crate) fn read_stream_within(
        &self,
        deadline: Duration,
        stream: &str,
        enough: impl Fn(&[Record]) -> bool,
    ) -> impl Future<Output = Vec<Record>> {
        let caller = Location::caller();
        async move {
            let end = Instant::now() + deadline;
            let channel = self.channel().await;
            let mut consumer = consume_stream(&channel, stream).await.expect("a consumer of the stream");
            let mut records = Vec::new();
            while !enough(&records) {
                let left = end.saturating_duration_since(Instant::now());
                let Ok(delivery) = tokio::time::timeout(left, consumer.next()).await else {
                    let last: Vec<_> = records.iter().rev().take(20).map(describe_record).collect();
                    let seen = format!("{} records, the last first: {last:#?}", records.len());
                    panic!("no expected records in {stream} within {deadline:?} ({caller}): {seen}");
                };
                let delivery = delivery.expect("the consumer is open").expect("a record");
                if (records.len() + 1) % usize::from(STREAM_PREFETCH / 2) == 0 {
                    delivery.acker.ack(BasicAckOptions { multiple: true }).await.expect("an acknowledgement");
                }
                records.push(to_record(delivery));
            }
            channel.close(200, "done".into()).await.expect("the channel closes");
            records
        }
    }

    /// Reads a stream from its first record until none arrives for `quiet`. Fails if this node has no copy of the
    /// stream.
    pub(crate) async fn read_stream_until_quiet(&self, stream: &str, quiet: Duration) -> lapin::Result<Vec<Record>> {
        let channel = self.connection.create_channel().await?;
        let mut consumer = consume_stream(&channel, stream).await?;
        let mut records = Vec::new();
        while let Ok(Some(delivery)) = tokio::time::timeout(quiet, consumer.next()).await {
            let delivery = delivery?;
            delivery.acker.ack(BasicAckOptions::default()).await?;
            records.push(to_record(delivery));
        }
        channel.close(200, "done".into()).await?;
        Ok(records)
    }

    /// Consumes and rejects each message of a queue, so that the delivery limit counts, until `enough` completes.
    pub(crate) async fn requeue_until<T>(&self, queue: &str, enough: impl Future<Output = T>) -> T {
        let channel = self.channel().await;
        channel.basic_qos(1, BasicQosOptions::default()).await.expect("a prefetch");
        let consumer =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = consumer.await.expect("a consumer");
        let give_back = async {
            while let Some(delivery) = consumer.next().await {
                let delivery = delivery.expect("a delivery");
                // RabbitMQ 4.3 does not count `basic.nack` towards the delivery limit.
                delivery.acker.reject(BasicRejectOptions { requeue: true }).await.expect("the message is requeued");
            }
        };
        let enough = tokio::select! {
            () = give_back => panic!("the consumer of {queue} ended"),
            enough = enough => enough,
        };
        channel.close(200, "done".into()).await.expect("the channel closes");
        enough
    }

    /// Consumes all ready messages of a queue, and returns their bodies.
    pub(crate) async fn take_all_messages(&self, queue: &str) -> Vec<Vec<u8>> {
        let channel = self.channel().await;
        let mut bodies = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = channel.basic_get(queue.into(), options).await.expect("an answer") {
            bodies.push(message.delivery.data);
        }
        channel.close(200, "done".into()).await.expect("the channel closes");
        bodies
    }

    /// Rejects `count` messages of a queue without requeuing, as the management page does. Returns their bodies.
    pub(crate) async fn reject(&self, queue: &str, count: usize) -> Vec<Vec<u8>> {
        let channel = self.channel().await;
        let mut bodies = Vec::new();
        for _ in 0..count {
            let get = async || channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("an answer");
            let message = wait_until(&format!("a message of {queue}"), DEFAULT_TIMEOUT, get).await;
            message.acker.reject(BasicRejectOptions { requeue: false }).await.expect("rejected");
            bodies.push(message.delivery.data);
        }
        channel.close(200, "done".into()).await.expect("the channel closes");
        bodies
    }

    pub(crate) async fn delete_queue(&self, queue: &str) {
        let channel = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
        channel.close(200, "done".into()).await.expect("the channel closes");
    }

    /// Deletes every queue, stream and exchange of a prefix.
    pub(crate) async fn delete_objects(&self, broker: &Broker, prefix: &str) {
        let channel = self.channel().await;
        for queue in broker.queues(prefix).await.into_keys() {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
        }
        let exchanges = broker.ctl(&["list_exchanges", "--no-table-headers", "name"]).await;
        for exchange in exchanges.lines().filter(|name| name.starts_with(&format!("{prefix}."))) {
            let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
            deleted.expect("the exchange is deleted");
        }
        channel.close(200, "done".into()).await.expect("the channel closes");
    }
}

/// Consumes a stream from its first record.
async fn consume_stream(channel: &Channel, stream: &str) -> lapin::Result<Consumer> {
    channel.basic_qos(STREAM_PREFETCH, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), arguments).await
}

fn to_record(delivery: Delivery) -> Record {
    let headers = delivery.properties.headers().as_ref();
    let offset =
        headers.and_then(|headers| headers.inner().get("x-stream-offset").and_then(AMQPValue::as_long_long_int));
    let offset = offset.expect("every record of a stream has its offset");
    Record { offset, properties: delivery.properties, body: delivery.data }
}

async fn expect_confirm(confirm: Option<PublisherConfirm>, exchange: &str) {
    let Some(confirm) = confirm else { return };
    match confirm.await.expect("the broker's confirm") {
        Confirmation::Ack(None) => (),
        other => panic!("a message to {exchange} was rejected or not routed: {other:?}"),
    }
}

fn describe_record(record: &Record) -> String {
    let body: String = String::from_utf8_lossy(&record.body).chars().take(300).collect();
    format!("{}: {body}", record.offset)
}
