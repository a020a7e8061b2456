//! Which of the broker's objects are missing or not as required, and which were restored.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::topology::Mismatch;

/// Repairs older than this are not reported any more.
const RECENT: Duration = Duration::from_secs(600);

/// Repairs remembered.
const MAX_REPAIRS: usize = 50;

/// Two connections that find the same object missing within this time have found one loss.
const SAME_LOSS: Duration = Duration::from_secs(3);

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
    repairs: Mutex<Repairs>,
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
        Self(Arc::new(State { declared: watch::Sender::new(false), problems, repairs }))
    }
}

impl TopologyStatus {
    /// All objects were declared by this process.
    pub(super) fn declared(&self) {
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

    /// What is wrong now.
    pub fn problems(&self) -> Vec<TopologyProblem> {
        lock(&self.0.problems).clone()
    }

    /// Replaces what is wrong, and returns what was before.
    pub(super) fn set_problems(&self, problems: Vec<TopologyProblem>) -> Vec<TopologyProblem> {
        std::mem::replace(&mut *lock(&self.0.problems), problems)
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
}
