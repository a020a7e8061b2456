//! Connections that wait for another request to the same receiver.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Stream;

/// An idle connection is kept this long, below the minute or more after which most servers close theirs.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection takes no more requests at this age: after a change in DNS, the old address must not be used for ever.
const MAX_AGE: Duration = Duration::from_secs(60);

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

/// A connection to a receiver, and its age.
pub(super) struct Connection {
    pub(super) stream: Stream,
    opened: Instant,
}

impl Connection {
    /// One that was opened just now.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, opened: Instant::now() }
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_usable(&mut self) -> bool {
        self.since.elapsed() < IDLE_TIMEOUT
            && self.connection.opened.elapsed() < MAX_AGE
            && self.connection.stream.is_quiet()
    }
}

impl Pool {
    /// The connection to `origin` that was used last, of those that are still open.
    pub(super) fn take(&self, origin: &str) -> Option<Connection> {
        loop {
            let mut idle = self.inner().idle.get_mut(origin)?.pop()?;
            if idle.is_usable() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection for the next request to `origin`.
    pub(super) fn put(self: &Arc<Self>, origin: &str, connection: Connection) {
        let idle = Idle { connection, since: Instant::now() };
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

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_again_until_it_is_old() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let pool = Arc::new(Pool::default());
        for (age, is_used) in [(Duration::ZERO, true), (MAX_AGE, false)] {
            let stream = TcpStream::connect(address).await.expect("a connection");
            let opened = Instant::now().checked_sub(age).expect("a time");
            pool.put("origin", Connection { stream: Stream::Plain(stream), opened });
            assert_eq!(pool.take("origin").is_some(), is_used, "{age:?}");
        }
    }
}
