//! Times as Waypost writes them: RFC 3339, UTC, milliseconds (`2024-06-18T23:26:14.206Z`). A serde `with` module.
//!
//! What is read here is written as the same: it has no more than milliseconds, and no year that RFC 3339 has no digits for.

use chrono::{DateTime, Datelike as _, SecondsFormat, SubsecRound as _, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serializer};

/// The text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimeError {
    /// It is not written like one, or is not of the years 0 to 9999 in UTC.
    #[error("not an RFC 3339 date")]
    NotADate,
    /// It has the second 60 when UTC has none.
    #[error("not an RFC 3339 date: the second 60 is possible only at 23:59:60 UTC")]
    NoLeapSecond,
}

/// The last millisecond before a leap second, which is written as it.
const BEFORE_LEAP_SECOND: u32 = 999_000_000;

/// The text of a time.
pub fn text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads RFC 3339 with any offset, to the millisecond. A leap second is the last millisecond before it.
///
/// # Errors
/// If the text is no such time, is not of the years 0 to 9999 in UTC, or is a leap second at a time other than
/// 23:59:60 UTC. The day is not checked: which days have a leap second is announced half a year before.
pub fn parse(text: &str) -> Result<DateTime<Utc>, ParseTimeError> {
    let time = read(text)?;
    let can_be = !is_leap_second(&time) || (time.hour(), time.minute()) == (23, 59);
    if can_be { Ok(without_leap_second(time)) } else { Err(ParseTimeError::NoLeapSecond) }
}

/// As [`parse`], but with a leap second at any time, for what was stored when they were not checked.
fn parse_stored(text: &str) -> Result<DateTime<Utc>, ParseTimeError> {
    read(text).map(without_leap_second)
}

fn read(text: &str) -> Result<DateTime<Utc>, ParseTimeError> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| ParseTimeError::NotADate)?.with_timezone(&Utc);
    // Near the ends of RFC 3339's range an offset leads out of it: such a time could be written, but not read again.
    if (0..=9999).contains(&time.year()) { Ok(time.trunc_subsecs(3)) } else { Err(ParseTimeError::NotADate) }
}

/// Chrono has a leap second as more than a second's nanoseconds.
fn is_leap_second(time: &DateTime<Utc>) -> bool {
    time.nanosecond() >= 1_000_000_000
}

fn without_leap_second(time: DateTime<Utc>) -> DateTime<Utc> {
    if is_leap_second(&time) { time.with_nanosecond(BEFORE_LEAP_SECOND).unwrap_or(time) } else { time }
}

/// For `#[serde(with)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(time))
}

/// For `#[serde(with)]`.
///
/// # Errors
/// Where the value is no RFC 3339 text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse_stored(&text).map_err(serde::de::Error::custom)
}

/// The same for a time that may be absent.
pub mod optional {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// Where the value is neither null nor RFC 3339 text.
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
    fn what_is_read_is_written_as_the_same() {
        for (written, expected) in [
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
            let time = parse(written).ok();
            assert_eq!(time.as_ref().map(text).as_deref(), expected, "{written}");
            assert_eq!(expected.map(parse), time.map(Ok), "{written}");
        }
    }

    #[test]
    fn a_second_60_is_told_from_what_is_no_date() {
        assert_eq!(parse("2024-06-18T23:26:60Z"), Err(ParseTimeError::NoLeapSecond));
        assert_eq!(parse("2024-06-18T23:26:61Z"), Err(ParseTimeError::NotADate));
    }

    /// Until leap seconds were checked, any minute could have one; what waits with such a date is still read.
    #[test]
    fn what_was_stored_is_read() {
        for stored in ["2016-12-31T23:59:60.123Z", "2024-06-18T23:26:60.000Z"] {
            let time = parse_stored(stored).expect("a time");
            assert!(text(&time).ends_with(":59.999Z"), "{stored}");
            assert_eq!(parse(&text(&time)), Ok(time));
        }
    }
}
