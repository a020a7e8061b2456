//! `waypost demo`: runs a worker and receivers on a real broker, publishes events, and accounts for every one of them.
//! The account comes from the receivers and the dead-letter stream, not from the worker.

mod account;
mod receivers;
mod report;
mod script;
mod system;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use waypost_broker::connection::ConnectionConfig;
use waypost_broker::names::Names;
use waypost_broker::publisher::{Destination, OutboundMessage, Publisher};
use waypost_broker::stream_reader::{EndDetection, StreamReader};
use waypost_broker::topology::Topology;
use waypost_broker::topology_status::TopologyStatus;
use waypost_core::dead_letter::DeadLetter;

use super::error::CliError;
use super::serve::stop_on_signals;
use super::settings::Settings;
use crate::app::{App, broker_address};
use crate::config::Config;
use crate::telemetry;
use account::DemoLedger;
use receivers::{Behaviour, DemoReceiver};
use script::Script;
use system::DemoSystem;

/// The number of events in flight to the broker at once.
const IN_FLIGHT: usize = 512;

/// Much longer than the demo needs.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(180);

#[derive(Args)]
pub(super) struct Demo {
    /// How many events to publish
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: u32,
    /// Afterwards keep everything running until Ctrl-C, and print the addresses
    #[arg(long)]
    stay: bool,
    /// Print the account as JSON
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
                "{error}\nThe demo needs a RabbitMQ. Start one with `make demo`, or set WAYPOST_BROKER__URL"
            ))
        })?;
        let result = self.run_worker(&config, broker, &topology, &connection, &stop).await;
        // Delete the broker objects even after an error.
        topology.delete(&connection).await.map_err(CliError::new)?;
        result
    }

    async fn run_worker(
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
        let (publisher, publisher_task) = Publisher::start(broker, topology.clone());
        let queues = topology.names.event_queues(topology.shards);
        let system = DemoSystem { api, names: topology.names.clone(), queues, connection };
        let scenario = Scenario { system, publisher };
        let result = tokio::select! {
            result = scenario.run(self) => result,
            () = stop.cancelled() => Err(CliError::new("stopped before the end")),
        };
        if self.stay && result.is_ok() {
            stop.cancelled().await;
        }
        stop_worker.cancel();
        let worker_result = worker.await.map_err(CliError::new)?.map_err(CliError::new);
        drop(scenario);
        publisher_task.await.map_err(CliError::new)?;
        result.and(worker_result)
    }

    /// Settings of the demo's own worker. Its retries end within seconds.
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
            // Failed attempts are expected here.
            ("log.level", "error"),
        ];
        let is_reserved = |(key, _): &&(String, String)| settings.iter().any(|(reserved, _)| reserved == key);
        if let Some((key, _)) = self.settings.overrides.iter().find(is_reserved) {
            return Err(CliError::Usage(format!("{key} can't be set: the demo has its own value for it")));
        }
        self.settings.overrides.extend(settings.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Ok(())
    }
}

struct Scenario<'a> {
    system: DemoSystem<'a>,
    publisher: Publisher,
}

impl Scenario<'_> {
    async fn run(&self, demo: &Demo) -> Result<(), CliError> {
        let receivers = [
            DemoReceiver::start("agent", Behaviour::Healthy).await?,
            DemoReceiver::start("offers", Behaviour::FailsTwice).await?,
            DemoReceiver::start("survey", Behaviour::Gone).await?,
            DemoReceiver::start("name", Behaviour::Broken).await?,
        ];
        let script = Script::new(&receivers);
        script.apply(&self.system.api).await?;
        if !demo.json {
            report::opening(&self.system.api, &receivers, demo.events);
        }

        let ledger = Arc::new(DemoLedger::default());
        let dead_letters = self.follow_dead_letters(ledger.clone());
        let publish_and_wait = async {
            let publish = self.publish(&script, demo.events, &ledger);
            let watch = report::progress(&ledger, &receivers, demo.events, &self.system);
            tokio::try_join!(publish, watch).map(|_| ())
        };
        tokio::select! {
            result = dead_letters => result?,
            result = tokio::time::timeout(SETTLE_TIMEOUT, publish_and_wait) => match result {
                Ok(result) => result?,
                Err(_) => eprintln!("not every event was settled within {} s", SETTLE_TIMEOUT.as_secs()),
            },
        }

        let demo_report = ledger.report(&receivers, &self.system).await?;
        if demo.json {
            report::json(&demo_report)
        } else {
            report::account(&demo_report, &receivers)
        }
        if demo.stay {
            report::addresses(&self.system.api, &self.system.names, &receivers);
        }
        if demo_report.is_balanced() { Ok(()) } else { Err(CliError::new("not all deliveries are accounted for")) }
    }

    /// Publishes the events through the broker, as the platform does.
    async fn publish(&self, script: &Script, events: u32, ledger: &DemoLedger) -> Result<(), CliError> {
        let publishing = futures_util::stream::iter(0..events).map(|number| {
            let step = script.step(number);
            let destination =
                Destination::Exchange { name: self.system.names.events(), routing_key: script::CAMPAIGN_ID.to_owned() };
            let message = OutboundMessage::new(destination, step.event_id.clone(), step.body());
            async { self.publisher.publish(message).await }
        });
        let mut publishing = publishing.buffer_unordered(IN_FLIGHT);
        while let Some(result) = publishing.next().await {
            result.map_err(CliError::new)?;
            ledger.add_published();
        }
        Ok(())
    }

    /// Reads the dead-letter stream until it is cancelled.
    async fn follow_dead_letters(&self, ledger: Arc<DemoLedger>) -> Result<(), CliError> {
        let stream = StreamReader::open(
            self.system.connection,
            &self.system.names.dead_letters(),
            EndDetection::ByLastChunk,
            None,
        )
        .await;
        let (mut stream, _) = stream.map_err(CliError::new)?;
        loop {
            let record = stream.next().await.map_err(CliError::new)?;
            if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&record.body) {
                ledger.add_dead_letter(letter);
            }
        }
    }
}
