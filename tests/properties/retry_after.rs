//! For any `Retry-After`: seconds and HTTP dates are respected up to the maximum delay, and all other values are
//! ignored.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use waypost_core::outcome::{Outcome, SendResult, classify};
use waypost_core::retry::{RetryPolicy, Settlement, decide};

use super::{now, sample_delivery};

pub(crate) fn holds(header: &str) {
    let times = [now(), DateTime::UNIX_EPOCH, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC];
    for now in times {
        for status in [429, 503] {
            let Outcome::Transient { retry_after } = of_answer(status, header, now) else {
                panic!("{status} must be retried");
            };
            assert_eq!(retry_after, meant(header.trim(), now), "{header:?} at {now}");
        }
        for (status, expected) in
            [(200, Outcome::Delivered), (302, nothing_asked()), (404, nothing_asked()), (500, nothing_asked())]
        {
            assert_eq!(of_answer(status, header, now), expected, "{status} has no Retry-After");
        }
    }
    is_honoured(header);
}

fn of_answer(status: u16, header: &str, now: DateTime<Utc>) -> Outcome {
    classify(&SendResult::Response { status, retry_after: Some(header.to_owned()), body: Vec::new() }, &[410], now)
}

fn nothing_asked() -> Outcome {
    Outcome::Transient { retry_after: None }
}

/// The meaning of a header in RFC 9110: digits are seconds, however many there are, and all else is a date.
fn meant(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds =
            header.bytes().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()));
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = httpdate::parse_http_date(header).ok()?;
    // A date in the past has no effect.
    DateTime::<Utc>::from(date).signed_duration_since(now).to_std().ok()
}

/// The retry is not before the requested time, within the limits of the policy, and never after its maximum delay.
fn is_honoured(header: &str) {
    let policy = RetryPolicy::default();
    let outcome = of_answer(503, header, now());
    let Outcome::Transient { retry_after } = &outcome else { return };
    let mut delivery = sample_delivery();
    delivery.attempts_made = 1;
    delivery.first_attempt_at = Some(now());
    let Settlement::Retry { due } = decide(&policy, &delivery, &outcome, now()) else {
        panic!("the first of twelve attempts must be retried");
    };
    let wait = due.signed_duration_since(now());
    let longest = TimeDelta::from_std(policy.max_delay).expect("a delay");
    let asked = TimeDelta::from_std(retry_after.unwrap_or_default()).unwrap_or(longest).min(longest);
    assert!(asked <= wait && wait <= longest, "{header:?}: asked for {asked}, waits {wait}");
}
