//! What a worker speaks to: the broker with its queues, and the network where customers are.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use url::Url;

use super::Finding;
use crate::app::{broker_address, new_sender};
use crate::broker::examination::{self, Found};
use crate::broker::names::Names;
use crate::broker::topology::Topology;
use crate::broker::{BrokerError, connection};
use crate::config::Config;
use crate::delivery::outcome::{Cause, Reply};

/// A customer's URL is asked for this long.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn broker(config: &Config) -> Vec<Finding> {
    let began = Instant::now();
    let connection = match broker_address(&config.broker).connect("waypost doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            let advice = "start it, or correct broker.url; with amqps see broker.caFile and broker.certFile";
            return vec![Finding::bad("broker", error.to_string(), advice)];
        }
    };
    let took = began.elapsed().as_millis();
    let mut findings = vec![Finding::good("broker", format!("it answers within {took} ms"))];
    let names = Names::new(&config.broker.prefix);
    let topology = Topology {
        names: names.clone(),
        shards: config.broker.shards,
        dead_letter_retention: config.dead_letters.retention,
    };
    // Before a message is sent: a broker that takes none stops listening to who sends.
    let queues = match timeout(PATIENCE, examination::queues(&connection, &topology)).await {
        Ok(Ok(queues)) => queues_as_found(&queues),
        Ok(Err(error)) => Finding::bad("queues", error.to_string(), "see the broker's log for the reason"),
        Err(_) => Finding::bad("queues", "the broker did not answer in time", "see the broker's log for the reason"),
    };
    findings.push(rights(&examination::rights(&connection, &names).await));
    findings.push(queues);
    connection::close(&connection).await;
    findings
}

fn rights(tried: &Result<(), BrokerError>) -> Finding {
    match tried {
        Ok(()) => Finding::good("rights", "the user may configure, write and read"),
        Err(error @ BrokerError::Lost { doing: "sending a message", .. }) => {
            Finding::bad("rights", error.to_string(), "make room for the broker: it takes no event either")
        }
        Err(error) => {
            let advice = "give the user these rights: rabbitmqctl set_permissions -p VHOST USER '^PREFIX\\.' '^(PREFIX\\.|amq\\.default$)' '^PREFIX\\.', with broker.prefix for PREFIX";
            Finding::bad("rights", error.to_string(), advice)
        }
    }
}

fn queues_as_found(queues: &[(String, Found)]) -> Finding {
    let mismatches = queues.iter().filter_map(|(_, found)| match found {
        Found::Mismatch(mismatch) => Some(mismatch.to_string()),
        Found::Missing | Found::Sound { .. } => None,
    });
    let mismatches: Vec<String> = mismatches.collect();
    let missing = queues.iter().filter(|(_, found)| *found == Found::Missing).count();
    let (waiting, consumed) = queues.iter().fold((0_u64, false), |(waiting, consumed), (name, found)| match found {
        // Streams keep what was read, and are read by their workers without a consumer in between.
        Found::Sound { messages, consumers } if !name.ends_with(".campaigns") && !name.ends_with(".dead-letters") => {
            (waiting + u64::from(*messages), consumed || *consumers > 0)
        }
        _ => (waiting, consumed),
    });
    if !mismatches.is_empty() {
        let advice = "a worker does not start with these, as it can't mend them without losing messages";
        return Finding::bad("queues", mismatches.join("\n"), advice);
    }
    if missing == queues.len() {
        return Finding::good("queues", "there are none yet: the first worker makes them");
    }
    if missing > 0 {
        let found = format!("{missing} of {} are missing", queues.len());
        return Finding::doubtful("queues", found, "a worker makes them when it starts; who has deleted them?");
    }
    if waiting > 0 && !consumed {
        let found = format!("{waiting} messages wait, and no worker takes them");
        return Finding::doubtful("queues", found, "start a worker");
    }
    Finding::good("queues", format!("all {} are as they must be; {waiting} messages wait", queues.len()))
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
        let reply = sender.probe(url, PATIENCE).await;
        findings.push(reached(url, &reply, began.elapsed()));
    }
    findings
}

fn reached(url: &Url, reply: &Reply, took: Duration) -> Finding {
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
        Reply::Failure { cause: Cause::ForbiddenAddress, .. } => {
            "that is the rule; egress.allow opens what must be open"
        }
        Reply::Failure { .. } => "ask who runs the endpoint",
    };
    Finding::bad("egress", format!("{host}: {}", reply.error().unwrap_or_default()), advice)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn sound(messages: u32, consumers: u32) -> Found {
        Found::Sound { messages, consumers }
    }

    #[test]
    fn queues_are_judged_together() {
        let judged = |found: [Found; 2]| {
            let names = ["waypost.events".to_owned(), "waypost.retries".to_owned()];
            queues_as_found(&names.into_iter().zip(found).collect::<Vec<_>>())
        };
        assert_eq!(judged([Found::Missing, Found::Missing]).verdict, Verdict::Good);
        assert_eq!(judged([sound(0, 0), Found::Missing]).verdict, Verdict::Doubtful);
        assert_eq!(judged([sound(7, 0), sound(0, 0)]).verdict, Verdict::Doubtful);
        assert_eq!(judged([sound(7, 1), sound(0, 1)]).verdict, Verdict::Good);
    }
}
