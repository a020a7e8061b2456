//! The account itself: read from what workers count, and held against what must be.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Workers that were started further apart than this, in seconds, have counted different parts of what went over the ladder.
const TOGETHER_SECONDS: f64 = 60.0;

/// Sums over workers, by metric and its first label's value.
#[derive(Debug, Default)]
pub(super) struct Account {
    sums: BTreeMap<String, i64>,
    /// What each worker says of the broker's queues: they say the same, and each a moment later.
    queues: BTreeMap<String, i64>,
    /// When each worker was started, in seconds since 1970.
    started: Vec<f64>,
    /// Workers that are connected to the broker.
    connected: usize,
    /// Workers that there are, as the broker says.
    consuming: i64,
    /// Workers that do not follow the dead letters.
    unfollowing: usize,
    /// Messages put on the ladder since the account before this one. The depths of queues may be as old as that.
    put_of_late: i64,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// So many deliveries more were taken than have become anything; fewer where it is negative.
    Unexplained(i64),
    /// So many deliveries more are dead than dead letters were written.
    DeadWithoutLetter(i64),
    /// So many messages were put on the ladder, and are not there.
    GoneFromTheLadder(i64),
}

/// Why the ladder can't be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// The broker's queues are not known: somebody is not connected.
    NotConnected,
    /// So many workers consume, and these were named.
    NotAllNamed(i64, usize),
    /// What a worker had counted before it was started again is gone.
    StartedApart,
    /// So many are not seen, and as many were put there in the last seconds.
    OnTheirWay(i64),
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexplained(difference) => write!(
                formatter,
                "{difference} deliveries were taken in hand, and nothing became of them: report this as a defect, with \
                 the account"
            ),
            Self::DeadWithoutLetter(difference) => write!(
                formatter,
                "{difference} deliveries are dead, and have no dead letter: report this as a defect, with the account"
            ),
            Self::GoneFromTheLadder(messages) => write!(
                formatter,
                "{messages} messages were put on the delay ladder, and are neither there nor taken from it: look whether RabbitMQ \
                 holds them (`rabbitmqctl list_queues name messages messages_ready`: a delay queue with more messages than are \
                 ready; docs/SETTINGS.md says how to free them), whether queues of the broker were deleted or purged, or a \
                 worker that took them has ended"
            ),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("What should be on the ladder is not known: ")?;
        match self {
            Self::NotConnected => formatter.write_str("not every worker is connected to the broker."),
            Self::NotAllNamed(there, named) => {
                write!(formatter, "{there} workers consume, and {named} were asked. Name the others with --also.")
            }
            Self::StartedApart => formatter.write_str("the workers were started at different times."),
            Self::OnTheirWay(messages) => write!(
                formatter,
                "{messages} messages are not seen there, and more were put there in the last seconds. Look again when less is parked."
            ),
        }
    }
}

