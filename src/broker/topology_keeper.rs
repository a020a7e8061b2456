//! Keeps the topology: while a worker runs, checks every object and binding, and declares what is missing.
//!
//! It has a connection of its own. A probe is published, and a broker that is short of memory stops reading a connection
//! that publishes; the one that consumes must never be that.

use std::time::{Duration, Instant};

use backoff::backoff::Backoff as _;
use lapin::Connection;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::connection::{self, ConnectionConfig, reconnect_delays};
use super::probe::{self, Routing};
use super::restore::{self, CampaignsStream, Checked};
use super::shards::Unbinding;
use super::topology::Topology;
use super::topology_status::{Object, ObjectKind, TopologyProblem};
use super::{BrokerError, declare};

/// Time between two checks. A loss has to be noticed within 10 s.
const INTERVAL: Duration = Duration::from_secs(4);

/// Time between two removals of surplus bindings. A worker with another number of shards declares them again as long as it runs.
const UNBIND_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps the topology.
pub struct TopologyKeeper {
    /// The broker.
    pub address: ConnectionConfig,
    /// What is kept there.
    pub topology: Topology,
}

/// The bindings at the last checks of a connection.
struct Bindings {
    /// Whether the last check looked at them.
    checked: bool,
    /// Found when they were looked at last.
    problems: Vec<TopologyProblem>,
    /// When surplus bindings were removed last, or when the connection was opened.
    unbound: Instant,
}

impl TopologyKeeper {
    /// Checks until `stop`, over as many connections as that takes. Begins when the topology was declared.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.topology.status.until_declared() => {}
            () = stop.cancelled() => return,
        }
        let mut delays = reconnect_delays();
        while let Err(error) = self.session(&stop, &mut delays).await {
            self.topology.status.check_failed(&error);
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
        let mut bindings = Bindings { checked: false, problems: Vec::new(), unbound: Instant::now() };
        let keep = async {
            loop {
                ticks.tick().await;
                let problems = self.check(&connection, &mut bindings).await?;
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
    async fn check(
        &self,
        connection: &Connection,
        bindings: &mut Bindings,
    ) -> Result<Vec<TopologyProblem>, BrokerError> {
        let Checked { mut problems, restored, waiting, consumers } =
            restore::check(&self.topology, connection, CampaignsStream::Report).await?;
        if restored {
            // With an object its bindings are gone: that is no loss of its own.
            self.collect(self.bind(connection).await, &mut problems);
        }
        let is_consumed = consumers.is_some_and(|consumers| consumers > 0);
        // While events wait, probes wait among them: every second check does without one. It declares no binding either, because
        // without a probe nobody would know that the binding was missing.
        bindings.checked = !(bindings.checked && is_consumed && waiting > 0);
        if bindings.checked {
            bindings.problems = self.check_bindings(connection, is_consumed, &mut bindings.unbound).await;
        }
        for problem in &bindings.problems {
            if !problems.contains(problem) {
                problems.push(problem.clone());
            }
        }
        self.collect(probe::check_default_exchange(connection, &self.topology.names).await, &mut problems);
        // Tells what one channel was refused from a lost connection.
        if !connection.status().connected() {
            return Err(BrokerError::ChannelFailed {
                doing: "checking the topology",
                error: "the connection is closed".to_owned(),
            });
        }
        Ok(problems)
    }

    /// Declares the bindings, and reports a loss that a probe shows.
    async fn check_bindings(
        &self,
        connection: &Connection,
        is_consumed: bool,
        unbound: &mut Instant,
    ) -> Vec<TopologyProblem> {
        let mut problems = Vec::new();
        let probed = if is_consumed {
            probe::publish(connection, &self.topology.names).await
        } else {
            // Nobody would take probes, and they would pile up.
            Ok(Routing::Unknown)
        };
        match probed {
            Ok(Routing::Returned) => self.restore_binding(connection, &mut problems).await,
            Ok(Routing::Routed | Routing::Unknown) => self.collect(self.bind(connection).await, &mut problems),
            Err(error) => self.collect(Err(error), &mut problems),
        }
        if unbound.elapsed() >= UNBIND_INTERVAL {
            match self.topology.unbind_surplus(connection).await {
                Ok(Unbinding::Done) => *unbound = Instant::now(),
                // The next check tries again.
                Ok(Unbinding::Busy) => {}
                Err(error) => self.collect(Err(error), &mut problems),
            }
        }
        problems
    }

    async fn restore_binding(&self, connection: &Connection, problems: &mut Vec<TopologyProblem>) {
        let object = Object::new(ObjectKind::Binding, self.topology.names.events());
        if let Err(error) = self.bind(connection).await {
            let why = format!("declaring it failed: {error}. Events are lost until it is back");
            problems.push(TopologyProblem::Missing { object, why });
            self.collect(Err(error), problems);
            return;
        }
        match probe::publish(connection, &self.topology.names).await {
            Ok(Routing::Returned) => {
                let why = "it was declared again, and events still reach no queue".to_owned();
                problems.push(TopologyProblem::Missing { object, why });
            }
            Ok(Routing::Routed | Routing::Unknown) => self.topology.status.restored(object),
            Err(error) => self.collect(Err(error), problems),
        }
    }

    /// Declares every binding. What exists stays as it is.
    async fn bind(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        declare::bindings(&channel, &self.topology).await?;
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
        let before = self.topology.status.checked(problems.clone());
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            tracing::error!(kind = problem.label(), %problem, "broker topology broken");
        }
        if problems.is_empty() && !before.is_empty() {
            tracing::info!("broker topology as required again");
        }
    }
}
