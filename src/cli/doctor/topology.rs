//! Bindings and policies: what AMQP hardly shows, and the management API does.

use std::collections::BTreeMap;

use super::Finding;
use crate::broker::BrokerError;
use crate::broker::management::Management;
use crate::broker::policies::{self, Harm};
use crate::broker::probe::Routing;
use crate::broker::topology::Topology;
use crate::config::Config;

const BINDINGS: &str = "bindings";
const POLICIES: &str = "policies";

/// What to do about a missing binding.
const REBIND: &str = "start a worker: it declares them again within 5 s. Then find out who removed them";

/// The bindings by a probe: whether an event would reach a queue.
pub(super) fn probed(probed: &Result<Routing, BrokerError>) -> Finding {
    match probed {
        Ok(Routing::Routed) => Finding::good(BINDINGS, "events reach a queue (tried with one message)"),
        Ok(Routing::Returned) => {
            let found = "events reach no queue: the exchange of events is not bound, and what is published is lost";
            Finding::bad(BINDINGS, found, REBIND)
        }
        Ok(Routing::Unknown) => {
            let found = "not known: the broker has not taken a message that was to try them";
            Finding::doubtful(BINDINGS, found, "see that the queue of events is not full and has a leader")
        }
        Err(error) => Finding::bad(BINDINGS, error.to_string(), "see the check of rights"),
    }
}

/// The bindings by the management API.
pub(super) fn listed(missing: &Result<Vec<String>, String>) -> Finding {
    match missing {
        Ok(missing) if missing.is_empty() => Finding::good(BINDINGS, "all are there"),
        Ok(missing) => Finding::bad(BINDINGS, format!("missing, so messages are lost: {}", missing.join(", ")), REBIND),
        Err(error) => Finding::doubtful(BINDINGS, format!("not known: {error}"), "correct broker.managementUrl"),
    }
}

/// The policies that apply to queues of Waypost.
pub(super) async fn policies(management: Option<&Management>, topology: &Topology, config: &Config) -> Finding {
    let Some(management) = management else {
        let vhost = crate::app::broker_address(&config.broker).vhost().unwrap_or_else(|_| "/".to_owned());
        return Finding::doubtful(
            POLICIES,
            "not looked at: policies can make the broker drop messages, and AMQP does not show them",
            format!(
                "set broker.managementUrl, or look yourself: rabbitmqctl list_policies -p '{vhost}'; rabbitmqctl \
                 list_operator_policies -p '{vhost}'. docs/OPERATING.md says which of them lose messages"
            ),
        );
    };
    match management.policies(topology).await {
        Ok(findings) => judged(&findings, management.vhost(), topology),
        Err(error) => Finding::doubtful(POLICIES, format!("not known: {error}"), "correct broker.managementUrl"),
    }
}

fn judged(findings: &[policies::Finding], vhost: &str, topology: &Topology) -> Finding {
    let Some(worst) = findings.iter().map(|finding| finding.effect.harm).max() else {
        return Finding::good(POLICIES, "none that harms a queue of Waypost");
    };
    // One policy often applies to all fifteen delay queues.
    let mut queues: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for finding in findings {
        let words = finding.to_string();
        let words = words.strip_prefix(&format!("{}: ", finding.queue)).unwrap_or(&words).to_owned();
        queues.entry(words).or_default().push(&finding.queue);
    }
    let found: Vec<String> = queues.iter().map(|(words, queues)| format!("{}: {words}", queues.join(", "))).collect();
    let commands = policies::exempting(findings, vhost, &topology.names).join("; ");
    let advice =
        format!("exempt Waypost's queues: {commands}. Whatever else the policy sets no longer applies to them");
    match worst {
        Harm::Loses => Finding::bad(POLICIES, found.join("\n"), advice),
        Harm::Hinders => Finding::doubtful(POLICIES, found.join("\n"), advice),
    }
}
