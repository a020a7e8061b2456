//! Keeps the topology: while a worker runs, checks every object and binding, and declares what is missing.
//!
//! It has a connection of its own. A probe is published, and a broker that is short of memory stops reading a connection
//! that publishes; the one that consumes must never be that.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use lapin::Connection;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::BrokerError;
use super::connection::{self, Address, reconnect_delays};
use super::probe::{self, Routing};
use super::restore::{self, Campaigns, Checked};
use super::topology::Topology;
use super::topology_status::{Object, ObjectKind, TopologyProblem};

/// Time between two checks. A loss has to be noticed within 10 s.
const INTERVAL: Duration = Duration::from_secs(4);

/// Keeps the topology.
pub struct Keeper {
    /// The broker.
    pub address: Address,
    /// What is kept there.
    pub topology: Topology,
}

impl Keeper {
    /// Checks until `stop`, over as many connections as that takes. Begins when the topology was declared.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.topology.status.until_declared() => {}
            () = stop.cancelled() => return,
        }
        let mut delays = reconnect_delays();
        while let Err(error) = self.session(&stop, &mut delays).await {
            // What was wrong before says nothing of now.
            self.topology.status.set_problems(Vec::new());
            let delay = delays.next_backoff().unwrap_or(delays.max_interval);
            tracing::warn!(%error, ?delay, "broker topology not checked, reconnecting");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection, until it is lost, or until `stop`.
    async fn session(
        &self,
        stop: &CancellationToken,
        delays: &mut backoff::ExponentialBackoff,
    ) -> Result<(), BrokerError> {
        let connect = self.address.connect("waypost topology");
        let connection = tokio::select! {
            connected = connect => connected?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let keep = async {
            loop {
                ticks.tick().await;
                let problems = self.check(&connection).await?;
                delays.reset();
                self.report(problems);
            }
        };
        tokio::select! {
            ended = keep => ended,
            () = stop.cancelled() => {
                connection::close(&connection).await;
                Ok(())
            }
        }
    }

    /// Looks at everything once.
    async fn check(&self, connection: &Connection) -> Result<Vec<TopologyProblem>, BrokerError> {
        let Checked { mut problems, restored, waiting, consumers } =
            restore::check(&self.topology, connection, Campaigns::Report).await?;
        if restored {
            // With an object its bindings are gone: that is no loss of its own.
            self.collect(self.bind(connection).await, &mut problems);
        }
        let probed = match (waiting, consumers) {
            (0, Some(1..)) => probe::publish(connection, &self.topology.names).await,
            // A probe would wait among the events, and whoever counts them would count it.
            _ => Ok(Routing::Unknown),
        };
        match probed {
            Ok(Routing::Returned) => self.restore_binding(connection, &mut problems).await?,
            Ok(Routing::Routed | Routing::Unknown) => self.collect(self.bind(connection).await, &mut problems),
            Err(error) => self.collect(Err(error), &mut problems),
        }
        self.collect(probe::check_default_exchange(connection, &self.topology.names).await, &mut problems);
        // Tells what one channel was refused from a lost connection.
        if !connection.status().connected() {
            return Err(BrokerError::Lost {
                doing: "checking the topology",
                error: "the connection is closed".to_owned(),
            });
        }
        Ok(problems)
    }

    async fn restore_binding(
        &self,
        connection: &Connection,
        problems: &mut Vec<TopologyProblem>,
    ) -> Result<(), BrokerError> {
        let object = Object::new(ObjectKind::Binding, self.topology.names.events());
        if let Err(error) = self.bind(connection).await {
            let why = format!("declaring it failed: {error}. Events are lost until it is back");
            problems.push(TopologyProblem::Missing { object, why });
            self.collect(Err(error), problems);
            return Ok(());
        }
        match probe::publish(connection, &self.topology.names).await? {
            Routing::Returned => {
                let why = "it was declared again, and events still reach no queue".to_owned();
                problems.push(TopologyProblem::Missing { object, why });
            }
            Routing::Routed | Routing::Unknown => self.topology.status.restored(object),
        }
        Ok(())
    }

    /// Declares every binding. What exists stays as it is.
    async fn bind(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        self.topology.bind(&channel).await?;
        // Where this fails the channel is gone already.
        let _ = channel.close(200, "bound".into()).await;
        Ok(())
    }

    /// Takes what lasts as a problem. Another error of a channel is left to the next check.
    fn collect(&self, outcome: Result<(), BrokerError>, problems: &mut Vec<TopologyProblem>) {
        let Err(error) = outcome else { return };
        match restore::problem(error, &self.topology.names) {
            Ok(problem) if problems.contains(&problem) => {}
            Ok(problem) => problems.push(problem),
            Err(error) => tracing::debug!(%error, "broker binding not checked"),
        }
    }

    fn report(&self, problems: Vec<TopologyProblem>) {
        let before = self.topology.status.set_problems(problems.clone());
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            tracing::error!(kind = problem.label(), %problem, "broker topology broken");
        }
        if problems.is_empty() && !before.is_empty() {
            tracing::info!("broker topology as required again");
        }
    }
}
