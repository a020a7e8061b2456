//! The broker's objects, declared at every connect: declaring what exists with the same arguments changes nothing.

use std::time::Duration;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::BrokerError;
use super::ladder::Rung;
use super::names::Names;
use super::restore;
use super::topology_status::TopologyStatus;

/// How often the broker gives a message out again before it takes it for poison. A lost connection counts against
/// every message in hand, so it is far above what a few restarts use up.
pub(super) const DELIVERY_LIMIT: u32 = 100;

/// A worker dead-letters a message after this many returns. Below `DELIVERY_LIMIT`, so that RabbitMQ seldom has to: it does not
/// keep its reason in streams before 3.13, and 4.3.6 fails at properties that are not UTF-8.
pub const MAX_RETURNS: u64 = 90;

const _: () = assert!(MAX_RETURNS < DELIVERY_LIMIT as u64);

/// A broker that leaves a declaration unanswered for this long gets a new connection.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(60);

/// Retention works on whole segments: with the default of 500 MB a quiet stream would keep dead letters for years.
const DEAD_LETTER_SEGMENT_BYTES: u32 = 50_000_000;

/// The most queues step events can be spread over.
pub const MAX_SHARDS: u32 = 64;

/// Every routing key.
const ALL: &str = "#";

/// The kind of exchange that spreads messages over queues, of a plugin.
const SPREADING: &str = "x-consistent-hash";

/// How much of all a queue gets of a consistent hash: as much as each other.
const WEIGHT: &str = "1";

/// An object exists with other arguments, which the broker can't change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object} exists with another `{argument}`{}: the broker has {found}, Waypost wants {wanted}. The broker can't change \
     it: put the setting back where it is one, use another broker.prefix, or delete the object and with it its messages",
    setting_behind(argument)
)]
pub struct Mismatch {
    /// Kind and name: `queue waypost.events`.
    pub object: String,
    /// The argument that differs.
    pub argument: String,
    /// Its value at the broker.
    pub found: String,
    /// The value we want.
    pub wanted: String,
}

/// The setting an argument comes from.
fn setting_behind(argument: &str) -> &'static str {
    match argument {
        "x-max-age" => " (the setting deadLetters.retention)",
        _ => "",
    }
}

/// What is declared.
#[derive(Debug, Clone)]
pub struct Topology {
    /// The objects' names.
    pub names: Names,
    /// Queues the step events are spread over.
    pub shards: u32,
    /// How long dead letters are kept.
    pub dead_letter_retention: Duration,
    /// What is missing, and what was restored.
    pub status: TopologyStatus,
}

/// A binding to declare. No binding has arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) destination_kind: BoundKind,
    pub(super) routing_key: &'static str,
}

/// What an exchange can be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BoundKind {
    Queue,
    Exchange,
}

/// What came of removing surplus bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbinding {
    Done,
    /// Another worker is removing its own surplus bindings.
    Busy,
}

impl Binding {
    fn to_queue(source: &str, queue: &str, routing_key: &'static str) -> Self {
        let destination_kind = BoundKind::Queue;
        Self { source: source.to_owned(), destination: queue.to_owned(), destination_kind, routing_key }
    }

    fn to_exchange(source: &str, exchange: &str, routing_key: &'static str) -> Self {
        let destination_kind = BoundKind::Exchange;
        Self { source: source.to_owned(), destination: exchange.to_owned(), destination_kind, routing_key }
    }
}

