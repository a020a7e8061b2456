//! Whether all is well; if not, what is wrong and what to do.

use super::super::super::health::UnreadyReason;
use super::super::format;

/// So many requests of the last minute say something of all.
const MANY: u64 = 20;

/// What is known of a worker and what it has to do with.
#[derive(Debug, Default)]
pub(super) struct HealthInputs {
    /// Why it is not well.
    pub(super) trouble: Option<UnreadyReason>,
    /// Endpoints whose breaker is not closed.
    pub(super) broken: u64,
    /// Dead letters pending.
    pub(super) pending: u64,
    /// Replays that are paused.
    pub(super) paused: u64,
    /// Requests of the last minute, and those of them that failed.
    pub(super) attempts: u64,
    pub(super) failed: u64,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Well,
    Attention,
    Trouble,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Attention => "attention",
            Self::Trouble => "trouble",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Well => "All is well",
            Self::Attention => "Attention",
            Self::Trouble => "Trouble",
        }
    }
}

/// One thing that is so, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HealthFinding {
    pub(super) level: Level,
    pub(super) what: String,
    pub(super) todo: &'static str,
    /// Where to go, and what is there.
    pub(super) link: Option<(&'static str, &'static str)>,
}

/// All there is to say, the worst first; at least one point.
pub(super) fn points(observed: &HealthInputs) -> Vec<HealthFinding> {
    let mut points: Vec<HealthFinding> = observed.trouble.iter().map(of_trouble).collect();
    if observed.broken > 0 {
        points.push(attention(
            format!("{} no requests", format::new(observed.broken, "endpoint takes", "endpoints take")),
            "Deliveries to it wait in RabbitMQ, and go on by themselves when it answers again. Tell whoever runs it.",
            ("/endpoints", "Endpoints"),
        ));
    }
    if observed.attempts >= MANY && observed.failed * 4 >= observed.attempts {
        let share = format::percent(observed.failed as f64 / observed.attempts as f64);
        points.push(attention(
            format!("{share} of the last minute's requests failed"),
            "They are tried again. Where many endpoints fail in the same way the cause is on this side: look at DNS, the \
             network and the egress settings.",
            ("/endpoints", "Endpoints"),
        ));
    }
    if observed.pending > 0 {
        points.push(attention(
            format!("{} pending", format::new(observed.pending, "dead letter is", "dead letters are")),
            "Find out why they failed, have that mended, then replay them; discard what nobody needs.",
            ("/dead-letters?state=pending", "Dead letters"),
        ));
    }
    if observed.paused > 0 {
        points.push(attention(
            format!("{} paused", format::new(observed.paused, "replay is", "replays are")),
            "Somebody has paused it. Nothing of it is sent until it is resumed.",
            ("/replays", "Replays"),
        ));
    }
    if points.is_empty() {
        points.push(well(observed));
    }
    points
}

fn attention(what: String, todo: &'static str, link: (&'static str, &'static str)) -> HealthFinding {
    HealthFinding { level: Level::Attention, what, todo, link: Some(link) }
}

fn well(observed: &HealthInputs) -> HealthFinding {
    let what = match (observed.attempts, observed.failed) {
        (0, _) => "consuming, and there was nothing to send in the last minute".to_owned(),
        (attempts, 0) => {
            let them = if attempts == 1 { "it" } else { "all" };
            format!("{} in the last minute, {them} answered with 2xx", format::new(attempts, "request", "requests"))
        }
        (attempts, failed) => format!(
            "{} in the last minute, {} of them failed and tried again",
            format::new(attempts, "request", "requests"),
            format::percent(failed as f64 / attempts as f64)
        ),
    };
    HealthFinding { level: Level::Well, what, todo: "", link: None }
}

