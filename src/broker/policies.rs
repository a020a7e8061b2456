//! What a policy of the broker does to a queue or stream of Waypost. A program cannot undo a policy, and cannot see one
//! over AMQP.
//!
//! Measured on RabbitMQ 3.10: the lower of policy and argument holds for limits and times, a policy's `overflow` beats the
//! queue's `x-overflow`, and the queue's dead-letter arguments beat a policy's.

use std::fmt;

use serde_json::{Map, Value};

use super::delay_queues::DelayTier;
use super::names::Names;
use super::topology::DELIVERY_LIMIT;

/// What a queue or stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Step events.
    Events,
    /// Deliveries that are due again.
    Retries,
    /// Deliveries that wait.
    Delay,
    /// Replays to go on with.
    Replays,
    /// The stream of dead letters.
    DeadLetters,
    /// The stream of configuration.
    Campaigns,
}

impl Purpose {
    fn is_stream(self) -> bool {
        matches!(self, Self::DeadLetters | Self::Campaigns)
    }

    /// What a queue of this name is for.
    pub fn of_queue(queue: &str, names: &Names) -> Self {
        if queue == names.retries() {
            Self::Retries
        } else if queue == names.replays() {
            Self::Replays
        } else if queue == names.dead_letters() {
            Self::DeadLetters
        } else if queue == names.campaigns() {
            Self::Campaigns
        } else if DelayTier::all().any(|rung| queue == names.delay(rung)) {
            Self::Delay
        } else {
            Self::Events
        }
    }
}

/// How bad an effect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Nothing is lost, but something is late, refused or dead.
    Hinders,
    /// Something is lost.
    Loses,
}

/// What one key of a policy does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The key and its value: `message-ttl: 60000`.
    pub key: String,
    /// How bad it is.
    pub harm: Harm,
    /// What happens.
    pub sentence: &'static str,
}

/// A message stays with a worker for as long as an attempt takes, or until its endpoint can take it: some minutes.
const MIN_CONSUMER_TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// A limit that no stream reaches: a petabyte.
const UNREACHABLE_BYTES: u64 = 1_000_000_000_000_000;

/// What a policy's effective definition does to a queue.
pub fn effects(purpose: Purpose, definition: &Map<String, Value>) -> Vec<Effect> {
    let drops = definition.get("overflow").and_then(Value::as_str).is_some_and(|overflow| overflow != "reject-publish");
    let effect = |(key, value): (&String, &Value)| {
        let (harm, sentence) = effect(purpose, key, value, drops)?;
        Some(Effect { key: format!("{key}: {value}"), harm, sentence })
    };
    definition.iter().filter_map(effect).collect()
}

fn effect(purpose: Purpose, key: &str, value: &Value, drops: bool) -> Option<(Harm, &'static str)> {
    use Harm::{Hinders, Loses};
    use Purpose::{Campaigns, DeadLetters, Delay, Events, Replays, Retries};
    let effect = match (key, purpose) {
        ("max-length-bytes", Campaigns | DeadLetters)
            if value.as_u64().is_some_and(|bytes| bytes >= UNREACHABLE_BYTES) =>
        {
            return None;
        }
        ("max-age" | "max-length-bytes", Campaigns) => {
            (Loses, "The oldest changes of configuration are deleted: a new worker misses campaigns.")
        }
        ("max-age" | "max-length-bytes", DeadLetters) => {
            (Loses, "Dead letters are deleted before deadLetters.retention is over.")
        }
        (_, DeadLetters | Campaigns) => return None,
        // With the overflow that these queues are declared with, `reject-publish`, a limit refuses.
        ("max-length" | "max-length-bytes", Events) if drops => {
            (Loses, "When the queue is full, the oldest event is removed, and becomes a dead letter at best.")
        }
        ("max-length" | "max-length-bytes", Retries | Delay) if drops => {
            (Loses, "When the queue is full, the oldest delivery is removed.")
        }
        ("max-length" | "max-length-bytes", Events) => {
            (Hinders, "When the queue is full, publishers' events are refused.")
        }
        ("max-length" | "max-length-bytes", Retries | Delay) => {
            (Hinders, "When the queue is full, retries are refused, and their deliveries wait in the worker.")
        }
        ("max-length" | "max-length-bytes" | "message-ttl", Replays) => (Hinders, "Replays stand still for minutes."),
        ("message-ttl", Events) => {
            (Loses, "Events that wait longer than that are not delivered: they become dead letters.")
        }
        ("message-ttl", Retries) => {
            (Loses, "Deliveries that are due and wait longer than that are not tried again: they become dead letters.")
        }
        ("message-ttl", Delay) => (Hinders, "Deliveries return before they are due, and have to wait again."),
        ("expires", Events | Retries | Replays) => {
            (Loses, "Without a worker for that long, the queue is deleted with its messages.")
        }
        ("expires", Delay) => {
            (Loses, "Nobody consumes it, so the queue is deleted with the deliveries that wait in it.")
        }
        ("delivery-limit", Events | Retries)
            if value.as_u64().is_some_and(|limit| limit < u64::from(DELIVERY_LIMIT)) =>
        {
            (Hinders, "A few restarts of workers make dead letters of what they had in hand.")
        }
        ("overflow", Events | Retries | Delay) if drops => {
            (Loses, "RabbitMQ then moves expired and returned messages at most once: a node that dies can lose them.")
        }
        ("consumer-timeout", Events | Retries | Replays)
            if value.as_u64().is_some_and(|milliseconds| milliseconds < MIN_CONSUMER_TIMEOUT_MS) =>
        {
            (Hinders, "Messages that a worker still works on are given to another one: deliveries are made twice.")
        }
        // Waypost's own arguments come first, or it changes nothing.
        _ => return None,
    };
    Some(effect)
}

