//! Publishing: a message counts as sent when the broker has confirmed it, and not before.
//!
//! One task owns the connection and its confirm channels (two tasks publishing on one channel get each other's
//! confirms; `channels` says why there are several), keeps what is not confirmed yet, and publishes it again on the next
//! connection. So a caller simply waits; one that has stopped waiting is not published for again.

mod channels;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use backoff::backoff::Backoff as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::BrokerError;
use super::connection::{self, ConnectionConfig, reconnect_delays};
use super::topology::Topology;
use super::topology_status::{Object, ObjectKind};
use super::{REPLAY_ID, REPLAY_OF};
use crate::delivery::TraceContext;
use crate::delivery::ids::ReplayRef;
use channels::Channels;

/// Unconfirmed messages at once. One at a time would publish 1,400 a second, this many 32,000.
const MAX_UNCONFIRMED: usize = 1024;

/// A confirm that takes longer means a connection that is no good any more, unless the broker said it is blocked. What was slow but not lost
/// is then published twice. A dead peer is found by its heartbeat before, and the loss of a leader takes seconds. But RabbitMQ 4.3.6 can stop
/// confirming what a channel publishes to a stream, for ever, while other channels are confirmed at once.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Straight to a queue or stream.
    Queue(String),
    /// To an exchange.
    Exchange {
        /// Its name.
        name: String,
        /// The routing key.
        routing_key: String,
    },
}

/// A message to publish. It is persistent, and must be routed somewhere.
#[derive(Debug, Clone)]
pub struct OutboundMessage {
    /// Where to.
    pub to: Destination,
    /// Told apart by it from all others in flight.
    pub message_id: String,
    /// JSON.
    pub body: Vec<u8>,
    /// Sent as the headers `traceparent` and `tracestate`.
    pub trace: Option<TraceContext>,
    /// Which dead letter it is, sent again: headers of its own.
    pub replay: Option<ReplayRef>,
}

impl OutboundMessage {
    /// A message that comes from nowhere else.
    pub fn new(to: Destination, message_id: String, body: Vec<u8>) -> Self {
        Self { to, message_id, body, trace: None, replay: None }
    }
}

/// Why a message was not published. The broker was reached; its connection being lost is no reason, but waited out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No queue for it: somebody has deleted one. It is declared anew before the next message.
    #[error("the broker has no queue for {0:?}")]
    Unroutable(Destination),
    /// The broker refused it, as it does when a queue is full or has no leader.
    #[error("the broker refused a message for {0:?}")]
    Refused(Destination),
    /// RabbitMQ takes no message of this size.
    #[error("a message of {bytes} bytes is above RabbitMQ's max_message_size of {limit} bytes; raise it on all nodes")]
    TooLarge {
        /// Of the message's body.
        bytes: usize,
        /// The setting of the node that refused it.
        limit: usize,
    },
    /// Waypost is stopping.
    #[error("Waypost is stopping")]
    Stopping,
}

/// How the publishing connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublisherStatus {
    /// Messages are being confirmed.
    Up,
    /// The broker takes no messages for now: it is short of memory or disk.
    Blocked,
    /// There is no connection, for this reason.
    Down(String),
}

/// Publishes messages. Cheap to clone; the connection closes when the last clone is dropped.
#[derive(Clone)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
    link: Arc<RwLock<PublisherStatus>>,
    /// A connection that was opened before this time is to be replaced.
    replace: Arc<watch::Sender<Option<Instant>>>,
}

struct Request {
    outgoing: Arc<OutboundMessage>,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

impl Publisher {
    /// Starts the task. It ends when all clones are dropped and nothing is unconfirmed.
    pub fn start(address: ConnectionConfig, topology: Topology) -> (Self, JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(MAX_UNCONFIRMED);
        let link = Arc::new(RwLock::new(PublisherStatus::Down("not connected yet".to_owned())));
        let replace = Arc::new(watch::Sender::new(None));
        let task = PublisherTask {
            address,
            topology,
            requests: receiver,
            unconfirmed: HashMap::new(),
            next: 0,
            link: link.clone(),
            replace: replace.clone(),
            unbound: BTreeSet::new(),
        };
        (Self { requests, link, replace }, tokio::spawn(task.run()))
    }

