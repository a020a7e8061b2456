//! Classifying an attempt: once, from what came back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reason::DeadLetterReason;

/// How an attempt ended, in the words of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// 2xx.
    Ok,
    /// 3xx: redirects are not followed.
    #[serde(rename = "status_3xx")]
    Status3xx,
    /// 4xx other than 429.
    #[serde(rename = "status_4xx")]
    Status4xx,
    /// 429: too many requests.
    #[serde(rename = "status_429")]
    Status429,
    /// 5xx, and any status HTTP does not define.
    #[serde(rename = "status_5xx")]
    Status5xx,
    /// The host's name could not be resolved.
    Dns,
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No answer within the webhook's time limit.
    Timeout,
    /// The connection was cut before the answer.
    Reset,
    /// The answer was not HTTP/1, or it was 101: another protocol, which was not asked for.
    Protocol,
    /// The egress rules forbid the address.
    ForbiddenAddress,
}

impl Cause {
    /// Every cause, for metrics that exist before they count.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Status3xx,
        Self::Status4xx,
        Self::Status429,
        Self::Status5xx,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Protocol,
        Self::ForbiddenAddress,
    ];

    /// The cause of a status.
    pub fn of_status(status: u16) -> Self {
        match status {
            // Other interim answers precede the final one, and never get here.
            100..=199 => Self::Protocol,
            200..=299 => Self::Ok,
            300..=399 => Self::Status3xx,
            429 => Self::Status429,
            400..=499 => Self::Status4xx,
            _ => Self::Status5xx,
        }
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Status3xx => "status_3xx",
            Self::Status4xx => "status_4xx",
            Self::Status429 => "status_429",
            Self::Status5xx => "status_5xx",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::ForbiddenAddress => "forbidden_address",
        }
    }
}

/// What a request was at when its time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The host's name was being resolved.
    Resolving,
    /// The connection was being made, TLS included.
    Connecting,
    /// The answer was waited for.
    Answering,
}

/// How long the parts of a request took. None of what was not needed, or did not come to its end: a connection is kept and
/// used again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Resolving the host's name.
    pub resolve: Option<Duration>,
    /// Connecting, with the TLS handshake, once the name was resolved.
    pub connect: Option<Duration>,
    /// From the beginning of the request to the status of the answer, without the two above.
    pub first_byte: Option<Duration>,
}

/// Whom or what a failed attempt is to be blamed on, in the words of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Our egress rules forbid the address.
    Rules,
    /// The egress proxy.
    Proxy,
    /// The name could not be resolved.
    Dns,
    /// No connection could be made.
    Tcp,
    /// The TLS handshake failed.
    Tls,
    /// The endpoint answers with 3xx.
    Redirect,
    /// The endpoint refuses: 4xx.
    Client,
    /// The endpoint has enough: 429.
    Throttled,
    /// The endpoint fails: 5xx.
    Server,
    /// The endpoint cuts the connection.
    Reset,
    /// The endpoint speaks no HTTP.
    Protocol,
    /// Time was up, in this phase.
    Timeout(Phase),
}

impl Blame {
    /// Every one, for metrics that exist before they count.
    pub const ALL: [Self; 14] = [
        Self::Rules,
        Self::Proxy,
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Redirect,
        Self::Client,
        Self::Throttled,
        Self::Server,
        Self::Reset,
        Self::Protocol,
        Self::Timeout(Phase::Resolving),
        Self::Timeout(Phase::Connecting),
        Self::Timeout(Phase::Answering),
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Proxy => "proxy",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Redirect => "receiver_3xx",
            Self::Client => "receiver_4xx",
            Self::Throttled => "receiver_429",
            Self::Server => "receiver_5xx",
            Self::Reset => "receiver_reset",
            Self::Protocol => "receiver_protocol",
            Self::Timeout(Phase::Resolving) => "timeout_resolving",
            Self::Timeout(Phase::Connecting) => "timeout_connecting",
            Self::Timeout(Phase::Answering) => "timeout_answering",
        }
    }
}

/// What came back from a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// An HTTP answer.
    Answer {
        /// Its status.
        status: u16,
        /// Its `Retry-After` header.
        retry_after: Option<String>,
        /// The first bytes of its body.
        body: Vec<u8>,
    },
    /// The egress proxy did not make the connection: ours or the endpoint's fault, nobody can tell.
    ProxyFailure {
        /// For people.
        error: String,
    },
    /// The time limit was over before there was an answer.
    TimedOut {
        /// What the request was at.
        phase: Phase,
    },
    /// No connection within `endpoint.connectTimeout`.
    NotConnected {
        /// What it was at: resolving the name, or connecting.
        phase: Phase,
        /// For people.
        error: String,
    },
    /// No HTTP answer.
    Failure {
        /// What kind of failure.
        cause: Cause,
        /// For people.
        error: String,
    },
}

