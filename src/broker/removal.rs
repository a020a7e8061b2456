//! Why the broker removed a message from a queue, as the message's headers tell.
//!
//! `x-first-death-*` is set at the first removal only, so it says `expired` for all that ever waited in a delay queue.
//! `x-last-death-*` (since RabbitMQ 3.13) and the first entry of `x-death` are about the latest removal.

use chrono::{DateTime, Utc};
use lapin::types::{AMQPValue, FieldTable};

use super::{number_header, text_header};
use crate::delivery::dead_letter::removed::Removal;
use crate::delivery::reason::Reason;

/// The latest removal of a message; `None` if no broker ever removed it from a queue.
pub(super) fn latest(headers: Option<&FieldTable>) -> Option<Removal> {
    let newest = newest_death(headers);
    let text = |of_latest: &str, name: &str, of_first: &str| {
        text_header(headers, of_latest).or_else(|| text_header(newest, name)).or_else(|| text_header(headers, of_first))
    };
    let queue = text("x-last-death-queue", "queue", "x-first-death-queue")?;
    let reason = text("x-last-death-reason", "reason", "x-first-death-reason")?;
    Some(Removal { queue, reason: reason_of(&reason), at: newest.and_then(time_of) })
}

fn reason_of(text: &str) -> Reason {
    match text {
        "expired" => Reason::Expired,
        "maxlen" => Reason::Maxlen,
        "delivery_limit" => Reason::Poison,
        // RabbitMQ has no other: one that it may have in future is told by the words of the nearest.
        _ => Reason::Rejected,
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

/// When it happened. An entry that counts several removals has the time of the first of them, which says nothing.
fn time_of(death: &FieldTable) -> Option<DateTime<Utc>> {
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

    #[test]
    fn the_latest_removal_counts() {
        let mut deaths = FieldArray::default();
        deaths.push(death("p.retries", "delivery_limit", 1));
        deaths.push(death("p.delay.4", "expired", 3));
        let mut headers = table(&[
            ("x-first-death-queue", text("p.delay.4")),
            ("x-first-death-reason", text("expired")),
            ("x-death", AMQPValue::FieldArray(deaths)),
        ]);
        let removal = latest(Some(&headers)).expect("a removal");
        assert_eq!((removal.queue.as_str(), removal.reason), ("p.retries", Reason::Poison));
        assert_eq!(removal.at, DateTime::from_timestamp(1_718_753_174, 0));
        headers.insert("x-last-death-queue".into(), text("p.events"));
        headers.insert("x-last-death-reason".into(), text("rejected"));
        let removal = latest(Some(&headers)).expect("a removal");
        assert_eq!((removal.queue.as_str(), removal.reason), ("p.events", Reason::Rejected));
    }

    #[test]
    fn headers_that_say_little_are_read_as_far_as_possible() {
        let first = table(&[("x-first-death-queue", text("p.events")), ("x-first-death-reason", text("maxlen"))]);
        let removal = latest(Some(&first)).expect("a removal");
        assert_eq!(removal, Removal { queue: "p.events".to_owned(), reason: Reason::Maxlen, at: None });
        let mut deaths = FieldArray::default();
        deaths.push(death("p.events", "expired", 2));
        let repeated = table(&[("x-death", AMQPValue::FieldArray(deaths))]);
        assert_eq!(latest(Some(&repeated)).map(|removal| (removal.reason, removal.at)), Some((Reason::Expired, None)));
        for other in [
            table(&[]),
            table(&[("x-death", text("a publisher's own"))]),
            table(&[("x-death", AMQPValue::FieldArray(FieldArray::default()))]),
        ] {
            assert_eq!(latest(Some(&other)), None);
        }
        assert_eq!(latest(None), None);
    }
}
