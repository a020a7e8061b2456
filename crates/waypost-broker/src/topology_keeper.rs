//! Checks every broker object and binding while a worker runs, and declares the missing ones again.
//!
//! The keeper has a connection of its own because it publishes probes. A broker that is short of memory stops reading
//! from connections that publish, and this must not happen to the consuming connection.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use lapin::Connection;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::binding_probe::{self, ProbeOutcome};
use super::connection::{self, ConnectionConfig};
use super::reconnect::{ReconnectDelays, Session, SessionEnd, run_sessions};
use super::restore::{self, CampaignsStream, TopologyCheck};
use super::shards::UnbindOutcome;
use super::topology::Topology;
use super::topology_status::{BrokerObject, ObjectKind, TopologyProblem};
use super::{BrokerError, declare};

/// Time between two checks. A loss must be noticed within 10 s.
const CHECK_INTERVAL: Duration = Duration::from_secs(4);

/// Time between two removals of surplus bindings. Workers with another number of shards declare them again as long as
/// they run.
const UNBIND_INTERVAL: Duration = Duration::from_secs(30);

pub struct TopologyKeeper {
    pub broker: ConnectionConfig,
    pub topology: Topology,
}

struct CheckSession {
    keeper: TopologyKeeper,
    stop: CancellationToken,
}

impl Session for CheckSession {
    type Error = BrokerError;
    type Fatal = Infallible;

    async fn run(&mut self, delays: &mut ReconnectDelays) -> Result<SessionEnd, BrokerError> {
        self.keeper.session(&self.stop, delays).await
    }

    fn failed(&mut self, error: BrokerError, delay: Duration) -> Result<(), Infallible> {
        self.keeper.topology.status.check_failed(&error);
        tracing::warn!(%error, ?delay, "broker topology not checked, reconnecting");
        Ok(())
    }
}

/// The state of binding checks over one connection.
struct BindingChecks {
    /// Whether the last check included the bindings.
    included: bool,
    /// Problems of the last check that included the bindings.
    problems: Vec<TopologyProblem>,
    /// When surplus bindings were last removed, or when the connection was opened.
    unbound_at: Instant,
}

