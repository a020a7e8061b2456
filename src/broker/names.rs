//! The names of the broker's objects, all under one prefix.

use super::delay_queues::DelayTier;

/// Names for a prefix: `waypost.events`, `waypost.retries`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// `broker.prefix`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic exchange of step events, and the queue bound to it.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The queues of step events, where they are spread over so many: the first has the exchange's name.
    pub fn event_queues(&self, shards: u32) -> Vec<String> {
        (0..shards).map(|shard| self.event_queue(shard)).collect()
    }

    /// One of those, from 0 on.
    pub fn event_queue(&self, shard: u32) -> String {
        if shard == 0 { self.events() } else { format!("{}.events.{shard}", self.prefix) }
    }

    /// The exchange that spreads step events over several queues.
    pub fn event_shards(&self) -> String {
        format!("{}.events.shards", self.prefix)
    }

    /// The queue of deliveries that are due again.
    pub fn retries(&self) -> String {
        format!("{}.retries", self.prefix)
    }

    /// The queue of a rung of the delay ladder.
    pub fn delay(&self, rung: DelayTier) -> String {
        format!("{}.delay.{}", self.prefix, rung.seconds())
    }

    /// Whether this is a queue of events or that of retries.
    pub fn is_work_queue(&self, queue: &str) -> bool {
        let is_shard =
            || queue.strip_prefix(&format!("{}.", self.events())).is_some_and(|shard| shard.parse::<u32>().is_ok());
        queue == self.events() || queue == self.retries() || is_shard()
    }

    /// Whether this is one of the delay queues.
    pub fn is_delay_queue(&self, queue: &str) -> bool {
        queue.starts_with(&format!("{}.delay.", self.prefix))
    }

    /// The exchange and the stream of dead letters.
    pub fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.prefix)
    }

    /// The queue of replays that are to be gone on with.
    pub fn replays(&self) -> String {
        format!("{}.replays", self.prefix)
    }

    /// A queue or an exchange to try things with, told from others by `unique`.
    pub fn examination(&self, unique: &str) -> String {
        format!("{}.examination.{unique}", self.prefix)
    }

    /// The stream of configuration changes.
    pub fn campaigns(&self) -> String {
        format!("{}.campaigns", self.prefix)
    }
}
