//! The status of the broker objects: problems of the last check, and recent repairs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::BrokerError;
use super::mismatch::Mismatch;

/// Older repairs are not reported.
const MAX_REPAIR_AGE: Duration = Duration::from_secs(600);

const MAX_REPAIRS: usize = 50;

/// If two connections find the same object missing within this time, it counts as one loss.
const SAME_LOSS_WINDOW: Duration = Duration::from_secs(3);

/// If no check succeeds for this long, that is reported. A restart of the broker takes less time.
const MAX_CHECK_AGE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// Binds an exchange to a queue or to another exchange.
    Binding,
    Exchange,
    /// A quorum queue.
    Queue,
    Stream,
}

impl ObjectKind {
    pub const ALL: [Self; 4] = [Self::Binding, Self::Exchange, Self::Queue, Self::Stream];

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Exchange => "exchange",
            Self::Queue => "queue",
            Self::Stream => "stream",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerObject {
    pub kind: ObjectKind,
    /// For a binding, the name of the source exchange.
    pub name: String,
}

impl BrokerObject {
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The consequence of the object's loss, as a sentence.
    fn loss_description(&self) -> &'static str {
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

impl fmt::Display for BrokerObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::Binding => write!(f, "the binding of exchange {}", self.name),
            kind => write!(f, "{} {}", kind.as_str(), self.name),
        }
    }
}

/// A problem that a worker cannot repair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyProblem {
    #[error("{object} is missing: {why}")]
    Missing {
        object: BrokerObject,
        /// Why the worker did not declare it again.
        why: String,
    },
    /// An object was replaced by one with other arguments.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The user lacks a permission.
    #[error("{operation}: {error}. Grant the permissions: {grant}")]
    Refused {
        operation: &'static str,
        /// The broker's error text.
        error: String,
        /// The command that grants all permissions that a worker needs.
        grant: String,
    },
}

impl TopologyProblem {
    /// All values of [`label`](Self::label).
    pub const LABELS: [&'static str; 3] = ["missing", "mismatch", "refused"];

    /// A metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Mismatch(_) => "mismatch",
            Self::Refused { .. } => "refused",
        }
    }
}

/// No check has succeeded for too long. The reported problems are those of the last check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverdueCheck {
    /// Time since the last successful check.
    pub age: Duration,
    /// Why the last attempt failed.
    pub error: String,
}

impl fmt::Display for OverdueCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not checked for {} s: {}", self.age.as_secs(), self.error)
    }
}

/// An object that was missing and was declared again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    pub object: BrokerObject,
    /// When the object was declared again.
    pub at: DateTime<Utc>,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_rfc3339_seconds(self.at.into());
        write!(f, "{} was missing and was declared again at {at}. {}", self.object, self.object.loss_description())
    }
}

/// The status as this process knows it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TopologyStatus(Arc<TopologyState>);

#[derive(Debug)]
struct TopologyState {
    declared: watch::Sender<bool>,
    problems: Mutex<Vec<TopologyProblem>>,
    last_check: Mutex<LastCheck>,
    repairs: Mutex<Repairs>,
}

#[derive(Debug)]
struct LastCheck {
    /// When the last successful check ended.
    at: Instant,
    /// Why a later check failed.
    error: Option<String>,
}

#[derive(Debug, Default)]
struct Repairs {
    /// Newest first, at most [`MAX_REPAIRS`].
    latest: VecDeque<Repair>,
    /// Indexed by [`ObjectKind`].
    counts: [u64; ObjectKind::ALL.len()],
}

impl Default for TopologyStatus {
    fn default() -> Self {
        let (problems, repairs) = (Mutex::default(), Mutex::default());
        let last_check = Mutex::new(LastCheck { at: Instant::now(), error: None });
        Self(Arc::new(TopologyState { declared: watch::Sender::new(false), problems, last_check, repairs }))
    }
}

impl TopologyStatus {
    /// Records that this process has declared all objects.
    pub(super) fn set_declared(&self) {
        if !self.is_declared() {
            // The first check becomes due from now on.
            lock(&self.0.last_check).at = Instant::now();
        }
        self.0.declared.send_replace(true);
    }

    /// Whether this process has declared all objects. An object that is missing afterwards was deleted.
    pub(super) fn is_declared(&self) -> bool {
        *self.0.declared.borrow()
    }

    /// Waits until this process has declared all objects.
    pub async fn wait_until_declared(&self) {
        // Waiting cannot fail: the sender lives as long as `self`.
        let _ = self.0.declared.subscribe().wait_for(|declared| *declared).await;
    }

    /// The problems of the last successful check.
    pub fn problems(&self) -> Vec<TopologyProblem> {
        lock(&self.0.problems).clone()
    }