impl Topology {
    /// Declares everything. Once this process has done so, what is missing is reported as restored.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] where an object exists with other arguments, [`BrokerError::NoPlugin`].
    pub async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let declared = tokio::time::timeout(DECLARE_TIMEOUT, self.declare_all(connection)).await;
        declared.unwrap_or_else(|_| {
            let error = format!("no answer within {} s", DECLARE_TIMEOUT.as_secs());
            Err(BrokerError::Lost { doing: "declaring queues and exchanges", error })
        })
    }

    async fn declare_all(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        if self.status.is_declared() {
            restore::all(self, connection).await?;
        } else {
            for (name, kind, arguments) in self.exchanges() {
                exchange(&channel, &name, kind, arguments).await?;
            }
            for (name, arguments) in self.queues() {
                queue(&channel, &name, arguments).await?;
            }
        }
        self.bind(&channel).await?;
        self.status.declared();
        // The declarations are confirmed one by one; closing the channel tells us nothing more.
        let _ = channel.close(200, "declared".into()).await;
        Ok(())
    }

    /// Every exchange, with its arguments. Events are spread by the message and not by the campaign, which is the routing key: one
    /// large campaign would be one queue's.
    pub(super) fn exchanges(&self) -> Vec<(String, ExchangeKind, FieldTable)> {
        let names = &self.names;
        let mut exchanges = vec![
            (names.dead_letters(), ExchangeKind::Fanout, FieldTable::default()),
            (names.events(), ExchangeKind::Topic, FieldTable::default()),
        ];
        if self.shards > 1 {
            let by_message = arguments([("hash-property", text("message_id"))]);
            exchanges.push((names.event_shards(), ExchangeKind::Custom(SPREADING.to_owned()), by_message));
        }
        exchanges
    }

    /// Every queue and stream, with its arguments. What messages of one go to when they die comes before it.
    pub(super) fn queues(&self) -> Vec<(String, FieldTable)> {
        let names = &self.names;
        let mut queues = vec![(names.dead_letters(), self.dead_letter_stream())];
        queues.extend(names.event_queues(self.shards).into_iter().map(|name| (name, self.work_queue())));
        queues.push((names.retries(), self.work_queue()));
        queues.extend(Rung::all().map(|rung| (names.delay(rung), self.delay_queue(rung))));
        queues.push((names.replays(), self.replay_queue()));
        queues.push((names.campaigns(), arguments([("x-queue-type", text("stream"))])));
        queues
    }

    /// Every binding.
    pub(super) fn bindings(&self) -> Vec<Binding> {
        let (events, dead_letters) = (self.names.events(), self.names.dead_letters());
        let mut bindings = vec![Binding::to_queue(&dead_letters, &dead_letters, "")];
        if self.shards == 1 {
            bindings.push(Binding::to_queue(&events, &events, ALL));
            return bindings;
        }
        let shards = self.names.event_shards();
        for queue in self.names.event_queues(self.shards) {
            bindings.push(Binding::to_queue(&shards, &queue, WEIGHT));
        }
        bindings.push(Binding::to_exchange(&events, &shards, ALL));
        bindings
    }

    /// The bindings of other numbers of shards. With them an event reaches two queues, or a queue that is too many.
    fn surplus_bindings(&self) -> Vec<Binding> {
        let (events, shards) = (self.names.events(), self.names.event_shards());
        if self.shards == 1 {
            return vec![Binding::to_exchange(&events, &shards, ALL)];
        }
        let mut surplus = vec![Binding::to_queue(&events, &events, ALL)];
        let queues = (self.shards..MAX_SHARDS).map(|shard| self.names.event_queue(shard));
        surplus.extend(queues.map(|queue| Binding::to_queue(&shards, &queue, WEIGHT)));
        surplus
    }

    /// Declares every binding, and removes none.
    pub(super) async fn bind(&self, channel: &Channel) -> Result<(), BrokerError> {
        for binding in self.bindings() {
            bind(channel, &binding).await?;
        }
        Ok(())
    }

    /// Removes the surplus bindings.
    ///
    /// Workers with different numbers of shards may run at the same time, and each removes what the other needs. So one of them at
    /// a time declares its own bindings and then removes the surplus ones: those of the last one are always there.
    pub(super) async fn unbind_surplus(&self, connection: &Connection) -> Result<Unbinding, BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        // The lock: an exclusive queue is one connection's, and goes with it.
        let lock = format!("{}.unbinding", self.names.events());
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        if let Err(error) = channel.queue_declare(lock.as_str().into(), options, of_type("classic")).await {
            if error.to_string().contains("RESOURCE_LOCKED") {
                return Ok(Unbinding::Busy);
            }
            return Err(BrokerError::lost("locking the bindings")(error));
        }
        let unbound = self.bind_and_unbind(&channel).await;
        // The broker closes a channel on which it refuses something.
        let unlocking = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let unlocked = unlocking.queue_delete(lock.as_str().into(), QueueDeleteOptions::default()).await;
        let unlocked = unlocked.map_err(BrokerError::lost("unlocking the bindings"));
        for channel in [channel, unlocking] {
            // If this fails the channel is gone already.
            let _ = channel.close(200, "unbound".into()).await;
        }
        unbound?;
        unlocked?;
        tracing::debug!(shards = self.shards, "surplus bindings removed");
        Ok(Unbinding::Done)
    }

    async fn bind_and_unbind(&self, channel: &Channel) -> Result<(), BrokerError> {
        self.bind(channel).await?;
        for binding in self.surplus_bindings() {
            unbind(channel, &binding).await?;
        }
        Ok(())
    }

    /// The queues of step events to consume: those that there are to be, and those that are left of a time when there were
    /// more. The latter are given no more events, once no worker declares their bindings.
    ///
    /// # Errors
    /// [`BrokerError::Lost`].
    pub async fn event_queues(&self, connection: &Connection) -> Result<Vec<String>, BrokerError> {
        let mut queues = self.names.event_queues(self.shards);
        // The broker closes a channel on which a queue is asked for that is not there.
        let probe = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let mut surplus = Vec::new();
        for shard in self.shards..MAX_SHARDS {
            let name = self.names.event_queue(shard);
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            if probe.queue_declare(name.as_str().into(), passive, FieldTable::default()).await.is_err() {
                break;
            }
            surplus.push(name);
        }
        match self.unbind_surplus(connection).await {
            Ok(Unbinding::Done) => {}
            // The keeper of this worker repeats it.
            Ok(Unbinding::Busy) => tracing::debug!("another worker removes surplus bindings"),
            Err(error) => tracing::warn!(%error, "surplus bindings not removed"),
        }
        if !surplus.is_empty() {
            tracing::info!(queues = ?surplus, "there were more shards: what is left in their queues is consumed as well");
            queues.extend(surplus);
        }
        Ok(queues)
    }

    /// Deletes everything, with all messages.
    ///
    /// # Errors
    /// [`BrokerError::Lost`].
    pub async fn delete(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        let names = &self.names;
        let mut queues = vec![names.retries(), names.dead_letters(), names.campaigns(), names.replays()];
        queues.extend(names.event_queues(self.shards));
        queues.extend(Rung::all().map(|rung| names.delay(rung)));
        for queue in queues {
            let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
            deleted.map_err(BrokerError::lost("deleting a queue"))?;
        }
        for exchange in [names.events(), names.event_shards(), names.dead_letters()] {
            let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
            deleted.map_err(BrokerError::lost("deleting an exchange"))?;
        }
        Ok(())
    }

    /// Events and retries: what is given out too often goes to the dead letters, as it is.
    fn work_queue(&self) -> FieldTable {
        arguments([
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", number(DELIVERY_LIMIT)),
            ("x-dead-letter-exchange", text(&self.names.dead_letters())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ])
    }

    /// Without `at-least-once` (which needs `reject-publish`) an expired message could be lost on its way to the
    /// retries. No `x-expires`: it would delete the messages with the queue.
    fn delay_queue(&self, rung: Rung) -> FieldTable {
        arguments([
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", number(rung.milliseconds())),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&self.names.retries())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ])
    }

    /// One consumer at a time has it, so no two workers run one replay. A message that is given out too often is
    /// dropped: it only says that there is something to do, and is written anew as long as there is.
    fn replay_queue(&self) -> FieldTable {
        arguments([
            ("x-queue-type", text("quorum")),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-delivery-limit", number(DELIVERY_LIMIT)),
        ])
    }

    fn dead_letter_stream(&self) -> FieldTable {
        arguments([
            ("x-queue-type", text("stream")),
            ("x-max-age", text(&format!("{}s", self.dead_letter_retention.as_secs()))),
            ("x-stream-max-segment-size-bytes", number(DEAD_LETTER_SEGMENT_BYTES)),
        ])
    }
}

/// The arguments of a queue of this type, and no others.
pub(super) fn of_type(queue_type: &str) -> FieldTable {
    arguments([("x-queue-type", text(queue_type))])
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn number(value: u32) -> AMQPValue {
    AMQPValue::LongLongInt(i64::from(value))
}

fn arguments<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

pub(super) async fn exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, arguments).await;
    declared.map_err(|error| refused("declaring an exchange", &error))
}

/// An exchange that spreads messages over queues, and is gone with the broker's next start.
pub(super) async fn transient_spreading(channel: &Channel, name: &str) -> Result<(), BrokerError> {
    let (kind, options) = (ExchangeKind::Custom(SPREADING.to_owned()), ExchangeDeclareOptions::default());
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await;
    declared.map_err(|error| refused("declaring an exchange", &error))
}

pub(super) async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await;
    declared.map(|_| ()).map_err(|error| refused("declaring a queue", &error))
}

