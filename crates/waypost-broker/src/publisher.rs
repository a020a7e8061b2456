//! Publishes messages. A message counts as sent only when the broker has confirmed it.
//!
//! One task owns the connection and its confirm channels: two tasks that publish on one channel would get each other's
//! confirms. The task keeps unconfirmed messages and publishes them again on the next connection, so callers only wait.
//! Messages of callers that stopped waiting are dropped.

mod channels;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use waypost_core::TraceContext;
use waypost_core::ids::ReplayRef;

use super::BrokerError;
use super::connection::{self, ConnectionConfig};
use super::reconnect::{ReconnectDelays, Session, SessionEnd, run_sessions};
use super::topology::Topology;
use super::topology_status::{BrokerObject, ObjectKind};
use super::{REPLAY_ID, REPLAY_OF};
use channels::Channels;

/// Throughput is 32,000 messages per second with this limit, and 1,400 with a limit of 1.
const MAX_UNCONFIRMED: usize = 1024;

/// If a confirm takes longer, the connection is replaced, unless the broker has blocked it. A message that was only
/// slow is then published twice.
///
/// The heartbeat detects a dead peer earlier, and the loss of a leader takes only seconds. But RabbitMQ 4.3.6 can stop
/// confirming the messages that a channel publishes to a stream, while it confirms those of other channels at once.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue or a stream, through the default exchange.
    Queue(String),
    Exchange {
        name: String,
        routing_key: String,
    },
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Exchange { name, routing_key } => write!(f, "exchange {name} with routing key `{routing_key}`"),
        }
    }
}

/// A message to publish. It is persistent, and publishing fails if no queue receives it.
#[derive(Debug, Clone)]
pub struct OutboundMessage {
    pub to: Destination,
    /// Unique among the messages in flight.
    pub message_id: String,
    /// JSON.
    pub body: Vec<u8>,
    /// Sent as the headers `traceparent` and `tracestate`.
    pub trace: Option<TraceContext>,
    /// For a replayed dead letter. Sent as headers of Waypost.
    pub replay: Option<ReplayRef>,
}

impl OutboundMessage {
    /// A message without a trace context that is not a replay.
    pub fn new(to: Destination, message_id: String, body: Vec<u8>) -> Self {
        Self { to, message_id, body, trace: None, replay: None }
    }
}

/// Why a message was not published. A lost connection is never the reason: the publisher reconnects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A queue or a binding was deleted. The publisher declares it again before it publishes the next message.
    #[error("no queue receives messages for {0}: a queue or binding is missing")]
    Unroutable(Destination),
    #[error("the broker refused a message for {0}: a queue is full or has no leader")]
    Refused(Destination),
    #[error(
        "a message of {bytes} bytes exceeds RabbitMQ's max_message_size of {limit} bytes. Raise the limit on all nodes"
    )]
    TooLarge {
        /// The size of the body.
        bytes: usize,
        /// The setting of the node that refused the message.
        limit: usize,
    },
    #[error("Waypost is stopping")]
    Stopping,
}

/// The state of the publishing connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublisherStatus {
    /// The broker confirms messages.
    Up,
    /// The broker accepts no messages because it is short of memory or disk.
    Blocked,
    /// There is no connection. Holds the reason.
    Down(String),
}

/// Cheap to clone. The connection closes when the last clone is dropped.
#[derive(Clone)]
pub struct Publisher {
    requests: mpsc::Sender<PublishRequest>,
    status: Arc<RwLock<PublisherStatus>>,
    /// A connection that was opened before this time must be replaced.
    replace_before: Arc<watch::Sender<Option<Instant>>>,
}

struct PublishRequest {
    message: Arc<OutboundMessage>,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

impl Publisher {
    /// Starts the task. It ends when all clones are dropped and no message is unconfirmed.
    pub fn start(connection: ConnectionConfig, topology: Topology) -> (Self, JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(MAX_UNCONFIRMED);
        let status = Arc::new(RwLock::new(PublisherStatus::Down("not connected yet".to_owned())));
        let replace_before = Arc::new(watch::Sender::new(None));
        let mut task = PublisherTask {
            connection,
            topology,
            requests: receiver,
            unconfirmed: HashMap::new(),
            next_id: 0,
            status: status.clone(),
            replace_before: replace_before.clone(),
            unbound_exchanges: BTreeSet::new(),
        };
        let run = async move {
            // The task ends with its callers, without a token.
            let Ok(()) = run_sessions(&mut task, &CancellationToken::new()).await;
        };
        (Self { requests, status, replace_before }, tokio::spawn(run))
    }

