//! Holds the connection on which the dead-letter stream is read and replays run, and connects again when it is lost.
//! Deliveries have another connection, so trouble with dead letters does not stop them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waypost_broker::BrokerError;
use waypost_broker::connection::{self, ConnectionConfig};
use waypost_broker::reconnect::{ReconnectDelays, Session, SessionEnd, run_sessions};
use waypost_broker::stream_writer::ReadBack;
use waypost_broker::topology::Topology;

use super::{DeadLetters, LetterViewState};
use crate::replays::runner::Runner;
use crate::view_sync::{FollowError, Follower, SyncState, watch};

pub struct DeadLetterSupervisor {
    pub broker: ConnectionConfig,
    pub topology: Topology,
    pub dead_letters: DeadLetters,
    /// Runs once the view is current.
    pub runner: Arc<Runner>,
    pub follower: Follower,
    /// Replays run only while the configuration is current, because they send by it.
    pub configuration: watch::Receiver<SyncState>,
}

impl DeadLetterSupervisor {
    /// Runs replays until `stop`, and reads the stream until `settled`, reconnecting as needed. Deliveries that end
    /// between the two still have their dead letters read back.
    ///
    /// # Errors
    /// [`FollowError::Store`]: a failed store does not recover until it is opened again.
    pub async fn run(self, stop: CancellationToken, settled: CancellationToken) -> Result<(), FollowError> {
        let mut session = FollowSession { supervisor: self, stop, settled: settled.clone() };
        let result = run_sessions(&mut session, &settled).await;
        session.supervisor.dead_letters.appender.set_read_back(ReadBack::Off);
        result
    }

    /// Works on one connection until it is lost, or until `settled` and the end of replay requests in flight.
    async fn session(
        &self,
        stop: &CancellationToken,
        settled: &CancellationToken,
        delays: &mut ReconnectDelays,
    ) -> Result<SessionEnd, FollowError> {
        let prepare = async {
            let connection = self.broker.connect("waypost dead letters").await?;
            self.topology.declare(&connection).await?;
            let log = self.dead_letters.open(&connection).await?;
            Ok::<_, FollowError>((connection, log))
        };
        let (connection, log) = tokio::select! {
            prepared = prepare => prepared?,
            () = settled.cancelled() => return Ok(SessionEnd::Stopped),
        };
        if *self.dead_letters.view_state.borrow() == LetterViewState::Ready && self.follower.stall().is_none() {
            self.dead_letters.appender.set_read_back(ReadBack::On);
        }
        let mut follow = pin!(self.dead_letters.follow(log));
        let mut sync_state = self.dead_letters.sync_state.subscribe();
        let log = self.topology.names.dead_letters();
        let mut watch = pin!(watch(&self.follower, &connection, &log, || self.dead_letters.view.position()));
        tokio::select! {
            result = &mut follow => match result? {},
            result = &mut watch => match result? {},
            _ = sync_state.wait_for(|sync_state| *sync_state == SyncState::Current) => {}
            () = settled.cancelled() => return Ok(SessionEnd::Stopped),
        }
        self.dead_letters.appender.set_read_back(ReadBack::On);
        delays.reset();
        let replays = async {
            self.run_replays(&connection, stop).await?;
            settled.cancelled().await;
            Ok::<_, BrokerError>(())
        };
        tokio::select! {
            result = &mut follow => match result? {},
            result = &mut watch => match result? {},
            result = self.dead_letters.apply_retention() => match result? {},
            result = self.dead_letters.rewrite_removed() => match result? {},
            result = replays => result?,
        }
        connection::close(&connection).await;
        Ok(SessionEnd::Stopped)
    }

    /// Runs replays until `stop`, whenever the configuration is current.
    async fn run_replays(&self, connection: &Connection, stop: &CancellationToken) -> Result<(), BrokerError> {
        let mut configuration = self.configuration.clone();
        while !stop.is_cancelled() {
            tokio::select! {
                _ = configuration.wait_for(|sync_state| *sync_state == SyncState::Current) => {}
                () = stop.cancelled() => break,
            }
            let pause = stop.child_token();
            let outdated = async {
                let _ = configuration.wait_for(|sync_state| *sync_state == SyncState::CatchingUp).await;
                pause.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                result = self.runner.clone().run(connection, &pause) => result?,
                () = outdated => {}
            }
        }
        Ok(())
    }
}

struct FollowSession {
    supervisor: DeadLetterSupervisor,
    stop: CancellationToken,
    settled: CancellationToken,
}

impl Session for FollowSession {
    type Error = FollowError;
    type Fatal = FollowError;

    async fn run(&mut self, delays: &mut ReconnectDelays) -> Result<SessionEnd, FollowError> {
        self.supervisor.session(&self.stop, &self.settled, delays).await
    }

    fn failed(&mut self, error: FollowError, delay: Duration) -> Result<(), FollowError> {
        if matches!(error, FollowError::Store(_)) {
            return Err(error);
        }
        let DeadLetterSupervisor { follower, dead_letters, .. } = &self.supervisor;
        follower.record_error(&error);
        if follower.stall().is_some() {
            dead_letters.appender.set_read_back(ReadBack::Off);
        }
        tracing::warn!(%error, ?delay, "dead-letter stream connection lost, reconnecting");
        Ok(())
    }
}
