//! Endpoints that come and go: every few seconds another one goes away, and it comes back after a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::common::receiver::{EndpointBehavior, Receiver};

const CHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// The number of endpoints that are away at a time.
const AWAY: usize = 4;

/// The behaviour of an endpoint while it is away. Half of these endpoints answer 410, so that there are dead letters all
/// the time.
const BEHAVIORS: [EndpointBehavior; 4] =
    [EndpointBehavior::Gone, EndpointBehavior::Failing, EndpointBehavior::Gone, EndpointBehavior::Hanging];

/// Changes endpoints until a time. All have come back then.
pub(crate) async fn come_and_go(receiver: &Receiver, endpoints: usize, until: Instant) {
    let mut away = VecDeque::new();
    let mut interval = tokio::time::interval(CHANGE_INTERVAL);
    for turn in 0.. {
        interval.tick().await;
        if Instant::now() >= until {
            break;
        }
        let endpoint = turn % endpoints;
        receiver.set_behavior(endpoint, BEHAVIORS[turn % BEHAVIORS.len()]);
        away.push_back(endpoint);
        if away.len() > AWAY {
            receiver.set_behavior(away.pop_front().unwrap_or(endpoint), EndpointBehavior::Healthy);
        }
    }
    for endpoint in away {
        receiver.set_behavior(endpoint, EndpointBehavior::Healthy);
    }
}
