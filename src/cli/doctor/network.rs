//! What a worker speaks to: the broker with its queues, and the network where customers are.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use url::Url;

use super::{CheckResult, Finding, server};
use crate::app::{broker_address, new_sender};
use crate::broker::diagnostics::{self, ObjectState};
use crate::broker::management::Management;
use crate::broker::names::Names;
use crate::broker::topology::Topology;
use crate::broker::topology_status::TopologyStatus;
use crate::broker::{BrokerError, connection, handshake, probe};
use crate::config::Config;
use crate::delivery::egress::HttpUrls;
use crate::delivery::outcome::{Cause, Reply};

/// A customer's URL is asked for this long.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The broker's queues and streams, and the exchanges before them.
const OBJECTS: &str = "queues";

pub(super) async fn broker(config: &Config) -> Vec<Finding> {
    let began = Instant::now();
    let address = broker_address(&config.broker);
    let connection = match address.connect("waypost doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            let found = error.to_string();
            let advice = advice_on_connecting(&found);
            return vec![Finding::bad("broker", found, advice)];
        }
    };
    let took = began.elapsed().as_millis();
    let mut findings = vec![Finding::good("broker", format!("it answers within {took} ms"))];
    let names = Names::new(&config.broker.prefix);
    findings.push(server::version(&handshake::server(&address).await));
    // Before all else: without streams nothing that follows can be as it must be.
    let kinds = server::kinds(&diagnostics::kinds(&connection, &names).await);
    if kinds.verdict == CheckResult::Bad {
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
    // Before a message is sent: a broker that takes none stops listening to who sends.
    let look = async {
        let mut objects = diagnostics::exchanges(&connection, &topology).await?;
        objects.extend(diagnostics::queues(&connection, &topology).await?);
        Ok::<_, BrokerError>(objects)
    };
    let log = "see the broker's log for the reason";
    let mut bound = false;
    let objects = match timeout(CHECK_TIMEOUT, look).await {
        Ok(Ok(objects)) => {
            bound = objects.iter().any(|(name, found)| *name == names.events() && *found == ObjectState::Exchange);
            objects_as_found(&objects)
        }
        Ok(Err(error)) => Finding::bad(OBJECTS, error.to_string(), log),
        Err(_) => Finding::bad(OBJECTS, "the broker did not answer in time", log),
    };
    let rights = rights(&diagnostics::rights(&connection, &names).await);
    let may_write = rights.verdict == CheckResult::Good;
    findings.push(rights);
    findings.push(objects);
    let management = config.broker.management_url.as_ref().map(|url| Management::new(url, &address)).transpose();
    match &management {
        Err(error) => findings.push(Finding::bad("policies", error.as_str(), "correct broker.managementUrl")),
        Ok(management) => {
            match management {
                Some(management) if bound => {
                    findings.push(super::topology::listed(&management.missing_bindings(&topology).await));
                }
                None if bound && may_write => {
                    findings.push(super::topology::probed(&probe::publish(&connection, &names).await));
                }
                // The exchange is missing, or no message can be sent: told above.
                _ => {}
            }
            findings.push(super::topology::policies(management.as_ref(), &topology, config).await);
        }
    }
    if config.broker.shards > 1 {
        findings.push(match diagnostics::plugin(&connection, &names).await {
            Ok(()) => Finding::good("plugin", "that which broker.shards needs is there"),
            Err(error) => Finding::bad("plugin", error.to_string(), "a worker does not start without"),
        });
    }
    connection::close(&connection).await;
    findings
}

/// By the broker's words and those of TLS, which have no types of their own that reach us.
fn advice_on_connecting(error: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|words| error.contains(words));
    if says(&["ACCESS_REFUSED"]) {
        "correct the user name or the password in broker.url (the user guest may log in from the broker's own machine only)"
    } else if says(&["NOT_ALLOWED", "NOT-ALLOWED"]) {
        "correct the vhost at the end of broker.url (%2f is the usual one), or make it: rabbitmqctl add_vhost NAME, and give the user rights there"
    } else if says(&["lookup", "not known", "resolve"]) {
        "correct the host in broker.url, or the resolver of this machine (/etc/resolv.conf)"
    } else if says(&["corrupt message"]) {
        "that port does not speak TLS: 5671 usually does, or write amqp:// in broker.url"
    } else if says(&["certificate", "Certificate"]) {
        "an authority of your own goes into broker.caFile; where the broker asks for a certificate, see broker.certFile"
    } else {
        "start it, or correct broker.url"
    }
}

fn rights(tried: &Result<(), BrokerError>) -> Finding {
    match tried {
        Ok(()) => Finding::good("rights", "the user may configure, write and read"),
        Err(error @ BrokerError::ChannelFailed { doing: "sending a message", .. }) => {
            Finding::bad("rights", error.to_string(), "make room for the broker: it takes no event either")
        }
        Err(error) => {
            let advice = "give the user these rights: rabbitmqctl set_permissions -p VHOST USER '^PREFIX\\.' '^(PREFIX\\.|amq\\.default$)' '^PREFIX\\.', with broker.prefix for PREFIX";
            Finding::bad("rights", error.to_string(), advice)
        }
    }
}

