//! Declares what is missing, object by object, and says what stands in the way.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};

use super::BrokerError;
use super::declare;
use super::names::Names;
use super::topology::{Binding, Topology};
use super::topology_status::{Object, ObjectKind, TopologyProblem};

/// What came of looking at all objects.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// What could not be put right.
    pub(super) problems: Vec<TopologyProblem>,
    /// Whether an object was declared again: its bindings are missing as well.
    pub(super) restored: bool,
    /// Events that wait for a worker.
    pub(super) waiting: u32,
    /// Consumers of the queue of events that has the fewest; `None` if no such queue answered.
    pub(super) consumers: Option<u32>,
}

/// Declares every missing object before a session begins.
///
/// # Errors
/// The first problem.
pub(super) async fn all(topology: &Topology, connection: &Connection) -> Result<(), BrokerError> {
    match check(topology, connection, CampaignsStream::Restore).await?.problems.into_iter().next() {
        None => Ok(()),
        Some(TopologyProblem::Mismatch(mismatch)) => Err(mismatch.into()),
        Some(TopologyProblem::Refused { doing, error, .. }) => Err(BrokerError::ChannelFailed { doing, error }),
        Some(TopologyProblem::Missing { object, why }) => {
            Err(BrokerError::ChannelFailed { doing: "restoring the topology", error: format!("{object}: {why}") })
        }
    }
}

/// Whether the campaigns stream is declared again. An empty one is a configuration without campaigns: only a session that
/// reads it can judge that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CampaignsStream {
    Restore,
    Report,
}

/// Looks at every exchange and queue, and declares what is missing.
///
/// # Errors
/// [`BrokerError::ChannelFailed`]: the connection is.
pub(super) async fn check(
    topology: &Topology,
    connection: &Connection,
    campaigns: CampaignsStream,
) -> Result<Checked, BrokerError> {
    let mut check = Check { topology, connection, channel: open(connection).await?, checked: Checked::default() };
    for (name, kind, arguments) in topology.exchanges() {
        check.exchange(&name, kind, arguments).await?;
    }
    for (name, arguments) in topology.queues() {
        if name == topology.names.campaigns() && campaigns == CampaignsStream::Report {
            check.campaigns(&name, arguments).await?;
        } else {
            check.queue(&name, arguments).await?;
        }
    }
    // Where this fails the channel is gone already.
    let _ = check.channel.close(200, "checked".into()).await;
    Ok(check.checked)
}

struct Check<'a> {
    topology: &'a Topology,
    connection: &'a Connection,
    channel: Channel,
    checked: Checked,
}

/// Whether an object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Present,
    Missing,
}

