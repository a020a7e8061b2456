//! The tests as an outside party at the broker: publish as the platform does, look into queues, read streams.

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

/// So many messages are on their way before the oldest one's confirm is awaited.
const MAX_UNCONFIRMED: usize = 1024;

/// RabbitMQ hands out a stream to consumers with a prefetch only; half of it is acknowledged at once.
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
    /// Any bytes.
    pub(crate) fn raw(body: impl Into<Vec<u8>>) -> Self {
        let properties = BasicProperties::default().with_delivery_mode(2);
        Self { key: String::new(), body: body.into(), properties, headers: FieldTable::default() }
    }

    /// A step event, its routing key the campaign's id.
    pub(crate) fn event(event: &Value) -> Self {
        Self::raw(event.to_string()).key(event["campaignId"].as_str().unwrap_or_default())
    }

    /// With a routing key.
    pub(crate) fn key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    /// With a `message_id`.
    pub(crate) fn id(mut self, id: &str) -> Self {
        self.properties = self.properties.with_message_id(id.into());
        self
    }

    /// With an `expiration`, in milliseconds.
    pub(crate) fn expiration(mut self, milliseconds: u32) -> Self {
        self.properties = self.properties.with_expiration(milliseconds.to_string().into());
        self
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.into(), AMQPValue::LongString(value.into()));
        self
    }
}

/// A record read from a stream.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Record {
    /// Its body as JSON; panics where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// A header of text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }
}

/// For a node to start, or to go on after a partition.
const NODE_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection of the test's own. Everything panics where the broker refuses.
pub(crate) struct Amqp {
    connection: Connection,
}

impl Amqp {
    /// Connects to a broker.
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default().with_connection_name("test".into()));
        Self { connection: connection.await.expect("a connection to the broker") }
    }

    /// Connects to a node that may still be starting, or may have paused itself.
    pub(crate) async fn connect_with_retry(url: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name("test".into());
        let connect = async || Connection::connect(url, properties.clone()).await.ok();
        Self { connection: wait_until("a connection to the broker", NODE_TIMEOUT, connect).await }
    }

    /// A new channel, for what is not here.
    pub(crate) async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Publishes a step event to the exchange of `prefix`; the broker has confirmed it.
    pub(crate) async fn publish_event(&self, prefix: &str, event: &Value) {
        self.publish(&format!("{prefix}.events"), [Message::event(event)]).await;
    }

    /// Publishes step events to the exchange of `prefix`; the broker has confirmed them all.
    pub(crate) async fn publish_events<'a>(&self, prefix: &str, events: impl IntoIterator<Item = &'a Value>) {
        self.publish(&format!("{prefix}.events"), events.into_iter().map(Message::event)).await;
    }

    /// Publishes messages to an exchange, many at a time; the broker has routed and confirmed them all.
    pub(crate) async fn publish(&self, exchange: &str, messages: impl IntoIterator<Item = Message>) {
        // A channel of its own: whoever else published on it would take some of these confirms.
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

    /// How many messages wait in a queue, without those in a consumer's hands; `None` where there is no such queue.
    pub(crate) async fn depth(&self, queue: &str) -> Option<u32> {
        // A queue that is not there costs the channel.
        let channel = self.connection.create_channel().await.ok()?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        channel.close(200, "done".into()).await.ok()?;
        Some(queue.message_count())
    }

    /// Waits until so many messages wait in a queue; panics with the last number seen otherwise.
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

    /// Reads a stream from its first record until what has been read is `enough`; panics with it otherwise.
    #[track_caller]
    pub(crate) fn read_stream(
        &self,
        stream: &str,
        enough: impl Fn(&[Record]) -> bool,
    ) -> impl Future<Output = Vec<Record>> {
        self.read_stream_within(DEFAULT_TIMEOUT, stream, enough)
    }

    /// As [`read_stream`](Self::read_stream), with a deadline of its own.
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
                    panic!("waited {deadline:?} in vain ({caller}) for records of {stream}; there are {seen}");
                };
                let delivery = delivery.expect("the stream goes on").expect("a record");
                if (records.len() + 1) % usize::from(STREAM_PREFETCH / 2) == 0 {
                    delivery.acker.ack(BasicAckOptions { multiple: true }).await.expect("an acknowledgement");
                }
                records.push(to_record(delivery));
            }
            channel.close(200, "done".into()).await.expect("the channel closes");
            records
        }
    }

    /// Reads a stream from its first record until none has come for this long. Fails where this node has no copy of it.
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

    /// Takes each message of a queue and rejects it, so that the delivery limit counts, until `enough` has come about.
    pub(crate) async fn requeue_until<T>(&self, queue: &str, enough: impl Future<Output = T>) -> T {
        let channel = self.channel().await;
        channel.basic_qos(1, BasicQosOptions::default()).await.expect("a window");
        let consumer =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = consumer.await.expect("a consumer");
        let give_back = async {
            while let Some(delivery) = consumer.next().await {
                let delivery = delivery.expect("a delivery");
                // RabbitMQ 4.3 does not count `basic.nack` towards the delivery limit.
                delivery.acker.reject(BasicRejectOptions { requeue: true }).await.expect("given back");
            }
        };
        let enough = tokio::select! {
            () = give_back => panic!("the consumer of {queue} ended"),
            enough = enough => enough,
        };
        channel.close(200, "done".into()).await.expect("the channel closes");
        enough
    }

    /// Takes all messages that a queue has now, and answers their bodies.
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

    /// Rejects this many messages of a queue, as the management page does: the broker does not requeue them. Answers their
    /// bodies.
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

    /// Deletes a queue or a stream with all it holds, as an operator may.
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

/// A consumer of a stream, from its first record on.
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
        other => panic!("a message to {exchange} was refused or not routed: {other:?}"),
    }
}

fn describe_record(record: &Record) -> String {
    let body: String = String::from_utf8_lossy(&record.body).chars().take(300).collect();
    format!("{}: {body}", record.offset)
}
