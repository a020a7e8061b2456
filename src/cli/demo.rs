//! `waypost demo`: a whole journey on a real broker. Its own worker and receivers, a few thousand events, and an account
//! of every one of them, taken from the receivers' records and the dead-letter stream rather than from the worker.

mod account;
mod receivers;
mod report;
mod story;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::serve::stop_on_signals;
use super::{CliError, Settings};
use crate::app::{App, broker_address};
use crate::broker::connection::ConnectionConfig;
use crate::broker::names::Names;
use crate::broker::publisher::{Destination, OutboundMessage, Publisher};
use crate::broker::queue_stats;
use crate::broker::stream_reader::{EndDetection, StreamReader};
use crate::broker::topology::Topology;
use crate::broker::topology_status::TopologyStatus;
use crate::config::Config;
use crate::delivery::dead_letter::DeadLetter;
use crate::telemetry;
use account::Account;
use receivers::{Behaviour, Receiver};
use story::Script;

/// Events on their way to the broker at once.
const IN_FLIGHT: usize = 512;

/// Everything is over long before this, or something is wrong.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(180);

#[derive(Args)]
pub(super) struct Demo {
    /// How many events to publish
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: u32,
    /// Keep everything running afterwards, until Ctrl-C, and print the addresses
    #[arg(long)]
    stay: bool,
    /// The account as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Demo {
    pub(super) async fn run(mut self) -> Result<(), CliError> {
        let folder = tempfile::Builder::new().prefix("waypost-demo-").tempdir().map_err(CliError::new)?;
        let prefix = format!("waypost-demo-{}", uuid::Uuid::now_v7().simple());
        self.override_settings(&prefix, folder.path())?;
        let config = self.settings.load()?;
        telemetry::start(&config.log, &config.telemetry).map_err(CliError::new)?;
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;

        let broker = broker_address(&config.broker);
        let names = Names::new(&prefix);
        let topology = Topology {
            names,
            shards: config.broker.shards,
            dead_letter_retention: config.dead_letters.retention,
            status: TopologyStatus::default(),
        };
        let connection = broker.connect("waypost demo").await.map_err(|error| {
            CliError::new(format!(
                "{error}\nThe demo needs a RabbitMQ: `make demo` starts one, WAYPOST_BROKER__URL says where one is"
            ))
        })?;
        let acted = self.act(&config, broker, &topology, &connection, &stop).await;
        // Whatever happened, nothing is left behind.
        topology.delete(&connection).await.map_err(CliError::new)?;
        acted
    }

    async fn act(
        &self,
        config: &Config,
        broker: ConnectionConfig,
        topology: &Topology,
        connection: &lapin::Connection,
        stop: &CancellationToken,
    ) -> Result<(), CliError> {
        topology.declare(connection).await.map_err(CliError::new)?;
        let app = App::build(config).await.map_err(CliError::new)?;
        let api = format!("http://{}", app.address());
        let stop_worker = CancellationToken::new();
        let worker = tokio::spawn(app.run(stop_worker.clone()));
        let (publisher, publishing) = Publisher::start(broker, topology.clone());
        let queues = topology.names.event_queues(topology.shards);
        let stage = Scenario { api, names: topology.names.clone(), queues, connection, publisher };
        let played = tokio::select! {
            played = stage.play(self) => played,
            () = stop.cancelled() => Err(CliError::new("stopped before the end")),
        };
        if self.stay && played.is_ok() {
            stop.cancelled().await;
        }
        stop_worker.cancel();
        let worked = worker.await.map_err(CliError::new)?.map_err(CliError::new);
        drop(stage);
        publishing.await.map_err(CliError::new)?;
        played.and(worked)
    }

