//! The health summary of the overview: what is wrong and what to do.

use crate::console::format;
use crate::health::UnreadyReason;

/// With fewer requests in the last minute, the failure ratio is not meaningful.
const MIN_REQUESTS: u64 = 20;

#[derive(Debug, Default)]
pub(super) struct HealthInputs {
    /// Why the worker is not ready, if it is not.
    pub(super) unready_reason: Option<UnreadyReason>,
    /// Number of endpoints whose breaker is not closed.
    pub(super) open_breakers: u64,
    /// Number of pending dead letters.
    pub(super) pending: u64,
    /// Number of paused replays.
    pub(super) paused_replays: u64,
    /// Number of requests in the last minute, and how many of them failed.
    pub(super) attempts: u64,
    pub(super) failed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Healthy,
    Attention,
    Trouble,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "well",
            Self::Attention => "attention",
            Self::Trouble => "trouble",
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Healthy => "All is well",
            Self::Attention => "Attention",
            Self::Trouble => "Trouble",
        }
    }
}

/// A finding, with advice on what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HealthFinding {
    pub(super) level: Level,
    pub(super) description: String,
    pub(super) advice: &'static str,
    /// URL and name of a page that helps.
    pub(super) link: Option<(&'static str, &'static str)>,
}

/// All findings, worst first. There is always at least one.
pub(super) fn findings(inputs: &HealthInputs) -> Vec<HealthFinding> {
    let mut findings: Vec<HealthFinding> = inputs.unready_reason.iter().map(from_unready_reason).collect();
    if inputs.open_breakers > 0 {
        findings.push(attention(
            format!("{} no requests", format::counted(inputs.open_breakers, "endpoint takes", "endpoints take")),
            "Deliveries to it wait in RabbitMQ and resume automatically when it responds again. Inform the operator of the endpoint.",
            ("/endpoints", "Endpoints"),
        ));
    }
    if inputs.attempts >= MIN_REQUESTS && inputs.failed * 4 >= inputs.attempts {
        let share = format::percent(inputs.failed as f64 / inputs.attempts as f64);
        findings.push(attention(
            format!("{share} of the last minute's requests failed"),
            "Waypost retries them. If many endpoints fail in the same way, the cause is probably on this side. Check DNS, \
             the network and the egress settings.",
            ("/endpoints", "Endpoints"),
        ));
    }
    if inputs.pending > 0 {
        findings.push(attention(
            format!("{} pending", format::counted(inputs.pending, "dead letter is", "dead letters are")),
            "Find out why they failed and fix the cause. Then replay them, or discard those that are not needed.",
            ("/dead-letters?state=pending", "Dead letters"),
        ));
    }
    if inputs.paused_replays > 0 {
        findings.push(attention(
            format!("{} paused", format::counted(inputs.paused_replays, "replay is", "replays are")),
            "A user paused it. It sends nothing until it is resumed.",
            ("/replays", "Replays"),
        ));
    }
    if findings.is_empty() {
        findings.push(healthy_finding(inputs));
    }
    findings
}

fn attention(description: String, advice: &'static str, link: (&'static str, &'static str)) -> HealthFinding {
    HealthFinding { level: Level::Attention, description, advice, link: Some(link) }
}

fn healthy_finding(inputs: &HealthInputs) -> HealthFinding {
    let description = match (inputs.attempts, inputs.failed) {
        (0, _) => "consuming, with nothing to send in the last minute".to_owned(),
        (attempts, 0) => {
            let requests = format::counted(attempts, "request", "requests");
            let all = if attempts == 1 { "" } else { "all " };
            format!("{requests} in the last minute, {all}answered with 2xx")
        }
        (attempts, failed) => format!(
            "{} in the last minute, of which {} failed and will be retried",
            format::counted(attempts, "request", "requests"),
            format::percent(failed as f64 / attempts as f64)
        ),
    };
    HealthFinding { level: Level::Healthy, description, advice: "", link: None }
}

