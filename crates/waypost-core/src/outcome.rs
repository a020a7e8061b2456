//! The classification of an attempt by the result of its request.

use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reason::DeadLetterReason;

/// How an attempt ended, as in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// 2xx.
    Ok,
    /// 3xx. Redirects are not followed.
    #[serde(rename = "status_3xx")]
    Status3xx,
    /// 4xx other than 429.
    #[serde(rename = "status_4xx")]
    Status4xx,
    /// 429, too many requests.
    #[serde(rename = "status_429")]
    Status429,
    /// 5xx, and any status that HTTP does not define.
    #[serde(rename = "status_5xx")]
    Status5xx,
    /// The host name could not be resolved.
    Dns,
    /// The connection could not be established.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No response within the webhook's time limit.
    Timeout,
    /// The connection was closed before the response.
    Reset,
    /// The response was not HTTP/1, or had the status 101, a switch of protocols that was not requested.
    Protocol,
    /// The egress rules forbid the address.
    ForbiddenAddress,
}

impl Cause {
    /// For metrics that must exist before their first count.
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

    pub fn from_status(status: u16) -> Self {
        match status {
            // Only 101 occurs. Other interim responses are skipped until the final response.
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

/// The phase of a request in which its time limit expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPhase {
    /// Resolving the host name.
    Resolving,
    /// Connecting, including the TLS handshake.
    Connecting,
    /// Waiting for the response.
    AwaitingResponse,
}

/// The durations of the phases of a request. `None` if a phase was not needed, because a connection was reused, or did
/// not complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestTiming {
    pub resolve: Option<Duration>,
    /// Includes the TLS handshake, but not the name resolution.
    pub connect: Option<Duration>,
    /// From the start of the request to the status of the response, without `resolve` and `connect`.
    pub first_byte: Option<Duration>,
}

/// The party or component that caused a failed attempt, as in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The egress rules forbid the address.
    Rules,
    /// The egress proxy.
    Proxy,
    /// The host name could not be resolved.
    Dns,
    /// The connection could not be established.
    Tcp,
    /// The TLS handshake failed.
    Tls,
    /// The receiver answered with 3xx.
    Redirect,
    /// The receiver answered with 4xx other than 429.
    Client,
    /// The receiver answered with 429.
    Throttled,
    /// The receiver answered with 5xx.
    Server,
    /// The receiver closed the connection.
    Reset,
    /// The receiver did not answer with HTTP.
    Protocol,
    /// The time limit expired in this phase.
    Timeout(RequestPhase),
}

impl Blame {
    /// For metrics that must exist before their first count.
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
        Self::Timeout(RequestPhase::Resolving),
        Self::Timeout(RequestPhase::Connecting),
        Self::Timeout(RequestPhase::AwaitingResponse),
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
            Self::Timeout(RequestPhase::Resolving) => "timeout_resolving",
            Self::Timeout(RequestPhase::Connecting) => "timeout_connecting",
            Self::Timeout(RequestPhase::AwaitingResponse) => "timeout_answering",
        }
    }
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum SendResult {
    Response {
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<String>,
        /// The first bytes of the body.
        body: Vec<u8>,
    },
    /// The egress proxy did not establish the connection. The reason can be on either side of the proxy.
    ProxyFailure { error: String },
    /// The time limit expired before the response.
    TimedOut { phase: RequestPhase },
    /// No connection within `endpoint.connectTimeout`. The phase is resolving or connecting.
    NotConnected { phase: RequestPhase, error: String },
    /// Any other failure without an HTTP response.
    Failure { cause: Cause, error: String },
}

impl SendResult {
    pub fn failure(cause: Cause, error: impl Into<String>) -> Self {
        Self::Failure { cause, error: error.into() }
    }

