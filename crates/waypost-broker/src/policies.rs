//! Effects of broker policies on Waypost's queues and streams. AMQP does not show policies, and a client cannot undo
//! one.
//!
//! Measured on RabbitMQ 3.10: for limits and times the lower of policy and argument holds. A policy's `overflow`
//! overrides the queue's `x-overflow`. The queue's dead-letter arguments override a policy's.

use std::fmt;

use serde_json::{Map, Value};

use super::delay_queues::DelayQueue;
use super::names::Names;
use super::topology::DELIVERY_LIMIT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueRole {
    Events,
    Retries,
    Delay,
    Replays,
    DeadLetters,
    Campaigns,
}

impl QueueRole {
    fn is_stream(self) -> bool {
        matches!(self, Self::DeadLetters | Self::Campaigns)
    }

    pub fn of_queue(queue: &str, names: &Names) -> Self {
        if queue == names.retries() {
            Self::Retries
        } else if queue == names.replays() {
            Self::Replays
        } else if queue == names.dead_letters() {
            Self::DeadLetters
        } else if queue == names.campaigns() {
            Self::Campaigns
        } else if DelayQueue::all().any(|delay_queue| queue == names.delay(delay_queue)) {
            Self::Delay
        } else {
            Self::Events
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is lost, but messages are late, refused or become dead letters.
    Degradation,
    MessageLoss,
}

/// The effect of one key of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyEffect {
    /// The key and its value: `message-ttl: 60000`.
    pub key: String,
    pub severity: Severity,
    /// A sentence for people.
    pub description: &'static str,
}

/// A worker holds a message while it makes an attempt or waits for a slot of the endpoint: up to some minutes.
const MIN_CONSUMER_TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// A limit that no stream reaches: a petabyte.
const UNREACHABLE_BYTES: u64 = 1_000_000_000_000_000;

/// The harmful effects of an effective policy definition.
pub fn effects(role: QueueRole, definition: &Map<String, Value>) -> Vec<PolicyEffect> {
    let drops = definition.get("overflow").and_then(Value::as_str).is_some_and(|overflow| overflow != "reject-publish");
    let effect = |(key, value): (&String, &Value)| {
        let (severity, description) = effect_of_key(role, key, value, drops)?;
        Some(PolicyEffect { key: format!("{key}: {value}"), severity, description })
    };
    definition.iter().filter_map(effect).collect()
}

/// `drops`: the queue drops messages when it is full, instead of refusing new ones.
fn effect_of_key(role: QueueRole, key: &str, value: &Value, drops: bool) -> Option<(Severity, &'static str)> {
    use QueueRole::{Campaigns, DeadLetters, Delay, Events, Replays, Retries};
    use Severity::{Degradation, MessageLoss};
    let effect = match (key, role) {
        ("max-length-bytes", Campaigns | DeadLetters)
            if value.as_u64().is_some_and(|bytes| bytes >= UNREACHABLE_BYTES) =>
        {
            return None;
        }
        ("max-age" | "max-length-bytes", Campaigns) => {
            (MessageLoss, "The oldest configuration changes are deleted, so a new worker misses campaigns.")
        }
        ("max-age" | "max-length-bytes", DeadLetters) => {
            (MessageLoss, "Dead letters are deleted before deadLetters.retention ends.")
        }
        (_, DeadLetters | Campaigns) => return None,
        // These queues are declared with the overflow `reject-publish`, so a full queue refuses messages.
        ("max-length" | "max-length-bytes", Events) if drops => {
            (MessageLoss, "When the queue is full, the oldest event is removed. At best it becomes a dead letter.")
        }
        ("max-length" | "max-length-bytes", Retries | Delay) if drops => {
            (MessageLoss, "When the queue is full, the oldest delivery is removed.")
        }
        ("max-length" | "max-length-bytes", Events) => {
            (Degradation, "When the queue is full, the broker refuses new events.")
        }
        ("max-length" | "max-length-bytes", Retries | Delay) => {
            (Degradation, "When the queue is full, the broker refuses retries. Their deliveries wait in the worker.")
        }
        ("max-length" | "max-length-bytes" | "message-ttl", Replays) => (Degradation, "Replays stop for minutes."),
        ("message-ttl", Events) => {
            (MessageLoss, "Events that wait longer are not delivered: they become dead letters.")
        }
        ("message-ttl", Retries) => {
            (MessageLoss, "Due deliveries that wait longer are not retried: they become dead letters.")
        }
        ("message-ttl", Delay) => (Degradation, "Deliveries return before they are due and have to wait again."),
        ("expires", Events | Retries | Replays) => {
            (MessageLoss, "If no worker runs for that long, the queue is deleted with its messages.")
        }
        ("expires", Delay) => {
            (MessageLoss, "The queue has no consumers, so the broker deletes it with the deliveries that wait in it.")
        }
        ("delivery-limit", Events | Retries)
            if value.as_u64().is_some_and(|limit| limit < u64::from(DELIVERY_LIMIT)) =>
        {
            (Degradation, "After a few restarts of workers, the messages that they had in flight become dead letters.")
        }
        ("overflow", Events | Retries | Delay) if drops => {
            (MessageLoss, "RabbitMQ then dead-letters messages at most once: they are lost if a node fails.")
        }
        ("consumer-timeout", Events | Retries | Replays)
            if value.as_u64().is_some_and(|milliseconds| milliseconds < MIN_CONSUMER_TIMEOUT_MS) =>
        {
            (
                Degradation,
                "Messages that a worker still processes are delivered to another worker: receivers get requests twice.",
            )
        }
        // Waypost's own arguments override the key, or the key is harmless.
        _ => return None,
    };
    Some(effect)
}

/// A harmful effect of the policies that apply to one of Waypost's queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFinding {
    /// The name of the queue or stream.
    pub queue: String,
    pub policy: Option<String>,
    /// RabbitMQ merges the operator policy into the policy, so either may set the key.
    pub operator_policy: Option<String>,
    pub effect: PolicyEffect,
}