impl Reply {
    /// What went wrong, for people; none where an answer came.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Answer { .. } => None,
            Self::TimedOut { phase: Phase::Resolving } => {
                Some("no answer within the time limit: the name was still being resolved")
            }
            Self::TimedOut { phase: Phase::Connecting } => {
                Some("no answer within the time limit: the connection was still being made")
            }
            Self::TimedOut { phase: Phase::Answering } => Some("no answer within the time limit"),
            Self::ProxyFailure { error } | Self::NotConnected { error, .. } | Self::Failure { error, .. } => {
                Some(error)
            }
        }
    }

    /// Whom the failure is to be blamed on; none where it went well.
    pub fn blame(&self) -> Option<Blame> {
        Some(match self {
            Self::ProxyFailure { .. } => Blame::Proxy,
            Self::TimedOut { phase } | Self::NotConnected { phase, .. } => Blame::Timeout(*phase),
            Self::Answer { .. } | Self::Failure { .. } => match self.cause() {
                Cause::Ok => return None,
                Cause::Status3xx => Blame::Redirect,
                Cause::Status4xx => Blame::Client,
                Cause::Status429 => Blame::Throttled,
                Cause::Status5xx => Blame::Server,
                Cause::Dns => Blame::Dns,
                Cause::Connect => Blame::Tcp,
                Cause::Tls => Blame::Tls,
                Cause::Timeout => Blame::Timeout(Phase::Answering),
                Cause::Reset => Blame::Reset,
                Cause::Protocol => Blame::Protocol,
                Cause::ForbiddenAddress => Blame::Rules,
            },
        })
    }

    /// The cause of the attempt's end.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Answer { status, .. } => Cause::of_status(*status),
            Self::ProxyFailure { .. } | Self::NotConnected { .. } => Cause::Connect,
            Self::TimedOut { .. } => Cause::Timeout,
            Self::Failure { cause, .. } => *cause,
        }
    }
}

/// What an attempt means for its delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// Another attempt may succeed.
    Transient {
        /// The wait the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// No attempt will succeed.
    Permanent(DeadLetterReason),
}

/// Classifies a reply. `permanent_statuses` end the delivery at once.
pub fn classify(reply: &Reply, permanent_statuses: &[u16], now: DateTime<Utc>) -> Outcome {
    match reply {
        Reply::Answer { status: 200..=299, .. } => Outcome::Delivered,
        Reply::Answer { status, .. } if permanent_statuses.contains(status) => {
            Outcome::Permanent(DeadLetterReason::Gone)
        }
        Reply::Answer { status: 429 | 503, retry_after: Some(header), .. } => {
            Outcome::Transient { retry_after: retry_after(header, now) }
        }
        Reply::Answer { .. } => Outcome::Transient { retry_after: None },
        Reply::Failure { cause: Cause::ForbiddenAddress, .. } => Outcome::Permanent(DeadLetterReason::ForbiddenAddress),
        Reply::ProxyFailure { .. } | Reply::NotConnected { .. } | Reply::TimedOut { .. } | Reply::Failure { .. } => {
            Outcome::Transient { retry_after: None }
        }
    }
}

/// Reads a `Retry-After` header: seconds, or an HTTP date. What is neither is as if it were not there.
fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a very long time all the same.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    DateTime::<Utc>::from(date).signed_duration_since(now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2024, 6, 18, 23, 26, 14).unwrap()
    }

    fn answer(status: u16, retry_after: Option<&str>) -> Reply {
        Reply::Answer { status, retry_after: retry_after.map(str::to_owned), body: Vec::new() }
    }

    #[test]
    fn statuses() {
        let transient = Outcome::Transient { retry_after: None };
        for (status, expected) in [
            (200, Outcome::Delivered),
            (204, Outcome::Delivered),
            (299, Outcome::Delivered),
            (301, transient.clone()),
            (400, transient.clone()),
            (404, transient.clone()),
            (410, Outcome::Permanent(DeadLetterReason::Gone)),
            (429, transient.clone()),
            (500, transient.clone()),
            (101, transient.clone()),
            (999, transient),
        ] {
            assert_eq!(classify(&answer(status, None), &[410], now()), expected, "{status}");
        }
        assert_eq!(classify(&answer(404, None), &[404, 410], now()), Outcome::Permanent(DeadLetterReason::Gone));
        assert!(matches!(classify(&answer(410, None), &[], now()), Outcome::Transient { .. }));
    }

    #[test]
    fn a_switch_of_protocols_is_a_fault_of_the_protocol() {
        let reply = answer(101, None);
        assert_eq!((reply.cause(), reply.blame()), (Cause::Protocol, Some(Blame::Protocol)));
    }

    #[test]
    fn retry_after_is_read_on_429_and_503_only() {
        for (status, header, seconds) in [
            (429, "120", Some(120)),
            (503, " 7 ", Some(7)),
            (503, "Tue, 18 Jun 2024 23:27:14 GMT", Some(60)),
            (503, "Tue, 18 Jun 2024 23:25:14 GMT", None),
            (429, "soon", None),
            (429, "-1", None),
            (429, "+1", None),
            (429, "99999999999999999999", Some(u64::MAX)),
            (500, "120", None),
        ] {
            let expected = Outcome::Transient { retry_after: seconds.map(Duration::from_secs) };
            assert_eq!(classify(&answer(status, Some(header)), &[410], now()), expected, "{status} {header}");
        }
    }

    #[test]
    fn failures() {
        let failure = |cause| Reply::Failure { cause, error: String::new() };
        assert_eq!(
            classify(&failure(Cause::ForbiddenAddress), &[410], now()),
            Outcome::Permanent(DeadLetterReason::ForbiddenAddress)
        );
        for cause in [Cause::Dns, Cause::Connect, Cause::Tls, Cause::Timeout, Cause::Reset, Cause::Protocol] {
            assert_eq!(classify(&failure(cause), &[410], now()), Outcome::Transient { retry_after: None });
        }
    }
}
