//! Which of the broker's objects are missing or not as required, and which were restored.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::BrokerError;
use super::mismatch::Mismatch;

/// Repairs older than this are not reported any more.
const RECENT: Duration = Duration::from_secs(600);

/// Repairs remembered.
const MAX_REPAIRS: usize = 50;

/// Two connections that find the same object missing within this time have found one loss.
const SAME_LOSS: Duration = Duration::from_secs(3);

/// A topology that was not checked for this long is reported. Longer than a broker's restart takes.
const GRACE: Duration = Duration::from_secs(30);

/// The kind of a broker object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// From an exchange to a queue or to another exchange.
    Binding,
    /// An exchange.
    Exchange,
    /// A quorum queue.
    Queue,
    /// A stream.
    Stream,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Binding, Self::Exchange, Self::Queue, Self::Stream];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Exchange => "exchange",
            Self::Queue => "queue",
            Self::Stream => "stream",
        }
    }
}

/// A broker object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name; of a binding, that of its source.
    pub name: String,
}

impl Object {
    /// An object of this kind.
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// What its disappearance has cost.
    fn loss(&self) -> &'static str {
        match self.kind {
            ObjectKind::Binding | ObjectKind::Exchange if self.name.ends_with(".dead-letters") => {
                "Nothing is lost: dead letters are published again."
            }
            ObjectKind::Binding => {
                "Events published while it was missing are lost, unless their publisher uses `mandatory`."
            }
            ObjectKind::Exchange => {
                "Events published while it was missing were refused: publishers have to publish them again."
            }
            ObjectKind::Queue => "The messages that were in it are lost.",
            ObjectKind::Stream => "The records that were in it are lost.",
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::Binding => write!(f, "the binding of exchange {}", self.name),
            kind => write!(f, "{} {}", kind.as_str(), self.name),
        }
    }
}

/// Something that a worker cannot put right by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyProblem {
    /// An object is missing, and is not declared again.
    #[error("{object} is missing: {why}")]
    Missing {
        /// The object.
        object: Object,
        /// Why it was not declared.
        why: String,
    },
    /// An object was replaced by one with other arguments.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The user lacks a right.
    #[error("{doing}: {error}. Grant it again: {grant}")]
    Refused {
        /// What was refused.
        doing: &'static str,
        /// The broker's sentence.
        error: String,
        /// The command that grants what a worker needs.
        grant: String,
    },
}

impl TopologyProblem {
    /// The metric labels.
    pub const LABELS: [&'static str; 3] = ["missing", "mismatch", "refused"];

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Mismatch(_) => "mismatch",
            Self::Refused { .. } => "refused",
        }
    }
}

/// No check of the topology has ended for too long. The problems are those of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchecked {
    /// Since the last check.
    pub lasts: Duration,
    /// Why the last try failed.
    pub error: String,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not checked for {} s: {}", self.lasts.as_secs(), self.error)
    }
}

/// An object that was missing and was declared again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The object.
    pub object: Object,
    /// When it was declared again.
    pub at: DateTime<Utc>,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_rfc3339_seconds(self.at.into());
        write!(f, "{} was missing and was declared again at {at}. {}", self.object, self.object.loss())
    }
}

/// The topology as this process knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TopologyStatus(Arc<State>);

#[derive(Debug)]
struct State {
    declared: watch::Sender<bool>,
    problems: Mutex<Vec<TopologyProblem>>,
    checks: Mutex<Checks>,
    repairs: Mutex<Repairs>,
}

#[derive(Debug)]
struct Checks {
    /// When one ended.
    last: Instant,
    /// Why a later one failed.
    error: Option<String>,
}

#[derive(Debug, Default)]
struct Repairs {
    latest: VecDeque<Repair>,
    /// By the kind's number.
    counts: [u64; ObjectKind::ALL.len()],
}

impl Default for TopologyStatus {
    fn default() -> Self {
        let (problems, repairs) = (Mutex::default(), Mutex::default());
        let checks = Mutex::new(Checks { last: Instant::now(), error: None });
        Self(Arc::new(State { declared: watch::Sender::new(false), problems, checks, repairs }))
    }
}

impl TopologyStatus {
    /// All objects were declared by this process.
    pub(super) fn declared(&self) {
        if !self.is_declared() {
            // The first check can be due only now.
            lock(&self.0.checks).last = Instant::now();
        }
        self.0.declared.send_replace(true);
    }

    /// Whether this process has declared all objects before: what is missing from then on has disappeared.
    pub(super) fn is_declared(&self) -> bool {
        *self.0.declared.borrow()
    }

