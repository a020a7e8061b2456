//! The exchanges, queues, streams and bindings that a worker needs, with their arguments.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};

use super::delay_queues::DelayQueue;
use super::names::Names;
use super::topology_status::TopologyStatus;

/// The broker dead-letters a message as poison after it was requeued this often. A lost connection requeues each
/// message in flight, so a few restarts must stay far below the limit.
pub(super) const DELIVERY_LIMIT: u32 = 100;

/// A worker dead-letters a message after it was requeued this often. The limit is below `DELIVERY_LIMIT` so that
/// RabbitMQ rarely does it: before 3.13 it does not keep the reason in a stream, and 4.3.6 fails on properties that are
/// not UTF-8.
pub const MAX_REQUEUES: u64 = 90;

const _: () = assert!(MAX_REQUEUES < DELIVERY_LIMIT as u64);

/// Retention deletes whole segments. With the default of 500 MB, a stream with few dead letters would keep them for
/// years.
const DEAD_LETTER_SEGMENT_BYTES: u32 = 50_000_000;

/// The largest value of `broker.shards`.
pub const MAX_SHARDS: u32 = 64;

/// Matches every routing key.
const MATCH_ALL: &str = "#";

/// Spreads messages over queues. A plugin provides it.
pub(super) const HASH_EXCHANGE_TYPE: &str = "x-consistent-hash";

/// The routing key of a binding is the weight of the queue. All queues have the same.
const SHARD_WEIGHT: &str = "1";

/// The broker objects of one `broker.prefix`, and their status.
#[derive(Debug, Clone)]
pub struct Topology {
    pub names: Names,
    /// The number of queues that step events are spread over.
    pub shards: u32,
    pub dead_letter_retention: Duration,
    pub status: TopologyStatus,
}

/// A binding without arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) destination_kind: DestinationKind,
    pub(super) routing_key: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DestinationKind {
    Queue,
    Exchange,
}

impl Binding {
    fn to_queue(source: &str, queue: &str, routing_key: &'static str) -> Self {
        let destination_kind = DestinationKind::Queue;
        Self { source: source.to_owned(), destination: queue.to_owned(), destination_kind, routing_key }
    }

    fn to_exchange(source: &str, exchange: &str, routing_key: &'static str) -> Self {
        let destination_kind = DestinationKind::Exchange;
        Self { source: source.to_owned(), destination: exchange.to_owned(), destination_kind, routing_key }
    }
}

impl Topology {
    /// Each exchange with its arguments. Events are spread by message id. If they were spread by routing key, which is
    /// the campaign, one queue would get all events of a large campaign.
    pub(super) fn exchanges(&self) -> Vec<(String, ExchangeKind, FieldTable)> {
        let names = &self.names;
        let mut exchanges = vec![
            (names.dead_letters(), ExchangeKind::Fanout, FieldTable::default()),
            (names.events(), ExchangeKind::Topic, FieldTable::default()),
        ];
        if self.shards > 1 {
            let by_message = arguments([("hash-property", text("message_id"))]);
            exchanges.push((names.event_shards(), ExchangeKind::Custom(HASH_EXCHANGE_TYPE.to_owned()), by_message));
        }
        exchanges
    }

    /// Each queue and stream with its arguments. The target of a queue's dead-lettering comes before the queue.
    pub(super) fn queues(&self) -> Vec<(String, FieldTable)> {
        let names = &self.names;
        let mut queues = vec![(names.dead_letters(), self.dead_letter_stream())];
        queues.extend(names.event_queues(self.shards).into_iter().map(|name| (name, self.work_queue())));
        queues.push((names.retries(), self.work_queue()));
        queues.extend(DelayQueue::all().map(|delay_queue| (names.delay(delay_queue), self.delay_queue(delay_queue))));
        queues.push((names.replays(), self.replay_queue()));
        queues.push((names.campaigns(), arguments([("x-queue-type", text("stream"))])));
        queues
    }

    pub(super) fn bindings(&self) -> Vec<Binding> {
        let (events, dead_letters) = (self.names.events(), self.names.dead_letters());
        let mut bindings = vec![Binding::to_queue(&dead_letters, &dead_letters, "")];
        if self.shards == 1 {
            bindings.push(Binding::to_queue(&events, &events, MATCH_ALL));
            return bindings;
        }
        let shards = self.names.event_shards();
        for queue in self.names.event_queues(self.shards) {
            bindings.push(Binding::to_queue(&shards, &queue, SHARD_WEIGHT));
        }
        bindings.push(Binding::to_exchange(&events, &shards, MATCH_ALL));
        bindings
    }

    /// The bindings that belong to other values of `shards`. With them, an event would reach two queues or a surplus
    /// queue.
    pub(super) fn surplus_bindings(&self) -> Vec<Binding> {
        let (events, shards) = (self.names.events(), self.names.event_shards());
        if self.shards == 1 {
            return vec![Binding::to_exchange(&events, &shards, MATCH_ALL)];
        }
        let mut surplus = vec![Binding::to_queue(&events, &events, MATCH_ALL)];
        let queues = (self.shards..MAX_SHARDS).map(|shard| self.names.event_queue(shard));
        surplus.extend(queues.map(|queue| Binding::to_queue(&shards, &queue, SHARD_WEIGHT)));
        surplus
    }

    /// For events and retries. A message over the delivery limit is dead-lettered unchanged.
    fn work_queue(&self) -> FieldTable {
        arguments([
            ("x-queue-type", text("quorum")),
            ("x-delivery-limit", number(DELIVERY_LIMIT)),
            ("x-dead-letter-exchange", text(&self.names.dead_letters())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ])
    }

    /// Without `at-least-once`, which needs `reject-publish`, an expired message could be lost on its way to the
    /// retries queue. There is no `x-expires`, because it would delete the messages with the queue.
    fn delay_queue(&self, delay_queue: DelayQueue) -> FieldTable {
        arguments([
            ("x-queue-type", text("quorum")),
            ("x-message-ttl", number(delay_queue.milliseconds())),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&self.names.retries())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ])
    }

    /// A single consumer is active, so no two workers run one replay. The broker drops a message over the delivery
    /// limit. This is harmless: the message only signals that a replay has work left, and a worker publishes it again
    /// as long as that is so.
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

/// The arguments of a queue with only a type.
pub(super) fn queue_type_arguments(queue_type: &str) -> FieldTable {
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
    fn surplus_bindings_never_include_own_bindings_or_the_first_queue_of_the_shards_exchange() {
        let topology = |shards| Topology {
            names: Names::new("waypost"),
            shards,
            dead_letter_retention: Duration::from_secs(1),
            status: TopologyStatus::default(),
        };
        // This binding always stays, so an event that reaches the exchange of shards reaches a queue.
        let first_queue = Binding::to_queue("waypost.events.shards", "waypost.events", SHARD_WEIGHT);
        let shard_counts = [1, 2, 3, MAX_SHARDS];
        for shards in shard_counts {
            let (own, surplus) = (topology(shards).bindings(), topology(shards).surplus_bindings());
            assert!(
                !surplus.contains(&first_queue) && surplus.iter().all(|binding| !own.contains(binding)),
                "{shards}"
            );
            // No binding of another number of shards is left.
            for other in shard_counts {
                let mut remaining = topology(other).bindings();
                remaining.retain(|binding| !own.contains(binding) && !surplus.contains(binding));
                // With one shard, no event reaches the exchange of shards.
                remaining.retain(|binding| shards > 1 || binding.source != "waypost.events.shards");
                assert!(remaining.is_empty(), "{other} to {shards}: {remaining:?}");
            }
        }
    }
}