impl fmt::Display for PolicyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, policy, operator_policy, effect } = self;
        let names = [("policy", policy), ("operator policy", operator_policy)];
        let names: Vec<String> =
            names.iter().filter_map(|(kind, name)| name.as_ref().map(|name| format!("{kind} {name}"))).collect();
        write!(f, "{queue}: {} sets {}. {}", names.join(" with "), effect.key, effect.description)
    }
}

pub(super) fn harmful_effects(
    queue: &str,
    names: &Names,
    policy: Option<&str>,
    operator_policy: Option<&str>,
    definition: &Map<String, Value>,
) -> Vec<PolicyFinding> {
    let name = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
    let mut effects = effects(QueueRole::of_queue(queue, names), definition);
    if policy.is_none_or(str::is_empty) && operator_policy.is_none_or(str::is_empty) {
        effects.clear();
    }
    let finding = |effect| PolicyFinding {
        queue: queue.to_owned(),
        policy: name(policy),
        operator_policy: name(operator_policy),
        effect,
    };
    effects.into_iter().map(finding).collect()
}

/// The `rabbitmqctl` commands that exempt Waypost's queues from the policies.
///
/// Only the policy with the highest priority applies to a queue, and the same holds for operator policies. The commands
/// set policies of a higher priority that change nothing. Streams get an operator policy of their own: a policy applies
/// to a queue only if all of its keys do, and `delivery-limit` is not a key of streams.
pub fn exemption_commands(findings: &[PolicyFinding], vhost: &str, names: &Names) -> Vec<String> {
    let pattern = format!("^{}\\.", names.prefix().replace('.', "\\."));
    let mut commands = Vec::new();
    if findings.iter().any(|finding| finding.policy.is_some()) {
        commands.push(format!(
            "rabbitmqctl set_policy -p '{vhost}' --priority 999 --apply-to queues waypost-exempt '{pattern}' \
             '{{\"queue-leader-locator\":\"balanced\"}}'"
        ));
    }
    let has_operator_policy = |is_stream: bool| {
        findings.iter().any(|finding| {
            finding.operator_policy.is_some() && QueueRole::of_queue(&finding.queue, names).is_stream() == is_stream
        })
    };
    if has_operator_policy(false) {
        commands.push(format!(
            "rabbitmqctl set_operator_policy -p '{vhost}' --priority 999 --apply-to queues waypost-exempt '{pattern}' \
             '{{\"delivery-limit\":100}}'"
        ));
    }
    if has_operator_policy(true) {
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

    fn severities(role: QueueRole, definition: &Value) -> Vec<Severity> {
        let definition = definition.as_object().expect("an object");
        effects(role, definition).into_iter().map(|effect| effect.severity).collect()
    }

    #[test]
    fn the_effect_of_a_policy_depends_on_the_queue() {
        use Severity::{Degradation, MessageLoss};
        for (purpose, definition, expected) in [
            (QueueRole::Events, json!({ "max-length": 1000 }), vec![Degradation]),
            (QueueRole::Events, json!({ "max-length": 1000, "overflow": "drop-head" }), vec![MessageLoss, MessageLoss]),
            (QueueRole::Delay, json!({ "overflow": "drop-head" }), vec![MessageLoss]),
            (QueueRole::Events, json!({ "overflow": "reject-publish" }), vec![]),
            (QueueRole::Replays, json!({ "consumer-timeout": 10_000 }), vec![Degradation]),
            (QueueRole::Events, json!({ "consumer-timeout": 1_800_000 }), vec![]),
            (QueueRole::Events, json!({ "max-length": 1000, "overflow": "reject-publish" }), vec![Degradation]),
            (
                QueueRole::Retries,
                json!({ "max-length-bytes": 1000, "overflow": "drop-head" }),
                vec![MessageLoss, MessageLoss],
            ),
            (QueueRole::Events, json!({ "message-ttl": 60000 }), vec![MessageLoss]),
            (QueueRole::Delay, json!({ "message-ttl": 60000 }), vec![Degradation]),
            (QueueRole::Delay, json!({ "expires": 60000 }), vec![MessageLoss]),
            (QueueRole::Events, json!({ "delivery-limit": 5 }), vec![Degradation]),
            (QueueRole::Campaigns, json!({ "max-length-bytes": 1000 }), vec![MessageLoss]),
            (QueueRole::Campaigns, json!({ "max-length-bytes": UNREACHABLE_BYTES }), vec![]),
            (
                QueueRole::DeadLetters,
                json!({ "max-length-bytes": UNREACHABLE_BYTES, "max-age": "1D" }),
                vec![MessageLoss],
            ),
            (QueueRole::DeadLetters, json!({ "max-age": "1D" }), vec![MessageLoss]),
            (QueueRole::DeadLetters, json!({ "max-length": 5, "message-ttl": 1 }), vec![]),
            (
                QueueRole::Events,
                json!({ "ha-mode": "all", "dead-letter-exchange": "x", "queue-leader-locator": "balanced" }),
                vec![],
            ),
            (QueueRole::Events, json!({}), vec![]),
        ] {
            assert_eq!(severities(purpose, &definition), expected, "{purpose:?} {definition}");
        }
    }

    #[test]
    fn a_finding_names_the_policy_and_how_to_exempt_the_queue() {
        let names = Names::new("waypost");
        let definition = json!({ "message-ttl": 60000, "delivery-limit": 100 });
        let definition = definition.as_object().expect("an object");
        let findings = harmful_effects("waypost.events", &names, Some(""), Some("limits"), definition);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let text = findings[0].to_string();
        assert!(text.starts_with("waypost.events: operator policy limits sets message-ttl: 60000. Events"), "{text}");
        let commands = exemption_commands(&findings, "/", &names);
        assert_eq!(commands.len(), 1);
        assert!(commands[0].starts_with(r"rabbitmqctl set_operator_policy -p '/' --priority 999"), "{commands:?}");
        assert!(harmful_effects("waypost.events", &names, None, None, definition).is_empty());

        let definition = json!({ "max-length-bytes": 1000 });
        let definition = definition.as_object().expect("an object");
        let findings = |queue| harmful_effects(queue, &names, None, Some("limits"), definition);
        let streams = exemption_commands(&findings("waypost.campaigns"), "/", &names);
        let expected = "rabbitmqctl set_operator_policy -p '/' --priority 1000 --apply-to queues waypost-exempt-streams \
                        '^waypost\\.(campaigns|dead-letters)$' '{\"max-length-bytes\":1000000000000000}'";
        assert_eq!(streams, [expected]);
        let both =
            exemption_commands(&[findings("waypost.events"), findings("waypost.dead-letters")].concat(), "/", &names);
        assert_eq!(both, [commands[0].as_str(), expected]);
        assert_eq!(QueueRole::of_queue("waypost.delay.32", &names), QueueRole::Delay);
        assert_eq!(QueueRole::of_queue("waypost.events.3", &names), QueueRole::Events);
    }
}