fn from_unready_reason(unready_reason: &UnreadyReason) -> HealthFinding {
    let (level, advice) = match unready_reason {
        UnreadyReason::NotConnected(_) => (
            Level::Trouble,
            "Nothing is delivered. Check that RabbitMQ is running and that this worker can reach it. Events wait in the \
             broker, and the worker keeps reconnecting.",
        ),
        UnreadyReason::CatchingUp => (
            Level::Attention,
            "Deliveries start when the configuration is loaded, usually within seconds. If it takes longer, check RabbitMQ \
             and the log of this worker.",
        ),
        UnreadyReason::Incomplete(_) => (
            Level::Trouble,
            "No event is lost: events and retries wait in the broker. Find a worker that has all campaigns before you \
             decide. Do not delete the store of any worker.",
        ),
        UnreadyReason::Stopping => (
            Level::Attention,
            "This worker finishes the messages in flight and stops. Other workers continue. The broker redelivers \
             unfinished messages.",
        ),
        UnreadyReason::NotPublishing(_) => (
            Level::Trouble,
            "First attempts that succeed continue. Retries and dead letters wait in memory. Check that RabbitMQ is running \
             and that this worker can reach it. The worker keeps reconnecting.",
        ),
        UnreadyReason::Blocked => (
            Level::Trouble,
            "Give RabbitMQ more memory or disk space. First attempts that succeed continue. Retries and dead letters wait in \
             memory.",
        ),
        UnreadyReason::Stalled(_) => (
            Level::Trouble,
            "Check the log of this worker and the endpoints below. A restart loses nothing, because the broker redelivers \
             messages in flight.",
        ),
        UnreadyReason::Topology(_) => (
            Level::Trouble,
            "Follow the message above, or run `waypost doctor`. Workers still deliver from the queues that exist.",
        ),
        UnreadyReason::NotFollowingCampaigns(_) => (
            Level::Trouble,
            "This worker delivers with an old configuration. Check the campaigns stream in RabbitMQ and the log of this \
             worker.",
        ),
        UnreadyReason::NotFollowingDeadLetters(_) => (
            Level::Trouble,
            "Deliveries continue, but the dead letters and replays shown here are outdated. Check the dead-letters stream in \
             RabbitMQ and the log of this worker.",
        ),
    };
    let mut description = unready_reason.to_string();
    if let Some(first) = description.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    HealthFinding { level, description, advice, link: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn first(inputs: HealthInputs) -> (Level, String) {
        let findings = findings(&inputs);
        assert!(findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.level)), "{findings:?}");
        assert!(
            findings.iter().all(|finding| finding.advice.is_empty() == (finding.level == Level::Healthy)),
            "{findings:?}"
        );
        (findings[0].level, findings[0].description.clone())
    }

    #[test]
    fn the_worst_finding_comes_first() {
        let expected = |level, label: &str| (level, label.to_owned());
        let quiet = "consuming, with nothing to send in the last minute";
        assert_eq!(first(HealthInputs::default()), expected(Level::Healthy, quiet));
        let busy = |failed| HealthInputs { attempts: 200, failed, ..HealthInputs::default() };
        assert_eq!(first(busy(0)), expected(Level::Healthy, "200 requests in the last minute, all answered with 2xx"));
        assert_eq!(
            first(busy(40)),
            expected(Level::Healthy, "200 requests in the last minute, of which 20 % failed and will be retried")
        );
        assert_eq!(first(busy(150)), expected(Level::Attention, "75 % of the last minute's requests failed"));
        let few = HealthInputs { attempts: 2, failed: 2, ..HealthInputs::default() };
        assert_eq!(first(few).0, Level::Healthy, "two requests are too few");
        let pending = HealthInputs { pending: 1, ..busy(0) };
        assert_eq!(first(pending), expected(Level::Attention, "one dead letter is pending"));
        let paused_replays = HealthInputs { paused_replays: 1, pending: 1, ..busy(0) };
        assert_eq!(findings(&paused_replays).len(), 2);
        assert_eq!(
            first(HealthInputs { pending: 0, ..paused_replays }),
            expected(Level::Attention, "one replay is paused")
        );
        let open_breakers = HealthInputs { open_breakers: 2, pending: 4_000, ..busy(0) };
        assert_eq!(findings(&open_breakers).len(), 2);
        assert_eq!(first(open_breakers), expected(Level::Attention, "2 endpoints take no requests"));
        let blocked =
            HealthInputs { unready_reason: Some(UnreadyReason::Blocked), open_breakers: 1, pending: 1, ..busy(0) };
        assert_eq!(
            first(blocked),
            expected(Level::Trouble, "The broker takes no messages: it is short of memory or disk")
        );
        for unready_reason in [
            UnreadyReason::NotConnected("refused".to_owned()),
            UnreadyReason::NotPublishing("refused".to_owned()),
            UnreadyReason::Stalled(Duration::from_secs(61)),
        ] {
            assert_eq!(
                first(HealthInputs { unready_reason: Some(unready_reason), ..HealthInputs::default() }).0,
                Level::Trouble
            );
        }
        for unready_reason in [UnreadyReason::CatchingUp, UnreadyReason::Stopping] {
            assert_eq!(
                first(HealthInputs { unready_reason: Some(unready_reason), ..HealthInputs::default() }).0,
                Level::Attention
            );
        }
    }
}
