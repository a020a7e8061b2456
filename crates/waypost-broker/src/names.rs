//! The names of the broker objects. All begin with one prefix: `waypost.events`, `waypost.retries`, …

use super::delay_queues::DelayQueue;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// `prefix` is the setting `broker.prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic exchange of step events, and the first queue bound to it.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The queues of step events. The first has the name of the exchange.
    pub fn event_queues(&self, shards: u32) -> Vec<String> {
        (0..shards).map(|shard| self.event_queue(shard)).collect()
    }

    /// `shard` counts from 0.
    pub fn event_queue(&self, shard: u32) -> String {
        if shard == 0 { self.events() } else { format!("{}.events.{shard}", self.prefix) }
    }

    /// The consistent-hash exchange that spreads step events over several queues.
    pub fn event_shards(&self) -> String {
        format!("{}.events.shards", self.prefix)
    }

    /// The queue of deliveries that are due again.
    pub fn retries(&self) -> String {
        format!("{}.retries", self.prefix)
    }

    pub fn delay(&self, delay_queue: DelayQueue) -> String {
        format!("{}.delay.{}", self.prefix, delay_queue.seconds())
    }

    /// Whether workers consume this queue: a queue of events, or the queue of retries.
    pub fn is_work_queue(&self, queue: &str) -> bool {
        let is_shard =
            || queue.strip_prefix(&format!("{}.", self.events())).is_some_and(|shard| shard.parse::<u32>().is_ok());
        queue == self.events() || queue == self.retries() || is_shard()
    }

    pub fn is_delay_queue(&self, queue: &str) -> bool {
        queue.starts_with(&format!("{}.delay.", self.prefix))
    }

    /// The exchange and the stream of dead letters.
    pub fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.prefix)
    }

    /// The queue of replays that have work left.
    pub fn replays(&self) -> String {
        format!("{}.replays", self.prefix)
    }

    /// A temporary object, with which permissions and the broker's features are checked.
    pub fn temporary(&self, unique: &str) -> String {
        format!("{}.examination.{unique}", self.prefix)
    }

    /// The stream of configuration changes.
    pub fn campaigns(&self) -> String {
        format!("{}.campaigns", self.prefix)
    }
}
