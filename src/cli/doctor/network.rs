//! Checks of the broker with its queues, and of the network to the customers.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use url::Url;
use waypost_broker::diagnostics::{self, ObjectState};
use waypost_broker::management::Management;
use waypost_broker::names::Names;
use waypost_broker::topology::Topology;
use waypost_broker::topology_status::TopologyStatus;
use waypost_broker::{BrokerError, binding_probe, connection, handshake};
use waypost_core::egress::HttpUrls;
use waypost_core::outcome::{Cause, SendResult};

use super::finding::{CheckResult, DoctorFinding};
use super::server;
use crate::app::{broker_address, new_sender};
use crate::config::Config;

/// How long a check of the broker's objects, or of a customer's URL, may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the check of queues, streams and exchanges.
const OBJECTS_CHECK: &str = "queues";

pub(super) async fn broker(config: &Config) -> Vec<DoctorFinding> {
    let started = Instant::now();
    let address = broker_address(&config.broker);
    let connection = match address.connect("waypost doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            let detail = error.to_string();
            let advice = connection_advice(&detail);
            return vec![DoctorFinding::bad("broker", detail, advice)];
        }
    };
    let elapsed_ms = started.elapsed().as_millis();
    let mut findings = vec![DoctorFinding::good("broker", format!("the broker answers within {elapsed_ms} ms"))];
    let names = Names::new(&config.broker.prefix);
    findings.push(server::version(&handshake::read_server_info(&address).await));
    // First: without streams all later checks would fail.
    let kinds = server::kinds(&diagnostics::check_queue_types(&connection, &names).await);
    if kinds.result == CheckResult::Bad {
        findings.push(kinds);
        return findings;
    }
    findings.push(kinds);
    let topology = Topology {
        names: names.clone(),
        shards: config.broker.shards,
        dead_letter_retention: config.dead_letters.retention,
        status: TopologyStatus::default(),
    };
    // Before a message is sent: a broker that is short of memory or disk stops reading from a connection that
    // publishes.
    let inspection = async {
        let mut objects = diagnostics::check_exchanges(&connection, &topology).await?;
        objects.extend(diagnostics::check_queues(&connection, &topology).await?);
        Ok::<_, BrokerError>(objects)
    };
    let advice = "find the reason in the broker's log";
    let mut has_exchange = false;
    let objects = match timeout(CHECK_TIMEOUT, inspection).await {
        Ok(Ok(objects)) => {
            has_exchange =
                objects.iter().any(|(name, state)| *name == names.events() && *state == ObjectState::Exchange);
            evaluate_objects(&objects)
        }
        Ok(Err(error)) => DoctorFinding::bad(OBJECTS_CHECK, error.to_string(), advice),
        Err(_) => DoctorFinding::bad(OBJECTS_CHECK, "the broker did not answer in time", advice),
    };
    let rights = evaluate_rights(&diagnostics::check_permissions(&connection, &names).await);
    let may_write = rights.result == CheckResult::Good;
    findings.push(rights);
    findings.push(objects);
    let management = config.broker.management_url.as_ref().map(|url| Management::new(url, &address)).transpose();
    match &management {
        Err(error) => findings.push(DoctorFinding::bad("policies", error.as_str(), "correct broker.managementUrl")),
        Ok(management) => {
            match management {
                Some(management) if has_exchange => {
                    findings
                        .push(super::topology::evaluate_listed_bindings(&management.missing_bindings(&topology).await));
                }
                None if has_exchange && may_write => {
                    findings.push(super::topology::evaluate_probe(&binding_probe::publish(&connection, &names).await));
                }
                // The exchange is missing, or no message can be sent. Other findings report that.
                _ => {}
            }
            findings.push(super::topology::policies(management.as_ref(), &topology, config).await);
            findings.extend(super::topology::held_messages(management.as_ref(), &topology).await);
        }
    }
    if config.broker.shards > 1 {
        findings.push(match diagnostics::check_hash_exchange_plugin(&connection, &names).await {
            Ok(()) => DoctorFinding::good("plugin", "the plugin for broker.shards is enabled"),
            Err(error) => DoctorFinding::bad(
                "plugin",
                error.to_string(),
                "enable the plugin: with this broker.shards a worker does not start without it",
            ),
        });
    }
    connection::close(&connection).await;
    findings
}