impl Account {
    /// Adds what a worker counts, in Prometheus' text format.
    pub(super) fn add(&mut self, metrics: &str) {
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let label = labels.split('"').nth(1).unwrap_or_default();
            match name {
                "process_start_time_seconds" => self.started.push(value),
                "waypost_broker_connected" => self.connected += usize::from(value > 0.0),
                "waypost_workers" => self.consuming = self.consuming.max(value as i64),
                "waypost_log_followed" => self.unfollowing += usize::from(label == "dead_letters" && value == 0.0),
                "waypost_queue_messages" => {
                    self.queues.insert(label.to_owned(), value as i64);
                }
                // Counters are whole numbers; histograms and times are of no account.
                _ if name.starts_with("waypost_") && value.fract() == 0.0 => {
                    *self.sums.entry(format!("{name} {label}")).or_default() += value as i64;
                }
                _ => {}
            }
        }
    }

    /// The sum of a metric with this label's value.
    fn value(&self, name: &str, label: &str) -> i64 {
        self.sums.get(&format!("waypost_{name} {label}")).copied().unwrap_or(0)
    }

    /// The sum of a metric over its labels.
    fn all(&self, name: &str) -> i64 {
        let name = format!("waypost_{name} ");
        self.sums.iter().filter(|(series, _)| series.starts_with(&name)).map(|(_, value)| value).sum()
    }

    /// Messages ready in queues of which this is true.
    fn ready(&self, is_meant: impl Fn(&str) -> bool) -> i64 {
        self.queues.iter().filter(|(queue, _)| is_meant(queue)).map(|(_, messages)| messages).sum()
    }

    /// This account, taken some seconds after another.
    pub(super) fn after(self, before: &Self) -> Self {
        let put = |account: &Self| account.value("ladder_messages_total", "put");
        Self { put_of_late: (put(&self) - put(before)).max(0), ..self }
    }

    /// Messages that were put on the ladder and are neither seen there nor taken from it.
    fn missing(&self) -> i64 {
        let missing = self.value("ladder_messages_total", "put") - self.value("ladder_messages_total", "taken");
        missing - self.waiting() - self.all("messages_in_hand")
    }

    fn waiting(&self) -> i64 {
        self.ready(is_of_the_ladder)
    }

    fn unexplained(&self) -> i64 {
        let became = self.all("deliveries_total")
            + self.all("retries_scheduled_total")
            + self.all("deliveries_parked_total")
            + self.all("deliveries_given_back_total");
        self.all("deliveries_taken_total") - became - self.all("deliveries_in_hand")
    }

    /// Whether this one says more: less of it was on its way while it was read.
    pub(super) fn is_clearer_than(&self, other: &Self) -> bool {
        self.unexplained().abs() < other.unexplained().abs()
    }

    /// What does not add up.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let in_hand = self.all("deliveries_in_hand");
        // What is in hand can be counted on both sides while the numbers are read.
        let unexplained = Some(self.unexplained()).filter(|difference| difference.abs() > in_hand);
        // Letters of unreadable messages and of replays are no deliveries that died.
        let others = self.value("dead_letters_total", "malformed") + self.value("replayed_total", "dead");
        let dead = self.value("deliveries_total", "dead") - (self.all("dead_letters_total") - others);
        let missing = Some(self.missing()).filter(|missing| *missing > 0 && self.note().is_none());
        let findings = [
            unexplained.map(Finding::Unexplained),
            (dead > 0).then_some(Finding::DeadWithoutLetter(dead)),
            missing.map(Finding::GoneFromTheLadder),
        ];
        findings.into_iter().flatten().collect()
    }

    /// Why the account as a whole is not known; none if it is.
    pub(super) fn unknown(&self) -> Option<String> {
        (self.unfollowing > 0).then(|| {
            format!(
                "{} of {} workers do not follow the dead letters, so what the broker gave up is not in the account. See \
                 `waypost ready` and docs/runbooks/WaypostLogNotFollowed.md",
                self.unfollowing,
                self.started.len()
            )
        })
    }

    /// Why what should be on the ladder is not known.
    pub(super) fn note(&self) -> Option<Note> {
        let named = self.started.len();
        let newest = self.started.iter().copied().fold(f64::MIN, f64::max);
        if self.connected < named || self.queues.is_empty() {
            Some(Note::NotConnected)
        } else if self.consuming > named as i64 {
            Some(Note::NotAllNamed(self.consuming, named))
        } else if self.started.iter().any(|started| newest - started > TOGETHER_SECONDS) {
            Some(Note::StartedApart)
        } else if (1..=self.put_of_late).contains(&self.missing()) {
            Some(Note::OnTheirWay(self.missing()))
        } else {
            None
        }
    }

    fn lines(&self) -> [(&'static str, &'static str, i64); 16] {
        [
            ("events that led to deliveries", "eventsResolved", self.value("events_total", "resolved")),
            ("events without a webhook", "eventsNoWebhook", self.value("events_total", "no_webhook")),
            ("events that could not be read", "eventsMalformed", self.value("events_total", "malformed")),
            ("deliveries taken from events", "takenFromEvents", self.value("deliveries_taken_total", "event")),
            ("and from the delay ladder", "takenFromLadder", self.value("deliveries_taken_total", "ladder")),
            ("delivered", "delivered", self.value("deliveries_total", "delivered")),
            ("dead", "dead", self.value("deliveries_total", "dead")),
            ("put on the ladder to be tried again", "retried", self.all("retries_scheduled_total")),
            ("put on the ladder for their endpoint", "parked", self.all("deliveries_parked_total")),
            ("given back to the broker", "givenBack", self.all("deliveries_given_back_total")),
            ("in hand", "inHand", self.all("deliveries_in_hand")),
            ("dead letters written", "deadLetters", self.all("dead_letters_total")),
            ("messages put on the ladder", "ladderPut", self.value("ladder_messages_total", "put")),
            ("messages taken from it", "ladderTaken", self.value("ladder_messages_total", "taken")),
            ("messages waiting on it", "waitingLadder", self.waiting()),
            ("messages waiting as events", "waitingEvents", self.ready(|queue| !is_of_the_ladder(queue))),
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

/// `P.retries` and `P.delay.N`. The others are those of the events.
fn is_of_the_ladder(queue: &str) -> bool {
    let is_rung = |(queue, rung): (&str, &str)| queue.ends_with(".delay") && rung.parse::<u32>().is_ok();
    queue.ends_with(".retries") || queue.rsplit_once('.').is_some_and(is_rung)
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
    fn what_was_put_on_the_ladder_of_late_may_be_on_its_way() {
        let four_more = ONE.replace("movement=\"put\"} 4", "movement=\"put\"} 8");
        let one = account(&[ONE]);
        assert_eq!(account(&[&four_more]).findings(), [Finding::GoneFromTheLadder(4)]);
        let later = account(&[&four_more]).after(&one);
        assert_eq!((later.findings(), later.note()), (Vec::new(), Some(Note::OnTheirWay(4))));
        let still = account(&[&four_more]).after(&later);
        assert_eq!(still.findings(), [Finding::GoneFromTheLadder(4)], "nothing was put there meanwhile");
    }

    #[test]
    fn what_was_no_delivery_has_letters_too() {
        let unreadable = ONE.replace("reason=\"exhausted\"} 1", "reason=\"malformed\"} 1");
        assert_eq!(account(&[&unreadable]).findings(), [Finding::DeadWithoutLetter(1)]);
    }

    #[test]
    fn what_adds_up() {
        let one = account(&[ONE]);
        assert_eq!((one.findings(), one.note()), (Vec::new(), None));
        let both = account(&[ONE, OTHER]);
        assert_eq!((both.findings(), both.note()), (Vec::new(), None));
        let counts: BTreeMap<String, Value> = both.rows().into_iter().collect();
        let count = |name: &str| counts[name].as_i64();
        assert_eq!((count("delivered"), count("waitingLadder"), count("waitingEvents")), (Some(7), Some(2), Some(7)));
    }

    #[test]
    fn nobody_knows_while_dead_letters_are_not_followed() {
        let followed = format!("{ONE}\nwaypost_log_followed{{log=\"dead_letters\"}} 1");
        assert_eq!(account(&[&followed]).unknown(), None);
        assert_eq!(account(&[ONE]).unknown(), None, "a worker of an older version does not say");
        let unfollowed = followed.replace("dead_letters\"} 1", "dead_letters\"} 0");
        let unknown = account(&[&unfollowed, OTHER]).unknown().expect("unknown");
        assert!(unknown.starts_with("1 of 2 workers"), "{unknown}");
        let campaigns = followed.replace("log=\"dead_letters\"} 1", "log=\"campaigns\"} 0");
        assert_eq!(account(&[&campaigns]).unknown(), None, "they are not in the account");
    }

    #[test]
    fn what_does_not() {
        let lost = ONE.replace("\"delivered\"} 5", "\"delivered\"} 3");
        assert_eq!(account(&[&lost]).findings(), [Finding::Unexplained(2)]);
        let in_motion = lost.replace("deliveries_in_hand 0", "deliveries_in_hand 1");
        assert_eq!(account(&[&in_motion]).findings(), [], "counted on its way");
        assert!(account(&[ONE]).is_clearer_than(&account(&[&lost])));
        let twice = ONE.replace("\"delivered\"} 5", "\"delivered\"} 6");
        assert_eq!(account(&[&twice]).findings(), [Finding::Unexplained(-1)]);
        let purged = ONE.replace("delay.4\"} 3", "delay.4\"} 1");
        assert_eq!(account(&[&purged]).findings(), [Finding::GoneFromTheLadder(2)]);
        let unwritten = ONE.replace("\"exhausted\"} 1", "\"exhausted\"} 0");
        assert_eq!(account(&[&unwritten]).findings(), [Finding::DeadWithoutLetter(1)]);
    }

    #[test]
    fn the_ladder_is_judged_only_where_all_is_known_of_it() {
        let purged = ONE.replace("delay.4\"} 3", "delay.4\"} 0");
        let more = purged.replace("waypost_workers 1", "waypost_workers 2");
        assert_eq!(
            (account(&[&more]).findings(), account(&[&more]).note()),
            (Vec::new(), Some(Note::NotAllNamed(2, 1)))
        );
        let away = purged.replace("broker_connected 1", "broker_connected 0");
        assert_eq!(account(&[&away]).note(), Some(Note::NotConnected));
        let later = OTHER.replace("1030", "2000");
        assert_eq!(account(&[&purged, &later]).note(), Some(Note::StartedApart));
    }
}