impl Check<'_> {
    async fn exchange(&mut self, name: &str, kind: ExchangeKind, arguments: FieldTable) -> Result<(), BrokerError> {
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let asked =
            self.channel().await?.exchange_declare(name.into(), kind.clone(), passive, FieldTable::default()).await;
        let Some(presence) = self.presence(asked).await? else { return Ok(()) };
        let declared = declare::exchange(self.channel().await?, name, kind, arguments).await;
        self.declared(Object::new(ObjectKind::Exchange, name), presence, declared).await
    }

    async fn queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let Some(presence) = self.queue_presence(name).await? else { return Ok(()) };
        let declared = declare::queue(self.channel().await?, name, arguments).await;
        self.declared(Object::new(self.kind(name), name), presence, declared).await
    }

    /// As [`queue`](Self::queue), but leaves a missing stream missing.
    async fn campaigns(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        match self.queue_presence(name).await? {
            Some(Presence::Present) => self.queue(name, arguments).await,
            Some(Presence::Missing) => {
                let why =
                    "it holds the configuration, so it is not declared again without a look at what workers have. \
                           They go on with the configuration that they know"
                        .to_owned();
                let object = Object::new(ObjectKind::Stream, name);
                self.checked.problems.push(TopologyProblem::Missing { object, why });
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn queue_presence(&mut self, name: &str) -> Result<Option<Presence>, BrokerError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel().await?.queue_declare(name.into(), passive, FieldTable::default()).await;
        if let Ok(queue) = &asked
            && self.topology.names.event_queues(self.topology.shards).iter().any(|events| events == name)
        {
            let consumers = queue.consumer_count();
            self.checked.waiting = self.checked.waiting.saturating_add(queue.message_count());
            self.checked.consumers = Some(self.checked.consumers.map_or(consumers, |fewest| fewest.min(consumers)));
        }
        self.presence(asked.map(drop)).await
    }

    /// `None`: it is not known. A queue without a leader, for one, is there and does not answer.
    async fn presence(&mut self, asked: lapin::Result<()>) -> Result<Option<Presence>, BrokerError> {
        let Err(error) = asked else { return Ok(Some(Presence::Present)) };
        let missing = error.to_string().contains("NOT_FOUND");
        // Tells a closed channel from a lost connection.
        self.channel().await?;
        if !missing {
            tracing::debug!(%error, "broker object not checked");
        }
        Ok(missing.then_some(Presence::Missing))
    }

    async fn declared(
        &mut self,
        object: Object,
        presence: Presence,
        declared: Result<(), BrokerError>,
    ) -> Result<(), BrokerError> {
        match declared {
            Ok(()) if presence == Presence::Missing => {
                self.checked.restored = true;
                let is_its = |binding: &Binding| [&binding.source, &binding.destination].contains(&&object.name);
                if self.topology.bindings().iter().any(is_its) {
                    // At once: an exchange without its bindings takes messages and drops them. What fails here fails again
                    // when all is bound, and is reported then.
                    let _ = declare::bindings(&open(self.connection).await?, self.topology).await;
                }
                self.topology.status.restored(object);
            }
            Ok(()) => {}
            Err(error) => {
                self.channel().await?;
                self.report(object, presence, error);
            }
        }
        Ok(())
    }

    fn report(&mut self, object: Object, presence: Presence, error: BrokerError) {
        let problem = match problem(error, &self.topology.names) {
            Ok(problem) => problem,
            Err(error) if presence == Presence::Missing => {
                TopologyProblem::Missing { object, why: format!("declaring it failed: {error}") }
            }
            // It is there. That it does not answer now is seen by whoever uses it.
            Err(_) => return,
        };
        let same = |other: &TopologyProblem| match (&problem, other) {
            // One right is missing for all objects: once is enough.
            (TopologyProblem::Refused { doing, .. }, TopologyProblem::Refused { doing: other, .. }) => doing == other,
            (problem, other) => problem == other,
        };
        if !self.checked.problems.iter().any(same) {
            self.checked.problems.push(problem);
        }
    }

    fn kind(&self, queue: &str) -> ObjectKind {
        let names = &self.topology.names;
        if [names.campaigns(), names.dead_letters()].iter().any(|stream| stream == queue) {
            ObjectKind::Stream
        } else {
            ObjectKind::Queue
        }
    }

    /// The channel; a new one if the broker has closed it.
    async fn channel(&mut self) -> Result<&Channel, BrokerError> {
        if !self.channel.status().connected() {
            self.channel = open(self.connection).await?;
        }
        Ok(&self.channel)
    }
}

async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))
}

/// A problem that lasts until somebody does something; gives any other error back.
pub(super) fn problem(error: BrokerError, names: &Names) -> Result<TopologyProblem, BrokerError> {
    match error {
        BrokerError::Mismatch(mismatch) => Ok(mismatch.into()),
        BrokerError::ChannelFailed { doing, error } if error.contains("ACCESS_REFUSED") => {
            let grant = grant(&error, names);
            Ok(TopologyProblem::Refused { doing, error, grant })
        }
        other => Err(other),
    }
}

/// The command that grants a worker's user what it needs. RabbitMQ's sentence names vhost and user: `ACCESS_REFUSED - access
/// to queue 'waypost.events' in vhost '/' refused for user 'waypost'`.
fn grant(sentence: &str, names: &Names) -> String {
    let quoted = |after: &str| sentence.split_once(after)?.1.split('\'').next();
    let (vhost, user) = (quoted("in vhost '").unwrap_or("VHOST"), quoted("for user '").unwrap_or("USER"));
    let prefix = regex_escaped(names.prefix());
    format!(
        "rabbitmqctl set_permissions -p '{vhost}' '{user}' '^{prefix}\\.' '^({prefix}\\.|amq\\.default$)' '^{prefix}\\.'"
    )
}

fn regex_escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| (!c.is_alphanumeric() && c != '-' && c != '_').then_some('\\').into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_grant_to_whom() {
        let error =
            "ACCESS_REFUSED - access to queue 'way.post.events' in vhost 'chat' refused for user 'bot'".to_owned();
        let refused = BrokerError::ChannelFailed { doing: "declaring a queue", error };
        let problem = problem(refused, &Names::new("way.post")).expect("a problem").to_string();
        let grant =
            r"rabbitmqctl set_permissions -p 'chat' 'bot' '^way\.post\.' '^(way\.post\.|amq\.default$)' '^way\.post\.'";
        assert!(problem.ends_with(grant), "{problem}");
        let lost = BrokerError::ChannelFailed { doing: "declaring a queue", error: "connection reset".to_owned() };
        assert!(super::problem(lost, &Names::new("waypost")).is_err());
    }
}
