//! The account: sums the metrics of all workers, and finds deliveries and messages that are not accounted for.
//!
//! The metrics call the delay queues the *ladder*.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Workers whose starts are further apart have counted different messages in the delay queues.
const MAX_START_DIFFERENCE_SECONDS: f64 = 60.0;

#[derive(Debug, Default)]
pub(super) struct AccountReport {
    /// Sums over the workers, by metric and the value of its first label.
    sums: BTreeMap<String, i64>,
    /// Ready messages by queue, as the last worker reports them. All workers report the same queues.
    queues: BTreeMap<String, i64>,
    /// The start time of each worker, in Unix seconds.
    start_times: Vec<f64>,
    /// The number of workers that are connected to the broker.
    connected: usize,
    /// The number of workers that consume, as the broker reports it.
    consuming: i64,
    /// The number of workers that do not follow the dead-letter stream.
    unfollowing: usize,
    /// Messages put into the delay queues since the previous account. The queue counts may be as old as that.
    recently_put: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AccountFinding {
    /// Deliveries taken, minus those with an outcome. Can be negative.
    Unexplained(i64),
    /// Dead deliveries, minus their dead letters.
    DeadWithoutLetter(i64),
    /// Messages that were put into the delay queues, were not taken, and are not there.
    LostFromDelayQueues(i64),
}

/// Why the number of messages in the delay queues can't be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// A worker is not connected to the broker, so the queues are unknown.
    NotConnected,
    /// More workers consume than were named.
    WorkersNotNamed { consuming: i64, named: usize },
    /// The counts of a worker start at zero when it restarts.
    StartTimesDiffer,
    /// This many messages are not seen, and at least as many were put there in the last seconds.
    InTransit(i64),
}

impl fmt::Display for AccountFinding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexplained(difference) => write!(
                formatter,
                "{difference} deliveries were taken and have no outcome: this is a defect of Waypost. Report it with this account"
            ),
            Self::DeadWithoutLetter(difference) => write!(
                formatter,
                "{difference} deliveries are dead and have no dead letter: this is a defect of Waypost. Report it with this account"
            ),
            Self::LostFromDelayQueues(messages) => write!(
                formatter,
                "{messages} messages were put into the delay queues, and are neither in the queues nor with a worker. Check if RabbitMQ holds \
                 them (`rabbitmqctl list_queues name messages messages_ready` shows a delay queue with more messages than \
                 ready messages; docs/SETTINGS.md says how to free them), if queues were deleted or purged, or if a worker \
                 that took them has ended"
            ),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Messages in the delay queues can't be checked: ")?;
        match self {
            Self::NotConnected => formatter.write_str("not every worker is connected to the broker."),
            Self::WorkersNotNamed { consuming, named } => {
                write!(
                    formatter,
                    "{consuming} workers consume, but only {named} were queried. Add the others with --also."
                )
            }
            Self::StartTimesDiffer => formatter.write_str("the workers were started at different times."),
            Self::InTransit(messages) => write!(
                formatter,
                "{messages} messages are missing, but more than that were put into the delay queues in the last seconds. Run the command again later."
            ),
        }
    }
}

