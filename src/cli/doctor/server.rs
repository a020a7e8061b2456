//! Which broker this is, and whether it has what Waypost is built on.

use super::Finding;
use crate::broker::BrokerError;
use crate::broker::diagnostics::Kinds;
use crate::broker::handshake::{SUPPORTED, Server, Support};

/// The broker by its own words.
pub(super) fn version(server: &Result<Server, BrokerError>) -> Finding {
    const CHECK: &str = "version";
    let [oldest, newest] = SUPPORTED.map(|(major, minor)| format!("{major}.{minor}"));
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            return Finding::doubtful(CHECK, error.to_string(), "see which RabbitMQ it is: rabbitmqctl version");
        }
    };
    let found = format!("{} {}", server.product, server.version);
    match server.support() {
        Support::Supported => Finding::good(CHECK, format!("{found}; supported are {oldest} to {newest}")),
        Support::TooOld => Finding::bad(
            CHECK,
            format!("{found} is older than {oldest}, the oldest that is supported"),
            "upgrade RabbitMQ: before 3.10, quorum queues have no message TTL, and retries need it",
        ),
        Support::Newer => Finding::doubtful(
            CHECK,
            format!("{found} is newer than {newest}, the newest that is tested"),
            "see whether a newer Waypost supports it",
        ),
        Support::AnotherProduct => Finding::doubtful(
            CHECK,
            format!("{found} is not RabbitMQ"),
            "use RabbitMQ: Waypost is tested with nothing else",
        ),
    }
}

/// Whether it has quorum queues and streams.
pub(super) fn kinds(kinds: &Result<Kinds, BrokerError>) -> Finding {
    const CHECK: &str = "streams";
    match kinds {
        Ok(Kinds::All) => Finding::good(CHECK, "the broker has quorum queues and streams"),
        Ok(Kinds::Lacking { kind, error }) => Finding::bad(
            CHECK,
            format!("this broker cannot be used: it has no {kind} ({error})"),
            "use a RabbitMQ with quorum queues and streams. Enable them if it is yours: rabbitmqctl enable_feature_flag all. \
             Some hosted brokers do not offer streams",
        ),
        // What a user may not do is told by the check of rights.
        Err(error) => Finding::doubtful(
            CHECK,
            format!("not known: {error}"),
            "correct what the check of rights finds, then look again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckResult;
    use super::*;

    #[test]
    fn versions_are_judged() {
        let judged = |product: &str, version: &str| {
            super::version(&Ok(Server { product: product.to_owned(), version: version.to_owned() }))
        };
        assert_eq!(judged("RabbitMQ", "3.10.8").verdict, CheckResult::Good);
        assert!(judged("RabbitMQ", "3.10.8").found.contains("RabbitMQ 3.10.8"));
        assert_eq!(judged("RabbitMQ", "3.9.1").verdict, CheckResult::Bad);
        assert_eq!(judged("RabbitMQ", "4.4.0").verdict, CheckResult::Doubtful);
        assert_eq!(judged("LavinMQ", "2.0.0").verdict, CheckResult::Doubtful);
    }
}
