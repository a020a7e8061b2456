//! Decides what happens after an attempt: nothing, a retry at a certain time, or a dead letter.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Delivery;
use super::campaign::{RetryOverrides, Webhook};
use super::duration::TextDuration;
use super::outcome::Outcome;
use super::reason::DeadLetterReason;

/// How often and for how long a delivery is attempted.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The delay before the second attempt.
    pub initial_delay: Duration,
    /// The factor between one delay and the next. At least 1.
    pub multiplier: f64,
    /// The longest delay. It also limits `Retry-After`.
    pub max_delay: Duration,
    /// The largest random change of a delay, as a share of the delay from 0 to 1.
    pub jitter: f64,
    pub max_attempts: u32,
    /// No attempt is scheduled later than this after the first attempt. An attempt that is late because no worker was
    /// running is still made.
    pub max_age: Duration,
    /// The statuses that end a delivery immediately.
    pub permanent_statuses: Vec<u16>,
}

impl Default for RetryPolicy {
    /// Twelve attempts over about 22 hours.
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_secs(5),
            multiplier: 3.0,
            max_delay: Duration::from_secs(6 * 3600),
            jitter: 0.2,
            max_attempts: 12,
            max_age: Duration::from_secs(48 * 3600),
            permanent_statuses: vec![410],
        }
    }
}

impl RetryPolicy {
    /// The policy with the overrides of `webhook`.
    pub fn for_webhook(&self, webhook: &Webhook) -> Cow<'_, Self> {
        if webhook.retry.is_empty() { Cow::Borrowed(self) } else { Cow::Owned(self.with_overrides(&webhook.retry)) }
    }

    fn with_overrides(&self, overrides: &RetryOverrides) -> Self {
        Self {
            initial_delay: overrides.initial_delay.as_ref().map_or(self.initial_delay, TextDuration::value),
            multiplier: overrides.multiplier.unwrap_or(self.multiplier),
            max_delay: overrides.max_delay.as_ref().map_or(self.max_delay, TextDuration::value),
            jitter: overrides.jitter.unwrap_or(self.jitter),
            max_attempts: overrides.max_attempts.unwrap_or(self.max_attempts),
            max_age: overrides.max_age.as_ref().map_or(self.max_age, TextDuration::value),
            permanent_statuses: overrides.permanent_statuses.clone().unwrap_or_else(|| self.permanent_statuses.clone()),
        }
    }

    /// The delay after attempt number `attempt`, counted from 1. `random` is a number from 0 to 1.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let max = self.max_delay.as_secs_f64();
        let base = (self.initial_delay.as_secs_f64() * self.multiplier.powi(exponent)).min(max);
        let jitter = base * self.jitter * (2.0 * random - 1.0);
        Duration::from_secs_f64((base + jitter).clamp(0.0, max))
    }
}

/// The next step of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    Delivered,
    Retry { due: DateTime<Utc> },
    Dead(DeadLetterReason),
}

/// Decides the next step after an attempt. `delivery` must already have recorded the attempt.
pub fn decide(policy: &RetryPolicy, delivery: &Delivery, outcome: &Outcome, now: DateTime<Utc>) -> Settlement {
    let retry_after = match outcome {
        Outcome::Delivered => return Settlement::Delivered,
        Outcome::Permanent(reason) => return Settlement::Dead(*reason),
        Outcome::Transient { retry_after } => retry_after.unwrap_or_default().min(policy.max_delay),
    };
    if delivery.attempts_made >= policy.max_attempts {
        return Settlement::Dead(DeadLetterReason::Exhausted);
    }
    let random = delivery.id.jitter(delivery.attempts_made);
    // A receiver can only lengthen the delay. A shorter delay would use up the attempts before the receiver recovers.
    let delay = policy.delay(delivery.attempts_made, random).max(retry_after);
    let due = add_saturating(now, delay);
    if due > add_saturating(delivery.first_attempt_at.unwrap_or(now), policy.max_age) {
        return Settlement::Dead(DeadLetterReason::Exhausted);
    }
    Settlement::Retry { due }
}

