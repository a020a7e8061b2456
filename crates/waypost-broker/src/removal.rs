//! Reads from a message's headers why the broker removed it from a queue.
//!
//! RabbitMQ sets `x-first-death-*` at the first removal only, so it says `expired` for each message that ever waited in
//! a delay queue. `x-last-death-*` (since RabbitMQ 3.13) and the first entry of `x-death` describe the latest removal.
//! In a stream, RabbitMQ before 3.13 keeps only the headers about the first removal.

use chrono::{DateTime, Utc};
use lapin::types::{AMQPValue, FieldTable};
use waypost_core::dead_letter::removed::Removal;
use waypost_core::reason::DeadLetterReason;

use super::names::Names;
use super::{number_header, text_header};

#[derive(Debug, Clone, PartialEq)]
pub enum Removals {
    Latest(Removal),
    /// Only the first removal is known. There may have been others.
    First(Removal),
}

impl Removals {
    /// `None` if no broker ever removed the message from a queue.
    pub(super) fn from_headers(headers: Option<&FieldTable>) -> Option<Self> {
        let death = newest_death(headers);
        let header = |name: &str, field: &str| text_header(headers, name).or_else(|| text_header(death, field));
        let latest = header("x-last-death-queue", "queue").zip(header("x-last-death-reason", "reason"));
        if let Some((queue, reason)) = latest {
            return Some(Self::Latest(Removal {
                queue,
                reason: parse_reason(&reason),
                at: death.and_then(removal_time),
            }));
        }
        let queue = text_header(headers, "x-first-death-queue")?;
        let reason = text_header(headers, "x-first-death-reason")?;
        Some(Self::First(Removal { queue, reason: parse_reason(&reason), at: None }))
    }

    /// The removal that put the message into the dead-letter stream.
    pub fn latest(self, names: &Names) -> Removal {
        match self {
            Self::Latest(removal) => removal,
            Self::First(removal) if names.is_work_queue(&removal.queue) => removal,
            // Only work queues dead-letter to the stream, so another removal followed. The reason is unknown. Most
            // likely the message exceeded the delivery limit, which happens without any action of an operator.
            Self::First(removal) => {
                let queue = if names.is_delay_queue(&removal.queue) { names.retries() } else { names.events() };
                Removal { queue, reason: DeadLetterReason::Poison, at: None }
            }
        }
    }
}

fn parse_reason(text: &str) -> DeadLetterReason {
    match text {
        "expired" => DeadLetterReason::Expired,
        "maxlen" => DeadLetterReason::Maxlen,
        "delivery_limit" => DeadLetterReason::Poison,
        // `rejected`, or a reason that a future RabbitMQ may add.
        _ => DeadLetterReason::Rejected,
    }
}

/// The first entry of `x-death`.
fn newest_death(headers: Option<&FieldTable>) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers?.inner().get("x-death")? else { return None };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

/// `None` if the entry counts several removals: its time is that of the first one.
fn removal_time(death: &FieldTable) -> Option<DateTime<Utc>> {
    let AMQPValue::Timestamp(seconds) = death.inner().get("time")? else { return None };
    let is_single = number_header(Some(death), "count") == Some(1);
    is_single.then(|| DateTime::from_timestamp(i64::try_from(*seconds).ok()?, 0)).flatten()
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn death(queue: &str, reason: &str, count: i64) -> AMQPValue {
        let entries = [
            ("queue", text(queue)),
            ("reason", text(reason)),
            ("count", AMQPValue::LongLongInt(count)),
            ("time", AMQPValue::Timestamp(1_718_753_174)),
        ];
        AMQPValue::FieldTable(table(&entries))
    }

    fn latest_removal(headers: &FieldTable) -> Option<Removal> {
        Removals::from_headers(Some(headers)).map(|removals| removals.latest(&Names::new("p")))
    }

    fn first_death_headers(queue: &str, reason: &str) -> FieldTable {
        table(&[("x-first-death-queue", text(queue)), ("x-first-death-reason", text(reason))])
    }

    #[test]
    fn the_latest_removal_is_used_if_known() {
        let mut deaths = FieldArray::default();
        deaths.push(death("p.retries", "delivery_limit", 1));
        deaths.push(death("p.delay.4", "expired", 3));
        let mut headers = first_death_headers("p.delay.4", "expired");
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
        let removal = latest_removal(&headers).expect("a removal");
        assert_eq!((removal.queue.as_str(), removal.reason), ("p.retries", DeadLetterReason::Poison));
        assert_eq!(removal.at, DateTime::from_timestamp(1_718_753_174, 0));
        headers.insert("x-last-death-queue".into(), text("p.events"));
        headers.insert("x-last-death-reason".into(), text("rejected"));
        let removal = latest_removal(&headers).expect("a removal");
        assert_eq!((removal.queue.as_str(), removal.reason), ("p.events", DeadLetterReason::Rejected));
    }

    #[test]
    fn the_latest_removal_is_derived_if_only_the_first_is_known() {
        for (queue, reason, expected) in [
            ("p.events", "maxlen", ("p.events", DeadLetterReason::Maxlen)),
            ("p.events.3", "expired", ("p.events.3", DeadLetterReason::Expired)),
            ("p.retries", "rejected", ("p.retries", DeadLetterReason::Rejected)),
            ("p.delay.4", "expired", ("p.retries", DeadLetterReason::Poison)),
            ("platform.delay.4", "expired", ("p.events", DeadLetterReason::Poison)),
        ] {
            let removal = latest_removal(&first_death_headers(queue, reason)).expect("a removal");
            assert_eq!((removal.queue.as_str(), removal.reason, removal.at), (expected.0, expected.1, None));
        }
    }

    #[test]
    fn incomplete_headers_are_read_as_far_as_possible() {
        let mut deaths = FieldArray::default();
        deaths.push(death("p.events", "expired", 2));
        let repeated = latest_removal(&table(&[("x-death", AMQPValue::FieldArray(deaths))]));
        assert_eq!(repeated.map(|removal| (removal.reason, removal.at)), Some((DeadLetterReason::Expired, None)));
        let no_death = AMQPValue::FieldArray(FieldArray::default());
        for other in [table(&[]), table(&[("x-death", text("a publisher's own"))]), table(&[("x-death", no_death)])] {
            assert_eq!(latest_removal(&other), None);
        }
        assert_eq!(Removals::from_headers(None), None);
    }
}