fn of_trouble(trouble: &UnreadyReason) -> HealthFinding {
    let (level, todo) = match trouble {
        UnreadyReason::NotConnected(_) => (
            Level::Trouble,
            "Nothing is delivered. See that RabbitMQ runs and that this worker reaches it; it keeps trying, and events wait \
             in the broker meanwhile.",
        ),
        UnreadyReason::CatchingUp => (
            Level::Attention,
            "Deliveries begin when it is read, usually within seconds. If it lasts, look at RabbitMQ and this worker's log.",
        ),
        UnreadyReason::Incomplete(_) => (
            Level::Trouble,
            "No event is lost: events and retries wait in the broker. Find a worker that has all campaigns before you decide, and \
             do not delete the store of any worker.",
        ),
        UnreadyReason::Stopping => (
            Level::Attention,
            "This worker finishes what is in hand and ends. Other workers go on; what is left goes back to the broker.",
        ),
        UnreadyReason::NotPublishing(_) => (
            Level::Trouble,
            "What is delivered at once goes on; retries and dead letters wait in hand. See that RabbitMQ runs and that this \
             worker reaches it; it keeps trying.",
        ),
        UnreadyReason::Blocked => (
            Level::Trouble,
            "Give RabbitMQ memory or disk space. What is delivered at once goes on; retries and dead letters wait in hand.",
        ),
        UnreadyReason::Stalled(_) => (
            Level::Trouble,
            "Look at this worker's log and at the endpoints below. A restart loses nothing: what is in hand is given out again.",
        ),
        UnreadyReason::Topology(_) => (
            Level::Trouble,
            "Do what it says, or run `waypost doctor`. Workers still deliver from the queues that exist.",
        ),
        UnreadyReason::NotFollowingCampaigns(_) => (
            Level::Trouble,
            "This worker delivers by an old configuration. Look at RabbitMQ's campaigns stream and at this worker's log.",
        ),
        UnreadyReason::NotFollowingDeadLetters(_) => (
            Level::Trouble,
            "Deliveries go on; dead letters and replays shown here are old. Look at RabbitMQ's dead-letters stream and at this \
             worker's log.",
        ),
    };
    let mut what = trouble.to_string();
    if let Some(first) = what.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    HealthFinding { level, what, todo, link: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn first(observed: HealthInputs) -> (Level, String) {
        let points = points(&observed);
        assert!(points.is_sorted_by_key(|point| std::cmp::Reverse(point.level)), "{points:?}");
        assert!(points.iter().all(|point| point.todo.is_empty() == (point.level == Level::Well)), "{points:?}");
        (points[0].level, points[0].what.clone())
    }

    #[test]
    fn what_is_worst_comes_first() {
        let said = |level, words: &str| (level, words.to_owned());
        let quiet = "consuming, and there was nothing to send in the last minute";
        assert_eq!(first(HealthInputs::default()), said(Level::Well, quiet));
        let busy = |failed| HealthInputs { attempts: 200, failed, ..HealthInputs::default() };
        assert_eq!(first(busy(0)), said(Level::Well, "200 requests in the last minute, all answered with 2xx"));
        assert_eq!(
            first(busy(40)),
            said(Level::Well, "200 requests in the last minute, 20 % of them failed and tried again")
        );
        assert_eq!(first(busy(150)), said(Level::Attention, "75 % of the last minute's requests failed"));
        let few = HealthInputs { attempts: 2, failed: 2, ..HealthInputs::default() };
        assert_eq!(first(few).0, Level::Well, "two requests say nothing");
        let pending = HealthInputs { pending: 1, ..busy(0) };
        assert_eq!(first(pending), said(Level::Attention, "one dead letter is pending"));
        let paused = HealthInputs { paused: 1, pending: 1, ..busy(0) };
        assert_eq!(points(&paused).len(), 2);
        assert_eq!(first(HealthInputs { pending: 0, ..paused }), said(Level::Attention, "one replay is paused"));
        let broken = HealthInputs { broken: 2, pending: 4_000, ..busy(0) };
        assert_eq!(points(&broken).len(), 2);
        assert_eq!(first(broken), said(Level::Attention, "2 endpoints take no requests"));
        let blocked = HealthInputs { trouble: Some(UnreadyReason::Blocked), broken: 1, pending: 1, ..busy(0) };
        assert_eq!(first(blocked), said(Level::Trouble, "The broker takes no messages: it is short of memory or disk"));
        for trouble in [
            UnreadyReason::NotConnected("refused".to_owned()),
            UnreadyReason::NotPublishing("refused".to_owned()),
            UnreadyReason::Stalled(Duration::from_secs(61)),
        ] {
            assert_eq!(first(HealthInputs { trouble: Some(trouble), ..HealthInputs::default() }).0, Level::Trouble);
        }
        for trouble in [UnreadyReason::CatchingUp, UnreadyReason::Stopping] {
            assert_eq!(first(HealthInputs { trouble: Some(trouble), ..HealthInputs::default() }).0, Level::Attention);
        }
    }
}
