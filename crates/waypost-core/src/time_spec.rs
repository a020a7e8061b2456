//! A point in time as people write it: an RFC 3339 time, or how long ago (`2h`).

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{duration, timestamp};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSpec {
    /// `2024-06-18T23:26:14Z`
    At(DateTime<Utc>),
    /// `2h`
    Ago(Duration),
}

impl TimeSpec {
    /// # Errors
    /// A sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = duration::parse(text) {
            return Ok(Self::Ago(ago));
        }
        timestamp::parse(text.trim())
            .map(Self::At)
            .map_err(|_| "write a time as 2024-06-18T23:26:14Z, or how long ago as `30m` or `2h`".to_owned())
    }

    /// The absolute time. The result of `Ago` is never before 1970.
    pub fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => {
                let ago = TimeDelta::from_std(ago).unwrap_or(TimeDelta::MAX);
                now.checked_sub_signed(ago).unwrap_or_default().max(DateTime::UNIX_EPOCH)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_relative_times_are_parsed() {
        let now = timestamp::parse("2026-11-22T03:00:00Z").expect("a time");
        for (text, time) in [
            ("90s", "2026-11-22T02:58:30.000Z"),
            ("1day 2h", "2026-11-21T01:00:00.000Z"),
            ("2024-06-18T20:26:14.206-03:00", "2024-06-18T23:26:14.206Z"),
            ("9000years", "1970-01-01T00:00:00.000Z"),
            ("9000000000years", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp::text(&TimeSpec::parse(text).expect(text).at(now)), time, "{text}");
        }
        for text in ["", "yesterday", "2h ago", "2024-06-18", "-2h"] {
            assert!(TimeSpec::parse(text).expect_err(text).contains("`2h`"), "{text}");
        }
    }
}
