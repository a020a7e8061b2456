//! Which exchanges, queues, streams and bindings a worker needs at the broker, and with which arguments.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};

use super::delay_queues::DelayTier;
use super::names::Names;
use super::topology_status::TopologyStatus;

/// How often the broker gives a message out again before it takes it for poison. A lost connection counts against
/// every message in hand, so it is far above what a few restarts use up.
pub(super) const DELIVERY_LIMIT: u32 = 100;

/// A worker dead-letters a message after this many returns. Below `DELIVERY_LIMIT`, so that RabbitMQ seldom has to: it does not
/// keep its reason in streams before 3.13, and 4.3.6 fails at properties that are not UTF-8.
pub const MAX_RETURNS: u64 = 90;

const _: () = assert!(MAX_RETURNS < DELIVERY_LIMIT as u64);

/// Retention works on whole segments: with the default of 500 MB a quiet stream would keep dead letters for years.
const DEAD_LETTER_SEGMENT_BYTES: u32 = 50_000_000;

/// The most queues step events can be spread over.
pub const MAX_SHARDS: u32 = 64;

/// Every routing key.
const ALL: &str = "#";

/// The kind of exchange that spreads messages over queues, of a plugin.
pub(super) const SPREADING: &str = "x-consistent-hash";

/// How much of all a queue gets of a consistent hash: as much as each other.
const WEIGHT: &str = "1";

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
        queues.extend(DelayTier::all().map(|rung| (names.delay(rung), self.delay_queue(rung))));
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
    pub(super) fn surplus_bindings(&self) -> Vec<Binding> {
        let (events, shards) = (self.names.events(), self.names.event_shards());
        if self.shards == 1 {
            return vec![Binding::to_exchange(&events, &shards, ALL)];
        }
        let mut surplus = vec![Binding::to_queue(&events, &events, ALL)];
        let queues = (self.shards..MAX_SHARDS).map(|shard| self.names.event_queue(shard));
        surplus.extend(queues.map(|queue| Binding::to_queue(&shards, &queue, WEIGHT)));
        surplus
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
    fn delay_queue(&self, rung: DelayTier) -> FieldTable {
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
}
