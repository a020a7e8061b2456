//! The account itself: read from what workers count, and held against what must be.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// The most deliveries of one message on the ladder, see `worker/parking.rs`.
const MOST_OF_A_MESSAGE: i64 = 100;

/// Sums over workers, by metric, the labels left out.
#[derive(Debug, Default)]
pub(super) struct Account {
    sums: BTreeMap<String, i64>,
    /// What each worker says of the broker's queues: they say the same, and each a moment later.
    queues: BTreeMap<String, i64>,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// So many deliveries more were taken than have become anything; fewer where it is negative.
    Unexplained(i64),
    /// So many deliveries at least were put on the ladder, and are not there.
    GoneFromTheLadder(i64),
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexplained(difference) => write!(
                formatter,
                "{difference} deliveries were taken in hand, and nothing became of them: report this as a defect, with \
                 the account"
            ),
            Self::GoneFromTheLadder(least) => write!(
                formatter,
                "at least {least} deliveries were put on the delay ladder, and are neither there nor taken from it: name \
                 every worker with --also. Have all been named, look whether queues of the broker were deleted or purged"
            ),
        }
    }
}

impl Account {
    /// Adds what a worker counts, in Prometheus' text format.
    pub(super) fn add(&mut self, metrics: &str) {
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            // Counters are whole numbers; histograms and times are of no account.
            let Some(value) = value.parse::<f64>().ok().filter(|value| value.fract() == 0.0) else { continue };
            let value = value as i64;
            match name {
                "waypost_queue_messages" => {
                    self.queues.insert(labels.to_owned(), value);
                }
                "waypost_deliveries_taken_total" | "waypost_deliveries_total" | "waypost_events_total" => {
                    let label = labels.split('"').nth(1).unwrap_or_default();
                    *self.sums.entry(format!("{name} {label}")).or_default() += value;
                }
                _ if name.starts_with("waypost_") => *self.sums.entry(name.to_owned()).or_default() += value,
                _ => {}
            }
        }
    }

    fn sum(&self, name: &str) -> i64 {
        self.sums.get(name).copied().unwrap_or(0)
    }

    /// Messages ready in queues whose name ends or goes on so.
    fn ready(&self, part: &str) -> i64 {
        self.queues.iter().filter(|(queue, _)| queue.contains(part)).map(|(_, messages)| messages).sum()
    }

    fn taken(&self) -> i64 {
        self.sum("waypost_deliveries_taken_total event") + self.from_the_ladder()
    }

    fn from_the_ladder(&self) -> i64 {
        self.sum("waypost_deliveries_taken_total ladder")
    }

    fn onto_the_ladder(&self) -> i64 {
        self.sum("waypost_retries_scheduled_total") + self.sum("waypost_deliveries_parked_total")
    }

    fn waiting_messages(&self) -> i64 {
        self.ready(".retries\"") + self.ready(".delay.")
    }

    /// What does not add up.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let in_hand = self.sum("waypost_deliveries_in_hand");
        let became = self.sum("waypost_deliveries_total delivered")
            + self.sum("waypost_deliveries_total dead")
            + self.onto_the_ladder()
            + self.sum("waypost_deliveries_given_back_total");
        let unexplained = self.taken() - became - in_hand;
        // What is in hand can be counted on both sides while the numbers are read.
        let unexplained = (unexplained.abs() > in_hand).then_some(Finding::Unexplained(unexplained));
        let waiting = self.onto_the_ladder() - self.from_the_ladder();
        let room = (self.waiting_messages() + self.sum("waypost_messages_in_hand")) * MOST_OF_A_MESSAGE;
        let gone = (waiting > room).then(|| Finding::GoneFromTheLadder(waiting - room));
        unexplained.into_iter().chain(gone).collect()
    }

    fn lines(&self) -> [(&'static str, &'static str, i64); 14] {
        [
            ("events that led to deliveries", "eventsResolved", self.sum("waypost_events_total resolved")),
            ("events without a webhook", "eventsNoWebhook", self.sum("waypost_events_total no_webhook")),
            ("events that could not be read", "eventsMalformed", self.sum("waypost_events_total malformed")),
            ("deliveries taken from events", "takenFromEvents", self.sum("waypost_deliveries_taken_total event")),
            ("and from the delay ladder", "takenFromLadder", self.from_the_ladder()),
            ("delivered", "delivered", self.sum("waypost_deliveries_total delivered")),
            ("dead", "dead", self.sum("waypost_deliveries_total dead")),
            ("put on the ladder to be tried again", "retried", self.sum("waypost_retries_scheduled_total")),
            ("put on the ladder for their endpoint", "parked", self.sum("waypost_deliveries_parked_total")),
            ("given back to the broker", "givenBack", self.sum("waypost_deliveries_given_back_total")),
            ("in hand", "inHand", self.sum("waypost_deliveries_in_hand")),
            ("messages waiting as events", "waitingEvents", self.ready(".events")),
            ("messages waiting on the ladder", "waitingLadder", self.waiting_messages()),
            ("dead letters written", "deadLetters", self.sum("waypost_dead_letters_total")),
        ]
    }

    /// What is counted, in words.
    pub(super) fn described(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.lines().into_iter().map(|(words, _, count)| (words, count))
    }

    /// The same for programs.
    pub(super) fn rows(&self) -> Vec<(String, Value)> {
        self.lines().into_iter().map(|(_, name, count)| (name.to_owned(), count.into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(texts: &[&str]) -> Account {
        let mut account = Account::default();
        texts.iter().for_each(|text| account.add(text));
        account
    }

    const ONE: &str = "# HELP waypost_deliveries_total x
waypost_deliveries_taken_total{from=\"event\"} 10
waypost_deliveries_taken_total{from=\"ladder\"} 0
waypost_deliveries_total{outcome=\"delivered\"} 5
waypost_deliveries_total{outcome=\"dead\"} 1
waypost_retries_scheduled_total 3
waypost_deliveries_parked_total{reason=\"slow\"} 1
waypost_deliveries_in_hand 0
waypost_attempt_duration_seconds_sum 0.25
waypost_queue_messages{queue=\"w.delay.4\"} 1
waypost_queue_messages{queue=\"w.retries\"} 0";

    const OTHER: &str = "waypost_deliveries_taken_total{from=\"ladder\"} 3
waypost_deliveries_total{outcome=\"delivered\"} 2
waypost_deliveries_given_back_total 1
waypost_queue_messages{queue=\"w.delay.4\"} 1";

    #[test]
    fn what_adds_up() {
        assert_eq!(account(&[ONE]).findings(), []);
        let both = account(&[ONE, OTHER]);
        assert_eq!(both.findings(), []);
        let counts: BTreeMap<String, Value> = both.rows().into_iter().collect();
        assert_eq!(
            (&counts["delivered"], &counts["waitingLadder"], &counts["parked"]),
            (&7.into(), &1.into(), &1.into())
        );
    }

    #[test]
    fn what_does_not() {
        let lost = ONE.replace("\"delivered\"} 5", "\"delivered\"} 3");
        assert_eq!(account(&[&lost]).findings(), [Finding::Unexplained(2)]);
        let in_motion = lost.replace("in_hand 0", "in_hand 1");
        assert_eq!(account(&[&in_motion]).findings(), [], "counted on its way");
        let twice = ONE.replace("\"delivered\"} 5", "\"delivered\"} 6");
        assert_eq!(account(&[&twice]).findings(), [Finding::Unexplained(-1)]);
        let purged = ONE.replace("delay.4\"} 1", "delay.4\"} 0");
        assert_eq!(account(&[&purged]).findings(), [Finding::GoneFromTheLadder(4)]);
    }
}