    /// `None` if a check has succeeded recently.
    pub fn overdue_check(&self) -> Option<OverdueCheck> {
        let last_check = lock(&self.0.last_check);
        let age = last_check.at.elapsed();
        if !self.is_declared() || age <= MAX_CHECK_AGE {
            return None;
        }
        let error = last_check.error.clone().unwrap_or_else(|| "the broker does not answer".to_owned());
        Some(OverdueCheck { age, error })
    }

    /// Records the problems of a successful check. Returns the problems of the previous check.
    pub(super) fn record_check(&self, problems: Vec<TopologyProblem>) -> Vec<TopologyProblem> {
        *lock(&self.0.last_check) = LastCheck { at: Instant::now(), error: None };
        std::mem::replace(&mut *lock(&self.0.problems), problems)
    }

    /// Records that a check failed. The problems of the last successful check stay.
    pub(super) fn check_failed(&self, error: &BrokerError) {
        lock(&self.0.last_check).error = Some(error.to_string());
    }

    /// Records that a missing object was declared again.
    pub(super) fn record_repair(&self, object: BrokerObject) {
        let at = Utc::now();
        let repair = Repair { object, at };
        let mut repairs = lock(&self.0.repairs);
        let is_same_loss = |earlier: &Repair| {
            earlier.object == repair.object
                && at.signed_duration_since(earlier.at).to_std().unwrap_or_default() < SAME_LOSS_WINDOW
        };
        if repairs.latest.iter().any(is_same_loss) {
            return;
        }
        let BrokerObject { kind, name } = &repair.object;
        tracing::error!(
            kind = kind.as_str(),
            name,
            lost = repair.object.loss_description(),
            "missing broker object restored"
        );
        repairs.counts[*kind as usize] += 1;
        repairs.latest.truncate(MAX_REPAIRS - 1);
        repairs.latest.push_front(repair);
    }

    /// Repairs of the last ten minutes, newest first.
    pub fn recent_repairs(&self) -> Vec<Repair> {
        let now = Utc::now();
        let is_recent =
            |repair: &&Repair| now.signed_duration_since(repair.at).to_std().unwrap_or_default() < MAX_REPAIR_AGE;
        lock(&self.0.repairs).latest.iter().filter(is_recent).cloned().collect()
    }

    /// The number of repairs since the process started.
    pub fn repairs(&self, kind: ObjectKind) -> u64 {
        lock(&self.0.repairs).counts[kind as usize]
    }
}

/// Ignores poisoning: no code panics in the middle of a change while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_is_counted_once_and_the_repair_describes_the_consequence() {
        let status = TopologyStatus::default();
        for _ in 0..2 {
            status.record_repair(BrokerObject::new(ObjectKind::Queue, "waypost.events"));
        }
        status.record_repair(BrokerObject::new(ObjectKind::Binding, "waypost.events"));
        let repairs: Vec<String> = status.recent_repairs().iter().map(ToString::to_string).collect();
        assert_eq!(repairs.len(), 2);
        assert!(repairs[0].starts_with("the binding of exchange waypost.events was missing"), "{repairs:?}");
        assert!(repairs[1].contains("messages that were in it are lost"), "{repairs:?}");
        assert_eq!(ObjectKind::ALL.map(|kind| status.repairs(kind)), [1, 0, 1, 0]);
    }

    #[test]
    fn an_overdue_check_keeps_the_last_problems_and_reports_the_last_error() {
        let status = TopologyStatus::default();
        let overdue = MAX_CHECK_AGE + Duration::from_secs(17);
        lock(&status.0.last_check).at -= overdue;
        assert_eq!(status.overdue_check(), None, "no check is due before the objects are declared");
        status.set_declared();
        assert_eq!(status.overdue_check(), None);

        let object = BrokerObject::new(ObjectKind::Stream, "waypost.campaigns");
        let missing = TopologyProblem::Missing { object, why: "deleted".to_owned() };
        status.record_check(vec![missing.clone()]);
        let connection_limit =
            BrokerError::ChannelFailed { operation: "connecting", error: "connection limit reached".to_owned() };
        status.check_failed(&connection_limit);
        assert_eq!(status.overdue_check(), None, "one failed check is not reported");
        lock(&status.0.last_check).at -= overdue;
        // Another connection declares the objects again, which is not a check.
        status.set_declared();
        assert_eq!(status.problems(), std::slice::from_ref(&missing));
        let overdue_check = status.overdue_check().expect("overdue").to_string();
        assert_eq!(overdue_check, "not checked for 47 s: connecting: connection limit reached");
        assert_eq!(status.record_check(Vec::new()), [missing]);
        assert_eq!((status.problems().len(), status.overdue_check()), (0, None));
    }
}
