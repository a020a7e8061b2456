//! Checks of the broker's version, and of its support for quorum queues and streams.

use waypost_broker::BrokerError;
use waypost_broker::diagnostics::QueueTypeSupport;
use waypost_broker::handshake::{SUPPORTED, ServerInfo, Support};

use super::finding::DoctorFinding;

pub(super) fn version(server: &Result<ServerInfo, BrokerError>) -> DoctorFinding {
    const CHECK: &str = "version";
    let [oldest, newest] = SUPPORTED.map(|(major, minor)| format!("{major}.{minor}"));
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            return DoctorFinding::doubtful(CHECK, error.to_string(), "find out the version: rabbitmqctl version");
        }
    };
    let version = format!("{} {}", server.product, server.version);
    match server.support() {
        Support::Supported => DoctorFinding::good(CHECK, format!("{version}; supported: {oldest} to {newest}")),
        Support::TooOld => DoctorFinding::bad(
            CHECK,
            format!("{version} is older than {oldest}, the oldest that is supported"),
            "upgrade RabbitMQ: before 3.10, quorum queues have no message TTL, and retries need it",
        ),
        Support::Newer => DoctorFinding::doubtful(
            CHECK,
            format!("{version} is newer than {newest}, the newest that is tested"),
            "check if a newer Waypost supports it",
        ),
        Support::AnotherProduct => DoctorFinding::doubtful(
            CHECK,
            format!("{version} is not RabbitMQ"),
            "use RabbitMQ: Waypost is not tested with other brokers",
        ),
    }
}

/// Checks for quorum queues and streams.
pub(super) fn kinds(kinds: &Result<QueueTypeSupport, BrokerError>) -> DoctorFinding {
    const CHECK: &str = "streams";
    match kinds {
        Ok(QueueTypeSupport::Complete) => DoctorFinding::good(CHECK, "the broker has quorum queues and streams"),
        Ok(QueueTypeSupport::Missing { kind, error }) => DoctorFinding::bad(
            CHECK,
            format!("this broker cannot be used: it has no {kind} ({error})"),
            "use a RabbitMQ with quorum queues and streams. Enable them if it is yours: rabbitmqctl enable_feature_flag all. \
             Some hosted brokers do not offer streams",
        ),
        // The check of rights reports missing rights.
        Err(error) => DoctorFinding::doubtful(
            CHECK,
            format!("not known: {error}"),
            "fix what the check of rights finds, then run the command again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::CheckResult;

    #[test]
    fn versions_are_evaluated() {
        let evaluate = |product: &str, version: &str| {
            super::version(&Ok(ServerInfo { product: product.to_owned(), version: version.to_owned() }))
        };
        assert_eq!(evaluate("RabbitMQ", "3.10.8").result, CheckResult::Good);
        assert!(evaluate("RabbitMQ", "3.10.8").detail.contains("RabbitMQ 3.10.8"));
        assert_eq!(evaluate("RabbitMQ", "3.9.1").result, CheckResult::Bad);
        assert_eq!(evaluate("RabbitMQ", "4.4.0").result, CheckResult::Doubtful);
        assert_eq!(evaluate("LavinMQ", "2.0.0").result, CheckResult::Doubtful);
    }
}
