//! The loop of everything that owns a connection: connect, work until the connection is lost, pause, connect again.
//!
//! What differs is a [`Session`]. The publisher, the topology keeper, the consumer and the dead-letter supervisor have
//! one each.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use tokio_util::sync::CancellationToken;

/// The delays between connections: from 0.25 s to 3 s with jitter, and without an end.
pub struct ReconnectDelays(ExponentialBackoff);

impl Default for ReconnectDelays {
    fn default() -> Self {
        Self::between(Duration::from_millis(250), Duration::from_secs(3))
    }
}

impl ReconnectDelays {
    fn between(shortest: Duration, longest: Duration) -> Self {
        Self(ExponentialBackoff {
            initial_interval: shortest,
            current_interval: shortest,
            max_interval: longest,
            multiplier: 2.0,
            randomization_factor: 0.3,
            // The default stops after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// The next delay is the shortest again. For sessions whose connection works.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// How a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    Stopped,
    /// The next session begins without a pause.
    Restart,
}

/// Work over one connection at a time. [`run_sessions`] repeats it.
pub trait Session {
    type Error;
    /// An error that another connection can't solve. `Infallible` if there is none.
    type Fatal;

    /// Connects, and works until the connection is lost. Resets the delays once the connection has proved to work.
    fn run(&mut self, delays: &mut ReconnectDelays) -> impl Future<Output = Result<SessionEnd, Self::Error>> + Send;

    /// Logs and records the error. The next session begins after `delay`.
    ///
    /// # Errors
    /// The error, if another connection can't solve it.
    fn failed(&mut self, error: Self::Error, delay: Duration) -> Result<(), Self::Fatal>;
}

/// Runs sessions until one has stopped, or until `stop` is cancelled during a pause.
///
/// # Errors
/// [`Session::Fatal`].
pub async fn run_sessions<S: Session>(session: &mut S, stop: &CancellationToken) -> Result<(), S::Fatal> {
    repeat(session, ReconnectDelays::default(), stop).await
}

async fn repeat<S: Session>(
    session: &mut S,
    mut delays: ReconnectDelays,
    stop: &CancellationToken,
) -> Result<(), S::Fatal> {
    loop {
        match session.run(&mut delays).await {
            Ok(SessionEnd::Stopped) => return Ok(()),
            Ok(SessionEnd::Restart) => {}
            Err(error) => {
                let delay = delays.next_delay();
                session.failed(error, delay)?;
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// What a session of the test does. A session without an instruction has stopped.
    #[derive(Clone, Copy)]
    enum Step {
        Fail,
        /// The connection works before it is lost.
        WorkAndFail,
        /// The worker stops during the pause that follows.
        FailAndStop,
        FailForGood,
        Restart,
    }

    struct ScriptedSession {
        steps: VecDeque<Step>,
        sessions: usize,
        delays: Vec<Duration>,
        stop: CancellationToken,
    }

    impl Session for ScriptedSession {
        type Error = Step;
        type Fatal = &'static str;

        async fn run(&mut self, delays: &mut ReconnectDelays) -> Result<SessionEnd, Step> {
            self.sessions += 1;
            match self.steps.pop_front() {
                None => Ok(SessionEnd::Stopped),
                Some(Step::Restart) => Ok(SessionEnd::Restart),
                Some(step) => {
                    if matches!(step, Step::WorkAndFail) {
                        delays.reset();
                    }
                    Err(step)
                }
            }
        }

        fn failed(&mut self, error: Step, delay: Duration) -> Result<(), &'static str> {
            self.delays.push(delay);
            match error {
                Step::FailForGood => return Err("fatal"),
                Step::FailAndStop => self.stop.cancel(),
                Step::Fail | Step::WorkAndFail | Step::Restart => {}
            }
            Ok(())
        }
    }

    /// Returns the result, and the sessions with their delays.
    async fn run(
        steps: impl IntoIterator<Item = Step>,
        shortest: Duration,
    ) -> (Result<(), &'static str>, ScriptedSession) {
        let stop = CancellationToken::new();
        let mut session =
            ScriptedSession { steps: steps.into_iter().collect(), sessions: 0, delays: Vec::new(), stop: stop.clone() };
        let delays = ReconnectDelays::between(shortest, shortest * 12);
        let result = tokio::time::timeout(Duration::from_secs(30), repeat(&mut session, delays, &stop)).await;
        (result.expect("the sessions end"), session)
    }

    #[tokio::test]
    async fn the_delay_grows_until_a_connection_works() {
        let (result, session) =
            run([Step::Fail, Step::Fail, Step::Fail, Step::WorkAndFail], Duration::from_millis(1)).await;
        assert_eq!((result, session.sessions), (Ok(()), 5));
        let [first, second, third, after_success] = session.delays[..] else { panic!("{:?}", session.delays) };
        assert!(first < second && second < third, "{:?}", session.delays);
        assert!(after_success < second, "{:?}", session.delays);
    }

    #[tokio::test]
    async fn a_restart_has_no_pause() {
        let (result, session) = run([Step::Restart, Step::Restart], HOUR).await;
        assert_eq!((result, session.sessions, session.delays), (Ok(()), 3, Vec::new()));
    }

    #[tokio::test]
    async fn a_stop_ends_the_pause() {
        let (result, session) = run([Step::FailAndStop, Step::Restart], HOUR).await;
        assert_eq!((result, session.sessions), (Ok(()), 1));
    }

    #[tokio::test]
    async fn a_fatal_error_ends_the_loop() {
        let (result, session) = run([Step::FailForGood, Step::Restart], HOUR).await;
        assert_eq!((result, session.sessions), (Err("fatal"), 1));
    }

    #[test]
    fn reconnect_delays_never_end() {
        let mut delays = ReconnectDelays::default();
        delays.0.start_time -= HOUR;
        for _ in 0..10_000 {
            let delay = delays.0.next_backoff().expect("another try");
            assert!(delay <= Duration::from_secs(4), "{delay:?}");
        }
    }
}