impl AccountReport {
    /// Adds the metrics of a worker, in Prometheus' text format.
    pub(super) fn add(&mut self, metrics: &str) {
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let label = labels.split('"').nth(1).unwrap_or_default();
            match name {
                "process_start_time_seconds" => self.start_times.push(value),
                "waypost_broker_connected" => self.connected += usize::from(value > 0.0),
                "waypost_workers" => self.consuming = self.consuming.max(value as i64),
                "waypost_log_followed" => self.unfollowing += usize::from(label == "dead_letters" && value == 0.0),
                "waypost_queue_messages" => {
                    self.queues.insert(label.to_owned(), value as i64);
                }
                // Counters are whole numbers. Skips sums of durations.
                _ if name.starts_with("waypost_") && value.fract() == 0.0 => {
                    *self.sums.entry(format!("{name} {label}")).or_default() += value as i64;
                }
                _ => {}
            }
        }
    }

    /// The sum over the workers of one label value of a metric.
    fn value(&self, name: &str, label: &str) -> i64 {
        self.sums.get(&format!("waypost_{name} {label}")).copied().unwrap_or(0)
    }

    /// The sum over the workers and over all labels of a metric.
    fn total(&self, name: &str) -> i64 {
        let name = format!("waypost_{name} ");
        self.sums.iter().filter(|(series, _)| series.starts_with(&name)).map(|(_, value)| value).sum()
    }

    /// The number of ready messages in the queues that match.
    fn ready_messages(&self, matches: impl Fn(&str) -> bool) -> i64 {
        self.queues.iter().filter(|(queue, _)| matches(queue)).map(|(_, messages)| messages).sum()
    }

    /// Notes what was put into the delay queues since the previous account.
    pub(super) fn with_previous(self, previous: &Self) -> Self {
        let put = |account: &Self| account.value("ladder_messages_total", "put");
        Self { recently_put: (put(&self) - put(previous)).max(0), ..self }
    }

    /// Messages that were put into the delay queues, and are neither in the queues nor with a worker.
    fn missing_from_delay_queues(&self) -> i64 {
        let difference = self.value("ladder_messages_total", "put") - self.value("ladder_messages_total", "taken");
        difference - self.delayed_messages() - self.total("messages_in_hand")
    }

    fn delayed_messages(&self) -> i64 {
        self.ready_messages(is_delay_queue)
    }

    fn unexplained(&self) -> i64 {
        let with_outcome = self.total("deliveries_total")
            + self.total("retries_scheduled_total")
            + self.total("deliveries_parked_total")
            + self.total("deliveries_given_back_total");
        self.total("deliveries_taken_total") - with_outcome - self.total("deliveries_in_hand")
    }

    /// True if fewer deliveries changed while the counts were read.
    pub(super) fn is_more_consistent_than(&self, other: &Self) -> bool {
        self.unexplained().abs() < other.unexplained().abs()
    }

    pub(super) fn findings(&self) -> Vec<AccountFinding> {
        let in_flight = self.total("deliveries_in_hand");
        // Deliveries in flight can be counted twice or not at all while the counts are read.
        let unexplained = Some(self.unexplained()).filter(|difference| difference.abs() > in_flight);
        // Dead letters of unreadable messages and of replays do not belong to a dead delivery.
        let other_letters = self.value("dead_letters_total", "malformed") + self.value("replayed_total", "dead");
        let dead = self.value("deliveries_total", "dead") - (self.total("dead_letters_total") - other_letters);
        let missing = Some(self.missing_from_delay_queues()).filter(|missing| *missing > 0 && self.note().is_none());
        let findings = [
            unexplained.map(AccountFinding::Unexplained),
            (dead > 0).then_some(AccountFinding::DeadWithoutLetter(dead)),
            missing.map(AccountFinding::LostFromDelayQueues),
        ];
        findings.into_iter().flatten().collect()
    }

    /// Why the account is incomplete. `None` if it is complete.
    pub(super) fn unknown_reason(&self) -> Option<String> {
        (self.unfollowing > 0).then(|| {
            format!(
                "{} of {} workers do not follow the dead-letter stream, so messages that the broker removed are not counted. See \
                 `waypost ready` and docs/runbooks/WaypostLogNotFollowed.md",
                self.unfollowing,
                self.start_times.len()
            )
        })
    }

    /// Why the delay queues can't be checked. `None` if they can.
    pub(super) fn note(&self) -> Option<Note> {
        let named = self.start_times.len();
        let newest = self.start_times.iter().copied().fold(f64::MIN, f64::max);
        if self.connected < named || self.queues.is_empty() {
            Some(Note::NotConnected)
        } else if self.consuming > named as i64 {
            Some(Note::WorkersNotNamed { consuming: self.consuming, named })
        } else if self.start_times.iter().any(|start| newest - start > MAX_START_DIFFERENCE_SECONDS) {
            Some(Note::StartTimesDiffer)
        } else if (1..=self.recently_put).contains(&self.missing_from_delay_queues()) {
            Some(Note::InTransit(self.missing_from_delay_queues()))
        } else {
            None
        }
    }

    /// Label, JSON name and value of each count.
    fn counts(&self) -> [(&'static str, &'static str, i64); 16] {
        [
            ("events that led to deliveries", "eventsResolved", self.value("events_total", "resolved")),
            ("events without a webhook", "eventsNoWebhook", self.value("events_total", "no_webhook")),
            ("events that could not be read", "eventsMalformed", self.value("events_total", "malformed")),
            ("deliveries taken from events", "takenFromEvents", self.value("deliveries_taken_total", "event")),
            ("deliveries taken from delay queues", "takenFromLadder", self.value("deliveries_taken_total", "ladder")),
            ("delivered", "delivered", self.value("deliveries_total", "delivered")),
            ("dead", "dead", self.value("deliveries_total", "dead")),
            ("delayed until their next attempt", "retried", self.total("retries_scheduled_total")),
            ("parked for their endpoint", "parked", self.total("deliveries_parked_total")),
            ("requeued", "givenBack", self.total("deliveries_given_back_total")),
            ("in flight", "inHand", self.total("deliveries_in_hand")),
            ("dead letters written", "deadLetters", self.total("dead_letters_total")),
            ("messages put into delay queues", "ladderPut", self.value("ladder_messages_total", "put")),
            ("messages taken from delay queues", "ladderTaken", self.value("ladder_messages_total", "taken")),
            ("messages waiting in delay queues", "waitingLadder", self.delayed_messages()),
            ("messages waiting as events", "waitingEvents", self.ready_messages(|queue| !is_delay_queue(queue))),
        ]
    }

    /// The counts for people.
    pub(super) fn labelled_counts(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.counts().into_iter().map(|(label, _, count)| (label, count))
    }

    /// The counts for programs, by JSON name.
    pub(super) fn named_counts(&self) -> Vec<(String, Value)> {
        self.counts().into_iter().map(|(_, name, count)| (name.to_owned(), count.into())).collect()
    }
}

