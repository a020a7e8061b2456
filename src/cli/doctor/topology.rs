//! Checks of bindings, policies and held messages. AMQP can hardly show them, the management API can.

use std::collections::BTreeMap;

use waypost_broker::BrokerError;
use waypost_broker::binding_probe::ProbeOutcome;
use waypost_broker::management::Management;
use waypost_broker::policies::{self, Severity};
use waypost_broker::topology::Topology;

use super::finding::DoctorFinding;
use crate::config::Config;

const BINDINGS_CHECK: &str = "bindings";
const POLICIES_CHECK: &str = "policies";
const HELD_CHECK: &str = "held messages";

const BINDING_ADVICE: &str =
    "start a worker: it declares the bindings again within 5 s. Then find out who removed them";

/// Evaluates a message that was published to test the bindings.
pub(super) fn evaluate_probe(result: &Result<ProbeOutcome, BrokerError>) -> DoctorFinding {
    match result {
        Ok(ProbeOutcome::Routed) => {
            DoctorFinding::good(BINDINGS_CHECK, "events reach a queue (tested with one message)")
        }
        Ok(ProbeOutcome::Unroutable) => {
            let detail = "events reach no queue: the exchange of events has no binding, and published events are lost";
            DoctorFinding::bad(BINDINGS_CHECK, detail, BINDING_ADVICE)
        }
        Ok(ProbeOutcome::Unknown) => {
            let detail = "unknown: the broker did not confirm the test message";
            DoctorFinding::doubtful(
                BINDINGS_CHECK,
                detail,
                "check that the queue of events is not full and has a leader",
            )
        }
        Err(error) => DoctorFinding::bad(BINDINGS_CHECK, error.to_string(), "see the check of rights"),
    }
}

/// Evaluates the bindings as listed by the management API.
pub(super) fn evaluate_listed_bindings(missing: &Result<Vec<String>, String>) -> DoctorFinding {
    match missing {
        Ok(missing) if missing.is_empty() => DoctorFinding::good(BINDINGS_CHECK, "all exist"),
        Ok(missing) => DoctorFinding::bad(
            BINDINGS_CHECK,
            format!("missing, so messages are lost: {}", missing.join(", ")),
            BINDING_ADVICE,
        ),
        Err(error) => {
            DoctorFinding::doubtful(BINDINGS_CHECK, format!("unknown: {error}"), "correct broker.managementUrl")
        }
    }
}

/// The policies that apply to queues of Waypost.
pub(super) async fn policies(management: Option<&Management>, topology: &Topology, config: &Config) -> DoctorFinding {
    let Some(management) = management else {
        let vhost = crate::app::broker_address(&config.broker).vhost().unwrap_or_else(|_| "/".to_owned());
        return DoctorFinding::doubtful(
            POLICIES_CHECK,
            "not checked: policies can make the broker drop messages, and AMQP does not show them",
            format!(
                "set broker.managementUrl, or check yourself: rabbitmqctl list_policies -p '{vhost}'; rabbitmqctl \
                 list_operator_policies -p '{vhost}'. docs/OPERATING.md says which policies lose messages"
            ),
        );
    };
    match management.policies(topology).await {
        Ok(findings) => evaluate_policies(&findings, management.vhost(), topology),
        Err(error) => {
            DoctorFinding::doubtful(POLICIES_CHECK, format!("unknown: {error}"), "correct broker.managementUrl")
        }
    }
}

/// Messages that RabbitMQ sends to nobody. Nothing can be said without the management API.
pub(super) async fn held_messages(management: Option<&Management>, topology: &Topology) -> Option<DoctorFinding> {
    Some(match management?.held_messages(topology).await {
        Ok(held) if held.is_empty() => DoctorFinding::good(HELD_CHECK, "no queue holds messages for a lost consumer"),
        Ok(held) => DoctorFinding::doubtful(
            HELD_CHECK,
            held.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            "run the command again after a minute. If it still says so, restart RabbitMQ on the node named: the new \
             leader of the queue gives the messages to other consumers. docs/runbooks/WaypostMessagesRecovered.md has more",
        ),
        Err(error) => DoctorFinding::doubtful(HELD_CHECK, format!("unknown: {error}"), "correct broker.managementUrl"),
    })
}

fn evaluate_policies(findings: &[policies::PolicyFinding], vhost: &str, topology: &Topology) -> DoctorFinding {
    let Some(worst) = findings.iter().map(|finding| finding.effect.severity).max() else {
        return DoctorFinding::good(POLICIES_CHECK, "none harms a queue of Waypost");
    };
    // One policy often applies to all fifteen delay queues.
    let mut queues: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for finding in findings {
        let text = finding.to_string();
        let text = text.strip_prefix(&format!("{}: ", finding.queue)).unwrap_or(&text).to_owned();
        queues.entry(text).or_default().push(&finding.queue);
    }
    let details: Vec<String> = queues.iter().map(|(text, queues)| format!("{}: {text}", queues.join(", "))).collect();
    let commands = policies::exemption_commands(findings, vhost, &topology.names).join("; ");
    let advice = format!("exempt Waypost's queues: {commands}. Other settings of the policy no longer apply to them");
    match worst {
        Severity::MessageLoss => DoctorFinding::bad(POLICIES_CHECK, details.join("\n"), advice),
        Severity::Degradation => DoctorFinding::doubtful(POLICIES_CHECK, details.join("\n"), advice),
    }
}