    /// The error message for people. `None` if there was a response.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Response { .. } => None,
            Self::TimedOut { phase: RequestPhase::Resolving } => {
                Some("no response within the time limit: the name was still being resolved")
            }
            Self::TimedOut { phase: RequestPhase::Connecting } => {
                Some("no response within the time limit: the connection was still being made")
            }
            Self::TimedOut { phase: RequestPhase::AwaitingResponse } => Some("no response within the time limit"),
            Self::ProxyFailure { error } | Self::NotConnected { error, .. } | Self::Failure { error, .. } => {
                Some(error)
            }
        }
    }

    /// `None` if the attempt succeeded.
    pub fn blame(&self) -> Option<Blame> {
        Some(match self {
            Self::ProxyFailure { .. } => Blame::Proxy,
            Self::TimedOut { phase } | Self::NotConnected { phase, .. } => Blame::Timeout(*phase),
            Self::Response { .. } | Self::Failure { .. } => match self.cause() {
                Cause::Ok => return None,
                Cause::Status3xx => Blame::Redirect,
                Cause::Status4xx => Blame::Client,
                Cause::Status429 => Blame::Throttled,
                Cause::Status5xx => Blame::Server,
                Cause::Dns => Blame::Dns,
                Cause::Connect => Blame::Tcp,
                Cause::Tls => Blame::Tls,
                Cause::Timeout => Blame::Timeout(RequestPhase::AwaitingResponse),
                Cause::Reset => Blame::Reset,
                Cause::Protocol => Blame::Protocol,
                Cause::ForbiddenAddress => Blame::Rules,
            },
        })
    }

    pub fn cause(&self) -> Cause {
        match self {
            Self::Response { status, .. } => Cause::from_status(*status),
            Self::ProxyFailure { .. } | Self::NotConnected { .. } => Cause::Connect,
            Self::TimedOut { .. } => Cause::Timeout,
            Self::Failure { cause, .. } => *cause,
        }
    }
}

/// The consequence of an attempt for the delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Delivered,
    /// Another attempt may succeed.
    Transient {
        /// The delay that the receiver requested.
        retry_after: Option<Duration>,
    },
    /// No further attempt will succeed.
    Permanent(DeadLetterReason),
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptResult {
    pub outcome: Outcome,
    pub send_result: SendResult,
    pub duration: Duration,
    pub ended_at: DateTime<Utc>,
}

/// The `permanent_statuses` end the delivery immediately.
pub fn classify(send_result: &SendResult, permanent_statuses: &[u16], now: DateTime<Utc>) -> Outcome {
    match send_result {
        SendResult::Response { status: 200..=299, .. } => Outcome::Delivered,
        SendResult::Response { status, .. } if permanent_statuses.contains(status) => {
            Outcome::Permanent(DeadLetterReason::Gone)
        }
        SendResult::Response { status: 429 | 503, retry_after: Some(header), .. } => {
            Outcome::Transient { retry_after: parse_retry_after(header, now) }
        }
        SendResult::Response { .. } => Outcome::Transient { retry_after: None },
        SendResult::Failure { cause: Cause::ForbiddenAddress, .. } => {
            Outcome::Permanent(DeadLetterReason::ForbiddenAddress)
        }
        SendResult::ProxyFailure { .. }
        | SendResult::NotConnected { .. }
        | SendResult::TimedOut { .. }
        | SendResult::Failure { .. } => Outcome::Transient { retry_after: None },
    }
}

/// Parses a `Retry-After` header: seconds, or an HTTP date. Anything else is ignored.
fn parse_retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that overflows still means a very long time.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    DateTime::<Utc>::from(date).signed_duration_since(now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2024, 6, 18, 23, 26, 14).unwrap()
    }

    fn answer(status: u16, retry_after: Option<&str>) -> SendResult {
        SendResult::Response { status, retry_after: retry_after.map(str::to_owned), body: Vec::new() }
    }

    #[test]
    fn statuses_are_classified() {
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
    fn a_switch_of_protocols_is_a_protocol_error() {
        let send_result = answer(101, None);
        assert_eq!((send_result.cause(), send_result.blame()), (Cause::Protocol, Some(Blame::Protocol)));
    }

    #[test]
    fn retry_after_is_respected_only_for_429_and_503() {
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
    fn only_a_forbidden_address_is_permanent() {
        let failure = |cause| SendResult::Failure { cause, error: String::new() };
        assert_eq!(
            classify(&failure(Cause::ForbiddenAddress), &[410], now()),
            Outcome::Permanent(DeadLetterReason::ForbiddenAddress)
        );
        for cause in [Cause::Dns, Cause::Connect, Cause::Tls, Cause::Timeout, Cause::Reset, Cause::Protocol] {
            assert_eq!(classify(&failure(cause), &[410], now()), Outcome::Transient { retry_after: None });
        }
    }
}
