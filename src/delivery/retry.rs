//! Deciding what follows an attempt: nothing, a retry at a certain time, or a dead letter.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Delivery;
use super::campaign::RetryOverrides;
use super::dead_letter::Reason;
use super::outcome::Outcome;

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
    /// No attempt begins later than this after the first.
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
    pub fn with(&self, overrides: &RetryOverrides) -> Self {
        Self {
            initial_delay: overrides.initial_delay.unwrap_or(self.initial_delay),
            multiplier: overrides.multiplier.unwrap_or(self.multiplier),
            max_delay: overrides.max_delay.unwrap_or(self.max_delay),
            jitter: overrides.jitter.unwrap_or(self.jitter),
            max_attempts: overrides.max_attempts.unwrap_or(self.max_attempts),
            max_age: overrides.max_age.unwrap_or(self.max_age),
            permanent_statuses: overrides
                .permanent_statuses
                .clone()
                .unwrap_or_else(|| self.permanent_statuses.clone()),
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
    Dead(Reason),
}

/// Decides after an attempt, which `delivery` has recorded already.
pub fn decide(
    policy: &RetryPolicy,
    delivery: &Delivery,
    outcome: &Outcome,
    now: DateTime<Utc>,
) -> Settlement {
    let retry_after = match outcome {
        Outcome::Delivered => return Settlement::Delivered,
        Outcome::Permanent(reason) => return Settlement::Dead(*reason),
        Outcome::Transient { retry_after } => retry_after.unwrap_or_default().min(policy.max_delay),
    };
    if delivery.attempts_made >= policy.max_attempts {
        return Settlement::Dead(Reason::Exhausted);
    }
    let jitter = delivery.id.jitter(delivery.attempts_made);
    // A receiver may ask for a longer wait than ours. A shorter one would spend the attempts before it has recovered.
    let delay = policy
        .delay(delivery.attempts_made, jitter)
        .max(retry_after);
    let due = later(now, delay);
    if due > later(delivery.first_attempt_at.unwrap_or(now), policy.max_age) {
        return Settlement::Dead(Reason::Exhausted);
    }
    Settlement::Retry { due }
}

/// `time + delay`, or the end of time.
fn later(time: DateTime<Utc>, delay: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(delay)
        .ok()
        .and_then(|delay| time.checked_add_signed(delay))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
