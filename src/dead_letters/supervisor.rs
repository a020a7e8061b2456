//! The connection on which the dead-letter log is tailed and replays are run, and a new one whenever it is lost. It is
//! not the one of deliveries: whatever happens to dead letters, deliveries go on.

use std::pin::pin;
use std::sync::Arc;

use backoff::backoff::Backoff as _;
use lapin::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{DeadLetters, ViewState};
use crate::broker::BrokerError;
use crate::broker::connection::{self, ConnectionConfig, reconnect_delays};
use crate::broker::stream_writer::ReadBack;
use crate::broker::topology::Topology;
use crate::replays::runner::Runner;
use crate::view_sync::{FollowError, Follower, SyncState, watch};

/// Tails the log, and runs replays.
pub struct DeadLetterSupervisor {
    /// The broker.
    pub address: ConnectionConfig,
    /// What is declared there.
    pub topology: Topology,
    /// Where records are applied.
    pub dead_letters: DeadLetters,
    /// What runs replays, once the view is current.
    pub runner: Arc<Runner>,
    /// Whether the log is read as it grows.
    pub follower: Follower,
    /// Replays send by the configuration: they run only while it is current.
    pub configuration: watch::Receiver<SyncState>,
}

impl DeadLetterSupervisor {
    /// Runs replays until `stop`, and tails until `settled`, over as many connections as that takes. Deliveries that end in between
    /// have their dead letters read back.
    ///
    /// # Errors
    /// [`FollowError::Store`]: a local store that fails stays failed until it is opened anew.
    pub async fn run(self, stop: CancellationToken, settled: CancellationToken) -> Result<(), FollowError> {
        let ended = self.tail(&stop, &settled).await;
        self.dead_letters.appender.set_read_back(ReadBack::Off);
        ended
    }

    async fn tail(&self, stop: &CancellationToken, settled: &CancellationToken) -> Result<(), FollowError> {
        let mut delays = reconnect_delays();
        loop {
            let error = match self.session(stop, settled, &mut delays).await {
                Ok(()) => return Ok(()),
                Err(error @ FollowError::Store(_)) => return Err(error),
                Err(error) => error,
            };
            self.follower.failed(&error);
            if self.follower.silence().is_some() {
                self.dead_letters.appender.set_read_back(ReadBack::Off);
            }
            let delay = delays.next_backoff().unwrap_or(delays.max_interval);
            tracing::warn!(%error, ?delay, "not following the dead letters; connecting again");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = settled.cancelled() => return Ok(()),
            }
        }
    }

    /// One connection, until it is lost, or until `settled` and the end of what replays are sending.
    async fn session(
        &self,
        stop: &CancellationToken,
        settled: &CancellationToken,
        delays: &mut backoff::ExponentialBackoff,
    ) -> Result<(), FollowError> {
        let prepare = async {
            let connection = self.address.connect("waypost dead letters").await?;
            self.topology.declare(&connection).await?;
            let log = self.dead_letters.open(&connection).await?;
            Ok::<_, FollowError>((connection, log))
        };
        let (connection, log) = tokio::select! {
            prepared = prepare => prepared?,
            () = settled.cancelled() => return Ok(()),
        };
        if *self.dead_letters.building.borrow() == ViewState::No && self.follower.silence().is_none() {
            self.dead_letters.appender.set_read_back(ReadBack::On);
        }
        let mut follow = pin!(self.dead_letters.follow(log));
        let mut currency = self.dead_letters.currency.subscribe();
        let log = self.topology.names.dead_letters();
        let mut watch = pin!(watch(&self.follower, &connection, &log, || self.dead_letters.view.position()));
        tokio::select! {
            ended = &mut follow => match ended? {},
            ended = &mut watch => match ended? {},
            _ = currency.wait_for(|currency| *currency == SyncState::Current) => {}
            () = settled.cancelled() => return Ok(()),
        }
        self.dead_letters.appender.set_read_back(ReadBack::On);
        delays.reset();
        let replays = async {
            self.run_replays(&connection, stop).await?;
            settled.cancelled().await;
            Ok::<_, BrokerError>(())
        };
        tokio::select! {
            ended = &mut follow => match ended? {},
            ended = &mut watch => match ended? {},
            ended = self.dead_letters.forget() => match ended? {},
            ended = self.dead_letters.rewrite_removed() => match ended? {},
            ended = replays => ended?,
        }
        connection::close(&connection).await;
        Ok(())
    }

    /// Runs replays until `stop`, whenever the configuration is current.
    async fn run_replays(&self, connection: &Connection, stop: &CancellationToken) -> Result<(), BrokerError> {
        let mut configuration = self.configuration.clone();
        while !stop.is_cancelled() {
            tokio::select! {
                _ = configuration.wait_for(|currency| *currency == SyncState::Current) => {}
                () = stop.cancelled() => break,
            }
            let pause = stop.child_token();
            let outdated = async {
                let _ = configuration.wait_for(|currency| *currency == SyncState::CatchingUp).await;
                pause.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = self.runner.clone().run(connection, &pause) => ended?,
                () = outdated => {}
            }
        }
        Ok(())
    }
}
