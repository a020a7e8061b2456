//! A pool of idle connections, each of which waits for the next request to the same endpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::deadline_timer::DeadlineTimer;
use super::socket::Socket;

/// An idle connection is closed after this time, before most servers close it after a minute or more.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An older connection is not used again, so that a change in DNS takes effect.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);

/// How often expired and closed connections are dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Idle connections by origin: scheme, host and port, as they are written in the URL.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    idle: HashMap<String, Vec<IdleConnection>>,
    sweeper: SweeperState,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum SweeperState {
    #[default]
    Stopped,
    Running,
}

pub(super) struct Connection {
    pub(super) stream: Socket,
    /// For the deadlines of its requests.
    pub(super) timer: DeadlineTimer,
    opened: Instant,
}

impl Connection {
    /// `deadline` is that of the first request.
    pub(super) fn new(stream: Socket, deadline: tokio::time::Instant) -> Self {
        Self { stream, timer: DeadlineTimer::new(deadline), opened: Instant::now() }
    }
}

struct IdleConnection {
    connection: Connection,
    since: Instant,
}

impl IdleConnection {
    fn is_usable(&mut self) -> bool {
        let now = Instant::now();
        now.saturating_duration_since(self.since) < IDLE_TIMEOUT
            && now.saturating_duration_since(self.connection.opened) < MAX_CONNECTION_AGE
            && self.connection.stream.is_quiet()
    }
}

impl Pool {
    /// Removes the most recently used connection to `origin` that is still usable.
    pub(super) fn take(&self, origin: &str) -> Option<Connection> {
        loop {
            let mut idle = self.state().idle.get_mut(origin)?.pop()?;
            if idle.is_usable() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection for the next request to `origin`.
    pub(super) fn put(self: &Arc<Self>, origin: &str, connection: Connection) {
        let idle = IdleConnection { connection, since: Instant::now() };
        let mut state = self.state();
        match state.idle.get_mut(origin) {
            Some(others) => others.push(idle),
            None => {
                state.idle.insert(origin.to_owned(), vec![idle]);
            }
        }
        if state.sweeper == SweeperState::Stopped {
            state.sweeper = SweeperState::Running;
            let pool = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                    match pool.upgrade().map(|pool| pool.sweep()) {
                        Some(SweeperState::Running) => {}
                        Some(SweeperState::Stopped) | None => return,
                    }
                }
            });
        }
    }

    /// Drops unusable connections. The sweeper stops when no connection is left.
    fn sweep(&self) -> SweeperState {
        let mut state = self.state();
        state.idle.retain(|_, idle| {
            idle.retain_mut(IdleConnection::is_usable);
            !idle.is_empty()
        });
        if state.idle.is_empty() {
            state.sweeper = SweeperState::Stopped;
        }
        state.sweeper
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_again_only_below_its_maximum_age() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let pool = Arc::new(Pool::default());
        for (age, is_used) in [(Duration::ZERO, true), (MAX_CONNECTION_AGE, false)] {
            let stream = TcpStream::connect(address).await.expect("a connection");
            let opened = Instant::now().checked_sub(age).expect("a time");
            let timer = DeadlineTimer::new(tokio::time::Instant::now());
            pool.put("origin", Connection { stream: Socket::Plain(stream), timer, opened });
            assert_eq!(pool.take("origin").is_some(), is_used, "{age:?}");
        }
    }
}
