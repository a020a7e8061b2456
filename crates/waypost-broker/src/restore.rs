//! Checks each exchange, queue and stream, declares the missing ones again, and reports what it could not repair.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};

use super::BrokerError;
use super::declare;
use super::names::Names;
use super::topology::{Binding, Topology};
use super::topology_status::{BrokerObject, ObjectKind, TopologyProblem};

#[derive(Debug, Default)]
pub(super) struct TopologyCheck {
    /// Problems that could not be repaired.
    pub(super) problems: Vec<TopologyProblem>,
    /// Whether an object was declared again. Its bindings are missing as well.
    pub(super) restored: bool,
    /// Ready messages in the queues of events.
    pub(super) waiting_events: u32,
    /// The smallest number of consumers of a queue of events; `None` if no such queue answered.
    pub(super) min_consumers: Option<u32>,
}

/// Declares every missing object before a session begins.
///
/// # Errors
/// The first problem.
pub(super) async fn restore_all(topology: &Topology, connection: &Connection) -> Result<(), BrokerError> {
    match check_topology(topology, connection, CampaignsStream::Restore).await?.problems.into_iter().next() {
        None => Ok(()),
        Some(TopologyProblem::Mismatch(mismatch)) => Err(mismatch.into()),
        Some(TopologyProblem::Refused { operation, error, .. }) => Err(BrokerError::ChannelFailed { operation, error }),
        Some(TopologyProblem::Missing { object, why }) => {
            Err(BrokerError::ChannelFailed { operation: "restoring the topology", error: format!("{object}: {why}") })
        }
    }
}

/// Whether a missing campaigns stream is declared again. An empty stream means a configuration without campaigns, which
/// only a session that reads the stream can compare with the local store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CampaignsStream {
    Restore,
    Report,
}

/// Checks every exchange and queue, and declares the missing ones.
///
/// # Errors
/// [`BrokerError::ChannelFailed`] if the connection is lost.
pub(super) async fn check_topology(
    topology: &Topology,
    connection: &Connection,
    campaigns: CampaignsStream,
) -> Result<TopologyCheck, BrokerError> {
    let channel = open_channel(connection).await?;
    let mut checker = Checker { topology, connection, channel, check: TopologyCheck::default() };
    for (name, kind, arguments) in topology.exchanges() {
        checker.check_exchange(&name, kind, arguments).await?;
    }
    for (name, arguments) in topology.queues() {
        if name == topology.names.campaigns() && campaigns == CampaignsStream::Report {
            checker.check_campaigns_stream(&name, arguments).await?;
        } else {
            checker.check_queue(&name, arguments).await?;
        }
    }
    // Closing fails if the broker has closed the channel already.
    let _ = checker.channel.close(200, "checked".into()).await;
    Ok(checker.check)
}

struct Checker<'a> {
    topology: &'a Topology,
    connection: &'a Connection,
    channel: Channel,
    check: TopologyCheck,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectPresence {
    Present,
    Missing,
}

