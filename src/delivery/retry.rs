//! Deciding what follows an attempt: nothing, a retry at a certain time, or a dead letter.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Delivery;
use super::campaign::{RetryOverrides, Webhook};
use super::duration::TextDuration;
use super::outcome::Outcome;
use super::reason::DeadLetterReason;

/// How often and how long a delivery is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The delay before the second attempt.
    pub initial_delay: Duration,
    /// Each delay is the one before times this; at least 1.
    pub multiplier: f64,
    /// No delay is longer, one asked for by `Retry-After` included.
    pub max_delay: Duration,
    /// Each delay is made longer or shorter by up to this share of it; 0 to 1.
    pub jitter: f64,
    /// No more attempts than these.
    pub max_attempts: u32,
    /// No attempt is planned for later than this after the first. One that comes late, because no worker was running,
    /// is made all the same.
    pub max_age: Duration,
    /// The statuses that end a delivery at once.
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
    /// The policy of a webhook.
    pub fn for_webhook(&self, webhook: &Webhook) -> Cow<'_, Self> {
        if webhook.retry.is_empty() { Cow::Borrowed(self) } else { Cow::Owned(self.with(&webhook.retry)) }
    }

    fn with(&self, overrides: &RetryOverrides) -> Self {
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

    /// The delay after attempt `attempt` (the first is 1). `jitter` is a number in 0..1.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let cap = self.max_delay.as_secs_f64();
        let plain = (self.initial_delay.as_secs_f64() * self.multiplier.powi(exponent)).min(cap);
        let spread = plain * self.jitter * (2.0 * jitter - 1.0);
        Duration::from_secs_f64((plain + spread).clamp(0.0, cap))
    }
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// The receiver has it: nothing is left to do.
    Delivered,
    /// It is tried again.
    Retry {
        /// Not before.
        due: DateTime<Utc>,
    },
    /// It is given up and kept.
    Dead(DeadLetterReason),
}

/// Decides after an attempt, which `delivery` has recorded already.
pub fn decide(policy: &RetryPolicy, delivery: &Delivery, outcome: &Outcome, now: DateTime<Utc>) -> Settlement {
    let retry_after = match outcome {
        Outcome::Delivered => return Settlement::Delivered,
        Outcome::Permanent(reason) => return Settlement::Dead(*reason),
        Outcome::Transient { retry_after } => retry_after.unwrap_or_default().min(policy.max_delay),
    };
    if delivery.attempts_made >= policy.max_attempts {
        return Settlement::Dead(DeadLetterReason::Exhausted);
    }
    let jitter = delivery.id.jitter(delivery.attempts_made);
    // A receiver may ask for a longer wait than ours. A shorter one would spend the attempts before it has recovered.
    let delay = policy.delay(delivery.attempts_made, jitter).max(retry_after);
    let due = later(now, delay);
    if due > later(delivery.first_attempt_at.unwrap_or(now), policy.max_age) {
        return Settlement::Dead(DeadLetterReason::Exhausted);
    }
    Settlement::Retry { due }
}