impl TopologyKeeper {
    /// Checks until `stop`, and reconnects if necessary. Begins when this process has declared the topology.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.topology.status.wait_until_declared() => {}
            () = stop.cancelled() => return,
        }
        let mut session = CheckSession { keeper: self, stop: stop.clone() };
        let Ok(()) = run_sessions(&mut session, &stop).await;
    }

    /// Checks over one connection until it is lost, or until `stop`.
    async fn session(&self, stop: &CancellationToken, delays: &mut ReconnectDelays) -> Result<SessionEnd, BrokerError> {
        let connect = self.broker.connect("waypost topology");
        let connection = tokio::select! {
            connected = connect => connected?,
            () = stop.cancelled() => return Ok(SessionEnd::Stopped),
        };
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bindings = BindingChecks { included: false, problems: Vec::new(), unbound_at: Instant::now() };
        let check_loop = async {
            loop {
                ticks.tick().await;
                let problems = self.check(&connection, &mut bindings).await?;
                delays.reset();
                self.report(problems);
            }
        };
        tokio::select! {
            result = check_loop => result,
            () = stop.cancelled() => {
                connection::close(&connection).await;
                Ok(SessionEnd::Stopped)
            }
        }
    }

    async fn check(
        &self,
        connection: &Connection,
        bindings: &mut BindingChecks,
    ) -> Result<Vec<TopologyProblem>, BrokerError> {
        let TopologyCheck { mut problems, restored, waiting_events, min_consumers } =
            restore::check_topology(&self.topology, connection, CampaignsStream::Report).await?;
        if restored {
            // The bindings of a deleted object are deleted with it. This is not another loss.
            self.add_if_permanent(self.declare_bindings(connection).await, &mut problems);
        }
        let is_consumed = min_consumers.is_some_and(|consumers| consumers > 0);
        // While events wait, probes wait among them, so every second check skips the bindings. It must not declare them
        // without a probe either: the loss of a binding would then stay unnoticed.
        bindings.included = !(bindings.included && is_consumed && waiting_events > 0);
        if bindings.included {
            bindings.problems = self.check_bindings(connection, is_consumed, &mut bindings.unbound_at).await;
        }
        for problem in &bindings.problems {
            if !problems.contains(problem) {
                problems.push(problem.clone());
            }
        }
        self.add_if_permanent(
            binding_probe::check_default_exchange(connection, &self.topology.names).await,
            &mut problems,
        );
        // Distinguishes a lost connection from a refusal on one channel.
        if !connection.status().connected() {
            return Err(BrokerError::ChannelFailed {
                operation: "checking the topology",
                error: "the connection is closed".to_owned(),
            });
        }
        Ok(problems)
    }

    /// Declares the bindings, and reports a missing one that a probe detects.
    async fn check_bindings(
        &self,
        connection: &Connection,
        is_consumed: bool,
        unbound_at: &mut Instant,
    ) -> Vec<TopologyProblem> {
        let mut problems = Vec::new();
        let probe_result = if is_consumed {
            binding_probe::publish(connection, &self.topology.names).await
        } else {
            // Without a consumer, probes would accumulate in the queue.
            Ok(ProbeOutcome::Unknown)
        };
        match probe_result {
            Ok(ProbeOutcome::Unroutable) => self.restore_binding(connection, &mut problems).await,
            Ok(ProbeOutcome::Routed | ProbeOutcome::Unknown) => {
                self.add_if_permanent(self.declare_bindings(connection).await, &mut problems);
            }
            Err(error) => self.add_if_permanent(Err(error), &mut problems),
        }
        if unbound_at.elapsed() >= UNBIND_INTERVAL {
            match self.topology.unbind_surplus(connection).await {
                Ok(UnbindOutcome::Done) => *unbound_at = Instant::now(),
                // The next check tries again.
                Ok(UnbindOutcome::LockedByOther) => {}
                Err(error) => self.add_if_permanent(Err(error), &mut problems),
            }
        }
        problems
    }

    async fn restore_binding(&self, connection: &Connection, problems: &mut Vec<TopologyProblem>) {
        let object = BrokerObject::new(ObjectKind::Binding, self.topology.names.events());
        if let Err(error) = self.declare_bindings(connection).await {
            let why = format!("declaring it failed: {error}. Published events are lost until the binding exists again");
            problems.push(TopologyProblem::Missing { object, why });
            self.add_if_permanent(Err(error), problems);
            return;
        }
        match binding_probe::publish(connection, &self.topology.names).await {
            Ok(ProbeOutcome::Unroutable) => {
                let why = "a worker declared it again, but events still reach no queue".to_owned();
                problems.push(TopologyProblem::Missing { object, why });
            }
            Ok(ProbeOutcome::Routed | ProbeOutcome::Unknown) => self.topology.status.record_repair(object),
            Err(error) => self.add_if_permanent(Err(error), problems),
        }
    }

    async fn declare_bindings(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        declare::bindings(&channel, &self.topology).await?;
        // Closing fails if the broker has closed the channel already.
        let _ = channel.close(200, "bound".into()).await;
        Ok(())
    }

    /// Adds a permanent error to the problems. The next check repeats after any other error.
    fn add_if_permanent(&self, result: Result<(), BrokerError>, problems: &mut Vec<TopologyProblem>) {
        let Err(error) = result else { return };
        match restore::permanent_problem(error, &self.topology.names) {
            Ok(problem) if problems.contains(&problem) => {}
            Ok(problem) => problems.push(problem),
            Err(error) => tracing::debug!(%error, "broker binding not checked"),
        }
    }

    fn report(&self, problems: Vec<TopologyProblem>) {
        let previous = self.topology.status.record_check(problems.clone());
        for problem in problems.iter().filter(|problem| !previous.contains(problem)) {
            tracing::error!(kind = problem.label(), %problem, "broker topology broken");
        }
        if problems.is_empty() && !previous.is_empty() {
            tracing::info!("broker topology problems resolved");
        }
    }
}