fn objects_as_found(objects: &[(String, ObjectState)]) -> Finding {
    let mismatches = objects.iter().filter_map(|(_, found)| match found {
        ObjectState::Mismatch(mismatch) => Some(mismatch.to_string()),
        ObjectState::Missing | ObjectState::Exchange | ObjectState::Queue { .. } => None,
    });
    let mismatches: Vec<String> = mismatches.collect();
    let missing: Vec<&str> =
        objects.iter().filter(|(_, found)| *found == ObjectState::Missing).map(|(name, _)| name.as_str()).collect();
    let (waiting, consumed) = objects.iter().fold((0_u64, false), |(waiting, consumed), (name, found)| match found {
        // Streams keep what was read, and are read by their workers without a consumer in between.
        ObjectState::Queue { messages, consumers }
            if !name.ends_with(".campaigns") && !name.ends_with(".dead-letters") =>
        {
            (waiting + u64::from(*messages), consumed || *consumers > 0)
        }
        _ => (waiting, consumed),
    });
    if !mismatches.is_empty() {
        let advice = "a worker does not start with these, as it can't mend them without losing messages";
        return Finding::bad(OBJECTS, mismatches.join("\n"), advice);
    }
    if missing.len() == objects.len() {
        return Finding::good(OBJECTS, "there are none yet: the first worker makes them");
    }
    if !missing.is_empty() {
        let found = format!("{} of {} are missing: {}", missing.len(), objects.len(), missing.join(", "));
        return Finding::doubtful(OBJECTS, found, "a worker makes them when it starts; who has deleted them?");
    }
    if waiting > 0 && !consumed {
        let found = format!("{waiting} messages wait, and no worker takes them");
        return Finding::doubtful(OBJECTS, found, "start a worker");
    }
    Finding::good(OBJECTS, format!("all {} are as they must be; {waiting} messages wait", objects.len()))
}

pub(super) async fn egress(config: &Config, urls: &[Url]) -> Vec<Finding> {
    let sender = match new_sender(config) {
        Ok(sender) => sender,
        Err(error) => {
            let advice = "install the system's certificates (ca-certificates), or correct egress.caFile";
            return vec![Finding::bad("egress", error.to_string(), advice)];
        }
    };
    if urls.is_empty() {
        return vec![Finding::good("egress", "certificates are there; --url URL tries to reach a customer")];
    }
    let mut findings = Vec::new();
    for url in urls {
        let began = Instant::now();
        let reply = sender.probe(url, CHECK_TIMEOUT).await;
        findings.push(reached(url, config.egress.http_urls, &reply, began.elapsed()));
    }
    findings
}

fn reached(url: &Url, http_urls: HttpUrls, reply: &Reply, took: Duration) -> Finding {
    let host = url.host_str().unwrap_or_default();
    let firewall = "see the firewall between this machine and the internet; then the endpoint";
    let advice = match reply {
        Reply::Answer { status, .. } => {
            let found = format!("{host} answers HEAD with {status} within {} ms", took.as_millis());
            return Finding::good("egress", found);
        }
        Reply::ProxyFailure { .. } => "see that the proxy is there and lets this machine through",
        Reply::TimedOut { .. } | Reply::NotConnected { .. } | Reply::Failure { cause: Cause::Connect, .. } => firewall,
        Reply::Failure { cause: Cause::Dns, .. } => "see the resolver of this machine (/etc/resolv.conf), and the name",
        Reply::Failure { cause: Cause::Tls, .. } => {
            "the endpoint's certificate is not trusted: an authority of your own goes into egress.caFile"
        }
        Reply::Failure { cause: Cause::ForbiddenAddress, .. }
            if url.scheme() == "http" && http_urls == HttpUrls::Refused =>
        {
            "ask for an https URL; egress.allowHttp=true lets events and header values out in the clear"
        }
        Reply::Failure { cause: Cause::ForbiddenAddress, .. } => {
            "that is the rule; egress.allow opens what must be open"
        }
        Reply::Failure { .. } => "ask who runs the endpoint",
    };
    Finding::bad("egress", format!("{host}: {}", reply.error().unwrap_or_default()), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(messages: u32, consumers: u32) -> ObjectState {
        ObjectState::Queue { messages, consumers }
    }

    #[test]
    fn who_connects_is_told_what_to_correct() {
        for (error, part) in [
            ("protocol error: ACCESS_REFUSED - Login was refused", "password"),
            ("protocol error: NOT_ALLOWED - vhost none not found", "vhost"),
            ("IO error: failed to lookup address information", "host"),
            ("IO error: received corrupt message of type InvalidContentType", "amqp://"),
            ("IO error: invalid peer certificate: UnknownIssuer", "broker.caFile"),
            ("IO error: Connection refused (os error 111)", "start it"),
        ] {
            assert!(advice_on_connecting(error).contains(part), "{error}");
        }
    }

    #[test]
    fn queues_are_judged_together() {
        let judged = |found: [ObjectState; 2]| {
            let names = ["waypost.events".to_owned(), "waypost.retries".to_owned()];
            objects_as_found(&names.into_iter().zip(found).collect::<Vec<_>>())
        };
        assert_eq!(judged([ObjectState::Missing, ObjectState::Missing]).verdict, CheckResult::Good);
        assert_eq!(judged([sound(0, 0), ObjectState::Missing]).verdict, CheckResult::Doubtful);
        assert_eq!(judged([sound(7, 0), sound(0, 0)]).verdict, CheckResult::Doubtful);
        assert_eq!(judged([sound(7, 1), sound(0, 1)]).verdict, CheckResult::Good);
    }
}