/// A policy that applies to a queue of Waypost and harms it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The queue or stream.
    pub queue: String,
    /// The policy's name.
    pub policy: Option<String>,
    /// The operator policy's name. It is laid over the policy.
    pub operator_policy: Option<String>,
    /// What it does.
    pub effect: Effect,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, policy, operator_policy, effect } = self;
        let names = [("policy", policy), ("operator policy", operator_policy)];
        let names: Vec<String> =
            names.iter().filter_map(|(kind, name)| name.as_ref().map(|name| format!("{kind} {name}"))).collect();
        write!(f, "{queue}: {} sets {}. {}", names.join(" with "), effect.key, effect.sentence)
    }
}

/// The findings about a queue.
pub(super) fn findings(
    queue: &str,
    names: &Names,
    policy: Option<&str>,
    operator_policy: Option<&str>,
    definition: &Map<String, Value>,
) -> Vec<Finding> {
    let name = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
    let mut effects = effects(Purpose::of_queue(queue, names), definition);
    if policy.is_none_or(str::is_empty) && operator_policy.is_none_or(str::is_empty) {
        effects.clear();
    }
    let finding = |effect| Finding {
        queue: queue.to_owned(),
        policy: name(policy),
        operator_policy: name(operator_policy),
        effect,
    };
    effects.into_iter().map(finding).collect()
}