async fn bind(channel: &Channel, binding: &Binding) -> Result<(), BrokerError> {
    let (to, from) = (binding.destination.as_str().into(), binding.source.as_str().into());
    let (key, arguments) = (binding.routing_key.into(), FieldTable::default());
    match binding.destination_kind {
        BoundKind::Queue => {
            let bound = channel.queue_bind(to, from, key, QueueBindOptions::default(), arguments).await;
            bound.map_err(BrokerError::lost("binding a queue"))
        }
        BoundKind::Exchange => {
            let bound = channel.exchange_bind(to, from, key, ExchangeBindOptions::default(), arguments).await;
            bound.map_err(BrokerError::lost("binding an exchange"))
        }
    }
}

/// What does not exist, or is not bound, stays as it is.
async fn unbind(channel: &Channel, binding: &Binding) -> Result<(), BrokerError> {
    let (to, from) = (binding.destination.as_str().into(), binding.source.as_str().into());
    let (key, arguments) = (binding.routing_key.into(), FieldTable::default());
    match binding.destination_kind {
        BoundKind::Queue => {
            let unbound = channel.queue_unbind(to, from, key, arguments).await;
            unbound.map_err(BrokerError::lost("unbinding a queue"))
        }
        BoundKind::Exchange => {
            let unbound = channel.exchange_unbind(to, from, key, ExchangeUnbindOptions::default(), arguments).await;
            unbound.map_err(BrokerError::lost("unbinding an exchange"))
        }
    }
}