/// Parks a delivery that its endpoint can't take for `time`: tells when it comes back. One that is never attempted ages from
/// when it was first parked, so that no endpoint keeps anything for ever.
///
/// # Errors
/// Why it is given up instead.
pub fn park(
    policy: &RetryPolicy,
    delivery: &mut Delivery,
    time: Duration,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, DeadLetterReason> {
    let since = delivery.first_attempt_at.unwrap_or_else(|| *delivery.parked_at.get_or_insert(now));
    let due = later(now, time);
    if due > later(since, policy.max_age) { Err(DeadLetterReason::Exhausted) } else { Ok(due) }
}

/// `time + delay`, or the end of time.
fn later(time: DateTime<Utc>, delay: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(delay).ok().and_then(|delay| time.checked_add_signed(delay)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::document;
    use crate::delivery::egress::HttpUrls;
    use crate::delivery::outcome::Cause;
    use crate::delivery::{Attempt, event};
    use proptest::prelude::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A delivery that has failed `attempts` times, `since` apart from now.
    fn failed(attempts: u32, since: TimeDelta) -> Delivery {
        let document = br#"{"id":"c","sections":[{"label":"l","webhook":{"id":"wh_1","url":"https://example.com/"}}]}"#;
        let campaign = document::read(document, HttpUrls::Refused, None).unwrap();
        let body =
            br#"{"campaignId":"c","label":"l","phoneNumber":"1","date":"2024-06-18T23:26:14.206Z","eventId":"e"}"#;
        let event = event::decode(body, None).unwrap();
        let target = campaign.places().next().unwrap().target();
        let mut delivery = Delivery::new(event, target, None);
        for _ in 0..attempts {
            let at = now() - since;
            let (status, cause) = (Some(500), Cause::Status5xx);
            delivery.record(Attempt { at, duration_ms: 1, status, cause, error: None, answer: None });
        }
        delivery
    }

    fn transient(retry_after: Option<u64>) -> Outcome {
        Outcome::Transient { retry_after: retry_after.map(Duration::from_secs) }
    }

    fn wait(settlement: &Settlement) -> Option<f64> {
        match settlement {
            Settlement::Retry { due } => Some(due.signed_duration_since(now()).as_seconds_f64()),
            _ => None,
        }
    }

    #[test]
    fn the_default_delays() {
        let policy = RetryPolicy::default();
        let plain: Vec<u64> = (1..=11).map(|attempt| policy.delay(attempt, 0.5).as_secs()).collect();
        assert_eq!(plain, [5, 15, 45, 135, 405, 1215, 3645, 10_935, 21_600, 21_600, 21_600]);
        let hours = plain.iter().sum::<u64>() as f64 / 3600.0;
        assert!((22.0..23.0).contains(&hours), "all attempts within {hours} h");
        assert_eq!(policy.delay(1, 0.0), seconds(4));
        assert_eq!(policy.delay(1, 1.0), seconds(6));
    }

    #[test]
    fn what_follows() {
        let policy = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
        let fresh = TimeDelta::zero();
        let decide = |attempts, since, outcome| decide(&policy, &failed(attempts, since), &outcome, now());
        assert_eq!(decide(1, fresh, Outcome::Delivered), Settlement::Delivered);
        assert_eq!(
            decide(1, fresh, Outcome::Permanent(DeadLetterReason::Gone)),
            Settlement::Dead(DeadLetterReason::Gone)
        );
        assert_eq!(wait(&decide(1, fresh, transient(None))), Some(5.0));
        assert_eq!(wait(&decide(3, fresh, transient(None))), Some(45.0));
        assert_eq!(wait(&decide(11, fresh, transient(None))), Some(21_600.0));
        assert_eq!(decide(12, fresh, transient(None)), Settlement::Dead(DeadLetterReason::Exhausted));
        assert_eq!(
            decide(11, TimeDelta::hours(43), transient(None)),
            Settlement::Dead(DeadLetterReason::Exhausted),
            "too old"
        );
    }

    #[test]
    fn what_is_parked_spends_no_attempt_and_ages() {
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
    fn a_receiver_may_ask_for_a_longer_wait_and_for_no_shorter_one() {
        let policy = RetryPolicy { jitter: 0.0, max_delay: seconds(600), ..RetryPolicy::default() };
        for (asked, expected) in [(Some(60), 60.0), (Some(1), 5.0), (Some(0), 5.0), (Some(86_400), 600.0), (None, 5.0)]
        {
            let settlement = decide(&policy, &failed(1, TimeDelta::zero()), &transient(asked), now());
            assert_eq!(wait(&settlement), Some(expected), "Retry-After: {asked:?}");
        }
    }

    proptest! {
        #[test]
        fn delays_stay_within_their_bounds(
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