    /// A worker of the demo's own, whose retries are over in seconds.
    fn override_settings(&mut self, prefix: &str, folder: &std::path::Path) -> Result<(), CliError> {
        let store = folder.join("store").display().to_string();
        let settings = [
            ("broker.prefix", prefix),
            ("http.listen", "127.0.0.1:0"),
            ("http.tokens", "[]"),
            ("store.path", &store),
            ("egress.allowHttp", "true"),
            ("egress.allow", "127.0.0.0/8"),
            ("retry.initialDelay", "1s"),
            ("retry.multiplier", "2"),
            ("retry.maxAttempts", "4"),
            // Failed attempts are part of the story, not news.
            ("log.level", "error"),
        ];
        let ours = |(key, _): &&(String, String)| settings.iter().any(|(ours, _)| ours == key);
        if let Some((key, _)) = self.settings.overrides.iter().find(ours) {
            return Err(CliError::Usage(format!("the demo sets {key} itself")));
        }
        self.settings.overrides.extend(settings.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Ok(())
    }
}

/// What the story is played on.
struct Scenario<'a> {
    api: String,
    names: Names,
    /// Of the events.
    queues: Vec<String>,
    connection: &'a lapin::Connection,
    publisher: Publisher,
}

impl Scenario<'_> {
    async fn play(&self, demo: &Demo) -> Result<(), CliError> {
        let receivers = [
            Receiver::start("agent", Behaviour::Healthy).await?,
            Receiver::start("offers", Behaviour::FailsTwice).await?,
            Receiver::start("survey", Behaviour::Gone).await?,
            Receiver::start("name", Behaviour::Broken).await?,
        ];
        let story = Script::new(&receivers);
        story.apply(&self.api).await?;
        if !demo.json {
            report::opening(&self.api, &receivers, demo.events);
        }

        let account = Arc::new(Account::default());
        let dead_letters = self.follow_dead_letters(account.clone());
        let journey = async {
            let publish = self.publish(&story, demo.events, &account);
            let watch = report::progress(&account, &receivers, demo.events, self);
            tokio::try_join!(publish, watch).map(|_| ())
        };
        tokio::select! {
            followed = dead_letters => followed?,
            done = tokio::time::timeout(SETTLE_TIMEOUT, journey) => match done {
                Ok(done) => done?,
                Err(_) => eprintln!("not everything is over after {} s", SETTLE_TIMEOUT.as_secs()),
            },
        }

        let balance = account.balance(&receivers, self).await?;
        if demo.json {
            report::json(&balance)
        } else {
            report::account(&balance, &receivers)
        }
        if demo.stay {
            report::addresses(&self.api, &self.names, &receivers);
        }
        if balance.balances() { Ok(()) } else { Err(CliError::new("the account does not balance")) }
    }

    /// Publishes the story's events through the broker, as a platform would.
    async fn publish(&self, story: &Script, events: u32, account: &Account) -> Result<(), CliError> {
        let publishing = futures_util::stream::iter(0..events).map(|number| {
            let step = story.step(number);
            let to = Destination::Exchange { name: self.names.events(), routing_key: story::CAMPAIGN_ID.to_owned() };
            let outgoing = OutboundMessage::new(to, step.event_id.clone(), step.body());
            async { self.publisher.publish(outgoing).await }
        });
        let mut publishing = publishing.buffer_unordered(IN_FLIGHT);
        while let Some(published) = publishing.next().await {
            published.map_err(CliError::new)?;
            account.published();
        }
        Ok(())
    }

    /// The worker's count of events that fire no webhook.
    async fn no_webhook(&self) -> Result<usize, CliError> {
        let text = reqwest::get(format!("{}/metrics", self.api)).await.map_err(CliError::new)?;
        let text = text.text().await.map_err(CliError::new)?;
        let count = text.lines().find_map(|line| line.strip_prefix("waypost_events_total{result=\"no_webhook\"} "));
        count.and_then(|count| count.parse().ok()).ok_or_else(|| CliError::new("the worker's metrics can't be read"))
    }

    /// Messages in the broker's queues.
    async fn waiting(&self) -> Result<u64, CliError> {
        queue_stats::total(self.connection, &self.names, &self.queues).await.map_err(CliError::new)
    }

    /// Reads the dead-letter stream, as anybody could.
    async fn follow_dead_letters(&self, account: Arc<Account>) -> Result<(), CliError> {
        let log =
            StreamReader::open(self.connection, &self.names.dead_letters(), EndDetection::ByLastChunk, None).await;
        let (mut log, _) = log.map_err(CliError::new)?;
        loop {
            let record = log.next().await.map_err(CliError::new)?;
            if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&record.body) {
                account.dead(letter);
            }
        }
    }
}