    /// Waits until all objects were declared.
    pub async fn until_declared(&self) {
        // The sender lives as long as this does.
        let _ = self.0.declared.subscribe().wait_for(|declared| *declared).await;
    }

    /// What was wrong at the last check.
    pub fn problems(&self) -> Vec<TopologyProblem> {
        lock(&self.0.problems).clone()
    }

    /// `None` if a check has ended recently.
    pub fn unchecked(&self) -> Option<Unchecked> {
        let checks = lock(&self.0.checks);
        let lasts = checks.last.elapsed();
        if !self.is_declared() || lasts <= GRACE {
            return None;
        }
        let error = checks.error.clone().unwrap_or_else(|| "the broker does not answer".to_owned());
        Some(Unchecked { lasts, error })
    }

    /// A check found these problems. Returns those of the check before.
    pub(super) fn checked(&self, problems: Vec<TopologyProblem>) -> Vec<TopologyProblem> {
        *lock(&self.0.checks) = Checks { last: Instant::now(), error: None };
        std::mem::replace(&mut *lock(&self.0.problems), problems)
    }

    /// A check failed. The problems of the last one stay: nobody knows better.
    pub(super) fn check_failed(&self, error: &BrokerError) {
        lock(&self.0.checks).error = Some(error.to_string());
    }

    /// An object was missing and was declared again.
    pub(super) fn restored(&self, object: Object) {
        let at = Utc::now();
        let repair = Repair { object, at };
        let mut repairs = lock(&self.0.repairs);
        let known = |earlier: &Repair| {
            earlier.object == repair.object
                && at.signed_duration_since(earlier.at).to_std().unwrap_or_default() < SAME_LOSS
        };
        if repairs.latest.iter().any(known) {
            return;
        }
        let Object { kind, name } = &repair.object;
        tracing::error!(kind = kind.as_str(), name, lost = repair.object.loss(), "missing broker object restored");
        repairs.counts[*kind as usize] += 1;
        repairs.latest.truncate(MAX_REPAIRS - 1);
        repairs.latest.push_front(repair);
    }

    /// Repairs of the last ten minutes, the latest first.
    pub fn recent_repairs(&self) -> Vec<Repair> {
        let now = Utc::now();
        let recent = |repair: &&Repair| now.signed_duration_since(repair.at).to_std().unwrap_or_default() < RECENT;
        lock(&self.0.repairs).latest.iter().filter(recent).cloned().collect()
    }

    /// Repairs of a kind since the process started.
    pub fn repairs(&self, kind: ObjectKind) -> u64 {
        lock(&self.0.repairs).counts[kind as usize]
    }
}

/// Nothing panics while one of these is locked half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_is_counted_once_and_says_what_is_lost() {
        let status = TopologyStatus::default();
        for _ in 0..2 {
            status.restored(Object::new(ObjectKind::Queue, "waypost.events"));
        }
        status.restored(Object::new(ObjectKind::Binding, "waypost.events"));
        let repairs: Vec<String> = status.recent_repairs().iter().map(ToString::to_string).collect();
        assert_eq!(repairs.len(), 2);
        assert!(repairs[0].starts_with("the binding of exchange waypost.events was missing"), "{repairs:?}");
        assert!(repairs[1].contains("messages that were in it are lost"), "{repairs:?}");
        assert_eq!(ObjectKind::ALL.map(|kind| status.repairs(kind)), [1, 0, 1, 0]);
    }

    #[test]
    fn a_topology_that_is_not_checked_keeps_its_problems_and_says_why() {
        let status = TopologyStatus::default();
        let back = GRACE + Duration::from_secs(17);
        lock(&status.0.checks).last -= back;
        assert_eq!(status.unchecked(), None, "there is nothing to check before all is declared");
        status.declared();
        assert_eq!(status.unchecked(), None);

        let object = Object::new(ObjectKind::Stream, "waypost.campaigns");
        let missing = TopologyProblem::Missing { object, why: "deleted".to_owned() };
        status.checked(vec![missing.clone()]);
        let limit = BrokerError::ChannelFailed { doing: "connecting", error: "connection limit reached".to_owned() };
        status.check_failed(&limit);
        assert_eq!(status.unchecked(), None, "one lost connection is nothing to report");
        lock(&status.0.checks).last -= back;
        // Another connection declares everything once more, and checks nothing.
        status.declared();
        assert_eq!(status.problems(), std::slice::from_ref(&missing));
        let unchecked = status.unchecked().expect("not checked for too long").to_string();
        assert_eq!(unchecked, "not checked for 47 s: connecting: connection limit reached");
        assert_eq!(status.checked(Vec::new()), [missing]);
        assert_eq!((status.problems().len(), status.unchecked()), (0, None));
    }
}