/// `P.retries` and `P.delay.N`. All other queues have events.
fn is_delay_queue(queue: &str) -> bool {
    let is_delay_queue = |(queue, seconds): (&str, &str)| queue.ends_with(".delay") && seconds.parse::<u32>().is_ok();
    queue.ends_with(".retries") || queue.rsplit_once('.').is_some_and(is_delay_queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(texts: &[&str]) -> AccountReport {
        let mut account = AccountReport::default();
        texts.iter().for_each(|text| account.add(text));
        account
    }

    const ONE: &str = "# HELP waypost_deliveries_total x
process_start_time_seconds 1000
waypost_broker_connected 1
waypost_workers 1
waypost_deliveries_taken_total{from=\"event\"} 10
waypost_deliveries_taken_total{from=\"ladder\"} 0
waypost_deliveries_total{outcome=\"delivered\"} 5
waypost_deliveries_total{outcome=\"dead\"} 1
waypost_dead_letters_total{reason=\"exhausted\"} 1
waypost_retries_scheduled_total 3
waypost_deliveries_parked_total{reason=\"slow\"} 1
waypost_ladder_messages_total{movement=\"put\"} 4
waypost_ladder_messages_total{movement=\"taken\"} 0
waypost_deliveries_in_hand 0
waypost_messages_in_hand 0
waypost_attempt_duration_seconds_sum 0.25
waypost_queue_messages{queue=\"a.delay.b.events\"} 7
waypost_queue_messages{queue=\"a.delay.b.delay.4\"} 3
waypost_queue_messages{queue=\"a.delay.b.retries\"} 1";

    const OTHER: &str = "process_start_time_seconds 1030
waypost_broker_connected 1
waypost_workers 2
waypost_deliveries_taken_total{from=\"ladder\"} 3
waypost_deliveries_total{outcome=\"delivered\"} 2
waypost_deliveries_given_back_total{blame=\"broker\"} 1
waypost_ladder_messages_total{movement=\"taken\"} 2
waypost_queue_messages{queue=\"a.delay.b.delay.4\"} 1";

    #[test]
    fn messages_put_recently_may_be_in_transit() {
        let four_more = ONE.replace("movement=\"put\"} 4", "movement=\"put\"} 8");
        let one = account(&[ONE]);
        assert_eq!(account(&[&four_more]).findings(), [AccountFinding::LostFromDelayQueues(4)]);
        let later = account(&[&four_more]).with_previous(&one);
        assert_eq!((later.findings(), later.note()), (Vec::new(), Some(Note::InTransit(4))));
        let still = account(&[&four_more]).with_previous(&later);
        assert_eq!(still.findings(), [AccountFinding::LostFromDelayQueues(4)], "nothing was put there since");
    }

    #[test]
    fn dead_letters_of_unreadable_messages_are_no_dead_deliveries() {
        let unreadable = ONE.replace("reason=\"exhausted\"} 1", "reason=\"malformed\"} 1");
        assert_eq!(account(&[&unreadable]).findings(), [AccountFinding::DeadWithoutLetter(1)]);
    }

    #[test]
    fn consistent_counts_have_no_findings() {
        let one = account(&[ONE]);
        assert_eq!((one.findings(), one.note()), (Vec::new(), None));
        let both = account(&[ONE, OTHER]);
        assert_eq!((both.findings(), both.note()), (Vec::new(), None));
        let counts: BTreeMap<String, Value> = both.named_counts().into_iter().collect();
        let count = |name: &str| counts[name].as_i64();
        assert_eq!((count("delivered"), count("waitingLadder"), count("waitingEvents")), (Some(7), Some(2), Some(7)));
    }

    #[test]
    fn the_account_is_incomplete_while_dead_letters_are_not_followed() {
        let followed = format!("{ONE}\nwaypost_log_followed{{log=\"dead_letters\"}} 1");
        assert_eq!(account(&[&followed]).unknown_reason(), None);
        assert_eq!(account(&[ONE]).unknown_reason(), None, "older workers do not report it");
        let unfollowed = followed.replace("dead_letters\"} 1", "dead_letters\"} 0");
        let reason = account(&[&unfollowed, OTHER]).unknown_reason().expect("unknown");
        assert!(reason.starts_with("1 of 2 workers"), "{reason}");
        let campaigns = followed.replace("log=\"dead_letters\"} 1", "log=\"campaigns\"} 0");
        assert_eq!(account(&[&campaigns]).unknown_reason(), None, "campaigns are not in the account");
    }

    #[test]
    fn inconsistent_counts_are_findings() {
        let lost = ONE.replace("\"delivered\"} 5", "\"delivered\"} 3");
        assert_eq!(account(&[&lost]).findings(), [AccountFinding::Unexplained(2)]);
        let in_motion = lost.replace("deliveries_in_hand 0", "deliveries_in_hand 1");
        assert_eq!(account(&[&in_motion]).findings(), [], "a delivery in flight explains it");
        assert!(account(&[ONE]).is_more_consistent_than(&account(&[&lost])));
        let twice = ONE.replace("\"delivered\"} 5", "\"delivered\"} 6");
        assert_eq!(account(&[&twice]).findings(), [AccountFinding::Unexplained(-1)]);
        let purged = ONE.replace("delay.4\"} 3", "delay.4\"} 1");
        assert_eq!(account(&[&purged]).findings(), [AccountFinding::LostFromDelayQueues(2)]);
        let unwritten = ONE.replace("\"exhausted\"} 1", "\"exhausted\"} 0");
        assert_eq!(account(&[&unwritten]).findings(), [AccountFinding::DeadWithoutLetter(1)]);
    }

    #[test]
    fn delay_queues_are_checked_only_if_all_counts_are_known() {
        let purged = ONE.replace("delay.4\"} 3", "delay.4\"} 0");
        let more = purged.replace("waypost_workers 1", "waypost_workers 2");
        assert_eq!(
            (account(&[&more]).findings(), account(&[&more]).note()),
            (Vec::new(), Some(Note::WorkersNotNamed { consuming: 2, named: 1 }))
        );
        let away = purged.replace("broker_connected 1", "broker_connected 0");
        assert_eq!(account(&[&away]).note(), Some(Note::NotConnected));
        let later = OTHER.replace("1030", "2000");
        assert_eq!(account(&[&purged, &later]).note(), Some(Note::StartTimesDiffer));
    }
}