/// Decides the next step after the only attempt of a replay: why the delivery is dead, or `None` if it was delivered.
pub fn decide_once(outcome: &Outcome) -> Option<DeadLetterReason> {
    match outcome {
        Outcome::Delivered => None,
        Outcome::Permanent(reason) => Some(*reason),
        Outcome::Transient { .. } => Some(DeadLetterReason::Exhausted),
    }
}

/// Parks a delivery for `delay` without an attempt, and returns when it is due again. The age of a delivery without an
/// attempt counts from when it was first parked, so that no delivery waits forever.
///
/// # Errors
/// If the delivery would be older than `max_age` then.
pub fn park(
    policy: &RetryPolicy,
    delivery: &mut Delivery,
    delay: Duration,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, DeadLetterReason> {
    let since = delivery.first_attempt_at.unwrap_or_else(|| *delivery.parked_at.get_or_insert(now));
    let due = add_saturating(now, delay);
    if due > add_saturating(since, policy.max_age) { Err(DeadLetterReason::Exhausted) } else { Ok(due) }
}

/// `time + delay`, or the latest possible time.
fn add_saturating(time: DateTime<Utc>, delay: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(delay).ok().and_then(|delay| time.checked_add_signed(delay)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document;
    use crate::egress::HttpUrls;
    use crate::outcome::Cause;
    use crate::{Attempt, event};

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A delivery with `attempts` failed attempts, which began `age` ago.
    fn failed(attempts: u32, age: TimeDelta) -> Delivery {
        let document = br#"{"id":"c","sections":[{"label":"l","webhook":{"id":"wh_1","url":"https://example.com/"}}]}"#;
        let campaign = document::read(document, HttpUrls::Refused, None).unwrap();
        let body =
            br#"{"campaignId":"c","label":"l","phoneNumber":"1","date":"2024-06-18T23:26:14.206Z","eventId":"e"}"#;
        let event = event::decode(body, None).unwrap();
        let target = campaign.places().next().unwrap().target();
        let mut delivery = Delivery::new(event, target, None);
        for _ in 0..attempts {
            let at = now() - age;
            let (status, cause) = (Some(500), Cause::Status5xx);
            delivery.record(Attempt { at, duration_ms: 1, status, cause, error: None, answer: None });
        }
        delivery
    }

    fn transient(retry_after: Option<u64>) -> Outcome {
        Outcome::Transient { retry_after: retry_after.map(Duration::from_secs) }
    }

    fn delay_seconds(settlement: &Settlement) -> Option<f64> {
        match settlement {
            Settlement::Retry { due } => Some(due.signed_duration_since(now()).as_seconds_f64()),
            _ => None,
        }
    }

    #[test]
    fn the_default_policy_takes_about_22_hours() {
        let policy = RetryPolicy::default();
        let delays: Vec<u64> = (1..=11).map(|attempt| policy.delay(attempt, 0.5).as_secs()).collect();
        assert_eq!(delays, [5, 15, 45, 135, 405, 1215, 3645, 10_935, 21_600, 21_600, 21_600]);
        let hours = delays.iter().sum::<u64>() as f64 / 3600.0;
        assert!((22.0..23.0).contains(&hours), "all attempts within {hours} h");
        assert_eq!(policy.delay(1, 0.0), seconds(4));
        assert_eq!(policy.delay(1, 1.0), seconds(6));
    }

    #[test]
    fn an_attempt_ends_in_delivery_retry_or_dead_letter() {
        let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        let fresh = TimeDelta::zero();
        let decide = |attempts, age, outcome| decide(&policy, &failed(attempts, age), &outcome, now());
        assert_eq!(decide(1, fresh, Outcome::Delivered), Settlement::Delivered);
        assert_eq!(
            decide(1, fresh, Outcome::Permanent(DeadLetterReason::Gone)),
            Settlement::Dead(DeadLetterReason::Gone)
        );
        assert_eq!(delay_seconds(&decide(1, fresh, transient(None))), Some(5.0));
        assert_eq!(delay_seconds(&decide(3, fresh, transient(None))), Some(45.0));
        assert_eq!(delay_seconds(&decide(11, fresh, transient(None))), Some(21_600.0));
        assert_eq!(decide(12, fresh, transient(None)), Settlement::Dead(DeadLetterReason::Exhausted));
        assert_eq!(
            decide(11, TimeDelta::hours(43), transient(None)),
            Settlement::Dead(DeadLetterReason::Exhausted),
            "too old"
        );
    }

    #[test]
    fn the_only_attempt_ends_in_delivery_or_dead_letter() {
        let policy = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        for (outcome, reason) in [
            (Outcome::Delivered, None),
            (Outcome::Permanent(DeadLetterReason::Gone), Some(DeadLetterReason::Gone)),
            (Outcome::Permanent(DeadLetterReason::ForbiddenAddress), Some(DeadLetterReason::ForbiddenAddress)),
            (transient(None), Some(DeadLetterReason::Exhausted)),
            (transient(Some(60)), Some(DeadLetterReason::Exhausted)),
        ] {
            assert_eq!(decide_once(&outcome), reason, "{outcome:?}");
            let with_one_attempt = decide(&policy, &failed(1, TimeDelta::zero()), &outcome, now());
            assert_eq!(with_one_attempt, reason.map_or(Settlement::Delivered, Settlement::Dead), "{outcome:?}");
        }
    }

    #[test]
    fn a_parked_delivery_ages_without_attempts() {
        let policy = RetryPolicy::default();
        let park = |mut delivery: Delivery| {
            let due = park(&policy, &mut delivery, seconds(60), now());
            (due.map(|due| (due - now()).num_seconds()), delivery.parked_at.map(|since| (now() - since).num_hours()))
        };
        let fresh = || failed(0, TimeDelta::zero());
        let never_attempted = |hours| Delivery { parked_at: Some(now() - TimeDelta::hours(hours)), ..fresh() };
        assert_eq!(park(failed(12, TimeDelta::hours(47))), (Ok(60), None));
        assert_eq!(park(failed(1, TimeDelta::hours(48))), (Err(DeadLetterReason::Exhausted), None));
        assert_eq!(park(fresh()), (Ok(60), Some(0)));
        assert_eq!(park(never_attempted(47)), (Ok(60), Some(47)));
        assert_eq!(park(never_attempted(48)), (Err(DeadLetterReason::Exhausted), Some(48)));
    }

    #[test]
    fn retry_after_can_only_lengthen_the_delay() {
        let policy = RetryPolicy { jitter: 0.0, max_delay: seconds(600), ..RetryPolicy::default() };
        for (retry_after, expected) in
            [(Some(60), 60.0), (Some(1), 5.0), (Some(0), 5.0), (Some(86_400), 600.0), (None, 5.0)]
        {
            let settlement = decide(&policy, &failed(1, TimeDelta::zero()), &transient(retry_after), now());
            assert_eq!(delay_seconds(&settlement), Some(expected), "Retry-After: {retry_after:?}");
        }
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_the_maximum(
            initial in 1_u64..86_400, multiplier in 1.0..1000.0_f64, max in 1_u64..1_000_000, jitter in 0.0..=1.0_f64,
            attempt in 0_u32..u32::MAX, random in 0.0..=1.0_f64,
        ) {
            let policy = RetryPolicy {
                initial_delay: seconds(initial), multiplier, max_delay: seconds(max), jitter, ..RetryPolicy::default()
            };
            prop_assert!(policy.delay(attempt, random) <= seconds(max));
        }
    }
}