/// Looks at the text of the error, because lapin passes errors of the broker and of TLS only as text.
fn connection_advice(error: &str) -> &'static str {
    let has_any = |parts: &[&str]| parts.iter().any(|part| error.contains(part));
    if has_any(&["ACCESS_REFUSED"]) {
        "correct the user name or the password in broker.url (the user guest may log in from the broker's own machine only)"
    } else if has_any(&["NOT_ALLOWED", "NOT-ALLOWED"]) {
        "correct the vhost at the end of broker.url (%2f is the default vhost), or create it (rabbitmqctl add_vhost NAME) and give the user rights there"
    } else if has_any(&["lookup", "not known", "resolve"]) {
        "correct the host in broker.url, or the resolver of this machine (/etc/resolv.conf)"
    } else if has_any(&["corrupt message"]) {
        "the port does not speak TLS: use another port (usually 5671), or write amqp:// in broker.url"
    } else if has_any(&["certificate", "Certificate"]) {
        "if the broker has a private certificate authority, set broker.caFile. If the broker requires a client certificate, set broker.certFile"
    } else {
        "start the broker, or correct broker.url"
    }
}

fn evaluate_rights(result: &Result<(), BrokerError>) -> DoctorFinding {
    match result {
        Ok(()) => DoctorFinding::good("rights", "the user may configure, write and read"),
        Err(error @ BrokerError::ChannelFailed { operation: "sending a message", .. }) => DoctorFinding::bad(
            "rights",
            error.to_string(),
            "free memory or disk of the broker: until then it takes no events",
        ),
        Err(error) => {
            let advice = "give the user these rights: rabbitmqctl set_permissions -p VHOST USER '^PREFIX\\.' '^(PREFIX\\.|amq\\.default$)' '^PREFIX\\.', with broker.prefix for PREFIX";
            DoctorFinding::bad("rights", error.to_string(), advice)
        }
    }
}

fn evaluate_objects(objects: &[(String, ObjectState)]) -> DoctorFinding {
    let mismatches = objects.iter().filter_map(|(_, state)| match state {
        ObjectState::Mismatch(mismatch) => Some(mismatch.to_string()),
        ObjectState::Missing | ObjectState::Exchange | ObjectState::Queue { .. } => None,
    });
    let mismatches: Vec<String> = mismatches.collect();
    let missing: Vec<&str> =
        objects.iter().filter(|(_, state)| *state == ObjectState::Missing).map(|(name, _)| name.as_str()).collect();
    let (waiting, has_consumer) =
        objects.iter().fold((0_u64, false), |(waiting, has_consumer), (name, state)| match state {
            // Not the streams: they keep messages that were read, and may have no consumer.
            ObjectState::Queue { messages, consumers }
                if !name.ends_with(".campaigns") && !name.ends_with(".dead-letters") =>
            {
                (waiting + u64::from(*messages), has_consumer || *consumers > 0)
            }
            _ => (waiting, has_consumer),
        });
    if !mismatches.is_empty() {
        let advice = "a worker does not start: it can't repair these objects without losing messages";
        return DoctorFinding::bad(OBJECTS_CHECK, mismatches.join("\n"), advice);
    }
    if missing.len() == objects.len() {
        return DoctorFinding::good(OBJECTS_CHECK, "there are none yet: the first worker creates them");
    }
    if !missing.is_empty() {
        let detail = format!("{} of {} are missing: {}", missing.len(), objects.len(), missing.join(", "));
        return DoctorFinding::doubtful(
            OBJECTS_CHECK,
            detail,
            "a worker creates them when it starts. Find out who deleted them",
        );
    }
    if waiting > 0 && !has_consumer {
        let detail = format!("{waiting} messages are ready, but no worker consumes them");
        return DoctorFinding::doubtful(OBJECTS_CHECK, detail, "start a worker");
    }
    DoctorFinding::good(OBJECTS_CHECK, format!("all {} are correct; {waiting} messages are ready", objects.len()))
}