    /// Publishes a message and waits until the broker has confirmed it. Reconnects as often as necessary.
    ///
    /// # Errors
    /// [`PublishError`]: the broker does not have the message.
    pub async fn publish(&self, message: impl Into<Arc<OutboundMessage>>) -> Result<(), PublishError> {
        let (reply, confirmed) = oneshot::channel();
        let message = message.into();
        self.requests.send(PublishRequest { message, reply }).await.map_err(|_| PublishError::Stopping)?;
        confirmed.await.unwrap_or(Err(PublishError::Stopping))
    }

    /// Publishes a message again until the broker has confirmed it, if the broker refuses it or no queue receives it.
    ///
    /// # Errors
    /// [`PublishError::Stopping`] and [`PublishError::TooLarge`].
    pub async fn publish_with_retry(&self, message: OutboundMessage) -> Result<(), PublishError> {
        let message = Arc::new(message);
        let mut delays = ReconnectDelays::default();
        loop {
            match self.publish(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ (PublishError::Stopping | PublishError::TooLarge { .. })) => return Err(error),
                Err(error) => {
                    let delay = delays.next_delay();
                    tracing::warn!(%error, ?delay, "publish failed, retrying");
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Replaces the connection if it was opened before this time.
    pub fn replace_connection(&self, opened_before: Instant) {
        self.replace_before.send_replace(Some(opened_before));
    }

    pub fn is_up(&self) -> bool {
        *self.status.read().unwrap_or_else(std::sync::PoisonError::into_inner) == PublisherStatus::Up
    }

    pub fn status(&self) -> PublisherStatus {
        self.status.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

struct PendingConfirm {
    request: PublishRequest,
    published_at: Instant,
}

struct PublisherTask {
    connection: ConnectionConfig,
    topology: Topology,
    requests: mpsc::Receiver<PublishRequest>,
    /// By id. Ids count up in the order of arrival.
    unconfirmed: HashMap<u64, PendingConfirm>,
    next_id: u64,
    status: Arc<RwLock<PublisherStatus>>,
    replace_before: Arc<watch::Sender<Option<Instant>>>,
    /// Exchanges whose binding was missing, until the binding is declared again.
    unbound_exchanges: BTreeSet<String>,
}

/// The id of a message, and the broker's response.
type Confirm = BoxFuture<'static, (u64, lapin::Result<Confirmation>)>;
type Confirms = FuturesUnordered<Confirm>;

impl Session for PublisherTask {
    type Error = BrokerError;
    type Fatal = Infallible;

    async fn run(&mut self, delays: &mut ReconnectDelays) -> Result<SessionEnd, BrokerError> {
        // The callers may have gone while there was no connection.
        if self.requests.is_closed() && self.requests.is_empty() && self.prune_cancelled() {
            return Ok(SessionEnd::Stopped);
        }
        self.session(delays).await
    }

    fn failed(&mut self, error: BrokerError, delay: Duration) -> Result<(), Infallible> {
        let unconfirmed = self.unconfirmed.len();
        tracing::warn!(%error, unconfirmed, ?delay, "publisher disconnected, reconnecting");
        self.set_status(PublisherStatus::Down(error.to_string()));
        Ok(())
    }
}

impl PublisherTask {
    /// Removes messages whose callers stopped waiting. Returns whether none is left.
    fn prune_cancelled(&mut self) -> bool {
        self.unconfirmed.retain(|_, pending| !pending.request.reply.is_closed());
        self.unconfirmed.is_empty()
    }

    /// Publishes over one connection until it is lost, or until all callers are gone and all messages confirmed.
    async fn session(&mut self, delays: &mut ReconnectDelays) -> Result<SessionEnd, BrokerError> {
        let connection = self.connection.connect("waypost publisher").await?;
        self.topology.declare(&connection).await?;
        for exchange in std::mem::take(&mut self.unbound_exchanges) {
            self.topology.status.record_repair(BrokerObject::new(ObjectKind::Binding, exchange));
        }
        let channels = Channels::open(&connection, &self.topology.names).await?;
        if self.set_status(PublisherStatus::Up) != PublisherStatus::Up {
            tracing::info!("publisher connected");
        }

        let opened = Instant::now();
        let mut replace_before = self.replace_before.subscribe();
        let mut confirms = Confirms::new();
        self.republish_unconfirmed(&channels, &confirms);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut closed = false;
        loop {
            if closed && self.unconfirmed.is_empty() {
                connection::close(&connection).await;
                return Ok(SessionEnd::Stopped);
            }
            let free_slots = MAX_UNCONFIRMED.saturating_sub(self.unconfirmed.len());
            tokio::select! {
                Some(first) = confirms.next() => {
                    self.settle(first, &mut confirms)?;
                    // Not before the first confirm: a user that may connect but not publish must not reconnect without
                    // delays.
                    delays.reset();
                }
                received = self.requests.recv_many(&mut batch, free_slots), if free_slots > 0 && !closed => {
                    closed = received == 0;
                    // Refresh at once, so that others see a blocked connection before they wait for the broker.
                    self.refresh_status(&connection);
                    for request in batch.drain(..).filter(|request| !request.reply.is_closed()) {
                        confirms.push(publish(&channels, self.next_id, request.message.clone()));
                        self.track(request);
                    }
                }
                _ = ticks.tick() => self.check_connection(&connection)?,
                _ = replace_before.wait_for(|limit| limit.is_some_and(|limit| opened < limit)) => {
                    let error = "a confirmed record is missing from its stream".to_owned();
                    return Err(BrokerError::ChannelFailed { operation: "publishing", error });
                }
            }
        }
    }

    fn track(&mut self, request: PublishRequest) {
        self.unconfirmed.insert(self.next_id, PendingConfirm { request, published_at: Instant::now() });
        self.next_id += 1;
    }

    /// Publishes the messages that the last connection did not confirm, in their order.
    fn republish_unconfirmed(&mut self, channels: &Channels, confirms: &Confirms) {
        self.prune_cancelled();
        let mut unconfirmed: Vec<(u64, &mut PendingConfirm)> =
            self.unconfirmed.iter_mut().map(|(id, pending)| (*id, pending)).collect();
        unconfirmed.sort_unstable_by_key(|(id, _)| *id);
        for (id, pending) in unconfirmed {
            pending.published_at = Instant::now();
            confirms.push(publish(channels, id, pending.request.message.clone()));
        }
    }

    /// Answers the callers whose messages are confirmed.
    ///
    /// lapin passes a returned message on with the next confirm that it resolves, which may belong to another message.
    /// So this takes all resolved confirms and trusts them only if none carries a returned message.
    fn settle(
        &mut self,
        first: (u64, lapin::Result<Confirmation>),
        confirms: &mut Confirms,
    ) -> Result<(), BrokerError> {
        let mut resolved = vec![first];
        while let Some(Some(next)) = confirms.next().now_or_never() {
            resolved.push(next);
        }
        let mut returned = HashSet::new();
        let mut results = Vec::with_capacity(resolved.len());
        let mut failed = None;
        for (id, result) in resolved {
            let confirmation = match result {
                Ok(confirmation) => confirmation,
                Err(error) => {
                    if let Some(limit) = parse_size_limit(&error.to_string()) {
                        self.fail_too_large(limit);
                    }
                    failed = Some(error);
                    continue;
                }
            };
            let acknowledged = confirmation.is_ack();
            if let Some(message) = confirmation.take_message()
                && let Some(message_id) = message.delivery.properties.message_id()
            {
                returned.insert(message_id.to_string());
            }
            results.push((id, acknowledged));
        }
        if let Some(error) = failed {
            // Trust none of the confirms: the failed one may have carried a returned message.
            return Err(BrokerError::channel_failed("waiting for a confirm")(error));
        }
        if !returned.is_empty() {
            self.fail_unroutable(&returned);
            let error =
                "the broker returned a message: a queue or binding is missing. Declaring all of them".to_owned();
            return Err(BrokerError::ChannelFailed { operation: "publishing", error });
        }
        for (id, acknowledged) in results {
            if let Some(PendingConfirm { request: PublishRequest { message, reply }, .. }) =
                self.unconfirmed.remove(&id)
            {
                let result = if acknowledged { Ok(()) } else { Err(PublishError::Refused(message.to.clone())) };
                // Sending fails if the caller stopped waiting.
                let _ = reply.send(result);
            }
        }
        Ok(())
    }

    /// The broker closed the channel because of one of these messages and would do so again.
    fn fail_too_large(&mut self, limit: usize) {
        let too_large = self.unconfirmed.extract_if(|_, pending| pending.request.message.body.len() > limit);
        for (_, PendingConfirm { request: PublishRequest { message, reply }, .. }) in too_large {
            let _ = reply.send(Err(PublishError::TooLarge { bytes: message.body.len(), limit }));
        }
    }

    /// Only returned messages are certain. The others are published again on the next connection.
    fn fail_unroutable(&mut self, message_ids: &HashSet<String>) {
        let returned =
            self.unconfirmed.extract_if(|_, pending| message_ids.contains(&pending.request.message.message_id));
        for (_, PendingConfirm { request: PublishRequest { message, reply }, .. }) in returned {
            if let Destination::Exchange { name, .. } = &message.to {
                self.unbound_exchanges.insert(name.clone());
            }
            let _ = reply.send(Err(PublishError::Unroutable(message.to.clone())));
        }
    }

    fn check_connection(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        if !connection.status().connected() {
            return Err(BrokerError::ChannelFailed {
                operation: "publishing",
                error: "the connection is closed".to_owned(),
            });
        }
        if self.refresh_status(connection) == PublisherStatus::Blocked {
            // While the broker is blocked it does not read, so the time does not count against the connection.
            self.unconfirmed.values_mut().for_each(|pending| pending.published_at = Instant::now());
            return Ok(());
        }
        if self.unconfirmed.values().any(|pending| pending.published_at.elapsed() > CONFIRM_TIMEOUT) {
            let error = format!("no confirm within {} s", CONFIRM_TIMEOUT.as_secs());
            return Err(BrokerError::ChannelFailed { operation: "publishing", error });
        }
        Ok(())
    }

    fn refresh_status(&self, connection: &Connection) -> PublisherStatus {
        let status = if connection.status().blocked() { PublisherStatus::Blocked } else { PublisherStatus::Up };
        match (self.set_status(status.clone()), &status) {
            (PublisherStatus::Up | PublisherStatus::Down(_), PublisherStatus::Blocked) => {
                tracing::warn!("publisher blocked: the broker is short of memory or disk");
            }
            (PublisherStatus::Blocked, PublisherStatus::Up) => tracing::info!("publisher unblocked"),
            _ => {}
        }
        status
    }

    /// Returns the previous status.
    fn set_status(&self, status: PublisherStatus) -> PublisherStatus {
        let mut current = self.status.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *current, status)
    }
}

/// Parses RabbitMQ's `max_message_size` from the error that a message exceeds it.
fn parse_size_limit(error: &str) -> Option<usize> {
    let (_, rest) = error.split_once("larger than configured max size ")?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Publishes a message and waits for its confirm. The caller must not await this inline: lapin returns only after it
/// has written the message, and writes nothing while the broker blocks the connection.
fn publish(channels: &Channels, id: u64, message: Arc<OutboundMessage>) -> Confirm {
    let channel = channels.channel_for(&message.to);
    async move {
        let (exchange, routing_key) = match &message.to {
            Destination::Queue(name) => ("", name.as_str()),
            Destination::Exchange { name, routing_key } => (name.as_str(), routing_key.as_str()),
        };
        // Without `mandatory` the broker confirms and drops a message that no queue receives.
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = properties(&message);
        let published =
            channel.basic_publish(exchange.into(), routing_key.into(), options, &message.body, properties).await;
        match published {
            Ok(confirm) => (id, confirm.await),
            Err(error) => (id, Err(error)),
        }
    }
    .boxed()
}

fn properties(message: &OutboundMessage) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(message.message_id.as_str().into());
    let mut headers = FieldTable::default();
    let mut insert = |name: &str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    };
    if let Some(trace) = &message.trace {
        insert("traceparent", &trace.traceparent);
        if let Some(tracestate) = &trace.tracestate {
            insert("tracestate", tracestate);
        }
    }
    if let Some(replay) = &message.replay {
        insert(REPLAY_OF, replay.dead_letter.as_str());
        insert(REPLAY_ID, replay.replay.as_str());
    }
    if headers.inner().is_empty() { properties } else { properties.with_headers(headers) }
}