impl Checker<'_> {
    async fn check_exchange(
        &mut self,
        name: &str,
        kind: ExchangeKind,
        arguments: FieldTable,
    ) -> Result<(), BrokerError> {
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let passive_result =
            self.channel().await?.exchange_declare(name.into(), kind.clone(), passive, FieldTable::default()).await;
        let Some(presence) = self.presence(passive_result).await? else { return Ok(()) };
        let declared = declare::exchange(self.channel().await?, name, kind, arguments).await;
        self.record_declaration(BrokerObject::new(ObjectKind::Exchange, name), presence, declared).await
    }

    async fn check_queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let Some(presence) = self.queue_presence(name).await? else { return Ok(()) };
        let declared = declare::queue(self.channel().await?, name, arguments).await;
        self.record_declaration(BrokerObject::new(self.queue_kind(name), name), presence, declared).await
    }

    /// Reports a missing stream and does not declare it.
    async fn check_campaigns_stream(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        match self.queue_presence(name).await? {
            Some(ObjectPresence::Present) => self.check_queue(name, arguments).await,
            Some(ObjectPresence::Missing) => {
                let why = "it holds the configuration, so a worker does not declare it again on its own. \
                           Workers continue with the configuration that they have"
                    .to_owned();
                let object = BrokerObject::new(ObjectKind::Stream, name);
                self.check.problems.push(TopologyProblem::Missing { object, why });
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn queue_presence(&mut self, name: &str) -> Result<Option<ObjectPresence>, BrokerError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let passive_result = self.channel().await?.queue_declare(name.into(), passive, FieldTable::default()).await;
        if let Ok(queue) = &passive_result
            && self.topology.names.event_queues(self.topology.shards).iter().any(|events| events == name)
        {
            let consumers = queue.consumer_count();
            self.check.waiting_events = self.check.waiting_events.saturating_add(queue.message_count());
            self.check.min_consumers = Some(self.check.min_consumers.map_or(consumers, |fewest| fewest.min(consumers)));
        }
        self.presence(passive_result.map(drop)).await
    }

    /// Interprets the result of a passive declaration. `None` if the result is unclear: a queue without a
    /// leader, for example, exists and does not answer.
    async fn presence(&mut self, passive_result: lapin::Result<()>) -> Result<Option<ObjectPresence>, BrokerError> {
        let Err(error) = passive_result else { return Ok(Some(ObjectPresence::Present)) };
        let missing = error.to_string().contains("NOT_FOUND");
        // This fails if not only the channel but the connection is lost.
        self.channel().await?;
        if !missing {
            tracing::debug!(%error, "broker object not checked");
        }
        Ok(missing.then_some(ObjectPresence::Missing))
    }

    async fn record_declaration(
        &mut self,
        object: BrokerObject,
        presence: ObjectPresence,
        declared: Result<(), BrokerError>,
    ) -> Result<(), BrokerError> {
        match declared {
            Ok(()) if presence == ObjectPresence::Missing => {
                self.check.restored = true;
                let is_bound = |binding: &Binding| [&binding.source, &binding.destination].contains(&&object.name);
                if self.topology.bindings().iter().any(is_bound) {
                    // Bind at once: an exchange without bindings drops the messages that it accepts. A failure is
                    // reported when all bindings are declared after the check.
                    let _ = declare::bindings(&open_channel(self.connection).await?, self.topology).await;
                }
                self.topology.status.record_repair(object);
            }
            Ok(()) => {}
            Err(error) => {
                self.channel().await?;
                self.record_problem(object, presence, error);
            }
        }
        Ok(())
    }

    fn record_problem(&mut self, object: BrokerObject, presence: ObjectPresence, error: BrokerError) {
        let problem = match permanent_problem(error, &self.topology.names) {
            Ok(problem) => problem,
            Err(error) if presence == ObjectPresence::Missing => {
                TopologyProblem::Missing { object, why: format!("declaring it failed: {error}") }
            }
            // The object exists. Its users notice that it does not answer now.
            Err(_) => return,
        };
        let is_same = |other: &TopologyProblem| match (&problem, other) {
            // A permission is usually missing for all objects, so report it once.
            (TopologyProblem::Refused { operation, .. }, TopologyProblem::Refused { operation: other, .. }) => {
                operation == other
            }
            (problem, other) => problem == other,
        };
        if !self.check.problems.iter().any(is_same) {
            self.check.problems.push(problem);
        }
    }

    fn queue_kind(&self, queue: &str) -> ObjectKind {
        let names = &self.topology.names;
        if [names.campaigns(), names.dead_letters()].iter().any(|stream| stream == queue) {
            ObjectKind::Stream
        } else {
            ObjectKind::Queue
        }
    }

    /// Opens a new channel if the broker has closed the last one.
    async fn channel(&mut self) -> Result<&Channel, BrokerError> {
        if !self.channel.status().connected() {
            self.channel = open_channel(self.connection).await?;
        }
        Ok(&self.channel)
    }
}

async fn open_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))
}

/// Converts an error that lasts until an operator acts. Returns any other error unchanged.
pub(super) fn permanent_problem(error: BrokerError, names: &Names) -> Result<TopologyProblem, BrokerError> {
    match error {
        BrokerError::Mismatch(mismatch) => Ok(mismatch.into()),
        BrokerError::ChannelFailed { operation, error } if error.contains("ACCESS_REFUSED") => {
            let grant = grant_command(&error, names);
            Ok(TopologyProblem::Refused { operation, error, grant })
        }
        other => Err(other),
    }
}

/// The command that grants the worker's user all permissions it needs. RabbitMQ's error text names vhost and user:
/// `ACCESS_REFUSED - access to queue 'waypost.events' in vhost '/' refused for user 'waypost'`.
fn grant_command(error: &str, names: &Names) -> String {
    let quoted = |prefix: &str| error.split_once(prefix)?.1.split('\'').next();
    let (vhost, user) = (quoted("in vhost '").unwrap_or("VHOST"), quoted("for user '").unwrap_or("USER"));
    let prefix = escape_regex(names.prefix());
    format!(
        "rabbitmqctl set_permissions -p '{vhost}' '{user}' '^{prefix}\\.' '^({prefix}\\.|amq\\.default$)' '^{prefix}\\.'"
    )
}

fn escape_regex(text: &str) -> String {
    text.chars()
        .flat_map(|c| (!c.is_alphanumeric() && c != '-' && c != '_').then_some('\\').into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_command_that_grants_the_permission() {
        let error =
            "ACCESS_REFUSED - access to queue 'way.post.events' in vhost 'chat' refused for user 'bot'".to_owned();
        let refused = BrokerError::ChannelFailed { operation: "declaring a queue", error };
        let problem = permanent_problem(refused, &Names::new("way.post")).expect("a problem").to_string();
        let grant =
            r"rabbitmqctl set_permissions -p 'chat' 'bot' '^way\.post\.' '^(way\.post\.|amq\.default$)' '^way\.post\.'";
        assert!(problem.ends_with(grant), "{problem}");
        let connection_lost =
            BrokerError::ChannelFailed { operation: "declaring a queue", error: "connection reset".to_owned() };
        assert!(permanent_problem(connection_lost, &Names::new("waypost")).is_err());
    }
}