pub(super) async fn egress(config: &Config, urls: &[Url]) -> Vec<DoctorFinding> {
    let sender = match new_sender(config) {
        Ok(sender) => sender,
        Err(error) => {
            let advice = "install the system's certificates (ca-certificates), or correct egress.caFile";
            return vec![DoctorFinding::bad("egress", error.to_string(), advice)];
        }
    };
    if urls.is_empty() {
        return vec![DoctorFinding::good(
            "egress",
            "certificates are installed; test a customer's endpoint with --url URL",
        )];
    }
    let mut findings = Vec::new();
    for url in urls {
        let started = Instant::now();
        let send_result = sender.probe(url, CHECK_TIMEOUT).await;
        findings.push(evaluate_send_result(url, config.egress.http_urls, &send_result, started.elapsed()));
    }
    findings
}

fn evaluate_send_result(url: &Url, http_urls: HttpUrls, send_result: &SendResult, elapsed: Duration) -> DoctorFinding {
    let host = url.host_str().unwrap_or_default();
    let firewall = "check the firewall between this machine and the internet, then the endpoint";
    let advice = match send_result {
        SendResult::Response { status, .. } => {
            let detail = format!("{host} answers HEAD with {status} within {} ms", elapsed.as_millis());
            return DoctorFinding::good("egress", detail);
        }
        SendResult::ProxyFailure { .. } => "check that the proxy runs and lets this machine through",
        SendResult::TimedOut { .. }
        | SendResult::NotConnected { .. }
        | SendResult::Failure { cause: Cause::Connect, .. } => firewall,
        SendResult::Failure { cause: Cause::Dns, .. } => {
            "check the resolver of this machine (/etc/resolv.conf), and the name"
        }
        SendResult::Failure { cause: Cause::Tls, .. } => {
            "the endpoint's certificate is not trusted. If it is from a private certificate authority, set egress.caFile"
        }
        SendResult::Failure { cause: Cause::ForbiddenAddress, .. }
            if url.scheme() == "http" && http_urls == HttpUrls::Refused =>
        {
            "ask for an https URL. With egress.allowHttp=true events and header values would be sent unencrypted"
        }
        SendResult::Failure { cause: Cause::ForbiddenAddress, .. } => {
            "public addresses only are allowed by default. To allow this address, add it to egress.allow"
        }
        SendResult::Failure { .. } => "ask the operator of the endpoint",
    };
    DoctorFinding::bad("egress", format!("{host}: {}", send_result.error().unwrap_or_default()), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(messages: u32, consumers: u32) -> ObjectState {
        ObjectState::Queue { messages, consumers }
    }

    #[test]
    fn connection_errors_have_advice() {
        for (error, part) in [
            ("protocol error: ACCESS_REFUSED - Login was refused", "password"),
            ("protocol error: NOT_ALLOWED - vhost none not found", "vhost"),
            ("IO error: failed to lookup address information", "host"),
            ("IO error: received corrupt message of type InvalidContentType", "amqp://"),
            ("IO error: invalid peer certificate: UnknownIssuer", "broker.caFile"),
            ("IO error: Connection refused (os error 111)", "start the broker"),
        ] {
            assert!(connection_advice(error).contains(part), "{error}");
        }
    }

    #[test]
    fn queues_are_evaluated_together() {
        let evaluate = |states: [ObjectState; 2]| {
            let names = ["waypost.events".to_owned(), "waypost.retries".to_owned()];
            evaluate_objects(&names.into_iter().zip(states).collect::<Vec<_>>())
        };
        assert_eq!(evaluate([ObjectState::Missing, ObjectState::Missing]).result, CheckResult::Good);
        assert_eq!(evaluate([queue(0, 0), ObjectState::Missing]).result, CheckResult::Doubtful);
        assert_eq!(evaluate([queue(7, 0), queue(0, 0)]).result, CheckResult::Doubtful);
        assert_eq!(evaluate([queue(7, 1), queue(0, 1)]).result, CheckResult::Good);
    }
}
