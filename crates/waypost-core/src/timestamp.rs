//! The format of times: RFC 3339 in UTC with milliseconds (`2024-06-18T23:26:14.206Z`). A serde `with` module.
//!
//! A parsed time always survives a round trip: it has no more than milliseconds, and a year from 0 to 9999.

use chrono::{DateTime, Datelike as _, SecondsFormat, SubsecRound as _, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimeError {
    /// The format is wrong, or the year in UTC is not within 0 to 9999.
    #[error("not an RFC 3339 date")]
    NotADate,
    /// The second is 60 at a time when UTC cannot have a leap second.
    #[error("not an RFC 3339 date: the second 60 is possible only at 23:59:60 UTC")]
    NoLeapSecond,
}

/// The last millisecond before a leap second, which replaces the leap second.
const BEFORE_LEAP_SECOND_NANOS: u32 = 999_000_000;

pub fn text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Parses RFC 3339 with any offset, to the millisecond. A leap second becomes the last millisecond before it.
///
/// # Errors
/// If the text is not RFC 3339, if the year in UTC is not within 0 to 9999, or for a leap second at a time other than
/// 23:59:60 UTC. The day is not checked, because leap seconds are announced only half a year ahead.
pub fn parse(text: &str) -> Result<DateTime<Utc>, ParseTimeError> {
    let time = parse_unchecked(text)?;
    let is_possible = !is_leap_second(&time) || (time.hour(), time.minute()) == (23, 59);
    if is_possible { Ok(without_leap_second(time)) } else { Err(ParseTimeError::NoLeapSecond) }
}

/// Like [`parse`], but accepts a leap second at any time: older versions stored them unchecked.
fn parse_stored(text: &str) -> Result<DateTime<Utc>, ParseTimeError> {
    parse_unchecked(text).map(without_leap_second)
}

fn parse_unchecked(text: &str) -> Result<DateTime<Utc>, ParseTimeError> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| ParseTimeError::NotADate)?.with_timezone(&Utc);
    // An offset can move the year out of RFC 3339's range. Such a time could be formatted, but not parsed again.
    if (0..=9999).contains(&time.year()) { Ok(time.trunc_subsecs(3)) } else { Err(ParseTimeError::NotADate) }
}

/// Chrono represents a leap second as 1,000,000,000 nanoseconds or more.
fn is_leap_second(time: &DateTime<Utc>) -> bool {
    time.nanosecond() >= 1_000_000_000
}

fn without_leap_second(time: DateTime<Utc>) -> DateTime<Utc> {
    if is_leap_second(&time) { time.with_nanosecond(BEFORE_LEAP_SECOND_NANOS).unwrap_or(time) } else { time }
}

/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(time))
}

/// # Errors
/// If the value is not RFC 3339 text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse_stored(&text).map_err(serde::de::Error::custom)
}

/// The serde module for an optional time.
pub mod optional {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// # Errors
    /// If the value is neither null nor RFC 3339 text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| super::parse_stored(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsed_time_survives_a_round_trip() {
        for (input, expected) in [
            ("2024-06-18T23:26:14.206999999Z", Some("2024-06-18T23:26:14.206Z")),
            ("1969-12-31T23:59:59.9999Z", Some("1969-12-31T23:59:59.999Z")),
            ("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59.999Z")),
            ("2016-12-31T23:59:60.9999Z", Some("2016-12-31T23:59:59.999Z")),
            ("2017-01-01T05:29:60+05:30", Some("2016-12-31T23:59:59.999Z")),
            ("2016-12-31T20:59:60-03:00", Some("2016-12-31T23:59:59.999Z")),
            ("2016-12-31T23:59:60+01:00", None),
            ("2016-12-31T23:58:60Z", None),
            ("2016-12-31T00:00:60Z", None),
            ("2016-12-31T23:59:61Z", None),
            ("0000-01-01T00:00:00+00:00", Some("0000-01-01T00:00:00.000Z")),
            ("9999-12-31T23:59:59.9999+00:00", Some("9999-12-31T23:59:59.999Z")),
            ("0000-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:59-00:01", None),
        ] {
            let time = parse(input).ok();
            assert_eq!(time.as_ref().map(text).as_deref(), expected, "{input}");
            assert_eq!(expected.map(parse), time.map(Ok), "{input}");
        }
    }

    #[test]
    fn an_impossible_leap_second_has_its_own_error() {
        assert_eq!(parse("2024-06-18T23:26:60Z"), Err(ParseTimeError::NoLeapSecond));
        assert_eq!(parse("2024-06-18T23:26:61Z"), Err(ParseTimeError::NotADate));
    }

    /// Older versions accepted a leap second in any minute. Their waiting deliveries must still be readable.
    #[test]
    fn a_stored_leap_second_is_accepted_at_any_time() {
        for stored in ["2016-12-31T23:59:60.123Z", "2024-06-18T23:26:60.000Z"] {
            let time = parse_stored(stored).expect("a time");
            assert!(text(&time).ends_with(":59.999Z"), "{stored}");
            assert_eq!(parse(&text(&time)), Ok(time));
        }
    }
}