/// The commands that exempt Waypost's queues. Only the policy with the highest priority applies to a queue, and the same
/// holds for operator policies; these change nothing themselves. Streams have one of their own: a policy applies to a queue only if all
/// of its keys do, and `delivery-limit` is no key of streams.
pub fn exempting(findings: &[Finding], vhost: &str, names: &Names) -> Vec<String> {
    let pattern = format!("^{}\\.", names.prefix().replace('.', "\\."));
    let mut commands = Vec::new();
    if findings.iter().any(|finding| finding.policy.is_some()) {
        commands.push(format!(
            "rabbitmqctl set_policy -p '{vhost}' --priority 999 --apply-to queues waypost-exempt '{pattern}' \
             '{{\"queue-leader-locator\":\"balanced\"}}'"
        ));
    }
    let by_operator = |is_stream: bool| {
        findings.iter().any(|finding| {
            finding.operator_policy.is_some() && Purpose::of_queue(&finding.queue, names).is_stream() == is_stream
        })
    };
    if by_operator(false) {
        commands.push(format!(
            "rabbitmqctl set_operator_policy -p '{vhost}' --priority 999 --apply-to queues waypost-exempt '{pattern}' \
             '{{\"delivery-limit\":100}}'"
        ));
    }
    if by_operator(true) {
        commands.push(format!(
            "rabbitmqctl set_operator_policy -p '{vhost}' --priority 1000 --apply-to queues waypost-exempt-streams \
             '{pattern}(campaigns|dead-letters)$' '{{\"max-length-bytes\":{UNREACHABLE_BYTES}}}'"
        ));
    }
    commands
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn harms(purpose: Purpose, definition: &Value) -> Vec<Harm> {
        effects(purpose, definition.as_object().expect("an object")).into_iter().map(|effect| effect.harm).collect()
    }

    #[test]
    fn what_a_policy_does_depends_on_the_queue() {
        use Harm::{Hinders, Loses};
        for (purpose, definition, expected) in [
            (Purpose::Events, json!({ "max-length": 1000 }), vec![Hinders]),
            (Purpose::Events, json!({ "max-length": 1000, "overflow": "drop-head" }), vec![Loses, Loses]),
            (Purpose::Delay, json!({ "overflow": "drop-head" }), vec![Loses]),
            (Purpose::Events, json!({ "overflow": "reject-publish" }), vec![]),
            (Purpose::Replays, json!({ "consumer-timeout": 10_000 }), vec![Hinders]),
            (Purpose::Events, json!({ "consumer-timeout": 1_800_000 }), vec![]),
            (Purpose::Events, json!({ "max-length": 1000, "overflow": "reject-publish" }), vec![Hinders]),
            (Purpose::Retries, json!({ "max-length-bytes": 1000, "overflow": "drop-head" }), vec![Loses, Loses]),
            (Purpose::Events, json!({ "message-ttl": 60000 }), vec![Loses]),
            (Purpose::Delay, json!({ "message-ttl": 60000 }), vec![Hinders]),
            (Purpose::Delay, json!({ "expires": 60000 }), vec![Loses]),
            (Purpose::Events, json!({ "delivery-limit": 5 }), vec![Hinders]),
            (Purpose::Campaigns, json!({ "max-length-bytes": 1000 }), vec![Loses]),
            (Purpose::Campaigns, json!({ "max-length-bytes": UNREACHABLE_BYTES }), vec![]),
            (Purpose::DeadLetters, json!({ "max-length-bytes": UNREACHABLE_BYTES, "max-age": "1D" }), vec![Loses]),
            (Purpose::DeadLetters, json!({ "max-age": "1D" }), vec![Loses]),
            (Purpose::DeadLetters, json!({ "max-length": 5, "message-ttl": 1 }), vec![]),
            (
                Purpose::Events,
                json!({ "ha-mode": "all", "dead-letter-exchange": "x", "queue-leader-locator": "balanced" }),
                vec![],
            ),
            (Purpose::Events, json!({}), vec![]),
        ] {
            assert_eq!(harms(purpose, &definition), expected, "{purpose:?} {definition}");
        }
    }

    #[test]
    fn a_finding_names_the_policy_and_how_to_exempt_the_queue() {
        let names = Names::new("waypost");
        let definition = json!({ "message-ttl": 60000, "delivery-limit": 100 });
        let definition = definition.as_object().expect("an object");
        let found = findings("waypost.events", &names, Some(""), Some("limits"), definition);
        assert_eq!(found.len(), 1, "{found:?}");
        let text = found[0].to_string();
        assert!(text.starts_with("waypost.events: operator policy limits sets message-ttl: 60000. Events"), "{text}");
        let commands = exempting(&found, "/", &names);
        assert_eq!(commands.len(), 1);
        assert!(commands[0].starts_with(r"rabbitmqctl set_operator_policy -p '/' --priority 999"), "{commands:?}");
        assert!(findings("waypost.events", &names, None, None, definition).is_empty());

        let definition = json!({ "max-length-bytes": 1000 });
        let definition = definition.as_object().expect("an object");
        let found = |queue| findings(queue, &names, None, Some("limits"), definition);
        let streams = exempting(&found("waypost.campaigns"), "/", &names);
        let expected = "rabbitmqctl set_operator_policy -p '/' --priority 1000 --apply-to queues waypost-exempt-streams \
                        '^waypost\\.(campaigns|dead-letters)$' '{\"max-length-bytes\":1000000000000000}'";
        assert_eq!(streams, [expected]);
        let both = exempting(&[found("waypost.events"), found("waypost.dead-letters")].concat(), "/", &names);
        assert_eq!(both, [commands[0].as_str(), expected]);
        assert_eq!(Purpose::of_queue("waypost.delay.32", &names), Purpose::Delay);
        assert_eq!(Purpose::of_queue("waypost.events.3", &names), Purpose::Events);
    }
}
