//! Connections that wait for another request to the same receiver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Stream;

/// An idle connection is kept this long, below the minute or more after which most servers close theirs.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often expired and closed connections are dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Idle connections by origin: scheme, host and port, as a URL has them.
#[derive(Default)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: HashMap<String, Vec<Idle>>,
    sweeper: Sweeper,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Sweeper {
    #[default]
    Stopped,
    Running,
}

struct Idle {
    stream: Stream,
    since: Instant,
}

impl Idle {
    fn is_usable(&mut self) -> bool {
        self.since.elapsed() < IDLE_TIMEOUT && self.stream.is_quiet()
    }
}

impl Pool {
    /// The connection to `origin` that was used last, of those that are still open.
    pub(super) fn take(&self, origin: &str) -> Option<Stream> {
        loop {
            let mut idle = self.inner().idle.get_mut(origin)?.pop()?;
            if idle.is_usable() {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection for the next request to `origin`.
    pub(super) fn put(self: &Arc<Self>, origin: &str, stream: Stream) {
        let idle = Idle { stream, since: Instant::now() };
        let mut inner = self.inner();
        match inner.idle.get_mut(origin) {
            Some(others) => others.push(idle),
            None => {
                inner.idle.insert(origin.to_owned(), vec![idle]);
            }
        }
        if inner.sweeper == Sweeper::Stopped {
            inner.sweeper = Sweeper::Running;
            let pool = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                    match pool.upgrade().map(|pool| pool.sweep()) {
                        Some(Sweeper::Running) => {}
                        Some(Sweeper::Stopped) | None => return,
                    }
                }
            });
        }
    }

    /// Drops what can't be used any more. The sweeper stops when nothing is left.
    fn sweep(&self) -> Sweeper {
        let mut inner = self.inner();
        inner.idle.retain(|_, idle| {
            idle.retain_mut(Idle::is_usable);
            !idle.is_empty()
        });
        if inner.idle.is_empty() {
            inner.sweeper = Sweeper::Stopped;
        }
        inner.sweeper
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
