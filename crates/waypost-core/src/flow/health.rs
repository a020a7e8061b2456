//! The health of a webhook's receiver, as the diagram shows it.

use crate::endpoint::{BreakerState, EndpointStats};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookHealth {
    /// No request was sent recently.
    Unknown,
    /// All requests of the last minute got a 2xx.
    Healthy,
    /// Some requests of the last minute failed.
    Failing {
        /// From 1 to 100, rounded up.
        percent: u8,
    },
    /// The circuit breaker is open or half-open: only probes are sent.
    Paused,
}

impl WebhookHealth {
    pub fn from_stats(stats: &EndpointStats) -> Self {
        match (stats.breaker, stats.failure_ratio) {
            (BreakerState::Open | BreakerState::HalfOpen, _) => Self::Paused,
            (BreakerState::Closed, None) => Self::Unknown,
            (BreakerState::Closed, Some(ratio)) if ratio > 0.0 => {
                Self::Failing { percent: (ratio * 100.0).ceil().clamp(1.0, 100.0) as u8 }
            }
            (BreakerState::Closed, Some(_)) => Self::Healthy,
        }
    }
}