fn refused(doing: &'static str, error: &lapin::Error) -> BrokerError {
    let sentence = match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => String::new(),
    };
    // RabbitMQ says `unknown exchange type 'x-consistent-hash'`.
    if sentence.contains("exchange type 'x-consistent-hash'") {
        return BrokerError::NoPlugin { setting: "broker.shards over 1", plugin: "rabbitmq_consistent_hash_exchange" };
    }
    match mismatch(&sentence) {
        Some(mismatch) => BrokerError::Mismatch(mismatch),
        None => BrokerError::Lost { doing, error: error.to_string() },
    }
}

/// Reads RabbitMQ's sentence: `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'waypost.delay.1' in
/// vhost '/': received the value '1000' of type 'signedint' but current is the value '7' of type 'signedint'`.
fn mismatch(sentence: &str) -> Option<Mismatch> {
    let (_, rest) = sentence.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once("' for ")?;
    let (object, rest) = rest.split_once(" in vhost ")?;
    let (_, rest) = rest.split_once(": received ")?;
    let (wanted, found) = rest.split_once(" but current is ")?;
    let value = |text: &str| match text.split_once("the value ") {
        Some((_, value)) => value.split(" of type ").next().unwrap_or(value).to_owned(),
        None => text.to_owned(),
    };
    Some(Mismatch {
        object: object.replace('\'', ""),
        argument: argument.to_owned(),
        found: value(found),
        wanted: value(wanted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_removes_its_own_bindings_and_all_leave_the_first_queue_to_the_exchange_of_shards() {
        let topology = |shards| Topology {
            names: Names::new("waypost"),
            shards,
            dead_letter_retention: Duration::from_secs(1),
            status: TopologyStatus::default(),
        };
        // An event that reaches the exchange of shards reaches a queue, whatever else was removed.
        let first = Binding::to_queue("waypost.events.shards", "waypost.events", WEIGHT);
        let numbers = [1, 2, 3, MAX_SHARDS];
        for shards in numbers {
            let (own, surplus) = (topology(shards).bindings(), topology(shards).surplus_bindings());
            assert!(!surplus.contains(&first) && surplus.iter().all(|binding| !own.contains(binding)), "{shards}");
            // Nothing that another number needs is left.
            for other in numbers {
                let mut left = topology(other).bindings();
                left.retain(|binding| !own.contains(binding) && !surplus.contains(binding));
                // Without shards nothing reaches their exchange.
                left.retain(|binding| shards > 1 || binding.source != "waypost.events.shards");
                assert!(left.is_empty(), "{other} to {shards}: {left:?}");
            }
        }
    }

    #[test]
    fn mismatches_name_object_argument_and_both_values() {
        for (sentence, object, argument, found, wanted) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'waypost.delay.1' in vhost '/': \
                 received the value '1000' of type 'signedint' but current is the value '7' of type 'signedint'",
                "queue waypost.delay.1",
                "x-message-ttl",
                "'7'",
                "'1000'",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'waypost.events' in vhost '/': \
                 received the value 'quorum' of type 'longstr' but current is none",
                "queue waypost.events",
                "x-queue-type",
                "none",
                "'quorum'",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'waypost.events' in vhost '/': \
                 received 'topic' but current is 'direct'",
                "exchange waypost.events",
                "type",
                "'direct'",
                "'topic'",
            ),
        ] {
            let expected = Mismatch {
                object: object.to_owned(),
                argument: argument.to_owned(),
                found: found.to_owned(),
                wanted: wanted.to_owned(),
            };
            assert_eq!(mismatch(sentence), Some(expected));
        }
        assert_eq!(mismatch("NOT_FOUND - no queue"), None);
    }
}