    /// Publishes a message and waits until the broker has confirmed it, over as many connections as that takes.
    ///
    /// # Errors
    /// [`PublishError`]: the message is not at the broker.
    pub async fn publish(&self, outgoing: impl Into<Arc<OutboundMessage>>) -> Result<(), PublishError> {
        let (reply, confirmed) = oneshot::channel();
        let outgoing = outgoing.into();
        self.requests.send(Request { outgoing, reply }).await.map_err(|_| PublishError::Stopping)?;
        confirmed.await.unwrap_or(Err(PublishError::Stopping))
    }

    /// Publishes a message until the broker has taken it, however often it refuses it or has no queue for it.
    ///
    /// # Errors
    /// [`PublishError::Stopping`] and [`PublishError::TooLarge`].
    pub async fn publish_with_retry(&self, outgoing: OutboundMessage) -> Result<(), PublishError> {
        let outgoing = Arc::new(outgoing);
        let mut delays = reconnect_delays();
        loop {
            match self.publish(outgoing.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ (PublishError::Stopping | PublishError::TooLarge { .. })) => return Err(error),
                Err(error) => {
                    let delay = delays.next_backoff().unwrap_or(delays.max_interval);
                    tracing::warn!(%error, ?delay, "trying again");
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// Publishes over another connection from now on, unless this one was opened at `before` or later.
    pub fn replace_connection(&self, before: Instant) {
        self.replace.send_replace(Some(before));
    }

    /// Whether messages are being confirmed.
    pub fn is_up(&self) -> bool {
        *self.link.read().unwrap_or_else(std::sync::PoisonError::into_inner) == PublisherStatus::Up
    }

    /// How the connection is.
    pub fn link(&self) -> PublisherStatus {
        self.link.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// A message the broker has not confirmed.
struct PendingConfirm {
    request: Request,
    since: Instant,
}

struct PublisherTask {
    address: ConnectionConfig,
    topology: Topology,
    requests: mpsc::Receiver<Request>,
    /// By the order in which they came.
    unconfirmed: HashMap<u64, PendingConfirm>,
    next: u64,
    link: Arc<RwLock<PublisherStatus>>,
    replace: Arc<watch::Sender<Option<Instant>>>,
    /// Exchanges whose binding was missing, until it is declared again.
    unbound: BTreeSet<String>,
}

/// A message's number, and what the broker said of it.
type Confirm = BoxFuture<'static, (u64, lapin::Result<Confirmation>)>;
type Confirms = FuturesUnordered<Confirm>;

impl PublisherTask {
    async fn run(mut self) {
        let mut delays = reconnect_delays();
        loop {
            match self.session(&mut delays).await {
                Ok(()) => return,
                Err(error) => {
                    let delay = delays.next_backoff().unwrap_or(delays.max_interval);
                    tracing::warn!(%error, unconfirmed = self.unconfirmed.len(), ?delay, "not publishing; connecting again");
                    self.set_link(PublisherStatus::Down(error.to_string()));
                    tokio::time::sleep(delay).await;
                    if self.requests.is_closed() && self.requests.is_empty() && self.prune_cancelled() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether every caller has gone away.
    fn prune_cancelled(&mut self) -> bool {
        self.unconfirmed.retain(|_, waiting| !waiting.request.reply.is_closed());
        self.unconfirmed.is_empty()
    }

    /// One connection, until it is lost or there is nothing left to do.
    async fn session(&mut self, delays: &mut backoff::ExponentialBackoff) -> Result<(), BrokerError> {
        let connection = self.address.connect("waypost publisher").await?;
        self.topology.declare(&connection).await?;
        for exchange in std::mem::take(&mut self.unbound) {
            self.topology.status.restored(Object::new(ObjectKind::Binding, exchange));
        }
        let channels = Channels::open(&connection, &self.topology.names).await?;
        if self.set_link(PublisherStatus::Up) != PublisherStatus::Up {
            tracing::info!("connected for publishing");
        }

        let opened = Instant::now();
        let mut replace = self.replace.subscribe();
        let mut confirms = Confirms::new();
        self.publish_again(&channels, &confirms);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        let mut closed = false;
        loop {
            if closed && self.unconfirmed.is_empty() {
                connection::close(&connection).await;
                return Ok(());
            }
            let room = MAX_UNCONFIRMED.saturating_sub(self.unconfirmed.len());
            tokio::select! {
                Some(first) = confirms.next() => {
                    self.settle(first, &mut confirms)?;
                    // Not before: who may connect but not publish must not do so without a pause.
                    delays.reset();
                }
                received = self.requests.recv_many(&mut batch, room), if room > 0 && !closed => {
                    closed = received == 0;
                    // At once: who hears of it can do something else than wait for the broker.
                    self.refresh_status(&connection);
                    for request in batch.drain(..).filter(|request| !request.reply.is_closed()) {
                        confirms.push(publish(&channels, self.next, request.outgoing.clone()));
                        self.track(request);
                    }
                }
                _ = ticks.tick() => self.watch(&connection)?,
                _ = replace.wait_for(|before| before.is_some_and(|before| opened < before)) => {
                    let error = "a confirmed record is not in its stream".to_owned();
                    return Err(BrokerError::ChannelFailed { doing: "publishing", error });
                }
            }
        }
    }

    fn track(&mut self, request: Request) {
        self.unconfirmed.insert(self.next, PendingConfirm { request, since: Instant::now() });
        self.next += 1;
    }

    /// What the last connection did not confirm, in its order, unless its caller has gone away.
    fn publish_again(&mut self, channels: &Channels, confirms: &Confirms) {
        self.prune_cancelled();
        let mut again: Vec<(u64, &mut PendingConfirm)> =
            self.unconfirmed.iter_mut().map(|(tag, waiting)| (*tag, waiting)).collect();
        again.sort_unstable_by_key(|(tag, _)| *tag);
        for (tag, waiting) in again {
            waiting.since = Instant::now();
            confirms.push(publish(channels, tag, waiting.request.outgoing.clone()));
        }
    }

    /// Answers the callers whose messages are confirmed.
    ///
    /// lapin hands a returned message over with whichever confirm it resolves next, which need not be its own. So: take
    /// all that are resolved, and believe them only where none of them carries a returned message.
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
        let mut verdicts = Vec::with_capacity(resolved.len());
        let mut failed = None;
        for (tag, result) in resolved {
            let confirmation = match result {
                Ok(confirmation) => confirmation,
                Err(error) => {
                    if let Some(limit) = size_limit(&error.to_string()) {
                        self.answer_too_large(limit);
                    }
                    failed = Some(error);
                    continue;
                }
            };
            let acknowledged = confirmation.is_ack();
            if let Some(message) = confirmation.take_message()
                && let Some(id) = message.delivery.properties.message_id()
            {
                returned.insert(id.to_string());
            }
            verdicts.push((tag, acknowledged));
        }
        if let Some(error) = failed {
            // No confirm beside a failed one is believed: a returned message may have gone with the failed confirm.
            return Err(BrokerError::lost("waiting for a confirm")(error));
        }
        if !returned.is_empty() {
            self.answer_returned(&returned);
            let error = "a queue is missing; declaring all anew".to_owned();
            return Err(BrokerError::ChannelFailed { doing: "publishing", error });
        }
        for (tag, acknowledged) in verdicts {
            if let Some(PendingConfirm { request: Request { outgoing, reply }, .. }) = self.unconfirmed.remove(&tag) {
                let verdict = if acknowledged { Ok(()) } else { Err(PublishError::Refused(outgoing.to.clone())) };
                // A caller that has gone away does not want to know.
                let _ = reply.send(verdict);
            }
        }
        Ok(())
    }

    /// The broker closes the channel because of one of these, and would do so again.
    fn answer_too_large(&mut self, limit: usize) {
        let too_large = self.unconfirmed.extract_if(|_, waiting| waiting.request.outgoing.body.len() > limit);
        for (_, PendingConfirm { request: Request { outgoing, reply }, .. }) in too_large {
            let _ = reply.send(Err(PublishError::TooLarge { bytes: outgoing.body.len(), limit }));
        }
    }

    /// Only what was returned is certain: the rest of the batch is published again on the next connection.
    fn answer_returned(&mut self, message_ids: &HashSet<String>) {
        let returned =
            self.unconfirmed.extract_if(|_, waiting| message_ids.contains(&waiting.request.outgoing.message_id));
        for (_, PendingConfirm { request: Request { outgoing, reply }, .. }) in returned {
            if let Destination::Exchange { name, .. } = &outgoing.to {
                // The message is published again, so nothing is lost.
                self.unbound.insert(name.clone());
            }
            let _ = reply.send(Err(PublishError::Unroutable(outgoing.to.clone())));
        }
    }

    fn watch(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        if !connection.status().connected() {
            return Err(BrokerError::ChannelFailed {
                doing: "publishing",
                error: "the connection is closed".to_owned(),
            });
        }
        if self.refresh_status(connection) == PublisherStatus::Blocked {
            // Time during which the broker does not read is no fault of the connection.
            self.unconfirmed.values_mut().for_each(|waiting| waiting.since = Instant::now());
            return Ok(());
        }
        if self.unconfirmed.values().any(|waiting| waiting.since.elapsed() > CONFIRM_TIMEOUT) {
            let error = format!("no confirm within {} s", CONFIRM_TIMEOUT.as_secs());
            return Err(BrokerError::ChannelFailed { doing: "publishing", error });
        }
        Ok(())
    }

    /// Sees whether the broker takes messages.
    fn refresh_status(&self, connection: &Connection) -> PublisherStatus {
        let link = if connection.status().blocked() { PublisherStatus::Blocked } else { PublisherStatus::Up };
        match (self.set_link(link.clone()), &link) {
            (PublisherStatus::Up | PublisherStatus::Down(_), PublisherStatus::Blocked) => {
                tracing::warn!("the broker takes no messages for now: it is short of memory or disk");
            }
            (PublisherStatus::Blocked, PublisherStatus::Up) => tracing::info!("the broker takes messages again"),
            _ => {}
        }
        link
    }

    /// Sets the link and tells what it was.
    fn set_link(&self, link: PublisherStatus) -> PublisherStatus {
        let mut current = self.link.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *current, link)
    }
}

/// RabbitMQ's `max_message_size`, if the error is that a message exceeds it.
fn size_limit(error: &str) -> Option<usize> {
    let (_, rest) = error.split_once("larger than configured max size ")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Publishes a message and waits for its confirm. Not awaited where it is begun: lapin says that a message is written
/// only when it is, and writes nothing while the broker blocks the connection.
fn publish(channels: &Channels, tag: u64, outgoing: Arc<OutboundMessage>) -> Confirm {
    let channel = channels.channel_for(&outgoing.to);
    async move {
        let (exchange, routing_key) = match &outgoing.to {
            Destination::Queue(name) => ("", name.as_str()),
            Destination::Exchange { name, routing_key } => (name.as_str(), routing_key.as_str()),
        };
        // Without `mandatory` the broker confirms what it has no queue for, and forgets it.
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = properties(&outgoing);
        let published =
            channel.basic_publish(exchange.into(), routing_key.into(), options, &outgoing.body, properties).await;
        match published {
            Ok(confirm) => (tag, confirm.await),
            Err(error) => (tag, Err(error)),
        }
    }
    .boxed()
}

fn properties(outgoing: &OutboundMessage) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(outgoing.message_id.as_str().into());
    let mut headers = FieldTable::default();
    let mut insert = |name: &str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    };
    if let Some(trace) = &outgoing.trace {
        insert("traceparent", &trace.traceparent);
        if let Some(tracestate) = &trace.tracestate {
            insert("tracestate", tracestate);
        }
    }
    if let Some(replay) = &outgoing.replay {
        insert(REPLAY_OF, replay.dead_letter.as_str());
        insert(REPLAY_ID, replay.replay.as_str());
    }
    if headers.inner().is_empty() { properties } else { properties.with_headers(headers) }
}
