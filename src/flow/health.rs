//! How a webhook is doing, as far as a picture tells.

use crate::delivery::endpoint::{BreakerState, EndpointStats};

/// How a webhook's receiver is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nobody knows: nothing was sent of late.
    Unknown,
    /// All requests of the last minute were answered with 2xx.
    Healthy,
    /// Some were not.
    Failing {
        /// So many in a hundred, from 1 on.
        percent: u8,
    },
    /// Its breaker lets nothing through but a probe.
    Paused,
}

impl Health {
    /// The health of a receiver that stands so.
    pub fn from_stats(standing: &EndpointStats) -> Self {
        match (standing.breaker, standing.failure_ratio) {
            (BreakerState::Open | BreakerState::HalfOpen, _) => Self::Paused,
            (BreakerState::Closed, None) => Self::Unknown,
            (BreakerState::Closed, Some(ratio)) if ratio > 0.0 => {
                Self::Failing { percent: (ratio * 100.0).ceil().clamp(1.0, 100.0) as u8 }
            }
            (BreakerState::Closed, Some(_)) => Self::Healthy,
        }
    }
}
